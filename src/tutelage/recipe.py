"""A recipe says everything that an experiment is: data, views, models, loss and schedule."""

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomlkit
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from tutelage import wording
from tutelage.errors import RecipeError

BUNDLED = ("digits", "cifar10")

ModelName = Literal["teacher-2m", "student-300k", "digits-teacher", "digits-student"]
MODELS: tuple[str, ...] = get_args(ModelName)
LossName = Literal["kd", "standardized-kd", "dkd", "nkd", "dist"]

Seed = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
Pixels = Annotated[StrictInt, Field(ge=1, le=4096)]
Count = Annotated[StrictInt, Field(ge=1)]
Unit = Annotated[StrictFloat, Field(ge=0, le=1)]
Fraction = Annotated[StrictFloat, Field(ge=0, lt=1)]
Positive = Annotated[StrictFloat, Field(gt=0)]
NonNegative = Annotated[StrictFloat, Field(ge=0)]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """The images: which data set, where it is, and how it is split.

    Args:
        name: the data set; `folder` is any image folder or archive of one.
        path: where it is; empty means the usual places.
        validation: the part of the training images kept for validation, above 0 and below 0.5.
        split_seed: the seed of the split into training and validation.
        size: (height, width) in pixels that images are resized to; None leaves them alone.

    Example:
        >>> Data(name="cifar10", size=(32, 32)).size
        (32, 32)
    """

    name: Literal["digits", "mnist", "cifar10", "folder"]
    path: str = ""
    validation: Annotated[StrictFloat, Field(gt=0, lt=0.5)] = 0.1
    split_seed: Seed = 0
    size: tuple[Pixels, Pixels] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Views:
    """How training images are varied from epoch to epoch.

    Args:
        flip: mirror left-right, alternating each epoch.
        shift: the largest move in each direction, in pixels, 0 to 32.
        distinct: how many views of an image student and baseline see, again and again in turn;
            0 means a new one each epoch, as the teacher always does.

    Example:
        >>> Views(flip=False)
        Views(flip=False, shift=2, distinct=0)
    """

    flip: StrictBool = True
    shift: Annotated[StrictInt, Field(ge=0, le=32)] = 2
    distinct: Annotated[StrictInt, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """A model: its architecture and, for a teacher, where a trained one lies.

    Args:
        model: one of `MODELS`.
        file: a trained `.keras` file or a run folder; empty means train one. Teachers only.

    Example:
        >>> Network(model="digits-teacher").file
        ''
    """

    model: ModelName
    file: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss:
    """What the student minimises: `alpha * distillation_loss + (1 - alpha) * hard_loss`.

    Args:
        name: the distillation loss: `kd`, `standardized-kd`, `dkd`, `nkd` or `dist`.
        alpha: the weight of the distillation loss, 0 to 1.
        temperature: T, above 0.
        beta: of `dkd` the weight of the classes beside the label, of `dist` of the rows; None means
            its authors' choice.
        gamma: of `nkd` the weight of the classes beside the label, of `dist` of the columns; None
            means its authors' choice.

    Source:
        The losses are those of `tutelage.losses`, where their sources are named.

    Example:
        >>> Loss(alpha=1)
        Loss(name='kd', alpha=1.0, temperature=4.0, beta=None, gamma=None)
    """

    name: LossName = "kd"
    alpha: Unit = 0.9
    temperature: Positive = 4.0
    beta: NonNegative | None = None
    gamma: NonNegative | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule:
    """How one model is trained.

    Args:
        epochs: passes over the training part, at least 1.
        batch_size: images per step, at least 1.
        optimizer: `muon` orthogonalises the steps of stochastic gradient descent, `sgd` does not.
        learning_rate: the highest rate, above 0.
        warmup: the part of all steps in which the rate rises, from 0 to below 1.
        momentum: Nesterov's, from 0 to below 1.
        weight_decay: decoupled from the gradient, at least 0.
        label_smoothing: the part of each label spread over all classes, from 0 to below 1.
        dropout: the part of the epochs, from the first on, in which dropout layers drop, 0 to 1.
        cutout: the side of a square that is hidden in each view, in pixels, 0 for none, up to 32.

    Source:
        arXiv 2303.01500, section 5: dropout early in training alone, for models that underfit.
        arXiv 1708.04552: cutout.

    Example:
        >>> Schedule(epochs=10, learning_rate=0.1).batch_size
        128
    """

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["sgd", "muon"] = "sgd"
    learning_rate: Positive
    warmup: Fraction = 0.2
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.005
    label_smoothing: Fraction = 0.0
    dropout: Unit = 1.0
    cutout: Annotated[StrictInt, Field(ge=0, le=32)] = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedules:
    """How the models are trained; the student's schedule is also the baseline's.

    Args:
        teacher: the teacher's schedule.
        student: the student's and the baseline's schedule.
        precision: of the arithmetic in training; `auto` is the one this machine is fastest in.

    Example:
        >>> fast = Schedule(epochs=1, learning_rate=0.1)
        >>> Schedules(teacher=fast, student=fast).precision
        'auto'
    """

    teacher: Schedule
    student: Schedule
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def _untrained(network: Network) -> Network:
    if network.file:
        raise ValueError(f"expected no file, as only the teacher has one, found {network.file!r}")
    return network


def _own_weights(loss: Loss) -> Loss:
    for name, owners in (("beta", ("dkd", "dist")), ("gamma", ("nkd", "dist"))):
        if (value := getattr(loss, name)) is not None and loss.name not in owners:
            raise ValueError(
                f"expected {name} with {' and '.join(owners)} alone, found {name} = {value} with "
                f"{loss.name}"
            )
    return loss


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """Everything that an experiment is.

    Args:
        name: the stem of the file it was read from; no key of the file.
        seed: of initial weights, order and views, 0 to 2**31 - 1.
        data: the images.
        views: how they are varied.
        teacher: the big model.
        student: the small model.
        loss: what the student minimises.
        schedule: how both are trained.

    Example:
        >>> load("digits").student.model
        'digits-student'
    """

    name: str = "recipe"
    seed: Seed = 0
    data: Data
    views: Views
    teacher: Network
    student: Annotated[Network, AfterValidator(_untrained)]
    loss: Annotated[Loss, AfterValidator(_own_weights)]
    schedule: Schedules


_RECIPE = TypeAdapter(Recipe)


def load(source: str | os.PathLike[str], overrides: Mapping[str, object] | None = None) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        source: the name of a bundled recipe or the path of a TOML file.
        overrides: values by dotted key, such as `{"loss.alpha": 0.5}`, put over the file's.

    Returns:
        The recipe, named after its file.

    Raises:
        RecipeError: no such recipe, no valid TOML, or mistakes: all are named in one line.

    Example:
        >>> load("digits", {"loss.alpha": 0.5}).loss.alpha
        0.5
    """
    origin = f"{source}.toml" if source in BUNDLED else os.fspath(source)
    tree = _parse(_read(source), origin)
    mistakes: dict[str, str] = {}
    if "name" in tree:
        mistakes["name"] = wording.unknown("name", _keys())
    for key, value in (overrides or {}).items():
        if key in _keys():
            _put(tree, key, value)
        else:
            mistakes[key] = wording.unknown(key, _keys())
    try:
        recipe = _RECIPE.validate_python({**tree, "name": Path(origin).stem})
    except ValidationError as error:
        mistakes |= _mistakes(error, tree)
    if mistakes:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        told = "; ".join(f"{key}: {text}" for key, text in mistakes.items())
        raise RecipeError(f"{origin}: {count}: {told}")
    return recipe


def parse_setting(text: str) -> tuple[str, object]:
    """Read a setting as it is given on the command line.

    Args:
        text: `section.key=value`. The value is TOML (`0.5`, `true`, `[32, 32]`); what is no
            TOML and doesn't begin like a TOML string, list or table is taken as a plain string.

    Returns:
        The dotted key and its value, as `load` takes them in `overrides`.

    Raises:
        RecipeError: no key, no value, or a value that is no TOML.

    Example:
        >>> parse_setting("loss.alpha=0.5"), parse_setting("data.path=my images.zip")
        (('loss.alpha', 0.5), ('data.path', 'my images.zip'))
    """
    key, _, value = (part.strip() for part in text.partition("="))
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key) or not value or not value.isprintable():
        raise RecipeError(f"setting {text!r}: expected section.key=value, such as loss.alpha=0.5")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        if value[0] in "\"'[{":
            raise RecipeError(
                f"setting {text!r}: expected a TOML value, found {value}; close what it opens"
            ) from None
    return key, value


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Give a recipe as plain nested dicts, as its TOML file holds it.

    Args:
        recipe: the recipe.

    Returns:
        Sections, keys and values; the name and what is None are left out, tuples are lists.

    Example:
        >>> to_dict(load("digits"))["loss"]
        {'name': 'kd', 'alpha': 0.9, 'temperature': 2.0}
    """
    return _RECIPE.dump_python(recipe, mode="json", exclude={"name"}, exclude_none=True)


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `load` reads back to an equal recipe.

    Args:
        recipe: the recipe.

    Returns:
        The text of a TOML file with every key, defaults too.

    Example:
        >>> to_toml(load("digits")).splitlines()[0]
        'seed = 0'
    """
    return tomlkit.dumps(to_dict(recipe))


def key(recipe: Recipe) -> str:
    """Identify what a recipe says, whatever it is called.

    Args:
        recipe: the recipe.

    Returns:
        The SHA-256 of its canonical JSON, 64 hexadecimal digits.

    Example:
        >>> key(load("digits")) == key(load("digits", {"loss.alpha": 0.5}))
        False
    """
    canonical = json.dumps(to_dict(recipe), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(source: str | os.PathLike[str]) -> bytes:
    try:
        if source in BUNDLED:
            return (resources.files("tutelage") / "recipes" / f"{source}.toml").read_bytes()
        return Path(source).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        near = difflib.get_close_matches(str(source), BUNDLED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RecipeError(
            f"no recipe {str(source)!r}: expected {', '.join(BUNDLED)} "
            f"or the path of a .toml file{hint}"
        ) from None
    except OSError as error:
        raise RecipeError(
            f"{source}: expected a file that can be read, found: {error.strerror}"
        ) from error


def _parse(content: bytes, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except ValueError as error:  # no UTF-8 or no TOML
        last = content.rstrip().count(b"\n") + 1
        found = str(error).replace("at end of document", f"at line {last}, the last")
        raise RecipeError(f"{origin}: expected TOML, found a mistake: {found}") from error


def _put(tree: dict[str, Any], dotted: str, value: object) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            return  # the file has no section here; validation will say so
    tree[last] = value


def _mistakes(error: ValidationError, tree: dict[str, Any]) -> dict[str, str]:
    mistakes: dict[str, str] = {}
    for detail in error.errors():
        # A mistake inside a list is told of the whole list, so positions are left out.
        path = [part for part in detail["loc"] if isinstance(part, str)]
        dotted = ".".join(path)
        if detail["type"] == "unexpected_keyword_argument":
            mistakes[dotted] = wording.unknown(dotted, _keys())
        elif detail["type"] == "value_error":
            mistakes[dotted] = str(detail["ctx"]["error"])
        else:
            expected = wording.expected(_keys()[dotted])
            mistakes[dotted] = f"expected {expected}, found {wording.found(tree, path)}"
    return mistakes


@cache
def _keys() -> dict[str, dict[str, Any]]:
    schema = _RECIPE.json_schema()
    del schema["properties"]["name"]  # the file's name says it
    return wording.dotted_keys(schema)
