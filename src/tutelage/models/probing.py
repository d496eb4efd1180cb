"""Trial predictions that check a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tutelage.data.content import Images
from tutelage.distillation import output_kind
from tutelage.distillation.answers import sample
from tutelage.errors import ModelError, TutelageError, reason
from tutelage.models import loading
from tutelage.models.preprocessing import Preprocessing, prepared, refuse_outputs

TeacherFunction = Callable[[Images, str], np.ndarray]


def probe(name: str, predict: TeacherFunction, images: Images, classes: int) -> np.ndarray:
    """A model's outputs for a few evenly spaced images; raises if they can't be logits."""
    probes = images[sample(len(images))]
    try:
        outputs = predict(probes, "float32")
    except TutelageError:
        raise
    except Exception as error:  # models can raise anything
        raise ModelError(
            f"{name} can't process images of shape {probes.shape[1:]}: {reason(error)}; "
            "set size to its input size, or choose another model"
        ) from error
    refuse_outputs(name, outputs.shape, classes)
    if not np.isfinite(outputs).all():
        raise ModelError(
            f"{name} returns logits that are not finite: is it trained, and is its "
            "preprocessing right (size, scale, mean, std)?"
        )
    return outputs


def teacher_function(
    run: Callable[[np.ndarray, str], np.ndarray],
    name: str,
    images: Images,
    classes: int,
    preprocessing: Preprocessing,
    size: tuple[int, int],
    dtype: str,
    notes: list[str],
) -> tuple[TeacherFunction, list[str]]:
    """Make a function that computes logits of raw images by `run` on NHWC batches."""
    front = keras.Model(*prepared(name, images.shape[1:], preprocessing, size, dtype, set()))

    def predict(raw: Images, precision: str) -> np.ndarray:
        return loading.in_batches(
            lambda part: run(front.predict_on_batch(part), precision),
            raw,
            loading.batch_size(size),
        )

    outputs = probe(name, predict, images, classes)
    bound = output_kind.lowest_probability(name, outputs, notes)
    if bound is None:
        return predict, notes
    return lambda raw, precision: output_kind.log_of(predict(raw, precision), bound), notes
