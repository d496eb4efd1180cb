"""Recipe files: reading, overriding, validating, writing."""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import TypeAdapter, ValidationError

from tutelage.errors import RecipeError
from tutelage.recipe import suggestions
from tutelage.recipe.schema import LARGEST_SEED, MOMENTUM, SETTINGS, Recipe

BUNDLED = ("digits", "mnist", "cifar10", "distill")
_RECIPE = TypeAdapter(Recipe)


def load(source: str | os.PathLike[str], overrides: Mapping[str, object] | None = None) -> Recipe:
    """Read and validate a recipe.

    Args:
        source: the name of a bundled recipe or the path of a TOML file.
        overrides: values by dotted key, such as `{"loss.alpha": 0.5}`, that replace the file's. A
            different `loss.name` drops the settings of the file's loss, except alpha; so does an
            optimizer without momentum, and a learning rate schedule without milestones.

    Returns:
        The recipe, named after its file.

    Raises:
        RecipeError: no such recipe, invalid TOML, or invalid values, all named in one line.

    Example:
        >>> load("digits", {"loss.alpha": 0.5}).loss.alpha
        0.5
    """
    origin = f"{source}.toml" if source in BUNDLED else os.fspath(source)
    tree = _parse(_read(source), origin)
    if isinstance(data := tree.get("data"), dict) and "unlabelled" in data:
        data["unlabeled"] = data.pop("unlabelled")  # the key in version 0.1.0
    mistakes: dict[str, str] = {}
    if "name" in tree:
        mistakes["name"] = suggestions.unknown("name", _keys())
    _drop_loss_settings(tree, (overrides or {}).get("loss.name"))
    _drop_schedule_settings(tree, overrides or {})
    for key, value in (overrides or {}).items():
        if not _is_utf8(value):
            mistakes[key] = f"expected text in UTF-8, found {value!r}; rename it"
        elif key in _keys():
            _put(tree, key, value)
        else:
            mistakes[key] = suggestions.unknown(key, _keys())
    try:
        recipe = _RECIPE.validate_python({**tree, "name": Path(origin).stem})
    except ValidationError as error:
        mistakes |= _mistakes(error, tree)
    if mistakes:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        lines = "; ".join(f"{key}: {text}" for key, text in mistakes.items())
        raise RecipeError(f"{origin}: {count}: {lines}")
    return recipe


def parse_setting(text: str) -> tuple[str, object]:
    """Parse a setting of the command line.

    Args:
        text: `section.key=value`. The value is TOML (`0.5`, `true`, `[32, 32]`); other text
            that doesn't begin like a TOML string, list or table is a plain string.

    Returns:
        The dotted key and its value, as in `overrides` of `load`.

    Raises:
        RecipeError: no key, no value, or a value that is not valid TOML.

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
                f"setting {text!r}: expected a TOML value, found {value}; close it"
            ) from None
    return key, value


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to plain nested dicts, as in its TOML file.

    Args:
        recipe: the recipe.

    Returns:
        Sections, keys and values, without the name and None values; tuples become lists.

    Example:
        >>> to_dict(load("digits"))["loss"]
        {'name': 'kd', 'temperature': 2.0, 'alpha': 0.9}
    """
    return _RECIPE.dump_python(recipe, mode="json", exclude={"name"}, exclude_none=True)


def to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML that `load` reads back to an equal recipe.

    Args:
        recipe: the recipe.

    Returns:
        The text of a TOML file with every key, including defaults.

    Example:
        >>> to_toml(load("digits")).splitlines()[0]
        'seed = 0'
    """
    return tomlkit.dumps(to_dict(recipe))


def key(recipe: Recipe) -> str:
    """Hash the content of a recipe; its name is not part of it.

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


def with_seeds(recipe: Recipe, count: int) -> list[Recipe]:
    """Copy a recipe for its own seed and the following ones.

    Args:
        recipe: the recipe.
        count: the number of seeds, at least 1.

    Returns:
        One recipe per seed.

    Raises:
        RecipeError: `count` is below 1, or the last seed would be too large.

    Example:
        >>> [copy.seed for copy in with_seeds(load("digits"), 3)]
        [0, 1, 2]
    """
    most = LARGEST_SEED + 1 - recipe.seed
    if not 1 <= count <= most:
        raise RecipeError(f"seeds: expected 1 to {most} from seed {recipe.seed} on, found {count}")
    return [replace(recipe, seed=recipe.seed + more) for more in range(count)]


def _read(source: str | os.PathLike[str]) -> bytes:
    try:
        if source in BUNDLED:
            return (resources.files("tutelage.recipe") / "presets" / f"{source}.toml").read_bytes()
        return Path(source).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        near = suggestions.nearest(str(source), BUNDLED)
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
    except ValueError as error:  # not UTF-8 or not TOML
        last = content.rstrip().count(b"\n") + 1
        reason = str(error).replace("at end of document", f"at line {last}, the last")
        raise RecipeError(f"{origin}: invalid TOML: {reason}") from error


def _is_utf8(value: object) -> bool:
    """Whether a value's text can be written to files; names of other bytes are surrogates."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
        return True
    except UnicodeEncodeError:
        return False


def _drop_loss_settings(tree: dict[str, Any], name: object) -> None:
    """Drop the settings of the file's loss if an override names a different one."""
    section = tree.get("loss")
    if name is not None and isinstance(section, dict) and section.get("name", "kd") != name:
        for setting in ("weight", "ramp", "warmup", *SETTINGS):
            section.pop(setting, None)


def _drop_schedule_settings(tree: dict[str, Any], overrides: Mapping[str, object]) -> None:
    """Drop the settings of a file's schedule that an override's optimizer or schedule has not."""
    for name in ("teacher", "student"):
        section = tree.get("schedule")
        schedule = section.get(name) if isinstance(section, dict) else None
        if not isinstance(schedule, dict):
            continue
        prefix = f"schedule.{name}."
        if overrides.get(f"{prefix}optimizer", "sgd") not in MOMENTUM:
            schedule.pop("momentum", None)
        if overrides.get(f"{prefix}learning_rate_schedule", "step") != "step":
            for setting in ("milestones", "gamma"):
                schedule.pop(setting, None)


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
        path = list(detail["loc"])
        if detail["type"] != "value_error" and path and isinstance(path[-1], int):
            path.pop()  # name the list, not the index of the value
        dotted = ".".join(str(part) for part in path)
        key = ".".join(part for part in path if isinstance(part, str))
        if detail["type"] == "unexpected_keyword_argument":
            mistakes[dotted] = suggestions.unknown(key, _keys())
        elif detail["type"] == "value_error":
            mistakes[dotted] = str(detail["ctx"]["error"])
        else:
            expected = suggestions.expected(_keys()[key])
            mistakes[dotted] = f"expected {expected}, found {suggestions.value_at(tree, path)}"
    return mistakes


@cache
def _keys() -> dict[str, dict[str, Any]]:
    schema = _RECIPE.json_schema()
    del schema["properties"]["name"]  # the recipe is named after its file
    return suggestions.dotted_keys(schema)
