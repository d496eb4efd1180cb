"""Preparation of an experiment: loads and splits the data, checks the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tutelage import storage
from tutelage.data import datasets, splitting
from tutelage.data import unlabeled as unlabeled_images
from tutelage.data.augmented_views import AugmentedViews
from tutelage.data.content import Images, Part, concatenated
from tutelage.data.datasets import Dataset
from tutelage.errors import DataError, ModelError, RecipeError
from tutelage.experiment import rehearsal
from tutelage.experiment.spec import (
    Experiment,
    StageSpec,
    preprocessing,
    settings_of,
    with_shift,
)
from tutelage.kernels import accelerate
from tutelage.losses import LabeledLoss, from_recipe
from tutelage.models import resolve
from tutelage.models.ensemble import ensemble
from tutelage.models.resolve import Teacher
from tutelage.models.source import Source
from tutelage.progress import Progress
from tutelage.recipe import SETTINGS, Recipe, Schedule
from tutelage.training import optimizers, schedules
from tutelage.training.batches import images_per_step


def prepare(
    recipe: Recipe,
    *,
    data: Dataset | None = None,
    teacher: Source | Sequence[Source] | None = None,
    student: Source | None = None,
    unlabeled: Images | None = None,
    train_teacher: bool = False,
    progress: Progress | None = None,
) -> Experiment:
    """Load and split the data, load given models, and check that everything is compatible.

    Args:
        recipe: the recipe.
        data: overrides the recipe's data.
        teacher: overrides the recipe's; any source for `resolve.teacher`, or a list of them.
        student: overrides the recipe's; any source for `resolve.student`.
        unlabeled: overrides the recipe's; uint8 images of the data's shape.
        train_teacher: whether `teacher` is a network to train, any source for `resolve.student`.
        progress: notified of each image while many are decoded.

    Returns:
        The experiment, ready for `runner.run`; nothing is trained or written yet.

    Raises:
        DataError: if the data can't be found or read.
        ModelError: if a model or the views don't match the data.
        RecipeError: if a source can't be used.
    """
    storage.cache_limit()  # a bad value is refused before the first epoch
    _check_optimizers(recipe)
    section = recipe.data
    if data is None:
        data = datasets.from_recipe(
            section, originals=recipe.views.crop is not None, progress=progress
        )
    without_labels: Images | None = None
    if section.labels is not None:
        data, without_labels = _fewer_labels(data, section.labels, section.split_seed)
    train, validation = data.split(section.validation, section.split_seed)
    if unknown := [name for name in section.transfer or () if name not in data.classes]:
        raise RecipeError(
            f"data.transfer: expected names among {', '.join(data.classes)}, "
            f"found {', '.join(unknown)}"
        )
    _check_views(recipe, train.images.shape[1:3])
    precision: str = recipe.schedule.precision
    if precision == "auto":
        precision = accelerate.hardware_precision()
    notes = data.notes
    if unlabeled is None and section.unlabeled is not None:
        unlabeled, more = unlabeled_images.read(
            section.unlabeled,
            like=train.images,
            skip_damaged=bool(section.skip_damaged),
            progress=progress,
        )
        notes += more
    if without_labels is not None:
        given = unlabeled
        unlabeled = without_labels if given is None else concatenated(without_labels, given)
    network = recipe.teacher.own if teacher is None else teacher if train_teacher else None
    experiment = Experiment(
        recipe=recipe,
        data=data,
        train=train,
        validation=validation,
        precision=precision,
        teacher=None if train_teacher else _teacher(teacher, recipe, data),
        teacher_network=network,
        student=recipe.student.file or recipe.student.own if student is None else student,
        unlabeled=unlabeled,
        notes=notes,
    )
    check(experiment)
    return experiment


def training_views(
    recipe: Recipe, role: str, progress: Progress | None = None
) -> tuple[AugmentedViews, np.ndarray, tuple[str, ...]]:
    """The augmented training images of a recipe.

    Args:
        recipe: the recipe.
        role: `"teacher"` or `"student"`.
        progress: notified of each image while many are decoded.

    Returns:
        The views, the images' labels, and the names of the classes.

    Raises:
        DataError: if the data can't be found or read.
        ModelError: if the views don't match the images.
    """
    originals = recipe.views.crop is not None
    data = datasets.from_recipe(recipe.data, originals=originals, progress=progress)
    train, _ = data.split(recipe.data.validation, recipe.data.split_seed)
    _check_views(recipe, train.images.shape[1:3])
    schedule = recipe.schedule.teacher if role == "teacher" else recipe.schedule.student
    views = with_shift(recipe.views, schedule)
    return (
        AugmentedViews(train.images, views, recipe.seed, schedule.cutout),
        train.labels,
        data.classes,
    )


def check(experiment: Experiment) -> None:
    """Check early what would otherwise fail only after the teacher is trained.

    Args:
        experiment: the experiment; its loss, data and models are checked for compatibility.

    Raises:
        DataError: if the data doesn't match the teacher or the loss.
        ModelError: if a model or the loss doesn't match.
        RecipeError: if the loss doesn't support unlabeled images.
    """
    recipe = experiment.recipe
    batch_size, where = recipe.schedule.student.batch_size, "schedule.student.batch_size"
    if (stream := experiment.data.stream) is not None:
        batch_size, where = stream.smallest, f"{stream.loader.where}: images of each batch"
    from_recipe.check(recipe.loss, len(experiment.data.classes), batch_size, where)
    if experiment.unlabeled is not None:
        _check_unlabeled(experiment.unlabeled, recipe, experiment.train.images.shape[1:])
    for stage in experiment.stages:
        _check_parts(stage)
        _check_fine_tuning(stage)
    teacher, student = experiment.stage("teacher"), experiment.stage("student")
    if teacher.given is not None and teacher.given.stored is not None:
        _check_stored(experiment, teacher.given, student)
    if from_recipe.reads_layers(recipe.loss):
        if teacher.given is not None and teacher.given.model is None:
            raise ModelError(
                f"{teacher.given.name} has no readable intermediate layers: use a Keras model "
                "as the teacher, or a loss on logits such as loss.name=kd"
            )
        models = teacher.given.model if teacher.given else teacher.build(), student.build()
        for loss in from_recipe.losses(recipe.loss):
            loss.validate_model_compatibility(*models)
    if teacher.given is not None and teacher.given.model is not None:
        rehearsal.check_file(teacher.given.model, teacher.given.name, experiment.validation.images)
    for stage in (teacher, student):
        own_loss = stage.targets is not None and any(t.own for t in recipe.loss.terms())
        if stage.source is not None or own_loss:
            rehearsal.rehearse(stage)


def _fewer_labels(data: Dataset, fraction: float, seed: int) -> tuple[Dataset, Images]:
    """A data set with a fraction of its training labels, and the images of the others."""
    if data.stream is not None:
        raise RecipeError(
            "data.labels: expected none with a loader of training images, whose labels can't be "
            "left out; give a data set or arrays"
        )
    indices = Part(np.arange(len(data.train)), data.train.labels)
    train, held_out = splitting.at(indices, len(indices) - data.held_out)
    others, labeled = splitting.split(train, fraction, seed, data.titles)
    note = (
        f"the labels of {len(labeled):,} of {len(train):,} training images are used; of the "
        "others, the student learns what the teacher answers"
    )
    kept = data.train.take(np.concatenate([labeled.images[:], held_out.images[:]]))
    return (
        replace(data, train=kept, notes=(*data.notes, note)),
        data.train.take(others.images[:]).images,
    )


def _teacher(
    source: Source | Sequence[Source] | None, recipe: Recipe, data: Dataset
) -> Teacher | None:
    """The given teacher or the recipe's file, if any; a list is an ensemble."""
    source = recipe.teacher.file if source is None else source
    if isinstance(source, str) and not source:
        return None
    images, classes, entry = data.train.images, data.classes, preprocessing(recipe.teacher)
    if not isinstance(source, list | tuple):
        return resolve.teacher(source, images=images, classes=classes, preprocessing=entry)
    members = [
        resolve.teacher(s, images=images, classes=classes, preprocessing=entry) for s in source
    ]
    return ensemble(members, recipe.teacher.combine or "logits")


