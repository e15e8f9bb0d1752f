"""**line merge** — the edits that turn one text into another, made to a third that comes from the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from persona.frozen import dataclass
from persona.history.recipes.linediff import runs

Edit = tuple[int, int, tuple[str, ...]]
"""Lines `start:end` of the base, and the lines that replace them."""


@dataclass(frozen=True)
class Lines:
    """A text of merged lines. `left` is how many edits of theirs met one of ours and were left out."""

    text: str
    left: int


def merge_lines(base: str, theirs: str, ours: str, *, close: bool = False) -> Lines:
    """Ours, with the edits that turn `base` into `theirs`. `close`: edits of lines that touch go together."""
    # The missing line end of a last line is merged separately, so that no two lines are joined.
    ended = [not text or text.endswith("\n") for text in (base, theirs, ours)]
    split = [
        (text if end else text + "\n").splitlines(keepends=True)
        for text, end in zip((base, theirs, ours), ended, strict=True)
    ]
    come, here = _edits(split[0], split[1], close), _edits(split[0], split[2], close)
    taken: list[Edit] = []
    left = at = 0
    for number, edit in enumerate(come):
        while at < len(here) and here[at][1] < edit[0]:
            at += 1
        near = at
        meets = False
        while near < len(here) and here[near][0] <= edit[1]:
            meets = meets or _meet(edit, here[near], close)
            near += 1
        if edit in here[at:near]:
            continue  # made already
        if meets and close:
            low = come[number - 1][1] if number else 0
            high = come[number + 1][0] if number + 1 < len(come) else len(split[0])
            for slid in _slides(split[0], edit, low, high):
                if not any(_meet(slid, other, close) for other in here):
                    edit, meets = slid, False
                    break
        left += meets
        if not meets:
            taken.append(edit)
    lines: list[str] = []
    place = 0
    for start, end, new in sorted([*taken, *here], key=lambda edit: edit[:2]):
        lines += [*split[0][place:start], *new]
        place = end
    text = "".join([*lines, *split[0][place:]])
    end = ended[2] if ended[1] == ended[0] else ended[1]
    return Lines(text if end else text.removesuffix("\n"), left)


def _edits(base: Sequence[str], other: Sequence[str], close: bool) -> list[Edit]:
    found: list[Edit] = []
    for start, end, first, last in runs(base, other):
        if close and end - start == last - first:  # line for line, so that each is compared separately
            found += [(start + n, start + n + 1, (other[first + n],)) for n in range(end - start)]
        else:
            found.append((start, end, tuple(other[first:last])))
    return found


def _slides(base: Sequence[str], edit: Edit, low: int, high: int) -> Iterator[Edit]:
    """The same edit at other positions between `low` and `high`, if lines repeat."""
    for step, stop in ((-1, low), (1, high)):
        start, end, new = edit
        while (start if step < 0 else end) != stop:
            if start == end:
                passed = base[start - 1] if step < 0 else base[start]
                if passed != new[-1 if step < 0 else 0]:
                    break
                new = (passed, *new[:-1]) if step < 0 else (*new[1:], passed)
            elif new or base[start - (step < 0)] != base[end - (step < 0)]:
                break
            start, end = start + step, end + step
            yield start, end, new


def _meet(one: Edit, other: Edit, close: bool) -> bool:
    """Whether two edits of the same lines cannot both be made."""
    if not close:
        return one[0] <= other[1] and other[0] <= one[1]
    if one[:2] == other[:2]:
        return True
    return max(one[0], other[0]) < min(one[1], other[1]) or any(
        inner[0] == inner[1] and outer[0] < inner[0] < outer[1]
        for inner, outer in ((one, other), (other, one))
    )
