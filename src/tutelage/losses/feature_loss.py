"""Base class of losses on the outputs of intermediate layers."""

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
    """A distillation loss on outputs of intermediate layers, summed over one or more pairs.

    Subclasses define `of_pair` and, with `picks`, which layers they compare by default.

    Args:
        teacher_layer_name: the teacher's layer or a list of layers; None: chosen by `picks`.
        student_layer_name: the student's, the same number; None: chosen by `picks`.

    Attributes:
        picks: `"stages"`: the last layer of each stage, paired starting at the smallest map;
            `"middle"` or `"last"`: one of those pairs; `"embedding"`: the heads' inputs.

    Raises:
        RecipeError: the numbers of named layers differ.
    """

    picks = "stages"

    def __init__(self, teacher_layer_name: Names = None, student_layer_name: Names = None) -> None:
        teacher, student = _listed(teacher_layer_name), _listed(student_layer_name)
        if (teacher is None) != (student is None) or len(teacher or ()) != len(student or ()):
            raise RecipeError(
                "expected the same number of layers of teacher and student, got "
                f"{teacher_layer_name!r} and {student_layer_name!r}; name both, or neither"
            )
        # Keras' own distiller reads these attributes to select the outputs.
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    @abstractmethod
    def of_pair(self, teacher: Any, student: Any) -> Any:
        """The loss of one pair of layers.

        Args:
            teacher: the teacher's features, (batch, ...), float32 or wider.
            student: the student's features, (batch, ...), float32 or wider.

        Returns:
            A scalar.

        Raises:
            ModelError: the shapes can't be compared.
        """

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        """The sum over the pairs.

        Args:
            teacher_outputs: the teacher's features, (batch, ...), or a list of those.
            student_outputs: the student's features, likewise.
            labels: ignored.

        Returns:
            A scalar in float32 or wider.

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
        """Check that both have the same number of features, of one batch.

        Raises:
            ModelError: they don't.
        """
        teacher, student = (keras.tree.flatten(x) for x in (teacher_outputs, student_outputs))
        if len(teacher) != len(student):
            raise ModelError(
                f"expected the same number of features of teacher and student, got "
                f"{len(teacher)} and {len(student)}"
            )
        for t, s in zip(teacher, student, strict=True):
            if len(t.shape) < 2 or len(s.shape) < 2 or t.shape[0] != s.shape[0]:
                raise ModelError(
                    "expected features (batch, ...) of one batch, got "
                    f"{tuple(t.shape)} from the teacher and {tuple(s.shape)} from the student"
                )

    def pairs(self, teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
        """The pairs of layers to compare.

        Args:
            teacher: the teacher, Functional or Sequential.
            student: the student, likewise.

        Returns:
            Pairs of a layer name in the teacher and one in the student.

        Raises:
            RecipeError: a named layer doesn't exist.
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
        """Check that the layers to compare exist; raises like `pairs`."""
        self.pairs(teacher, student)

    def projection(
        self,
        teacher_shapes: Sequence[tuple[int | None, ...]],
        student_shapes: Sequence[tuple[int | None, ...]],
        seed: int,
    ) -> keras.Model | None:
        """The model trained between student features and loss; None for most losses.

        Args:
            teacher_shapes: shapes of the teacher's features, each (batch, ...).
            student_shapes: shapes of the student's features, likewise.
            seed: seed of the initial weights.

        Returns:
            A model from the list of student features to the inputs of `compute_loss`.
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
        """Create the loss from `get_config`."""
        return cls(**config)


def _listed(names: Names) -> tuple[str, ...] | None:
    if names is None:
        return None
    listed = tuple(names) if isinstance(names, list | tuple) else (names,)
    if not listed or not all(isinstance(name, str) and name for name in listed):
        raise RecipeError(f"a layer's name, or a list of names, is expected, got {names!r}")
    return listed
