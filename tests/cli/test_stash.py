"""`persona stash` as fingers type it."""

from __future__ import annotations

from tests.cli.command_line import CommandLine


def test_stash_alone_is_push(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.3")
    assert grown.ok("stash").startswith("Saved working directory state WIP on main: ")
    assert grown.ok("stash") == "No local changes to save\n"
    assert grown.ok("stash", "list").startswith("stash@{0}: WIP on main: ")
    lines = grown.ok("stash", "pop").splitlines()
    assert lines[0] == "M\trecipe.toml"
    assert lines[1].startswith("Dropped stash@{0} (")


def test_flags_of_push_may_stand_without_it(grown: CommandLine) -> None:
    for line in (["-m", "one"], ["push", "-m", "two"], ["save", "three", "words"], ["-u", "-m", "list"]):
        grown.ok("set", "listening", "--alpha", "0.3")
        grown.ok("stash", *line)
    said = [line.partition(": ")[2] for line in grown.ok("stash", "list").splitlines()]
    assert said == ["On main: list", "On main: three words", "On main: two", "On main: one"]
    assert "alpha" in grown.ok("stash", "show", "-p", "1")
    assert grown.ok("stash", "drop", "stash@{3}").startswith("Dropped stash@{3} (")
    assert grown.ok("stash", "clear") == ""
    assert grown.refused(1, "stash", "pop").startswith("no stash entries found\nhint: `persona stash push`")


def test_conflict_exits_with_one_and_keeps_the_stash(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.3")
    grown.ok("stash")
    grown.ok("set", "listening", "--alpha", "0.4")
    grown.ok("commit", "-m", "0.4")
    said = grown.refused(1, "stash", "pop")
    assert said.startswith("stash@{0} conflicts with HEAD; the stash is kept\n")
    assert "vectors.listening.alpha: 0.4 in Updated upstream, 0.3 in Stashed changes, 0.5 before" in said
    assert grown.ok("stash", "list")


def test_named_files_and_wrong_names(grown: CommandLine) -> None:
    (grown.directory / "chat_template.jinja").write_text("hi\n")
    assert "no tracked file is named nothing" in grown.refused(3, "stash", "push", "nothing")
    grown.ok("stash", "--", "chat_template.jinja")
    assert (grown.directory / "chat_template.jinja").read_text() == "hello\n"
    assert "there is no staging area" in grown.refused(2, "stash", "pop", "--index")
