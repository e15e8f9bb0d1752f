"""`persona set`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import rules, vector_or_rule
from persona.cli.options import rules_named, takes
from persona.errors import UsageError
from persona.history.options import JoinOptions
from persona.history.recipes.checked import DEFAULT

if TYPE_CHECKING:
    from persona.history.act_results import Edited
    from persona.repository import Repository


@declare(
    "set",
    example="$ persona set listening --alpha 0.7\n$ persona set suggesting --alpha -0.5 --only '*.mlp.*'\n"
    "$ persona set --merge density=0.2 trim=global\n"
    "$ persona set --merge preset=dare_ties density=0.5 seed=7",
)
@click.argument("words", nargs=-1, metavar="NAME | KEY=VALUE …", shell_complete=vector_or_rule)
@takes(JoinOptions)
@click.option(
    "--no-density",
    is_flag=True,
    help="Remove the vector's own density; the density of the recipe applies again.",
)
@click.option(
    "--merge",
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=rules,
    help="Change a merge rule: preset (ties, linear, dare_ties, …), density, lambda, trim, …",
)
def command(
    repo: Repository,
    words: tuple[str, ...],
    no_density: bool,
    merge: tuple[str, ...],
    **options: Unpack[JoinOptions],
) -> Edited:
    """Change a vector's alpha, density or filter, or the merge rules.

    Edits recipe.toml and keeps its comments. It commits nothing. `persona checkout` computes the new weights;
    `persona commit` records the change.

    With --merge, KEY=VALUE changes a rule of the whole recipe. Without other settings, a new recipe has
    preset=ties and density=1. An unknown value is refused with a list of all values.
    """
    if no_density:
        if "density" in options:
            raise UsageError("--density and --no-density contradict each other; give one of them")
        options["density"] = DEFAULT
    if merge and options:
        raise UsageError("--merge sets the rules of the recipe; set a vector in a separate command")
    axes = dict(_axis(word) for word in (*merge, *words)) if merge else {}
    if not merge and (len(words) != 1 or not options):
        raise UsageError(
            "give one vector and the values to set: `persona set NAME --alpha A`, or give --merge KEY=VALUE"
        )
    if merge:
        with rules_named():
            return repo.recipe.set_rules(axes)
    return repo.recipe.set(words[0], **options)


def _axis(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UsageError(f"{word!r}: a merge rule is KEY=VALUE, such as density=0.2")
    return key.strip(), value.strip()
