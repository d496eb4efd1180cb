"""Losses of one's own that a recipe names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tutelage import losses, recipe
from tutelage.errors import RecipeError
from tutelage.losses import from_recipe, own_loss

LOSS = """
import keras
from keras import ops
from tutelage.losses import LogitsLoss
import {base}

class Squares(LogitsLoss):
    def __init__(self, factor=1.0):
        self.factor = factor
    def per_sample(self, teacher_outputs, student_outputs, labels=None):
        squares = (teacher_outputs - student_outputs) ** 2
        return {base}.scaled(self.factor, ops.mean(squares, axis=-1))

class Derived({base}.Base):
    pass

def function(factor):
    return Squares(2 * factor)

def nothing():
    return None

def broken():
    raise OSError("two\\nlines")

def layers():
    return keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="a", student_layer_name="b"
    )

def value(teacher, student):
    return 0.0
"""
BASE = """
from tutelage.losses import KD
def scaled(factor, x):
    return factor * x
class Base(KD):
    pass
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a module with losses, and one that it imports, and give the first one's name."""
    monkeypatch.chdir(tmp_path)

    def write(change: str = "", base_change: str = "") -> str:
        count = len(list(tmp_path.glob("*.py")))
        base = f"base_{count}_{tmp_path.name}".replace("-", "_")
        name = f"own_{count}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{base}.py").write_text(BASE + base_change)
        (tmp_path / f"{name}.py").write_text(LOSS.format(base=base) + change)
        return name

    return write


def test_a_class_and_a_function_make_the_loss_with_its_settings(code: Callable[..., str]) -> None:
    name = code()
    teacher, student = np.random.default_rng(0).normal(size=(2, 4, 3))
    expected = ((teacher - student) ** 2).mean()
    for made, factor in (
        (own_loss.make(f"{name}:Squares", {}), 1),
        (own_loss.make(f"{name}:Squares", {"factor": 3}), 3),
        (own_loss.make(f"{name}:function", {"factor": 3}), 6),
    ):
        value = float(keras.ops.convert_to_numpy(made.compute_loss(teacher, student)))
        assert value == pytest.approx(factor * expected)


def test_a_recipe_makes_it_at_its_weight() -> None:
    settings = {"temperature": 3.0}
    section = recipe.Loss(
        name="tutelage.losses:KD",
        settings=settings,
        more=[{"name": "tutelage.losses:RKD", "weight": 0.5}, {"name": "dkd"}],
    )
    made = from_recipe.losses(section)
    assert [type(loss) for loss in made] == [losses.KD, losses.RKD, losses.DKD]
    assert made[0].get_config() == settings
    assert from_recipe.weights(section, 10) == [1.0, 0.5, 1.0]
    assert from_recipe.temperature(section) == 3.0
    assert from_recipe.reads_layers(section)
    assert set(from_recipe.code_digests(section)) == {"tutelage.losses:KD", "tutelage.losses:RKD"}
    assert from_recipe.code_digests(recipe.Loss()) == {}


@pytest.mark.parametrize(
    ("name", "settings", "offender"),
    [
        ("Square", {}, "did you mean Squares?"),
        ("Squares", {"fctor": 1}, "fctor"),
        ("function", {}, "factor"),
        ("nothing", {}, "NoneType"),
        ("broken", {}, "OSError: two lines"),
        ("value", {}, "student"),
        ("layers", {}, "FeatureLoss"),
        ("Derived", {"temperature": -1}, "temperature"),
    ],
)
def test_what_makes_no_loss_is_refused_in_one_line(
    code: Callable[..., str], name: str, settings: dict[str, object], offender: str
) -> None:
    reference = f"{code()}:{name}"
    with pytest.raises(RecipeError) as caught:
        own_loss.make(reference, settings)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{reference}: ")
    assert offender in line


def digest(name: str) -> str:
    return own_loss.code_digest(name, own_loss.make(name, {}))


def test_the_digest_follows_the_code_of_the_loss(code: Callable[..., str]) -> None:
    # The name is part of it, so the files are changed in place.
    name = code()
    file, base = Path(f"{name}.py"), Path(f"{name.replace('own', 'base')}.py")
    text, base_text = file.read_text(), base.read_text()

    def both() -> list[str]:
        script = (
            "import sys; from tutelage.losses import own_loss\n"
            "for name in sys.argv[1:]:\n"
            "    print(own_loss.code_digest(name, own_loss.make(name, {})))"
        )
        named = [f"{name}:Squares", f"{name}:Derived"]
        line = [sys.executable, "-c", script, *named]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()

    before = both()
    assert before == [digest(f"{name}:Squares"), digest(f"{name}:Derived")]
    assert len(set(before)) == 2
    file.write_text(text.replace("** 2", "** 4"))
    assert all(a != b for a, b in zip(before, both(), strict=True))
    file.write_text(text)
    base.write_text(base_text + "# of a class that Derived derives from\n")
    squares, derived = both()
    assert squares == before[0]  # what it only imports is not seen
    assert derived != before[1]


def test_the_digest_of_a_librarys_loss_is_that_of_its_name() -> None:
    one, other = (digest(f"tutelage.losses:{name}") for name in ("KD", "DKD"))
    assert one != other
    assert one == digest("tutelage.losses:KD")
