"""Recipe files: reading, overriding, validating, writing."""

import copy
import hashlib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import TypeAdapter, ValidationError

from tutelage.errors import RecipeError
from tutelage.recipe import suggestions
from tutelage.recipe.chain import BUNDLED, RecipeFile, merge, read_chain, without_replaced
from tutelage.recipe.schema import Recipe
from tutelage.recipe.values import LARGEST_SEED

__all__ = ["BUNDLED", "flat", "key", "load", "parse_setting", "to_dict", "to_toml", "with_seeds"]

_RECIPE = TypeAdapter(Recipe)


def load(source: str | os.PathLike[str], overrides: Mapping[str, object] | None = None) -> Recipe:
    """Read and validate a recipe.

    Args:
        source: the name of a bundled recipe or the path of a TOML file, which may extend another.
        overrides: values by dotted key, such as `{"loss.alpha": 0.5}`, that replace the file's. A
            different `loss.name` drops the settings of the file's loss, except alpha, a different
            `model` of teacher or student the file's model and its preprocessing, an optimizer
            without momentum the momentum, a learning rate schedule without milestones those.

    Returns:
        The recipe, named after its file.

    Raises:
        RecipeError: no such recipe, invalid TOML, or invalid values, all named in one line with
            the file that contains them.

    Example:
        >>> load("digits", {"loss.alpha": 0.5}).loss.alpha
        0.5
    """
    files = read_chain(source)
    trees = list(itertools.accumulate((file.tree for file in files), merge))
    tree, mistakes = _overridden(trees[-1], overrides or {})
    recipe, invalid = _validated(tree, files[-1])
    if mistakes := mistakes | invalid:
        raise RecipeError(_by_file(mistakes, files, trees))
    assert recipe is not None
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
    """Convert what decides a run's results to plain nested dicts, as in the recipe's TOML file.

    Args:
        recipe: the recipe.

    Returns:
        Sections, keys and values, without the name, `track` and None values; tuples become lists.

    Example:
        >>> to_dict(load("digits"))["loss"]
        {'name': 'kd', 'temperature': 2.0, 'alpha': 0.9}
    """
    return _RECIPE.dump_python(recipe, mode="json", exclude={"name", "track"}, exclude_none=True)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key.

    Args:
        tree: nested dicts, as from `to_dict`.

    Returns:
        The values that are not dicts, in order.

    Example:
        >>> flat({"seed": 0, "loss": {"name": "kd", "alpha": 0.5}})
        {'seed': 0, 'loss.name': 'kd', 'loss.alpha': 0.5}
    """
    settings: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            settings |= {f"{key}.{inner}": setting for inner, setting in flat(value).items()}
        else:
            settings[key] = value
    return settings


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
    tree = _RECIPE.dump_python(recipe, mode="json", exclude={"name"}, exclude_none=True)
    return tomlkit.dumps(tree)


def key(recipe: Recipe) -> str:
    """Hash the content of a recipe; its name and `track` are not part of it.

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


def _overridden(
    tree: dict[str, Any], overrides: Mapping[str, object]
) -> tuple[dict[str, Any], dict[str, str]]:
    """A copy of a recipe's content with overrides, and the mistakes in these."""
    given: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for key, value in overrides.items():
        if not _is_utf8(value):
            mistakes[key] = f"expected text in UTF-8, found {value!r}; rename it"
        elif key == "extends":
            mistakes[key] = "expected in a recipe file only; give the recipe that it names instead"
        elif key not in _keys() and not key.startswith("loss.settings."):
            mistakes[key] = suggestions.unknown(key, _keys())
        else:
            _put(given, key, value)
    tree = copy.deepcopy(without_replaced(tree, given))
    for key, value in overrides.items():
        if key not in mistakes:
            _put(tree, key, value)
    return tree, mistakes


def _validated(tree: dict[str, Any], file: RecipeFile) -> tuple[Recipe | None, dict[str, str]]:
    """The recipe of a file's content, or None, and what is wrong by dotted key."""
    mistakes: dict[str, str] = {}
    if "name" in tree:
        mistakes["name"] = suggestions.unknown("name", _keys())
    try:
        name = Path(file.origin).stem
        return _RECIPE.validate_python({**tree, "name": name}), mistakes
    except ValidationError as error:
        return None, mistakes | _mistakes(error, tree)


def _by_file(mistakes: dict[str, str], files: list[RecipeFile], trees: list[dict[str, Any]]) -> str:
    """All mistakes in one line, each with the first file of a chain that contains it."""
    known = [_validated(*pair)[1] for pair in zip(trees[:-1], files, strict=False)]
    lines: dict[str, list[str]] = {files[-1].origin: []}
    for key, text in mistakes.items():
        # What is missing may be added to any of the files.
        where = [] if text.endswith("found nothing") else [base.get(key) == text for base in known]
        origin = files[where.index(True) if any(where) else -1].origin
        lines.setdefault(origin, []).append(f"{key}: {text}")
    return "; ".join(
        f"{origin}: {len(each)} mistake{'s' if len(each) > 1 else ''}: {'; '.join(each)}"
        for origin, each in lines.items()
        if each
    )


def _is_utf8(value: object) -> bool:
    """Whether a value's text can be written to files; names of other bytes are surrogates."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
        return True
    except UnicodeEncodeError:
        return False


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
            mistakes[dotted] = suggestions.unknown(key, {"extends": {}, **_keys()})
        elif detail["type"] == "value_error":
            mistakes[dotted] = str(detail["ctx"]["error"])
        else:
            expected, found = suggestions.expected(_keys()[key]), suggestions.value_at(tree, path)
            names = suggestions.names(_keys()[key])
            alone = detail["input"] in names  # a name where a list of them is expected
            hint = "" if alone else suggestions.did_you_mean(detail["input"], names)
            mistakes[dotted] = f"expected {expected}, found {found}{hint}"
    return mistakes


@cache
def _keys() -> dict[str, dict[str, Any]]:
    schema = _RECIPE.json_schema()
    del schema["properties"]["name"]  # the recipe is named after its file
    return suggestions.dotted_keys(schema)
