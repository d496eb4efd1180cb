"""Training of a sweep's students."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from tutelage import recipe as recipes
from tutelage.errors import TrainingError
from tutelage.evaluation import metrics
from tutelage.experiment import stages
from tutelage.experiment.spec import Experiment, StageSpec
from tutelage.losses import from_recipe
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Loss, Recipe
from tutelage.runs import findings
from tutelage.sweeps.search_space import Plan, Span, TrialSpec
from tutelage.sweeps.trial_queue import Trial, TrialQueue, TrialResult
from tutelage.training.trainer import DistillationTargets


class _FallsBehind(Exception):
    """A student is below the median of the others after the same number of epochs."""


class StudentTrainer:
    """Trains an experiment's students, with shared targets computed only once.

    Args:
        experiment: from `prepare`.
        teacher: its trained teacher's file.
        path: the sweep's folder.
        key: hash of the sweep.
        progress: notified of each student's steps and epochs.
    """

    def __init__(
        self,
        experiment: Experiment,
        teacher: Path,
        path: Path,
        key: str,
        progress: Progress | None = None,
    ):
        self.experiment, self.teacher, self.path, self.key = experiment, teacher, path, key
        self.progress = progress
        self._targets: dict[tuple[int, bool, bool], DistillationTargets] = {}
        self._losses: list[Loss] = []  # of the plan's students

    def prepare(self, plan: Plan, progress: Progress) -> None:
        """Compute and cache the teacher's logits that the plan's students need."""
        self._losses = losses(plan, self.experiment.recipe.loss)
        for experiment in kinds(self.experiment, plan, max):
            for seed in plan.seeds:
                recipe = replace(experiment.recipe, seed=seed)
                self._targets_of(self._student(recipe), progress)

    def train(
        self, spec: TrialSpec, on_epoch: Callable[[list[EpochLog]], None]
    ) -> dict[str, float]:
        """Train one student and evaluate it on the validation images."""
        recipe = replace(self.experiment.recipe, seed=spec.seed)
        if spec.setting is None:
            stage, targets = replace(self.experiment, recipe=recipe).stage("baseline"), None
        else:
            recipe = replace(recipe, loss=spec.setting.loss(recipe.loss))
            stage = self._student(recipe)
            targets = self._targets_of(stage, Progress())
        tree = json.dumps([self.key, str(spec), recipes.to_dict(recipe)])
        key = hashlib.sha256(tree.encode()).hexdigest()
        checkpoint = self.path / f".student-{key[:16]}.npz"
        try:
            model, _, seconds = stages.train(
                stage,
                targets,
                checkpoint=checkpoint,
                key=key,
                progress=self.progress,
                on_epoch=on_epoch,
            )
            logits = loading.logits(model, stage.validation.images)
        except (_FallsBehind, TrainingError):
            checkpoint.unlink(missing_ok=True)
            raise
        checkpoint.unlink(missing_ok=True)
        score = metrics.score(logits, stage.validation.labels)
        return {"accuracy": score["accuracy"], "nll": score["nll"], "seconds": round(seconds, 3)}

    def _student(self, recipe: Recipe) -> StageSpec:
        """The student of a recipe; with several generations, the first."""
        recipe = replace(recipe, loss=replace(recipe.loss, generations=None))
        return replace(self.experiment, recipe=recipe).stage("student")

    def _targets_of(self, stage: StageSpec, progress: Progress) -> DistillationTargets:
        assert stage.targets is not None
        loss = stage.targets.loss
        own = any(term.own for term in loss.terms())
        which = (stage.seed, from_recipe.reads_layers(loss), own)
        if which not in self._targets:
            others = [
                x
                for x in self._losses
                if not from_recipe.reads_layers(x) and any(term.own for term in x.terms()) == own
            ]
            self._targets[which], _ = stages.targets(stage, self.teacher, progress, others)
        return stages.shared_targets(stage, self._targets[which])


def work(queue: TrialQueue, trainer: StudentTrainer) -> Iterator[None]:
    """Train students as long as there are trials."""
    while (trial := queue.take()) is not None:
        with queue.held(trial):
            for spec in trial.specs[len(trial.rows) :]:  # skip those done before an interruption
                if trial.rows and trial.rows[-1]["state"] != "complete":
                    break
                trial.add(_result(trial, spec, queue, trainer))
        states = {row["state"] for row in trial.rows}
        queue.finish(trial, pruned="pruned" in states, failed="failed" in states)
        yield


def _result(
    trial: Trial, spec: TrialSpec, queue: TrialQueue, trainer: StudentTrainer
) -> TrialResult:
    """Train a student of a trial; returns its row of the results."""
    row: TrialResult = {
        "trial": trial.number,
        "method": "baseline",
        "alpha": 0.0,
        "temperature": None,
    }
    row |= asdict(spec.setting) if spec.setting else {}
    row |= {"seed": spec.seed, "state": "complete", "accuracy": None, "nll": None, "seconds": None}
    plan, epochs = queue.plan, queue.recipe.schedule.student.epochs
    may_stop = plan.prune and spec.setting is not None
    if may_stop and any(
        other["state"] == "pruned" and all(other[axis] == row[axis] for axis in findings.AXES)
        for other in queue.rows()
    ):
        return row | {"state": "pruned"}  # pruned with another seed

    def on_epoch(rows: list[EpochLog]) -> None:
        if not may_stop:
            return
        step = plan.seeds.index(spec.seed) * epochs + len(rows)
        # The first third of the epochs says little about the final accuracy.
        if trial.falls_behind(rows[-1]["val_accuracy"], step) and 3 * len(rows) >= epochs:
            raise _FallsBehind

    try:
        return row | trainer.train(spec, on_epoch)
    except _FallsBehind:
        return row | {"state": "pruned"}
    except TrainingError as error:  # divergence is a result, too
        return row | {"state": "failed", "reason": str(error)}


def losses(plan: Plan, base: Loss) -> list[Loss]:
    """The loss sections of a plan's students, at some temperatures of each method.

    Args:
        plan: the plan.
        base: the recipe's section.

    Returns:
        One for each method and temperature; of a span of temperatures, five that cover it.
    """
    degrees: Sequence[float | None] = (None,)
    if isinstance(plan.temperatures, Span):
        degrees = np.geomspace(plan.temperatures.low, plan.temperatures.high, 5).tolist()
    elif plan.temperatures:
        degrees = plan.temperatures
    return [
        plan.setting(method, 1.0, degree, base).loss(base)
        for method in plan.methods
        for degree in degrees
    ]


def kinds(
    experiment: Experiment, plan: Plan, which: Callable[[tuple[float, ...]], float]
) -> list[Experiment]:
    """One experiment per method, with the smallest or largest of the plan's alphas."""
    ends = (plan.alphas.low, plan.alphas.high) if isinstance(plan.alphas, Span) else plan.alphas
    degrees = plan.temperatures
    degree = degrees.low if isinstance(degrees, Span) else degrees[0] if degrees else None
    recipe, alpha = experiment.recipe, which(ends)
    settings = [plan.setting(method, alpha, degree, recipe.loss) for method in plan.methods]
    return [
        replace(experiment, recipe=replace(recipe, loss=setting.loss(recipe.loss)))
        for setting in settings
    ]
