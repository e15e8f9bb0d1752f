"""The command line in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from persona.cli.main import cli

BASE = {"a": [0.5, -1.25, 3.0, 0.0], "b": [1.0, 2.0]}
LISTENING = {"a": [0.75, -1.25, 3.0, 0.0], "b": [1.0, 2.0]}
SUGGESTING = {"a": [0.5, -1.25, 3.5, 0.0], "b": [1.0, 2.5]}
RECIPE = """\
merge_method: ties
base_model: base
models:
  - {model: listening, parameters: {weight: 0.5}}
  - {model: suggesting, parameters: {weight: [{filter: a, value: 1}, {value: 0.25}]}}
parameters: {density: 0.5}
dtype: float32
"""


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
        """The JSON of a command that must succeed; one that takes long tells its progress before that."""
        lines = self.ok("--json", *arguments).splitlines()
        return json.loads("".join(line for line in lines if not line.startswith('{"progress": ')))

    def refused(self, exit_code: int, *arguments: str | Path) -> str:
        """The sentence of a command that must fail with that code, without a traceback."""
        result = self(*arguments)
        assert result.exit_code == exit_code, result.output
        assert result.stderr.startswith("persona: ")
        assert "Traceback" not in result.output
        return result.stderr.removeprefix("persona: ").rstrip("\n")
