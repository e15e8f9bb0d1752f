"""`persona set`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.completions import one_of, rules, vector_or_rule
from persona.cli.invocation import Invocation
from persona.cli.options import filters, flags
from persona.errors import UsageError
from persona.history.recipes.checked import DEFAULT


@declare(
    "set",
    example="$ persona set listening --alpha 0.7\n$ persona set suggesting --alpha -0.5 --only '*.mlp.*'\n"
    "$ persona set --merge density=0.2 trim=global",
)
@click.argument("words", nargs=-1, metavar="NAME | KEY=VALUE …", shell_complete=vector_or_rule)
@click.option("--alpha", metavar="A", help="Strength of the vector.")
@click.option("--density", metavar="D", help="Fraction of the vector to keep, in (0, 1].")
@click.option(
    "--no-density", is_flag=True, help="Remove the vector's own density: the recipe's applies again."
)
@click.option(
    "--only",
    metavar="GLOB",
    multiple=True,
    help="Change only tensors whose name matches GLOB; '' removes this filter.",
)
@click.option(
    "--except",
    "except_",
    metavar="GLOB",
    multiple=True,
    help="Change no tensor whose name matches GLOB; '' removes this filter.",
)
@click.option(
    "--join",
    metavar="vote|add",
    shell_complete=one_of("vote", "add"),
    help="vote: merge it with the others. add: add it to their result.",
)
@click.option(
    "--merge",
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=rules,
    help="Change a merge rule: preset, density, lambda, trim, …",
)
@click.pass_obj
def command(
    call: Invocation,
    words: tuple[str, ...],
    alpha: str | None,
    density: str | None,
    no_density: bool,
    only: tuple[str, ...],
    except_: tuple[str, ...],
    join: str | None,
    merge: tuple[str, ...],
) -> None:
    """Change a vector's alpha, density or filter, or the merge rules.

    Edits recipe.toml and keeps its comments. It commits nothing. `persona checkout` computes the new weights;
    `persona commit` records the change. With --merge, KEY=VALUE changes a rule of the whole recipe.
    """
    if no_density:
        if density is not None:
            raise UsageError("--density and --no-density contradict each other; give one of them")
        density = DEFAULT
    given = any(value is not None for value in (alpha, density, filters(only), filters(except_), join))
    if merge and given:
        raise UsageError("--merge sets the rules of the recipe; set a vector in a command of its own")
    axes = dict(_axis(word) for word in (*merge, *words)) if merge else {}
    if not merge and (len(words) != 1 or not given):
        raise UsageError(
            "name one vector and what to set: `persona set NAME --alpha A`, or give --merge KEY=VALUE"
        )
    with call.repository() as repo, flags("--merge " if merge else "--"):
        if merge:
            repo.set_rules(axes)
        else:
            repo.set_term(
                words[0],
                alpha=alpha,
                density=density,
                only=filters(only),
                except_=filters(except_),
                join=join,
            )
    call.report({"set": axes or words[0]}, [])


def _axis(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UsageError(f"{word!r}: a merge rule is KEY=VALUE, such as density=0.2")
    return key.strip(), value.strip()
