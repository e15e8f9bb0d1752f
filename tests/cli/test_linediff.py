"""A diff of lines is right for any two texts, as short as git's for ordinary ones, quick for long ones."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time

import click
import pytest

from persona.cli.diffs import diff_lines, stat_lines
from persona.history.recipes import linediff
from persona.history.results import Diff, FileChange
from tests.campaign import rounds
from tests.cli.command_line import CommandLine

Texts = tuple[list[str], list[str]]


def applied(patch: Sequence[str], old: Sequence[str]) -> list[str]:
    """What a unified diff makes of `old`. Every line that it shows as old has to be there."""
    new: list[str] = []
    at = 0
    for line in patch:
        header = re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line)
        if header:
            start = int(header[1]) - (header[2] != "0")
            new += old[at:start]
            at = start
            assert len(new) == int(header[3]) - (header[4] != "0")
            continue
        if line[0] in " -":
            assert old[at] == line[1:]
            at += 1
        if line[0] in " +":
            new.append(line[1:])
    return new + list(old[at:])


def edited(chance: random.Random, lines: list[str], words: int) -> list[str]:
    """The same lines after a few edits."""
    new = lines[:]
    for _ in range(chance.randint(0, 6)):
        at, kind = chance.randint(0, len(new)), chance.random()
        if kind < 0.3:
            new[at:at] = [f"line {chance.randrange(words)}"] * chance.randint(1, 3)
        elif kind < 0.4:
            new[at:at] = new[max(at - 4, 0) : at]
        elif kind < 0.7:
            del new[at : at + chance.randint(1, 3)]
        else:
            new[at : at + 1] = [f"new {chance.randrange(words)}"]
    return new


def ordinary(chance: random.Random, longest: int) -> Texts:
    words = chance.choice([2, 10, 100])
    old = [f"line {chance.randrange(words)}" for _ in range(chance.randint(0, longest))]
    return old, edited(chance, old, words)


@pytest.mark.parametrize("seed", range(rounds(200)))
def test_a_diff_makes_the_new_text_of_the_old_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    # With small bounds a short text goes the ways of a long one.
    monkeypatch.setattr(linediff, "SMALL", chance.choice([0, 8, 2000]))
    monkeypatch.setattr(linediff, "MAX_EDITS", chance.choice([0, 2, 600]))
    monkeypatch.setattr(linediff, "MAX_STEPS", chance.choice([0, 40, 1 << 20]))
    old, new = ordinary(chance, 80)
    assert applied(list(linediff.unified(old, new)), old) == new
    assert (old == new) == (linediff.runs(old, new) == [])


def numstat(folder: Path, old: list[str], new: list[str]) -> tuple[int, int]:
    """How many lines git adds and removes."""
    for name, lines in (("old", old), ("new", new)):
        (folder / name).write_text("".join(line + "\n" for line in lines))
    command = ["git", "diff", "--no-index", "--numstat", "--minimal", "old", "new"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
    return (int(said.split()[0]), int(said.split()[1])) if said else (0, 0)


def test_a_diff_of_ordinary_texts_is_as_short_as_gits(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(rounds(60)):
        old, new = ordinary(chance, 60)
        patch = [line for line in linediff.unified(old, new) if not line.startswith("@@")]
        counts = sum(line[0] == "+" for line in patch), sum(line[0] == "-" for line in patch)
        assert counts == numstat(tmp_path, old, new)


def test_lines_added_at_the_end_of_what_they_repeat_are_shown_there() -> None:
    old = ["{", "  a", "}", "{", "  b", "}", "end"]
    new = ["{", "  a", "}", "{", "  b", "}", "{", "  b", "}", "end"]
    assert list(linediff.unified(old, new)) == [
        "@@ -4,4 +4,7 @@",
        *(" {", "   b", " }"),
        *("+{", "+  b", "+}"),
        " end",
    ]


def merges(count: int, moved: int) -> tuple[str, str]:
    """A tokenizer's merges as transformers writes them, four lines each, and the same with some moved."""
    chance = random.Random(3)
    words = ["".join(chance.choices("abcdefgh", k=chance.randint(1, 4))) for _ in range(count)]
    pairs = [[chance.choice(words[:3000]), word] for word in words]
    other = pairs[:]
    for _ in range(moved):
        other.insert(chance.randrange(count), other.pop(chance.randrange(count)))
    return json.dumps(pairs, indent=2), json.dumps(other, indent=2)


