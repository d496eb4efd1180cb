"""`tutelage cache`: what is cached on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tutelage.cli.options import Json


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of it.")] = False,
    as_json: Json = False,
) -> None:
    """Show or delete what is cached on this machine.

    Decoded images, teacher logits, compiled kernels and downloaded data sets are kept for later
    runs, and made again when needed. The least recently used images and logits are deleted when
    they exceed TUTELAGE_CACHE_LIMIT (20GB), except those of the last day.
    """
    from tutelage import storage
    from tutelage.distillation import logit_cache
    from tutelage.formatting import megabytes

    entries = storage.cached()
    logits = {entry["folder"]: entry for entry in logit_cache.stored()}
    if clear:
        storage.delete(entries)
    if as_json:
        details = ("origin", "views", "parts")
        rows = [
            asdict(entry)
            | {"path": str(entry.path)}
            | {key: logits[str(entry.path)][key] for key in details if str(entry.path) in logits}
            for entry in entries
        ]
        print(json.dumps(rows, indent=1))
        return
    for entry in entries:
        content = _content(logits.get(str(entry.path)))
        print(f"{entry.kind}: {entry.path.name}{content}, {megabytes(entry.bytes)}")
    total = sum(entry.bytes for entry in entries)
    verb = "deleted" if clear else "cached"
    print(f"{verb}: {len(entries)} entries, {megabytes(total)} in {storage.cache_folder()}")
    print(f"limit of images and logits: {megabytes(storage.cache_limit())}")


def _content(logits: dict[str, Any] | None) -> str:
    """What an entry of teacher logits contains."""
    if logits is None:
        return ""
    if not logits["origin"]:
        return ": damaged"
    origin, parts = logits["origin"], logits["parts"]
    images, *_, classes = origin["shape"]
    kept = f"the {origin['kept']:,} largest of " if "kept" in origin else ""
    return (
        f": teacher {origin['teacher'][:8]}, {logits['views']} views of {images:,} images"
        f"{f' ({parts} more in part)' if parts else ''}, {kept}{classes} classes"
    )
