"""An experiment: a recipe with its data and models, resolved into stages."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from tutelage import recipe as recipes
from tutelage.data import geometry
from tutelage.data.content import Images, concatenated
from tutelage.data.datasets import Dataset, Part
from tutelage.data.geometry import Geometry
from tutelage.data.image_files import ImageFiles
from tutelage.data.training_stream import TrainingStream
from tutelage.distillation.answers import sample
from tutelage.kernels import accelerate
from tutelage.losses import from_recipe
from tutelage.models import loading, resolve, stored_logits, zoo
from tutelage.models.architectures import ARCHITECTURES
from tutelage.models.digest import keras_digest
from tutelage.models.preprocessing import Preprocessing
from tutelage.models.resolve import Teacher
from tutelage.models.source import Source
from tutelage.recipe import GAMMA, MILESTONES, Loss, Network, Recipe, Schedule, Views
from tutelage.training import optimizers
from tutelage.training.batches import steps_per_epoch
from tutelage.training.early_stopping import MONITOR

# Offsets that give teacher and generations other initial weights than the student.
_TEACHER_SEED = 1_000_003
_GENERATION_SEED = 2_000_003
# What a schedule's settings mean if they are not set.
_DEFAULTS = {
    "learning_rate_schedule": "linear",
    "milestones": [*MILESTONES],
    "gamma": GAMMA,
    "monitor": MONITOR,
}


@dataclass(frozen=True, eq=False)
class TargetSpec:
    """Distillation targets of a student.

    Attributes:
        loss: the recipe's loss section.
        teacher: name of the teacher's stage.
        given: the teacher given for that stage, if any.
        stored: that teacher's logits of the stage's images, float32 of shape (images, classes),
            if it is a file of logits.
        passes: number of views per image that the teacher computes logits for.
    """

    loss: Loss
    teacher: str
    given: Teacher | None
    stored: np.ndarray | None
    passes: int


@dataclass(frozen=True, eq=False)
class StageSpec:
    """One model of a run: its source and its training data and settings.

    Attributes:
        name: name of its files; earlier generations of the student are `student-1` and so on.
        role: `"teacher"`, `"baseline"` or `"student"`.
        key: hash of everything its weights depend on.
        network: the recipe's model section.
        source: a given model to train instead of the one in the recipe.
        given: a trained teacher, used as is.
        classes: the names of the classes.
        geometry: how images get their size; None: they have it.
        unseen: indices of the classes without training images.
        train: the training images; a label of -1 means unlabeled.
        labeled: the labeled training images.
        validation: the images held out from training.
        schedule: epochs, batch size, optimizer and so on.
        views: the augmentation.
        seed: seed of image order and augmentation.
        weight_seed: seed of the initial weights.
        precision: training precision, `"float32"` or `"bfloat16"`.
        workers: processes that prepare views ahead; None: chosen by the images and views.
        targets: distillation targets; None if it learns from labels alone.
        shared: whether the same model of a neighboring run may be copied.
        stream: the loader of the training images, of which `train` and `labeled` then have only a
            sample.
    """

    name: str
    role: str
    key: str
    network: Network
    source: Source | None
    given: Teacher | None
    classes: tuple[str, ...]
    geometry: Geometry | None
    unseen: tuple[int, ...]
    train: Part
    labeled: Part
    validation: Part
    schedule: Schedule
    views: Views
    seed: int
    weight_seed: int
    precision: str
    workers: int | None
    targets: TargetSpec | None
    shared: bool
    stream: TrainingStream | None = None

    @property
    def steps(self) -> int:
        """Total number of training steps."""
        return self.schedule.epochs * self.steps_of_epoch

    @property
    def steps_of_epoch(self) -> int:
        """Number of training steps of an epoch."""
        if self.stream is not None:
            return self.stream.batches
        return steps_per_epoch(self.schedule, len(self.train))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on a given model, one line each."""
        if self.given is not None:
            return self.given.notes
        return () if self.source is None else self._from_source()[1]

    def with_alpha(self, alpha: float) -> StageSpec:
        """A copy of a student's stage with another weight of the distillation losses."""
        assert self.targets is not None
        loss = replace(self.targets.loss, alpha=alpha)
        return replace(self, targets=replace(self.targets, loss=loss))

    def build(self) -> keras.Model:
        """The model with its initial weights."""
        if self.source is not None:
            return self._from_source()[0]
        name, count = str(self.network.model), len(self.classes)
        return zoo.build(name, images=self.labeled.images, classes=count, seed=self.weight_seed)

    def _from_source(self) -> tuple[keras.Model, tuple[str, ...]]:
        assert self.source is not None
        return resolve.student(
            self.source,
            images=self.labeled.images,
            classes=self.classes,
            preprocessing=preprocessing(self.network),
            seed=self.weight_seed,
            role="teacher" if self.role == "teacher" else "student",
        )


