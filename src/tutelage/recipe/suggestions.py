"""Wording of recipe errors: the closest key or name, the expected and the actual value."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

from tutelage.errors import RecipeError

Schema = dict[str, Any]


def dotted_keys(schema: Schema) -> dict[str, Schema]:
    """Map every valid dotted key of a JSON schema, including sections, to its own schema."""
    keys: dict[str, Schema] = {}

    def resolve(inner: Schema) -> Schema:
        return schema["$defs"][inner["$ref"].split("/")[-1]] if "$ref" in inner else inner

    def walk(section: Schema, prefix: str) -> None:
        for name, inner in section.get("properties", {}).items():
            inner = resolve(inner)
            keys[prefix + name] = inner
            walk(resolve(_some(inner).get("items", inner)), f"{prefix}{name}.")

    walk(schema, "")
    return keys


def unknown(dotted: str, keys: dict[str, Schema]) -> str:
    """Describe an unknown key with the closest keys, or else the valid ones.

    Misspellings are matched in the key's own section, misplaced keys by their exact name in
    the other sections.
    """
    parts = dotted.split(".")
    depth = next(i for i in range(len(parts)) if ".".join(parts[: i + 1]) not in keys)
    section, rest = parts[:depth], parts[depth + 1 :]
    names = [key.rpartition(".")[2] for key in _inside(section, keys)]
    meant = [".".join([*section, name]) for name in nearest(parts[depth], names)]
    if rest:
        meant = [full for key in meant if (full := ".".join([key, *rest])) in keys] or meant
    else:
        meant = meant or _elsewhere(parts, keys)
    if meant:
        return f"unknown key, did you mean {' or '.join(meant)}?"
    while not (valid := _inside(section, keys)):
        section.pop()
    return f"unknown key, expected one of {', '.join(valid)}"


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known words that a word may be a misspelling or an abbreviation of.

    One edit is allowed in a word of up to 7 letters, one more for every 4 additional letters.
    """
    distances = {
        other: 1 if len(word) > 2 and other.startswith(word) else _distance(word, other)
        for other in known
    }
    allowed = {other: max(1, len(other) // 4) for other in distances}
    least = min(distances.values(), default=0)
    return [other for other, n in distances.items() if n == least <= allowed[other]]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean NAME?` for the names that a word may be a misspelling of, else ""."""
    near = nearest(word, known) if isinstance(word, str) else []
    return f"; did you mean {' or '.join(near)}?" if near else ""


def matching(pattern: str, known: Iterable[str], noun: str) -> list[str]:
    """The names that match a pattern with the wildcards `*`, `?` and `[...]`.

    Args:
        pattern: the pattern.
        known: the names.
        noun: what they are names of, for the message.

    Returns:
        The names, in order.

    Raises:
        RecipeError: no name matches.

    Example:

    >>> from tutelage.recipe import suggestions
    >>> suggestions.matching("*kd", ["kd", "dkd", "rkd", "dist"], "loss")
    ['kd', 'dkd', 'rkd']
    """
    names = list(known)
    if found := [name for name in names if fnmatch.fnmatchcase(name, pattern)]:
        return found
    raise RecipeError(
        f"no {noun} {pattern!r}: expected one of {', '.join(names)}, or a pattern such as "
        f"{names[0][:3]}*{did_you_mean(pattern, names)}"
    )


def _inside(section: list[str], keys: dict[str, Schema]) -> list[str]:
    """The dotted keys directly inside a section; an empty path is the top level."""
    return [key for key in keys if key.split(".")[:-1] == section]


def _elsewhere(parts: list[str], keys: dict[str, Schema]) -> list[str]:
    """Keys of the same name in other sections: those with the most path parts in common."""
    paths = [path for key in keys if (path := key.split("."))[-1] == parts[-1]]
    scores = [(len(set(parts) & set(path)), -len(path)) for path in paths]
    return [
        ".".join(path) for path, score in zip(paths, scores, strict=True) if score == max(scores)
    ]


def _distance(first: str, second: str) -> int:
    """Edit distance of two words: insert, delete, replace, or swap adjacent letters."""
    before, row = [0] * len(second), list(range(len(second) + 1))
    for i, letter in enumerate(first):
        older, before, row = before, row, [i + 1]
        for j, other in enumerate(second):
            cost = min(before[j + 1] + 1, row[j] + 1, before[j] + (letter != other))
            if i and j and letter == second[j - 1] and other == first[i - 1]:
                cost = min(cost, older[j - 1] + 1)
            row.append(cost)
    return row[-1]


def value_at(tree: Any, path: list[str | int]) -> str:
    """Describe the value at a path of nested dicts and lists."""
    for part in path:
        if isinstance(part, str) and part not in tree:
            return "nothing"
        tree = tree[part]
    if isinstance(tree, dict):
        return "a section"
    return str(tree).lower() if isinstance(tree, bool) else " ".join(repr(tree).split())


def names(schema: Schema) -> list[str]:
    """The names that a JSON schema allows, or the items of its list; none if it allows others."""
    schema = _some(schema)
    schema = schema.get("items", schema)
    return schema.get("enum") or ([schema["const"]] if "const" in schema else [])


def expected(schema: Schema) -> str:
    """Describe the values that a JSON schema allows."""
    schema = _some(schema)
    if "items" in schema:
        kind = schema["items"]
        few = " of at least one" if schema.get("minItems") else ""
        return "a list of sections" if "$ref" in kind else f"a list{few}, each {expected(kind)}"
    if choices := names(schema):
        return f"one of {', '.join(choices)}" if len(choices) > 1 else repr(choices[0])
    if schema["type"] == "array":
        items = schema["prefixItems"]
        return f"a list of {len(items)}, each {expected(items[0])}"
    kinds = {
        "object": "a section",
        "string": "a string",
        "boolean": "true or false",
        "integer": "an integer",
        "number": "a number",
    }
    kind = kinds[schema["type"]]
    if "maximum" in schema:
        return f"{kind} from {schema['minimum']} to {schema['maximum']}"
    if schema["type"] == "number" and "exclusiveMaximum" not in schema:
        kind = "a finite number"
    words = {"minimum": "of at least", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[bound]}" for bound, word in words.items() if bound in schema]
    return f"{kind} {' and '.join(bounds)}" if bounds else kind


def _some(schema: Schema) -> Schema:
    """Strip "or null" from a schema; TOML has no null."""
    return schema["anyOf"][0] if "anyOf" in schema else schema
