"""The optimizer that a schedule names, and Muon: SGD with orthogonalized updates."""

from __future__ import annotations

import inspect
import json
from typing import Any

import keras
from keras import ops

from tutelage.errors import RecipeError, reason
from tutelage.models.digest import source_code
from tutelage.recipe import MOMENTUM, Schedule, reference, suggestions
from tutelage.training.schedules import TriangularSchedule

_KERAS_NAMES = {"adamw": "AdamW", "lamb": "Lamb"}
_NAMES = (*MOMENTUM, *_KERAS_NAMES)
_WRAPPERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")  # not optimizers by themselves
_NOT_PROPORTIONAL = (keras.optimizers.Ftrl, keras.optimizers.ScheduleFreeAdamW)
_RECIPE_NAMES = {"global_clipnorm": "clip_norm"}
_NO_WEIGHT_DECAY = ["bias", "gamma", "beta"]
# The author's coefficients and number of Newton-Schulz iterations.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class Muon(keras.optimizers.Optimizer):
    """Momentum, orthogonalized by Newton-Schulz iteration for matrices and kernels.

        m <- momentum * m + g
        d = g + momentum * m
        W <- W - learning_rate * (weight_decay * W + scale * orthogonal(d))

    A kernel is reshaped to a matrix of (inputs, outputs), with a convolution's window part of
    the inputs; scale is `sqrt(max(1, outputs / inputs))`. One-dimensional variables (biases,
    normalization) are updated by `d` itself, as in Nesterov momentum. Keras' own Muon uses
    AdamW for convolutions.

    Args:
        learning_rate: a number above 0 or a Keras schedule.
        momentum: Nesterov momentum, from 0 to below 1.
        weight_decay: decoupled weight decay; None: none.
        name: name of the optimizer.
        **kwargs: as in any Keras optimizer.

    Raises:
        RecipeError: if the momentum is out of range.

    Source: Jordan and others 2024, https://kellerjordan.github.io/posts/muon.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.training.optimizers import Muon
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile(Muon(learning_rate=0.05), "mse")
    >>> history = model.fit(np.ones((6, 4)), np.ones((6, 3)), epochs=2, verbose=0)
    >>> history.history["loss"][1] < history.history["loss"][0]
    True
    """

    def __init__(
        self,
        learning_rate: Any = 0.05,
        momentum: float = 0.9,
        weight_decay: float | None = None,
        name: str = "muon",
        **kwargs: Any,
    ):
        if not 0 <= momentum < 1:
            raise RecipeError(f"momentum: expected a number from 0 to below 1, found {momentum!r}")
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.momentum = momentum

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the momentum of each variable."""
        if self.built:
            return
        super().build(variables)
        self._momenta = [self.add_variable_from_reference(v, name="momentum") for v in variables]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        average = self._momenta[self._get_variable_index(variable)]
        self.assign(average, gradient + self.momentum * average)
        step = gradient + self.momentum * average
        if len(variable.shape) > 1:
            step = orthogonal(step)
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"momentum": self.momentum}


def orthogonal(kernel: Any) -> Any:
    """Approximate the orthogonal matrix closest to a kernel: singular values become about 1.

    The iteration uses the small matrix of the kernel's inner products instead of the
    kernel, which gives the same result with a third of the operations.

    Args:
        kernel: a tensor of shape (..., outputs); all axes before the last are inputs.

    Returns:
        A tensor of the same shape, times `sqrt(max(1, outputs / inputs))`.
    """
    shape = tuple(kernel.shape)
    matrix = ops.reshape(kernel, (-1, shape[-1]))
    inputs, outputs = matrix.shape
    wide = matrix if inputs <= outputs else ops.transpose(matrix)
    inner = ops.matmul(wide, ops.transpose(wide))
    # Scaling uses small matrices too: the trace is the kernel's squared norm.
    scale = 1 / (ops.sqrt(ops.trace(inner)) + 1e-7)
    inner = inner * scale**2
    unit = ops.eye(len(inner), dtype=kernel.dtype)
    product = unit
    for iteration in range(_ITERATIONS):
        # Every factor is a polynomial in the same symmetric matrix, so all of them commute.
        factor = _A * unit + _B * inner + _C * ops.matmul(inner, inner)
        product = ops.matmul(factor, product) if iteration else factor
        if iteration < _ITERATIONS - 1:
            inner = ops.matmul(ops.matmul(factor, inner), factor)
    result = ops.matmul(product * (scale * max(1.0, outputs / inputs) ** 0.5), wide)
    result = result if inputs <= outputs else ops.transpose(result)
    return ops.reshape(result, shape)


def build(schedule: Schedule, rate: Any, parts: int = 1) -> keras.optimizers.Optimizer:
    """The optimizer that a schedule names.

    Args:
        schedule: names it and has its settings.
        rate: the learning rate, a Keras schedule.
        parts: batches that gradients are accumulated over in each step.

    Returns:
        The optimizer. Weight decay leaves out biases and the parameters of normalizations.

    Raises:
        RecipeError: if there is no such optimizer, or one of the user's own can't be made or
            has other settings than the schedule.

    Example:

    >>> from tutelage.recipe import Schedule
    >>> from tutelage.training import optimizers
    >>> schedule = Schedule(epochs=1, learning_rate=0.001, optimizer="adamw")
    >>> optimizers.build(schedule, 0.001).weight_decay
    0.005
    """
    name, decay = schedule.optimizer, schedule.weight_decay or None
    momentum = schedule.momentum or 0.0
    settings: dict[str, Any] = {
        "weight_decay": decay,
        "global_clipnorm": schedule.clip_norm,
        "gradient_accumulation_steps": parts if parts > 1 else None,
    }
    if name == "muon":
        optimizer = Muon(rate, momentum, **settings)
    elif name == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum, momentum > 0, **settings)
    elif reference.is_reference(name):
        optimizer = _own(name, rate, settings)
    else:
        kind = _keras_class(name)
        # Some classes have a weight decay by default, and AdamW refuses None.
        optimizer = kind(rate, **settings | {"weight_decay": schedule.weight_decay})
    if schedule.layer_decay and isinstance(optimizer, _NOT_PROPORTIONAL):
        raise RecipeError(
            "layer_decay: expected an optimizer whose steps are proportional to the learning rate, "
            f"found {name}; choose another one, or leave layer_decay out"
        )
    if decay:
        optimizer.exclude_from_weight_decay(var_names=_NO_WEIGHT_DECAY)
    return optimizer


def digest(name: str) -> str | None:
    """What an optimizer of the user's own does, as text; None for others, which the name says.

    Args:
        name: the optimizer's name in a schedule.

    Returns:
        Its settings and the source code of its class and of what makes it.
    """
    if not reference.is_reference(name):
        return None
    optimizer = _made(name, TriangularSchedule(1.0, steps=1, warmup=0.0))
    numbers = {
        key: value
        for key, value in optimizer.get_config().items()
        if isinstance(value, int | float | None)
    }
    try:
        source = inspect.getsource(reference.find(name))
    except (OSError, TypeError):  # not defined in a file
        source = name
    return f"{json.dumps(numbers, sort_keys=True)} {source} {source_code([optimizer])}"


def _keras_class(name: str) -> type[keras.optimizers.Optimizer]:
    classes = {
        key: kind
        for key, kind in vars(keras.optimizers).items()
        if isinstance(kind, type)
        and issubclass(kind, keras.optimizers.Optimizer)
        and key not in _WRAPPERS
    }
    found = classes.get(_KERAS_NAMES.get(name, name))
    if found is None:
        known = [*_NAMES, *sorted(classes)]
        meant = [other for other in known if other.lower() == name.lower()]
        if not meant:
            near = suggestions.nearest(name.lower(), {other.lower() for other in known})
            meant = [other for other in known if other.lower() in near]
        hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
        raise RecipeError(
            f"optimizer: expected {', '.join(_NAMES)}, package.module:name or a class of "
            f"keras.optimizers ({', '.join(sorted(classes))}), found {name!r}{hint}"
        )
    return found


def _own(name: str, rate: Any, settings: dict[str, Any]) -> keras.optimizers.Optimizer:
    """An optimizer of the user's own, with a schedule's settings."""
    optimizer = _made(name, rate)
    for setting, value in settings.items():
        own = getattr(optimizer, setting)
        if own is not None and own != value:
            raise RecipeError(
                f"{_RECIPE_NAMES.get(setting, setting)}: expected {own}, as {name} sets it, "
                f"found {value or 'none'}; set it in one place"
            )
        setattr(optimizer, setting, value)
    for other in ("clipnorm", "clipvalue"):
        if optimizer.global_clipnorm and getattr(optimizer, other):
            raise RecipeError(
                f"clip_norm: expected none, as {name} sets {other}, found "
                f"{optimizer.global_clipnorm}; clip in one way"
            )
    return optimizer


def _made(name: str, rate: Any) -> keras.optimizers.Optimizer:
    make = reference.find(name)
    with reference.current_folder_importable():
        try:
            made = make(learning_rate=rate)
        except Exception as error:  # the user's own code
            raise RecipeError(f"optimizer: {name} raised {reason(error)}") from error
    if not isinstance(made, keras.optimizers.Optimizer) or made.built:
        raise RecipeError(
            f"optimizer: expected {name} to return a new Keras optimizer, found {made!r}"
        )
    return made
