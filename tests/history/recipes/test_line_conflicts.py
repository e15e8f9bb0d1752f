"""Conflicts of lines: both sides between markers, and each side by itself."""

from __future__ import annotations

import random

import pytest

from persona.history.recipes.line_conflicts import chosen, marked_lines, with_markers, with_side
from persona.history.recipes.line_merge import merge_lines
from tests.campaign import rounds

LABELS = "HEAD", "topic"


def lines(*words: str) -> str:
    """A text of lines."""
    return "".join(f"{word}\n" for word in words)


def test_only_the_lines_that_conflict_stand_between_markers() -> None:
    base = lines("a", "b", "c", "d", "e", "f", "g")
    ours, theirs = base.replace("b", "B").replace("g", "G"), base.replace("b", "bb").replace("e", "E")
    assert with_markers(base, theirs, ours, LABELS) == lines(
        "a", "<<<<<<< HEAD", "B", "=======", "bb", ">>>>>>> topic", "c", "d", "E", "f", "G"
    )


@pytest.mark.parametrize("texts", [("a", "b", "c"), ("", "b", "c"), ("a\n", "a", ""), ("a", "", "b")])
def test_a_text_that_ends_within_a_line_has_whole_markers(texts: tuple[str, str, str]) -> None:
    base, theirs, ours = texts
    marked = with_markers(base, theirs, ours, LABELS)
    if merge_lines(base, theirs, ours).left:
        assert len(marked_lines(marked)) == 2


def edited(rng: random.Random, words: list[str]) -> list[str]:
    """A few lines replaced, removed or added."""
    words = list(words)
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(words) + 1)
        words[at : at + rng.randint(0, 2)] = [rng.choice("xyz") for _ in range(rng.randint(0, 2))]
    return words


def test_without_a_conflict_the_text_is_that_of_the_merge_and_each_side_can_be_chosen() -> None:
    rng = random.Random("lines")
    conflicts = 0
    for _ in range(rounds(500)):
        words = [str(n) for n in range(8)]
        base, theirs, ours = lines(*words), lines(*edited(rng, words)), lines(*edited(rng, words))
        marked = with_markers(base, theirs, ours, LABELS)
        merged = merge_lines(base, theirs, ours)
        if not marked_lines(marked):
            assert marked == with_side(base, theirs, ours, "ours")
            assert merged.left or marked == merged.text
            continue
        conflicts += 1
        for side in ("ours", "theirs"):
            assert chosen(marked, side) == with_side(base, theirs, ours, side)  # type: ignore[arg-type]
    assert conflicts > rounds(500) / 10
