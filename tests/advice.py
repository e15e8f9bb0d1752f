"""Printed advice, followed to the letter.

A command is refused and prints a hint. `follow` does as the hint says: it types the commands in backticks, or
repeats the refused command with the flags that the hint names. `tests.families.answers` then tells whether
the model that comes of it is the right one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import click
from click.testing import Result

from persona.cli.main import cli
from tests.cli.command_line import CommandLine

_COMMAND = re.compile(r"`persona ([^`]*)`")
_FLAG = re.compile(r"(?<![\w\-`'])(--?[a-z][a-z-]*)(?:[ =]('[^']*'|\"[^\"]*\"|[^\s;,]+))?")
_BLANK = re.compile(r"[A-Z][A-Z_]+")
_MOST_STEPS = 4
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Advice:
    """What the hints of one command tell its user to type."""

    hint: str
    """The text of the hints, a line each."""
    commands: tuple[tuple[str, ...], ...]
    """The commands in backticks, without `persona`."""
    flags: tuple[tuple[str, ...], ...]
    """The options to add to the same command, each with its value."""

    def filled(self, take: str, fill: Mapping[str, str]) -> Advice:
        """The parts that hold the text `take`, with a word for each blank (`NAME`)."""

        def word(text: str) -> str:
            assert text in fill or not _BLANK.fullmatch(text), f"the test fills no {text}: {self.hint}"
            return fill.get(text, text)

        def chosen(parts: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
            return tuple(tuple(map(word, part)) for part in parts if take in " ".join(part))

        return Advice(self.hint, chosen(self.commands), chosen(self.flags))


def advice(said: str, words: Sequence[str | Path] = ()) -> Advice:
    """The advice in the output of a command of these words."""
    hint = "\n".join(line[6:] for line in said.splitlines() if line.startswith("hint: "))
    commands = tuple(tuple(shlex.split(text)) for text in _COMMAND.findall(hint))
    values = _options(words)
    flags = []
    for name, value in _FLAG.findall(_COMMAND.sub("", hint)):
        if name in values:
            flags.append((name, *shlex.split(value)) if values[name] else (name,))
    return Advice(hint, commands, tuple(flags))


def follow(
    run: CommandLine,
    *words: str | Path,
    code: int = 4,
    take: str = "",
    fill: Mapping[str, str] = NOTHING,
    again: bool = False,
) -> Result:
    """Runs a command that must be refused with exit `code`, then does as it says; the last command's result.

    The advised commands must succeed. The refused command is repeated with the advised flags. If it is
    refused again, for another reason, the new flags are added too. `take`: follow only the parts of the
    advice that hold this text, where a hint offers a choice. `fill`: words for the blanks of the advice,
    {"NAME": "mine"}. `again`: type the refused command again after the advised ones.
    """
    refused = run(*words)
    assert refused.exit_code == code, refused.output
    typed = list(words)
    for _ in range(_MOST_STEPS):
        found = advice(refused.stderr, words).filled(take, fill)
        assert found.commands or found.flags, f"the hint advises nothing to type: {refused.stderr}"
        results = [run(*command) for command in found.commands]
        for result in results:
            assert result.exit_code == 0, result.output
        flags = [word for flag in found.flags for word in flag]
        if not (flags or again):
            return results[-1]
        typed += flags
        refused = run(*typed)
        if refused.exit_code == 0:
            return refused
    raise AssertionError(f"the advice leads nowhere: {refused.stderr}")


def _options(words: Sequence[str | Path]) -> dict[str, bool]:
    """The options of the command that these words call → whether one takes a value."""
    command: click.Command | None = cli
    for word in map(str, words):
        if not isinstance(command, click.Group):
            break
        command = command.get_command(click.Context(cli), word) or command
    assert command is not None
    return {
        name: not (isinstance(option, click.Option) and (option.is_flag or option.count))
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
