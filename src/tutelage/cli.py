"""The command line: parse, call, render."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import Abort, Exit, TyperException

from . import __version__
from .errors import TutelageError

if TYPE_CHECKING:
    from .recipe import Recipe

app = typer.Typer(
    name="tutelage",
    help="Distil a big image classifier into a small one, and see what the teacher was worth.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, nothing else.")]
DataPath = Annotated[
    str,
    typer.Option(
        "--data",
        help="The data: an archive, a folder, or the name of a data set (digits, mnist, cifar10).",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="The run's folder.  [default: runs/RECIPE-HASH, of the whole recipe]"),
]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and views.")]
Alpha = Annotated[float | None, typer.Option(help="Weight of the distillation loss, 0 to 1.")]
Temperature = Annotated[
    float | None, typer.Option(help="Temperature of the soft targets, above 0.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every stage.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override any key of the recipe."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the recipe, the models and the time; no more.")
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tutelage {__version__}")
        raise Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


@app.command("run")
def run_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="digits, cifar10, distill, or the path of a .toml file."
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Where the data is: an archive or a folder.")
    ] = None,
    out: Out = None,
    seed: Seed = None,
    alpha: Alpha = None,
    temperature: Temperature = None,
    epochs: Epochs = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN|FILE",
            help="A trained teacher: a run's folder, a .keras or .onnx file; several: an ensemble.",
        ),
    ] = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a teacher, the student without it and with it, and compare the three.

    Give the same command again to go on after an interruption; a finished run
    prints its table.
    """
    from . import recipe as recipes

    overrides = dict(recipes.parse_setting(text) for text in settings or [])
    overrides |= _given(seed, alpha, temperature, epochs)
    overrides |= {} if data is None else {"data.path": data}
    overrides |= {} if not teacher else {"teacher.file": _one_or_all(teacher)}
    _go(recipes.load(source, overrides), out, dry_run, as_json)


@app.command("distill")
def distill_command(
    teacher: Annotated[
        list[str],
        typer.Option(
            help="A .keras, .onnx or .npy file, a run folder, package.module:function, or the "
            "name of a model to train; again for an ensemble."
        ),
    ],
    data: DataPath,
    student: Annotated[
        str,
        typer.Option(help="A .keras file, package.module:function, or a model's name."),
    ] = "student-300k",
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Further pictures, learned from by the teacher's answers alone."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--recipe", help="All else: a bundled recipe or a .toml file.")
    ] = "distill",
    out: Out = None,
    seed: Seed = None,
    alpha: Alpha = None,
    temperature: Temperature = None,
    epochs: Epochs = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Distil a teacher of your own into a student, on your own images.

    The same student is trained without the teacher too, and the three are compared. How a
    model takes its images is told by --set teacher.size=[64,64], teacher.scale=255 and so on.
    """
    from . import recipe as recipes

    taught = _one_or_all(teacher)
    overrides = recipes.overrides(teacher=taught, student=student, data=data, unlabelled=unlabelled)
    overrides |= dict(recipes.parse_setting(text) for text in settings or [])
    overrides |= _given(seed, alpha, temperature, epochs)
    _go(recipes.load(source, overrides), out, dry_run, as_json)


def _one_or_all(teachers: list[str]) -> str | list[str]:
    return teachers[0] if len(teachers) == 1 else teachers


def _given(seed: Seed, alpha: Alpha, temperature: Temperature, epochs: Epochs) -> dict[str, Any]:
    """What was given of the options that stand for keys of a recipe."""
    options = {
        "seed": seed,
        "loss.alpha": alpha,
        "loss.temperature": temperature,
        "schedule.teacher.epochs": epochs,
        "schedule.student.epochs": epochs,
    }
    return {key: value for key, value in options.items() if value is not None}


def _go(recipe: Recipe, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Run a recipe, or show what that would be."""
    from . import experiment
    from . import recipe as recipes
    from .job import prepare

    if dry_run:
        _show_plan(experiment.plan(recipe), recipes.to_toml(recipe), as_json)
        return

    from .console import ConsoleProgress

    progress = ConsoleProgress()
    folder = out or experiment.default_folder(recipe)
    try:
        with progress.console.status("reading the data"):  # seen on a terminal alone
            job = prepare(recipe)
        progress.note(f"{recipe.name} on {job.data.name}, {job.precision}, in {folder}")
        results = experiment.run(job, folder, progress)
    except KeyboardInterrupt:
        progress.close()
        _fail(
            f"interrupted at {progress.where()}: give the same command again to go on, in {folder}"
        )
        raise Exit(130) from None
    finally:
        progress.close()
    if as_json:
        print(json.dumps(results, indent=1))
    else:
        _show(results["models"], f"{recipe.name} on {results['data']['name']}")
        print(results["verdict"])
        print(f"Files: {folder} (report.md, student.keras, results.json)")


