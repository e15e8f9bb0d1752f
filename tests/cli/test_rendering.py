"""A command returns a result; one place prints its notes, then JSON or the lines of its type."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from persona.behaviour import states
from persona.behaviour.graph import check
from persona.behaviour.verbs import graph
from persona.cli import rendering
from persona.history import act_results, query_results, results, store_results
from persona.history.verbs import (
    adapters,
    blame,
    blame_weights,
    derive,
    export_mergekit,
    import_mergekit,
    measure,
    patches,
    vectors,
)

from .conftest import CommandLine

COMMANDS = Path(rendering.__file__).parent / "commands"
HISTORY = (adapters, blame, blame_weights, derive, export_mergekit, import_mergekit, measure, patches)
VERBS = (*HISTORY, vectors, graph, check, states)
MODULES = (act_results, query_results, results, store_results, *VERBS)


def test_every_type_that_is_rendered_exists() -> None:
    for name in (*rendering.ACTS, *rendering.ANSWERS):
        assert any(hasattr(module, name) for module in MODULES), name


@pytest.mark.parametrize("file", sorted(COMMANDS.glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_a_command_opens_nothing_and_prints_nothing_itself(file: Path) -> None:
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
    }
    opens = {"call.repository"}  # with or without a repository
    prints = {"cat_file": {"click.echo", "echo"}, "show": {"click.echo"}}  # the bytes of files
    allowed = {"config": opens, "import_": opens, **prints}.get(file.stem, set())
    printing = {"print", "echo", "click.echo", "say", "json.dumps", "call.repository", "Repository.open"}
    assert calls & printing <= allowed


@pytest.mark.parametrize(
    "line",
    [
        "mv listening attentive",
        "rm listening",
        "set listening --alpha 2",
        "restore recipe.toml",
        "branch warm",
        "branch -m trunk",
        "tag v1",
        "switch -c warm",
        "reset HEAD~1",
        "config user.name Ada",
        "config --unset checkout.threads",
        "add ../suggesting",
        "commit --allow-empty -m again",
        "checkout",
        "revert listening",
    ],
)
def test_quiet_leaves_out_what_an_act_would_report(grown: CommandLine, line: str) -> None:
    grown.ok("config", "checkout.threads", "1")
    assert grown.ok("-q", *line.split()) == ""


@pytest.mark.parametrize("line", ["log", "status", "show", "branch", "rev-parse HEAD", "digest", "config -l"])
def test_quiet_leaves_what_was_asked_for(grown: CommandLine, line: str) -> None:
    grown.ok("config", "checkout.threads", "1")
    assert grown.ok("-q", *line.split()) == grown.ok(*line.split()) != ""


def test_notes_are_said_once_and_on_stderr(grown: CommandLine) -> None:
    grown.ok("set", "--merge", "density=0.5")
    found = grown("set", "--merge", "preset=peft")
    assert found.stdout == ""
    assert found.stderr.splitlines() == ["density = 0.5 is kept; the preset has 1"]
    assert json.loads(grown.ok("set", "--merge", "preset=ties", "--json")) == {"set": {"preset": "ties"}}
