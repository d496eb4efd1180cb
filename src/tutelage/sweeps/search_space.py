"""The search space of a sweep: alphas, temperatures, methods, seeds and the search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, TypeAlias, get_args

from tutelage.errors import RecipeError
from tutelage.recipe import LOSSES, SETTINGS, Loss, Recipe, suggestions, with_seeds
from tutelage.recipe.reference import is_reference

Search: TypeAlias = Literal["grid", "random", "guided"]
_MOST = 1000  # maximum number of values in a range


@dataclass(frozen=True)
class Span:
    """All numbers from `low` to `high`."""

    low: float
    high: float


Axis: TypeAlias = tuple[float, ...] | Span
AxisValues: TypeAlias = str | float | Sequence[float] | Span


@dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    Attributes:
        method: the distillation loss.
        alpha: its weight, above 0, up to 1.
        temperature: None if the method has none, or for its authors' choice.

    Example:

    >>> from tutelage.sweeps import search_space
    >>> str(search_space.Setting("kd", 0.5, 4.0))
    'kd, alpha 0.5, T 4'
    """

    method: str
    alpha: float
    temperature: float | None = None

    def loss(self, base: Loss) -> Loss:
        """A recipe's loss section with this setting; another method drops its own settings."""
        section = base
        if self.method != base.name:
            section = Loss(more=base.more, stored_classes=base.stored_classes)
        given: dict[str, Any] = {"name": self.method, "temperature": self.temperature}
        return replace(section, alpha=self.alpha, **given)

    def __str__(self) -> str:
        degree = "" if self.temperature is None else f", T {self.temperature:g}"
        return f"{self.method}, alpha {self.alpha:g}{degree}"


