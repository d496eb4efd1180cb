"""Event files that show a run in TensorBoard."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tutelage.errors import extra
from tutelage.tracking.tracker import Histories, Tracker


class EventLog(Tracker):
    """Writes each stage's epochs as TensorBoard event files, one folder per stage.

    Events of a stage from an earlier process are rewritten, so that a resumed run shows each
    epoch once.

    Args:
        folder: the folder for `tensorboard --logdir`.

    Raises:
        MissingExtraError: TensorBoard isn't installed.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage.tracking.tensorboard import EventLog
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> EventLog(folder).write({"student": [{"epoch": 1, "loss": 0.5}]})
    >>> [path.name for path in folder.iterdir()]
    ['student']
    """

    def __init__(self, folder: Path):
        with extra("tensorboard"):
            from tensorboard.summary import Writer
        self._writer, self.folder = Writer, folder
        self._open: dict[str, tuple[Any, int]] = {}  # by stage: writer, number of rows written

    def write(self, histories: Histories) -> None:
        """Write the epochs that are not written yet."""
        for stage, rows in histories.items():
            if stage not in self._open:
                if not rows:
                    continue
                shutil.rmtree(self.folder / stage, ignore_errors=True)
                self._open[stage] = self._writer(str(self.folder / stage)), 0
            writer, done = self._open.pop(stage)  # after an error its events are rewritten
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
