"""`persona init`."""

from __future__ import annotations

import os
from typing import Unpack

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import directories, files
from persona.cli.invocation import Invocation
from persona.cli.options import takes
from persona.history.options import WorkOptions


@declare("init", example="$ persona init mybot --base ./SmolLM2-135M-Instruct\n$ cd mybot")
@click.argument("directory", default=".", metavar="[DIR]", shell_complete=directories)
@click.option(
    "--base",
    metavar="PATH",
    shell_complete=files,
    help="The base model: a model directory or a safetensors file.",
)
@click.option(
    "--name", metavar="NAME", help="Name of the base in recipe.toml. Default: its directory's name."
)
@takes(WorkOptions)
@click.pass_obj
def command(
    call: Invocation, directory: str, base: str | None, name: str | None, **options: Unpack[WorkOptions]
) -> None:
    """Make a repository around a base model.

    Stores the base model in chunks, compressed. Copies its config, tokenizer and template files into DIR.
    Makes the first commit on branch main: the base without any vector.

    Without --base, the model in DIR is the base, and its weights stay where they are.
    """
    from persona.repository import Repository

    root = call.path(directory)
    with call.progress() as progress:
        options["progress"] = progress
        repo = Repository.init(
            root,
            base=None if base is None else call.path(base),
            name=name,
            author=call.author,
            committer=call.committer,
            user_config=call.user_config,
            **options,
        )
        repo.close()
    result = repo.made
    call.remarks(result.notes)
    call.report(
        result, [f"Initialized persona repository in {os.path.realpath(root)}", *render.commit_lines(result)]
    )
