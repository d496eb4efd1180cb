"""The trials of a sweep, shared by any number of processes through Optuna's storage."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.distillation.answers import agree
from tutelage.errors import RunError, extra
from tutelage.recipe import Recipe
from tutelage.sweeps.search_space import Axis, Plan, Span, TrialSpec

with extra("sweep"):
    import optuna
    import sqlalchemy
    from optuna.trial import FrozenTrial, TrialState

HEARTBEAT = 2.0  # seconds between heartbeats
GRACE_PERIOD = 20.0  # seconds without a heartbeat before a trial is requeued
_LOOK = 0.5
_OPENINGS = 8
_JUDGES = 5  # students that must have finished before others are pruned
_ROWS, _ALIVE, _ANSWERS = "students", "alive", "answers"

TrialResult = dict[str, Any]


@dataclass
class Trial:
    """A trial held by this process: students to train in order.

    Attributes:
        number: its number, from 0.
        specs: its students.
        rows: the results of those already trained, in order.
        optuna_trial: Optuna's object.
        reported: the steps whose accuracy was already reported to Optuna.
    """

    number: int
    specs: list[TrialSpec]
    rows: list[TrialResult]
    optuna_trial: optuna.Trial
    reported: set[int]

    def add(self, row: TrialResult) -> None:
        """Store the result of its next student."""
        self.rows.append(row)
        with _finished_elsewhere():
            self.optuna_trial.set_user_attr(_ROWS, self.rows)

    def falls_behind(self, accuracy: float, step: int) -> bool:
        """Report a validation accuracy; whether the student is below the others' median.

        Steps differ between seeds, so that only epochs of the same seed are compared.
        """
        if step not in self.reported:
            self.reported.add(step)
            with _finished_elsewhere():
                self.optuna_trial.report(accuracy, step)
        return self.optuna_trial.should_prune()


def _finished_elsewhere() -> contextlib.suppress:
    """Ignore errors on writing to a trial that another process has finished meanwhile."""
    return contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError)


class TrialQueue:
    """The trials of a sweep; each is held by one process at a time and finished once.

    A trial's students follow from its number, which the database increments, so two processes
    can't add the same students. The holder of a trial writes a heartbeat every few seconds; if
    another process sees none for a while, by its own clock, the trial goes back to the queue.

    Args:
        url: URL of the database, `sqlite:///FILE` or `postgresql://USER@HOST/NAME`.
        name: name of the study, the same for all processes of a sweep.
        plan: the search space.
        recipe: the recipe to vary.
        answers: the `Experiment`'s; students of other answers stay in a study of their own.

    Raises:
        RunError: if the database can't be used.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage.sweeps import search_space
    >>> from tutelage import recipe
    >>> from tutelage.sweeps.trial_queue import TrialQueue
    >>> digits = recipe.load("digits")
    >>> url = f"sqlite:///{pathlib.Path(tempfile.mkdtemp()) / 'study.db'}"
    >>> queue = TrialQueue(url, "example", search_space.plan(digits, alpha=0.5), digits)
    >>> trial = queue.take()
    >>> with queue.held(trial):
    ...     trial.add({"accuracy": 0.9})
    >>> queue.finish(trial)
    True
    >>> [str(spec) for spec in queue.take().specs]
    ['kd, alpha 0.5, T 2, seed 0']
    """

    def __init__(
        self,
        url: str,
        name: str,
        plan: Plan,
        recipe: Recipe,
        answers: Mapping[str, np.ndarray] | None = None,
    ):
        self.plan, self.recipe = plan, recipe
        self.specs = plan.specs(recipe)
        self.total = len(self.specs) + (plan.trials or 0)
        self._storage = _opened(url)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=0, n_min_trials=_JUDGES)
        with explained(url):
            for number in itertools.count():
                name_and_number = f"{name}-{number}" if number else name
                self._study = optuna.create_study(
                    storage=self._storage,
                    study_name=name_and_number,
                    direction="maximize",
                    load_if_exists=True,
                    pruner=pruner if plan.prune else optuna.pruners.NopPruner(),
                )
                if self._agrees(answers or {}):
                    break
            self._id = self._storage.get_study_id_from_name(name_and_number)
        self._heartbeats: dict[int, tuple[Any, float]] = {}

    def _agrees(self, answers: Mapping[str, np.ndarray]) -> bool:
        """Whether the study was begun with these answers; a new one is."""
        stored = self._study.user_attrs.get(_ANSWERS)
        if stored is None:
            tree = {name: logits.tolist() for name, logits in answers.items()}
            self._study.set_user_attr(_ANSWERS, tree)
            return True
        return all(agree(answers[n], np.array(stored[n], np.float32)) for n in answers)

    def take(self) -> Trial | None:
        """Take a free trial; waits while others hold the last ones. None if all are done."""
        while True:
            trials = self._trials()
            left = len(trials) < self.total
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if left or waiting or self._revived(trials):
                trial = self._study.ask()  # a waiting one before a new one
                if trial.number < self.total:
                    return self._trial(trial)
                # Another process took the last one at the same time.
                self._end(trial.number, TrialState.FAIL)
            elif all(t.state.is_finished() for t in trials):
                return None
            else:
                time.sleep(_LOOK)

    @contextlib.contextmanager
    def held(self, trial: Trial) -> Iterator[None]:
        """Write heartbeats; on an exception, the trial goes back to the queue."""
        stop, token = threading.Event(), secrets.token_hex(4)

        def beat() -> None:
            count = 0
            while not stop.wait(HEARTBEAT):
                count += 1
                # A database that doesn't respond may respond next time.
                with (
                    contextlib.suppress(optuna.exceptions.StorageInternalError),
                    _finished_elsewhere(),
                ):
                    trial.optuna_trial.set_user_attr(_ALIVE, f"{token} {count}")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            stop.set()
            thread.join()
            self._end(trial.number, TrialState.WAITING)
            raise
        finally:
            stop.set()
            thread.join()

    def finish(self, trial: Trial, *, pruned: bool = False, failed: bool = False) -> bool:
        """Record that a trial is done; False if another process has already finished it."""
        accuracies = [row["accuracy"] for row in trial.rows if row["accuracy"] is not None]
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        state = TrialState.FAIL if failed else state
        value = sum(accuracies) / len(accuracies) if accuracies else None
        return self._end(trial.number, state, None if failed else value)

    def rows(self) -> list[TrialResult]:
        """The result of every student trained so far by any process, by trial."""
        return [row for trial in self._trials() for row in trial.user_attrs.get(_ROWS, [])]

    def all_done(self) -> bool:
        """Whether every trial is done."""
        trials = self._trials()
        return len(trials) == self.total and all(t.state.is_finished() for t in trials)

    def close(self) -> None:
        """Close the connections to the database."""
        self._storage.engine.dispose()

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)[: self.total]

    def _trial(self, trial: optuna.Trial) -> Trial:
        trial.set_user_attr(_ALIVE, secrets.token_hex(4))
        number = trial.number
        specs = [self.specs[number]] if number < len(self.specs) else self._sampled(trial)
        rows = list(trial.user_attrs.get(_ROWS, []))
        values = self._trials()[number].intermediate_values
        return Trial(number, specs, rows, trial, set(values))

    def _sampled(self, trial: optuna.Trial) -> list[TrialSpec]:
        """A setting that the search suggests, with each seed."""
        # One sampler per trial: samples don't depend on the process that draws them.
        seed = (self.recipe.seed * 1_000_003 + trial.number) % 2**31
        if self.plan.search == "guided":
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        else:
            self._study.sampler = optuna.samplers.RandomSampler(seed=seed)
        method = self.plan.methods[0]
        if len(self.plan.methods) > 1:
            method = trial.suggest_categorical("method", self.plan.methods)
        alpha = _suggested(trial, "alpha", self.plan.alphas)
        temperature = None
        if self.plan.temperatures is not None:
            temperature = _suggested(trial, "temperature", self.plan.temperatures)
        setting = self.plan.setting(method, alpha, temperature, self.recipe.loss)
        return [TrialSpec(setting, seed) for seed in self.plan.seeds]

    def _revived(self, trials: list[FrozenTrial]) -> bool:
        """Requeue trials whose heartbeat has stopped; whether there were any."""
        now, returned = time.monotonic(), False
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            beat = trial.user_attrs.get(_ALIVE)
            last, since = self._heartbeats.get(trial.number, (None, now))
            if trial.number not in self._heartbeats or last != beat:
                self._heartbeats[trial.number] = (beat, now)
            elif now - since > GRACE_PERIOD:
                # Two processes may both requeue and train it, but only one can finish it.
                returned |= self._end(trial.number, TrialState.WAITING)
                del self._heartbeats[trial.number]
        return returned

    def _end(self, number: int, state: TrialState, value: float | None = None) -> bool:
        trial = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        try:
            values = None if value is None else [value]
            return self._storage.set_trial_state_values(trial, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False


def _suggested(trial: optuna.Trial, name: str, axis: Axis) -> float:
    if isinstance(axis, Span):
        # Temperatures are on a logarithmic scale.
        return trial.suggest_float(name, axis.low, axis.high, log=name == "temperature")
    if len(axis) == 1:
        return axis[0]
    return float(trial.suggest_categorical(name, axis))


def _opened(url: str) -> optuna.storages.RDBStorage:
    with explained(url):
        place = sqlalchemy.make_url(url)
        kind = place.get_backend_name()
        if kind == "postgresql":
            with extra("postgres"):
                import psycopg2  # noqa: F401
            place = place.set(drivername="postgresql+psycopg2")
            options: dict[str, Any] = {"pool_pre_ping": True}
        elif kind == "sqlite":
            options = {"connect_args": {"timeout": 60}}
        else:
            raise RunError(
                "storage: expected sqlite:///FILE or postgresql://USER@HOST/DATABASE, "
                f"found one of {kind}"
            )
        text = place.render_as_string(hide_password=False)
        text = text.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL
        for left in reversed(range(_OPENINGS)):
            try:
                storage = optuna.storages.RDBStorage(text, options)
                break
            except sqlalchemy.exc.SQLAlchemyError:
                # Processes that create the tables at the same time conflict.
                if not left:
                    raise
                time.sleep(random.uniform(0.05, 0.5))
            except RuntimeError as error:  # tables of another version
                raise RunError(f"storage: {error}") from error
    if kind == "sqlite":
        # SQLite has no `select for update`, which ensures that one process takes a trial.
        sqlalchemy.event.listen(storage.engine, "begin", _begin_to_write)
    return storage


def _begin_to_write(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Raise a database's errors as a RunError of one line, and silence Optuna's own log.

    The message shows the URL without its password. Optuna's verbosity is put back afterwards.

    Args:
        url: URL of the database.

    Raises:
        RunError: gives the database's reason.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        try:
            shown = sqlalchemy.make_url(url).render_as_string()
        except sqlalchemy.exc.ArgumentError:
            shown = "it"
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise RunError(
            f"storage: can't use {shown} ({reason}): expected sqlite:///FILE or "
            "postgresql://USER@HOST/DATABASE of an existing database"
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)
