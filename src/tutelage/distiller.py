"""The distiller: a student that learns from labels and from a frozen teacher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from tutelage.errors import ModelError, RecipeError
from tutelage.losses import KD, CrossEntropy, LogitsLoss, is_finite_number

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

    Stored logits can stand in for the teacher: give `teacher=None` and
    `x={"images": ..., "teacher_logits": ...}`. Evaluated on images alone, such
    a distiller's `loss` is the hard loss, and its `distillation_loss` is NaN.

    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.

    Args:
        student: the model to train, one batch of images to logits (batch, classes).
        teacher: the model to learn from, of the same images and classes, or None
            where its logits come with the images.
        loss: the distillation loss; `KD()` by default.
        alpha: the distillation loss's share, 0 to 1.

    Raises:
        ModelError: the models can't be used together.
        RecipeError: the loss or alpha can't be honoured.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.losses import KD
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> distiller = Distiller(student=student, teacher=teacher, loss=KD(temperature=4.0), alpha=0.8)
    >>> distiller.compile(optimizer="sgd", metrics=["accuracy"])
    >>> x, y = np.ones((6, 4), "float32"), np.arange(6) % 3
    >>> history = distiller.fit(x, y, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'distillation_loss', 'hard_loss', 'loss']
    """

    def __init__(
        self,
        *,
        student: keras.Model,
        teacher: keras.Model | None,
        loss: keras.distillation.DistillationLoss | None = None,
        alpha: float = 0.9,
    ) -> None:
        loss = KD() if loss is None else loss
        _check(student, teacher, loss, alpha)
        # The student casts its own inputs; its policy decides on loss scaling.
        super().__init__(name="distiller", dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.alpha = float(alpha)
        self.distillation_loss = loss
        self._teacher = _Frozen(teacher) if teacher is not None else None
        self._hard_tracker = keras.metrics.Mean(name="hard_loss")
        if alpha:
            self._distillation_tracker = keras.metrics.Mean(name="distillation_loss")

    @property
    def teacher(self) -> keras.Model | None:
        """The model the student learns from, if it is at hand."""
        return None if self._teacher is None else self._teacher.model

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The student's, then every one of the teacher's.

        JAX hands a step all it reads; what is missing here it would compile in.
        """
        own = super().non_trainable_variables
        return own if self.teacher is None else own + self.teacher.variables

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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's logits.

        Args:
            inputs: images, or `{"images": ..., "teacher_logits": ...}`.
            training: whether the student trains.

        Returns:
            (batch, classes).
        """
        return self.student(_split(inputs)[0], training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of a batch; Keras calls it with the student's logits in `y_pred`."""
        if y is None:
            raise RecipeError("labels are expected beside the images, got none; give y")
        batch = ops.shape(y_pred)[0]
        # Keras has no public way to ask for the compiled loss without the regularisers.
        hard = self._compile_loss(y, y_pred, sample_weight)
        self._hard_tracker.update_state(hard, sample_weight=batch)
        total = hard
        if self.alpha:
            teacher_logits = self._teacher_logits(x, training)
            if teacher_logits is None:
                distillation = float("nan")
            else:
                distillation = self._distill(teacher_logits, y_pred, y, sample_weight)
                total = self.alpha * distillation + (1 - self.alpha) * hard
            self._distillation_tracker.update_state(distillation, sample_weight=batch)
        # Added as Keras adds them, so that alpha = 0 is plain training to the bit.
        own_losses = [ops.sum(loss) for loss in self.losses]
        return ops.sum([total, *own_losses]) if own_losses else total

    def _teacher_logits(self, x: Any, training: bool) -> Any:
        images, stored = _split(x)
        if self._teacher is None:
            if stored is None and training:
                raise RecipeError(
                    "without a teacher, its logits are expected beside the images, got images "
                    'alone; give x={"images": ..., "teacher_logits": ...} or a teacher'
                )
            return stored
        if stored is not None:
            raise RecipeError(
                "the teacher's logits are expected from one place, got a teacher and stored "
                "logits; give teacher=None or leave teacher_logits out of x"
            )
        return self._teacher(images)

    def _distill(self, teacher: Any, student: Any, labels: Any, sample_weight: Any) -> Any:
        loss = self.distillation_loss
        if isinstance(loss, LogitsLoss):
            return loss.compute_loss(teacher, student, labels, sample_weight)
        if sample_weight is not None:
            raise RecipeError(
                "sample and class weights need a distillation loss with a value for each sample, "
                f"got {type(loss).__name__}; use a tutelage.losses.LogitsLoss or leave them out"
            )
        loss.validate_outputs(teacher, student)
        return loss.compute_loss(teacher, student)

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


class _Frozen:
    """A teacher, held out of Keras' sight so that nothing trains, counts or saves it."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def __call__(self, images: Any) -> Any:
        with _no_graph():
            return ops.stop_gradient(self.model(images, training=False))


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


def _check(student: Any, teacher: Any, loss: Any, alpha: Any) -> None:
    """Refuse what a `Distiller` can't honour, one line each."""
    if not isinstance(loss, keras.distillation.DistillationLoss):
        raise RecipeError(
            f"loss must be a keras.distillation.DistillationLoss, got {loss!r}; "
            "use tutelage.losses.KD(), and give the hard loss to compile"
        )
    if getattr(loss, "teacher_layer_name", None) or getattr(loss, "student_layer_name", None):
        raise RecipeError(
            f"loss must compare logits, got a {type(loss).__name__} of inner layers; "
            "use tutelage.losses.KD()"
        )
    if not is_finite_number(alpha) or not 0 <= alpha <= 1:
        raise RecipeError(
            f"alpha must be a number from 0 to 1, got {alpha!r}; 0 is the baseline, 0.9 is common"
        )
    models = {"student": student} if teacher is None else {"student": student, "teacher": teacher}
    for role, model in models.items():
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
    if teacher is None:
        return
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
    loss.validate_model_compatibility(teacher, student)


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
