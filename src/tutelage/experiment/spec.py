"""A job: a recipe with its data and the models that the user brings, checked against each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from tutelage import recipe as recipes
from tutelage.data import datasets
from tutelage.data import unlabeled as pools
from tutelage.data.datasets import Dataset, Part
from tutelage.errors import DataError, ModelError, RecipeError
from tutelage.kernels import accelerate
from tutelage.losses import LabelledLoss, from_recipe
from tutelage.models import loading, resolve, zoo
from tutelage.models.adapters import Preprocessing
from tutelage.models.ensemble import ensemble
from tutelage.models.resolve import Source, Teacher
from tutelage.recipe import Network, Recipe, Schedule, Views

# The teacher's weights begin elsewhere than the student's, whatever the seed.
_TEACHER_SEED = 1_000_003
_GENERATION_SEED = 2_000_003


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
        pool: further images of the student's, uint8, without labels.
        whole: whether baseline and student learn from the validation images too.
    """

    recipe: Recipe
    data: Dataset
    train: Part
    validation: Part
    precision: str
    teacher: Teacher | None = None
    pupil: Source | None = None
    pool: np.ndarray | None = None
    whole: bool = False

    def on_all_images(self) -> Job:
        """The same, but that baseline and student learn from the validation images too."""
        return replace(self, train=self.data.train, whole=True)

    def keys(self) -> dict[str, str]:
        """What each stage depends on, as a hash: a stage is done again only if it changes."""
        tree = recipes.to_dict(self.recipe)
        for name in ("path", "unlabelled"):
            tree["data"].pop(name, None)  # what lies there counts, not where
        transfer = tree["data"].pop("transfer", None)
        for schedule in (tree["schedule"]["teacher"], tree["schedule"]["student"]):
            schedule.pop("shift", None)  # the views have it
        common = {
            "data": tree["data"] | {"fingerprint": self.data.fingerprint},
            "views": asdict(self.views("teacher")),
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
            "model": self._named("student") if self.pupil is None else self._own_digest,
            "schedule": tree["schedule"]["student"],
            "views": asdict(self.views("student")),
        }
        if self.whole:
            pupil["trained on"] = "all images"
        if transfer is not None:
            pupil["transfer"] = sorted(set(transfer))
        student = pupil | {"teacher": teacher, "loss": tree["loss"]}
        if self.pool is not None:
            student["pool"] = resolve.order(self.pool)
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
        views, own = self.recipe.views, self.schedule(stage).shift
        if own is not None:
            views = replace(views, shift=own)
        return replace(views, distinct=0) if stage == "teacher" else views

    @property
    def unseen(self) -> list[int]:
        """The classes that baseline and student see no image of, by number."""
        names = self.recipe.data.transfer
        return [k for k, name in enumerate(self.data.classes) if names and name not in names]

    def labelled(self, stage: str) -> Part:
        """The images with labels that a stage learns from: less than all by `data.transfer`."""
        return self.train if stage == "teacher" else self._transferred(self.train)

    def shown(self, stage: str) -> Part:
        """What a stage learns from: the student has the pool too, and then no labels (-1)."""
        part = self.labelled(stage)
        if stage != "student" or self.pool is None:
            return part
        images = np.concatenate([part.images, self.pool])
        return Part(images, np.full(len(images), -1))

    def build(self, stage: str, generation: int = 1) -> keras.Model:
        """A stage's model with its initial weights; baseline and first student begin alike."""
        seed = self.recipe.seed + _GENERATION_SEED * (generation - 1)
        if stage == "teacher":
            named, seed = self.recipe.teacher, seed + _TEACHER_SEED
        elif self.pupil is not None:
            return self._own_student(seed)[0]
        else:
            named = self.recipe.student
        images = self.labelled(stage).images
        return zoo.build(str(named.model), images=images, classes=len(self.data.classes), seed=seed)

    def notes(self) -> list[str]:
        """What was noticed of the models that the user brought, a line each."""
        told = [f"teacher: {note}" for note in self.teacher.notes] if self.teacher else []
        if self.pupil is not None:
            told += [f"student: {note}" for note in self._own_student(self.recipe.seed)[1]]
        return told

    def held_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """The stored logits of the student's and of the validation images, where those teach."""
        assert self.teacher is not None
        assert self.teacher.stored is not None
        numbers = Part(np.arange(len(self.data.train)), self.data.train.labels)
        settings = self.recipe.data
        train, validation = datasets.split(numbers, settings.validation, settings.split_seed)
        shown = self._transferred(numbers if self.whole else train).images
        return self.teacher.stored[shown], self.teacher.stored[validation.images]

    def _transferred(self, part: Part) -> Part:
        names = self.recipe.data.transfer
        if names is None:
            return part
        kept = np.isin(part.labels, [self.data.classes.index(name) for name in names])
        return Part(part.images[kept], part.labels[kept])

    def _named(self, role: str) -> dict[str, Any]:
        # A name alone would take a model for its namesake of another version.
        name = getattr(self.recipe, role).model
        return {"model": name, "architecture": asdict(zoo.ARCHITECTURES[name])}

    def _own_student(self, seed: int) -> tuple[keras.Model, tuple[str, ...]]:
        assert self.pupil is not None
        images, classes = self.labelled("student").images, self.data.classes
        entry = _entry(self.recipe.student)
        return resolve.student(self.pupil, images=images, classes=classes, entry=entry, seed=seed)

    @cached_property
    def _own_digest(self) -> dict[str, str]:
        return {"digest": loading.digest(self.build("student"))}


