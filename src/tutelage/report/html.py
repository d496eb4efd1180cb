"""`report.html`: runs and sweeps in one page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from tutelage import storage
from tutelage._version import __version__
from tutelage.errors import RunError
from tutelage.formatting import machine, spreads
from tutelage.report import example_gallery, sections, svg, sweep_section
from tutelage.report.elements import Part, Section
from tutelage.report.sweep_section import Sweep
from tutelage.runs import compare, run_reader
from tutelage.runs.run_folder import STAGES
from tutelage.runs.run_reader import Record

NAME = "report.html"


@dataclass(frozen=True)
class Written:
    """A page that was written.

    Attributes:
        path: of the page.
        figures: the folder with its charts as PNG and SVG.
        missing: what could not be shown, a line each.
    """

    path: Path
    figures: Path
    missing: tuple[str, ...]


def write(paths: Sequence[Path], out: Path | None = None) -> Written:
    """Write a page about runs and sweeps, and its charts as files beside it.

    What a run lacks is said in the page.

    Args:
        paths: runs' folders, sweeps' folders, or folders of those.
        out: of the page; default: `report.html` in the folder of a single run or sweep, else in
            the current one.

    Returns:
        Where it is, and what could not be shown.

    Raises:
        RunError: there is nothing to show, runs can't be compared, or the disk can't be written.
    """
    runs, swept = _found(paths)
    parts, title = _parts(runs, swept)
    if out is None:
        alone = [one.folder for one in swept] or [run.folder for run in runs]
        out = (alone[0] if len(alone) == 1 else Path()) / NAME
    folder = out.with_name(f"{out.stem}-figures")
    storage.make_folder(folder)
    drawn = {}
    for part in parts:
        for chart in (chart for section in part.sections for chart in section.charts):
            name = chart.name if len(parts) == 1 else f"{part.name}-{chart.name}"
            text = svg.save(chart.figure, folder / name)
            drawn[chart] = svg.inline(text, name, f"{chart.title}. {chart.caption}")
    read: list[Record | Sweep] = [*runs, *swept]
    missing = tuple(f"{one.folder}: {line}" for one in read for line in one.missing)
    page = _render(title=title, parts=parts, drawn=drawn, missing=missing)
    with storage.replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Written(out, folder, missing)


def _found(paths: Sequence[Path]) -> tuple[list[Record], list[Sweep]]:
    """The runs and sweeps that paths name; a sweep's best setting is a run."""
    folders: list[Path] = []
    for path in paths:
        inside = [path] if (path / sweep_section.FILE).is_file() else run_reader.find([path])
        folders += [folder for folder in inside if folder not in folders]
    swept = [folder for folder in folders if (folder / sweep_section.FILE).is_file()]
    runs = [folder for folder in folders if folder not in swept]
    runs += [folder / "best" for folder in swept if (folder / "best" / "run.json").is_file()]
    return [run_reader.read(folder) for folder in runs], [
        sweep_section.read(folder) for folder in swept
    ]


