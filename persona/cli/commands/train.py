"""`persona train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.behaviour.options import TrainOptions
from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import trainables
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.cli.verification import margin_text
from persona.errors import Blank, Call, Note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from persona.behaviour.verbs.train import Trained, WarmStart
    from persona.repository import Repository


@declare(
    "train",
    works=True,
    example="$ persona train listening\n$ persona train listening rushing --steps 120 --lr 3e-5\n"
    "$ persona train voice --onto HEAD",
)
@click.argument("keys", nargs=-1, required=True, metavar="KEY…", shell_complete=trainables)
@takes(TrainOptions)
def command(repo: Repository, keys: tuple[str, ...], **options: Unpack[TrainOptions]) -> Shown:
    """Train patterns of the graph into vectors of recipe.toml.

    KEY is the key of a pattern, as in graph/KEY.md, or KEY#FACET. train trains the base on the pattern's data
    with the settings of its [train], and puts the vector into recipe.toml. It commits nothing. --method to
    --warm-steps replace these settings. If the text, the data, the base and the settings are those of an
    earlier training, it trains nothing.

    If train is interrupted or killed, the same command goes on from the last checkpoint, and gives the same
    vector as a run that was not interrupted.

    --warm starts the optimizer from the demos of the pattern. With `moments`, steps at learning rate 0 fill
    its moments. With `distil`, real steps train the model to answer as it does with the demos in its context.
    If the demos do not move the pattern's probes, train says so and starts without them.
    """
    results = repo.train(*keys, **options)
    return Shown(list(results), list(_lines(results)), act=True, notes=_notes(results))


def _lines(results: tuple[Trained, ...]) -> Iterator[str]:
    for one in results:
        sign = render.change_sign(one.change)
        line = f" {sign} {render.printable(one.name)}  α {render.number(one.alpha)}"
        facts = []
        if one.trained and one.first_loss is not None and one.last_loss is not None:
            steps = f"{render.counted(one.steps, 'step')} in {render.duration(one.seconds)}"
            again = f", from step {one.resumed}" if one.resumed else ""
            facts.append(f"{steps}{again}: loss {one.first_loss:.3f} → {one.last_loss:.3f}")
        if one.stored_bytes is not None:
            facts.append(f"{render.bytes_text(one.stored_bytes)} stored")
        if one.changed_fraction is not None:
            facts.append(f"{render.percent(one.changed_fraction)} of weights changed")
        yield line + ("   " + ", ".join(facts) if facts else "")
        if one.warm is not None and one.warm.steps:
            yield f"   {_warm_start(one.warm)}"
        if one.parts:
            yield f"   {' − '.join(map(render.printable, one.parts))}"


def _warm_start(warm: WarmStart) -> str:
    """How a training started, and what the demos do to the probes."""
    said = f"warm start: {warm.kind}, {render.counted(warm.steps, 'step')}"
    if warm.margin is not None:
        said += f"; with the demos in the context, the margin changes by {margin_text(warm.margin)} nats"
    return said


def _notes(results: tuple[Trained, ...]) -> list[str]:
    """The notes of all results, each once, and what to do next."""
    notes = list(dict.fromkeys(note for one in results for note in one.notes))
    new = [one.name for one in results if one.change != "unchanged"]
    for name in new[:1]:
        measure, record = Call("verify", vector=name), Call("commit", message=Blank("MSG"))
        plural = f"{', '.join(new)} are" if len(new) > 1 else f"{name} is"
        hint = (
            measure,
            " measures it; " if len(new) == 1 else " measures one of them; ",
            record,
            " records the recipe",
        )
        notes.append(Note(f"{plural} in recipe.toml", hint))
    return notes
