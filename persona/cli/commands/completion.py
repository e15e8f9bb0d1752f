"""`persona completion`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.rendering import Shown


@declare(
    "completion",
    example='$ eval "$(persona completion bash)"                                  # in ~/.bashrc\n'
    '$ eval "$(persona completion zsh)"                                   # in ~/.zshrc\n'
    "$ persona completion fish > ~/.config/fish/completions/persona.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> Shown:
    """Print the script that completes persona's words in a shell.

    After that, the Tab key completes commands, options, branches, tags, vectors, merge rules, settings and
    files. The examples show where each shell finds the script.
    """
    from persona.cli.main import cli
    from persona.cli.shells import script

    text = script(shell, cli)
    return Shown({"shell": shell, "script": text}, text.rstrip("\n"))