@dataclass(frozen=True)
class TrialSpec:
    """One student of a sweep.

    Attributes:
        setting: its setting; None for the baseline.
        seed: seed of weights, image order and augmentation.
    """

    setting: Setting | None
    seed: int

    def __str__(self) -> str:
        return f"{self.setting or 'baseline'}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """The search space of a sweep; created and checked by `plan`.

    Attributes:
        alphas: values above 0; the baseline is always trained.
        temperatures: None for the recipe's.
        methods: names of losses.
        seeds: seeds of each setting, in order.
        search: `grid` for all combinations, `random`, or `guided` by earlier results.
        trials: the number of settings to sample; None for a grid.
        prune: whether students below the median are stopped early.
    """

    alphas: Axis
    temperatures: Axis | None
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    search: Search = "grid"
    trials: int | None = None
    prune: bool = False

    def setting(self, method: str, alpha: float, temperature: float | None, loss: Loss) -> Setting:
        """A point of the plan; its temperature defaults to the recipe's for the recipe's method."""
        if self.temperatures is None and method == loss.name:
            temperature = loss.temperature
        return Setting(method, alpha, temperature)

    def settings(self, recipe: Recipe) -> list[Setting]:
        """Every combination of a grid."""
        assert not isinstance(self.alphas, Span)
        assert not isinstance(self.temperatures, Span)
        return [
            self.setting(method, alpha, temperature, recipe.loss)
            for method in self.methods
            for temperature in self.temperatures or (None,)
            for alpha in self.alphas
        ]

    def specs(self, recipe: Recipe) -> list[TrialSpec]:
        """The students known before the search: baselines, and a whole grid, seed by seed."""
        settings = self.settings(recipe) if self.search == "grid" else []
        return [TrialSpec(x, seed) for seed in self.seeds for x in (None, *settings)]

    def students(self, recipe: Recipe) -> int:
        """The total number of students."""
        return len(self.specs(recipe)) + (self.trials or 0) * len(self.seeds)


def values(given: AxisValues, name: str) -> Axis:
    """Read the values of an option.

    Args:
        given: `a:b:step`, an inclusive range in exact decimals; `a:b`, a continuous range;
            `a,b,c`, a list; a number; or numbers.
        name: the option's name for messages.

    Returns:
        The values without duplicates, or a span.

    Raises:
        RecipeError: the values are invalid.

    Example:

    >>> from tutelage.sweeps.search_space import values
    >>> values("0:0.3:0.1", "alpha"), values("1,2", "T"), values("1:8", "T")
    ((0.0, 0.1, 0.2, 0.3), (1.0, 2.0), Span(low=1.0, high=8.0))
    """
    if isinstance(given, Span):
        return given
    if not isinstance(given, str):
        listed = (given,) if isinstance(given, int | float) else tuple(given)
        given = ",".join(str(float(x)) for x in listed)
    try:
        if ":" not in given:
            return tuple(dict.fromkeys(float(_number(x)) for x in given.split(",")))
        low, high, *rest = (_number(x) for x in given.split(":"))
    except (ValueError, InvalidOperation):
        rest = [Decimal(0)] * 2
    if len(rest) > 1:
        raise RecipeError(
            f"{name}: expected a number, a list such as 1,2,4 or a range such as 0:1:0.1, "
            f"found {given!r}"
        )
    if low >= high:
        raise RecipeError(f"{name}: expected an ascending range, found {given!r}")
    if not rest:
        return Span(float(low), float(high))
    (step,) = rest
    if step <= 0 or (high - low) % step or (high - low) / step >= _MOST:
        raise RecipeError(
            f"{name}: expected a step that divides {low} to {high} evenly into at most {_MOST} "
            f"values, found {step}"
        )
    return tuple(float(low + i * step) for i in range(int((high - low) / step) + 1))


def plan(
    recipe: Recipe,
    *,
    alpha: AxisValues | None = None,
    temperature: AxisValues | None = None,
    method: str | Sequence[str] | None = None,
    seeds: int = 1,
    search: Search = "grid",
    trials: int | None = None,
    prune: bool = False,
) -> Plan:
    """Plan a sweep and check it; the defaults are the recipe's settings.

    Args:
        recipe: the recipe to vary.
        alpha: as in `values`, 0 to 1; 0 is the baseline.
        temperature: as in `values`, above 0.
        method: names of losses, or `package.module:name`, as a sequence or separated by commas.
        seeds: the number of seeds, starting at the recipe's.
        search: one of `grid`, `random`, `guided`.
        trials: the number of settings to sample, unless it is a grid.
        prune: whether to stop students early that are below the median of the others.

    Returns:
        The plan.

    Raises:
        RecipeError: an argument is invalid.

    Example:

    >>> from tutelage.sweeps import search_space
    >>> from tutelage import recipe
    >>> plan = search_space.plan(recipe.load("digits"), alpha="0:1:0.5", temperature="1,2", seeds=2)
    >>> [str(setting) for setting in plan.settings(recipe.load("digits"))][:2]
    ['kd, alpha 0.5, T 1', 'kd, alpha 1, T 1']
    >>> plan.students(recipe.load("digits"))
    10
    """
    if alpha is None and recipe.loss.alpha == "auto":
        raise RecipeError(
            "alpha: expected values to compare, found none, as the recipe's is auto; give --alpha, "
            "such as 0.5:0.9:0.2"
        )
    alphas = values(recipe.loss.alpha if alpha is None else alpha, "alpha")
    _within(alphas, "alpha", lambda x: 0 <= x <= 1, "from 0 to 1")
    degrees = None if temperature is None else values(temperature, "temperature")
    _within(degrees or (), "temperature", lambda x: 0 < x < math.inf, "above 0")
    methods = _methods(recipe.loss.name if method is None else method)
    without = [name for name in methods if name not in SETTINGS["temperature"]]
    if degrees is not None and without:
        raise RecipeError(
            f"temperature: expected methods that have one, found {', '.join(without)}: sweep "
            f"{'it' if len(without) == 1 else 'them'} separately, without temperatures"
        )
    _check_search(search, trials, {"alpha": alphas, "temperature": degrees})
    numbers = tuple(seeded.seed for seeded in with_seeds(recipe, seeds))
    epochs = recipe.schedule.student.epochs
    if prune and epochs < 2:
        raise RecipeError(
            f"prune: expected at least 2 epochs of the student, found {epochs}: students "
            "can't be stopped before the first epoch ends"
        )
    if recipe.schedule.student.early_stopping is not None:
        raise RecipeError(
            "schedule.student.early_stopping: expected none in a sweep, which retrains the best "
            "setting on the validation images, too, found "
            f"{recipe.schedule.student.early_stopping}; leave it out"
        )
    if recipe.track:
        raise RecipeError(
            f"track: expected none in a sweep, found {list(recipe.track)}; its results are in "
            "trials.csv: set track=[]"
        )
    if recipe.loss.generations not in (None, 1):
        raise RecipeError(
            f"loss.generations: expected 1 in a sweep, found {recipe.loss.generations}"
        )
    if not isinstance(alphas, Span):
        alphas = tuple(x for x in alphas if x)
        if not alphas:
            raise RecipeError("alpha: expected a value above 0, as 0 is the baseline, found only 0")
    return Plan(alphas, degrees, methods, numbers, search, trials, prune)


def _number(text: str) -> Decimal:
    number = Decimal(text.strip())
    if not number.is_finite():
        raise ValueError(text)
    return number


def _within(axis: Axis, name: str, fits: Callable[[float], bool], words: str) -> None:
    ends = (axis.low, axis.high) if isinstance(axis, Span) else axis
    if wrong := [x for x in ends if not fits(x)]:
        raise RecipeError(f"{name}: expected numbers {words}, found {wrong[0]:g}")


def _methods(given: str | Sequence[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    methods = tuple(dict.fromkeys(name.strip() for name in names))
    for name in methods:
        if name not in LOSSES and not is_reference(name):
            hint = suggestions.did_you_mean(name, LOSSES)
            raise RecipeError(f"method: expected some of {', '.join(LOSSES)}, found {name!r}{hint}")
    return methods


def _check_search(search: str, trials: int | None, axes: Mapping[str, Axis | None]) -> None:
    if search not in get_args(Search):
        raise RecipeError(
            f"search: expected one of {', '.join(get_args(Search))}, found {search!r}"
        )
    if search == "grid":
        if trials is not None:
            raise RecipeError(
                f"trials: expected only with --search random or guided, found {trials} for a grid, "
                "which tries all combinations"
            )
        for name, axis in axes.items():
            if isinstance(axis, Span):
                raise RecipeError(
                    f"{name}: expected a step in a grid, such as {axis.low:g}:{axis.high:g}:"
                    f"{(axis.high - axis.low) / 10:g}, found none: give one, or --search random"
                )
    elif trials is None or trials < 1:
        raise RecipeError(f"trials: expected the number of settings to try, found {trials}")
