"""Lists over layers on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.history.verbs.complete import known_names
from persona.repository import Repository
from tests.checkpoints import write_model
from tests.cli.command_line import BASE, LISTENING, CommandLine


@pytest.fixture
def layered(tmp_path: Path) -> CommandLine:
    """A command line in a repository whose base has layers, with one vector."""
    for folder, tensors in (("base", BASE), ("listening", LISTENING)):
        layers = {f"model.layers.{layer}.mlp.weight": bits for layer, bits in enumerate(tensors.values())}
        write_model(tmp_path / folder, layers)
    CommandLine(tmp_path).ok("init", "mybot", "--base", "base")
    persona = CommandLine(tmp_path / "mybot")
    persona.ok("commit", "../listening", "-m", "listen", "--alpha", "0.5")
    return persona


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("0,0.5,1", "[0.0, 0.5, 1.0]"),
        ("[0, 0.5, 1]", "[0.0, 0.5, 1.0]"),
        ("-0.5,1", "[-0.5, 1.0]"),
        ("[0.7]", "[0.7]"),
        ("0.7", "0.7"),
    ],
)
def test_numbers_with_commas_are_a_list_over_the_layers(
    layered: CommandLine, typed: str, written: str
) -> None:
    layered.ok("set", "listening", "--alpha", typed)
    assert f"alpha = {written}\n" in (layered.directory / "recipe.toml").read_text()


def test_a_list_is_shown_as_it_was_typed(layered: CommandLine) -> None:
    layered.ok("set", "listening", "--alpha", "[0,5]", "--density", "0.2,1")
    assert "α 0.50 → [0, 5], density unset → [0.2, 1]" in layered.ok("status")
    assert "+alpha = [0, 5]\n" in layered.ok("diff")
    assert "α 0.50 → [0, 5]" in layered.ok("commit", "-m", "louder from layer to layer")
    shown = layered.json("show")
    assert shown["recipe"]["vectors"]["listening"]["alpha"] == [0, 5]
    assert shown["diff"]["vectors"][0]["to"] == {"alpha": [0, 5], "density": [0.2, 1]}
    for line in ("0,a", "0,,1", "[]", "[", ",", "0.1,"):
        assert "--alpha" in layered.refused(4, "set", "listening", "--alpha", line)
    assert "at most 1024" in layered.refused(4, "set", "listening", "--alpha", "1," * 5000 + "1")


@pytest.mark.parametrize("typed", ["0,5", "-1,5", "1,000"])
def test_a_comma_in_a_number_is_refused_with_both_ways_to_write_it(layered: CommandLine, typed: str) -> None:
    for option in ("--alpha", "--density"):
        said = layered.refused(4, "set", "listening", f"{option}={typed}")
        assert f"{option}: not a number: '{typed}'; write a number with a point" in said
        assert f"in brackets: [{typed.replace(',', ', ')}]" in said


def test_completion_shows_a_list_as_it_is_written(layered: CommandLine) -> None:
    layered.ok("set", "listening", "--alpha", "0,0.25,1")
    with Repository.open(layered.directory) as repo:
        assert known_names(repo._history).vectors == {"listening": "[0.0, 0.25, 1.0]"}
