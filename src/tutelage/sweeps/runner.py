"""Many students of one teacher: which alpha, which temperature, which method?"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tutelage import recipe as recipes
from tutelage.errors import RecipeError, RunError, TutelageError
from tutelage.experiment import runner
from tutelage.experiment.spec import Job, check, prepare
from tutelage.models import resolve
from tutelage.progress import Progress
from tutelage.recipe import Recipe
from tutelage.runs import findings, run_folder
from tutelage.sweeps.results_writer import ResultsWriter
from tutelage.sweeps.search_space import Plan, Setting
from tutelage.sweeps.trial_queue import TrialQueue, TrialResult, explained
from tutelage.sweeps.worker import StudentTrainer, kinds, work

_LOOK = 1.0  # seconds from one look at what the workers have done to the next
_PATIENCE = 10.0  # seconds that a worker has to give back its ticket
_MOST_A_CORE = 4  # workers
_INTERRUPTED = 130
_told = threading.Event()  # a worker, that it shall end


def default_folder(recipe: Recipe, plan: Plan) -> Path:
    """Where a sweep goes if nobody says: `runs/NAME-sweep-HASH`, of the recipe and the plan."""
    return Path("runs") / f"{recipe.name}-sweep-{_hash([recipes.key(recipe), _tree(plan)])[:8]}"


def run(
    job: Job,
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    workers: int = 1,
    storage_url: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a teacher once and a student for each setting and seed, and test the best.

    The settings are judged on the validation images alone. The best one is then trained anew on
    training and validation images, like its baseline, and tested: a run in `path/best`. Given the
    same again, it goes on where it was interrupted, or gives what it came to.

    Args:
        job: from `prepare`.
        plan: what is tried, from `grid.plan`.
        path: the sweep's folder; made if absent, gone on with if it is this sweep's.
        workers: how many processes train students here. More than one read what the recipe
            names, so they can't be given data or models in memory.
        storage_url: of a database that several machines share, `postgresql://USER@HOST/NAME`;
            default: an SQLite file in the folder.
        progress: hears how it goes.

    Returns:
        What is written to `sweep.json`: `recipe`, `plan`, `trials` (a row for each student),
        `found` (as `findings.find` gives it), `said` (in sentences), `best` (the contents of
        `best/results.json`) and `environment`.

    Raises:
        RunError: if the folder or the study is another sweep's or can't be written, or all
            workers have ended early.
        TutelageError: what was expected, what came and what to do.

    Example:

    >>> import tempfile
    >>> from tutelage.sweeps import search_space, runner
    >>> from tutelage.experiment.prepare import prepare
    >>> from tutelage import recipe
    >>> short = {"schedule.teacher.epochs": 1, "schedule.student.epochs": 1}
    >>> told = recipe.load("digits", short)
    >>> plan = search_space.plan(told, alpha="0.5,0.9")
    >>> found = runner.run(prepare(told), plan, tempfile.mkdtemp())
    >>> len(found["trials"]), sorted(found["best"]["models"])
    (3, ['baseline', 'student', 'teacher'])
    """
    progress, path = progress or Progress(), Path(path)
    cores = os.cpu_count() or 1
    if not 1 <= workers <= _MOST_A_CORE * cores:
        raise RecipeError(
            f"workers: expected 1 to {_MOST_A_CORE * cores} on this machine of {cores} cores, "
            f"found {workers}"
        )
    key = _key(job, plan)
    if done := _finished(path, key):
        progress.note(f"already done in {path}")
        return done
    for one in kinds(job, plan, min):
        check(one)
    with run_folder.opened(path, key, recipes.to_toml(job.recipe)) as folder:
        url = storage_url or f"sqlite:///{(path / 'study.db').resolve().as_posix()}"
        name = f"tutelage-{job.recipe.name}-{key[:16]}"
        with explained(url), closing(TrialQueue(url, name, plan, job.recipe)) as tickets:
            teacher = runner.teacher(job, folder, progress)
            pupils = StudentTrainer(job, teacher, path, key)
            if not tickets.all_done():
                pupils.prepare(plan, progress)
            head = {"key": key, "recipe": recipes.to_dict(job.recipe), "plan": _tree(plan)}
            ledger = ResultsWriter(tickets, path, head, job.precision, progress)
            ledger.begin()
            if workers == 1:
                for _ in work(tickets, pupils):
                    ledger.look()
            else:
                told = (job.recipe, plan, url, name, teacher, path, key)
                _share(workers, max(1, cores // workers), told, ledger, progress)
            ledger.look()
            if not tickets.all_done():
                raise RunError(
                    "all workers ended before the last student was trained: give the same command "
                    "again to go on"
                )
        found = findings.find(ledger.rows)
        progress.note(f"best: {findings.name(found['best'])}; trained anew on all images")
        results = runner.run(_best(job, found["best"], teacher), path / "best", progress)
        end = f"Trained anew, on the validation images too, and tested once: {results['verdict']}"
        return ledger.close(found=found, said=[*findings.say(found), end], best=results)


def _share(
    workers: int, threads: int, told: tuple[Any, ...], ledger: ResultsWriter, progress: Progress
) -> None:
    """Let processes of their own train the students, and watch."""
    context = multiprocessing.get_context("spawn")
    complaints = context.SimpleQueue()
    crew = [
        context.Process(target=_worker, args=(*told, complaints), daemon=True)
        for _ in range(workers)
    ]
    try:
        with _threads(threads):
            for one in crew:
                one.start()
        living = list(crew)
        while living:
            connection.wait([one.sentinel for one in living], timeout=_LOOK)
            ledger.look()
            if not complaints.empty():
                raise RunError(complaints.get())
            for one in [one for one in living if one.exitcode is not None]:
                living.remove(one)
                if one.exitcode:
                    progress.note(
                        f"warning: a worker ended early (exit code {one.exitcode}); "
                        f"{len(living)} are left, and what it was at goes back to be trained"
                    )
    finally:
        for one in crew:
            if one.is_alive():
                one.terminate()
        for one in crew:
            if one.pid is not None:
                one.join(_PATIENCE)
            if one.is_alive():
                one.kill()


def _worker(
    recipe: Recipe,
    plan: Plan,
    url: str,
    name: str,
    teacher: Path,
    path: Path,
    key: str,
    complaints: Any,
) -> None:
    """A process that trains students until there are no more tickets."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; one tells us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        job = prepare(recipe)
        if _key(job, plan) != key:
            raise RecipeError(
                "workers: expected 1 where data or models are given in memory or have changed "
                "since, as other processes read what the recipe names"
            )
        pupils = StudentTrainer(job, teacher, path, key, _Heedful())
        pupils.prepare(plan, Progress())
        with explained(url), closing(TrialQueue(url, name, plan, recipe)) as tickets:
            signal.signal(signal.SIGTERM, lambda number, frame: _told.set())
            for _ in work(tickets, pupils):
                pass
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except TutelageError as error:
        complaints.put(str(error))
        sys.exit(2)


class _Heedful(Progress):
    """Stops a worker that is told to end, at the next step.

    An exception raised by the signal's handler itself is lost where it falls into one of the
    garbage collector's callbacks.
    """

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        if _told.is_set():
            raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what was in hand goes back when its signs of life stay away


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes that are started here compute with so many threads, or fewer if told so before."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    told = int(before) if before and before.isdigit() else count
    os.environ[name] = str(min(told, count) or 1)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _best(job: Job, found: TrialResult, teacher: Path) -> Job:
    """The job of the best setting, on all images that are not the test part's."""
    setting = Setting(found["method"], found["alpha"], found["temperature"])
    recipe = replace(job.recipe, loss=setting.loss(job.recipe.loss))
    images, classes = job.data.train.images, job.data.classes
    taken = job.teacher or resolve.teacher(teacher, images=images, classes=classes)
    return replace(job, recipe=recipe, teacher=taken).on_all_images()


def _finished(path: Path, key: str) -> dict[str, Any] | None:
    """What a sweep came to, if it is done."""
    try:
        told: dict[str, Any] = json.loads((path / "sweep.json").read_text(encoding="utf-8"))
        return told if told["key"] == key and told["best"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tree(plan: Plan) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return tree


def _key(job: Job, plan: Plan) -> str:
    return _hash([job.keys(), _tree(plan)])


def _hash(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
