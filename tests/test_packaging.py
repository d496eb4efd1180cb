"""What is declared, pinned, imported and shipped agrees."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
import venv
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tutelage

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "tutelage"
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
# What a message tells to install: it needs half a hundred packages, for one file format.
ASKED_FOR = {"ai_edge_litert"}
PICTURE = b"P6 2 1 255\n" + bytes(6)
# A pin of PyTorch names its GPU libraries itself, and which they are depends on the platform.
GPU_LIBRARIES = ("nvidia-", "cuda-", "triton")


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by canonical name; a name given twice is a mistake."""
    parsed = [Requirement(line) for line in lines]
    by_name = {canonicalize_name(requirement.name): requirement for requirement in parsed}
    assert len(by_name) == len(parsed)
    return by_name


def pins(name: str) -> dict[str, Requirement]:
    """The pins of a requirements file, without comments and included files."""
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    return requirements([line for line in lines if line and not line.startswith(("#", "-r "))])


DECLARED = requirements(PYPROJECT["project"]["dependencies"])
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def optional(*extras: str) -> dict[str, Requirement]:
    """What these extras add; a package of several has the same range in each."""
    lines = sorted({line for extra in extras for line in EXTRAS[extra]})
    return requirements([line for line in lines if not line.startswith("tutelage[")])


SHOWN = optional("serve", "sweep", "report", "export")  # in the README
OTHERS = optional("jax", "postgres", "tensorboard", "mlflow", "wandb", "parquet")
OPTIONAL = optional(*EXTRAS)
RUN = pins("requirements.txt")
DEV = pins("requirements-dev.txt")
SERVE = pins("requirements-serve.txt")


def pinned_version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def needs(name: str) -> set[str]:
    """What an installed distribution requires on this machine, without its extras."""
    found = [Requirement(line) for line in importlib.metadata.requires(name) or []]
    here = [need for need in found if not need.marker or need.marker.evaluate({"extra": ""})]
    return {canonicalize_name(need.name) for need in here}


@pytest.mark.parametrize("requirement", [*RUN.values(), *DEV.values()], ids=lambda r: r.name)
def test_every_pin_is_exact_and_portable(requirement):
    version = pinned_version(requirement)
    assert "+" not in version, "a local version is found on one index only"
    assert "*" not in version
    assert requirement.url is None


def test_requirements_serve_as_constraints_too():
    # pip refuses options such as -e and -r, and extras, in a constraints file.
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith("-")]
    assert not [name for name, requirement in RUN.items() if requirement.extras]
    assert "torch==2.13.0" in lines


def test_serving_needs_a_part_of_a_run_s_pins_and_no_framework():
    assert {name: str(pin) for name, pin in SERVE.items()} == {
        name: str(pin) for name, pin in RUN.items() if name in SERVE
    }
    frameworks = {"keras", "torch", "scikit-learn", "optuna", "matplotlib", "onnx", "pandas"}
    assert not SERVE.keys() & frameworks


def test_the_two_files_pin_nothing_twice():
    assert not RUN.keys() & DEV.keys()


@pytest.mark.parametrize(
    ("declared", "pinned"),
    [
        *[pytest.param(r, RUN, id=name) for name, r in (DECLARED | SHOWN).items()],
        *[pytest.param(r, RUN | DEV, id=name) for name, r in OTHERS.items()],
    ],
)
def test_a_declared_range_admits_its_pin(declared, pinned):
    assert declared.specifier.contains(pinned_version(pinned[canonicalize_name(declared.name)]))


@pytest.mark.parametrize("pinned", [RUN, RUN | DEV, SERVE], ids=["run", "dev", "serve"])
def test_pins_are_closed_under_what_they_need(pinned):
    here = [n for n, r in pinned.items() if not r.marker or r.marker.evaluate()]
    needed = set().union(*(needs(name) for name in here))
    missing = {name for name in needed - pinned.keys() if not name.startswith(GPU_LIBRARIES)}
    assert not missing


def test_nothing_is_pinned_for_a_run_that_no_dependency_needs():
    reached, waiting = set(), set(DECLARED | SHOWN)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= (needs(name) & RUN.keys()) - reached
    here = {n for n, r in RUN.items() if not r.marker or r.marker.evaluate()}
    assert here == reached & here


def test_an_extra_adds_to_the_core_and_all_is_all_of_them():
    assert not DECLARED.keys() & OPTIONAL.keys()
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == EXTRAS.keys() - {"all"}


