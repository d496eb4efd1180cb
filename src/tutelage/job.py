"""A job: a recipe with its data and the models that the user brings, checked against each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from . import datasets, inference, models, native, objective, sources
from . import recipe as recipes
from .bridge import Entry
from .datasets import Dataset, Part
from .errors import DataError, ModelError
from .recipe import Network, Recipe, Schedule, Views
from .sources import Source, Teacher

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
        teacher: a teacher to learn from instead of training one.
        pupil: a student of the user's own instead of a named one, as `sources.student` takes it.
    """

    recipe: Recipe
    data: Dataset
    train: Part
    validation: Part
    precision: str
    teacher: Teacher | None = None
    pupil: Source | None = None

    def keys(self) -> dict[str, str]:
        """What each stage depends on, as a hash: a stage is done again only if it changes."""
        tree = recipes.to_dict(self.recipe)
        tree["data"].pop("path", None)
        common = {
            "data": tree["data"] | {"fingerprint": self.data.fingerprint},
            "views": tree["views"] | {"distinct": 0},
            "seed": tree["seed"],
            "precision": self.precision,
            "backend": keras.backend.backend(),
        }
        if self.teacher:
            teacher = _hash({"file": self.teacher.digest})
        else:
            plan = {"model": self._named("teacher"), "schedule": tree["schedule"]["teacher"]}
            teacher = _hash(common | plan)
        pupil = common | {
            "model": self._named("student") if self.pupil is None else self._own_student,
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
        if self.pupil is not None and not teacher:
            return sources.student(
                self.pupil,
                images=self.train.images,
                classes=self.data.classes,
                entry=_entry(self.recipe.student),
                seed=self.recipe.seed,
            )
        named = self.recipe.teacher if teacher else self.recipe.student
        return models.build(
            str(named.model),
            images=self.train.images,
            classes=len(self.data.classes),
            seed=self.recipe.seed + (_TEACHER_SEED if teacher else 0),
        )

    def held_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """The stored logits of the training and of the validation images, where those teach."""
        assert self.teacher is not None
        assert self.teacher.stored is not None
        numbers = Part(np.arange(len(self.data.train)), self.data.train.labels)
        settings = self.recipe.data
        train, validation = datasets.split(numbers, settings.validation, settings.split_seed)
        return self.teacher.stored[train.images], self.teacher.stored[validation.images]

    def _named(self, role: str) -> dict[str, Any]:
        # A name alone would take a model for its namesake of another version.
        name = getattr(self.recipe, role).model
        return {"model": name, "architecture": asdict(models.ARCHITECTURES[name])}

    @cached_property
    def _own_student(self) -> dict[str, str]:
        return {"digest": inference.digest(self.build("student"))}


def prepare(
    recipe: Recipe,
    *,
    data: Dataset | None = None,
    teacher: Source | None = None,
    student: Source | None = None,
) -> Job:
    """Find and divide the data and check that the recipe fits it; writes no run.

    Args:
        recipe: what to do.
        data: taken instead of what the recipe names.
        teacher: likewise; anything that `sources.teacher` takes.
        student: likewise; anything that `sources.student` takes.

    Returns:
        The job, ready for `experiment.run`.

    Raises:
        DataError: if the data can't be found or read.
        ModelError: if a model or the views do not fit the data.
        RecipeError: if a source can't be used.
    """
    if data is None:
        named = recipe.data
        data = datasets.load(named.name, named.path or None, size=named.size)
    train, validation = datasets.split(data.train, recipe.data.validation, recipe.data.split_seed)
    _check_views(recipe, train.images.shape[1:3])
    objective.check(recipe.loss, len(data.classes), recipe.schedule.student.batch_size)
    precision: str = recipe.schedule.precision
    if precision == "auto":
        precision = native.hardware_precision()
    pupil = student if student is not None else recipe.student.file or None
    job = Job(recipe, data, train, validation, precision, pupil=pupil)
    given = teacher if teacher is not None else recipe.teacher.file or None
    if given is not None:
        entry = _entry(recipe.teacher)
        images, classes = data.train.images, data.classes
        taken = sources.teacher(given, images=images, classes=classes, entry=entry)
        job = replace(job, teacher=taken)
    _check_models(job)
    return job


def _entry(network: Network) -> Entry:
    return Entry(network.size, network.scale or 1.0, network.mean or (), network.std or ())


def _check_views(recipe: Recipe, size: tuple[int, ...]) -> None:
    for name, pixels in (
        ("views.shift", recipe.views.shift),
        ("schedule.teacher.cutout", recipe.schedule.teacher.cutout),
        ("schedule.student.cutout", recipe.schedule.student.cutout),
    ):
        if pixels >= min(size):
            raise ModelError(
                f"{name}: expected less than the images' {min(size)} pixels, found {pixels}"
            )


def _check_models(job: Job) -> None:
    """Refuse what would come to light only when the teacher has been trained."""
    teacher, recipe = job.teacher, job.recipe
    if teacher is not None and teacher.stored is not None:
        views, cutout = recipe.views, recipe.schedule.student.cutout
        if views.flip or views.shift or cutout:
            raise DataError(
                f"{teacher.name} holds logits of the images as they are, but the student is to see "
                f"other views: set views.flip=false, views.shift=0 and schedule.student.cutout=0"
            )
    if objective.reads_layers(recipe.loss):
        if teacher is not None and teacher.model is None:
            raise ModelError(
                f"{teacher.name} has no inner layers that can be read: take a Keras model as the "
                "teacher, or a loss on logits such as loss.name=kd"
            )
        models = teacher.model if teacher else job.build("teacher"), job.build("student")
        for loss in objective.losses(recipe.loss):
            loss.validate_model_compatibility(*models)
    elif job.pupil is not None:
        job.build("student")  # says what is wrong with it


def _hash(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
