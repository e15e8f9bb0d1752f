"""`persona count-objects`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.invocation import Invocation


@declare("count-objects", example="$ persona count-objects")
@click.pass_obj
def command(call: Invocation) -> None:
    """Count objects, packs and bytes.

    Counts the objects and the packs, and the bytes that packs, their indexes and loose objects take on disk.
    """
    with call.repository() as repo:
        count = repo.count_objects()
    objects, packs = render.counted(count.objects, "object"), render.counted(count.packs, "pack")
    lines = [f"{objects}, {packs}, {render.bytes_text(count.bytes)}"]
    if count.leftovers:
        left = render.bytes_text(sum(one.bytes for one in count.leftovers))
        lines.append(
            f"left over by commands that died: {render.counted(len(count.leftovers), 'file')}, {left}"
        )
    call.answer(count, lines)
