"""What a recipe's mistakes are called: keys, expectations and findings in words."""

from __future__ import annotations

import difflib
from typing import Any

Schema = dict[str, Any]


def dotted_keys(schema: Schema) -> dict[str, Schema]:
    """Give every valid dotted key of a JSON schema, sections too, with its own schema."""
    keys: dict[str, Schema] = {}

    def meant(inner: Schema) -> Schema:
        return schema["$defs"][inner["$ref"].split("/")[-1]] if "$ref" in inner else inner

    def walk(section: Schema, prefix: str) -> None:
        for name, inner in section.get("properties", {}).items():
            inner = meant(inner)
            keys[prefix + name] = inner
            walk(meant(_some(inner).get("items", inner)), f"{prefix}{name}.")

    walk(schema, "")
    return keys


def unknown(dotted: str, keys: dict[str, Schema]) -> str:
    """Say of a key that there is none such, and which valid keys are nearest."""
    # The last name tells most: `alpha` and `views.alpha` should both lead to `loss.alpha`.
    section, _, last = dotted.rpartition(".")
    scores = {
        known: _likeness(dotted, known)
        for known in keys
        if _likeness(last, known.rpartition(".")[2]) > 0.5
    }
    if scores:
        best = max(scores.values())
        near = [known for known, score in scores.items() if score == best]
        return f"unknown key, did you mean {' or '.join(near)}?"
    beside = [known for known in keys if known.rpartition(".")[0] == section]
    top = [known for known in keys if "." not in known]
    return f"unknown key, expected one of {', '.join(beside or top)}"


def found(tree: Any, path: list[str | int]) -> str:
    """Say what stands at a path of nested dicts and lists."""
    for part in path:
        if isinstance(part, str) and part not in tree:
            return "nothing"
        tree = tree[part]
    if isinstance(tree, dict):
        return "a section"
    return str(tree).lower() if isinstance(tree, bool) else " ".join(repr(tree).split())


def expected(schema: Schema) -> str:
    """Say in words what a JSON schema admits."""
    schema = _some(schema)
    if "const" in schema or "enum" in schema:
        names = schema.get("enum") or [schema["const"]]
        return f"one of {', '.join(names)}" if len(names) > 1 else repr(names[0])
    if schema["type"] == "array" and "items" in schema:
        kind = schema["items"]
        few = " of at least one" if schema.get("minItems") else ""
        return "a list of sections" if "$ref" in kind else f"a list{few}, each {expected(kind)}"
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
    """A schema without its "or null", which TOML can't say."""
    return schema["anyOf"][0] if "anyOf" in schema else schema


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
