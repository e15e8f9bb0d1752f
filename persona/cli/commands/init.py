"""`persona init`."""

from __future__ import annotations

import os
from typing import Any, Unpack

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import directories, examples, files
from persona.cli.invocation import Invocation
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.history.options import WorkOptions


@declare(
    "init",
    example="$ persona init mybot --base ./SmolLM2-135M-Instruct\n$ cd mybot\n"
    "$ persona init ../friend --base ../SmolLM2-135M-Instruct --example companion",
)
@click.argument("directory", default=".", metavar="[DIR]", shell_complete=directories)
@click.option(
    "--base",
    metavar="PATH",
    shell_complete=files,
    help="The base model: a model directory, a safetensors file, or ORG/NAME of the Hugging Face hub.",
)
@click.option(
    "--name", metavar="NAME", help="Name of the base in recipe.toml. Default: its directory's name."
)
@click.option(
    "--example",
    metavar="NAME",
    shell_complete=examples,
    help="Begin with an example of patterns and their data in graph/: companion.",
)
@takes(WorkOptions)
def command(
    call: Invocation,
    directory: str,
    base: str | None,
    name: str | None,
    example: str | None,
    **options: Unpack[WorkOptions],
) -> Shown:
    """Make a repository around a base model.

    Stores the base model in chunks, compressed. Copies its config, tokenizer and template files into DIR.
    Makes the first commit on branch main: the base without any vector.

    Without --base, the model in DIR is the base, and its weights stay where they are.
    """
    from persona.repository import Repository

    root = call.path(directory)
    options["progress"] = call.tell
    source = None if base is None else call.model(base)
    signers: Any = {"author": call.author, "committer": call.committer}
    with Repository.init(
        root, base=source, name=name, example=example, user_config=call.user_config, **signers, **options
    ) as repo:
        result = repo.made
    assert result is not None
    where = f"Initialized persona repository in {os.path.realpath(root)}"
    return Shown(result, [where, *render.commit_lines(result)])
