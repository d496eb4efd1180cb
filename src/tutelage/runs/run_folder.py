"""The folder of a run: manifest, history, lock."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from tutelage import storage
from tutelage.data.content import Part
from tutelage.data.geometry import Geometry
from tutelage.distillation.answers import agree
from tutelage.errors import RunError
from tutelage.models import file_metadata
from tutelage.progress import EpochLog
from tutelage.tracking import trackers as tracking
from tutelage.tracking.trackers import Trackers

_ANSWERS, _SAMPLE = "answers.npz", "sample.npz"
STAGES = ("teacher", "baseline", "student")
COLUMNS = (
    "stage",
    "epoch",
    "loss",
    "accuracy",
    "hard_loss",
    "distillation_loss",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
)
# The stages that depend on a given teacher, or on a given student.
_DEPENDENT = {"teacher": ("teacher", "student"), "student": ("baseline", "student")}


class RunFolder:
    """The folder of one run, opened for writing.

    Attributes:
        path: the folder.
        key: hash of the run it belongs to.
        stages: each finished stage's `key`, `seconds` and `history`.
        trackers: what shows the run elsewhere, if anything.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        stages: dict[str, dict[str, Any]],
        trackers: Trackers | None = None,
    ):
        self.path, self.key, self.stages, self.trackers = path, key, stages, trackers

    @property
    def histories(self) -> dict[str, list[EpochLog]]:
        """The epochs of the finished stages, in the order of training."""
        return {name: entry["history"] for name, entry in self.stages.items()}

    def model(self, stage: str) -> Path:
        """Path of a stage's model file."""
        return self.path / f"{stage}.keras"

    def checkpoint(self, stage: str) -> Path:
        """Path of a running stage's checkpoint."""
        return self.path / f".{stage}.npz"

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the folder atomically."""
        with storage.replacing(self.path / name) as temporary:
            # Paths of the command line may have bytes that are not UTF-8.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    def follow(self, answers: Mapping[str, Any]) -> tuple[str, ...]:
        """Record what the given models answer, and discard stages trained with other answers.

        Args:
            answers: the `Experiment`'s.

        Returns:
            The models whose answers have changed, as from `changed`.
        """
        names = changed(self.path, answers)
        for role in {role for name in names for role in _DEPENDENT[name]}:
            for stage in [stage for stage in self.stages if stage.split("-")[0] == role]:
                del self.stages[stage]
            for file in self.path.glob(f".{role}*.npz"):  # checkpoints
                file.unlink()
        if names:
            self._write_manifest()
            # Trackers begin new runs, as they can't take back the epochs of these stages.
            for outdated in ("results.json", "sweep.json", tracking.FILE):
                (self.path / outdated).unlink(missing_ok=True)
        if answers:
            with storage.replacing(self.path / _ANSWERS) as temporary:
                np.savez(temporary, **answers)
        return names

    def keep_sample(self, sample: Part) -> None:
        """Store a sample of the training images, unless there is one, as later ones may differ."""
        if not (self.path / _SAMPLE).exists():
            with storage.replacing(self.path / _SAMPLE) as temporary:
                np.savez(temporary, images=sample.images[:], labels=sample.labels)

    def finish_stage(
        self,
        stage: str,
        entry: dict[str, Any],
        network: Any,
        classes: tuple[str, ...],
        geometry: Geometry | None = None,
    ) -> None:
        """Store a stage's network with its classes' names, and record that the stage is done.

        Args:
            stage: the stage's name.
            entry: its `key`, `seconds` and `history`.
            network: a Keras model to save, or a `.keras` file to copy; None if the network is
                not a Keras model and is not stored.
            classes: the names, in the order of the network's outputs.
            geometry: how images got their size; None: they had it.
        """
        if network is not None:
            with storage.replacing(self.model(stage)) as temporary:
                if isinstance(network, Path):
                    shutil.copyfile(network, temporary)
                else:
                    network.save(temporary)
                file_metadata.write(temporary, classes, geometry)
            entry = entry | {"sha256": storage.sha256(self.model(stage))}
        self.stages[stage] = entry
        self._write_manifest()
        self.write_history()
        self.checkpoint(stage).unlink(missing_ok=True)

    def write_history(self, running: str = "", rows: list[EpochLog] | None = None) -> None:
        """Write `history.csv`: the epochs of the finished stages and of the running one.

        Earlier generations of the student are shown there while they run, and by the trackers.
        """
        histories = self.histories | ({running: rows or []} if running else {})
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        for stage in STAGES:
            shown = running if running.split("-")[0] == stage else stage
            table.writerows({"stage": stage} | row for row in histories.get(shown, []))
        self.write_text("history.csv", text.getvalue())
        if self.trackers is not None:
            self.trackers.write(histories)

    def same_stage_elsewhere(
        self, stage: str, key: str, answers: Mapping[str, np.ndarray]
    ) -> tuple[Path, dict[str, Any]] | None:
        """The model file of an adjacent run folder that has finished the same stage."""
        relevant = {n: a for n, a in answers.items() if stage in _DEPENDENT[n]}
        for manifest in sorted(self.path.parent.glob("*/run.json")):
            try:
                entry = json.loads(manifest.read_text(encoding="utf-8"))["stages"][stage]
                model = manifest.parent / f"{stage}.keras"
                if (
                    entry["key"] == key
                    and entry["sha256"] == storage.sha256(model)
                    and not changed(manifest.parent, relevant)
                ):
                    return model, entry
            except (OSError, ValueError, KeyError, TypeError, RunError):
                continue  # skip a damaged or unfinished folder of another run
        return None

    def _write_manifest(self) -> None:
        self.write_text(
            "run.json", json.dumps({"key": self.key, "stages": self.stages}, indent=1) + "\n"
        )


@contextmanager
def opened(
    path: Path, key: str, recipe: str, trackers: Trackers | None = None
) -> Iterator[RunFolder]:
    """Lock and open the folder of a run; create it if it does not exist.

    Args:
        path: the folder.
        key: hash of the run.
        recipe: the recipe as TOML, written to a new folder.
        trackers: what shows the run elsewhere; closed at the end.

    Yields:
        The folder.

    Raises:
        RunError: the folder belongs to another run, is not a run folder, is in use, or can't be
            written; it is left unchanged.
    """
    stages = _known_stages(path, key)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / ".lock")
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise RunError(f"{path} is in use by another process: wait for it to end") from error
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"can't write {path}: {reason}: choose another --out") from error
    try:
        folder = RunFolder(path, key, stages or {}, trackers)
        if stages is None:
            folder._write_manifest()  # first, as it identifies the folder
        if not (path / "recipe.toml").exists():
            folder.write_text("recipe.toml", recipe)
        yield folder
    finally:
        if trackers is not None:
            trackers.close()
        lock.release()  # keep its file: another process may have it open


def finished(path: Path, key: str) -> dict[str, Any] | None:
    """The results of a finished run with this key, else None."""
    try:
        if json.loads((path / "run.json").read_text(encoding="utf-8"))["key"] != key:
            return None
        results: dict[str, Any] = json.loads((path / "results.json").read_text(encoding="utf-8"))
        return results
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept_sample(path: Path) -> Part | None:
    """The sample of training images from `RunFolder.keep_sample`; None if there is none.

    Raises:
        RunError: if it is damaged.
    """
    try:
        with np.load(path / _SAMPLE) as stored:
            return Part(stored["images"], stored["labels"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path / _SAMPLE} is damaged: choose another --out") from error


def changed(path: Path, answers: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The models that answer otherwise than recorded in a run's folder.

    Args:
        path: the folder.
        answers: logits of given models: the teacher's and the untrained student's.

    Returns:
        The names in `answers` of these models; none if there is no record.

    Raises:
        RunError: if the record is damaged.
    """
    try:
        with np.load(path / _ANSWERS) as stored:
            return tuple(n for n in answers if n in stored and not agree(answers[n], stored[n]))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path / _ANSWERS} is damaged: choose another --out") from error


def _known_stages(path: Path, key: str) -> dict[str, dict[str, Any]] | None:
    """The finished stages in this run's folder; None if there is no run yet."""
    manifest = path / "run.json"
    if not manifest.exists():
        # Unfinished files of a killed process begin with a dot.
        if path.exists() and not (path.is_dir() and all(f.name[0] == "." for f in path.iterdir())):
            raise RunError(f"{path} exists and is not a run folder: choose another --out")
        return None
    try:
        stored = json.loads(manifest.read_text(encoding="utf-8"))
        owner, stages = stored["key"], dict(stored["stages"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{manifest} is damaged: choose another --out") from error
    if owner != key:
        raise RunError(
            f"{path} contains a run of another recipe, other data or other code and was left "
            "unchanged: "
            "choose another --out"
        )
    return stages
