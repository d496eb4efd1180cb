"""Rehearsal of given models: what would fail after hours of training fails before."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from tutelage.data.content import Images
from tutelage.data.datasets import Part
from tutelage.distillation.logit_cache import GivenLogits
from tutelage.errors import MissingExtraError, ModelError, TutelageError, extra, reason
from tutelage.experiment import stages
from tutelage.experiment.spec import StageSpec
from tutelage.losses import from_recipe
from tutelage.models import loading

_IMAGES = 8  # of a rehearsal: more would only take longer


def rehearse(stage: StageSpec) -> None:
    """Train a network for one step, as a whole stage, and save and load it.

    Args:
        stage: a stage with a network or a loss of the user's own.

    Raises:
        ModelError: if it can't be trained, saved, or read again.
        TrainingError: if its loss is not finite.
    """
    source = stage.network.model if stage.source is None else stage.source
    name = getattr(source, "name", str(source))
    part = _few(stage.labeled)
    step = replace(
        stage,
        train=part,
        labeled=part,
        validation=_few(stage.validation),
        stream=None,
        schedule=replace(stage.schedule, epochs=1, frozen_epochs=None),
    )
    if step.targets is not None and step.targets.loss.alpha == "auto":
        step = step.with_alpha(0.5)
    targets = None
    losses = ""
    if stage.targets is not None:
        own = ", ".join(term.name for term in stage.targets.loss.terms() if term.own)
        losses = f" with {own}" if own else ""
    if stage.targets is not None and not from_recipe.reads_layers(stage.targets.loss):
        logits = np.random.default_rng(0).normal(size=(len(part), len(stage.classes)))
        targets = replace(stages.losses(step), logits=GivenLogits(logits.astype(np.float32)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            model, _, _ = stages.train(step, targets, checkpoint=Path(folder) / "rehearsal.npz")
        except TutelageError as error:
            if not losses:
                raise
            raise ModelError(f"{name} can't be trained{losses}: {error}") from error
        except Exception as error:  # layers and losses can raise anything
            raise ModelError(f"{name} can't be trained{losses}: {reason(error)}") from error
    check_file(model, name, part.images)


def check_file(model: keras.Model, name: str, images: Images) -> None:
    """Check that a saved model can be read again and gives the same outputs.

    Args:
        model: the model.
        name: its name for messages.
        images: uint8 of shape (n, height, width, channels).

    Raises:
        ModelError: if it can't.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        try:
            model.save(file)
            loaded = keras.saving.load_model(file, compile=False)
        except Exception as error:  # Keras raises many types
            raise ModelError(
                f"{name} can't be saved and read again: register its classes with "
                "@keras.saving.register_keras_serializable() and give them a get_config; "
                f"{reason(error)}"
            ) from error
    before, after = (loading.logits(x, images[:_IMAGES]) for x in (model, loaded))
    if not np.allclose(before, after, rtol=1e-4, atol=1e-4, equal_nan=True):
        raise ModelError(
            f"{name} gives other outputs after it was saved and read again: its classes must "
            "save all of their state and of their arguments"
        )


def obstacle_to_export(stage: StageSpec) -> str | None:
    """Why a given student can't be exported to ONNX; None if it can, or the extra is missing."""
    # Without the extra, nothing can be exported yet: `tutelage export` will ask for it.
    with contextlib.suppress(MissingExtraError), extra("export"):
        from tutelage.exporters import onnx_graph

        return onnx_graph.obstacle(stage.build())
    return None


def _few(part: Part) -> Part:
    return Part(part.images[:_IMAGES], part.labels[:_IMAGES])
