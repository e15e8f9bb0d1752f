"""`persona vector`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import render
from persona.cli.command import Command, CommandGroup, declare
from persona.cli.completions import all_vectors, kept_vectors, revisions, vectors
from persona.cli.options import adapter_place, plot_option, plot_path, takes
from persona.cli.rendering import Shown
from persona.history.options import AdapterOptions, TermOptions, WorkOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.act_results import Removed
    from persona.history.verbs.adapters import AdapterResult
    from persona.history.verbs.derive import Derived
    from persona.history.verbs.measure import VectorStatistics
    from persona.history.verbs.vectors import Taken
    from persona.repository import Repository


class Derive(Command):
    """`vector derive`, whose expression may begin with a minus sign."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click's, but a word such as `-calm` belongs to the expression unless it is a flag."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        flags = {spelling: option for option in options for spelling in option.opts}
        words: list[str] = []
        value = False
        for word in args:
            is_word = not value and re.match("-[^-]", word) and word not in flags
            words.append(f" {word}" if is_word else word)  # click takes a word that begins with - as a flag
            value = not value and word in flags and not flags[word].is_flag
        return super().parse_args(ctx, words)


def _typed(word: str) -> str:
    """A word of `Derive` without the space that keeps it from being a flag."""
    return word[1:] if word.startswith(" -") else word


@click.group("vector", cls=CommandGroup, example="$ persona vector ls\n$ persona vector show listening")
def command() -> None:
    """List, show, take over, derive, extract and forget vectors.

    A vector is the change that one training run made to its base, stored without loss.
    """


@declare("ls", group=command, example="$ persona vector ls --json\n$ persona vector ls --all", pages=True)
@click.option("-a", "--all", is_flag=True, help="Also list the vectors of all branches, and of the past.")
def ls(repo: Repository, all: bool) -> Shown:
    """List the vectors.

    Lists the vectors of recipe.toml first, marked with a star, in canonical order. Vectors that the recipe
    does not name come after them. --all adds the vectors of every commit that a branch or a tag leads to, and
    shows the newest commit that has each.
    """
    vectors = repo.vectors.all() if all else list(repo.vectors.values())
    return Shown(vectors, render.vector_table(vectors))


@declare(
    "take",
    group=command,
    example="$ persona vector take calm --from topic\n$ persona commit -m 'calm, as on topic'",
)
@click.argument("name", shell_complete=all_vectors)
@click.option("--from", "from_", metavar="REV", shell_complete=revisions, help="Take it from REV.")
@takes(TermOptions)
def take(repo: Repository, name: str, from_: str | None, **options: Unpack[TermOptions]) -> Taken:
    """Take over a vector of another commit.

    Puts the vector NAME into recipe.toml as it is in the recipe of REV: with its alpha, density, filter and
    join. Without --from, take searches all branches and tags, and the newest commit with NAME wins. NAME may
    also be the first digits of a vector's id.

    take commits nothing. With --from, a vector that recipe.toml has under this name becomes that of REV.
    """
    return repo.vectors.take(name, from_=from_, **options)


@declare(
    "show",
    group=command,
    works=True,
    example="$ persona vector show listening\n$ persona vector show listening --plot listening.svg",
)
@click.argument("name", shell_complete=all_vectors)
@plot_option
@takes(WorkOptions)
def show(
    call: Invocation, repo: Repository, name: str, plot: str | None, **options: Unpack[WorkOptions]
) -> VectorStatistics:
    """Show one vector.

    NAME is the name of a vector, or the first digits of its id. For each layer and kind of module, show
    prints how many weights the vector changes and by how much. --plot draws it.
    """
    from persona.cli import heatmap, measures

    place = plot_path(call, plot)
    vector = repo.vectors.statistics(name, **options)
    if place is not None:
        heatmap.write(place, f"Vector {vector.info.name}", measures.vector_sheets(vector))
    return vector


@declare(
    "derive",
    group=command,
    cls=Derive,
    example='$ persona vector derive calmer "calm - rushed"\n'
    '$ persona vector derive blend "0.5 * (calm + polite) - rushed" --density 0.2\n'
    '$ persona commit -m "calm, and not rushed"',
)
@click.argument("name", shell_complete=vectors)
@click.argument("expr", nargs=-1, required=True, metavar="EXPR…", shell_complete=all_vectors)
@takes(TermOptions)
def derive(repo: Repository, name: str, expr: tuple[str, ...], **options: Unpack[TermOptions]) -> Derived:
    """Make a vector from others, and put it into recipe.toml.

    EXPR is a sum of vectors, such as "calm - rushed" or "0.5 * (calm + polite)". It may hold + - * /,
    numbers and parentheses; put it in quotes, so that the shell leaves it as it is. A name with other
    characters stands in quotes of its own: "'calm-v2' - rushed".

    NAME becomes one vector: it is trimmed as one and has one vote. It stores no weights. derive commits
    nothing. If recipe.toml has NAME already, NAME becomes the new vector and keeps its alpha, density and
    filter, unless you give others.
    """
    return repo.vectors.derive(_typed(name), " ".join(expr), **options)


@declare(
    "extract",
    group=command,
    works=True,
    example="$ persona vector extract listening --rank 16 -o ../listening-r16\n"
    "$ persona commit ../listening-r16 -m 'listening, as an adapter'",
)
@click.argument("name", shell_complete=all_vectors)
@adapter_place
@takes(AdapterOptions)
def extract(
    call: Invocation, repo: Repository, name: str, out: str, **options: Unpack[AdapterOptions]
) -> AdapterResult:
    """Write a vector as a PEFT adapter.

    NAME is the name of a vector, or the first digits of its id. extract finds the best factors of rank R for
    each matrix that the vector changes, and prints how much of the change they keep. A vector that was an
    adapter keeps its own factors if R allows it.
    """
    return repo.vectors.extract(name, out=call.path(out), **options)


@declare("rm", group=command, example="$ persona vector rm old-draft")
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=kept_vectors)
def rm(repo: Repository, names: tuple[str, ...]) -> Removed:
    """Forget kept vectors.

    Removes the names of vectors that recipe.toml does not use. If one cannot be removed, none is. Commits
    that use a vector keep it. To drop a vector from the recipe, use `persona rm`.
    """
    return repo.vectors.delete(*names)
