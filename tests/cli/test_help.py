"""Every command can be learned from its help and from docs/commands.md, and both say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from persona.cli.command import Command, CommandGroup
from persona.cli.main import SECTIONS, cli

from .conftest import CommandLine

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"
CONTEXT = click.Context(cli, info_name="persona")


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
each_command = pytest.mark.parametrize("name", COMMANDS)


@each_command
def test_help_has_a_summary_a_paragraph_and_an_example(name: str, outside: CommandLine) -> None:
    text = outside.ok(*name.split(), "--help")
    summary, _, paragraph = (COMMANDS[name].help or "").partition("\n\n")
    assert summary.endswith(".")
    assert "\n" not in summary
    assert len(paragraph.split()) >= 8
    assert f"$ persona {name}" in text.partition("Example:")[2]


@each_command
def test_every_command_answers_in_json(name: str, outside: CommandLine) -> None:
    assert "--json" in outside.ok(*name.split(), "--help")


@each_command
def test_every_option_has_a_line_of_help(name: str) -> None:
    options = [option for option in COMMANDS[name].params if isinstance(option, click.Option)]
    assert not [option.name for option in options if not option.help]


@each_command
def test_the_page_shows_every_command_and_every_flag(name: str) -> None:
    section = section_of(name.split()[0])
    flags = {
        max(option.opts, key=len)
        for option in COMMANDS[name].params
        if isinstance(option, click.Option) and not option.hidden
    }
    everywhere = {"--json", "--quiet", "--verbose"}
    missing = [flag for flag in flags - everywhere if not re.search(rf"{re.escape(flag)}\b", section)]
    assert f"persona {name}" in section
    assert not missing


def section_of(command: str) -> str:
    """What docs/commands.md says under the heading of a command."""
    text = DOCS.read_text()
    found = re.search(rf"^### `{re.escape(command)}`\n(.*?)(?=^##)", text + "\n##", re.MULTILINE | re.DOTALL)
    assert found, f"docs/commands.md has no section for {command}"
    return found[1]


def test_the_page_has_no_command_that_does_not_exist() -> None:
    headed = re.findall(r"^### `([\w-]+)`$", DOCS.read_text(), re.MULTILINE)
    assert headed == cli.list_commands(CONTEXT)


def test_the_list_of_commands_has_the_summaries_of_the_commands() -> None:
    for section in SECTIONS.values():
        for name, summary in section.items():
            command = cli.get_command(CONTEXT, name)
            assert command is not None
            assert (command.help or "").partition("\n\n")[0] == summary


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(outside: CommandLine) -> None:
    assert "did you mean `persona status`?" in outside.refused(2, "statsu")


def test_no_command_at_all_shows_the_list(outside: CommandLine) -> None:
    assert "checkout  Compute the weights" in outside("--help").stdout
    for words in ([], ["vector"]):
        result = CliRunner().invoke(cli, words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Usage: ")


def test_the_version_is_printed(outside: CommandLine) -> None:
    assert outside.ok("--version").startswith("persona 0.")