@dataclass(frozen=True, eq=False)
class Experiment:
    """A recipe with its data and models.

    Attributes:
        recipe: the recipe.
        data: the data set.
        train: its training set without the validation images; a sample if `data` has a stream.
        validation: the images held out from training.
        precision: training precision, `"float32"` or `"bfloat16"`.
        teacher: a given teacher, used instead of training one.
        teacher_network: a given network to train as the teacher, any source for
            `resolve.student`.
        student: a given student, any source for `resolve.student`.
        unlabeled: additional unlabeled images for the student, as those of `data`.
        whole: whether baseline and student also train on the validation images.
        notes: what was skipped, renamed or chosen in reading the data, one line each.
    """

    recipe: Recipe
    data: Dataset
    train: Part
    validation: Part
    precision: str
    teacher: Teacher | None = None
    teacher_network: Source | None = None
    student: Source | None = None
    unlabeled: Images | None = None
    whole: bool = False
    notes: tuple[str, ...] = ()

    def on_all_images(self) -> Experiment:
        """A copy in which baseline and student also train on the validation images."""
        return replace(self, train=self.data.train, whole=True)

    def with_sample(self, sample: Part) -> Experiment:
        """A copy with another sample of a loader's training images."""
        both = concatenated(sample.images, self.validation.images)
        labels = np.concatenate([sample.labels, self.validation.labels])
        return replace(self, data=replace(self.data, train=Part(both, labels)), train=sample)

    @cached_property
    def stages(self) -> tuple[StageSpec, ...]:
        """The stages in training order: teacher, baseline, students."""
        keys, recipe = self._keys(accelerate.compiled_parts()), self.recipe
        labeled, student = self._transferred(self.train), recipe.schedule.student
        views = with_shift(recipe.views, student)
        teacher = StageSpec(
            name="teacher",
            role="teacher",
            key=keys["teacher"],
            network=recipe.teacher,
            source=self.teacher_network,
            given=self.teacher,
            classes=self.data.classes,
            geometry=geometry.from_recipe(recipe.data),
            unseen=(),
            train=self._repeated(self.train),
            labeled=self.train,
            validation=self.validation,
            schedule=recipe.schedule.teacher,
            views=replace(with_shift(recipe.views, recipe.schedule.teacher), distinct=0),
            seed=recipe.seed,
            weight_seed=recipe.seed + _TEACHER_SEED,
            precision=self.precision,
            workers=recipe.data.workers,
            targets=None,
            # A key can't tell the images of a loader that does not repeat them.
            shared=self.data.stream is None or self.data.stream.repeats,
            stream=self.data.stream,
        )
        names = recipe.data.transfer
        baseline = replace(
            teacher,
            name="baseline",
            role="baseline",
            key=keys["baseline"],
            network=recipe.student,
            source=self.student,
            given=None,
            unseen=tuple(k for k, n in enumerate(self.data.classes) if names and n not in names),
            train=self._repeated(labeled),
            labeled=labeled,
            schedule=student,
            views=views,
            weight_seed=recipe.seed,
        )
        stages, count = [teacher, baseline], recipe.loss.generations or 1
        for generation in range(1, count + 1):
            last = generation == count
            name = "student" if last else f"student-{generation}"
            stages.append(
                replace(
                    baseline,
                    name=name,
                    role="student",
                    key=keys["student"] if last else f"{keys['student']} {name}",
                    train=self._with_unlabeled(labeled),
                    weight_seed=recipe.seed + _GENERATION_SEED * (generation - 1),
                    targets=self._targets(stages[-1] if generation > 1 else teacher, views),
                    shared=False,  # the student is always trained
                )
            )
        return tuple(stages)

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """Logits of given models, before the run trains them, for a few training images."""
        images = self.data.train.images
        images, answers = images[sample(len(images))], {}
        if self.teacher is not None and self.teacher.logits is not None:
            compute = self.teacher.member_logits or self.teacher.logits
            answers["teacher"] = compute(images, "float32")
        for name in ("teacher", "student"):
            if (stage := self.stage(name)).source is not None:
                answers[name] = loading.logits(stage.build(), images)
        return answers

    @property
    def final_stages(self) -> tuple[StageSpec, ...]:
        """The stages without the student's earlier generations."""
        return tuple(stage for stage in self.stages if stage.name == stage.role)

    def stage(self, name: str) -> StageSpec:
        """The stage with a name."""
        return next(stage for stage in self.stages if stage.name == name)

    def keys(self) -> dict[str, str]:
        """The stages' keys."""
        return {stage.name: stage.key for stage in self.final_stages}

    def key(self) -> str:
        """Hash of everything the run depends on."""
        return hash_of(self.keys())

    def former_keys(self) -> dict[str, str]:
        """The stages' keys as in version 0.1.0, without the kernels."""
        return self._keys(kernels=None)

    def given_logits(self, validation: bool = False) -> np.ndarray | None:
        """The given teacher's stored logits of the student's or the validation images."""
        if self.teacher is None or self.teacher.stored is None:
            return None
        indices = Part(np.arange(len(self.data.train)), self.data.train.labels)
        settings = self.recipe.data
        train, held_out = self.data.split(settings.validation, settings.split_seed, indices)
        if validation:
            return self.teacher.stored[held_out.images[:]]
        images = self._transferred(indices if self.whole else train).images
        return self.teacher.stored[images[:]]

    def _targets(self, teacher: StageSpec, views: Views) -> TargetSpec:
        loss, epochs = self.recipe.loss, self.recipe.schedule.student.epochs
        distinct = 0 if from_recipe.reads_layers(loss) else views.distinct
        stored = None if teacher.given is None else self.given_logits()
        return TargetSpec(
            loss, teacher.name, teacher.given, stored, min(distinct or epochs, epochs)
        )

    def _transferred(self, part: Part) -> Part:
        """The images of the classes in `data.transfer`."""
        names = self.recipe.data.transfer
        if names is None:
            return part
        kept = np.isin(part.labels, [self.data.classes.index(name) for name in names])
        return part.take(np.flatnonzero(kept))

    def _repeated(self, part: Part) -> Part:
        """The images as often as there are images, if `data.labels` leaves out some labels."""
        if self.recipe.data.labels is None or self.unlabeled is None:
            return part
        return part.take(np.resize(np.arange(len(part)), len(part) + len(self.unlabeled)))

    def _with_unlabeled(self, part: Part) -> Part:
        """Add the unlabeled images, if any; labels are then ignored for all images."""
        if self.unlabeled is None:
            return part
        images = concatenated(part.images, self.unlabeled)
        return Part(images, np.full(len(images), -1))

    def _keys(self, kernels: list[str] | None) -> dict[str, str]:
        """Hash what each role depends on: a stage is trained again only if its hash changes."""
        recipe, tree = self.recipe, recipes.to_dict(self.recipe)
        for name in ("path", "unlabeled", "in_memory", "workers", "skip_damaged"):
            tree["data"].pop(name, None)  # the content matters, not the location
        transfer = tree["data"].pop("transfer", None)
        for schedule in (tree["schedule"]["teacher"], tree["schedule"]["student"]):
            schedule.pop("shift", None)  # part of the views
            for name, default in _DEFAULTS.items():
                if schedule.get(name) == default:
                    del schedule[name]  # as if it were not set
            if own := optimizers.digest(schedule["optimizer"]):
                schedule["optimizer"] = own
        views = replace(with_shift(recipe.views, recipe.schedule.teacher), distinct=0)
        common = {
            "data": tree["data"] | {"fingerprint": self.data.fingerprint},
            "views": _with_distinct(views),
            "seed": tree["seed"],
            "precision": self.precision,
            "backend": keras.backend.backend(),
        }
        if kernels is not None:
            common["kernels"] = kernels
        if self.data.stream is not None:
            common["stream"] = self.data.stream.digest
        if self.teacher:
            teacher = hash_of({"file": self.teacher.digest})
        else:
            network = self._digests["teacher"] or _architecture(recipe.teacher)
            teacher = hash_of(common | {"model": network, "schedule": tree["schedule"]["teacher"]})
        baseline = common | {
            "model": self._digests["student"] or _architecture(recipe.student),
            "schedule": tree["schedule"]["student"],
            "views": _with_distinct(with_shift(recipe.views, recipe.schedule.student)),
        }
        if self.whole:
            baseline["trained on"] = "all images"
        if transfer is not None:
            baseline["transfer"] = sorted(set(transfer))
        student = baseline | {"teacher": teacher, "loss": tree["loss"]}
        if recipe.loss.alpha == "auto":
            student["baseline"] = hash_of(baseline)
        if code := from_recipe.code_digests(recipe.loss):
            student["code"] = code
        if self.unlabeled is not None:
            pool = self.unlabeled
            student["pool"] = (
                pool.digest() if isinstance(pool, ImageFiles) else stored_logits.image_hash(pool)
            )
        return {"teacher": teacher, "baseline": hash_of(baseline), "student": hash_of(student)}

    @cached_property
    def _digests(self) -> dict[str, dict[str, str] | None]:
        """What identifies the given networks that are trained, with their initial weights."""
        recipe, student = self.recipe, self._transferred(self.train)
        digests: dict[str, dict[str, str] | None] = {"teacher": None, "student": None}
        for role, source, network, part, seed in (
            ("teacher", self.teacher_network, recipe.teacher, self.train, _TEACHER_SEED),
            ("student", self.student, recipe.student, student, 0),
        ):
            if source is not None:
                model, _ = resolve.student(
                    source,
                    images=part.images,
                    classes=self.data.classes,
                    preprocessing=preprocessing(network),
                    seed=recipe.seed + seed,
                    role=role,
                )
                digests[role] = {"digest": keras_digest(model)}
        return digests


def preprocessing(network: Network) -> Preprocessing:
    """The preprocessing of a given model's images."""
    return Preprocessing(network.size, network.scale or 1.0, network.mean or (), network.std or ())


def with_shift(views: Views, schedule: Schedule) -> Views:
    """The views of a model, whose schedule may override the shift."""
    return views if schedule.shift is None else replace(views, shift=schedule.shift)


def settings_of(views: Views) -> dict[str, Any]:
    """What decides how a view looks: the settings that are given, without their number."""
    given = {name: value for name, value in asdict(views).items() if value is not None}
    del given["distinct"]
    return given


def _with_distinct(views: Views) -> dict[str, Any]:
    return settings_of(views) | {"distinct": views.distinct}


def _architecture(network: Network) -> dict[str, Any]:
    # The name alone would not distinguish versions of a model.
    name = str(network.model)
    return {"model": name, "architecture": asdict(ARCHITECTURES[name])}


def hash_of(tree: Any) -> str:
    """SHA-256 of a tree as canonical JSON."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
