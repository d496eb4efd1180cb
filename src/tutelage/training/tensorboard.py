"""Event files that show a run in TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import extra
from tutelage.progress import EpochLog


class EventLog:
    """Writes each stage's epochs as TensorBoard event files, one folder per stage.

    Events of a stage from an earlier process are rewritten, so that a resumed run shows each
    epoch once.

    Args:
        folder: the folder for `tensorboard --logdir`.

    Raises:
        MissingExtraError: TensorBoard isn't installed.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage.training.tensorboard import EventLog
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> EventLog(folder).write("student", [{"epoch": 1, "loss": 0.5}])
    >>> [path.name for path in folder.iterdir()]
    ['student']
    """

    def __init__(self, folder: Path):
        with extra("tensorboard"):
            from tensorboard.summary import Writer
        self._writer, self.folder = Writer, folder
        self._open: dict[str, tuple[Any, int]] = {}  # by stage: writer, number of rows written

    def write(self, stage: str, rows: Sequence[EpochLog]) -> None:
        """Write the new epochs of a stage.

        Args:
            stage: the stage's name.
            rows: all of its epochs so far.
        """
        if stage not in self._open:
            if not rows:
                return
            shutil.rmtree(self.folder / stage, ignore_errors=True)
            self._open[stage] = self._writer(str(self.folder / stage)), 0
        writer, done = self._open[stage]
        for row in rows[done:]:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()
        self._open[stage] = writer, len(rows)

    def close(self) -> None:
        """Close the files."""
        for writer, _ in self._open.values():
            writer.close()
        self._open.clear()
