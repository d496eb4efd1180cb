"""The command line: parse arguments, call the package, print results."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from tutelage._version import __version__
from tutelage.cli.cache import cache
from tutelage.cli.compare import compare
from tutelage.cli.export import export, profile
from tutelage.cli.init import init
from tutelage.cli.listing import losses, models
from tutelage.cli.output import fail
from tutelage.cli.predict import evaluate, predict
from tutelage.cli.report import report
from tutelage.cli.run import distill, run
from tutelage.cli.serve import serve
from tutelage.cli.sweep import sweep
from tutelage.cli.views import views
from tutelage.errors import TutelageError

COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "run": run,
    "distill": distill,
    "compare": compare,
    "sweep": sweep,
    "views": views,
    "report": report,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "profile": profile,
    "serve": serve,
    "models": models,
    "losses": losses,
    "cache": cache,
}
# Earlier names, by the position where they are refused: the command itself, or any option.
_RENAMED = {"knowledge": "cache", "--unlabelled": "--unlabeled"}

app = typer.Typer(
    name="tutelage",
    help="Distill a large image classifier into a small one, and measure whether it helped.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tutelage {__version__}")
        raise Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    pass


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program name; default: those of the process.

    Returns:
        The exit status: 0, 2 for an error that the user can correct, 130 when interrupted.

    Raises:
        ModuleNotFoundError: a module of this package itself is missing.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that its encoding lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    for old in {arguments[0], *(word.split("=")[0] for word in arguments[1:] if word[0:1] == "-")}:
        if new := _RENAMED.get(old):
            fail(f"{old} is now {new}: use {new} instead")
            return 2
    try:
        status = app(arguments, standalone_mode=False, prog_name="tutelage")
        return status if isinstance(status, int) else 0
    except Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, Abort):
        fail("interrupted")
        return 130
    except TyperException as error:
        fail(f"{error.format_message()} Try 'tutelage --help'.")
        return 2
    except TutelageError as error:
        if debug:
            traceback.print_exc()
        fail(str(error))
        return 2
    except MemoryError as error:
        if debug:
            traceback.print_exc()
        fail(f"not enough memory: {error or 'an allocation failed'}; give fewer or smaller images")
        return 2
    except ModuleNotFoundError as error:  # the machine only serves, or lacks Keras' backend
        if str(error.name).startswith("tutelage"):
            raise
        if debug:
            traceback.print_exc()
        backends = {"jax": "tutelage[jax]", "tensorflow": "tensorflow"}
        package = backends.get(str(error.name), "tutelage")
        fail(f"{error.name} is not installed: pip install '{package}'")
        return 2
