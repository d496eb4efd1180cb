"""Recipes that extend others."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import recipe
from tutelage.errors import RecipeError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return written


def refusal(source: Path, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe.load(source, overrides)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize("base", recipe.BUNDLED)
def test_a_recipe_that_only_extends_is_its_base_under_another_name(write: Write, base: str) -> None:
    loaded = recipe.load(write("mine.toml", f'extends = "{base}"'))
    assert loaded.name == "mine"
    assert recipe.to_dict(loaded) == recipe.to_dict(recipe.load(base))
    assert recipe.key(loaded) == recipe.key(recipe.load(base))


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("seed = 3\n[loss]\nalpha = 0.5", {"seed": 3, "loss.alpha": 0.5}),
        ("[schedule.student]\nepochs = 1", {"schedule.student.epochs": 1}),
        ("schedule.student.epochs = 1", {"schedule.student.epochs": 1}),
        ('[loss]\nname = "dkd"', {"loss.name": "dkd"}),
        ('[loss]\nname = "kd"', {"loss.name": "kd"}),
        ('[loss]\nname = "dkd"\nbeta = 2', {"loss.name": "dkd", "loss.beta": 2}),
        ('[teacher]\nmodel = "mlp-30"', {"teacher.model": "mlp-30"}),
        ("[data]\nsize = [8, 9]", {"data.size": [8, 9]}),
    ],
)
def test_what_differs_is_as_if_given_on_the_command_line(
    write: Write, text: str, overrides: dict[str, object]
) -> None:
    mine = recipe.load(write("mine.toml", f'extends = "digits"\n{text}'))
    assert recipe.to_dict(mine) == recipe.to_dict(recipe.load("digits", overrides))


def test_paths_are_relative_to_the_extending_file(write: Write, tmp_path: Path) -> None:
    write("base.toml", 'extends = "digits"\nseed = 1\n[loss]\nalpha = 0.1')
    write("inner/middle.toml", 'extends = "../base.toml"\n[loss]\nalpha = 0.2')
    mine = write("inner/mine.toml", 'extends = "middle.toml"\n[loss]\ntemperature = 8')
    loaded = recipe.load(mine)
    assert (loaded.seed, loaded.loss.alpha, loaded.loss.temperature) == (1, 0.2, 8.0)
    absolute = write("other/mine.toml", f'extends = "{tmp_path}/base.toml"')
    assert recipe.load(absolute).loss.alpha == 0.1


def test_a_bundled_name_wins_over_a_file_called_so(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("digits", "seed = 9")
    write("digits.toml", 'extends = "digits"\nseed = 5')
    loaded = recipe.load("digits.toml")
    assert (loaded.name, loaded.seed, loaded.data.name) == ("digits", 5, "digits")
    assert recipe.load(write("mine.toml", 'extends = "digits.toml"')).seed == 5


def test_tables_are_merged_and_lists_replaced(write: Write) -> None:
    more = '[loss]\nmore = [{name = "rkd"}, {name = "dist"}]'
    write("base.toml", f'extends = "digits"\n{more}')
    mine = write("mine.toml", 'extends = "base.toml"\nloss.more = [{name = "dkd"}]')
    assert [term.name for term in recipe.load(mine).loss.terms()] == ["kd", "dkd"]


def test_another_loss_leaves_the_settings_of_the_bases_own(write: Write) -> None:
    write(
        "base.toml",
        'extends = "digits"\n[loss]\nname = "dkd"\nalpha = 0.3\nbeta = 2\nweight = 3\n'
        'ramp = "linear"\nwarmup = 0.2\ngenerations = 2',
    )
    same = recipe.load(write("same.toml", 'extends = "base.toml"\n[loss]\nname = "dkd"'))
    assert (same.loss.beta, same.loss.weight, same.loss.warmup) == (2.0, 3.0, 0.2)
    other = recipe.load(write("other.toml", 'extends = "base.toml"\n[loss]\nname = "nkd"'))
    assert other.loss == recipe.Loss(name="nkd", alpha=0.3, generations=2)
    # A base without a name has the default's.
    write("plain.toml", "loss.temperature = 2")
    plain = 'extends = "plain.toml"\nloss.name = "{}"'
    for name, temperature in (("kd", 2), ("dkd", None)):
        tree: Any = recipe.chain.read_chain(write("mine.toml", plain.format(name)))
        merged = recipe.chain.merge(tree[0].tree, tree[1].tree)
        assert merged["loss"].get("temperature") == temperature


def test_a_file_replaces_the_bases_model_and_a_model_the_bases_file(write: Write) -> None:
    filed = 'file = "t.keras"\nsize = [16, 16]\nscale = 255'
    write("filed.toml", f'extends = "digits"\n[teacher]\n{filed}\n[student]\n{filed}')
    loaded = recipe.load(write("mine.toml", 'extends = "filed.toml"'))
    for network in (loaded.teacher, loaded.student):
        assert (network.model, network.file, network.scale) == (None, "t.keras", 255.0)
    # The preprocessing is that of the file's images, for another file of the same kind, too.
    other = recipe.load(write("mine.toml", 'extends = "filed.toml"\nteacher.file = "u.keras"'))
    assert (other.teacher.file, other.teacher.scale) == ("u.keras", 255.0)
    back = 'extends = "filed.toml"\n[teacher]\nmodel = "digits-teacher"'
    named = recipe.load(write("mine.toml", back))
    assert named.teacher == recipe.Network(model="digits-teacher")
    assert named.student.file == "t.keras"
    # Not used in silence instead of the model that is asked for.
    asked = recipe.load(write("mine.toml", 'extends = "filed.toml"'), {"teacher.model": "mlp-30"})
    assert asked.teacher == recipe.Network(model="mlp-30")
    # A saved recipe contains both keys.
    write("saved.toml", recipe.to_toml(loaded))
    again = recipe.load(write("mine.toml", 'extends = "saved.toml"\nteacher.model = "mlp-30"'))
    assert again.teacher == recipe.Network(model="mlp-30")


def test_the_written_recipe_stands_alone(write: Write, tmp_path: Path) -> None:
    write("base.toml", 'extends = "digits"\nseed = 7')
    loaded = recipe.load(write("mine.toml", 'extends = "base.toml"\n[teacher]\nfile = "t.onnx"'))
    text = recipe.to_toml(loaded)
    assert "extends" not in tomllib.loads(text)
    (tmp_path / "base.toml").unlink()
    assert recipe.load(write("mine.toml", text)) == loaded


def test_overrides_win_over_all_files_and_change_none(write: Write) -> None:
    write("base.toml", 'extends = "digits"\nloss.alpha = 0.1')
    mine = write("mine.toml", 'extends = "base.toml"\n')
    assert recipe.load(mine, {"loss.alpha": 0.7}).loss.alpha == 0.7
    assert recipe.load(mine).loss.alpha == 0.1
    assert "extends: expected in a recipe file" in refusal(mine, {"extends": "mnist"})


@pytest.mark.parametrize(
    ("files", "cycle"),
    [
        ({"a.toml": "a.toml"}, ["a.toml", "a.toml"]),
        ({"a.toml": "./sub/../a.toml", "sub/x.toml": "x"}, ["a.toml", "a.toml"]),
        ({"a.toml": "b.toml", "b.toml": "a.toml"}, ["a.toml", "b.toml", "a.toml"]),
        (
            {"a.toml": "b.toml", "b.toml": "c.toml", "c.toml": "b.toml"},
            ["b.toml", "c.toml", "b.toml"],
        ),
    ],
)
def test_a_cycle_is_refused_with_its_chain(
    write: Write, tmp_path: Path, files: dict[str, str], cycle: list[str]
) -> None:
    for name, base in files.items():
        write(name, f'extends = "{base}"')
    told = refusal(tmp_path / "a.toml")
    chain = told.partition("found ")[2].partition(";")[0].split(" -> ")
    assert [Path(name).name for name in chain] == cycle


def test_mistakes_are_told_with_the_file_that_contains_them(write: Write, tmp_path: Path) -> None:
    base = write("base.toml", 'extends = "digits"\nsed = 1\n[loss]\nalpha = 2\nbeta = 1\n')
    mine = write("mine.toml", 'extends = "base.toml"\n[loss]\ntemprature = 2\n[views]\nshift = 1')
    told = refusal(mine, {"views.flip": 3})
    first, _, second = told.partition(f"; {base}: ")
    assert first.startswith(f"{mine}: 2 mistakes: ")
    assert "views.flip" in first
    assert "loss.temprature: unknown key, did you mean loss.temperature?" in first
    assert second.startswith("2 mistakes: ")
    assert "loss.alpha" in second
    assert "sed: unknown key, did you mean seed?" in second
    # A mistake that another file mends is none.
    mended = 'extends = "base.toml"\n[loss]\nname = "dkd"\nalpha = 0.5\n'
    assert refusal(write("mine.toml", mended)).startswith(f"{base}: 1 mistake: sed: ")
    # An override of a mistake is a mistake of the command, with the file that it was given for.
    told = refusal(write("mine.toml", 'extends = "base.toml"'), {"loss.alpha": 3})
    assert told.startswith(f"{mine}: 1 mistake: loss.alpha: ")
    # Another mistake in the same place is that of the file that makes it.
    told = refusal(write("mine.toml", 'extends = "base.toml"\n[loss]\nalpha = 3'))
    assert told.startswith(f"{mine}: 1 mistake: loss.alpha: ")


def test_settings_of_the_base_that_do_not_belong_to_its_loss_are_told_there(write: Write) -> None:
    base = write("base.toml", 'extends = "digits"\n[loss]\nbeta = 1')
    mine = write("mine.toml", 'extends = "base.toml"\n[loss]\nalpha = 0.5')
    assert refusal(mine).startswith(f"{base}: 1 mistake: loss: beta is for ")


def test_what_no_file_of_the_chain_contains_is_missing_in_the_last(write: Write) -> None:
    write("base.toml", '[data]\nname = "digits"')
    mine = write("mine.toml", 'extends = "base.toml"\n[views]')
    assert refusal(mine).startswith(f"{mine}: 4 mistakes: teacher: ")


def test_a_base_that_is_not_there_is_told_with_the_file_that_names_it(
    write: Write, tmp_path: Path
) -> None:
    mine = write("mine.toml", 'extends = "digts"')
    told = refusal(mine)
    assert told.startswith(f"{mine}: extends: no recipe '{tmp_path / 'digts'}'")
    assert told.endswith("; did you mean digits?")
    assert "did you mean" not in refusal(write("mine.toml", 'extends = "teacher-2m"'))
    broken = write("base.toml", "seed = = 3")
    told = refusal(write("mine.toml", 'extends = "base.toml"'))
    assert told.startswith(f"{mine}: extends: {broken}: invalid TOML: ")
    misspelled = refusal(write("mine.toml", 'extend = "digits"'))
    assert "extend: unknown key, did you mean extends?" in misspelled


@pytest.mark.parametrize("value", ["3", '""', '["digits"]', '"a\\u0000b"', "{}"])
def test_a_base_that_is_no_name_is_refused(write: Write, value: str) -> None:
    mine = write("mine.toml", f"extends = {value}")
    assert refusal(mine).startswith(f"{mine}: extends: expected the name of a bundled recipe")


def test_the_former_key_of_unlabeled_images_is_read_in_every_file(write: Write) -> None:
    write("base.toml", 'extends = "digits"\n[data]\nunlabelled = "pool"')
    mine = write("mine.toml", 'extends = "base.toml"\n[data]\nunlabelled = "lake"')
    assert recipe.load(mine).data.unlabeled == "lake"
