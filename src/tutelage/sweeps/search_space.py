"""The search space of a sweep: alphas, temperatures, methods and seeds, and how to search them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, TypeAlias, get_args

from tutelage.errors import RecipeError
from tutelage.recipe import LOSSES, SETTINGS, Loss, Recipe, with_seeds

Search: TypeAlias = Literal["grid", "random", "guided"]
_MOST = 1000  # values of a range


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
        alpha: its weight, above 0 to 1.
        temperature: None where the method has none, or its authors' choice.

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
        own = base if self.method == base.name else Loss(more=base.more)
        given: dict[str, Any] = {"name": self.method, "temperature": self.temperature}
        return replace(own, alpha=self.alpha, **given)

    def __str__(self) -> str:
        degree = "" if self.temperature is None else f", T {self.temperature:g}"
        return f"{self.method}, alpha {self.alpha:g}{degree}"


@dataclass(frozen=True)
class TrialSpec:
    """One student of a sweep.

    Attributes:
        setting: what it learns by; None is the baseline.
        seed: of its weights, order and views.
    """

    setting: Setting | None
    seed: int

    def __str__(self) -> str:
        return f"{self.setting or 'baseline'}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """The search space of a sweep; made by `plan`, which checks it.

    Attributes:
        alphas: above 0, as the baseline is trained anyhow.
        temperatures: None leaves the recipe's.
        methods: names of losses.
        seeds: of each setting, in order.
        search: `grid` tries every combination, `random` draws, `guided` draws by what was found.
        trials: how many settings are drawn; None of a grid.
        prune: whether students that fall behind are stopped early.
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
        """The students known before the search: baselines, and all of a grid, seed by seed."""
        settings = self.settings(recipe) if self.search == "grid" else []
        return [TrialSpec(one, seed) for seed in self.seeds for one in (None, *settings)]

    def students(self, recipe: Recipe) -> int:
        """How many students there are in all."""
        return len(self.specs(recipe)) + (self.trials or 0) * len(self.seeds)


