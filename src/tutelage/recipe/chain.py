"""A recipe file and those it extends, merged into one."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tutelage.errors import RecipeError
from tutelage.recipe import suggestions
from tutelage.recipe.loss import SETTINGS
from tutelage.recipe.schedule import MOMENTUM

BUNDLED = ("digits", "mnist", "cifar10", "distill")
# Keys of the base's section that don't apply to another loss, or to another model.
_OF_LOSS = ("weight", "ramp", "warmup", "settings", *SETTINGS)
_OF_MODEL = ("file", "combine", "size", "scale", "mean", "std")


@dataclass(frozen=True)
class RecipeFile:
    """One file of a chain.

    Attributes:
        origin: its name for messages.
        tree: its content, without `extends`.
    """

    origin: str
    tree: dict[str, Any]


def read_chain(source: str | os.PathLike[str]) -> list[RecipeFile]:
    """Read a recipe file and those it extends.

    Args:
        source: the name of a bundled recipe or the path of a TOML file.

    Returns:
        The files, those extended first, `source` last.

    Raises:
        RecipeError: a file can't be found, read or parsed, `extends` is no name or path, or a file
            extends itself, directly or through others.

    Example:

    >>> import pathlib, tempfile
    >>> from tutelage.recipe import chain
    >>> mine = pathlib.Path(tempfile.mkdtemp()) / "mine.toml"
    >>> _ = mine.write_text('extends = "digits"')
    >>> [pathlib.Path(file.origin).name for file in chain.read_chain(mine)]
    ['digits.toml', 'mine.toml']
    """
    files: list[RecipeFile] = []
    identities: list[str | Path] = []  # several paths may lead to one file
    target, where = source, ""  # where it is named: in the file that extends it
    while True:
        bundled = target in BUNDLED
        identities.append(str(target) if bundled else Path(target).resolve())
        first = identities.index(identities[-1])
        if first < len(files):
            cycle = " -> ".join(file.origin for file in (*files[first:], files[first]))
            raise RecipeError(f"{where}expected no cycle, found {cycle}; remove one of them")
        origin = f"{target}.toml" if bundled else os.fspath(target)
        try:
            tree = _parse(_read(target), origin)
        except RecipeError as error:
            raise RecipeError(f"{where}{error}") from error.__cause__
        base = tree.pop("extends", None)
        files.append(RecipeFile(origin, tree))
        if base is None:
            return files[::-1]
        where = f"{origin}: extends: "
        if not isinstance(base, str) or not base or "\0" in base:
            raise RecipeError(
                f"{where}expected the name of a bundled recipe or the path of a .toml file, found "
                f"{base!r}"
            )
        target = base if base in BUNDLED else Path(origin).parent / Path(base).expanduser()


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the content of a recipe file into that of the one it extends.

    Args:
        base: the content of the extended recipe.
        own: what differs: tables are merged key by key, other values replace the base's.

    Returns:
        The merged content, without the base's settings of another loss or model.

    Example:

    >>> from tutelage.recipe import chain
    >>> kd = {"loss": {"name": "kd", "temperature": 2.0, "alpha": 0.9}}
    >>> chain.merge(kd, {"loss": {"alpha": 0.5}})
    {'loss': {'name': 'kd', 'temperature': 2.0, 'alpha': 0.5}}
    >>> chain.merge(kd, {"loss": {"name": "dkd"}})
    {'loss': {'name': 'dkd', 'alpha': 0.9}}
    """
    base = without_replaced(base, own)
    for role in ("teacher", "student"):
        if _text(own, role, "file"):
            base = _without(base, role, ("model",))
    return _merged(base, own)


def without_replaced(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Drop from a recipe what doesn't apply to another loss or model.

    Args:
        base: the content of the recipe.
        own: what replaces it. A different `loss.name` drops the settings of the base's loss except
            alpha; a different `model` of teacher or student the base's file and preprocessing; an
            optimizer without momentum the base's momentum; a learning rate schedule other than
            `step` the base's milestones.

    Returns:
        A copy without these keys.
    """
    base = dict(base)
    name = _text(own, "loss", "name")
    if name and name != (_text(base, "loss", "name") or "kd"):
        base = _without(base, "loss", _OF_LOSS)
    for role in ("teacher", "student"):
        model, file = _text(own, role, "model"), _text(own, role, "file")
        same = model == _text(base, role, "model") and not _text(base, role, "file")
        if model and not file and not same:
            base = _without(base, role, _OF_MODEL)
        schedules = base.get("schedule")
        if isinstance(schedules, Mapping):
            dropped = _not_of_schedule(own.get("schedule"), role)
            base["schedule"] = _without(schedules, role, dropped)
    return base


def _not_of_schedule(own: Any, role: str) -> tuple[str, ...]:
    """The keys of a base's schedule that don't apply to another optimizer and other rates."""
    if not isinstance(own, Mapping):
        return ()
    dropped: tuple[str, ...] = ()
    if (_text(own, role, "optimizer") or "sgd") not in MOMENTUM:
        dropped += ("momentum",)
    if (_text(own, role, "learning_rate_schedule") or "step") != "step":
        dropped += ("milestones", "gamma")
    return dropped


def _text(tree: Mapping[str, Any], section: str, key: str) -> Any:
    """A value of a section; None where there is none."""
    inner = tree.get(section)
    return inner.get(key) if isinstance(inner, Mapping) else None


def _without(tree: Mapping[str, Any], section: str, keys: tuple[str, ...]) -> dict[str, Any]:
    inner = tree.get(section)
    if not isinstance(inner, Mapping):
        return dict(tree)
    return {**tree, section: {key: value for key, value in inner.items() if key not in keys}}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    both = {**base, **own}
    for key in base.keys() & own.keys():
        if isinstance(base[key], Mapping) and isinstance(own[key], Mapping):
            both[key] = _merged(base[key], own[key])
    return both


def _read(source: str | os.PathLike[str]) -> bytes:
    try:
        if source in BUNDLED:
            return (resources.files("tutelage.recipe") / "presets" / f"{source}.toml").read_bytes()
        return Path(source).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        hint = suggestions.did_you_mean(Path(source).name, BUNDLED)
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
        tree = tomllib.loads(content.decode())
    except ValueError as error:  # not UTF-8 or not TOML
        last = content.rstrip().count(b"\n") + 1
        reason = str(error).replace("at end of document", f"at line {last}, the last")
        raise RecipeError(f"{origin}: invalid TOML: {reason}") from error
    if isinstance(data := tree.get("data"), dict) and "unlabelled" in data:
        data["unlabeled"] = data.pop("unlabelled")  # the key in version 0.1.0
    return tree
