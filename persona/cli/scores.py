"""Scores in a line of `log`, and two of them side by side in `diff`; `verify` and `show` print the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from click import style

from persona.cli.render import columns, short
from persona.cli.terminal import one_line

if TYPE_CHECKING:
    from persona.history.score_results import Effect, Scores, ScoresDiff

COLOURS = {"pass": "green", "fail": "red"}


def brief(scores: Scores) -> str:
    """`listening +12.30 [+10.10, +14.60]; damage 0.4 %; pass`."""
    parts = [", ".join(f"{one_line(effect.probe)} {' '.join(interval(effect))}" for effect in scores.own)]
    if scores.damage is not None:
        parts.append(f"damage {_loss(scores.damage.ratio.mean)}")
    parts.append(style(scores.verdict, fg=COLOURS.get(scores.verdict, "yellow")))
    return "; ".join(filter(None, parts))


def diff_lines(diff: ScoresDiff) -> Iterator[str]:
    """The scores of two commits: the margin of each pattern's probes against the base, and damage."""
    yield style(f"scores {short(diff.from_)} {short(diff.to)}", bold=True)
    rows = [
        (one_line(pair.probe), *interval(pair.from_), "→", *interval(pair.to), _rates(pair.from_, pair.to))
        for pair in diff.effects
    ]
    if diff.damage is not None:
        before, after = (_loss(side.ratio.mean) for side in (diff.damage.from_, diff.damage.to))
        rows.append(("damage", before, "", "→", after, "", ""))
    yield from (f" {line}" for line in columns(rows))


def interval(effect: Effect) -> tuple[str, str]:
    """An effect, and its interval: nats, or per cent of the answers that meet the check."""
    whole = effect.margin
    if whole is None:
        return "", ""
    mean, low, high = (f"{value:+.2f}" for value in (whole.mean, whole.low, whole.high))
    return mean, f"[{low}, {high}]"


def _loss(ratio: float) -> str:
    """The rise of the loss on neutral text."""
    return f"{100 * (ratio - 1):+.1f} %"


def _rates(before: Effect, after: Effect) -> str:
    if before.after is None or after.after is None:
        return ""
    sides = (f"{rate.met}/{rate.items}" for rate in (before.after, after.after))
    return f"({' → '.join(sides)})"