def _parts(runs: Sequence[Record], swept: Sequence[Sweep]) -> tuple[list[Part], str]:
    """What is told, and the page's title."""
    done = [_comparable(run) for run in runs if run.results]
    told = compare.compare(done) if done else {"groups": []}
    parts = []
    for number, group in enumerate(told["groups"], start=1):
        own = [run for run in done if str(run.folder) in group["runs"]]
        parts.append(_finished(f"recipe-{number}", own, group))
    for number, run in enumerate((run for run in runs if not run.results), start=1):
        if run.history or run.answers or run.settings:
            parts.append(_unfinished(f"unfinished-{number}", run))
    maps = [
        sweep_section.section(one, f"sweep-{i}")
        for i, one in enumerate(swept, start=1)
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
        read: list[Record | Sweep] = [*runs, *swept]
        lines = [f"{one.folder}: {'; '.join(one.missing)}" for one in read]
        raise RunError("found nothing that could be shown: " + "; ".join(lines))
    if len(told["groups"]) < 2:
        return parts, parts[0].title
    summary = Part("all", "All recipes", "", sections=[sections.comparison(told)])
    return [summary, *parts], f"{len(told['groups'])} recipes on {told['data']}"


def _comparable(run: Record) -> Record:
    """A finished run, its settings from its results where its recipe can't be read."""
    if run.settings:
        return run
    missing = tuple(line for line in run.missing if not line.startswith("recipe.toml"))
    return replace(run, settings=run.results["recipe"], missing=missing)


def _finished(name: str, runs: Sequence[Record], group: Mapping[str, Any]) -> Part:
    first = runs[0].results
    data = first["data"]["name"]
    known = group["name"] != first["name"]
    title = first["name"] if first["name"] == data else f"{first['name']} on {data}"
    title += f": {group['name']}" if known else ""
    part = Part(name, title, first["verdict"] if len(runs) == 1 else group["verdict"])
    for model, accuracy in zip(group["models"], spreads(group["models"])[0][1:], strict=True):
        size = group["models"][model].get("parameters")
        part.cards.append((model, accuracy, f"{size['mean']:,.0f} parameters" if size else ""))
    part.sections = [
        sections.results(runs, group),
        sections.training(runs),
        *_of_answers(runs),
        sections.size(runs, group),
        _provenance(runs),
    ]
    return part


def _unfinished(name: str, run: Record) -> Part:
    part = Part(
        name,
        f"{run.folder.name}, not finished",
        f"Of the run in {run.folder} there are no results to read, so nothing can be said of what "
        "its teacher is worth. Give the command that began it again, and it goes on.",
    )
    part.sections = [sections.training([run]), *_of_answers([run]), _provenance([run])]
    return part


def _of_answers(runs: Sequence[Record]) -> list[Section]:
    """The sections that need the models' answers to the test images."""
    names = sections.classes(runs)
    answers, labels = sections.pooled(runs)
    first = next((run for run in runs if run.pictures), runs[0])
    shown = [example_gallery.missed(first, names), example_gallery.telling(first, names)]
    if not answers:
        told = "The models' answers to the test images can't be read, so this is not known."
        return [Section("confusion", "What is taken for what", [told]), *shown]
    found = [
        sections.confusion(answers, labels, names),
        sections.by_class(answers, labels, names),
        sections.calibration(runs, answers, labels),
    ]
    if len(runs) > 1:
        count = sum(bool(run.answers) for run in runs)
        found[0].text.append(f"The answers of {count} seeds are taken together, here and below.")
        shown[0].text.append(f"All pictures are of {first.folder.name}.")
    return [*found, *shown]


def _provenance(runs: Sequence[Record]) -> Section:
    """Recipe, machine and commands."""
    section = Section("origin", "How it was made")
    for run in runs:
        section.facts.append(("run", str(run.folder)))
        if not run.results:
            continue
        made, data = run.results["environment"], run.results["data"]
        section.facts += [
            ("command", made["command"]),
            ("commit", made["commit"] or "unknown"),
            ("date", made["date"]),
            ("machine", f"{machine(made)}; {made['precision']}"),
        ]
        if run is runs[0]:
            versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
            section.facts += [
                ("versions", versions),
                ("data", f"{data['name']}, {data['fingerprint']}"),
            ]
    file = runs[0].folder / "recipe.toml"
    if file.is_file():
        beside = ", but for the seed" if len(runs) > 1 else ""
        text = file.read_text(encoding="utf-8", errors="replace")
        section.folded.append((f"The recipe{beside}", text))
    return section


def _render(**told: Any) -> str:
    here = Path(__file__)
    style = here.with_name("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    kitchen = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = kitchen.from_string(here.with_name("page.html").read_text(encoding="utf-8"))
    page = template.render(style=style, digest=digest, version=__version__, stages=STAGES, **told)
    return page.rstrip("\n") + "\n"
