"""Whether a model answers images, and whether its outputs are logits or probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tutelage.errors import ModelError, TutelageError
from tutelage.models.preprocessing import refuse_outputs

TeacherFunction = Callable[[np.ndarray, str], np.ndarray]

_PROBES = 64  # images shown to a model to see whether it answers, and what
LEAST = 1e-7  # what a lower probability counts as: its logarithm must be finite


def probe(name: str, ask: TeacherFunction, images: np.ndarray, classes: int) -> np.ndarray:
    """A model's outputs for a few images, spread over all; refuses what can't be logits."""
    probes = images[np.linspace(0, len(images) - 1, min(_PROBES, len(images))).astype(int)]
    try:
        answers = ask(probes, "float32")
    except TutelageError:
        raise
    except Exception as error:  # whatever a model raises
        raise ModelError(
            f"{name} can't answer images of shape {probes.shape[1:]}: {reason(error)}; "
            "set size to what it takes, or choose another model"
        ) from error
    refuse_outputs(name, answers.shape, classes)
    if not np.isfinite(answers).all():
        raise ModelError(
            f"{name} gives logits that are not finite: is it trained, and how does it take "
            "images (size, scale, mean, std)?"
        )
    return answers


def log_of_probabilities(answers: np.ndarray, notes: list[str]) -> np.ndarray:
    """A model's answers as they are, or their logarithms, with a note, if all are probabilities."""
    if not ((answers >= 0).all() and (np.abs(answers.sum(axis=1) - 1) < 1e-3).all()):
        return answers
    notes.append("it gives probabilities: their logarithms are taken as its logits")
    return np.log(np.maximum(answers, np.float32(LEAST)))


def reason(error: Exception) -> str:
    """An error's class and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
