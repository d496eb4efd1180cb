"""Sweeps: one teacher, a student per setting and seed, and a test of the best setting."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tutelage import recipe as recipes
from tutelage.errors import RecipeError, RunError, TutelageError
from tutelage.experiment import runner
from tutelage.experiment.prepare import check, prepare
from tutelage.experiment.spec import Experiment, hash_of
from tutelage.losses import from_recipe
from tutelage.models import resolve
from tutelage.progress import Progress
from tutelage.recipe import Recipe
from tutelage.runs import findings, run_folder
from tutelage.sweeps import search_space
from tutelage.sweeps.results_writer import ResultsWriter
from tutelage.sweeps.search_space import AxisValues, Plan, Search, Setting
from tutelage.sweeps.trial_queue import TrialQueue, TrialResult, explained
from tutelage.sweeps.worker import StudentTrainer, kinds, work

_LOOK = 1.0  # seconds between updates on the workers
_PATIENCE = 10.0  # seconds for a worker to return its trial
_MOST_PER_CORE = 4  # workers
_INTERRUPTED = 130
_ending = threading.Event()  # set in a worker that was asked to stop


def default_folder(recipe: Recipe, plan: Plan) -> Path:
    """The default folder of a sweep: `runs/NAME-sweep-HASH`, of the recipe and the plan."""
    return Path("runs") / f"{recipe.name}-sweep-{_key(recipes.key(recipe), plan)[:8]}"


def sweep(
    recipe: str | os.PathLike[str] | Recipe,
    *,
    alpha: AxisValues | None = None,
    temperature: AxisValues | None = None,
    method: str | Sequence[str] | None = None,
    seeds: int = 1,
    search: Search = "grid",
    trials: int | None = None,
    prune: bool = False,
    workers: int = 1,
    storage: str | None = None,
    settings: Mapping[str, object] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Sweep over a recipe's alphas, temperatures and methods, and test the best setting.

    Args:
        recipe: the name of a bundled recipe, a TOML file, or a `Recipe`.
        alpha: as in `search_space.plan`, like those up to `prune`.
        temperature: likewise.
        method: likewise.
        seeds: likewise.
        search: likewise.
        trials: likewise.
        prune: likewise.
        workers: the number of processes that train students on this machine.
        storage: URL of a database that several machines share; default: a file in the folder.
        settings: values by dotted key that override the recipe's.
        out: the sweep's folder; default: `runs/RECIPE-sweep-HASH`.
        progress: notified of each student.

    Returns:
        As in `run`.

    Raises:
        TutelageError: says what was expected, what was found and what to do.
    """
    if isinstance(recipe, Recipe):
        if settings:
            raise RecipeError("settings: expected with a recipe's name or file, found a Recipe")
    else:
        recipe = recipes.load(recipe, settings)
    plan = search_space.plan(
        recipe,
        alpha=alpha,
        temperature=temperature,
        method=method,
        seeds=seeds,
        search=search,
        trials=trials,
        prune=prune,
    )
    folder = out if out is not None else default_folder(recipe, plan)
    experiment = prepare(recipe, progress=progress)
    return run(experiment, plan, folder, workers=workers, storage_url=storage, progress=progress)


