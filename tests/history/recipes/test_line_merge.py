"""Two changes of one text go together, or it is said how many do not: against halves of texts, and git."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.history.recipes.line_merge import Lines, merge_lines
from tests.campaign import rounds

TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n"]), max_size=8).map("".join)
CUT = st.tuples(TEXTS, st.booleans()).map(lambda given: given[0].removesuffix("\n") if given[1] else given[0])
"""Texts of few different lines; some end within a line."""
CLOSE = st.booleans()


@given(CUT, CUT, CLOSE)
def test_a_change_to_the_base_itself_is_the_change(base: str, other: str, close: bool) -> None:
    assert merge_lines(base, other, base, close=close) == Lines(other, 0)
    assert merge_lines(base, base, other, close=close) == Lines(other, 0)


@given(CUT, CUT, CLOSE)
def test_a_change_that_is_made_already_changes_nothing(base: str, other: str, close: bool) -> None:
    assert merge_lines(base, other, other, close=close) == Lines(other, 0)


@given(TEXTS, TEXTS, TEXTS, TEXTS, CLOSE)
def test_changes_on_both_sides_of_a_line_go_together(
    top: str, new_top: str, end: str, new_end: str, close: bool
) -> None:
    base, theirs, ours = f"{top}---\n{end}", f"{new_top}---\n{end}", f"{top}---\n{new_end}"
    assert merge_lines(base, theirs, ours, close=close) == Lines(f"{new_top}---\n{new_end}", 0)
    assert merge_lines(base, ours, theirs, close=close) == Lines(f"{new_top}---\n{new_end}", 0)


@given(TEXTS, TEXTS, TEXTS, CLOSE)
def test_every_line_is_of_theirs_or_of_ours(base: str, theirs: str, ours: str, close: bool) -> None:
    merged = merge_lines(base, theirs, ours, close=close)
    assert set(merged.text.splitlines()) <= {*theirs.splitlines(), *ours.splitlines()}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_merges_the_same_texts_into_the_same(tmp_path: Path) -> None:
    rng = random.Random("git")
    clean = 0
    for _ in range(rounds(150)):
        base = [f"line {number}\n" for number in range(rng.randint(0, 12))]
        theirs, ours = (edited(base, rng) for _ in range(2))
        for name, lines in (("base", base), ("theirs", theirs), ("ours", ours)):
            (tmp_path / name).write_text("".join(lines))
        command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
        git = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        merged = merge_lines("".join(base), "".join(theirs), "".join(ours))
        assert (merged.left == 0) == (git.returncode == 0), (base, theirs, ours)
        if not merged.left:
            assert merged.text == git.stdout
            clean += 1
    assert rounds(150) > clean > rounds(30)


def edited(base: list[str], rng: random.Random) -> list[str]:
    """The lines after one or two edits; sometimes both sides write the same new line."""
    lines = list(base)
    for _ in range(rng.randint(1, 2)):
        start = rng.randint(0, len(lines))
        new = [f"new {rng.randrange(4)} of {rng.randrange(1 << 30) if rng.random() < 0.9 else 0}\n"]
        lines[start : start + rng.randint(0, 2)] = new[: rng.randint(0, 1)]
    return lines
