"""`persona add`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.completions import files
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.history.options import ImportOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "add",
    works=True,
    example="$ persona add ../ft/listening --alpha 0.7\n$ persona checkout        # try it first\n"
    '$ persona commit -m "listen before answering"\n'
    "$ persona add README.md notes        # text files: track them from now on",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…", shell_complete=files)
@takes(ImportOptions)
def command(
    call: Invocation, repo: Repository, paths: tuple[str, ...], **options: Unpack[ImportOptions]
) -> Shown:
    """Import a fine-tune and put it into recipe.toml, or track text files.

    PATH is a model directory, a safetensors file, a LoRA adapter or a sparse patch that was trained from the
    base, or ORG/NAME of the Hugging Face hub. persona stores what the training changed, without loss, as a
    vector, and names the vector in recipe.toml. It commits nothing.

    If the recipe already has a vector of that name, the new vector takes over its alpha, density and filter,
    unless you give others. If the old vector came from another path, it is replaced only with -n or
    --replace.

    Text files of the work tree, or directories of them, are tracked from now on: every commit records them.
    """
    result = repo.add(*map(call.model, paths), **options)
    return Shown(result, [*render.commit_lines(result), *diffs.new_file_lines(result.files)])
