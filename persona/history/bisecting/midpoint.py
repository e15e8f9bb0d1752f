"""The commit whose test halves the commits that are left, as git chooses it.

A test of a commit tells apart the commits that it reaches and the others. So the best commit is the one that
reaches nearest to half of them. Pure: it knows ids and parents only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import isqrt

_RANDOM_RANGE = 1 << 15


def counts(candidates: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The number of candidates that each candidate reaches, itself included.

    `candidates`: id → parents, no commit before its children. Parents that are no candidates do not count.
    Time is linear in the number of candidates, but for sets of bits as long as that number; memory holds the
    sets of the commits that have a child to come.
    """
    awaited = Counter(parent for parents in candidates.values() for parent in parents)
    reached: dict[str, int] = {}
    found: dict[str, int] = {}
    for place, id in enumerate(reversed(list(candidates))):
        bits = 1 << place
        for parent in candidates[id]:
            if parent in reached:
                bits |= reached[parent]
                awaited[parent] -= 1
                if not awaited[parent]:
                    del reached[parent]
        found[id] = bits.bit_count()
        if awaited[id]:
            reached[id] = bits
    return found


def choose(reaches: Mapping[str, int], bad: str, skipped: Collection[str]) -> str | None:
    """The commit to test next: of the candidates `reaches`, without `bad` and without `skipped`.

    None if no other is left. `reaches`: as `counts` gives it, parents first; of equally good commits the
    oldest is taken. If the best commit is skipped, a commit near it is probably no better. So the next is
    drawn by a fixed rule, with a preference for commits near the half, as git does it.
    """
    total = len(reaches)
    ranked = sorted(
        (id for id in reaches if id != bad), key=lambda id: -min(reaches[id], total - reaches[id])
    )
    left = [id for id in ranked if id not in skipped]
    if not left or ranked[0] == left[0]:
        return left[0] if left else None
    return left[min(_away(len(left) + 1), len(left) - 1)]


def _away(count: int) -> int:
    """A place in a list of `count`, nearer to its beginning than to its end (git's bisect.c, skip_away)."""
    drawn = ((count * 1103515245 + 12345) & 0xFFFFFFFF) // 65536 % _RANDOM_RANGE
    return count * drawn // _RANDOM_RANGE * isqrt(drawn) // isqrt(_RANDOM_RANGE)


def steps(total: int) -> int:
    """About how many tests `total` candidates need (git's bisect.c, estimate_bisect_steps)."""
    if total < 3:
        return 0
    whole = total.bit_length() - 1
    power = 1 << whole
    return whole if power < 3 * (total - power) else whole - 1
