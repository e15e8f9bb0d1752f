"""Results of `bisect` as text, and the program that `bisect run` starts."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persona.cli import diffs, render
from persona.cli.invocation import ADDED
from persona.cli.rendering import Shown
from persona.cli.terminal import echo
from persona.errors import Inconclusive, PersonaError, Refused
from persona.history.results import Head, as_json

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.bisecting.results import Bisection
    from persona.repository import Repository

_PATIENCE = 1.0
"""Seconds that an interrupted program has to end before it gets the interrupt from persona as well."""


def terms_in(directory: Path) -> tuple[str, ...]:
    """The terms of the bisect that is under way in a repository; none if there is none."""
    from persona.repository import Repository

    try:
        with Repository.open(directory) as repo:
            status = repo.bisect.status()
    except PersonaError:
        return ()
    return () if status.state == "none" else status.terms


# -- what is said --------------------------------------------------------------------------------------------


def shown(result: Bisection, call: Invocation, repo: Repository) -> Shown:
    """A bisect after a command: the commit to test, or the answer, which `-q` prints too."""
    if result.state == "found" and result.commit is not None:
        entry, diff = repo.show(result.commit)
        lines = [first_line(result), *render.entry_lines(entry, False), "", *diffs.diff_lines(diff)]
        return Shown(as_json(result) | {"diff": as_json(diff)}, lines)
    value = as_json(result) | {"diff": None}
    if result.state == "undecided":
        return Shown(value, _undecided(result, repo), Inconclusive.exit_code)
    return Shown(value, _acted(result, call, repo), act=True)


def _acted(result: Bisection, call: Invocation, repo: Repository) -> Iterator[str]:
    """What a command of bisect has done."""
    path = call.seen_from_here(repo)
    yield from render.carried_lines(result.carried, path)
    yield from step_lines(result)
    if result.weights is not None and result.weights.state not in ("clean", "absent"):
        yield from render.weights_lines(result.weights, path("."))


def step_lines(result: Bisection) -> Iterator[str]:
    """`Bisecting: 3 revisions left to test after this (roughly 2 steps)`, and the commit; as git says it."""
    if result.state == "waiting":
        from persona.history.verbs.bisect import waiting_for

        yield f"status: {waiting_for(result)}"
    elif result.state == "testing":
        assert result.commit is not None
        if result.merge_base:
            yield "Bisecting: a merge base must be tested"
        else:
            left, steps = render.counted(result.left, "revision"), render.counted(result.steps, "step")
            yield f"Bisecting: {left} left to test after this (roughly {steps})"
        yield f"[{render.coloured_id(result.commit)}] {render.printable(result.subject or '')}"


def first_line(result: Bisection) -> str:
    """The answer, with the whole id."""
    return f"{result.commit} is the first {result.terms[0]} commit"


def _undecided(result: Bisection, repo: Repository) -> Iterator[str]:
    yield "There are only skipped commits left to test."
    yield f"The first {result.terms[0]} commit could be any of:"
    yield from _listed(result, repo)
    yield "bisect cannot go on."


def _listed(result: Bisection, repo: Repository) -> Iterator[str]:
    """The commits that are left, newest first."""
    marks = dict.fromkeys(result.skipped, "skip")
    if result.bad is not None:
        marks[result.bad] = result.terms[0]
    for id in result.candidates:
        mark = f"  ({marks[id]})" if id in marks else ""
        yield f"  {render.coloured_id(id)} {render.printable(repo[id].subject)}{mark}"


def status_lines(result: Bisection, repo: Repository) -> Iterator[str]:
    """What is left of a bisect."""
    if result.state == "none":
        yield "no bisect is under way"
        yield '  (use "persona bisect start BAD GOOD" to begin one)'
        return
    bad, good = result.terms
    if result.state == "found":
        assert result.commit is not None
        yield first_line(result)
        yield f"[{render.coloured_id(result.commit)}] {render.printable(result.subject or '')}"
    elif result.state == "undecided":
        yield from _undecided(result, repo)
    else:
        yield from step_lines(result)
    if result.state == "testing":
        if result.head is not None and (result.head.id != result.commit or result.head.branch is not None):
            yield '  (HEAD is somewhere else; use "persona bisect next" to go to this commit)'
        else:
            yield f'  (test it, then say "persona bisect {good}" or "persona bisect {bad}")'
        yield f"Commits of which one is the first {bad} one:"
        yield from render.listed(list(_listed(result, repo)))
    if result.begin is not None:
        back = result.begin.branch or render.short(result.begin.id or "")
        yield f'(use "persona bisect reset" to go back to {back})'


def reset_lines(
    result: Bisection, before: Head, subject: str | None, call: Invocation, repo: Repository
) -> Iterator[str]:
    """Where HEAD is after the end of a bisect."""
    assert result.head is not None
    if result.begin is None and result.weights is None:
        yield "no bisect is under way"
        return
    path = call.seen_from_here(repo)
    yield from render.carried_lines(result.carried, path)
    yield from render.moved_lines(result.head, subject, before=before)
    if result.weights is not None and result.weights.state not in ("clean", "absent"):
        yield from render.weights_lines(result.weights, path("."))


# -- the program that is run ---------------------------------------------------------------------------------


class Program:
    """The command of `bisect run`: called with a step, it runs, and its exit code is the answer."""

    def __init__(self, command: Sequence[str], call: Invocation, repo: Repository) -> None:
        self._command = list(command)
        self._call = call
        self._root = repo.root

    def __call__(self, step: Bisection) -> int:
        """Runs the command in the root of the work tree; returns its exit code, negative for a signal."""
        if not self._call.json and not self._call.quiet:
            where = step_lines(step)
            if step.commit in step.good:
                where = iter([f"Does the command run on {render.short(step.commit)}, which is good?"])
            echo("\n".join([*where, f"running {shlex.join(self._command)}"]))
            sys.stdout.flush()
        environment = {name: value for name, value in os.environ.items() if name not in ADDED}
        try:
            program = subprocess.Popen(
                self._command,
                cwd=self._root,
                env=environment,
                stdout=2 if self._call.json else None,  # the answer has stdout for itself
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise Refused(
                f"{self._command[0]!r:.100} cannot be run: {why}; nothing was recorded for"
                f" {render.short(step.commit or '')}"
            ) from None
        try:
            return program.wait()
        except KeyboardInterrupt as error:
            _stop(program)
            error.add_note("the same `persona bisect run` goes on with this commit")
            raise


def _stop(program: subprocess.Popen[bytes]) -> None:
    """Waits for an interrupted program. On a terminal, it got the interrupt too."""
    try:
        try:
            program.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGINT)
            program.wait()
    except KeyboardInterrupt:  # a second one
        program.terminate()
        program.wait()
