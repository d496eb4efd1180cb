"""What losses on the outputs of inner layers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import keras

from tutelage.errors import ModelError, RecipeError
from tutelage.losses.layer_selection import embedding, named, stages
from tutelage.losses.numerics import wide

Names = str | Sequence[str] | None


class FeatureLoss(keras.distillation.DistillationLoss):
    """A distillation loss on the outputs of inner layers, the sum over one or more pairs of them.

    Subclasses define `of_pair` and, by `picks`, which layers they compare where none are named.

    Args:
        teacher_layer_name: the teacher's layer, or several; None: chosen by `picks`.
        student_layer_name: the student's, as many; None: chosen by `picks`.

    Attributes:
        picks: `"stages"`: the last layer of each stage, paired from the smallest map on;
            `"middle"` or `"last"`: one pair of those; `"embedding"`: what the heads read.

    Raises:
        RecipeError: one model's layers are named and the other's aren't, or not as many.
    """

    picks = "stages"

    def __init__(self, teacher_layer_name: Names = None, student_layer_name: Names = None) -> None:
        teacher, student = _listed(teacher_layer_name), _listed(student_layer_name)
        if (teacher is None) != (student is None) or len(teacher or ()) != len(student or ()):
            raise RecipeError(
                "as many layers of the teacher as of the student are expected, got "
                f"{teacher_layer_name!r} and {student_layer_name!r}; name both, or neither"
            )
        # By these names Keras' own distiller knows which outputs to hand over.
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    @abstractmethod
    def of_pair(self, teacher: Any, student: Any) -> Any:
        """Value for one layer of the teacher and one of the student.

        Args:
            teacher: the teacher's features, (batch, ...), float32 or wider.
            student: the student's features, (batch, ...), float32 or wider.

        Returns:
            a scalar.

        Raises:
            ModelError: the shapes can't be compared.
        """

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        """Sum over the pairs.

        Args:
            teacher_outputs: the teacher's features, (batch, ...), or a list of those.
            student_outputs: the student's features, as many.
            labels: not needed.

        Returns:
            a scalar in float32 or wider.

        Raises:
            ModelError: the shapes can't be compared.
        """
        teacher, student = (
            [wide(x) for x in outputs] if isinstance(outputs, list | tuple) else [wide(outputs)]
            for outputs in (teacher_outputs, student_outputs)
        )
        self.validate_outputs(teacher, student)
        values = [self.of_pair(t, s) for t, s in zip(teacher, student, strict=True)]
        return sum(values[1:], values[0])

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check that there are as many features of both, of one batch.

        Raises:
            ModelError: there aren't.
        """
        teacher, student = (keras.tree.flatten(x) for x in (teacher_outputs, student_outputs))
        if len(teacher) != len(student):
            raise ModelError(
                f"as many features of the teacher as of the student are expected, got "
                f"{len(teacher)} and {len(student)}"
            )
        for one, other in zip(teacher, student, strict=True):
            if len(one.shape) < 2 or len(other.shape) < 2 or one.shape[0] != other.shape[0]:
                raise ModelError(
                    "features (batch, ...) of one batch are expected, got "
                    f"{tuple(one.shape)} from the teacher and {tuple(other.shape)} from the student"
                )

    def pairs(self, teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
        """Which layers are compared.

        Args:
            teacher: the teacher, Functional or Sequential.
            student: the student, likewise.

        Returns:
            Pairs of a layer's name in the teacher and one in the student.

        Raises:
            RecipeError: a layer that was named isn't there.
            ModelError: a model has no such layers.
        """
        if self.teacher_layer_name is not None:
            chosen = [
                named(model, _listed(names) or (), role)
                for model, names, role in (
                    (teacher, self.teacher_layer_name, "teacher"),
                    (student, self.student_layer_name, "student"),
                )
            ]
        elif self.picks == "embedding":
            chosen = [[embedding(model)] for model in (teacher, student)]
        else:
            chosen = [stages(model) for model in (teacher, student)]
        count = min(len(names) for names in chosen)
        pairs = list(zip(*(names[-count:] for names in chosen), strict=True))
        if self.teacher_layer_name is None and self.picks in ("middle", "last"):
            pairs = [pairs[-1 if self.picks == "last" else count // 2]]
        return pairs

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Check that the layers to compare are there; raises as `pairs` does."""
        self.pairs(teacher, student)

    def projection(
        self,
        teacher_shapes: Sequence[tuple[int | None, ...]],
        student_shapes: Sequence[tuple[int | None, ...]],
        seed: int,
    ) -> keras.Model | None:
        """What is trained between the student's features and the loss; None for most losses.

        Args:
            teacher_shapes: of the teacher's features, each (batch, ...).
            student_shapes: of the student's, as many.
            seed: of the initial weights.

        Returns:
            A model from the student's features, a list, to what `compute_loss` is to have.
        """
        return None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureLoss:
        """The loss whose `get_config` this is."""
        return cls(**config)


def _listed(names: Names) -> tuple[str, ...] | None:
    if names is None:
        return None
    listed = tuple(names) if isinstance(names, list | tuple) else (names,)
    if not listed or not all(isinstance(name, str) and name for name in listed):
        raise RecipeError(f"a layer's name, or a list of names, is expected, got {names!r}")
    return listed
