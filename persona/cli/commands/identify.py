"""`persona identify`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import files
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.cli.terminal import one_line
from persona.history.options import ComputeOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.identify import Identity, Named
    from persona.repository import Repository


@declare("identify", works=True, example="$ persona identify ../some-model")
@click.argument("path", shell_complete=files)
@takes(ComputeOptions)
def command(call: Invocation, repo: Repository, path: str, **options: Unpack[ComputeOptions]) -> Shown:
    """Say which revision or vector the weights in a directory are.

    PATH is a model directory, a safetensors file or a PEFT adapter. Lists the commits of all branches, tags
    and reflogs whose weights these are, the vectors whose fine-tune they are, and the base. Weights in
    another dtype are compared after rounding. If nothing has these weights, says what is nearest and which
    tensors differ, and exits with 1.
    """
    found = repo.identify(call.model(path), **options)
    return Shown(found, lines(found), 0 if found.found else 1)


def lines(answer: Identity) -> Iterator[str]:
    """What the weights are, or what is nearest to them; then their digest."""
    nearest = answer.nearest
    if answer.found:
        yield from render.listed(list(render.columns([_row(name) for name in answer.found])))
    elif answer.weights is None:
        yield "no vector here is this adapter"
    elif nearest is None:
        yield "no commit, vector or base here has a tensor in common with these weights"
    else:
        kind, id, name, message = _row(nearest.names[0])
        shown = [kind, id, f"({name})" if name else "", message]
        yield "no commit, vector or base here has these weights"
        yield f"nearest: {' '.join(word for word in shown if word)}"
        yield f"{nearest.equal:,} of {render.counted(answer.tensors, 'tensor')} are equal"
        for word, names in (
            ("differs", nearest.differing),
            ("missing here", nearest.missing),
            ("only here", nearest.extra),
        ):
            yield from render.listed([f"{word}: {one_line(name)}" for name in names])
    if answer.dtype is not None:
        rounded = " after rounding" if answer.rounded else ""
        same = f"; the numbers are the same{rounded}" if answer.found else ""
        yield f"the weights are {answer.dtype}{same}"
    if answer.weights is not None:
        yield answer.weights


def _row(named: Named) -> list[str]:
    """The kind, the id, the name, and the message of a commit."""
    words = [one_line(word or "") for word in (named.name, named.message)]
    return [named.kind, render.coloured_id(named.id), *words]
