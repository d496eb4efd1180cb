"""The section `loss` of a recipe."""

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, PlainValidator, StrictFloat, WithJsonSchema
from pydantic.dataclasses import dataclass

from tutelage.recipe import suggestions
from tutelage.recipe.reference import is_reference
from tutelage.recipe.values import STRICT, Count, NonNegative, Positive

OnLogits = Literal["kd", "standardized-kd", "dkd", "nkd", "dist"]
OnFeatures = Literal["fitnet", "attention-transfer", "similarity-preserving", "rkd", "reviewkd"]
LossName = Literal[OnLogits, OnFeatures]
LOSSES: tuple[str, ...] = get_args(LossName)
SETTINGS: dict[str, tuple[str, ...]] = {  # the losses that have each setting
    "temperature": get_args(OnLogits),
    "beta": ("dkd", "dist"),
    "gamma": ("nkd", "dist"),
    "distance_weight": ("rkd",),
    "angle_weight": ("rkd",),
    "teacher_layer": get_args(OnFeatures),
    "student_layer": get_args(OnFeatures),
}


def _loss_source(name: str) -> str:
    if name in LOSSES or is_reference(name):
        return name
    hint = suggestions.did_you_mean(name, LOSSES)
    raise ValueError(f"expected one of {', '.join(_LOSS_SOURCES)}, found {name!r}{hint}")


_LOSS_SOURCES = (*LOSSES, "package.module:name")
LossSource = Annotated[
    str, AfterValidator(_loss_source), WithJsonSchema({"enum": list(_LOSS_SOURCES)})
]


def _plain(value: object) -> bool:
    """Whether a value is one that both TOML and JSON can express."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _plain_values(settings: dict[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        if not _plain(value):
            raise ValueError(
                "expected finite numbers, strings, booleans, and lists and tables of these, found "
                f"{name} = {value!r}"
            )
    return settings


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Term:
    """One distillation loss, its settings and its weight.

    Args:
        name: the loss: on logits `kd`, `standardized-kd`, `dkd`, `nkd` or `dist`; on features
            `fitnet`, `attention-transfer`, `similarity-preserving`, `rkd` or `reviewkd`; or
            `package.module:name`, a class or function of your own that returns a distillation
            loss on logits.
        weight: factor of the loss, at least 0; None: its default: 100 for `fitnet`, 1000
            for `attention-transfer`, 3000 for `similarity-preserving`, 5 for `reviewkd`, 1 for the
            others.
        ramp: schedule of the weight: `linear` rises from 0 in the first steps, `cosine` falls to 0
            over all steps; None: constant.
        warmup: fraction of the steps in which `linear` rises, above 0, up to 1; None: 0.1.
        temperature: T of a loss on logits, above 0; None: the authors' value.
        beta: `dkd`: weight of the non-target classes; `dist`: of the rows; None: the authors'
            value.
        gamma: `nkd`: weight of the non-target classes; `dist`: of the columns; None: the authors'
            value.
        distance_weight: `rkd`: weight of the distances; None: the authors' value.
        angle_weight: `rkd`: weight of the angles; None: the authors' value.
        teacher_layer: the teacher's layer that a feature loss uses; None: chosen automatically.
        student_layer: the student's layer; None: chosen automatically.
        settings: keyword arguments of a loss of your own; None: none.

    Source:
        See the losses in `tutelage.losses`.

    Example:
        >>> Term(name="rkd", angle_weight=10).angle_weight
        10.0
    """

    name: LossSource = "kd"
    weight: NonNegative | None = None
    ramp: Literal["linear", "cosine"] | None = None
    warmup: Annotated[StrictFloat, Field(gt=0, le=1)] | None = None
    temperature: Positive | None = None
    beta: NonNegative | None = None
    gamma: NonNegative | None = None
    distance_weight: NonNegative | None = None
    angle_weight: NonNegative | None = None
    teacher_layer: str | None = None
    student_layer: str | None = None
    settings: Annotated[dict[str, Any], AfterValidator(_plain_values)] | None = None

    @property
    def own(self) -> bool:
        """Whether the loss is one of the user's own."""
        return self.name not in LOSSES


def own_settings(term: Term) -> Term:
    """Raise ValueError if a loss has settings of another one."""
    for name, owners in SETTINGS.items():
        if (value := getattr(term, name)) is not None and term.name not in owners:
            hint = "; give arguments of a loss of your own in settings" if term.own else ""
            raise ValueError(
                f"{name} is for {', '.join(owners)}, found {name} = {value} with {term.name}{hint}"
            )
    if term.settings is not None and not term.own:
        raise ValueError(
            f"settings is for a loss of your own, package.module:name, found it with {term.name}; "
            "its settings are keys of their own"
        )
    if (term.teacher_layer is None) != (term.student_layer is None):
        raise ValueError("expected both teacher_layer and student_layer, found only one")
    if term.warmup is not None and term.ramp != "linear":
        raise ValueError('warmup requires ramp = "linear"')
    return term


def _alpha(value: object) -> float | str:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        found = suggestions.value_at(value, [])
        raise ValueError(f"expected a number from 0 to 1 or 'auto', found {found}")
    return float(value)


Alpha = Annotated[
    float | Literal["auto"],
    PlainValidator(_alpha),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss(Term):
    """The loss the student minimizes: `alpha * sum(weight * loss) + (1 - alpha) * hard_loss`.

    Args:
        alpha: weight of the distillation losses, 0 to 1; or `auto`: 0.3 if the teacher is no better
            than the baseline on the validation images, up to 0.9 the fewer errors it makes, as in
            `tutelage.experiment.automatic_alpha`.
        more: additional losses, each with its settings and weight.
        generations: number of students trained in sequence, each from its initial weights with the
            previous one as its teacher; the run keeps the last. None: one.
        stored_classes: how many of the teacher's largest logits are stored for each image, with the
            mass of the other classes; at most the number of classes. For `kd` only: other losses
            need all classes, which are stored then. None: all classes, unless they take more than
            256 MiB; then as few as change the distillation loss by less than 0.005, if that saves
            half of the bytes.

    Example:
        >>> Loss(alpha=1).name
        'kd'
        >>> [term.name for term in Loss(more=[{"name": "rkd", "weight": 0.1}]).terms()]
        ['kd', 'rkd']
    """

    alpha: Alpha = "auto"
    more: tuple[Annotated[Term, AfterValidator(own_settings)], ...] | None = None
    generations: Count | None = None
    stored_classes: Count | None = None

    def terms(self) -> tuple[Term, ...]:
        """All losses, the main one first."""
        return (self, *(self.more or ()))
