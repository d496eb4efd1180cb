"""Loss terms: which outputs of teacher and student each distillation loss compares."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tutelage.distillation import output_kind
from tutelage.errors import RecipeError
from tutelage.kernels import accelerate
from tutelage.losses import FeatureLoss, LogitsLoss

_no_graph: Callable[[], AbstractContextManager[Any]] = nullcontext
if keras.config.backend() == "torch":
    # Detaching the teacher's logits alone would still build its graph.
    from torch import no_grad as _no_graph


@dataclass(frozen=True)
class ModelOutput:
    """A model's output for a batch.

    Attributes:
        logits: (batch, classes).
        features: intermediate layers' outputs by layer name.
    """

    logits: Any
    features: dict[str, Any]

    def of(self, layer: tuple[str, ...]) -> Any:
        """The output of a layer, or the logits if `layer` is empty."""
        return self.features[layer[0]] if layer else self.logits


class FeatureExtractor:
    """Runs a model once for its logits and the outputs of some intermediate layers.

    Not tracked by Keras: a model with one as an attribute doesn't train, count or save it.

    Args:
        model: the model.
        names: names of the layers.

    Attributes:
        features: features of the current training batch; set by the owner.
    """

    def __init__(self, model: keras.Model, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(dict.fromkeys(names))
        self.features: dict[str, Any] = {}
        self._run = accelerate.watching(model, self.names) if self.names else model

    def __call__(self, images: Any, training: bool | None) -> ModelOutput:
        """Run the model on a batch."""
        outputs = self._run(images, training=training)
        if not self.names:
            return ModelOutput(outputs, {})
        return ModelOutput(outputs[0], dict(zip(self.names, outputs[1:], strict=True)))


class LossTerm:
    """A loss and what it compares: logits, or the outputs of layers of both models.

    Args:
        loss: the distillation loss.
        teacher: the teacher; None if stored logits are used instead.
        student: the student.
        seed: seed of a projection's initial weights.

    Attributes:
        teacher: names of the teacher's layers.
        student: names of the student's layers.
        projection: model trained between the student and the loss, if any.
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
        if compares_layers(loss) and not isinstance(loss, FeatureLoss):
            self.teacher = (loss.teacher_layer_name,) if loss.teacher_layer_name else ()
            self.student = (loss.student_layer_name,) if loss.student_layer_name else ()
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
            RecipeError: sample weights are given, but the loss has no value per sample.
        """
        loss = self.loss
        if isinstance(loss, LogitsLoss):
            return loss.compute_loss(teacher.logits, student.logits, labels, sample_weight)
        if sample_weight is not None:
            raise RecipeError(
                "sample and class weights need a distillation loss with a value per sample, "
                f"got {type(loss).__name__}; use a tutelage.losses.LogitsLoss or leave them out"
            )
        if isinstance(loss, FeatureLoss):
            features = [student.features[name] for name in self.student]
            if self.projection is not None:
                features = keras.tree.flatten(self.projection(features, training=training))
            return loss.compute_loss([teacher.features[name] for name in self.teacher], features)
        compared = teacher.of(self.teacher), student.of(self.student)
        loss.validate_outputs(*compared)
        return loss.compute_loss(*compared)


class TeacherBranch:
    """A teacher, or stored logits in its place, with its loss terms.

    Args:
        teacher: the teacher, or None.
        student: the student, which returns logits.
        losses: the distillation losses.
        seed: seed of the projections' initial weights.

    Attributes:
        teacher: the teacher as given.
        terms: one per loss.
        outputs: extractor of the teacher's outputs, or None.
    """

    def __init__(
        self,
        teacher: keras.Model | None,
        student: keras.Model,
        losses: Sequence[keras.distillation.DistillationLoss],
        seed: int,
    ) -> None:
        self.teacher = teacher
        if teacher is not None:
            teacher = with_logits("teacher", teacher)
        self.terms = [LossTerm(loss, teacher, student, seed) for loss in losses]
        names = [name for term in self.terms for name in term.teacher]
        self.outputs = FeatureExtractor(teacher, names) if teacher is not None else None

    def output(self, images: Any) -> ModelOutput:
        """The teacher's output for a batch, in inference mode and without gradients."""
        assert self.outputs is not None
        with _no_graph():
            output = self.outputs(images, training=False)
        features = {name: ops.stop_gradient(x) for name, x in output.features.items()}
        return ModelOutput(ops.stop_gradient(output.logits), features)


def with_logits(role: str, model: keras.Model) -> keras.Model:
    """A model on the same variables without the softmax or sigmoid it ends in, with a warning.

    Args:
        role: `"teacher"` or `"student"`, for the warning.
        model: the model, stock or from `accelerate`; one that ends in neither is returned.
    """
    logits, activation = output_kind.logits_model(accelerate.stock(model))
    if not activation:
        return model
    warnings.warn(
        f"the {role} {model.name!r} ends in {activation}: using the logits before the {activation}",
        stacklevel=3,
    )
    return accelerate.alike(logits, model)


def compares_layers(loss: keras.distillation.DistillationLoss) -> bool:
    """Whether a loss compares the outputs of intermediate layers."""
    names = (getattr(loss, f"{role}_layer_name", None) for role in ("teacher", "student"))
    return isinstance(loss, FeatureLoss) or any(names)
