"""A command line in this process, and a repository of a few bytes to use it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from persona.cli.main import cli
from tests.checkpoints import write_model

BASE = {"a": [0.5, -1.25, 3.0, 0.0], "b": [1.0, 2.0]}
LISTENING = {"a": [0.75, -1.25, 3.0, 0.0], "b": [1.0, 2.0]}
SUGGESTING = {"a": [0.5, -1.25, 3.5, 0.0], "b": [1.0, 2.5]}


@dataclass
class CommandLine:
    """Runs commands in a directory."""

    directory: Path

    def __call__(self, *arguments: str | Path, typed: str | bytes | None = None) -> Result:
        """One command, whatever it exits with."""
        words = ["-C", str(self.directory), *map(str, arguments)]
        return CliRunner().invoke(cli, words, input=typed, prog_name="persona")

    def ok(self, *arguments: str | Path) -> str:
        """The output of a command that must succeed."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str | Path) -> Any:
        """The JSON of a command that must succeed."""
        return json.loads(self.ok("--json", *arguments))

    def refused(self, exit_code: int, *arguments: str | Path) -> str:
        """The sentence of a command that must fail with that code, without a traceback."""
        result = self(*arguments)
        assert result.exit_code == exit_code, result.output
        assert result.stderr.startswith("persona: ")
        assert "Traceback" not in result.output
        return result.stderr.removeprefix("persona: ").rstrip("\n")


@pytest.fixture
def outside(tmp_path: Path) -> CommandLine:
    """A command line where no repository is."""
    return CommandLine(tmp_path)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory with a base and two fine-tunes of it."""
    write_model(tmp_path / "base", BASE, **{"chat_template.jinja": "hello\n"})
    write_model(tmp_path / "listening", LISTENING)
    write_model(tmp_path / "suggesting", SUGGESTING)
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