def values(given: AxisValues, name: str) -> Axis:
    """Read the values of an option.

    Args:
        given: `a:b:step`, an inclusive range in exact decimals; `a:b`, all between; `a,b,c`, a
            list; a number; or numbers.
        name: of the option, for messages.

    Returns:
        The values, each once, or a span.

    Raises:
        RecipeError: what was expected and found.

    Example:

    >>> from tutelage.sweeps.search_space import values
    >>> values("0:0.3:0.1", "alpha"), values("1,2", "T"), values("1:8", "T")
    ((0.0, 0.1, 0.2, 0.3), (1.0, 2.0), Span(low=1.0, high=8.0))
    """
    if isinstance(given, Span):
        return given
    if not isinstance(given, str):
        listed = (given,) if isinstance(given, int | float) else tuple(given)
        given = ",".join(str(float(one)) for one in listed)
    try:
        if ":" not in given:
            return tuple(dict.fromkeys(float(_number(one)) for one in given.split(",")))
        low, high, *rest = (_number(one) for one in given.split(":"))
    except (ValueError, InvalidOperation):
        rest = [Decimal(0)] * 2
    if len(rest) > 1:
        raise RecipeError(
            f"{name}: expected a number, a list such as 1,2,4 or a range such as 0:1:0.1, "
            f"found {given!r}"
        )
    if low >= high:
        raise RecipeError(f"{name}: expected a range from less to more, found {given!r}")
    if not rest:
        return Span(float(low), float(high))
    (step,) = rest
    if step <= 0 or (high - low) % step or (high - low) / step >= _MOST:
        raise RecipeError(
            f"{name}: expected a step that leads from {low} to {high} in at most {_MOST} values, "
            f"found {step}"
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
        recipe: what is varied.
        alpha: as `values` takes it, 0 to 1. 0 is the baseline, whatever the rest.
        temperature: likewise, above 0.
        method: a loss, or several, as names or with commas between.
        seeds: how many, from the recipe's on.
        search: one of `grid`, `random`, `guided`.
        trials: how many settings are drawn, where it is no grid.
        prune: stop students early that fall behind the others' median.

    Returns:
        The plan.

    Raises:
        RecipeError: what was expected and found.

    Example:

    >>> from tutelage.sweeps import search_space
    >>> from tutelage import recipe
    >>> plan = search_space.plan(recipe.load("digits"), alpha="0:1:0.5", temperature="1,2", seeds=2)
    >>> [str(setting) for setting in plan.settings(recipe.load("digits"))][:2]
    ['kd, alpha 0.5, T 1', 'kd, alpha 1, T 1']
    >>> plan.students(recipe.load("digits"))
    10
    """
    alphas = values(recipe.loss.alpha if alpha is None else alpha, "alpha")
    _within(alphas, "alpha", lambda x: 0 <= x <= 1, "from 0 to 1")
    degrees = None if temperature is None else values(temperature, "temperature")
    _within(degrees or (), "temperature", lambda x: 0 < x < math.inf, "above 0")
    methods = _methods(recipe.loss.name if method is None else method)
    cold = [one for one in methods if one not in SETTINGS["temperature"]]
    if degrees is not None and cold:
        raise RecipeError(
            f"temperature: expected methods that have one, found {', '.join(cold)}: sweep "
            f"{'it' if len(cold) == 1 else 'them'} apart, without temperatures"
        )
    _check_search(search, trials, {"alpha": alphas, "temperature": degrees})
    counted = tuple(one.seed for one in with_seeds(recipe, seeds))
    epochs = recipe.schedule.student.epochs
    if prune and epochs < 2:
        raise RecipeError(
            f"prune: expected at least 2 epochs of the student, found {epochs}: there is no "
            "stopping before the first has ended"
        )
    if recipe.loss.generations not in (None, 1):
        raise RecipeError(
            f"loss.generations: expected 1 in a sweep, found {recipe.loss.generations}"
        )
    if not isinstance(alphas, Span):
        alphas = tuple(one for one in alphas if one)
        if not alphas:
            raise RecipeError("alpha: expected one above 0, as 0 is the baseline, found 0 alone")
    return Plan(alphas, degrees, methods, counted, search, trials, prune)


def _number(text: str) -> Decimal:
    number = Decimal(text.strip())
    if not number.is_finite():
        raise ValueError(text)
    return number


def _within(axis: Axis, name: str, fits: Callable[[float], bool], words: str) -> None:
    ends = (axis.low, axis.high) if isinstance(axis, Span) else axis
    if wrong := [one for one in ends if not fits(one)]:
        raise RecipeError(f"{name}: expected numbers {words}, found {wrong[0]:g}")


def _methods(given: str | Sequence[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    found = tuple(dict.fromkeys(name.strip() for name in names))
    for name in found:
        if name not in LOSSES:
            near = difflib.get_close_matches(name, LOSSES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RecipeError(f"method: expected some of {', '.join(LOSSES)}, found {name!r}{hint}")
    return found


def _check_search(search: str, trials: int | None, axes: Mapping[str, Axis | None]) -> None:
    if search not in get_args(Search):
        raise RecipeError(
            f"search: expected one of {', '.join(get_args(Search))}, found {search!r}"
        )
    if search == "grid":
        if trials is not None:
            raise RecipeError(
                f"trials: expected with --search random or guided alone, found {trials} of a grid, "
                "which tries everything"
            )
        for name, axis in axes.items():
            if isinstance(axis, Span):
                raise RecipeError(
                    f"{name}: expected a step in a grid, such as {axis.low:g}:{axis.high:g}:"
                    f"{(axis.high - axis.low) / 10:g}, found none: give one, or --search random"
                )
    elif trials is None or trials < 1:
        raise RecipeError(f"trials: expected how many settings to try, found {trials}")
