"""A sweep's tickets: who trains what, agreed by any number of processes in Optuna's storage."""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from tutelage.errors import RunError
from tutelage.recipe import Recipe
from tutelage.sweeps.search_space import Axis, Plan, Span, TrialSpec

BEAT = 2.0  # seconds from one sign of life to the next
GRACE = 20.0  # without one, whoever held a ticket is given up
_LOOK = 0.5
_OPENINGS = 8
_JUDGES = 5  # students that must have ended for another to be judged by them
_ROWS, _ALIVE = "students", "alive"

TrialResult = dict[str, Any]


@dataclass
class Trial:
    """A ticket in hand: students to train, one after the other.

    Attributes:
        number: of the ticket, from 0.
        cells: its students.
        rows: of those already trained, in their order.
        trial: Optuna's.
        reported: the steps whose accuracy is already known to Optuna.
    """

    number: int
    cells: list[TrialSpec]
    rows: list[TrialResult]
    trial: optuna.Trial
    reported: set[int]

    def add(self, row: TrialResult) -> None:
        """Keep what came of its next student."""
        self.rows.append(row)
        with _given_up():
            self.trial.set_user_attr(_ROWS, self.rows)

    def falls_behind(self, accuracy: float, step: int) -> bool:
        """Whether a student is behind the others' median, after this validation accuracy.

        The step tells the epochs of different seeds apart, as those aren't compared.
        """
        if step not in self.reported:
            self.reported.add(step)
            with _given_up():
                self.trial.report(accuracy, step)
        return self.trial.should_prune()


def _given_up() -> contextlib.suppress:
    """Around what is said of a ticket that others may have taken over and done meanwhile."""
    return contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError)


