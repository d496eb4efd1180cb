"""Options shared by several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

# Read from the files, as importing the recipe package would slow down `tutelage --help`.
_PRESETS = Path(__file__).parents[1] / "recipe" / "presets"
_BUNDLED = ", ".join(sorted(file.stem for file in _PRESETS.glob("*.toml")))

Json = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output.")]
DataPath = Annotated[
    str,
    typer.Option(
        "--data",
        help="Data set: digits, mnist, cifar10, or the path of an archive or image folder.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of the run.  [default: runs/RECIPE-HASH, a hash of the recipe]"),
]
Seed = Annotated[int | None, typer.Option(help="Seed for weights, order and augmentation.")]
Seeds = Annotated[
    int,
    typer.Option(
        min=1, help="Number of runs, with consecutive seeds from --seed; they are then compared."
    ),
]
Alpha = Annotated[float | None, typer.Option(help="Weight of the distillation loss, 0 to 1.")]
Temperature = Annotated[
    float | None, typer.Option(help="Temperature of the soft targets, above 0.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Compute threads per process.  [default: one per core]"),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each model.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override any recipe key."),
]
RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help=f"{_BUNDLED}, or the path of a .toml file."),
]
Place = Annotated[str | None, typer.Option(help="Path of the data: an archive or a folder.")]
Labels = Annotated[
    float | None,
    typer.Option(
        metavar="FRACTION",
        help="Fraction of the training labels to use; of the other images, the student learns what "
        "the teacher answers.",
    ),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out images that can't be read, with a note.")
]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RUN|FILE",
        help="Trained teacher: run folder, .keras or .onnx file; repeat for an ensemble.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print recipe, model sizes and estimated time, then exit.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write event files: tensorboard --logdir RUN.")
]


def overrides(settings: Settings, data: Place, teacher: Teachers) -> dict[str, object]:
    """Recipe overrides of these options, by dotted key.

    Args:
        settings: `section.key=value` each.
        data: path of the data.
        teacher: one or more teachers.

    Returns:
        Values, as in `recipe.load`.
    """
    from tutelage import recipe as recipes

    values = dict(recipes.parse_setting(text) for text in settings or [])
    values |= {} if data is None else {"data.path": data}
    values |= {} if not teacher else {"teacher.file": one_or_all(teacher)}
    return values


def one_or_all(teachers: list[str]) -> str | list[str]:
    """A single teacher as a string, more as a list."""
    return teachers[0] if len(teachers) == 1 else teachers


def use_threads(count: int | None) -> None:
    """Set the number of compute threads of this process and those it starts.

    Args:
        count: value of `--threads`; None keeps PyTorch's default.
    """
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)  # for a sweep's workers
    from tutelage.kernels import accelerate

    accelerate.set_threads(count)
