"""A training process killed within an epoch: the resumed one ends as if it had never been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tutelage import losses
from tutelage.data.datasets import Part
from tutelage.distillation.logit_cache import GivenLogits
from tutelage.models import loading, zoo
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Schedule, Views
from tutelage.training import callbacks, checkpoint, trainer
from tutelage.training.trainer import DistillationTargets
from tutelage.training.validation_keeper import ValidationKeeper

REPOSITORY = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
TRAIN = Part(RNG.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4)
UNLABELED = Part(TRAIN.images, np.full(40, -1))
VALIDATION = Part(RNG.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8), np.arange(12) % 4)
LOGITS = GivenLogits(RNG.normal(size=(40, 4)).astype(np.float32))
SCHEDULE = Schedule(epochs=3, batch_size=8, learning_rate=0.05)  # 5 steps an epoch


def model(seed: int = 0) -> keras.Model:
    # Its dropout draws from a seed that a resumed run goes on with.
    return zoo.build("digits-teacher", images=TRAIN.images, classes=4, seed=seed)


def layers_too() -> DistillationTargets:
    """Targets with a projection that is trained, and a weight that depends on the step."""
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    return DistillationTargets(None, [losses.KD(), losses.FitNet()], [1.0, ramp], 0.5, model(9))


def logits() -> DistillationTargets:
    return DistillationTargets(LOGITS, [losses.KD()], 1.0, alpha=1.0)


# What a training is given besides its defaults.
CASES: dict[str, dict[str, Any]] = {
    "labels": {},
    "accumulation": {"schedule": replace(SCHEDULE, gradient_accumulation_steps=3)},
    "distillation": {"schedule": replace(SCHEDULE, optimizer="muon"), "targets": layers_too},
    "average": {"schedule": replace(SCHEDULE, gradient_accumulation_steps=3, ema=0.9)},
    "stopping": {"schedule": replace(SCHEDULE, epochs=9, ema=0.9, early_stopping=2)},
    "balance": {"schedule": replace(SCHEDULE, sampling="balanced", clip_norm=0.5)},
    "fine-tuning": {
        "schedule": replace(SCHEDULE, optimizer="muon", layer_decay=0.7, frozen_epochs=1, ema=0.9),
        "targets": layers_too,
    },
    "unlabeled": {"train": UNLABELED, "targets": logits},
}


def fit(case: str, path: Path, progress: Progress | None = None) -> tuple[keras.Model, list[Any]]:
    settings = {"train": TRAIN, "schedule": SCHEDULE, "targets": lambda: None} | CASES[case]
    trained, targets = model(), settings.pop("targets")()
    rows = trainer.fit(
        trained,
        validation=VALIDATION,
        views=Views(flip=True, shift=1),
        seed=0,
        precision="float32",
        checkpoint=path,
        key="mine",
        targets=targets,
        progress=progress,
        **settings,
    )
    return trained, rows


class Killed(Progress):
    """Kills its process some batches after the last checkpoint."""

    def __init__(self, epoch: int, saved: int, batch: int):
        self.epoch_to_end, self.saved, self.last = epoch, saved, batch
        self.now = self.batch = 0

    def step(self, step: int, logs: object) -> None:
        self.batch += 1
        if self.now == self.epoch_to_end and self.batch == self.saved:
            callbacks.SAVE_SECONDS = 1e9
        if self.now == self.epoch_to_end and self.batch == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def epoch(self, row: EpochLog) -> None:
        self.now, self.batch = int(row["epoch"]), 0
        if (self.now, self.saved) == (self.epoch_to_end, 0):
            callbacks.SAVE_SECONDS = 1e9


class Heard(Progress):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.notes: list[str] = []

    def step(self, step: int, logs: object) -> None:
        self.steps.append(step)

    def note(self, text: str) -> None:
        self.notes.append(text)


def kill(case: str, path: Path, epoch: int, saved: int, batch: int, validated: int = 0) -> None:
    """Train in another process that is killed in an epoch after so many batches."""
    call = [sys.executable, "-m", "tests.training.test_resume", case, str(path)]
    numbers = [str(number) for number in (epoch, saved, batch, validated)]
    done = subprocess.run([*call, *numbers], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def values(trained: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v.value).copy() for v in trained.variables]


def assert_same(ours: tuple[keras.Model, list[Any]], theirs: tuple[keras.Model, list[Any]]) -> None:
    for one, other in zip(values(ours[0]), values(theirs[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    # As text, in which a missing loss, NaN, equals another one.
    rows = [json.dumps([row | {"seconds": 0} for row in rows]) for _, rows in (ours, theirs)]
    assert rows[0] == rows[1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("case", "epoch", "saved", "batch"),
    [
        ("labels", 0, 2, 4),
        ("accumulation", 1, 7, 8),  # within a step
        ("distillation", 1, 3, 3),
        ("average", 1, 7, 8),
        ("average", 1, 15, 15),  # in the validation of averaged weights
        ("stopping", 3, 2, 4),  # after the best epoch
        ("stopping", 4, 5, 5),  # in the validation that ends the training
        ("balance", 1, 1, 4),
        ("fine-tuning", 0, 2, 3),  # with all but the head frozen
        ("fine-tuning", 1, 0, 2),  # the last checkpoint is of the frozen epoch
        ("fine-tuning", 1, 3, 4),
        ("unlabeled", 1, 2, 3),
        ("labels", 2, 5, 5),  # in the validation of the last epoch
        ("unlabeled", 0, 5, 5),
    ],
)
def test_a_process_killed_within_an_epoch_ends_bit_identical(
    tmp_path: Path, case: str, epoch: int, saved: int, batch: int
) -> None:
    whole = fit(case, tmp_path / "whole.npz")
    path = tmp_path / "cut.npz"
    kill(case, path, epoch, saved, batch)
    note, _, _ = checkpoint._read(path)
    assert (len(note["history"]), note.get("batches", 0)) == (epoch, saved)
    heard = Heard()
    resumed = fit(case, path, heard)
    assert_same(resumed, whole)
    assert resumed[1][epoch]["seconds"] > note.get("seconds", 0)
    schedule = CASES[case].get("schedule", SCHEDULE)
    parts, epochs = schedule.gradient_accumulation_steps or 1, len(whole[1])
    expected = [number // parts + 1 for number in range(saved, 5 * parts)]
    assert heard.steps[: len(expected)] == expected
    assert len(heard.steps) == parts * 5 * (epochs - epoch) - saved
    told = f"epoch {epoch + 1} of {schedule.epochs} after step {saved // parts} of 5"
    assert any(told in note for note in heard.notes) == bool(saved)


def after_each_validated_batch(call: Callable[[ValidationKeeper, int], None]) -> None:
    """Validate in batches of 5 images, and call a function after each."""
    loading.batch_size = lambda *_: 5  # type: ignore[assignment]
    keep = ValidationKeeper.on_test_batch_end

    def kept(self: ValidationKeeper, batch: int, logs: Any = None) -> None:
        keep(self, batch, logs)
        call(self, self.position.batches + batch + 1)

    ValidationKeeper.on_test_batch_end = kept  # type: ignore[method-assign]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("case", "epoch", "validated"),
    [("labels", 1, 2), ("average", 0, 1), ("stopping", 4, 2), ("unlabeled", 2, 2)],
)
def test_a_process_killed_in_validation_goes_on_there(
    tmp_path: Path, case: str, epoch: int, validated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "batch_size", loading.batch_size)
    monkeypatch.setattr(ValidationKeeper, "on_test_batch_end", ValidationKeeper.on_test_batch_end)
    batches: list[int] = []
    after_each_validated_batch(lambda keeper, done: batches.append(done))
    whole = fit(case, tmp_path / "whole.npz")
    path = tmp_path / "cut.npz"
    kill(case, path, epoch, saved=99, batch=99, validated=validated)
    left = path.with_suffix(".validation.npz")
    note, _, _ = checkpoint._read(left)
    assert (len(note["history"]), note["batches"]) == (epoch, validated)
    batches.clear()
    resumed = fit(case, path)
    assert_same(resumed, whole)
    rest = [*range(validated + 1, 4)]
    assert batches == [*rest, *[1, 2, 3] * (len(whole[1]) - epoch - 1)]
    assert resumed[1][epoch]["seconds"] > note["seconds"]
    assert not left.exists()


def test_a_damaged_checkpoint_of_a_validation_is_told_and_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    kill("labels", path, epoch=1, saved=5, batch=5)
    path.with_suffix(".validation.npz").write_bytes(b"PK")
    heard = Heard()
    assert_same(fit("labels", path, heard), fit("labels", tmp_path / "whole.npz"))
    assert any("cut.validation.npz is damaged" in note for note in heard.notes)


def test_a_checkpoint_is_due_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callbacks.SAVE_SECONDS == 60
    saved: list[int] = []

    def noted(*args: object) -> None:
        saved.append(0)

    monkeypatch.setattr(checkpoint, "save", noted)
    fit("labels", tmp_path / "c.npz")
    assert len(saved) == 3  # an epoch takes less
    monkeypatch.setattr(callbacks, "SAVE_SECONDS", 0.0)
    fit("labels", tmp_path / "c.npz")
    assert len(saved) == 3 + 3 * (5 + 1)


def test_a_checkpoint_of_finished_epochs_is_that_of_version_0_1_0(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Stopped(Progress):
        def epoch(self, row: EpochLog) -> None:
            raise Stop

    path = tmp_path / "c.npz"
    with pytest.raises(Stop):
        fit("labels", path, Stopped())
    with np.load(path) as stored:
        assert set(json.loads(str(stored["note"]))) == {"key", "history"}
        assert set(stored) == {"note", *(f"v{i}" for i in range(len(stored) - 1))}
    assert_same(fit("labels", path), fit("labels", tmp_path / "whole.npz"))


if __name__ == "__main__":
    name, file, *where = sys.argv[1:]
    callbacks.SAVE_SECONDS = 0.0
    in_epoch, after_saved, after_batch, after_validated = map(int, where)

    def end(keeper: ValidationKeeper, done: int) -> None:
        if (len(keeper.keeper.history), done) == (in_epoch, after_validated):
            os.kill(os.getpid(), signal.SIGKILL)

    if after_validated:
        after_each_validated_batch(end)
    fit(name, Path(file), Killed(in_epoch, after_saved, after_batch))
