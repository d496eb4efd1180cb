"""Training of an experiment's stages, in order, in a run folder."""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import keras

from tutelage import recipe as recipes
from tutelage.data import datasets
from tutelage.errors import DataNotFoundError
from tutelage.evaluation import chance, evaluate
from tutelage.experiment import automatic_alpha, measure, rehearsal, stages
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment, StageSpec, hash_of
from tutelage.experiment.stage_logits import StageLogits
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Recipe
from tutelage.recipe.reference import is_reference
from tutelage.runs import run_folder
from tutelage.runs.run_folder import RunFolder
from tutelage.tracking.trackers import Trackers
from tutelage.training import trainer
from tutelage.training.checkpoint import epochs_done


def default_folder(recipe: Recipe) -> Path:
    """The default folder of a run: `runs/NAME-HASH`, with the recipe's hash."""
    return Path("runs") / f"{recipe.name}-{recipes.key(recipe)[:8]}"


def run(
    experiment: Experiment,
    path: Path,
    progress: Progress | None = None,
    *,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train the stages that are not yet trained, evaluate them, and write the results.

    Args:
        experiment: from `prepare`.
        path: the run's folder; created if absent, continued if it is this experiment's.
        progress: notified of each stage and epoch.
        tensorboard: adds `tensorboard` to the recipe's `track`: event files in the subfolder of
            that name.

    Returns:
        The contents of `results.json`.

    Raises:
        RunError: if the folder belongs to another recipe or can't be written.
        TrainingError: if a loss is not finite.
        MissingExtraError: if the package of a tracker is not installed.
    """
    progress, key = progress or Progress(), experiment.key()
    stream = experiment.data.stream
    sampled = stream is not None and not stream.repeats  # else the sample is always the same
    if sampled and (sample := run_folder.kept_sample(path)) is not None:
        experiment = experiment.with_sample(sample)
    names = dict.fromkeys((*(experiment.recipe.track or ()), *["tensorboard"] * tensorboard))
    trackers = Trackers(tuple(names), path, experiment.recipe, progress)
    toml = recipes.to_toml(experiment.recipe)
    changed = run_folder.changed(path, experiment.answers)
    for owner in (key, hash_of(experiment.former_keys())):
        results = run_folder.finished(path, owner)
        if results and not changed:
            progress.note(f"already done in {path}")
            if sampled:
                warnings.warn(
                    f"{path} is finished and returned as it is: the loader gives other images in "
                    "each pass, so whether they are those of that run is not known; to train "
                    "anew, give another folder as out",
                    stacklevel=3,
                )
            if trackers.incomplete:
                with run_folder.opened(path, owner, toml, trackers) as folder:
                    trackers.finish(folder.histories, results)
            return results
    with run_folder.opened(path, key, toml, trackers) as folder:
        if sampled:
            folder.keep_sample(experiment.train)
        _follow(experiment, folder, progress)
        trackers.write(folder.histories)  # before a training: a failure is noted now
        outputs = StageLogits(experiment, folder)
        _report_notes(experiment, outputs, progress)
        for stage in experiment.stages:
            _complete(stage, experiment, folder, outputs, progress)
        progress.note(f"measuring on the {len(experiment.data.test):,} test images")
        results = measure.measure(experiment, folder, outputs)
        trackers.finish(folder.histories, results)
        return results


def train_teacher(experiment: Experiment, folder: RunFolder, progress: Progress) -> Path:
    """Train an experiment's teacher, copy it from a neighboring run, or take the given one.

    Args:
        experiment: from `prepare`.
        folder: the experiment's opened folder.
        progress: notified of each epoch, and of notes on the given models.

    Returns:
        The path of its file, which exists only if it is a Keras model.

    Raises:
        RunError: if the folder can't be written.
        TrainingError: if a loss is not finite.
    """
    outputs = StageLogits(experiment, folder)
    _report_notes(experiment, outputs, progress)
    _follow(experiment, folder, progress)
    _complete(experiment.stages[0], experiment, folder, outputs, progress)
    return folder.model(experiment.stages[0].name)


def plan(recipe: Recipe) -> dict[str, Any]:
    """Plan a run: build the models and time a few steps, without training or writing files.

    Args:
        recipe: the recipe.

    Returns:
        `recipe`, `models` (each with `parameters`, `macs` and training `seconds`), total
        `seconds`, `precision` and `data`, ready for JSON. If a named data set is not on this
        machine, its known sizes are used, and `data.found` is false.

    Raises:
        DataError: if the data can't be read.
        ModelError: if a model or the views don't match the data.
    """
    try:
        experiment, found = prepare(recipe), True
    except DataNotFoundError:
        if recipe.data.path or recipe.data.name not in datasets.GEOMETRY:
            raise
        stand_in = datasets.stand_in(recipe.data.name)
        experiment, found = prepare(recipe, data=stand_in), False
    teacher = experiment.stages[0]
    models = {stage.name: _stage_plan(stage, teacher) for stage in experiment.final_stages}
    return {
        "recipe": recipes.to_dict(recipe),
        "models": models,
        "seconds": round(sum(model["seconds"] for model in models.values()), 1),
        "precision": experiment.precision,
        "data": {
            "name": experiment.data.name,
            "found": found,
            "train": len(experiment.train),
        },
    }


def _stage_plan(stage: StageSpec, teacher: StageSpec) -> dict[str, Any]:
    """The size and training time of a stage's model, including the teacher's logits."""
    if stage.given is not None:
        return {"taken from": stage.given.name, "seconds": 0.0}
    model = stage.build()
    figures = evaluate.size_figures(model)
    seconds = stage.steps * trainer.seconds_per_step(
        model,
        stage.labeled,
        schedule=stage.schedule,
        views=stage.views,
        precision=stage.precision,
        workers=stage.workers,
    )
    return figures | {"seconds": round(seconds, 1) + round(_seconds_of_logits(stage, teacher), 1)}


def _seconds_of_logits(stage: StageSpec, teacher: StageSpec) -> float:
    if stage.targets is None or not stage.targets.loss.alpha or stage.targets.stored is not None:
        return 0.0
    images = stage.train.images[: loading.BATCH]
    given = teacher.given
    logits = given.logits if given else partial(loading.logits, teacher.build())
    assert logits is not None
    logits(images, stage.precision)  # the first call also builds
    began = time.monotonic()
    logits(images, stage.precision)
    batches = len(stage.train) / len(images)
    return stage.targets.passes * (time.monotonic() - began) * batches


def _report_notes(experiment: Experiment, outputs: StageLogits, progress: Progress) -> None:
    """Report notes on data and given models; warn if the teacher is no better than chance."""
    for note in experiment.notes:
        progress.note(f"{experiment.data.name}: {note}")
    for stage in (experiment.stages[0], experiment.stages[-1]):  # the baseline is the same model
        for note in stage.notes:
            progress.note(f"{stage.name}: {note}")
    teacher, student = experiment.stages[0], experiment.stages[-1]
    if student.source is not None and (obstacle := rehearsal.obstacle_to_export(student)):
        progress.note(f"student: it can be trained, but not exported: {obstacle}")
    if teacher.given is None:
        return
    labels = experiment.validation.labels
    if warning := chance.warn_if_at_chance(outputs.validation(teacher), labels):
        progress.note(f"warning: {warning}{_how_to_train(experiment.recipe.teacher.file)}")


def _how_to_train(teacher: str | tuple[str, ...]) -> str:
    """How a run trains a teacher that was given as a trained one, if it may be no such."""
    if not isinstance(teacher, str) or not (is_reference(teacher) or teacher.startswith("<")):
        return ""
    return (
        "; a teacher is used as it is: to train it, set teacher.model instead of teacher.file "
        "(--train-teacher of tutelage distill, train_teacher=True in Python)"
    )


def _follow(experiment: Experiment, folder: RunFolder, progress: Progress) -> None:
    """Begin anew the stages whose given model answers otherwise than when they were trained."""
    for name in folder.follow(experiment.answers):
        progress.note(
            f"{name}: it answers otherwise than when {folder.path} was trained with it: "
            "training anew what depends on it"
        )


def _complete(
    stage: StageSpec,
    experiment: Experiment,
    folder: RunFolder,
    outputs: StageLogits,
    progress: Progress,
) -> None:
    """Complete a stage: train its model, or copy or take an existing one."""
    if stage.name in folder.stages:
        progress.note(f"{stage.name}: already trained")
        return
    entry: dict[str, Any] = {"key": stage.key, "seconds": 0.0, "history": []}
    network: keras.Model | Path | None
    if stage.given is not None:
        network, source = stage.given.model, stage.given.name  # not copied unless a Keras model
    elif stage.shared and (
        found := folder.same_stage_elsewhere(stage.name, stage.key, experiment.answers)
    ):
        network, entry = found
        source = f"{network.parent}, which has the same stage"
    else:
        chosen = automatic_alpha.resolve(stage, experiment, outputs)
        if chosen is not stage and chosen.targets is not None:
            entry["alpha"] = chosen.targets.loss.alpha
            progress.note(
                f"{stage.name}: alpha {entry['alpha']}, by the accuracies of "
                f"{chosen.targets.teacher} and baseline on the validation images"
            )
        network, history, seconds = _train(chosen, folder, progress)
        entry |= {"seconds": seconds, "history": history}
        source = ""
    folder.finish_stage(stage.name, entry, network, stage.classes, stage.geometry)
    if source:
        progress.note(f"{stage.name}: taken from {source}")


def _train(
    stage: StageSpec, folder: RunFolder, progress: Progress
) -> tuple[keras.Model, list[EpochLog], float]:
    """Train a stage; returns the model, one row per epoch, and seconds including the logits."""
    targets, logits_seconds = None, 0.0
    if stage.targets is not None:
        teacher = folder.model(stage.targets.teacher)
        targets, logits_seconds = stages.targets(stage, teacher, progress)
    checkpoint = folder.checkpoint(stage.name)
    done = epochs_done(checkpoint)
    progress.stage(stage.name, stage.schedule.epochs, done, stage.steps_of_epoch)
    model, history, seconds = stages.train(
        stage,
        targets,
        checkpoint=checkpoint,
        progress=progress,
        on_epoch=lambda rows: folder.write_history(stage.name, rows),
    )
    return model, history, logits_seconds + seconds
