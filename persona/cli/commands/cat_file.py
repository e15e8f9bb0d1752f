"""`persona cat-file`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.rendering import Shown
from persona.cli.terminal import echo
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare("cat-file", example="$ persona cat-file -p HEAD\n$ persona cat-file -t 3f2a91c0")
@click.argument("id", shell_complete=revisions)
@click.option("-p", "part", flag_value="text", help="Print the object.")
@click.option("-t", "part", flag_value="kind", help="Print its kind.")
@click.option("-s", "part", flag_value="size", help="Print the size of the object's payload in bytes.")
def command(call: Invocation, repo: Repository, id: str, part: str | None) -> Shown:
    """Print one object of the store.

    ID is a revision, or the first digits of an object's id.
    """
    if part is None and not call.json:
        raise UsageError("say what to print: -p for the object, -t for its kind, -s for its size")
    found = repo.cat_file(id)
    text = found.text.decode("utf-8", "replace")
    value = {"id": found.id, "kind": found.kind, "size": found.size, "text": text}
    if part != "text" or call.json:
        return Shown(value, found.kind if part == "kind" else str(found.size))
    if sys.stdout.isatty():
        echo(text, nl=not found.text.endswith(b"\n"))
    else:  # the bytes as they are, for a program
        click.echo(found.text, nl=not found.text.endswith(b"\n"))
    return Shown(value, ())
