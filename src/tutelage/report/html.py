"""`report.html`: runs and sweeps in one self-contained page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage import storage
from tutelage._version import __version__
from tutelage.errors import RunError, extra
from tutelage.formatting import machine, spreads
from tutelage.runs import compare, run_reader
from tutelage.runs.run_folder import STAGES
from tutelage.runs.run_reader import Record

with extra("report"):
    import jinja2

    from tutelage.report import (
        example_gallery,
        learning_curves,
        predictions,
        result_tables,
        svg,
        sweep_section,
    )
    from tutelage.report.elements import Part, Section
    from tutelage.report.sweep_section import Sweep

NAME = "report.html"


@dataclass(frozen=True)
class Written:
    """A written report.

    Attributes:
        path: path of the page.
        figures: the folder with its charts as PNG and SVG.
        missing: one line per file that could not be read.
    """

    path: Path
    figures: Path
    missing: tuple[str, ...]


def write(paths: Sequence[Path], out: Path | None = None) -> Written:
    """Write a report on runs and sweeps, and its charts as separate files.

    The page lists the missing files of a run.

    Args:
        paths: run or sweep folders, or folders that contain them.
        out: path of the page; default: `report.html` in the folder of a single run or sweep,
            else in the current folder.

    Returns:
        The paths written, and the files that could not be read.

    Raises:
        RunError: there is nothing to show, the runs can't be compared, or writing failed.
    """
    runs, sweeps = _read(paths)
    parts, title = _parts(runs, sweeps)
    if out is None:
        folders = [one.folder for one in sweeps] or [run.folder for run in runs]
        out = (folders[0] if len(folders) == 1 else Path()) / NAME
    folder = out.with_name(f"{out.stem}-figures")
    storage.make_folder(folder)
    drawn = {}
    for part in parts:
        for chart in (chart for section in part.sections for chart in section.charts):
            name = chart.name if len(parts) == 1 else f"{part.name}-{chart.name}"
            text = svg.save(chart.figure, folder / name)
            drawn[chart] = svg.inline(text, name, f"{chart.title}. {chart.caption}")
    read: list[Record | Sweep] = [*runs, *sweeps]
    missing = tuple(f"{one.folder}: {line}" for one in read for line in one.missing)
    page = _render(title=title, parts=parts, drawn=drawn, missing=missing)
    with storage.replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return Written(out, folder, missing)


def _read(paths: Sequence[Path]) -> tuple[list[Record], list[Sweep]]:
    """Read the runs and sweeps at the given paths; the best setting of a sweep is a run."""
    folders: list[Path] = []
    for path in paths:
        inside = [path] if (path / sweep_section.FILE).is_file() else run_reader.find([path])
        folders += [folder for folder in inside if folder not in folders]
    sweeps = [folder for folder in folders if (folder / sweep_section.FILE).is_file()]
    runs = [folder for folder in folders if folder not in sweeps]
    runs += [folder / "best" for folder in sweeps if (folder / "best" / "run.json").is_file()]
    return [run_reader.read(folder) for folder in runs], [
        sweep_section.read(folder) for folder in sweeps
    ]


def _parts(runs: Sequence[Record], sweeps: Sequence[Sweep]) -> tuple[list[Part], str]:
    """The parts of the page, and its title."""
    finished = [_comparable(run) for run in runs if run.results]
    compared = compare.compare(finished) if finished else {"groups": []}
    parts = []
    for number, group in enumerate(compared["groups"], start=1):
        seeds = [run for run in finished if str(run.folder) in group["runs"]]
        parts.append(_finished(f"recipe-{number}", seeds, group))
    for number, run in enumerate((run for run in runs if not run.results), start=1):
        if run.history or run.logits or run.settings:
            parts.append(_unfinished(f"unfinished-{number}", run))
    maps = [
        sweep_section.section(one, f"sweep-{i}")
        for i, one in enumerate(sweeps, start=1)
        if one.trials
    ]
    if len(parts) == 1 and maps:
        parts[0].sections[2:2] = maps
    else:
        parts += [
            Part(section.name.replace("sweep", "swept"), section.title, "", sections=[section])
            for section in maps
        ]
    if not parts:
        read: list[Record | Sweep] = [*runs, *sweeps]
        lines = [f"{one.folder}: {'; '.join(one.missing)}" for one in read]
        raise RunError("found nothing to show: " + "; ".join(lines))
    if len(compared["groups"]) < 2:
        return parts, parts[0].title
    summary = Part("all", "All recipes", "", sections=[result_tables.comparison(compared)])
    return [summary, *parts], f"{len(compared['groups'])} recipes on {compared['data']}"


def _comparable(run: Record) -> Record:
    """A finished run; its settings come from its results if its recipe can't be read."""
    if run.settings:
        return run
    missing = tuple(line for line in run.missing if not line.startswith("recipe.toml"))
    return replace(run, settings=run.results["recipe"], missing=missing)