class TrialQueue:
    """The tickets of a sweep, numbered: each is taken by one process at a time, and done once.

    A ticket is an Optuna trial, and what it stands for follows from its number, which the
    database gives out one by one. So no two processes can put in the same students twice. Whoever
    holds a ticket gives a sign of life every few seconds; where there is none for a while, by the
    watch of the one who looks, the ticket goes back and is taken again.

    Args:
        url: of the database, `sqlite:///FILE` or `postgresql://USER@HOST/NAME`.
        name: of the study in it; the same for whoever works on the same sweep.
        plan: what is tried.
        recipe: what it is tried on.

    Raises:
        RunError: if the database can't be used.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage.sweeps import search_space
    >>> from tutelage import recipe
    >>> from tutelage.sweeps.trial_queue import TrialQueue
    >>> told = recipe.load("digits")
    >>> url = f"sqlite:///{pathlib.Path(tempfile.mkdtemp()) / 'study.db'}"
    >>> tickets = TrialQueue(url, "example", search_space.plan(told, alpha=0.5), told)
    >>> ticket = tickets.take()
    >>> with tickets.held(ticket):
    ...     ticket.add({"accuracy": 0.9})
    >>> tickets.finish(ticket)
    True
    >>> [str(cell) for cell in tickets.take().cells]
    ['kd, alpha 0.5, T 2, seed 0']
    """

    def __init__(self, url: str, name: str, plan: Plan, recipe: Recipe):
        self.plan, self.recipe = plan, recipe
        self.cells = plan.cells(recipe)
        self.total = len(self.cells) + (plan.trials or 0)
        self._storage = _opened(url)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=0, n_min_trials=_JUDGES)
        with explained(url):
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=pruner if plan.prune else optuna.pruners.NopPruner(),
            )
            self._id = self._storage.get_study_id_from_name(name)
        self._seen: dict[int, tuple[Any, float]] = {}

    def take(self) -> Trial | None:
        """A ticket that nobody holds; waits while others hold the last. None when all are done."""
        while True:
            trials = self._trials()
            left = len(trials) < self.total
            if left or self._revived(trials) or any(t.state == TrialState.WAITING for t in trials):
                trial = self._study.ask()  # a waiting one before a new one
                if trial.number < self.total:
                    return self._ticket(trial)
                # Somebody else took the last one in the same moment.
                self._end(trial.number, TrialState.FAIL)
            elif all(t.state.is_finished() for t in trials):
                return None
            else:
                time.sleep(_LOOK)

    @contextlib.contextmanager
    def held(self, ticket: Trial) -> Iterator[None]:
        """Give signs of life; a ticket whose work ends in an exception goes back."""
        stop, token = threading.Event(), secrets.token_hex(4)

        def live() -> None:
            count = 0
            while not stop.wait(BEAT):
                count += 1
                # A database that doesn't answer may do so next time.
                with contextlib.suppress(optuna.exceptions.StorageInternalError), _given_up():
                    ticket.trial.set_user_attr(_ALIVE, f"{token} {count}")

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            stop.set()
            thread.join()
            self._end(ticket.number, TrialState.WAITING)
            raise
        finally:
            stop.set()
            thread.join()

    def finish(self, ticket: Trial, *, pruned: bool = False, failed: bool = False) -> bool:
        """Say that a ticket is done; False where somebody else has done it meanwhile."""
        found = [row["accuracy"] for row in ticket.rows if row["accuracy"] is not None]
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        state = TrialState.FAIL if failed else state
        value = sum(found) / len(found) if found else None
        return self._end(ticket.number, state, None if failed else value)

    def rows(self) -> list[TrialResult]:
        """Of every student trained so far by anybody, by ticket."""
        return [row for trial in self._trials() for row in trial.user_attrs.get(_ROWS, [])]

    def all_done(self) -> bool:
        """Whether every ticket is done."""
        trials = self._trials()
        return len(trials) == self.total and all(t.state.is_finished() for t in trials)

    def close(self) -> None:
        """Let go of the database."""
        self._storage.engine.dispose()

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)[: self.total]

    def _ticket(self, trial: optuna.Trial) -> Trial:
        trial.set_user_attr(_ALIVE, secrets.token_hex(4))
        number = trial.number
        cells = [self.cells[number]] if number < len(self.cells) else self._drawn(trial)
        rows = list(trial.user_attrs.get(_ROWS, []))
        known = self._trials()[number].intermediate_values
        return Trial(number, cells, rows, trial, set(known))

    def _drawn(self, trial: optuna.Trial) -> list[TrialSpec]:
        """A setting that the search suggests, with each seed."""
        # A sampler of its own for each ticket: what is drawn doesn't hang on who draws it.
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
        """Give back the tickets of those that show no sign of life; whether there were any."""
        now, given_up = time.monotonic(), False
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            sign = trial.user_attrs.get(_ALIVE)
            last, since = self._seen.get(trial.number, (None, now))
            if trial.number not in self._seen or last != sign:
                self._seen[trial.number] = (sign, now)
            elif now - since > GRACE:
                # Two that see this in one moment may both train it; one of them can finish it.
                given_up |= self._end(trial.number, TrialState.WAITING)
                del self._seen[trial.number]
        return given_up

    def _end(self, number: int, state: TrialState, value: float | None = None) -> bool:
        trial = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        try:
            values = None if value is None else [value]
            return self._storage.set_trial_state_values(trial, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False


def _suggested(trial: optuna.Trial, name: str, axis: Axis) -> float:
    if isinstance(axis, Span):
        # Temperatures are compared by their ratio, alphas by their difference.
        return trial.suggest_float(name, axis.low, axis.high, log=name == "temperature")
    if len(axis) == 1:
        return axis[0]
    return float(trial.suggest_categorical(name, axis))


def _opened(url: str) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with explained(url):
        place = sqlalchemy.make_url(url)
        kind = place.get_backend_name()
        if kind == "postgresql":
            try:
                import psycopg2  # noqa: F401
            except ImportError as error:
                raise RunError(
                    "PostgreSQL needs a driver that is not installed: "
                    "pip install 'tutelage[postgres]'"
                ) from error
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
        text = text.replace("{", "{{").replace("}", "}}")  # Optuna fills in a template
        for left in reversed(range(_OPENINGS)):
            try:
                storage = optuna.storages.RDBStorage(text, options)
                break
            except sqlalchemy.exc.SQLAlchemyError:
                # Those that make the tables at the same moment get in each other's way.
                if not left:
                    raise
                time.sleep(random.uniform(0.05, 0.5))
            except RuntimeError as error:  # the tables are another version's
                raise RunError(f"storage: {error}") from error
    if kind == "sqlite":
        # It has no `select for update`, by which others make sure that one alone takes a ticket.
        sqlalchemy.event.listen(storage.engine, "begin", _begin_to_write)
    return storage


def _begin_to_write(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """A database's errors as one that is told in a line, without the password.

    Args:
        url: of the database.

    Raises:
        RunError: what the database said.
    """
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
            "postgresql://USER@HOST/DATABASE of a database that is there"
        ) from error
