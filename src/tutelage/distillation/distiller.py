"""The distiller: a student that learns from labels and from a frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from tutelage.distillation.loss_terms import FeatureExtractor, ModelOutput, TeacherBranch
from tutelage.errors import ModelError, RecipeError
from tutelage.kernels import accelerate
from tutelage.losses import KD, CrossEntropy, FeatureLoss, is_finite_number

_no_graph: Callable[[], AbstractContextManager[Any]] = nullcontext
if keras.config.backend() == "torch":
    # Detaching the teacher's logits would still build its graph first.
    from torch import no_grad as _no_graph

_STORED = {"images", "teacher_logits"}


class Distiller(keras.Model):
    """Trains a student on `alpha * distillation_loss + (1 - alpha) * hard_loss`.

    A Keras model as any other: `compile` it (its `loss` is the hard loss),
    `fit` it, give it callbacks. It predicts what its student predicts, and what
    it saves is its student alone. The teacher is run in inference mode, once a
    step and not at all where alpha is 0; nothing of it is changed, its
    `trainable` flag included. The student's own losses (regularisers) are added
    once. Sample and class weights multiply both terms.

    Several losses make one: `distillation_loss = sum_i weight_i * loss_i`. Losses on
    features read inner layers in the same single pass of each model; the projections
    that some of them train belong to the distiller, not to the student. With several
    teachers the distillation loss is the mean over them. With alpha = 1 no labels are
    needed; `hard_loss` is NaN without them.

    Stored logits can stand in for the teacher: give `teacher=None` and
    `x={"images": ..., "teacher_logits": ...}`, the logits (batch, classes), or
    (batch, teachers, classes). Evaluated on images alone, such a distiller's `loss`
    is the hard loss, and its `distillation_loss` is NaN.

    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.

    Args:
        student: the model to train, one batch of images to logits (batch, classes).
        teacher: the model to learn from, of the same images and classes; a list of
            several; or None where logits come with the images.
        loss: the distillation loss, or a list; `KD()` by default.
        loss_weights: each loss's weight, a number of at least 0 or a Keras learning
            rate schedule, which is asked at each training step; 1 by default.
        alpha: the distillation loss's share, 0 to 1.
        seed: of projections' initial weights.

    Raises:
        ModelError: the models can't be used together.
        RecipeError: a loss, its weight or alpha can't be honoured.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.losses import KD, RKD
    >>> layers = keras.layers
    >>> teacher = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(3)])
    >>> student = keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dense(3)])
    >>> distiller = Distiller(
    ...     student=student, teacher=teacher, loss=[KD(), RKD()], loss_weights=[1.0, 0.1], alpha=0.8
    ... )
    >>> distiller.compile(optimizer="sgd", metrics=["accuracy"])
    >>> x, y = np.ones((6, 4), "float32"), np.arange(6) % 3
    >>> history = distiller.fit(x, y, verbose=0)
    >>> sorted(history.history)
    ['KD', 'RKD', 'accuracy', 'distillation_loss', 'hard_loss', 'loss']
    """

    def __init__(
        self,
        *,
        student: keras.Model,
        teacher: keras.Model | Sequence[keras.Model] | None,
        loss: keras.distillation.DistillationLoss
        | Sequence[keras.distillation.DistillationLoss]
        | None = None,
        loss_weights: Any = 1.0,
        alpha: float = 0.9,
        seed: int = 0,
    ) -> None:
        losses = list(loss) if isinstance(loss, list | tuple) else [KD() if loss is None else loss]
        teachers = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
        _check(student, teachers, losses, alpha)
        weights = _checked_weights(loss_weights, losses)
        # The student casts its own inputs; its policy decides on loss scaling.
        super().__init__(name="distiller", dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.alpha = float(alpha)
        taught = bool(alpha)  # else nothing of a teacher is looked at
        self._guides = tuple(
            TeacherBranch(t, student, losses if taught else [], seed) for t in teachers
        )
        lessons = [lesson for guide in self._guides for lesson in guide.lessons]
        self._pupil = FeatureExtractor(student, [name for x in lessons for name in x.student])
        self._projections = [x.projection for x in lessons if x.projection is not None]
        self._weights = tuple(weights)
        self._steps = None
        if any(callable(weight) for weight in weights):
            self._steps = self.add_weight((), "zeros", "int32", trainable=False, name="steps")
        each = [type(loss).__name__ for loss in losses] if len(losses) > 1 else []
        self._terms = _Means(["hard_loss", *(["distillation_loss", *each] if taught else [])])

    @property
    def teacher(self) -> keras.Model | list[keras.Model] | None:
        """What the student learns from, if it is at hand: a model, or a list of several."""
        models = [guide.watched.model for guide in self._guides if guide.watched]
        return models if len(models) > 1 else models[0] if models else None

    @property
    def own_variables(self) -> list[keras.Variable]:
        """What training changes beside the student: projections, and the count of steps."""
        own = [variable for projection in self._projections for variable in projection.variables]
        return own if self._steps is None else [*own, self._steps]

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The student's, then every one of the teachers'.

        JAX hands a step all it reads; what is missing here it would compile in.
        """
        own = super().non_trainable_variables
        models = [guide.watched.model for guide in self._guides if guide.watched]
        return own + [variable for model in models for variable in model.variables]

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """As any Keras model's `compile`.

        Args:
            optimizer: trains the student.
            loss: the hard loss, of labels and the student's logits;
                `CrossEntropy()` by default.
            *args: as in Keras.
            **kwargs: as in Keras.
        """
        super().compile(optimizer, CrossEntropy() if loss is None else loss, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As any Keras model's: the student's logits."""
        # The student's own does all that a layer's does around `call`. To do it for the distiller
        # too would cost a small student's step a thirtieth more.
        return self.call(*args, **kwargs) if self.built else super().__call__(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's logits.

        Args:
            inputs: images, or `{"images": ..., "teacher_logits": ...}`.
            training: whether the student trains.

        Returns:
            (batch, classes).
        """
        answer = self._pupil(_split(inputs)[0], training)
        self._pupil.features = answer.features
        return answer.logits

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of a batch; Keras calls it with the student's logits in `y_pred`."""
        if y is None and self.alpha < 1:
            raise RecipeError(
                "labels are expected beside the images, got none; give y, or alpha = 1"
            )
        hard = float("nan")
        if y is not None:
            # Keras has no public way to ask for the compiled loss without the regularisers.
            hard = self._compile_loss(y, y_pred, sample_weight)
        total, terms = hard, [hard]
        if self.alpha and (taught := self._taught(x, training)):
            distillation, each = self._distill(taught, y, y_pred, sample_weight, training)
            terms += [distillation, *each]
            total = distillation
            if y is not None:
                total = self.alpha * distillation + (1 - self.alpha) * hard
        self._terms.update_state(terms, ops.shape(y_pred)[0])
        # Added as Keras adds them, so that alpha = 0 is plain training to the bit.
        own_losses = [ops.sum(loss) for loss in self.losses]
        return ops.sum([total, *own_losses]) if own_losses else total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """As any Keras model's; without labels, only the losses have changed."""
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """As any Keras model's, less the compiled metrics where no label has been seen yet."""
        if self._compile_metrics is None or self._compile_metrics.built:
            return dict(super().get_metrics_result())
        return {"loss": self._loss_tracker.result(), **self._terms.result()}

    def _distill(
        self,
        taught: list[tuple[TeacherBranch, ModelOutput]],
        y: Any,
        y_pred: Any,
        sample_weight: Any,
        training: bool,
    ) -> tuple[Any, list[Any]]:
        """The weighted sum of all losses, and each where several are; means over the teachers."""
        student = ModelOutput(y_pred, self._pupil.features)
        total, each = 0.0, []
        for i, weight in enumerate(self._weights):
            values = [
                guide.lessons[i].value(answer, student, y, sample_weight, training)
                for guide, answer in taught
            ]
            value = sum(values[1:], values[0]) / len(values)
            each.append(value)
            total = total + (weight(self._steps) if callable(weight) else weight) * value
        if training and self._steps is not None:
            self._steps.assign(self._steps + 1)
        return total, each if len(each) > 1 else []

    def _taught(self, x: Any, training: bool) -> list[tuple[TeacherBranch, ModelOutput]]:
        """What each teacher says of a batch."""
        images, stored = _split(x)
        if self.teacher is None:
            if stored is None and training:
                raise RecipeError(
                    "without a teacher, its logits are expected beside the images, got images "
                    'alone; give x={"images": ..., "teacher_logits": ...} or a teacher'
                )
            if stored is None:
                return []
            (guide,) = self._guides
            several = (
                [stored[:, i] for i in range(stored.shape[1])] if stored.ndim == 3 else [stored]
            )
            return [(guide, ModelOutput(logits, {})) for logits in several]
        if stored is not None:
            raise RecipeError(
                "the teacher's logits are expected from one place, got a teacher and stored "
                "logits; give teacher=None or leave teacher_logits out of x"
            )
        with _no_graph():
            return [(guide, guide.answer(images)) for guide in self._guides]

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the student, as its own `save` does."""
        self.student.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the student's weights, as its own `save_weights` does."""
        self.student.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Load the student's weights, as its own `load_weights` does."""
        self.student.load_weights(filepath, *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Export the student, as its own `export` does."""
        self.student.export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Refused: a distiller holds a teacher, which is not for its files.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            "a student is what can be stored, got a Distiller; use distiller.save(path)"
        )


class _Means(keras.metrics.Metric):
    """Means over the samples of several losses.

    All are in one variable: a metric for each would cost a small student's step a tenth more.

    Args:
        names: of the losses.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(name="terms")
        self._names = names
        self._sums = self.add_variable((len(names) + 1,), "zeros", name="sums")  # the last: samples

    def update_state(self, values: list[Any], samples: Any) -> None:
        """Add a batch's means, in the order of the names; what is left out is NaN."""
        absent = [float("nan")] * (len(self._names) - len(values))
        means = ops.cast(ops.stack([*values, *absent, 1.0]), self.dtype)
        self._sums.assign_add(means * ops.cast(samples, self.dtype))

    def result(self) -> dict[str, Any]:
        """The means by name."""
        means = self._sums[:-1] / self._sums[-1]
        return {name: means[i] for i, name in enumerate(self._names)}


def _split(x: Any) -> tuple[Any, Any]:
    """Images and the stored teacher logits beside them, or None."""
    if not isinstance(x, dict):
        return x, None
    if set(x) != _STORED:
        raise RecipeError(
            f"a dict of inputs must have the keys {sorted(_STORED)}, got {sorted(x)}; "
            "give the images alone where a teacher is at hand"
        )
    return x["images"], x["teacher_logits"]


def _check(student: Any, teachers: list[Any], losses: list[Any], alpha: Any) -> None:
    """Refuse what a `Distiller` can't honour, one line each."""
    if not losses or not teachers:
        raise RecipeError(
            "at least one distillation loss and one teacher are expected, got an empty list; "
            "leave loss out for KD(), and give teacher=None where stored logits stand in"
        )
    for loss in losses:
        _check_loss(loss, teachers)
    if not is_finite_number(alpha) or not 0 <= alpha <= 1:
        raise RecipeError(
            f"alpha must be a number from 0 to 1, got {alpha!r}; 0 is the baseline, 0.9 is common"
        )
    _check_model("student", student)
    for teacher in teachers:
        if teacher is None and len(teachers) == 1:
            return
        _check_model("teacher", teacher)
        _check_pair(student, teacher)
        for loss in losses:
            loss.validate_model_compatibility(accelerate.stock(teacher), accelerate.stock(student))


def _check_loss(loss: Any, teachers: list[Any]) -> None:
    if not isinstance(loss, keras.distillation.DistillationLoss):
        raise RecipeError(
            f"loss must be a keras.distillation.DistillationLoss, got {loss!r}; "
            "use tutelage.losses.KD(), and give the hard loss to compile"
        )
    inner = getattr(loss, "teacher_layer_name", None) or getattr(loss, "student_layer_name", None)
    if inner and not isinstance(loss, FeatureLoss):
        raise RecipeError(
            f"loss must compare logits, or be a tutelage.losses.FeatureLoss, got a "
            f"{type(loss).__name__} of inner layers; use tutelage.losses.FitNet()"
        )
    if isinstance(loss, FeatureLoss) and None in teachers:
        raise RecipeError(
            f"{type(loss).__name__} compares inner layers, so it needs the teacher itself, got "
            "none; give teacher=, or use a loss on logits"
        )


def _check_model(role: str, model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{role} must be a keras.Model, got {type(model).__name__}; "
            "load a saved one with keras.saving.load_model"
        )
    output = getattr(model, "output_shape", None)
    if output is not None and not _is_logits(output):
        raise ModelError(
            f"{role} must give logits (batch, classes) of at least 2 classes, "
            f"got the output shape {output}; end it in one Dense layer"
        )


def _check_pair(student: keras.Model, teacher: keras.Model) -> None:
    for which in ("input_shape", "output_shape"):
        shapes = getattr(student, which, None), getattr(teacher, which, None)
        if None not in shapes and not _agree(*shapes):
            raise ModelError(
                f"student and teacher must have the same {which.replace('_', ' ')}, "
                f"got {shapes[0]} for the student and {shapes[1]} for the teacher; "
                "give both the same images and classes"
            )
    own = {id(variable) for variable in student.weights}
    if student is teacher or any(id(variable) in own for variable in teacher.weights):
        raise ModelError(
            "student and teacher must have weights of their own, got models that share some; "
            "copy the teacher with keras.models.clone_model and set_weights"
        )


def _checked_weights(given: Any, losses: list[Any]) -> list[Any]:
    """A weight for each loss: a number, or a schedule of the step."""
    weights = list(given) if isinstance(given, list | tuple) else [given] * len(losses)
    if len(weights) != len(losses):
        raise RecipeError(
            f"a weight for each of the {len(losses)} losses is expected, got {len(weights)}"
        )
    for weight in weights:
        schedule = isinstance(weight, keras.optimizers.schedules.LearningRateSchedule)
        if not schedule and not (is_finite_number(weight) and weight >= 0):
            raise RecipeError(
                "a loss's weight must be a finite number of at least 0 or a Keras learning rate "
                f"schedule, got {weight!r}"
            )
    return weights


def _is_logits(shape: Any) -> bool:
    """Whether an output shape is (batch, classes); the classes may be unknown."""
    return (
        isinstance(shape, tuple)
        and len(shape) == 2
        and (shape[1] is None or (isinstance(shape[1], int) and shape[1] >= 2))
    )


def _agree(one: Any, other: Any) -> bool:
    """Whether two shapes can be the same, where None can be any size."""
    return len(one) == len(other) and all(
        a == b or a is None or b is None for a, b in zip(one, other, strict=True)
    )
