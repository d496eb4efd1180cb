"""Evaluation of a run's models and the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tutelage import environment, storage
from tutelage import recipe as recipes
from tutelage.evaluation import bias_correction, evaluate, metrics
from tutelage.experiment.spec import Experiment
from tutelage.experiment.stage_logits import StageLogits
from tutelage.kernels import accelerate
from tutelage.losses import from_recipe
from tutelage.report import markdown
from tutelage.runs import example_images, verdict
from tutelage.runs.run_folder import RunFolder
from tutelage.runs.run_reader import Record
from tutelage.training.early_stopping import MONITOR, best_epoch


def measure(experiment: Experiment, folder: RunFolder, outputs: StageLogits) -> dict[str, Any]:
    """Evaluate a run's models on the test set, once, and write the results.

    Args:
        experiment: an experiment whose stages are all trained.
        folder: its opened folder.
        outputs: the logits of its models.

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
        test_logits, validation_logits = outputs.test(stage), outputs.validation(stage)
        if test_logits is not None:
            logits[stage.name] = test_logits
            figures[stage.name] = {
                **metrics.score(test_logits, test.labels, logits.get("teacher")),
                **_size(outputs.model(stage), folder.model(stage.name)),
                "seconds": round(folder.stages[stage.name]["seconds"], 3),
            }
        score = metrics.score(validation_logits, validation.labels)
        held_out[stage.name] = {name: score[name] for name in ("accuracy", "nll")}
        if stage.unseen and test_logits is not None:
            unseen = list(stage.unseen)
            offset = bias_correction.find(validation_logits, validation.labels, unseen).offset
            raised = bias_correction.add_offset(test_logits, unseen, offset)
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


def _size(model: keras.Model | None, path: Path) -> dict[str, int]:
    """The size of a saved model; nothing of a teacher that is no Keras model."""
    if model is None:
        return {}
    return evaluate.size_figures(model) | {"bytes": path.stat().st_size}


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