def test_without_the_extras_a_command_names_the_one_it_needs(tmp_path):
    (tmp_path / "net.onnx").touch()
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    owners = importlib.metadata.packages_distributions()
    absent = [
        m
        for m, names in owners.items()
        if m != "pyarrow" and OPTIONAL.keys() & set(map(canonicalize_name, names))
    ]
    needs = {
        "report .": "report",
        "serve net.onnx": "serve",
        "predict net.onnx picture.png": "export",
        "evaluate net.onnx --data digits": "export",
        "export .": "export",
        "sweep digits --alpha 0.9": "sweep",
        "run digits --tensorboard": "tensorboard",
        "run digits --set track=['mlflow']": "mlflow",
        "run digits --set track=['wandb']": "wandb",
        "run distill --data list.parquet": "parquet",
    }
    code = f"""
import os, sys
class Absent:  # scikit-learn looks for it among the imported modules
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent)
sys.modules.update(dict.fromkeys({absent}))
os.chdir({str(tmp_path)!r})
import tutelage
from tutelage import cli
tutelage.Distiller, tutelage.distill
for command in {list(needs)}:
    print(cli.main(command.split()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("tutelage: ", "2"))]
    assert lines[1::2] == ["2"] * len(needs)
    for line, (command, extra) in zip(lines[::2], needs.items(), strict=True):
        assert line.endswith(f"is not installed: pip install 'tutelage[{extra}]'"), command


def test_third_party_imports_are_those_declared():
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    third_party = imported - sys.stdlib_module_names - {"tutelage"}
    third_party -= ASKED_FOR
    owners = importlib.metadata.packages_distributions()
    assert third_party <= owners.keys()
    distributions = {canonicalize_name(owners[name][0]) for name in third_party}
    assert distributions == DECLARED.keys() | OPTIONAL.keys()


def test_the_installed_version_is_the_package_s():
    assert importlib.metadata.version("tutelage") == tutelage.__version__


def test_the_command_is_installed():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="tutelage")
    assert command.value == "tutelage.cli:main"


def test_the_build_backend_is_pinned_alike():
    (backend,) = requirements(PYPROJECT["build-system"]["requires"]).values()
    assert pinned_version(backend) == pinned_version(DEV[backend.name])


def test_a_wheel_holds_the_recipes_the_page_and_the_type_marker():
    files = WheelBuilder(str(REPOSITORY)).recurse_included_files()
    names = {file.distribution_path for file in files}
    recipes = {
        f"tutelage/recipe/presets/{path.name}" for path in PACKAGE.glob("recipe/presets/*.toml")
    }
    assert {
        "tutelage/recipe/presets/digits.toml",
        "tutelage/recipe/presets/cifar10.toml",
    } <= recipes
    page = {"tutelage/report/page.html", "tutelage/report/page.css"}
    page |= {f"tutelage/server/page.{kind}" for kind in ("html", "css", "js")}
    assert recipes | page | {"tutelage/py.typed", "tutelage/__init__.py"} <= names


@pytest.mark.slow
def test_a_machine_that_only_serves_needs_no_framework(write_exported, tmp_path):
    write_exported(tmp_path / "tiny.onnx")
    (wheel,) = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    venv.create(tmp_path / "venv", with_pip=True)
    inside = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [inside / "python", "-m", "pip", "install", "--quiet"]
    pinned = [*install, "-r", REPOSITORY / "requirements-serve.txt"]
    done = subprocess.run(pinned, capture_output=True, text=True)
    if done.returncode and re.search("NewConnectionError|NameResolution", done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    subprocess.run([*install, "--no-deps", wheel], check=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for framework in ("keras", "torch", "sklearn", "optuna", "matplotlib", "onnx"):
        tried = [inside / "python", "-c", f"import {framework}"]
        done = subprocess.run(tried, env=clean, capture_output=True, text=True)
        assert "ModuleNotFoundError" in done.stderr, framework
    (tmp_path / "two.ppm").write_bytes(PICTURE)
    asked = [inside / "tutelage", "predict", tmp_path / "tiny.onnx", tmp_path / "two.ppm"]
    done = subprocess.run(asked, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = [inside / "tutelage", "run", "digits", "--out", tmp_path / "run"]
    done = subprocess.run(run, env=clean, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("is not installed: pip install 'tutelage'")
    line = [inside / "tutelage", "serve", tmp_path / "tiny.onnx", "--port", "0"]
    with subprocess.Popen(
        line, env=clean, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            said = server.stderr.readline()
            address = re.search(r"http://\S+", said)[0]
            with urllib.request.urlopen(f"{address}/health", timeout=20) as answer:
                assert json.load(answer)["status"] == "ok"
            with urllib.request.urlopen(
                urllib.request.Request(
                    f"{address}/predict",
                    data=PICTURE,
                    headers={"Content-Type": "application/octet-stream"},
                ),
                timeout=20,
            ) as answer:
                told = json.load(answer)
        finally:
            server.terminate()
        assert server.wait(20) == 0
    assert told["picture"] == {"width": 2, "height": 1}
    (model,) = told["models"]
    assert sum(one["probability"] for one in model["classes"]) == pytest.approx(1)


def test_every_promised_name_can_be_had():
    for name in tutelage.__all__:
        assert getattr(tutelage, name) is not None
    assert set(tutelage.__all__) <= set(dir(tutelage))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'distil'"):
        tutelage.distil  # noqa: B018
