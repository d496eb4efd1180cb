"""Teacher, baseline and distilled student as resumable stages in one run folder."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tutelage import environment, storage
from tutelage import recipe as recipes
from tutelage.data import datasets
from tutelage.errors import DataNotFoundError, RunError
from tutelage.evaluation import bias_correction, evaluate, metrics
from tutelage.experiment import stages
from tutelage.experiment.spec import Job, prepare
from tutelage.kernels import accelerate
from tutelage.losses import from_recipe
from tutelage.models import loading, resolve
from tutelage.models.resolve import Teacher
from tutelage.progress import Progress
from tutelage.recipe import Recipe
from tutelage.report import markdown
from tutelage.runs import example_images, run_folder
from tutelage.runs.run_folder import STAGES, RunFolder
from tutelage.training import trainer
from tutelage.training.batches import steps_per_epoch
from tutelage.training.checkpoint import epochs_done


def default_folder(recipe: Recipe) -> Path:
    """Where a run goes if nobody says: `runs/NAME-HASH`, the hash being the recipe's."""
    return Path("runs") / f"{recipe.name}-{recipes.key(recipe)[:8]}"


def run(
    job: Job, path: Path, progress: Progress | None = None, *, tensorboard: bool = False
) -> dict[str, Any]:
    """Train what is not yet trained, measure everything on the test part, write it down.

    Args:
        job: from `prepare`.
        path: the run's folder; made if absent, gone on with if it is this job's.
        progress: hears how it goes.
        tensorboard: whether to write event files too, in the folder `tensorboard` of the run's.

    Returns:
        What is written to `results.json`.

    Raises:
        RunError: if the folder belongs to another recipe or can't be written.
        TrainingError: if a loss is not finite.
        RecipeError: if TensorBoard is asked for and not installed.
    """
    progress = progress or Progress()
    if done := run_folder.finished(path, job.key()):
        progress.note(f"already done in {path}")
        if tensorboard:
            with run_folder.opened(path, job.key(), "", tensorboard=True) as folder:
                folder.write_history()
        return done
    toml = recipes.to_toml(job.recipe)
    with run_folder.opened(path, job.key(), toml, tensorboard=tensorboard) as folder:
        teacher(job, folder, progress)
        for stage in STAGES[1:]:
            _have(stage, job, folder, progress)
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
        job, found = prepare(recipe, data=datasets.stand_in(recipe.data.name)), False
    described: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        if stage == "teacher" and job.teacher:
            described[stage] = {"taken from": job.teacher.name, "seconds": 0.0}
            continue
        model = job.build(stage)
        schedule = job.schedule(stage)
        steps = schedule.epochs * steps_per_epoch(schedule, len(job.shown(stage)))
        described[stage] = evaluate.size_figures(model)
        step = trainer.seconds_per_step(
            model,
            job.labelled(stage),
            schedule=schedule,
            settings=job.views(stage),
            precision=job.precision,
        )
        described[stage]["seconds"] = round(steps * step, 1)
    described["student"]["seconds"] += round(_seconds_to_ask(job), 1)
    return {
        "recipe": recipes.to_dict(recipe),
        "models": described,
        "seconds": round(sum(model["seconds"] for model in described.values()), 1),
        "precision": job.precision,
        "data": {"name": job.data.name, "found": found, "train": len(job.train)},
    }


def teacher(job: Job, folder: RunFolder, progress: Progress) -> Path:
    """Have a job's teacher in its folder: trained, adopted from a run beside it, or taken.

    Args:
        job: from `prepare`.
        folder: the job's, opened.
        progress: hears how it goes, and what was noticed of models that were brought.

    Returns:
        Where its file is, or would be if it were a Keras model.

    Raises:
        RunError: if the folder can't be written.
        TrainingError: if a loss is not finite.
    """
    _tell(job, progress)
    _have("teacher", job, folder, progress)
    return folder.model("teacher")


def _seconds_to_ask(job: Job) -> float:
    given = job.teacher
    if not job.recipe.loss.alpha or (given is not None and given.stored is not None):
        return 0.0
    shown = job.shown("student").images
    images = shown[: loading.BATCH]
    answer = given.answer if given else partial(loading.logits, job.build("teacher"))
    assert answer is not None
    answer(images, job.precision)  # the first call also builds
    began = time.monotonic()
    answer(images, job.precision)
    return stages.views_to_ask(job) * (time.monotonic() - began) * len(shown) / len(images)


def _all_trained(job: Job) -> list[str]:
    """The stages, the student's with each generation before the last."""
    earlier = range(1, job.recipe.loss.generations or 1)
    return [*STAGES[:2], *(f"student-{generation}" for generation in earlier), STAGES[2]]


def _have(stage: str, job: Job, folder: RunFolder, progress: Progress) -> None:
    if stage in folder.stages:
        progress.note(f"{stage}: already trained")
        return
    key = job.keys()[stage]
    if stage == "teacher" and job.teacher:
        _take(job.teacher, {"key": key, "seconds": 0.0, "history": []}, folder)
        progress.note(f"teacher: taken from {job.teacher.name}")
        return
    # The student is what a run is about: it is always trained here.
    if stage != "student" and (found := folder.neighbour(stage, key)):
        model_file, entry = found
        _adopt(model_file, stage, entry, folder)
        progress.note(f"{stage}: taken from {model_file.parent}, which has trained the same")
        return
    teacher = folder.model("teacher")
    names = _all_trained(job)[2:] if stage == "student" else [stage]
    for generation, name in enumerate(names, start=1):
        if name not in folder.stages:
            _fit(stage, name, generation, teacher, job, folder, progress)
        teacher = folder.model(name)  # of the next generation