def run(
    experiment: Experiment,
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    workers: int = 1,
    storage_url: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train one teacher and a student per setting and seed, and test the best setting.

    Settings are scored on the validation images only. The best one is then retrained on training
    and validation images, like its baseline, and tested in a run in `path/best`. Called again, it
    continues an interrupted sweep or returns the finished one.

    Args:
        experiment: from `prepare`.
        plan: the search space, from `search_space.plan`.
        path: the sweep's folder; created if absent, continued if it is this sweep's.
        workers: the number of processes that train students on this machine. With more than one,
            data and models must come from the recipe, not from memory.
        storage_url: URL of a database that several machines share, `postgresql://USER@HOST/NAME`;
            default: an SQLite file in the folder.
        progress: notified of each student.

    Returns:
        The contents of `sweep.json`: `recipe`, `plan`, `trials` (one row per student), `found`
        (from `findings.find`), `said` (sentences), `best` (the contents of `best/results.json`)
        and `environment`.

    Raises:
        RunError: if the folder or the study belongs to another sweep or can't be written, or
            if all workers ended early.
        TutelageError: says what was expected, what was found and what to do.

    Example:

    >>> import tempfile
    >>> from tutelage.sweeps import search_space, runner
    >>> from tutelage.experiment.prepare import prepare
    >>> from tutelage import recipe
    >>> short = {"schedule.teacher.epochs": 1, "schedule.student.epochs": 1}
    >>> digits = recipe.load("digits", short)
    >>> plan = search_space.plan(digits, alpha="0.5,0.9")
    >>> results = runner.run(prepare(digits), plan, tempfile.mkdtemp())
    >>> len(results["trials"]), sorted(results["best"]["models"])
    (3, ['baseline', 'student', 'teacher'])
    """
    progress, path = progress or Progress(), Path(path)
    cores = os.cpu_count() or 1
    if not 1 <= workers <= _MOST_PER_CORE * cores:
        raise RecipeError(
            f"workers: expected 1 to {_MOST_PER_CORE * cores} on this machine of {cores} cores, "
            f"found {workers}"
        )
    key, recipe = _full_key(experiment, plan), experiment.recipe
    changed = run_folder.changed(path, experiment.answers)
    results = _finished(path, key, _key(experiment.former_keys(), plan))
    if results and not changed:
        progress.note(f"already done in {path}")
        return results
    for variant in kinds(experiment, plan, min):
        check(variant)
    with run_folder.opened(path, key, recipes.to_toml(recipe)) as folder:
        url = storage_url or f"sqlite:///{(path / 'study.db').resolve().as_posix()}"
        name = f"tutelage-{recipe.name}-{key[:16]}"
        with (
            explained(url),
            closing(TrialQueue(url, name, plan, recipe, experiment.answers)) as queue,
        ):
            teacher = runner.train_teacher(experiment, folder, progress)
            trainer = StudentTrainer(experiment, teacher, path, key)
            if not queue.all_done():
                trainer.prepare(plan, progress)
            head = {"key": key, "recipe": recipes.to_dict(recipe), "plan": _tree(plan)}
            writer = ResultsWriter(queue, path, head, experiment.precision, progress)
            writer.begin()
            if workers == 1:
                for _ in work(queue, trainer):
                    writer.update()
            else:
                arguments = (recipe, plan, url, name, teacher, path, key)
                _share(workers, max(1, cores // workers), arguments, writer, progress)
            writer.update()
            if not queue.all_done():
                raise RunError(
                    "all workers ended before the last student was trained: run the same command "
                    "again to resume"
                )
        ranking = findings.find(writer.rows, len(experiment.validation))
        best = ranking["best"]
        progress.note(f"best: {findings.name(best)}; retraining on all training images")
        results = runner.run(_best(experiment, best, teacher), path / "best", progress)
        end = "Retrained on training and validation images and tested once: " + results["verdict"]
        return writer.close(found=ranking, said=[*findings.say(ranking), end], best=results)


def _share(
    workers: int,
    threads: int,
    arguments: tuple[Any, ...],
    writer: ResultsWriter,
    progress: Progress,
) -> None:
    """Run worker processes that train the students, and write their results."""
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    processes = [
        context.Process(target=_worker, args=(*arguments, errors), daemon=True)
        for _ in range(workers)
    ]
    try:
        with _threads(threads):
            for process in processes:
                process.start()
        running = list(processes)
        while running:
            connection.wait([process.sentinel for process in running], timeout=_LOOK)
            writer.update()
            if not errors.empty():
                raise RunError(errors.get())
            for process in [process for process in running if process.exitcode is not None]:
                running.remove(process)
                if process.exitcode:
                    progress.note(
                        f"warning: a worker ended early (exit code {process.exitcode}); "
                        f"{len(running)} are left, and another one will train its student"
                    )
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join(_PATIENCE)
            if process.is_alive():
                process.kill()


def _worker(
    recipe: Recipe,
    plan: Plan,
    url: str,
    name: str,
    teacher: Path,
    path: Path,
    key: str,
    errors: Any,
) -> None:
    """Worker process: train students until there are no more trials."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # handled by the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        experiment = prepare(recipe)
        if _full_key(experiment, plan) != key:
            raise RecipeError(
                "workers: expected 1 if data or models are given in memory or have changed, "
                "as other processes load them from the recipe"
            )
        trainer = StudentTrainer(experiment, teacher, path, key, _EndsOnSignal())
        trainer.prepare(plan, Progress())
        with (
            explained(url),
            closing(TrialQueue(url, name, plan, recipe, experiment.answers)) as queue,
        ):
            signal.signal(signal.SIGTERM, lambda number, frame: _ending.set())
            for _ in work(queue, trainer):
                pass
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except TutelageError as error:
        errors.put(str(error))
        sys.exit(2)


class _EndsOnSignal(Progress):
    """Stops a worker at its next step after SIGTERM.

    An exception raised in the signal handler itself would be lost if the handler runs inside a
    garbage collector callback.
    """

    def step(self, step: int, logs: Mapping[str, float]) -> None:
        if _ending.is_set():
            raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # its trial goes back to the queue when its heartbeat stops


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the compute threads of processes started here, respecting a lower OMP_NUM_THREADS."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    limit = int(before) if before and before.isdigit() else count
    os.environ[name] = str(min(limit, count) or 1)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _best(experiment: Experiment, best: TrialResult, teacher: Path) -> Experiment:
    """The experiment of the best setting, on training and validation images."""
    setting = Setting(best["method"], best["alpha"], best["temperature"])
    recipe = experiment.recipe
    recipe = replace(recipe, loss=setting.loss(recipe.loss))
    images, classes = experiment.data.train.images, experiment.data.classes
    trained = experiment.teacher or resolve.teacher(teacher, images=images, classes=classes)
    best_experiment = replace(experiment, recipe=recipe, teacher=trained, teacher_network=None)
    return best_experiment.on_all_images()


def _finished(path: Path, *keys: str) -> dict[str, Any] | None:
    """The results of a finished sweep, else None."""
    try:
        stored: dict[str, Any] = json.loads((path / "sweep.json").read_text(encoding="utf-8"))
        return stored if stored["key"] in keys and stored["best"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tree(plan: Plan) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return tree


def _full_key(experiment: Experiment, plan: Plan) -> str:
    """Hash of a sweep, including the code of the user's own losses among its methods."""
    codes: dict[str, str] = {}
    for variant in kinds(experiment, plan, min):
        codes |= from_recipe.code_digests(variant.recipe.loss)
    keys = experiment.keys()
    return _key(keys | codes if codes else keys, plan)


def _key(experiment: dict[str, str] | str, plan: Plan) -> str:
    return hash_of([experiment, _tree(plan)])
