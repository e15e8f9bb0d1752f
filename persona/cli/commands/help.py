"""`persona help`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.completions import commands
from persona.cli.rendering import Shown


@declare("help", pages=True, example="$ persona help commit\n$ persona help vector show")
@click.argument("words", nargs=-1, metavar="[COMMAND]", shell_complete=commands)
def command(words: tuple[str, ...]) -> Shown:
    """Show how a command is used.

    Prints the same text as `persona COMMAND --help`. Without COMMAND, it prints the list of all commands.
    """
    shown = click.get_current_context().find_root()
    for word in words:
        group = shown.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"`{shown.command_path}` has no commands of its own", shown)
        _, found, _ = group.resolve_command(shown, [word])
        assert found is not None
        shown = click.Context(found, info_name=word, parent=shown)
    text = shown.command.get_help(shown)
    return Shown({"command": " ".join(words) or None, "help": text}, text)
