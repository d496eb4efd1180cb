"""`tutelage cache`: the teacher logits stored on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tutelage.cli.options import Json


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all cached logits.")] = False,
    as_json: Json = False,
) -> None:
    """Show or delete the cached teacher logits on this machine.

    A run computes its teacher's logits once per augmented view and caches them, so runs with
    another alpha or temperature reuse them. Deleted logits are computed again when needed.
    """
    from tutelage.distillation import logit_cache
    from tutelage.formatting import megabytes

    entries = list(logit_cache.stored())
    if clear:
        logit_cache.clear()
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    for entry in entries:
        origin = entry["origin"]
        content = "damaged"
        if origin:
            images, *_, classes = origin["shape"]
            content = (
                f"teacher {origin['teacher'][:8]}, "
                f"{entry['views']} views of {images:,} images, {classes} classes"
            )
        print(f"{entry['folder']}: {content}, {megabytes(entry['bytes'])}")
    total = megabytes(sum(entry["bytes"] for entry in entries))
    print(f"{'deleted' if clear else 'cached'}: {total} in {logit_cache.home()}")
