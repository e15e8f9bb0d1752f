"""Every command and group of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import click

from persona.cli.command import Command, CommandGroup
from persona.cli.main import cli

CONTEXT = click.Context(cli, info_name="persona")


def groups() -> Iterator[tuple[str, CommandGroup]]:
    """Every command that only has commands of its own."""
    for name in cli.list_commands(CONTEXT):
        found = cli.get_command(CONTEXT, name)
        if isinstance(found, CommandGroup):
            yield name, found


def commands() -> Iterator[tuple[str, Command]]:
    """Every command that does something, by its full name."""
    for name in cli.list_commands(CONTEXT):
        found = cli.get_command(CONTEXT, name)
        if isinstance(found, CommandGroup):
            for inner in found.list_commands(CONTEXT):
                command = found.get_command(CONTEXT, inner)
                assert isinstance(command, Command)
                yield f"{name} {inner}", command
        else:
            assert isinstance(found, Command)
            yield name, found


COMMANDS = dict(commands())
