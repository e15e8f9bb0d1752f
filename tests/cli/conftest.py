"""Repositories of a few bytes, with a command line in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import write_model
from tests.cli.command_line import BASE, LISTENING, RECIPE, SUGGESTING, CommandLine


@pytest.fixture
def outside(tmp_path: Path) -> CommandLine:
    """A command line where no repository is."""
    return CommandLine(tmp_path)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory with a base, two fine-tunes of it, and a recipe of mergekit."""
    write_model(tmp_path / "base", BASE, **{"chat_template.jinja": "hello\n"})
    write_model(tmp_path / "listening", LISTENING)
    write_model(tmp_path / "suggesting", SUGGESTING)
    (tmp_path / "recipe.yml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def persona(models: Path) -> CommandLine:
    """A command line in a fresh repository of the base."""
    CommandLine(models).ok("init", "mybot", "--base", "base")
    return CommandLine(models / "mybot")


@pytest.fixture
def grown(persona: CommandLine) -> CommandLine:
    """A command line in a repository with three commits: the base, listening, and its alpha lowered."""
    persona.ok("commit", "../listening", "-m", "listen before answering")
    persona.ok("set", "listening", "--alpha", "0.5")
    persona.ok("commit", "-m", "a little less")
    return persona