def _check_parts(stage: StageSpec) -> None:
    images = images_per_step(stage.schedule, len(stage.train))
    if stage.stream is not None:
        images = stage.stream.smallest
    if (parts := stage.schedule.gradient_accumulation_steps or 1) > images:
        raise RecipeError(
            f"schedule.{_section(stage)}."
            f"gradient_accumulation_steps: expected at most the {images} images of each step, "
            f"found {parts}"
        )


def _check_fine_tuning(stage: StageSpec) -> None:
    schedule, where = stage.schedule, f"schedule.{_section(stage)}"
    for name in ("layer_decay", "frozen_epochs"):
        if getattr(schedule, name) and stage.source is None and stage.given is None:
            raise RecipeError(
                f"{where}.{name}: expected none for a model that is trained from the start, found "
                f"{getattr(schedule, name)}; it is for fine-tuning a given student"
            )
    loss = None if stage.targets is None else stage.targets.loss
    if (
        schedule.frozen_epochs
        and loss is not None
        and loss.alpha == 1
        and not any(term.name in SETTINGS["temperature"] for term in loss.terms())
    ):
        raise RecipeError(
            f"{where}.frozen_epochs: expected a loss of the head, which these epochs train alone, "
            f"found loss.alpha = 1 with {', '.join(term.name for term in loss.terms())}; give a "
            "smaller alpha, or a loss on logits"
        )


