"""`persona generate`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, Unpack

import click

from persona.behaviour.options import AnswerOptions
from persona.cli.command import declare
from persona.cli.completions import revisions, strengths
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.cli.terminal import speak
from persona.errors import InvalidInput, UnknownRevision, UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository

MAX_BYTES = 16 << 20
"""Bytes of a prompt that is read."""


@declare(
    "generate",
    works=True,
    example="$ persona generate 'How do I keep my plants alive?'\n"
    "$ persona generate HEAD~1 'How do I keep my plants alive?' --max-tokens 60\n"
    "$ persona generate --alpha listening=0.4 - < prompt.txt\n"
    "$ persona generate main 'Hello' --temperature 0.8 --seed 7 --json",
)
@click.argument("rev", required=False, shell_complete=revisions)
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="System message. Default: the chat template's own.")
@click.option(
    "--alpha",
    "alphas",
    metavar="NAME=A",
    multiple=True,
    shell_complete=strengths,
    help="Strength of a vector, for this answer only. May be repeated.",
)
@takes(AnswerOptions)
def command(
    call: Invocation,
    repo: Repository,
    rev: str | None,
    prompt: str | None,
    system: str | None,
    alphas: tuple[str, ...],
    **options: Unpack[AnswerOptions],
) -> Shown:
    """Answer one prompt with the weights of a recipe.

    Uses the weights of REV, or of recipe.toml as it stands. Without PROMPT, or with -, the prompt is the
    standard input. A single argument with spaces is the prompt, one without spaces is REV. The answer is
    printed while it is made.
    """
    changed = dict(map(_strength, alphas))
    rev, prompt = _split(repo, rev, prompt)
    text = _read(call) if prompt in (None, "-") else prompt
    said: list[str] = []

    def stream(piece: str) -> None:
        if not said:
            call.settle([], act=False)
        said.append(piece)
        speak(piece)

    try:
        answer = repo.generate(
            str(text), rev, system=system, alpha=changed, stream=None if call.json else stream, **options
        )
    except KeyboardInterrupt:
        if said:
            speak("\n")
        raise
    return Shown(answer, [] if said and said[-1].endswith("\n") else [""])


def _split(repo: Repository, rev: str | None, prompt: str | None) -> tuple[str | None, str | None]:
    """Which of one or two arguments is the revision, and which the prompt."""
    if rev is None or prompt is not None:
        return rev, prompt
    if rev == "-":
        return None, rev
    try:
        repo.resolve(rev)
    except UnknownRevision as error:
        if any(letter.isspace() for letter in rev):
            return None, rev
        raise UnknownRevision(
            error.message,
            hint=f"a prompt of one word comes after a revision: `persona generate HEAD {shlex.quote(rev)}`",
        ) from None
    return rev, None


def _read(call: Invocation) -> str:
    if sys.stdin.isatty():
        call.remark("type the prompt; Ctrl-D ends it")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"the prompt is longer than {MAX_BYTES} bytes")
    text = data.decode("utf-8", "replace").strip("\r\n")
    if not text.strip():
        raise UsageError("the prompt is empty; give one after REV, or on the standard input")
    return text


def _strength(given: str) -> tuple[str, Any]:
    """The name and the α of `--alpha NAME=A`."""
    from persona.history.settings import parse_over_layers

    name, equals, value = given.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--alpha {given!r:.60}: give NAME=A, such as listening=0.4")
    try:
        return name, parse_over_layers(value)
    except ValueError as error:
        raise UsageError(f"--alpha {given!r:.60}: {error}") from None
