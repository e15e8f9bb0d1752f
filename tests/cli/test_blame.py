"""`persona blame` as it is typed and printed."""

from __future__ import annotations

import re

from tests.cli.command_line import CommandLine


def plain(text: str) -> list[str]:
    """The lines without ids, authors and days."""
    return [re.sub(r"^[0-9a-f]{8}  .*?  (?:\d{4}-\d\d-\d\d)? *", "", line) for line in text.splitlines()]


def test_lines_are_those_of_the_recipe_with_their_commits(grown: CommandLine) -> None:
    lines = plain(grown.ok("blame"))
    assert [re.sub("  +", "|", line) for line in lines] == [
        'base = "base"|Begin with base',
        'merge.preset = "ties"|Begin with base',
        "[vectors.listening]|listen before answering",
        lines[3].split("  ")[0] + "|listen before answering",
        "alpha = 0.50|a little less",
    ]


def test_key_that_a_commit_took_away_is_shown(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--density", "0.5")
    grown.ok("commit", "-m", "half")
    grown.ok("set", "listening", "--density", "default")
    grown.ok("commit", "-m", "whole again")
    assert any(re.search(r"density = unset +whole again", line) for line in grown.ok("blame").splitlines())


def test_edit_is_not_committed_yet(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.25")
    assert re.search(r"(?m)^00000000  Not Committed Yet +alpha = 0.25$", grown.ok("blame"))
    assert "Not Committed Yet" not in grown.ok("blame", "HEAD")


def test_recipe_may_be_named_as_a_file_and_no_other_file(grown: CommandLine) -> None:
    assert grown.ok("blame", "recipe.toml") == grown.ok("blame", "--", "recipe.toml") == grown.ok("blame")
    assert "`persona log -p -- FILE`" in grown.refused(2, "blame", "--", "config.json")
    assert "`persona log -- config.json`" in grown.refused(3, "blame", "config.json")
    assert "no vector named 'nothing'" in grown.refused(3, "blame", "--vector", "nothing")


def test_weights_are_a_table_of_the_vectors(grown: CommandLine) -> None:
    lines = grown.ok("blame", "--weights", "a").splitlines()
    assert lines[0] == "a  F32 [4], 1 of 4 weights moved"
    assert lines[2].split() == ["NAME", "α", "CHANGES", "KEPT", "JOINS", "DECIDES", "OUTVOTED", "SHARE"]
    assert lines[3].split() == ["listening", "0.50", "1", "1", "1", "1", "0", "100.0", "%"]
    assert grown.ok("blame", "--weights", "b").splitlines()[1] == "no vector reaches it"
    assert "leave out --vector" in grown.refused(2, "blame", "--weights", "a", "--vector", "listening")
    assert grown.json("blame", "--weights", "a")["vectors"][0]["decided"] == 1
