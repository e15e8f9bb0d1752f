"""The lines of `rebase --base`, and the commands that a rebase runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from persona.cli import diffs, render
from persona.cli.invocation import ADDED
from persona.cli.rendering import Shown
from persona.cli.terminal import echo

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.rebase_base import BaseMove
    from persona.repository import Repository


def shown(result: BaseMove, repo: Repository) -> Shown:
    """The commit, and how far rounding moved each vector."""
    made = diffs.shown_commit(repo, result.commit)
    lines = [*(made.lines or ()), *_lines(result)]
    if result.commit.failure is None:
        return Shown(result, lines, act=True)
    value = {**made.value, **_own(result)}
    return Shown(value, lines, made.exit_code, act=True, notes=result.notes, fault=made.fault)


def execute(call: Invocation, repo: Repository, command: str) -> int:
    """Runs a command of the list of commits in the root of the work tree; returns its exit code.

    Persona's own answer comes at the end, so that of the command stands before it. With `--json` it goes to
    stderr.
    """
    if not call.json and not call.quiet:
        echo(f"Executing: {command}")
        sys.stdout.flush()
    environment = {name: value for name, value in os.environ.items() if name not in ADDED}
    out = 2 if call.json else None
    return subprocess.run(
        ["sh", "-c", command], cwd=repo.root, env=environment, stdout=out, check=False
    ).returncode


def _own(result: BaseMove) -> dict[str, object]:
    from persona.history.results import as_json

    commit = as_json(result.commit)
    return {key: value for key, value in as_json(result).items() if key not in commit}


def _lines(result: BaseMove) -> Iterator[str]:
    base = render.printable(result.base_name)
    if not result.moved:
        yield f"The recipe is on base {base} now; it has no vectors"
        return
    yield f"The recipe is on base {base} now; largest rounding {_rounding(result.largest_rounding)}"
    if len(result.moved) > 1:
        for vector in result.moved:
            yield f"   {render.printable(vector.name)}: {_rounding(vector.largest_rounding)}"


def _rounding(value: float) -> str:
    return f"{value:.2g}"