def long_texts() -> Iterator[tuple[str, str]]:
    chance = random.Random(5)
    count = 100_000
    numbered = [f"{number}" for number in range(count)]
    yield merges(48_900, 900)
    for old, new in (
        (numbered, [f"other {line}" for line in numbered]),
        (numbered, chance.sample(numbered, count)),
        (numbered, numbered[::-1]),
        ([f"{number // 2}" for number in range(count)], [f"{number // 3}" for number in range(count)]),
        (chance.choices("ab", k=count), chance.choices("ab", k=count)),
        (["x"] * count, ["x", "y"] * (count // 2)),
        ([*numbered, *numbered[::-1]], [*numbered[1:], "0", *numbered[::-1]]),
    ):
        yield "\n".join(old) + "\n", "\n".join(new) + "\n"


@pytest.mark.parametrize("number", range(8))
def test_a_long_file_is_compared_in_time(number: int) -> None:
    before, after = list(long_texts())[number]
    change = FileChange("tokenizer.json", "changed", before.encode, after.encode)
    diff = Diff(None, None, {}, (), ("tokenizer.json",), (change,))
    began = process_time()
    lines = [click.unstyle(line) for line in diff_lines(diff)]
    assert process_time() - began < 8, "seconds; one or so on an idle machine"
    summary = click.unstyle(next(iter(stat_lines(diff))))
    marks = [line[:1] for line in lines[3:]]
    assert f"| {marks.count('+') + marks.count('-')} " in summary


def test_merges_that_moved_are_shown_and_little_else() -> None:
    before, after = (text.split("\n") for text in merges(48_900, 900))
    patch = list(linediff.unified(before, after))
    assert applied(patch, before) == after
    assert sum(line[0] in "+-" for line in patch) < 2 * 900 * 4 + 100


def test_a_diff_can_be_applied_by_other_programs(grown: CommandLine, tmp_path: Path) -> None:
    changes = {
        "windows": (b"one\r\ntwo\r\n", b"one\r\nTWO\r\n"),
        "windows without an end": (b"one\r\ntwo\r", b"one\r\ntwo\r\n"),
        "no end": (b"one\ntwo", b"one\ntwo\n"),
        "a name with spaces": (b"one\n", b"two\n"),
        "empty": (b"", b"now\n"),
        "emptied": (b"was\n", b""),
        "h\u00f6rbar": ("h\u00f6ren\n".encode(), "geh\u00f6rt\n".encode()),
    }
    graph, other = grown.directory / "graph", tmp_path / "other" / "graph"
    graph.mkdir()
    other.mkdir(parents=True)
    for name, (old, _) in changes.items():
        (graph / name).write_bytes(old)
        (other / name).write_bytes(old)
    grown.ok("commit", "-m", "old")
    for name, (_, new) in changes.items():
        (graph / name).write_bytes(new)
    (graph / "new").write_bytes(b"file\n")
    patch = grown("diff").stdout_bytes
    subprocess.run(["git", "apply", "-p1"], cwd=other.parent, input=patch, check=True)
    for path in sorted(graph.iterdir()):
        assert (other / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_holds_a_nul_is_binary(grown: CommandLine) -> None:
    (grown.directory / "graph").mkdir()
    (grown.directory / "graph" / "data").write_bytes(b"a\0b\n")
    assert "Binary files a/graph/data and b/graph/data differ" in grown.ok("diff")
    assert "Bin 0 → 4 bytes" in grown.ok("diff", "--stat")


def test_a_summary_shows_both_signs_where_both_changed() -> None:
    old, new = "".join(f"{n}\n" for n in range(1000)), "one line\n"
    change = FileChange("file", "changed", lambda: old.encode(), lambda: new.encode())
    (line, _) = map(click.unstyle, stat_lines(Diff(None, None, {}, (), ("file",), (change,))))
    assert line.endswith("1001 +" + "-" * 39)


def test_lines_that_differ_in_what_is_not_shown_differ(grown: CommandLine) -> None:
    (grown.directory / "chat_template.jinja").write_text("hello\u200b\n")
    lines = grown.ok("diff").splitlines()
    assert lines[-2:] == ["-hello", "+hello?"]
    assert "1 file changed" in grown.ok("diff", "--stat")
