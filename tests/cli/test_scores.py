"""Scores in `log`, `show`, `diff` and `vector`, kept as `verify` keeps them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import persona as library
from persona.cli.verification import matrix_lines
from persona.history import note_refs
from persona.history.score_results import Damage, Effect, Interval, Rate, Scores, TaskScore
from persona.history.scores import keep_scores
from tests.cli.command_line import CommandLine

DIGEST = "blake3:" + "ab" * 32


def effect(key: str, mean: float, *, own: bool = True, met: int | None = None) -> Effect:
    """An effect with an interval of ± 2 nats."""
    rate = None if met is None else Rate(met, 30, 0.1, 0.9)
    interval = Interval(mean, mean - 2, mean + 2, 30)
    return Effect(key, own, 1, interval, {}, rate, rate, 0.5 if own else None, "pass", "cd" * 32)


def keep(run: CommandLine, rev: str, *effects: Effect, ratio: float = 1.004, kind: str = "commit") -> str:
    """Keeps scores of a commit or a vector, and returns its id."""
    with library.open(run.directory) as repo:
        id = repo.vectors[rev].id if kind == "vector" else repo.resolve(rev)
        damage = Damage(*[Interval(ratio, ratio - 0.001, ratio + 0.001, 80)] * 3, 1.02, "ef" * 32)
        scores = Scores(id, kind, DIGEST, effects, damage, "pass", (), "1", "float32", "cpu")
        keep_scores(repo._history, scores)
    return id


def test_the_matrix_has_the_tasks_of_each_vector() -> None:
    tasks = (TaskScore("arc_easy", "acc", 0.583, 0.01, 0.579, 0.01, 2376),)
    scores = Scores(
        "ab" * 32, "vector", DIGEST, (effect("tea", 1),), None, "pass", (), "1", "f", "cpu", tasks
    )
    *_, head, row = matrix_lines([("tea", scores)])
    assert head.split() == "VECTOR TASK METRIC BASE HERE".split()
    assert row.split() == "tea arc_easy acc 0.583 ±0.010 → 0.579 ±0.010 of 2,376".split()


def test_log_has_a_line_of_scores_below_the_message_of_what_was_measured(grown: CommandLine) -> None:
    before = grown.ok("log")
    keep(grown, "HEAD~1", effect("listening", 12.3), effect("other", 0.4, own=False))
    said = grown.ok("log")
    line = "Scores: listening +12.30 [+10.30, +14.30]; loss +0.4 %; pass"
    assert said.count("Scores:") == 1
    assert f"    listen before answering\n\n{line}\n\n" in said
    assert said.replace(f"\n{line}\n", "") == before
    assert "Scores" not in grown.ok("log", "--oneline")
    assert f"\n|\n| {line}\n" in grown.ok("log", "--graph").replace("* ", "| ").replace("| \n", "|\n")


def test_json_has_all_of_the_scores(grown: CommandLine) -> None:
    id = keep(grown, "HEAD", effect("listening", 12.3, met=24))
    newest, older, _ = grown.json("log")
    assert "scores" not in older
    assert newest["scores"]["about"] == id
    assert newest["scores"]["effects"][0]["margin"] == {"mean": 12.3, "low": 10.3, "high": 14.3, "items": 30}
    assert grown.json("show")["scores"] == newest["scores"]
    shown = grown.ok("show")
    assert "    a little less\n\ncommit " in shown
    assert "24/30" in shown
    assert shown.index("loss ratio") < shown.index("diff recipe")
    assert "loss ratio" not in grown.ok("show", "--oneline")


def test_python_has_the_scores_of_a_revision_and_the_verdict_on_a_vector(grown: CommandLine) -> None:
    keep(grown, "HEAD", effect("listening", 12.3))
    keep(grown, "listening", effect("listening", 12.3), kind="vector")
    with library.open(grown.directory) as repo:
        scores = repo["HEAD"].scores
        assert scores is not None
        assert [found.pattern for found in scores.own] == ["listening"]
        assert repo["HEAD~1"].scores is None
        assert repo.vectors["listening"].verdict == "pass"
    assert grown.json("vector", "ls")[0]["verdict"] == "pass"
    assert "VERDICT" in grown.ok("vector", "ls")
    assert "Scores:   listening +12.30" in grown.ok("vector", "show", "listening")


def test_vectors_that_were_not_measured_have_no_column_of_verdicts(grown: CommandLine) -> None:
    assert "VERDICT" not in grown.ok("vector", "ls")
    assert "verdict" not in grown.json("vector", "ls")[0]


def test_diff_compares_the_scores_of_both_sides(grown: CommandLine) -> None:
    keep(grown, "HEAD~1", effect("listening", 12.3, met=24), effect("gone", 1))
    assert "diff scores" not in grown.ok("diff", "HEAD~1", "HEAD")
    keep(grown, "HEAD", effect("listening", 4, met=12), effect("new", 1), ratio=1.001)
    lines = grown.ok("diff", "HEAD~1", "HEAD").splitlines()
    place = lines.index("")
    assert lines[place + 1].startswith("diff scores ")
    words = [line.split() for line in lines[place + 2 :]]
    assert words == [
        "listening +12.30 [+10.30, +14.30] → +4.00 [+2.00, +6.00] check 24/30 → 12/30".split(),
        "loss +0.4 % → +0.1 %".split(),
    ]
    found = grown.json("diff", "HEAD~1", "HEAD")["scores"]
    assert [pair["pattern"] for pair in found["effects"]] == ["listening"]
    assert grown.json("diff", "HEAD~1")["scores"] == found
    assert "scores" not in grown.json("diff", "HEAD")


def test_scores_of_other_probes_are_not_compared(grown: CommandLine) -> None:
    keep(grown, "HEAD~1", replace(effect("listening", 12.3), probes="00" * 31 + "01"))
    keep(grown, "HEAD", effect("listening", 4))
    found = grown.json("diff", "HEAD~1", "HEAD")["scores"]
    assert found["effects"] == []
    assert found["damage"] is not None


def test_an_edited_recipe_has_no_scores(grown: CommandLine) -> None:
    keep(grown, "HEAD~1", effect("listening", 12.3))
    keep(grown, "HEAD", effect("listening", 4))
    grown.ok("set", "listening", "--alpha", "0.1")
    assert "scores" not in grown.json("diff", "HEAD~1")


@pytest.mark.parametrize("command", ["log", "show", "vector ls", "vector show listening"])
def test_damaged_scores_are_left_out_with_a_note(grown: CommandLine, command: str) -> None:
    whole = grown.ok(*command.split())
    kind = "vector" if "vector" in command else "commit"
    id = keep(grown, "listening" if kind == "vector" else "HEAD", effect("listening", 12.3), kind=kind)
    path = grown.directory / ".persona" / note_refs.ref_named("scores", id)
    path.write_text("damaged\n")
    answer = grown(*command.split())
    assert answer.exit_code == 0
    assert answer.stdout == whole
    assert str(path) in answer.stderr
    assert grown("fsck").exit_code == 5
