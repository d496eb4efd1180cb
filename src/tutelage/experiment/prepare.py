"""Preparation of an experiment: loads and splits the data, checks the models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage import storage
from tutelage.data import datasets
from tutelage.data import unlabeled as unlabeled_images
from tutelage.data.datasets import Dataset
from tutelage.errors import DataError, ModelError, RecipeError
from tutelage.experiment import rehearsal
from tutelage.experiment.spec import Experiment, StageSpec, preprocessing
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
    unlabeled: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Experiment:
    """Load and split the data, load given models, and check that everything is compatible.

    Args:
        recipe: the recipe.
        data: overrides the recipe's data.
        teacher: overrides the recipe's; any source for `resolve.teacher`, or a list of them.
        student: overrides the recipe's; any source for `resolve.student`.
        unlabeled: overrides the recipe's; uint8 images of the data's shape.
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
        path = section.path or None
        data = datasets.load(section.name, path, size=section.size, progress=progress)
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
        shape = train.images.shape[1:]
        unlabeled, more = unlabeled_images.read(section.unlabeled, shape=shape, progress=progress)
        notes += more
    experiment = Experiment(
        recipe=recipe,
        data=data,
        train=train,
        validation=validation,
        precision=precision,
        teacher=_teacher(recipe.teacher.file if teacher is None else teacher, recipe, data),
        student=recipe.student.file or None if student is None else student,
        unlabeled=unlabeled,
        notes=notes,
    )
    check(experiment)
    return experiment


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
    batch_size = recipe.schedule.student.batch_size
    from_recipe.check(recipe.loss, len(experiment.data.classes), batch_size)
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
    if student.source is not None:
        rehearsal.rehearse(student)


def _teacher(
    source: Source | Sequence[Source] | None, recipe: Recipe, data: Dataset
) -> Teacher | None:
    """The given teacher, if any; a list is an ensemble."""
    if source is None or (isinstance(source, str) and not source):
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
    if (parts := stage.schedule.gradient_accumulation_steps or 1) > images:
        raise RecipeError(
            f"schedule.{_section(stage)}."
            f"gradient_accumulation_steps: expected at most the {images} images of a step, "
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
    if student.views.flip or student.views.shift or student.schedule.cutout:
        raise DataError(
            f"{teacher.name} contains logits of unaugmented images, but the student would see "
            "augmented ones: set views.flip=false, views.shift=0 and schedule.student.cutout=0"
        )
    if experiment.unlabeled is not None:
        raise DataError(
            f"{teacher.name} contains logits of the data set's images only: unlabeled images need "
            "a model as the teacher"
        )


def _check_unlabeled(images: np.ndarray, recipe: Recipe, shape: tuple[int, ...]) -> None:
    if recipe.schedule.student.sampling:
        raise RecipeError(
            "schedule.student.sampling: expected none with unlabeled images, whose classes are not "
            f"known, found {recipe.schedule.student.sampling}; leave it out"
        )
    if recipe.loss.alpha < 1:
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
