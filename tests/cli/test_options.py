"""The flags of a command are made from what the library declares, and no command writes one a second time."""

from __future__ import annotations

import click
import pytest

from persona.cli.main import cli
from persona.cli.options import _Flag
from persona.history import options

from .conftest import CommandLine

DECLARED = {
    flag
    for kind in vars(options).values()
    if getattr(kind, "__total__", None) is False
    for option in options.declared(kind).values()
    for flag in option.flags
    if flag.startswith("--") and flag != "--force"  # a word that each command means in its own way
}


@pytest.mark.parametrize("name", ["add", "commit", "checkout", "digest", "set", "init"])
def test_a_flag_that_the_library_declares_is_made_from_it(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    mine = [option for option in command.params if DECLARED & set(option.opts)]
    by_hand = [option.opts for option in mine if not isinstance(option, _Flag)]
    assert mine
    # init's --name is the base's, not a vector's
    assert by_hand == ([["--name"]] if name == "init" else [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("digest --threads 0", "'0' is not a number of threads"),
        ("digest --memory much", "'much' is not a size; write 5GB, 500MB or 2GiB"),
        ("digest --device tpu", "'tpu' is not one of auto, cpu, cuda"),
    ],
)
def test_a_value_that_cannot_be_taken_names_its_flag(grown: CommandLine, line: str, said: str) -> None:
    sentence = grown.refused(2, *line.split())
    assert said in sentence
    assert line.split()[-2] in sentence


def test_one_empty_glob_takes_a_filter_away(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--only", "a")
    assert "only = " in (grown.directory / "recipe.toml").read_text()
    grown.ok("set", "listening", "--only", "")
    assert "only = " not in (grown.directory / "recipe.toml").read_text()