def _finished(name: str, runs: Sequence[Record], group: Mapping[str, Any]) -> Part:
    first = runs[0].results
    data = first["data"]["name"]
    varied = group["name"] != first["name"]
    title = first["name"] if first["name"] == data else f"{first['name']} on {data}"
    title += f": {group['name']}" if varied else ""
    part = Part(name, title, group["verdict"])
    for model, accuracy in zip(group["models"], spreads(group["models"])[0][1:], strict=True):
        size = group["models"][model].get("parameters")
        part.cards.append((model, accuracy, f"{size['mean']:,.0f} parameters" if size else ""))
    part.sections = [
        result_tables.results(runs, group),
        learning_curves.training(runs),
        *_of_predictions(runs),
        result_tables.size(runs, group),
        _provenance(runs),
    ]
    return part


def _unfinished(name: str, run: Record) -> Part:
    part = Part(
        name,
        f"{run.folder.name} (unfinished)",
        f"The run in {run.folder} has no results yet. Run its command again to resume it.",
    )
    part.sections = [learning_curves.training([run]), *_of_predictions([run]), _provenance([run])]
    return part


def _of_predictions(runs: Sequence[Record]) -> list[Section]:
    """The sections that need the predictions on the test images."""
    names = predictions.classes(runs)
    logits, labels = predictions.pooled(runs)
    first = next((run for run in runs if run.pictures), runs[0])
    shown = [example_gallery.missed(first, names), example_gallery.telling(first, names)]
    if not logits:
        text = "The predictions on the test images can't be read."
        return [Section("confusion", "Confusion matrices", [text]), *shown]
    measured = [
        predictions.confusion(logits, labels, names),
        predictions.by_class(logits, labels, names),
        predictions.calibration(runs, logits, labels),
    ]
    if len(runs) > 1:
        count = sum(bool(run.logits) for run in runs)
        measured[0].text.append(f"Predictions of {count} seeds are pooled, here and below.")
        shown[0].text.append(f"All images are from {first.folder.name}.")
    return [*measured, *shown]


def _provenance(runs: Sequence[Record]) -> Section:
    """Recipe, machine and commands."""
    section = Section("origin", "Provenance")
    for run in runs:
        section.facts.append(("run", str(run.folder)))
        if not run.results:
            continue
        environment, data = run.results["environment"], run.results["data"]
        section.facts += [
            ("command", environment["command"]),
            ("commit", environment["commit"] or "unknown"),
            ("date", environment["date"]),
            ("machine", f"{machine(environment)}; {environment['precision']}"),
        ]
        if run is runs[0]:
            versions = ", ".join(
                f"{name} {number}" for name, number in environment["versions"].items()
            )
            section.facts += [
                ("versions", versions),
                ("data", f"{data['name']}, {data['fingerprint']}"),
            ]
    file = runs[0].folder / "recipe.toml"
    if file.is_file():
        note = ", except for the seed" if len(runs) > 1 else ""
        text = file.read_text(encoding="utf-8", errors="replace")
        section.folded.append((f"Recipe{note}", text))
    return section


def _render(**content: Any) -> str:
    here = Path(__file__)
    style = here.with_name("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(here.with_name("page.html").read_text(encoding="utf-8"))
    page = template.render(
        style=style, digest=digest, version=__version__, stages=STAGES, **content
    )
    return page.rstrip("\n") + "\n"