@app.command("evaluate")
def evaluate_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .keras file.")],
    data: DataPath,
    teacher: Annotated[
        Path | None, typer.Option(help="A .keras file to compare the answers with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on the test part of a data set."""
    from . import inference

    figures = inference.evaluate(model, data, teacher)
    if as_json:
        print(json.dumps(figures, indent=1))
    else:
        _show(figures["models"], f"{model.name} on {figures['data']['name']}")


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .keras file.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    as_json: Json = False,
) -> None:
    """Say what is on a picture: the most likely classes.

    The names of the classes are those of the run the model lies in.
    """
    from . import inference

    answers = inference.predict(model, images, top)
    if as_json:
        print(json.dumps(answers, indent=1))
        return
    for answer in answers:
        told = ", ".join(f"{c['name']} {100 * c['probability']:.1f} %" for c in answer["classes"])
        print(f"{answer['image']}: {told}")


@app.command("knowledge")
def knowledge_command(
    clear: Annotated[bool, typer.Option("--clear", help="Forget all of it.")] = False,
    as_json: Json = False,
) -> None:
    """Show what teachers' answers are kept on this machine, or forget them.

    A run asks its teacher once for each view and keeps the logits, so that another
    alpha or temperature need not ask again. What is forgotten can be asked again.
    """
    from . import knowledge
    from .report import megabytes

    entries = list(knowledge.stored())
    if clear:
        knowledge.clear()
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    for entry in entries:
        origin = entry["origin"]
        what = "damaged"
        if origin:
            images, *_, classes = origin["shape"]
            what = (
                f"teacher {origin['teacher'][:8]}, "
                f"{entry['views']} views of {images:,} images, {classes} classes"
            )
        print(f"{entry['folder']}: {what}, {megabytes(entry['bytes'])}")
    total = megabytes(sum(entry["bytes"] for entry in entries))
    print(f"{'forgotten' if clear else 'kept'}: {total} in {knowledge.home()}")


def _show(models: dict[str, Any], title: str) -> None:
    from rich.console import Console

    from .console import table

    Console(highlight=False).print(table(models, title))


def _show_plan(plan: dict[str, Any], toml: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    from .report import duration

    print(toml)
    for name, model in plan["models"].items():
        if "taken from" in model:
            print(f"{name}: taken from {model['taken from']}")
            continue
        macs = f"{model['macs']:,} MACs, " if "macs" in model else ""
        took = duration(model["seconds"])
        print(f"{name}: {model['parameters']:,} parameters, {macs}about {took}")
    print(
        f"about {duration(plan['seconds'])} on this machine in {plan['precision']}"
        f"{'' if plan['data']['found'] else '; the data is not here yet'}"
    )


def _fail(text: str) -> None:
    print("tutelage: " + " ".join(text.split()), file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; default: the process's own.

    Returns:
        The exit status: 0, 2 for a mistake the user can mend, 130 when interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    try:
        status = app(arguments, standalone_mode=False, prog_name="tutelage")
        return status if isinstance(status, int) else 0
    except Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, Abort):
        _fail("interrupted")
        return 130
    except TyperException as error:
        _fail(f"{error.format_message()} Try 'tutelage --help'.")
        return 2
    except TutelageError as error:
        if debug:
            traceback.print_exc()
        _fail(str(error))
        return 2