def _section(stage: StageSpec) -> str:
    return "teacher" if stage.role == "teacher" else "student"


def _check_optimizers(recipe: Recipe) -> None:
    for name in ("teacher", "student"):
        schedule: Schedule = getattr(recipe.schedule, name)
        try:
            optimizers.build(schedule, schedules.build(schedule, steps=1))
        except RecipeError as error:
            raise RecipeError(f"schedule.{name}.{error}") from error


def _check_views(recipe: Recipe, size: tuple[int, ...]) -> None:
    for name, pixels in (
        ("views.shift", recipe.views.shift),
        ("schedule.teacher.shift", recipe.schedule.teacher.shift or 0),
        ("schedule.student.shift", recipe.schedule.student.shift or 0),
        ("schedule.teacher.cutout", recipe.schedule.teacher.cutout),
        ("schedule.student.cutout", recipe.schedule.student.cutout),
    ):
        if pixels >= min(size):
            raise ModelError(
                f"{name}: expected less than the images' {min(size)} pixels, found {pixels}"
            )


def _check_stored(experiment: Experiment, teacher: Teacher, student: StageSpec) -> None:
    if student.schedule.cutout or settings_of(student.views) != {"flip": False, "shift": 0}:
        raise DataError(
            f"{teacher.name} contains logits of unaugmented images, but the student would see "
            "augmented ones: set views.flip=false, views.shift=0 and schedule.student.cutout=0, "
            "and leave out the other views"
        )
    if experiment.unlabeled is not None:
        raise DataError(
            f"{teacher.name} contains logits of the data set's images only: unlabeled images need "
            "a model as the teacher"
        )


def _check_unlabeled(images: Images, recipe: Recipe, shape: tuple[int, ...]) -> None:
    if recipe.schedule.student.sampling:
        raise RecipeError(
            "schedule.student.sampling: expected none with unlabeled images, whose classes are not "
            f"known, found {recipe.schedule.student.sampling}; leave it out"
        )
    if recipe.loss.alpha not in (1, "auto"):
        raise RecipeError(
            "loss.alpha: expected 1, as unlabeled images have no hard loss, found "
            f"{recipe.loss.alpha}; give --alpha 1"
        )
    for term, loss in zip(recipe.loss.terms(), from_recipe.losses(recipe.loss), strict=True):
        if isinstance(loss, LabeledLoss):
            raise RecipeError(
                f"loss.name: {term.name} needs labels, which unlabeled images do not have; use kd"
            )
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise DataError(
            f"unlabeled images: expected uint8 of shape {('n', *shape)}, found {images.dtype} "
            f"of shape {images.shape}"
        )