def prepare(
    recipe: Recipe,
    *,
    data: Dataset | None = None,
    teacher: Source | Sequence[Source] | None = None,
    student: Source | None = None,
    pool: np.ndarray | None = None,
) -> Job:
    """Find and divide the data and check that the recipe fits it; writes no run.

    Args:
        recipe: what to do.
        data: taken instead of what the recipe names.
        teacher: likewise; anything that `sources.teacher` takes, or a list for an ensemble.
        student: likewise; anything that `sources.student` takes.
        pool: likewise; uint8 images without labels, of the data's shape.

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
    if unknown := [name for name in recipe.data.transfer or () if name not in data.classes]:
        raise RecipeError(
            f"data.transfer: expected names among {', '.join(data.classes)}, "
            f"found {', '.join(unknown)}"
        )
    _check_views(recipe, train.images.shape[1:3])
    precision: str = recipe.schedule.precision
    if precision == "auto":
        precision = accelerate.hardware_precision()
    if pool is None and recipe.data.unlabelled is not None:
        pool = pools.read(recipe.data.unlabelled, shape=train.images.shape[1:])
    pupil = student if student is not None else recipe.student.file or None
    given = teacher if teacher is not None else recipe.teacher.file or None
    taken = None if given is None else _taught(given, recipe, data)
    job = Job(recipe, data, train, validation, precision, taken, pupil, pool)
    check(job)
    return job


def check(job: Job) -> None:
    """Refuse a loss that doesn't fit the data, or models that don't fit it or each other.

    Args:
        job: the job.

    Raises:
        DataError: if the data doesn't go with the teacher or the loss.
        ModelError: if a model or the loss does not fit.
        RecipeError: if unlabelled images don't go with the loss.
    """
    schedule = job.recipe.schedule.student
    from_recipe.check(job.recipe.loss, len(job.data.classes), schedule.batch_size)
    _check_models(job)


def _taught(given: Source | Sequence[Source], recipe: Recipe, data: Dataset) -> Teacher:
    images, classes, entry = data.train.images, data.classes, _entry(recipe.teacher)
    several = given if isinstance(given, list | tuple) else [given]
    found = [resolve.teacher(s, images=images, classes=classes, entry=entry) for s in several]
    if several is not given:
        return found[0]
    return ensemble(found, recipe.teacher.combine or "logits")


def _entry(network: Network) -> Preprocessing:
    return Preprocessing(network.size, network.scale or 1.0, network.mean or (), network.std or ())


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


def _check_models(job: Job) -> None:
    """Refuse what would come to light only when the teacher has been trained."""
    teacher, recipe = job.teacher, job.recipe
    if teacher is not None and teacher.stored is not None:
        views, cutout = job.views("student"), recipe.schedule.student.cutout
        if views.flip or views.shift or cutout:
            raise DataError(
                f"{teacher.name} holds logits of the images as they are, but the student is to see "
                f"other views: set views.flip=false, views.shift=0 and schedule.student.cutout=0"
            )
    if job.pool is not None:
        _check_pool(job)
    if from_recipe.reads_layers(recipe.loss):
        if teacher is not None and teacher.model is None:
            raise ModelError(
                f"{teacher.name} has no inner layers that can be read: take a Keras model as the "
                "teacher, or a loss on logits such as loss.name=kd"
            )
        models = teacher.model if teacher else job.build("teacher"), job.build("student")
        for loss in from_recipe.losses(recipe.loss):
            loss.validate_model_compatibility(*models)
    elif job.pupil is not None:
        job.build("student")  # says what is wrong with it


def _check_pool(job: Job) -> None:
    assert job.pool is not None
    loss, shape = job.recipe.loss, job.train.images.shape[1:]
    if loss.alpha < 1:
        raise RecipeError(
            f"loss.alpha: expected 1, as unlabelled images have no hard loss, found {loss.alpha}; "
            "give --alpha 1"
        )
    for term, one in zip(loss.terms(), from_recipe.losses(loss), strict=True):
        if isinstance(one, LabelledLoss):
            raise RecipeError(
                f"loss.name: {term.name} needs labels, which unlabelled images have not; use kd"
            )
    if job.pool.dtype != np.uint8 or job.pool.shape[1:] != shape:
        raise DataError(
            f"unlabelled images: expected uint8 of shape {('n', *shape)}, found {job.pool.dtype} "
            f"of shape {job.pool.shape}"
        )
    if job.teacher is not None and job.teacher.stored is not None:
        raise DataError(
            f"{job.teacher.name} holds logits of the data set's images alone: a model must teach "
            "where there are others"
        )


def _hash(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
