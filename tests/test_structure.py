"""The shape of the source: who imports whom, how long a file is, what is documented."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "tutelage"

# Imports point only to the left: data runs through the rooms in this order.
ORDER = [
    "errors",
    "storage",
    "environment",
    "progress",
    "events",
    "wording",
    "recipe.sections",
    "recipe.brought",
    "recipe.files",
    "recipe",
    "archives",
    "arrays",
    "pictures",
    "datasets",
    "views",
    "knowledge",
    "compiled",
    "fusion",
    "winograd",
    "twins",
    "native",
    "models",
    "losses.checks",
    "losses.labels",
    "losses.logits",
    "losses.layers",
    "losses.maps",
    "losses.features",
    "losses.review",
    "losses",
    "objective",
    "lessons",
    "distiller",
    "optimizers",
    "training",
    "metrics",
    "correction",
    "exhibits",
    "exported",
    "server.uploads",
    "server.files",
    "server.metrics",
    "server.crew",
    "server.front",
    "server.interface",
    "server.listening",
    "server",
    "inference",
    "bridge",
    "sources",
    "ensemble",
    "pool",
    "job",
    "runfolder",
    "records",
    "comparison",
    "report.tables",
    "report",
    "report.figures",
    "report.cells",
    "report.drawing",
    "report.sections",
    "report.evidence",
    "report.gallery",
    "report.sweeps",
    "report.page",
    "stages",
    "experiment",
    "grid",
    "tickets",
    "findings",
    "pupils",
    "ledger",
    "sweep",
    "outcome",
    "folding",
    "quantisation",
    "export",
    "profiling",
    "console",
    "cli.options",
    "cli.saying",
    "cli.asking",
    "cli.shipping",
    "cli.comparing",
    "cli.reporting",
    "cli.running",
    "cli.serving",
    "cli.sweeping",
    "cli",
]
# What needs no framework loads none, so that help, mistakes and finished runs answer at once.
WITHOUT_FRAMEWORK = [
    "errors",
    "storage",
    "environment",
    "recipe",
    "archives",
    "arrays",
    "pictures",
    "datasets",
    "views",
    "knowledge",
    "metrics",
    "exhibits",
    "exported",
    "server",
    "runfolder",
    "records",
    "comparison",
    "report",
    "report.page",
    "grid",
    "tickets",
    "findings",
    "console",
    "cli",
]

SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [path for path in SOURCES if path.parent != PACKAGE or not path.stem.startswith("__")]


def room(path: Path) -> str:
    """What a source is called in the order: its path with dots, a package by its folder."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(source: str) -> set[str]:
    """Every module that a source imports, at whatever depth, with `tutelage.` in full."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["tutelage" if node.level else "", node.module]))
            found.add(module)
            if module == "tutelage":
                found |= {f"tutelage.{alias.name}" for alias in node.names}
    return found


def rooms_imported(source: str) -> set[str]:
    """The rooms of the package that a source imports; a bare `tutelage` is none."""
    inside = [name for name in imported_modules(source) if name.startswith("tutelage.")]
    return {name.removeprefix("tutelage.") for name in inside} - {"__version__"}


def test_imports_are_seen_however_they_are_written():
    source = """
import keras.layers
import tutelage.losses
from tutelage import __version__, views as v
from .recipe import Recipe
def late():
    from . import metrics
    from tutelage.datasets import load
    from tutelage.losses.labels import CrossEntropy
"""
    found = {"losses", "views", "recipe", "metrics", "datasets", "losses.labels"}
    assert rooms_imported(source) == found
    assert "keras.layers" in imported_modules(source)


@pytest.mark.parametrize("path", ROOMS, ids=room)
def test_a_module_imports_only_those_before_it(path):
    assert room(path) in ORDER, f"{room(path)} has no place in the order of imports yet"
    allowed = set(ORDER[: ORDER.index(room(path))])
    assert rooms_imported(path.read_text(encoding="utf-8")) <= allowed


def test_the_order_names_no_module_that_is_gone():
    assert set(ORDER) == {room(path) for path in ROOMS}


def test_modules_without_a_framework_load_none():
    imports = "\n".join(f"import tutelage.{room}" for room in WITHOUT_FRAMEWORK)
    report = "print(sorted({'keras', 'torch', 'jax', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{imports}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_source_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_public_name_is_documented(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [
        node for node in module.body if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert ast.get_docstring(module), "the module has no docstring"
    assert not silent


def test_no_file_of_the_repository_is_large():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    assert PACKAGE / "__init__.py" in paths
    assert not [path for path in paths if path.is_file() and path.stat().st_size > 1_000_000]
