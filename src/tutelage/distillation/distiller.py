"""The distiller: a student that learns from labels and from a frozen teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tutelage import private_api
from tutelage.distillation import training_state
from tutelage.distillation.loss_means import LossMeans
from tutelage.distillation.loss_terms import (
    FeatureExtractor,
    ModelOutput,
    TeacherBranch,
    with_logits,
)
from tutelage.distillation.output_kind import refuse_probabilities
from tutelage.distillation.validation import (
    check,
    check_arguments,
    check_class_weights,
    check_hard_loss,
    split_inputs,
    weights_of,
)
from tutelage.errors import RecipeError
from tutelage.losses import KD, CrossEntropy
from tutelage.losses.cross_entropy import class_numbers


@keras.saving.register_keras_serializable(package="tutelage")
class Distiller(keras.Model):
    """Trains a student on `alpha * distillation_loss + (1 - alpha) * hard_loss`.

    A Keras model like any other: `compile` it (its `loss` is the hard loss) and `fit` it.
    Predictions are the student's; `save` writes only the student, as a stock Keras model, and
    `keras.saving.save_model` the whole distiller. `save_weights` adds the training state to the
    student's weights, from which Keras' `BackupAndRestore` goes on. The teacher runs in inference
    mode, once per step, not at all if alpha is 0, and is not changed. The student's regularizers
    are added once. Sample and class weights apply to both terms.

    Both return logits. Of a teacher that ends in softmax or sigmoid, or a student that ends in
    softmax, the logits before it are used and predicted, with a warning; the student's file keeps
    its softmax. Probabilities of models that are no graph of layers, or in `teacher_logits`, are
    refused in the first step (not within JAX's compiled steps).

    Several losses are summed: `distillation_loss = sum_i weight_i * loss_i`; with several
    teachers it is their mean. Intermediate layers are read in the same pass; projections that a
    loss trains belong to the distiller. With alpha = 1 labels are optional; without them,
    `hard_loss` is NaN.

    To use stored logits instead of a teacher, pass `teacher=None` and
    `x={"images": ..., "teacher_logits": ...}`, the logits (batch, classes) or (batch, teachers,
    classes). Evaluated on images alone, `loss` is the hard loss and `distillation_loss` NaN.

    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2. The arguments are named as
    in `keras.distillation.Distiller`, whose `student_loss_weight` is `1 - alpha`.

    Args:
        teacher: the model to learn from, for the same images and classes; a list of
            models; or None if logits are passed with the images.
        student: the model to train, from a batch of images to logits (batch, classes), with or
            without a softmax behind them.
        distillation_losses: a `keras.distillation.DistillationLoss` or a list of them, from
            `tutelage.losses`, from Keras or custom; `KD()` by default.
        distillation_loss_weights: weight of each loss, a number of at least 0 or a Keras learning
            rate schedule, evaluated at each training step; 1 by default.
        alpha: weight of the distillation loss, 0 to 1.
        class_weights: factor of the hard loss of each class's samples in training, by class; 1 for
            others. None: no weights. `fit` has class weights for both terms.
        seed: seed of the projections' initial weights.
        name: name of the model.
        **unknown: raise a `TypeError` that names the argument to use.

    Raises:
        ModelError: the models can't be used together.
        RecipeError: a loss, its weight or alpha is invalid.
        TypeError: an argument is unknown.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.losses import DIST, KD
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> distiller = Distiller(
    ...     teacher=teacher,
    ...     student=student,
    ...     distillation_losses=[KD(), DIST()],
    ...     distillation_loss_weights=[1.0, 0.1],
    ...     alpha=0.8,
    ... )
    >>> distiller.compile(optimizer="sgd", metrics=["accuracy"])
    >>> x, y = np.ones((6, 4), "float32"), np.arange(6) % 3
    >>> history = distiller.fit(x, y, verbose=0)
    >>> sorted(history.history)
    ['DIST', 'KD', 'accuracy', 'distillation_loss', 'hard_loss', 'loss']
    """

    def __init__(
        self,
        *,
        teacher: keras.Model | Sequence[keras.Model] | None,
        student: keras.Model,
        distillation_losses: keras.distillation.DistillationLoss
        | Sequence[keras.distillation.DistillationLoss]
        | None = None,
        distillation_loss_weights: Any = None,
        alpha: float = 0.9,
        class_weights: Mapping[int, float] | None = None,
        seed: int = 0,
        name: str = "distiller",
        **unknown: Any,
    ) -> None:
        check_arguments(unknown)
        losses = KD() if distillation_losses is None else distillation_losses
        losses = list(losses) if isinstance(losses, list | tuple) else [losses]
        teachers = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
        check(student, teachers, losses, alpha)
        check_class_weights(class_weights)
        weights = weights_of(losses, distillation_loss_weights)
        # The student casts its own inputs; its policy decides on loss scaling.
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.alpha, self.seed = float(alpha), seed
        self.class_weights = None
        if class_weights is not None:  # a saved config has its keys as text
            self.class_weights = {int(k): float(w) for k, w in class_weights.items()}
        distills = bool(alpha)  # else the teachers are not used
        used = losses if distills else []
        logits = with_logits("student", student)
        self._branches = tuple(TeacherBranch(t, logits, used, seed) for t in teachers)
        terms = [term for branch in self._branches for term in branch.terms]
        layers = [layer for term in terms for layer in term.student]
        self._student_outputs = FeatureExtractor(logits, layers)
        self._projections = [term.projection for term in terms if term.projection is not None]
        self.distillation_losses, self.distillation_loss_weights = tuple(losses), tuple(weights)
        self._steps = None
        if any(callable(weight) for weight in weights):
            self._steps = self.add_weight((), "zeros", "int32", trainable=False, name="steps")
        each = [type(loss).__name__ for loss in losses] if len(losses) > 1 else []
        self._checked = False  # whether outputs were found to be logits
        self._means = LossMeans(["hard_loss", *(["distillation_loss", *each] if distills else [])])

    @property
    def teacher(self) -> keras.Model | list[keras.Model] | None:
        """The teacher: a model, a list of models, or None if logits are passed with the images."""
        models = self._teachers()
        return models if len(models) > 1 else models[0] if models else None

    @property
    def own_variables(self) -> list[keras.Variable]:
        """Variables that training changes besides the student's.

        Those of projections and of losses that are layers, and the step count.
        """
        layers = [layer for layer in self.layers if layer is not self.student]
        variables = [variable for layer in layers for variable in layer.variables]
        return variables if self._steps is None else [*variables, self._steps]

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The student's, then all of the teachers'.

        JAX passes these to each step; variables missing here would be compiled in as constants.
        """
        return super().non_trainable_variables + self._teacher_variables()

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """As any Keras model's; `loss` is the hard loss, `CrossEntropy()` by default.

        Raises:
            RecipeError: the loss is computed from probabilities.
        """
        check_hard_loss(loss)
        super().compile(optimizer, CrossEntropy() if loss is None else loss, *args, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile`, which Keras stores with a saved distiller."""
        return super().get_compile_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with the arguments from `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As any Keras model's: the student's logits."""
        # The student's `__call__` already does a layer's work around `call`; doing it twice makes
        # a small student's step 3 % slower.
        return self.call(*args, **kwargs) if self.built else super().__call__(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's logits, (batch, classes)."""
        output = self._student_outputs(split_inputs(inputs)[0], training)
        self._student_outputs.features = output.features
        return output.logits

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
            raise RecipeError("labels are expected with the images, got none; give y, or alpha = 1")
        hard = float("nan")
        if y is not None:
            weight = self._hard_weight(y, y_pred, sample_weight, training)
            hard = private_api.compiled_loss(self, y, y_pred, weight)
        total, terms = hard, [hard]
        if self.alpha and (teachers := self._teacher_outputs(x, training)):
            if not self._checked:
                self._checked = all(
                    refuse_probabilities(f"the {role}", logits)
                    for role, logits in (("teacher", teachers[0][1].logits), ("student", y_pred))
                )
            distillation, each = self._distill(teachers, y, y_pred, sample_weight, training)
            terms += [distillation, *each]
            total = distillation
            if y is not None:
                total = self.alpha * distillation + (1 - self.alpha) * hard
        self._means.update_state(terms, ops.shape(y_pred)[0])
        # Added as in Keras, so that alpha = 0 is bit-identical to plain training.
        regularizers = [ops.sum(loss) for loss in self.losses]
        return ops.sum([total, *regularizers]) if regularizers else total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """As any Keras model's; without labels, only the losses are updated."""
        if y is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """As any Keras model's, without the compiled metrics if no label has been seen yet."""
        if private_api.has_compiled_metrics(self):
            return dict(super().get_metrics_result())
        return {"loss": private_api.mean_loss(self), **self._means.result()}

    def _hard_weight(self, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
        """The weights of a batch's samples in the hard loss."""
        if self.class_weights is None or not training:
            return sample_weight
        each = [self.class_weights.get(k, 1.0) for k in range(y_pred.shape[-1])]
        weight = ops.take(ops.convert_to_tensor(each, "float32"), class_numbers(y, y_pred)[:, 0])
        return weight if sample_weight is None else weight * sample_weight

    def _distill(
        self,
        teachers: list[tuple[TeacherBranch, ModelOutput]],
        y: Any,
        y_pred: Any,
        sample_weight: Any,
        training: bool,
    ) -> tuple[Any, list[Any]]:
        """The weighted sum of all losses, and each loss if there are several; teacher means."""
        student = ModelOutput(y_pred, self._student_outputs.features)
        total, each, step = 0.0, [], self._steps
        if step is not None and (parts := self.optimizer.gradient_accumulation_steps):
            step = step // parts  # weights are scheduled by the optimizer's steps
        for i, weight in enumerate(self.distillation_loss_weights):
            values = [
                branch.terms[i].value(output, student, y, sample_weight, training)
                for branch, output in teachers
            ]
            value = sum(values[1:], values[0]) / len(values)
            each.append(value)
            total = total + (weight(step) if callable(weight) else weight) * value
        if training and self._steps is not None:
            self._steps.assign(self._steps + 1)
        return total, each if len(each) > 1 else []

    def _teacher_outputs(self, x: Any, training: bool) -> list[tuple[TeacherBranch, ModelOutput]]:
        """Each teacher's output for a batch."""
        images, stored = split_inputs(x)
        if self.teacher is None:
            if stored is None and training:
                raise RecipeError(
                    "without a teacher, its logits are expected with the images, got images "
                    'alone; give x={"images": ..., "teacher_logits": ...} or a teacher'
                )
            if stored is None:
                return []
            (branch,) = self._branches
            per_teacher = [stored]
            if stored.ndim == 3:
                per_teacher = [stored[:, i] for i in range(stored.shape[1])]
            return [(branch, ModelOutput(logits, {})) for logits in per_teacher]
        if stored is not None:
            raise RecipeError(
                "the teacher's logits are expected from one place, got a teacher and stored "
                "logits; give teacher=None or leave teacher_logits out of x"
            )
        return [(branch, branch.output(images)) for branch in self._branches]

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the student, as its own `save` does."""
        self.student.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the student's weights, as its own `save_weights` does, and the training state.

        The student loads the file as its own. The training state is an additional group: the
        variables of the optimizer and of projections, the step count, the state of dropout.
        """
        with training_state.part_of_student(self) as student:
            student.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Load what `save_weights` stored, or the student's weights alone from its own file.

        Compile first to load the optimizer's variables, too; Keras warns if there are none.
        """
        with training_state.part_of_student(self) as student:
            student.load_weights(filepath, *args, **kwargs)

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Export the student, as its own `export` does."""
        self.student.export(filepath, *args, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """Store the step count and the teachers' weights; Keras stores the student's itself."""
        super().save_own_variables(store)
        for i, variable in enumerate(self._teacher_variables()):
            store[f"teacher_{i}"] = ops.convert_to_numpy(variable.value)

    def load_own_variables(self, store: Any) -> None:
        """Load the variables stored by `save_own_variables`."""
        for i, variable in enumerate(self._teacher_variables()):
            variable.assign(store[f"teacher_{i}"])
        others = [name for name in store.keys() if not name.startswith("teacher_")]  # noqa: SIM118
        super().load_own_variables({name: store[name] for name in others})

    def _teacher_variables(self) -> list[Any]:
        return [variable for model in self._teachers() for variable in model.variables]

    def _teachers(self) -> list[keras.Model]:
        return [branch.teacher for branch in self._branches if branch.teacher is not None]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with models and losses serialized by Keras."""
        serialize = keras.saving.serialize_keras_object
        weights = self.distillation_loss_weights
        return {
            "teacher": serialize(self.teacher),
            "student": serialize(self.student),
            "distillation_losses": [serialize(loss) for loss in self.distillation_losses],
            "distillation_loss_weights": [serialize(weight) for weight in weights],
            "alpha": self.alpha,
            "class_weights": self.class_weights,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Distiller:
        """Create a distiller from `get_config`; its models have newly initialized weights."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))
