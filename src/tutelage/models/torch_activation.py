"""The softmax or sigmoid that a PyTorch module ends in, found while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_NAMES = {
    "softmax": "softmax",
    "special_softmax": "softmax",
    "log_softmax": "log_softmax",
    "special_log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
    "special_expit": "sigmoid",
}


class LastActivation(TorchFunctionMode):
    """While open, watches the calls of softmax, log-softmax and sigmoid, as by layers.

    A module ends in one if its output is that call's result itself; inside a module that was
    compiled to TorchScript, calls can't be seen.

    Example:

    >>> import torch
    >>> from tutelage.models.torch_activation import LastActivation
    >>> module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Softmax(1))
    >>> with LastActivation() as last:
    ...     outputs = module(torch.tensor([[1.0, 2.0]]))
    >>> last.before(outputs)
    (tensor([[1., 2.]]), 'softmax')
    """

    def __init__(self) -> None:
        super().__init__()
        self._call: tuple[str, torch.Tensor, torch.Tensor] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, and keep a softmax's or sigmoid's input and result."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = _NAMES.get(getattr(func, "__name__", ""), "")
        if name and isinstance(result, torch.Tensor):
            x, *rest = [*args, *(kwargs[key] for key in ("input", "dim") if key in kwargs)]
            # Without a dim, that of an output (batch, classes) is 1.
            if name == "sigmoid" or not rest or rest[0] in (None, 1, -1):
                self._call = name, x, result
        return result

    def before(self, outputs: torch.Tensor) -> tuple[torch.Tensor, str]:
        """The logits and the activation's name; or the outputs (batch, classes) and `""`."""
        if self._call is None or self._call[2] is not outputs or outputs.ndim != 2:
            return outputs, ""
        name, logits, _ = self._call
        return logits, name