def _fit(
    stage: str,
    name: str,
    generation: int,
    teacher: Path,
    job: Job,
    folder: RunFolder,
    progress: Progress,
) -> None:
    """Train a stage's model, of a generation, and save it by a name."""
    schedule, part, checkpoint = job.schedule(stage), job.shown(stage), folder.checkpoint(name)
    key = job.keys()[stage] if name == stage else f"{job.keys()[stage]} {name}"
    taught, asked = None, 0.0
    if stage == "student":
        taught, asked = stages.guidance(job, teacher, progress)
    progress.stage(
        name,
        schedule.epochs,
        epochs_done(checkpoint),
        steps_per_epoch(schedule, len(part)),
    )
    model, history, seconds = stages.trained(
        job,
        stage,
        taught,
        checkpoint=checkpoint,
        key=key,
        generation=generation,
        progress=progress,
        on_epoch=lambda rows: folder.write_history(stage, rows),
    )
    began = time.monotonic()
    with storage.replacing(folder.model(name)) as temporary:
        model.save(temporary)
    seconds += asked + time.monotonic() - began
    _close(name, {"key": key, "seconds": seconds, "history": history}, folder)


def _tell(job: Job, progress: Progress) -> None:
    """What was noticed of models that were brought, and whether the teacher knows anything."""
    for note in job.notes():
        progress.note(note)
    teacher = job.teacher
    if teacher is None:
        return
    if teacher.answer:
        answers = teacher.answer(job.validation.images, "float32")
    else:
        answers = job.held_logits()[1]
    if warning := resolve.doubtful(answers, job.validation.labels):
        progress.note(f"warning: {warning}")


def _take(teacher: Teacher, entry: dict[str, Any], folder: RunFolder) -> None:
    if teacher.model is None:
        folder.finish_stage("teacher", entry)  # it stays where it is
        return
    with storage.replacing(folder.model("teacher")) as temporary:
        teacher.model.save(temporary)
    _close("teacher", entry, folder)


def _adopt(source: Path, stage: str, entry: dict[str, Any], folder: RunFolder) -> None:
    with storage.replacing(folder.model(stage)) as temporary:
        shutil.copyfile(source, temporary)
    _close(stage, entry, folder)


def _close(stage: str, entry: dict[str, Any], folder: RunFolder) -> None:
    folder.finish_stage(stage, entry | {"sha256": storage.sha256(folder.model(stage))})


def _trained(stage: str, folder: RunFolder) -> tuple[keras.Model, dict[str, int]]:
    """A stage's saved model and its size."""
    path = folder.model(stage)
    if storage.sha256(path) != folder.stages[stage]["sha256"]:
        raise RunError(f"{path} has changed since it was trained: give another --out")
    model = loading.load_model(path)
    return model, evaluate.size_figures(model) | {"bytes": path.stat().st_size}


def _measure(job: Job, folder: RunFolder) -> dict[str, Any]:
    test, given = job.data.test, job.teacher
    answers: dict[str, Any] = {}
    figures: dict[str, dict[str, Any]] = {}
    validation: dict[str, dict[str, float]] = {}
    corrected: dict[str, dict[str, float]] = {}
    for stage in _all_trained(job):
        if stage == "teacher" and given is not None and given.model is None:
            if given.answer is None:
                held_out = job.held_logits()[1]  # of the test images nothing is known
            else:
                answers[stage] = given.answer(test.images, "float32")
                held_out = given.answer(job.validation.images, "float32")
            size: dict[str, int] = {}
        else:
            model, size = _trained(stage, folder)
            answers[stage] = loading.logits(model, test.images)
            held_out = loading.logits(model, job.validation.images)
        if stage in answers:
            figures[stage] = {
                **metrics.score(answers[stage], test.labels, answers.get("teacher")),
                **size,
                "seconds": round(folder.stages[stage]["seconds"], 3),
            }
        score = metrics.score(held_out, job.validation.labels)
        validation[stage] = {name: score[name] for name in ("accuracy", "nll")}
        if job.unseen and stage != "teacher":
            offset = bias_correction.find(held_out, job.validation.labels, job.unseen).offset
            raised = bias_correction.raised(answers[stage], job.unseen, offset)
            accuracy = metrics.score(raised, test.labels)["accuracy"]
            corrected[stage] = {"offset": offset, "accuracy": accuracy}
    accuracies = {stage: figures[stage]["accuracy"] for stage in STAGES if stage in figures}
    results = {
        "name": job.recipe.name,
        "models": figures,
        "validation": validation,
        "verdict": metrics.gap_closed(**{"teacher": None} | accuracies),
        "data": {
            "name": job.data.name,
            "fingerprint": job.data.fingerprint,
            "classes": list(job.data.classes),
            "train": len(job.train),
            "validation": len(job.validation),
            "test": len(test),
        }
        | ({} if job.pool is None else {"unlabelled": len(job.pool)})
        | ({"validation_in_train": True} if job.whole else {})
        | ({} if not job.unseen else {"transfer": len(job.labelled("student"))}),
        "recipe": recipes.to_dict(job.recipe),
        "environment": environment.describe()
        | {"precision": job.precision, "compiled": accelerate.compiled_parts()},
    }
    if corrected:
        results["corrected"] = corrected
    with storage.replacing(folder.path / "predictions.npz") as temporary:
        np.savez(temporary, index=np.arange(len(test)), labels=test.labels, **answers)
    chosen = example_images.choose(answers, test.labels, from_recipe.temperature(job.recipe.loss))
    with storage.replacing(folder.path / "pictures.npz") as temporary:
        example_images.save(temporary, chosen, test.images)
    folder.write_text("report.md", markdown.markdown(results, answers, test.labels))
    # Last, for its presence says that the run is done.
    folder.write_text("results.json", json.dumps(results, indent=1) + "\n")
    return results
