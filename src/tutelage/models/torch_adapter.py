"""PyTorch modules as teachers: raw images in, logits out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from tutelage.data.content import Images
from tutelage.distillation.output_kind import note_activation
from tutelage.errors import ModelError
from tutelage.models.preprocessing import Preprocessing, input_size
from tutelage.models.probing import TeacherFunction, teacher_function
from tutelage.models.torch_activation import LastActivation


def from_torch(
    module: torch.nn.Module,
    name: str,
    images: Images,
    classes: int,
    preprocessing: Preprocessing,
) -> tuple[TeacherFunction, list[str]]:
    """Wrap a PyTorch module with one NCHW input to map raw images to logits on its device.

    Args:
        module: the module; called in evaluation mode, its modes are restored afterwards.
        name, images, classes, preprocessing: as in `keras_adapter.from_keras`.

    Returns:
        A function from uint8 images and a precision to float32 logits, and notes for the user.

    Raises:
        ModelError: if it doesn't match the data.

    Example:

    >>> import numpy as np
    >>> import torch
    >>> from tutelage.models import torch_adapter
    >>> from tutelage.models.preprocessing import Preprocessing
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> preprocessing = Preprocessing(scale=255)
    >>> logits, _ = torch_adapter.from_torch(module, "mine", images, 3, preprocessing)
    >>> logits(images, "float32").shape
    (4, 3)
    """
    notes: list[str] = []
    size = input_size(name, images.shape[1:], (None, None), preprocessing, notes)

    def run(pixels: np.ndarray, precision: str) -> np.ndarray:
        tensors = itertools.chain(module.parameters(), module.buffers(), [torch.zeros(())])
        reference = next(tensor for tensor in tensors if tensor.is_floating_point())
        x = torch.tensor(pixels).permute(0, 3, 1, 2).to(reference.device, reference.dtype)
        autocast = torch.autocast(
            reference.device.type, torch.bfloat16, enabled=precision == "bfloat16"
        )
        with _evaluating(module), torch.inference_mode(), autocast, LastActivation() as last:
            outputs = module(x)
        if not isinstance(outputs, torch.Tensor):
            raise ModelError(
                f"{name} returns {type(outputs).__name__}: expected one tensor, of logits; "
                "wrap it in a module that returns only the logits"
            )
        logits, activation = last.before(outputs)
        note_activation(activation, notes)
        return logits.float().cpu().numpy()

    return teacher_function(run, name, images, classes, preprocessing, size, "float32", notes)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, then restore the mode of each submodule."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
