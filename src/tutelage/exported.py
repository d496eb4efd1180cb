"""An exported model file, opened and asked: it needs ONNX Runtime and NumPy, nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from scipy.special import softmax

from .errors import ModelError, RecipeError

# Where a file says what it is, among its metadata: both are JSON.
CLASSES = "classes"  # the classes' names, a list
ABOUT = "tutelage"  # name, precision, parameters, macs, shape, figures, data


class Exported:
    """A file of `tutelage export`, ready to answer raw uint8 images.

    Args:
        path: the `.onnx` file.
        threads: that one call may use, at least 1.

    Attributes:
        path: the file.
        name: of the model, such as `student`.
        precision: `float32` or `int8`.
        shape: (height, width, channels) of the images it takes.
        classes: the classes' names.
        about: what the file says of itself: also `parameters`, `macs`, `figures`, `data`.

    Raises:
        RecipeError: if `threads` is below 1.
        ModelError: if there is no such file, or it is none of `tutelage export`.

    Example:

    >>> from tutelage import exported
    >>> exported.Exported("missing.onnx")
    Traceback (most recent call last):
        ...
    tutelage.errors.ModelError: no file missing.onnx: expected one of tutelage export
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1):
        self.path = Path(path)
        if threads < 1:
            raise RecipeError(f"threads: expected at least 1, found {threads}")
        if not self.path.is_file():
            raise ModelError(f"no file {self.path}: expected one of tutelage export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # what it warns of is of no use to who runs the file
        try:
            self._session = onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
            given = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.path} can't be read as an ONNX model: {reason}") from error
        try:
            self.classes = tuple(json.loads(given[CLASSES]))
            self.about: dict[str, Any] = json.loads(given[ABOUT])
            self.name: str = self.about["name"]
            self.precision: str = self.about["precision"]
            height, width, channels = self.about["shape"]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.path} doesn't say what it is: expected a file of tutelage export"
            ) from error
        self.shape: tuple[int, int, int] = (height, width, channels)
        self._input = self._session.get_inputs()[0].name

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Answer images.

        Args:
            images: uint8 of shape (n, height, width, channels), n at least 1.

        Returns:
            float32 logits of shape (n, classes).

        Raises:
            ModelError: if the images are of another shape or dtype.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.shape:
            raise ModelError(
                f"{self.path} takes uint8 images of shape (n, {', '.join(map(str, self.shape))}), "
                f"found {images.dtype} of shape {images.shape}"
            )
        (answers,) = self._session.run(None, {self._input: images})
        return answers

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Answer images with `softmax(logits)`, float64 of shape (n, classes)."""
        return softmax(self.logits(images).astype(np.float64), axis=1)
