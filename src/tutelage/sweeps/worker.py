"""A sweep's students: what is the same for many is done once, then each is trained and judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from tutelage import recipe as recipes
from tutelage.errors import TrainingError
from tutelage.evaluation import metrics
from tutelage.experiment import stages
from tutelage.experiment.spec import Job
from tutelage.losses import from_recipe
from tutelage.models import loading
from tutelage.progress import EpochLog as EpochLog
from tutelage.progress import Progress
from tutelage.runs import findings
from tutelage.sweeps.search_space import Plan, Span, TrialSpec
from tutelage.sweeps.trial_queue import Trial, TrialQueue, TrialResult
from tutelage.training.trainer import DistillationTargets


class _FallsBehind(Exception):
    """A student is worse than the others were at its age."""


class StudentTrainer:
    """How a job's students are trained; what is the same for many of them is done once.

    The progress hears of each student's steps and epochs.
    """

    def __init__(
        self, job: Job, teacher: Path, path: Path, key: str, progress: Progress | None = None
    ):
        self.job, self.teacher, self.path, self.key = job, teacher, path, key
        self.progress = progress
        self._known: dict[tuple[int, bool], DistillationTargets] = {}

    def prepare(self, plan: Plan, progress: Progress) -> None:
        """Have the teacher asked of all that students will want to know."""
        for kind in kinds(self.job, plan, max):
            for seed in plan.seeds:
                self._guidance(replace(kind, recipe=replace(kind.recipe, seed=seed)), progress)

    def train(
        self, cell: TrialSpec, on_epoch: Callable[[list[EpochLog]], None]
    ) -> dict[str, float]:
        """Train a cell's student, and measure it on the validation images."""
        recipe, stage, guidance = replace(self.job.recipe, seed=cell.seed), "baseline", None
        if cell.setting is not None:
            recipe, stage = replace(recipe, loss=cell.setting.loss(recipe.loss)), "student"
        job = replace(self.job, recipe=recipe)
        if cell.setting is not None:
            guidance = self._guidance(job, Progress())
        told = json.dumps([self.key, str(cell), recipes.to_dict(recipe)])
        key = hashlib.sha256(told.encode()).hexdigest()
        checkpoint = self.path / f".student-{key[:16]}.npz"
        try:
            model, _, seconds = stages.trained(
                job,
                stage,
                guidance,
                checkpoint=checkpoint,
                key=key,
                progress=self.progress,
                on_epoch=on_epoch,
            )
            answers = loading.logits(model, job.validation.images)
        except (_FallsBehind, TrainingError):
            checkpoint.unlink(missing_ok=True)
            raise
        checkpoint.unlink(missing_ok=True)
        score = metrics.score(answers, job.validation.labels)
        return {"accuracy": score["accuracy"], "nll": score["nll"], "seconds": round(seconds, 3)}

    def _guidance(self, job: Job, progress: Progress) -> DistillationTargets:
        which = (job.recipe.seed, from_recipe.reads_layers(job.recipe.loss))
        if which not in self._known:
            self._known[which], _ = stages.guidance(job, self.teacher, progress)
        known = self._known[which]
        return replace(stages.goal(job), knowledge=known.knowledge, teacher=known.teacher)


def work(tickets: TrialQueue, pupils: StudentTrainer) -> Iterator[None]:
    """Train students as long as there are tickets."""
    while (ticket := tickets.take()) is not None:
        with tickets.held(ticket):
            for cell in ticket.cells[len(ticket.rows) :]:  # others are from before an interruption
                if ticket.rows and ticket.rows[-1]["state"] != "complete":
                    break
                ticket.add(_row(ticket, cell, tickets, pupils))
        states = {row["state"] for row in ticket.rows}
        tickets.finish(ticket, pruned="pruned" in states, failed="failed" in states)
        yield


def _row(
    ticket: Trial, cell: TrialSpec, tickets: TrialQueue, pupils: StudentTrainer
) -> TrialResult:
    """What comes of a cell."""
    row: TrialResult = {
        "ticket": ticket.number,
        "method": "baseline",
        "alpha": 0.0,
        "temperature": None,
    }
    row |= asdict(cell.setting) if cell.setting else {}
    row |= {"seed": cell.seed, "state": "complete", "accuracy": None, "nll": None, "seconds": None}
    plan, epochs = tickets.plan, tickets.recipe.schedule.student.epochs
    may_stop = plan.prune and cell.setting is not None
    if may_stop and any(
        one["state"] == "pruned" and all(one[axis] == row[axis] for axis in findings.AXES)
        for one in tickets.rows()
    ):
        return row | {"state": "pruned"}  # with another seed, which is enough

    def on_epoch(rows: list[EpochLog]) -> None:
        if not may_stop:
            return
        step = plan.seeds.index(cell.seed) * epochs + len(rows)
        # The first third of the epochs says little of how a student ends.
        if ticket.falls_behind(rows[-1]["val_accuracy"], step) and 3 * len(rows) >= epochs:
            raise _FallsBehind

    try:
        return row | pupils.train(cell, on_epoch)
    except _FallsBehind:
        return row | {"state": "pruned"}
    except TrainingError as error:  # a setting that comes to nothing is an answer
        return row | {"state": "failed", "reason": str(error)}


def kinds(job: Job, plan: Plan, which: Callable[[tuple[float, ...]], float]) -> list[Job]:
    """A job for each method, with the least or the most of the plan's alphas."""
    ends = (plan.alphas.low, plan.alphas.high) if isinstance(plan.alphas, Span) else plan.alphas
    degrees = plan.temperatures
    degree = degrees.low if isinstance(degrees, Span) else degrees[0] if degrees else None
    settings = [plan.setting(one, which(ends), degree, job.recipe.loss) for one in plan.methods]
    recipe = job.recipe
    return [replace(job, recipe=replace(recipe, loss=one.loss(recipe.loss))) for one in settings]
