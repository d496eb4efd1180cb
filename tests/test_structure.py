"""The structure of the source: imports, length of files, docstrings."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "tutelage"

# What needs no framework loads none, so that help, mistakes and finished runs answer at once.
WITHOUT_FRAMEWORK = [
    "cli",
    "cli.console",
    "data.archives",
    "data.augmentation",
    "data.cifar10",
    "data.content",
    "data.datasets",
    "data.finding",
    "data.formats",
    "data.image_cache",
    "data.image_file",
    "data.image_folder",
    "data.splitting",
    "data.summary",
    "data.unlabeled",
    "distillation.logit_cache",
    "environment",
    "errors",
    "evaluation.metrics",
    "experiment.template",
    "evaluation.statistics",
    "formatting",
    "models.architectures",
    "models.onnx_model",
    "recipe",
    "report.html",
    "runs.compare",
    "runs.example_images",
    "runs.findings",
    "runs.run_folder",
    "runs.run_reader",
    "server",
    "storage",
    "sweeps.search_space",
    "sweeps.trial_queue",
]

SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_an_import_that_points_up_is_found(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "tutelage")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    before = check()
    assert before.returncode == 0, before.stdout
    with (tmp_path / "tutelage" / "data" / "archives.py").open("a") as file:
        file.write("\nfrom tutelage.models import zoo\n")
    after = check()
    assert after.returncode == 1
    assert "tutelage.data.archives -> tutelage.models.zoo" in after.stdout


def test_modules_without_a_framework_load_none():
    imports = "\n".join(f"import tutelage.{module}" for module in WITHOUT_FRAMEWORK)
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
