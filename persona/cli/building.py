"""A build as text: the plan of a dry run, the table of patterns, and what was committed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from persona.cli import diffs, verification
from persona.cli.render import checkout_lines, columns, counted, duration, number
from persona.cli.rendering import Shown
from persona.cli.terminal import one_line

if TYPE_CHECKING:
    from persona.behaviour.building.results import BuildPlan, Built, BuiltPattern
    from persona.repository import Repository

_NOTHING = "nothing to do: all patterns are up to date"


def shown(repo: Repository, result: BuildPlan | Built) -> Shown:
    """The plan or the result of a build, with the exit code of docs/commands.md."""
    from persona.behaviour.building.results import BuildPlan

    if isinstance(result, BuildPlan):
        return Shown(result, _plan_lines(result))
    code = verification.EXIT_CODES[result.verdict or "pass"] if _is_bad(result) else 0
    if result.failure is None or result.commit is None:
        return Shown(result, _lines(repo, result), code, act=True)
    return diffs.unplaced(result, result.failure, _lines(repo, result))


def _is_bad(result: Built) -> bool:
    return result.refused or any(one.left_out for one in result.patterns)


def _plan_lines(plan: BuildPlan) -> Iterator[str]:
    yield from columns([(one_line(one.name), one.action, one.why) for one in plan.patterns])
    steps = (
        (plan.verify, "measure the recipe"),
        (plan.commit, "commit"),
        (plan.checkout, "compute the weights"),
    )
    rest = ", ".join(words for wanted, words in steps if wanted)
    if rest:
        yield f"then: {rest}" if plan.patterns else rest
    elif not plan.patterns:
        yield _NOTHING
    else:
        yield "so nothing would be committed"


def _lines(repo: Repository, result: Built) -> Iterator[str]:
    if result.did_nothing and not _is_bad(result):
        yield _NOTHING
        return
    head = ("PATTERN", "ACTION", "TIME", "α", "EFFECT", "LOSS", "")
    yield from columns([head, *(_row(one, result.refused) for one in result.patterns)])
    if result.recipe is not None and (result.commit is not None or result.refused):
        yield ""
        yield from verification.scores_lines(result.recipe)
    if result.commit is not None:
        yield ""
        yield from diffs.committed_lines(repo, result.commit)
    if result.checkout is not None:
        yield from checkout_lines(result.checkout)
    if not result.refused and not result.did_nothing:
        yield f"built in {duration(result.seconds)}"


def _row(one: BuiltPattern, refused: bool) -> tuple[str, ...]:
    steps = f", {counted(one.steps, 'step')}" if one.steps else ""
    return (
        one_line(one.name),
        one.action + steps,
        duration(one.seconds) if one.seconds else "",
        "" if one.alpha is None else number(one.alpha),
        "" if one.effect is None else verification.effect_text(one.effect),
        "" if one.damage is None else verification.rise(one.damage),
        (one.verdict or "") + (", left out" if one.left_out and not refused else ""),
    )
