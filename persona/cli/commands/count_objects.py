"""`persona count-objects`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.cli.command import declare

if TYPE_CHECKING:
    from persona.history.store_results import ObjectCount
    from persona.repository import Repository


@declare("count-objects", example="$ persona count-objects")
def command(repo: Repository) -> ObjectCount:
    """Count objects, packs and bytes.

    Counts the objects and the packs, and the bytes that packs, their indexes and loose objects take on disk.
    """
    return repo.count_objects()
