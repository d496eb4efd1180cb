"""Predictions of exported models with ONNX Runtime, without Keras and PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from tutelage.data import image_file
from tutelage.data.geometry import Geometry
from tutelage.errors import ModelError, RecipeError, extra
from tutelage.models import file_metadata

# Metadata keys; the values are JSON.
CLASSES = "classes"  # the classes' names, a list
ABOUT = "tutelage"  # name, precision, parameters, macs, shape, figures, data


class ExportedModel:
    """A file written by `tutelage export`: raw uint8 images in, logits out.

    Args:
        path: the `.onnx` file.
        threads: number of threads per call, at least 1.

    Attributes:
        path: the file.
        name: name of the model, such as `student`.
        precision: `float32` or `int8`.
        shape: (height, width, channels) of its input images.
        geometry: how an image gets that size.
        classes: the classes' names.
        about: all metadata of the file, including `parameters`, `macs`, `figures`, `data`.

    Raises:
        RecipeError: if `threads` is below 1.
        ModelError: if the file doesn't exist, or was not written by `tutelage export`.
        MissingExtraError: if ONNX Runtime is not installed.

    Example:

    >>> from tutelage.models import onnx_model
    >>> onnx_model.ExportedModel("missing.onnx")
    Traceback (most recent call last):
        ...
    tutelage.errors.ModelError: no file missing.onnx: expected a file of tutelage export
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1):
        self.path = Path(path)
        if threads < 1:
            raise RecipeError(f"threads: expected at least 1, found {threads}")
        if not self.path.is_file():
            raise ModelError(f"no file {self.path}: expected a file of tutelage export")
        with extra("export"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # warnings concern the graph, not its use
        try:
            self._session = onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
            metadata = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's errors have no public base class
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.path} can't be read as an ONNX model: {reason}") from error
        try:
            self.classes = tuple(json.loads(metadata[CLASSES]))
            self.about: dict[str, Any] = json.loads(metadata[ABOUT])
            self.name: str = self.about["name"]
            self.precision: str = self.about["precision"]
            height, width, channels = self.about["shape"]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.path} has no metadata of tutelage export: expected a file written by it"
            ) from error
        self.shape: tuple[int, int, int] = (height, width, channels)
        made = file_metadata.geometry_of(self.about, (height, width))
        self.geometry = made or Geometry((height, width))
        self._input = self._session.get_inputs()[0].name

    @property
    def input(self) -> tuple[Geometry, int]:
        """How an image becomes its input, and the channels."""
        return self.geometry, self.shape[2]

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    @property
    def size_figures(self) -> dict[str, Any]:
        """`parameters` and `macs` of the model, if the file has them."""
        return {key: self.about[key] for key in ("parameters", "macs") if key in self.about}

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Compute logits.

        Args:
            images: uint8 of shape (n, height, width, channels), n at least 1.

        Returns:
            float32 logits of shape (n, classes).

        Raises:
            ModelError: if the images' shape or dtype is wrong.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.shape:
            raise ModelError(
                f"{self.path} takes uint8 images of shape (n, {', '.join(map(str, self.shape))}), "
                f"found {images.dtype} of shape {images.shape}"
            )
        (outputs,) = self._session.run(None, {self._input: images})
        return outputs

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """`softmax(logits)` of images, float64 of shape (n, classes)."""
        return softmax(self.logits(images).astype(np.float64), axis=1)


def class_names_of(session: Any) -> tuple[str, ...] | None:
    """The classes' names in the metadata of an opened file; None unless `tutelage export` wrote it.

    Args:
        session: an `onnxruntime.InferenceSession`.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        return tuple(map(str, json.loads(metadata[CLASSES]))) if ABOUT in metadata else None
    except (KeyError, TypeError, ValueError):
        return None


def predict(path: Path, images: Sequence[Path], top: int = 3) -> list[dict[str, Any]]:
    """Classify images with an exported file: the most likely classes of each.

    Args:
        path: the `.onnx` file.
        images: the image files, at least one, resized to the model's input.
        top: the number of classes to return, at least 1; all if there are fewer.

    Returns:
        As `loading.predict`.

    Raises:
        RecipeError: if there are no images, or `top` is below 1.
        ModelError: if the file was not written by `tutelage export`, or isn't an image model.
        DataError: if an image can't be read.
    """
    file = ExportedModel(path)
    pictures = read_pictures(images, file.geometry, file.shape[2], path, top)
    return ranked(images, file.probabilities(pictures), file.classes, top)


def read_pictures(
    images: Sequence[Path], geometry: Geometry, channels: int, path: Path, top: int
) -> np.ndarray:
    """Read images as a model's input.

    Args:
        images: the image files, at least one.
        geometry: the size of the model's input, and how images get it.
        channels: channels of the model's input.
        path: the model's file, for error messages.
        top: the number of classes to return, at least 1.

    Returns:
        uint8 of shape (n, height, width, channels).

    Raises:
        RecipeError, ModelError, DataError: as in `predict`.
    """
    if not images or top < 1:
        raise RecipeError(
            f"expected at least 1 image and at least 1 class, found {len(images)} and {top}"
        )
    if channels not in (1, 3):
        raise ModelError(f"{path} takes images of {channels} channels: expected 1 or 3")
    return np.stack(
        [image_file.read_image(i, geometry=geometry, channels=channels) for i in images]
    )


def ranked(
    images: Sequence[Path], probabilities: np.ndarray, classes: Sequence[str], top: int
) -> list[dict[str, Any]]:
    """The most likely classes of each image, most likely first.

    Args:
        images: the image files.
        probabilities: float64 probabilities of shape (images, classes).
        classes: the classes' names.
        top: the number of classes to return.

    Returns:
        For each image, `image` and `classes`, each with `name` and `probability`.
    """
    predictions = []
    for image, row in zip(images, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        top_classes = [{"name": classes[i], "probability": float(row[i])} for i in best]
        predictions.append({"image": str(image), "classes": top_classes})
    return predictions
