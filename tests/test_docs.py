"""What the documentation shows is true: commands, options, snippets, links."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tutelage
from tutelage import cli, recipe
from tutelage.evaluation.statistics import Difference, mcnemar, paired
from tutelage.runs.verdict import Evidence, judge

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
methods = importlib.import_module("methods")
hinton = importlib.import_module("hinton")
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = tuple(cli.COMMANDS)
REFERENCE = REPOSITORY / "docs" / "reference.md"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def signature(name: str, value: Any) -> str:
    """How something is called, an argument a line, annotated as in the source."""
    try:
        found = inspect.signature(value)
    except ValueError:  # an exception has none
        return name
    lines, keyword_only = [], False
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            lines.append("*")
            keyword_only = True
        if parameter.kind is not parameter.VAR_KEYWORD:
            default = "" if parameter.default is found.empty else f" = {parameter.default!r}"
            lines.append(f"{parameter.name}: {parameter.annotation}{default}")
    returns = found.return_annotation
    result = "" if returns is found.empty or isinstance(value, type) else f" -> {returns}"
    body = "".join(f"    {line},\n" for line in lines)
    return f"{name}(\n{body}){result}" if body else f"{name}(){result}"


def reference(capsys: pytest.CaptureFixture[str]) -> str:
    """The reference page, made of what the program itself says."""
    parts = [
        "# Reference",
        "",
        "Made from `tutelage --help`, the signatures of the Python names and the bundled",
        "recipes; to make it again after a change, run",
        "`TUTELAGE_WRITE_DOCS=1 make test`.",
        "",
        "## Commands",
    ]
    for command in ([], *([name] for name in COMMANDS)):
        assert cli.main([*command, "--help"]) == 0
        said = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
        parts += [
            "",
            f"### tutelage {' '.join(command)}".rstrip(),
            "",
            "```text",
            said.strip(),
            "```",
        ]
    parts += ["", "## Python", "", "The names of `tutelage`, with their signatures."]
    for name in tutelage.__all__:
        value = getattr(tutelage, name)
        summary = "A string." if name == "__version__" else inspect.getdoc(value)
        first = summary.partition("\n\n")[0].replace("\n", " ")
        parts += ["", f"### tutelage.{name}", "", first]
        if callable(value):
            parts += ["", "```python", signature(name, value), "```"]
    parts += ["", "## Recipes", "", "Every key, as the bundled recipes set it."]
    for name in recipe.BUNDLED:
        text = (REPOSITORY / "src" / "tutelage" / "recipe" / "presets" / f"{name}.toml").read_text(
            "utf-8"
        )
        parts += ["", f"### {name}", "", "```toml", text.strip(), "```"]
    return "\n".join(parts) + "\n"


def test_reference_says_what_the_program_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    expected = reference(capsys)
    if os.environ.get("TUTELAGE_WRITE_DOCS"):
        REFERENCE.write_text(expected, encoding="utf-8")
    assert REFERENCE.read_text(encoding="utf-8") == expected


def test_options_that_the_documentation_names_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        cli.main([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) | {"--debug", "--version"}
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for line in page.read_text(encoding="utf-8").splitlines():
            for called in re.findall(rf"tutelage (?:{'|'.join(COMMANDS)})[^`#]*", line):
                assert set(re.findall(r"--[a-z-]+", called)) <= known, line


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def net(units: int) -> keras.Model:
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(units)]
        return keras.Sequential([*layers, keras.layers.Dense(10)])

    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    names = {"student": net(4), "teacher": net(16), "images": images, "labels": np.arange(200) % 10}
    fit, whole = blocks(README, "python")
    before = names["student"].get_weights()
    pixels = names | {"images": images.astype("float32") / 255}
    exec(fit.replace("epochs=10", "epochs=1, verbose=0"), pixels)
    after = names["student"].get_weights()
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    # With its defaults it trains longer than a test should.
    monkeypatch.chdir(tmp_path)
    short = 'settings={"schedule.student.epochs": 1, "schedule.student.batch_size": 16}, data='
    exec(whole.replace("data=", short), names | {"tutelage": tutelage})
    assert set(names) >= {"student"}
    assert list(tmp_path.glob("runs/*/student.keras"))


def test_recipes_that_the_documentation_shows_load(tmp_path: Path) -> None:
    shown = blocks((REPOSITORY / "docs" / "concepts.md").read_text(encoding="utf-8"), "toml")
    assert shown
    digits = (REPOSITORY / "src" / "tutelage" / "recipe" / "presets" / "digits.toml").read_text(
        "utf-8"
    )
    assert any(text.startswith("extends") for text in shown)
    for text in shown:
        if text.startswith("extends"):
            (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
            recipe.load(tmp_path / "shown.toml")
            continue
        section = text.split("]")[0] + "]"
        before, _, rest = digits.partition(section)
        after = rest[rest.index("\n[") + 1 :]
        (tmp_path / "shown.toml").write_text(f"{before}{text}\n{after}", encoding="utf-8")
        assert recipe.load(tmp_path / "shown.toml").loss.more


def test_the_loss_of_ones_own_that_the_documentation_shows_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "docs" / "concepts.md").read_text(encoding="utf-8")
    (code,) = (block for block in blocks(text, "python") if "LogitsLoss" in block)
    (recipe_text,) = (block for block in blocks(text, "toml") if "mylosses" in block)
    monkeypatch.chdir(tmp_path)
    Path("mylosses.py").write_text(code, encoding="utf-8")
    Path("mine.toml").write_text(recipe_text, encoding="utf-8")
    short = {"schedule.teacher.epochs": 1, "schedule.student.epochs": 1}
    outcome = tutelage.run("mine.toml", settings=short, out="run")
    assert outcome.results["recipe"]["loss"]["settings"] == {"factor": 0.1}
    monkeypatch.delitem(sys.modules, "mylosses")


def test_tables_of_methods_are_made_of_their_cells() -> None:
    page = REPOSITORY / "docs" / "methods.md"
    text = page.read_text(encoding="utf-8")
    assert methods.page(text, methods.CELLS) == text
    assert "| kd |" in text


def test_tables_of_papers_are_made_of_their_cells() -> None:
    text = (REPOSITORY / "docs" / "papers.md").read_text(encoding="utf-8")
    assert hinton.page(text, hinton.CELLS) == text


def test_quoted_verdicts_follow_from_their_figures() -> None:
    def quoted(page: str) -> str:
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        return " ".join(text.replace("\n> ", "\n").split())

    def evidence(difference: Difference, tests: Sequence[dict[str, Any]] = ()) -> Evidence:
        return Evidence(difference, tests, 10_000)

    models = {"teacher": 0.8997, "baseline": 0.8748, "student": 0.8855}
    right = np.repeat([[True, False], [False, True]], [462, 355], axis=0).T
    gain = evidence(paired([0.8855], [0.8748], 10_000), [mcnemar(*right)])
    one = judge(gain, models, evidence(paired([0.8855], [0.8997], 10_000)), 0.1)
    assert one.text in quoted("README.md")
    assert one.text in quoted("docs/results.md")
    stored = REPOSITORY / "benchmarks" / "results" / "cifar10-seeds" / "alpha-0.6.json"
    (group,) = json.loads(stored.read_text())["groups"]
    models = {name: model["accuracy"]["mean"] for name, model in group["models"].items()}
    gain = evidence(Difference(**group["worth"]), group["mcnemar"])
    assert judge(gain, models, evidence(Difference(**group["short"])), 0.1).text in quoted(
        "docs/results.md"
    )


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_of_the_package_that_the_documentation_names_exist() -> None:
    package = REPOSITORY / "src" / "tutelage"
    named = set()
    for page in (REPOSITORY / "docs").glob("*.md"):
        named |= set(re.findall(r"`(\w+/[\w/]+\.(?:py|c))`", page.read_text(encoding="utf-8")))
    folders = ("benchmarks", "tests", "examples")
    missing = {name for name in named if not name.startswith(folders)}
    assert {name for name in missing if not (package / name).is_file()} == set()
    assert "losses/attention_transfer.py" in named


def test_readme_names_the_two_commands_and_the_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
