"""Teacher, baseline and distilled student as resumable stages in one run folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from . import (
    datasets,
    environment,
    inference,
    knowledge,
    metrics,
    models,
    native,
    objective,
    report,
    runfolder,
    storage,
    training,
)
from . import recipe as recipes
from .datasets import Dataset, Part
from .errors import DataNotFoundError, ModelError, RunError
from .progress import Progress
from .recipe import Recipe, Schedule, Views
from .runfolder import STAGES, RunFolder

# The teacher's weights begin elsewhere than the student's, whatever the seed.
_TEACHER_SEED = 1_000_003


@dataclass(frozen=True)
class Job:
    """A recipe with its data: all that decides what a run comes to.

    Attributes:
        recipe: what to do.
        data: the data set.
        train: its training part less the validation images.
        validation: the images held out of training.
        precision: `"float32"` or `"bfloat16"`, what training computes in.
        teacher_file: a trained teacher to use instead of training one.
    """

    recipe: Recipe
    data: Dataset
    train: Part
    validation: Part
    precision: str
    teacher_file: Path | None

    def keys(self) -> dict[str, str]:
        """What each stage depends on, as a hash: a stage is done again only if it changes."""
        tree = recipes.to_dict(self.recipe)
        tree["data"].pop("path", None)
        for role in ("teacher", "student"):
            # A name alone would take a model for its namesake of another version.
            tree[role]["architecture"] = asdict(models.ARCHITECTURES[tree[role]["model"]])
        common = {
            "data": tree["data"] | {"fingerprint": self.data.fingerprint},
            "views": tree["views"] | {"distinct": 0},
            "seed": tree["seed"],
            "precision": self.precision,
            "backend": keras.backend.backend(),
        }
        if self.teacher_file:
            teacher = _hash({"file": storage.sha256(self.teacher_file)})
        else:
            plan = {"model": tree["teacher"], "schedule": tree["schedule"]["teacher"]}
            teacher = _hash(common | plan)
        pupil = common | {
            "model": tree["student"],
            "schedule": tree["schedule"]["student"],
            "views": tree["views"],
        }
        student = pupil | {"teacher": teacher, "loss": tree["loss"]}
        return {"teacher": teacher, "baseline": _hash(pupil), "student": _hash(student)}

    def key(self) -> str:
        """What the whole run depends on."""
        return _hash(self.keys())

    def schedule(self, stage: str) -> Schedule:
        """A stage's schedule; baseline and student have the same."""
        schedule = self.recipe.schedule
        return schedule.teacher if stage == "teacher" else schedule.student

    def views(self, stage: str) -> Views:
        """A stage's views; baseline and student have the same, the teacher new ones each epoch."""
        views = self.recipe.views
        return replace(views, distinct=0) if stage == "teacher" else views

    def build(self, stage: str) -> keras.Model:
        """A stage's model with its initial weights; baseline and student begin alike."""
        teacher = stage == "teacher"
        return models.build(
            (self.recipe.teacher if teacher else self.recipe.student).model,
            images=self.train.images,
            classes=len(self.data.classes),
            seed=self.recipe.seed + (_TEACHER_SEED if teacher else 0),
        )


def prepare(recipe: Recipe) -> Job:
    """Find and divide the data and check that the recipe fits it; writes no run.

    Args:
        recipe: what to do.

    Returns:
        The job, ready for `run`.

    Raises:
        DataError: if the data can't be found or read.
        ModelError: if a model or the views do not fit the data.
    """
    data = datasets.load(recipe.data.name, recipe.data.path or None, size=recipe.data.size)
    return _job(recipe, data)


def default_folder(recipe: Recipe) -> Path:
    """Where a run goes if nobody says: `runs/NAME-HASH`, the hash being the recipe's."""
    return Path("runs") / f"{recipe.name}-{recipes.key(recipe)[:8]}"


