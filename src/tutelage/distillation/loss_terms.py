"""Lessons: which of a teacher's answers a student is compared with, by which loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tutelage.errors import RecipeError
from tutelage.kernels import accelerate
from tutelage.losses import FeatureLoss, LogitsLoss


@dataclass(frozen=True)
class ModelOutput:
    """What a model says of a batch.

    Attributes:
        logits: (batch, classes).
        features: inner layers' outputs, by the layers' names.
    """

    logits: Any
    features: dict[str, Any]


class FeatureExtractor:
    """A model run once for its logits and some inner layers' outputs.

    Held out of Keras' sight: no model that has one as an attribute trains, counts or saves it.

    Args:
        model: the model.
        names: of the layers.

    Attributes:
        features: what the owner keeps of the batch that is learned from.
    """

    def __init__(self, model: keras.Model, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(dict.fromkeys(names))
        self.features: dict[str, Any] = {}
        self._run = accelerate.watching(model, self.names) if self.names else model

    def __call__(self, images: Any, training: bool | None) -> ModelOutput:
        """One pass over a batch."""
        outputs = self._run(images, training=training)
        if not self.names:
            return ModelOutput(outputs, {})
        return ModelOutput(outputs[0], dict(zip(self.names, outputs[1:], strict=True)))


class LossTerm:
    """A loss, and what it compares: logits, or the outputs of some layers of both models.

    Args:
        loss: the distillation loss.
        teacher: the teacher; None where stored logits stand in for it.
        student: the student.
        seed: of a projection's initial weights.

    Attributes:
        teacher: names of the teacher's layers.
        student: names of the student's layers.
        projection: what is trained between the student and the loss, if any.
    """

    def __init__(
        self,
        loss: keras.distillation.DistillationLoss,
        teacher: keras.Model | None,
        student: keras.Model,
        seed: int,
    ) -> None:
        self.loss = loss
        self.projection: keras.Model | None = None
        self.teacher: tuple[str, ...] = ()
        self.student: tuple[str, ...] = ()
        if isinstance(loss, FeatureLoss):
            models = [accelerate.stock(model) for model in (teacher, student)]
            self.teacher, self.student = zip(*loss.pairs(*models), strict=True)
            shapes = [
                [tuple(model.get_layer(name).output.shape) for name in names]
                for model, names in zip(models, (self.teacher, self.student), strict=True)
            ]
            projection = loss.projection(shapes[0], shapes[1], seed)
            if projection is not None:
                self.projection = accelerate.alike(projection, student)

    def value(
        self,
        teacher: ModelOutput,
        student: ModelOutput,
        labels: Any,
        sample_weight: Any,
        training: bool,
    ) -> Any:
        """The loss of a batch, a scalar.

        Raises:
            RecipeError: there are sample weights, and the loss has no value for each sample.
        """
        loss = self.loss
        if isinstance(loss, LogitsLoss):
            return loss.compute_loss(teacher.logits, student.logits, labels, sample_weight)
        if sample_weight is not None:
            raise RecipeError(
                "sample and class weights need a distillation loss with a value for each sample, "
                f"got {type(loss).__name__}; use a tutelage.losses.LogitsLoss or leave them out"
            )
        if isinstance(loss, FeatureLoss):
            learned = [student.features[name] for name in self.student]
            if self.projection is not None:
                learned = keras.tree.flatten(self.projection(learned, training=training))
            return loss.compute_loss([teacher.features[name] for name in self.teacher], learned)
        loss.validate_outputs(teacher.logits, student.logits)
        return loss.compute_loss(teacher.logits, student.logits)


class TeacherBranch:
    """A teacher, or stored logits in its place, with what the student learns from it.

    Args:
        teacher: the teacher, or None.
        student: the student.
        losses: the distillation losses.
        seed: of projections' initial weights.

    Attributes:
        lessons: one for each loss.
        watched: the teacher, or None.
    """

    def __init__(
        self,
        teacher: keras.Model | None,
        student: keras.Model,
        losses: Sequence[keras.distillation.DistillationLoss],
        seed: int,
    ) -> None:
        self.lessons = [LossTerm(loss, teacher, student, seed) for loss in losses]
        names = [name for lesson in self.lessons for name in lesson.teacher]
        self.watched = FeatureExtractor(teacher, names) if teacher is not None else None

    def answer(self, images: Any) -> ModelOutput:
        """What the teacher says of a batch, in inference mode; no gradient goes through it."""
        assert self.watched is not None
        said = self.watched(images, training=False)
        features = {name: ops.stop_gradient(x) for name, x in said.features.items()}
        return ModelOutput(ops.stop_gradient(said.logits), features)
