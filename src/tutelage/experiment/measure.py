"""Evaluation of a run's models and the result files."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np

from tutelage import environment, storage
from tutelage import recipe as recipes
from tutelage.errors import RunError
from tutelage.evaluation import bias_correction, evaluate, metrics
from tutelage.experiment.spec import Experiment, StageSpec
from tutelage.kernels import accelerate
from tutelage.losses import from_recipe
from tutelage.models import loading
from tutelage.report import markdown
from tutelage.runs import example_images, verdict
from tutelage.runs.run_folder import RunFolder
from tutelage.runs.run_reader import Record
from tutelage.training.early_stopping import MONITOR, best_epoch


def measure(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    """Evaluate a run's models on the test set, once, and write the results.

    Args:
        experiment: an experiment whose stages are all trained.
        folder: its opened folder.

    Returns:
        The contents of `results.json`.

    Raises:
        RunError: if a model file has changed since it was trained.
    """
    data, test, validation = experiment.data, experiment.data.test, experiment.validation
    logits: dict[str, Any] = {}
    figures: dict[str, dict[str, Any]] = {}
    held_out: dict[str, dict[str, float]] = {}
    corrected: dict[str, dict[str, float]] = {}
    for stage in experiment.stages:
        outputs, validation_logits, size = _logits(stage, experiment, folder)
        if outputs is not None:
            logits[stage.name] = outputs
            figures[stage.name] = {
                **metrics.score(outputs, test.labels, logits.get("teacher")),
                **size,
                "seconds": round(folder.stages[stage.name]["seconds"], 3),
            }
        score = metrics.score(validation_logits, validation.labels)
        held_out[stage.name] = {name: score[name] for name in ("accuracy", "nll")}
        if stage.unseen and outputs is not None:
            unseen = list(stage.unseen)
            offset = bias_correction.find(validation_logits, validation.labels, unseen).offset
            raised = bias_correction.add_offset(outputs, unseen, offset)
            accuracy = metrics.score(raised, test.labels)["accuracy"]
            corrected[stage.name] = {"offset": offset, "accuracy": accuracy}
    student = experiment.stages[-1]
    results: dict[str, Any] = {
        "name": experiment.recipe.name,
        "models": figures,
        "validation": held_out,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "train": data.stream.images if data.stream else len(experiment.train),
            "validation": len(validation),
            "test": len(test),
        }
        | ({} if experiment.unlabeled is None else {"unlabeled": len(experiment.unlabeled)})
        | ({"validation_in_train": True} if experiment.whole else {})
        | ({"notes": list(experiment.notes)} if experiment.notes else {})
        | ({"transfer": len(student.labeled)} if student.unseen else {}),
        "recipe": recipes.to_dict(experiment.recipe),
        "environment": environment.describe()
        | {
            "precision": experiment.precision,
            "compiled": accelerate.compiled_parts(),
            "threads": accelerate.threads(),
        },
    }
    judged = verdict.of(
        [Record(folder.path, results["recipe"], results, logits=logits, labels=test.labels)]
    )
    results |= {"verdict": judged.text, "conclusion": judged.conclusion}
    if "alpha" in (entry := folder.stages["student"]):
        results["alpha"] = entry["alpha"]
    if corrected:
        results["corrected"] = corrected
    if stopped := _stopped(experiment, folder):
        results["early_stopping"] = stopped
    temperature = from_recipe.temperature(experiment.recipe.loss)
    examples = example_images.choose(logits, test.labels, temperature)
    with storage.replacing(folder.path / "predictions.npz") as temporary:
        np.savez(temporary, index=np.arange(len(test)), labels=test.labels, **logits)
    with storage.replacing(folder.path / "pictures.npz") as temporary:
        example_images.save(temporary, examples, test.images)
    folder.write_text("report.md", markdown.markdown(results, logits, test.labels))
    # Last: its presence marks the run as finished.
    folder.write_text("results.json", json.dumps(results, indent=1) + "\n")
    return results


def validation_accuracy(stage: StageSpec, experiment: Experiment, folder: RunFolder) -> float:
    """The accuracy of a trained or given model on the validation images.

    Args:
        stage: its stage, which is complete.
        experiment: its experiment.
        folder: the experiment's opened folder.

    Returns:
        The accuracy, 0 to 1.

    Raises:
        RunError: if the model's file has changed since it was trained.
    """
    _, logits, _ = _logits(stage, experiment, folder, tested=False)
    return float(metrics.score(logits, experiment.validation.labels)["accuracy"])


def _stopped(experiment: Experiment, folder: RunFolder) -> dict[str, dict[str, int | str]]:
    """The epochs of each stage with early stopping, and the one whose weights it kept."""
    found: dict[str, dict[str, int | str]] = {}
    for stage in experiment.stages:
        rows, schedule = folder.stages[stage.name]["history"], stage.schedule
        if stage.given is None and schedule.early_stopping is not None:
            found[stage.name] = {
                "epochs": len(rows),
                "best_epoch": best_epoch(rows, schedule),
                "monitor": schedule.monitor or MONITOR,
            }
    return found


def _logits(
    stage: StageSpec, experiment: Experiment, folder: RunFolder, tested: bool = True
) -> tuple[np.ndarray | None, np.ndarray, dict[str, int]]:
    """A stage's logits on test and validation images, and its size if it is a Keras model.

    There are none for the test images if `tested` is false, or the teacher is a file of logits.
    """
    test, validation = experiment.data.test.images, experiment.validation.images
    if stage.given is None or stage.given.model is not None:
        model, size = _load(stage, folder)
        outputs = loading.logits(model, test) if tested else None
        return outputs, loading.logits(model, validation), size
    if compute := stage.given.logits:
        outputs = compute(test, "float32") if tested else None
        return outputs, compute(validation, "float32"), {}
    stored = experiment.given_logits(validation=True)
    assert stored is not None
    return None, stored, {}


def _load(stage: StageSpec, folder: RunFolder) -> tuple[keras.Model, dict[str, int]]:
    """A stage's saved model and its size."""
    path = folder.model(stage.name)
    if storage.sha256(path) != folder.stages[stage.name]["sha256"]:
        raise RunError(f"{path} has changed since it was trained: give another --out")
    model = loading.load_model(path)
    return model, evaluate.size_figures(model) | {"bytes": path.stat().st_size}