def run(job: Job, path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Train what is not yet trained, measure everything on the test part, write it down.

    Args:
        job: from `prepare`.
        path: the run's folder; made if absent, gone on with if it is this job's.
        progress: hears how it goes.

    Returns:
        What is written to `results.json`.

    Raises:
        RunError: if the folder belongs to another recipe or can't be written.
        TrainingError: if a loss is not finite.
    """
    progress = progress or Progress()
    if done := runfolder.finished(path, job.key()):
        progress.note(f"already done in {path}")
        return done
    with runfolder.opened(path, job.key(), recipes.to_toml(job.recipe)) as folder:
        for stage in STAGES:
            if stage in folder.stages:
                progress.note(f"{stage}: already trained")
            else:
                _train(stage, job, folder, progress)
        progress.note(f"measuring on the {len(job.data.test):,} test images")
        return _measure(job, folder)


def plan(recipe: Recipe) -> dict[str, Any]:
    """What a run would do: models built and a few steps timed, nothing trained or written.

    Args:
        recipe: what to do.

    Returns:
        `recipe`, `models` (each with `parameters`, `macs` and `seconds` to train it),
        `seconds` in all, `precision` and `data`, ready for JSON. Where a named data set is not
        on this machine its known sizes are used, and `data.found` is false.

    Raises:
        DataError: if the data can't be read.
        ModelError: if a model or the views do not fit the data.
    """
    try:
        job, found = prepare(recipe), True
    except DataNotFoundError:
        if recipe.data.path or recipe.data.name not in datasets.GEOMETRY:
            raise
        job, found = _job(recipe, datasets.stand_in(recipe.data.name)), False
    described: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        model = job.build(stage)
        schedule = job.schedule(stage)
        steps = schedule.epochs * training.steps_per_epoch(schedule, len(job.train))
        step = training.seconds_per_step(
            model,
            job.train,
            schedule=schedule,
            settings=recipe.views,
            precision=job.precision,
        )
        described[stage] = {
            "parameters": model.count_params(),
            "macs": models.macs(model),
            "seconds": 0.0 if stage == "teacher" and job.teacher_file else round(steps * step, 1),
        }
    described["student"]["seconds"] += round(_seconds_to_ask(job), 1)
    return {
        "recipe": recipes.to_dict(recipe),
        "models": described,
        "seconds": round(sum(model["seconds"] for model in described.values()), 1),
        "precision": job.precision,
        "data": {"name": job.data.name, "found": found, "train": len(job.train)},
    }


def guidance(job: Job, teacher: Path, progress: Progress) -> tuple[training.Guidance, float]:
    """What a job's student is taught with; asks the teacher for the views not yet stored.

    Args:
        job: from `prepare`.
        teacher: its trained teacher, a `.keras` file.
        progress: hears of each view asked for.

    Returns:
        The guidance, without knowledge where alpha is 0, and the seconds that the
        teacher's answers took whenever they were stored.

    Raises:
        KnowledgeError: if the teacher's logits are not finite, or belong to something else.
        RunError: if the cache can't be written.
    """
    loss, schedule = job.recipe.loss, job.schedule("student")
    alpha = loss.alpha
    steps = schedule.epochs * training.steps_per_epoch(schedule, len(job.train))
    taught = training.Guidance(None, objective.losses(loss), alpha, objective.weights(loss, steps))
    if not alpha:
        return taught, 0.0
    model, count = inference.load_model(teacher), _views_to_ask(job)
    if objective.reads_layers(loss):
        return replace(taught, teacher=model), 0.0
    origin = knowledge.Origin(
        teacher=inference.digest(model),
        images=hashlib.sha256(np.ascontiguousarray(job.train.images).data).hexdigest(),
        seed=job.recipe.seed,
        flip=job.recipe.views.flip,
        shift=job.recipe.views.shift,
        cutout=job.recipe.schedule.student.cutout,
        precision=job.precision,
        shape=(len(job.train), len(job.data.classes)),
    )
    held = knowledge.Knowledge(knowledge.home() / origin.key(), origin)
    held.ask(
        lambda images: inference.logits(model, images, job.precision),
        job.train.images,
        count,
        progress,
    )
    return replace(taught, knowledge=held), held.seconds(count)


def _job(recipe: Recipe, data: Dataset) -> Job:
    train, validation = datasets.split(data.train, recipe.data.validation, recipe.data.split_seed)
    shape = train.images.shape[1:]
    for name, pixels in (
        ("views.shift", recipe.views.shift),
        ("schedule.teacher.cutout", recipe.schedule.teacher.cutout),
        ("schedule.student.cutout", recipe.schedule.student.cutout),
    ):
        if pixels >= min(shape[:2]):
            raise ModelError(
                f"{name}: expected less than the images' {min(shape[:2])} pixels, found {pixels}"
            )
    objective.check(recipe.loss, len(data.classes), recipe.schedule.student.batch_size)
    precision: str = recipe.schedule.precision
    if precision == "auto":
        precision = native.hardware_precision()
    teacher_file = _teacher_file(recipe.teacher.file) if recipe.teacher.file else None
    if teacher_file:
        teacher = inference.load_model(teacher_file)
        inference.check_fit(teacher, teacher_file, shape, len(data.classes))
    job = Job(recipe, data, train, validation, precision, teacher_file)
    if objective.reads_layers(recipe.loss):
        teacher = inference.load_model(teacher_file) if teacher_file else job.build("teacher")
        student = job.build("student")
        for loss in objective.losses(recipe.loss):
            loss.validate_model_compatibility(teacher, student)
    return job


def _teacher_file(source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        path = path / "teacher.keras"
    if not path.is_file():
        raise ModelError(
            f"no teacher at {source}: expected a .keras file or a run folder with teacher.keras"
        )
    return path


def _views_to_ask(job: Job) -> int:
    epochs = job.recipe.schedule.student.epochs
    return (
        epochs
        if objective.reads_layers(job.recipe.loss)
        else min(job.recipe.views.distinct or epochs, epochs)
    )


def _seconds_to_ask(job: Job) -> float:
    if not job.recipe.loss.alpha:
        return 0.0
    images = job.train.images[: inference.BATCH]
    model = inference.load_model(job.teacher_file) if job.teacher_file else job.build("teacher")
    inference.logits(model, images, job.precision)  # the first call also builds
    began = time.monotonic()
    inference.logits(model, images, job.precision)
    return _views_to_ask(job) * (time.monotonic() - began) * len(job.train) / len(images)


def _train(stage: str, job: Job, folder: RunFolder, progress: Progress) -> None:
    key, target = job.keys()[stage], folder.model(stage)
    if stage == "teacher" and job.teacher_file:
        _adopt(job.teacher_file, stage, {"key": key, "seconds": 0.0, "history": []}, folder)
        progress.note(f"teacher: taken from {job.teacher_file}")
        return
    # The student is what a run is about: it is always trained here.
    if stage != "student" and (found := folder.neighbour(stage, key)):
        model_file, entry = found
        _adopt(model_file, stage, entry, folder)
        progress.note(f"{stage}: taken from {model_file.parent}, which has trained the same")
        return
    model, schedule = job.build(stage), job.schedule(stage)
    taught, asked = None, 0.0
    if stage == "student":
        taught, asked = guidance(job, folder.model("teacher"), progress)
    checkpoint = folder.checkpoint(stage)
    progress.stage(
        stage,
        schedule.epochs,
        training.epochs_done(checkpoint),
        training.steps_per_epoch(schedule, len(job.train)),
    )
    history = training.fit(
        model,
        job.train,
        job.validation,
        schedule=schedule,
        settings=job.views(stage),
        seed=job.recipe.seed,
        precision=job.precision,
        checkpoint=checkpoint,
        key=key,
        guidance=taught,
        progress=progress,
        on_epoch=lambda rows: folder.write_history(stage, rows),
    )
    began = time.monotonic()
    training.settle(model, job.train.images, seed=job.recipe.seed)
    with storage.replacing(target) as temporary:
        model.save(temporary)
    seconds = asked + sum(row["seconds"] for row in history) + time.monotonic() - began
    _close(stage, {"key": key, "seconds": seconds, "history": history}, folder)


def _adopt(source: Path, stage: str, entry: dict[str, Any], folder: RunFolder) -> None:
    with storage.replacing(folder.model(stage)) as temporary:
        shutil.copyfile(source, temporary)
    _close(stage, entry, folder)


def _close(stage: str, entry: dict[str, Any], folder: RunFolder) -> None:
    folder.finish_stage(stage, entry | {"sha256": storage.sha256(folder.model(stage))})


def _measure(job: Job, folder: RunFolder) -> dict[str, Any]:
    test = job.data.test
    answers: dict[str, Any] = {}
    figures: dict[str, dict[str, Any]] = {}
    validation: dict[str, dict[str, float]] = {}
    for stage in STAGES:
        path = folder.model(stage)
        if storage.sha256(path) != folder.stages[stage]["sha256"]:
            raise RunError(f"{path} has changed since it was trained: give another --out")
        model = inference.load_model(path)
        answers[stage] = inference.logits(model, test.images)
        figures[stage] = {
            **metrics.score(answers[stage], test.labels, answers["teacher"]),
            **inference.size_figures(model, path),
            "seconds": round(folder.stages[stage]["seconds"], 3),
        }
        held_out = inference.logits(model, job.validation.images)
        score = metrics.score(held_out, job.validation.labels)
        validation[stage] = {name: score[name] for name in ("accuracy", "nll")}
    results = {
        "name": job.recipe.name,
        "models": figures,
        "validation": validation,
        "verdict": metrics.gap_closed(*(figures[stage]["accuracy"] for stage in STAGES)),
        "data": {
            "name": job.data.name,
            "fingerprint": job.data.fingerprint,
            "classes": list(job.data.classes),
            "train": len(job.train),
            "validation": len(job.validation),
            "test": len(test),
        },
        "recipe": recipes.to_dict(job.recipe),
        "environment": environment.describe()
        | {"precision": job.precision, "compiled": native.compiled_parts()},
    }
    with storage.replacing(folder.path / "predictions.npz") as temporary:
        np.savez(temporary, index=np.arange(len(test)), labels=test.labels, **answers)
    folder.write_text("report.md", report.markdown(results, answers, test.labels))
    # Last, for its presence says that the run is done.
    folder.write_text("results.json", json.dumps(results, indent=1) + "\n")
    return results


def _hash(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
