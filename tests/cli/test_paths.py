"""Files are named as they are typed where one stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine


@pytest.fixture
def below(grown: CommandLine) -> CommandLine:
    """A command line two directories below the root, where a committed file and an edited one lie."""
    deep = grown.directory / "graph" / "deep"
    deep.mkdir(parents=True)
    (deep / "note.md").write_text("one\n")
    grown.ok("commit", "-m", "a note")
    (deep / "note.md").write_text("two\n")
    (grown.directory / "chat_template.jinja").write_text("changed\n")
    (grown.directory / "recipe.toml").write_text((grown.directory / "recipe.toml").read_text() + "# more\n")
    return CommandLine(deep)


def listed(status: str) -> list[str]:
    """The files that `status` calls modified."""
    return re.findall(r"modified: +(\S+)", status)


def test_status_names_files_from_where_one_stands(below: CommandLine) -> None:
    names = listed(below.ok("status"))
    assert names == ["../../chat_template.jinja", "note.md", "../../recipe.toml"]
    assert all((below.directory / name).is_file() for name in names)
    assert listed(CommandLine(below.directory.parents[1]).ok("status"))[1] == "graph/deep/note.md"


def test_what_status_names_can_be_restored_as_it_is_named(below: CommandLine) -> None:
    for name in listed(below.ok("status")):
        assert below.ok("restore", name) == "Put back 1 file\n"
    assert "work tree clean" in below.ok("status")


def test_the_recipe_is_restored_from_anywhere_by_its_name(below: CommandLine) -> None:
    (below.directory.parents[1] / "recipe.toml").unlink()
    advice = re.search(
        r"`persona (restore [^`]+)`", below.ok("status") + below("set", "x", "--alpha", "1").stderr
    )
    assert advice
    assert below.ok(*advice[1].split()) == "Put back 1 file\n"


def test_a_directory_stands_for_what_lies_in_it(below: CommandLine) -> None:
    assert below.ok("checkout", "--", ".") == "Put back 1 file\n"
    assert listed(below.ok("status")) == ["../../chat_template.jinja", "../../recipe.toml"]
    assert below.ok("restore", "../..") == "Put back 2 files\n"


def test_json_and_diff_name_files_from_the_root(below: CommandLine) -> None:
    assert "graph/deep/note.md" in below.json("status")["files_changed"]
    assert "diff a/graph/deep/note.md b/graph/deep/note.md" in below.ok("diff")


def test_paths_are_right_through_a_link_to_the_work_tree(below: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(below.directory)
    through = CommandLine(tmp_path / "link")
    assert listed(through.ok("status")) == listed(below.ok("status"))
    through.ok("restore", "note.md")
    assert "note.md" not in through.ok("status")


@pytest.mark.parametrize("typed", [".", "..", "note.md", "../deep"])
def test_a_file_where_a_revision_belongs_gets_the_line_to_type(below: CommandLine, typed: str) -> None:
    sentence = below.refused(3, "checkout", typed)
    advice = re.search(r"`persona (checkout -- [^`]+)`", sentence)
    assert advice, sentence
    assert "Put back" in below.ok(*advice[1].split())


@pytest.mark.parametrize("command", ["log", "diff", "show"])
@pytest.mark.parametrize("words", [("note.md",), ("HEAD", "note.md"), ("HEAD", "."), ("../deep", "note.md")])
def test_files_need_no_dashes_before_them(below: CommandLine, command: str, words: tuple[str, ...]) -> None:
    place = next(number for number, word in enumerate(words) if word != "HEAD")
    with_dashes = below.ok(command, *words[:place], "--", *words[place:])
    assert with_dashes == below.ok(command, *words)
    assert "note.md" in with_dashes or command == "log"
    assert "unknown revision 'nowhere'" in below.refused(3, command, "nowhere", "HEAD")


def test_a_word_that_is_a_revision_and_a_file_is_refused_with_both_ways_out(below: CommandLine) -> None:
    below.ok("branch", "note.md")
    for command in ("log", "diff", "show"):
        assert "put -- before it for the file, or after it" in below.refused(2, command, "note.md")
        assert below.ok(command, "HEAD", "--", "note.md")
        assert below.ok(command, "note.md", "--") == below.ok(command, "heads/note.md")
    assert "gone.md is no file here" in below.refused(2, "log", "../deep/note.md", "gone.md")


def test_a_line_feed_in_the_name_of_a_file_makes_no_line(grown: CommandLine) -> None:
    for place in (grown.directory, grown.directory / "graph", grown.directory.parent / "out"):
        place.mkdir(exist_ok=True)
        (place / "one\nWeights: clean\ttwo").write_text("text\n")
    for said in (
        grown.ok("status"),
        grown.refused(1, "commit", "-m", "x"),
        grown.refused(1, "checkout", "-o", "../out"),
    ):
        assert "one?Weights: clean" in said


def test_a_file_outside_is_refused_by_name(below: CommandLine) -> None:
    for outside in ("/etc/passwd", "../../../base/config.json"):
        assert f"'{outside}' is not a file of the work tree" in below.refused(2, "restore", outside)


def test_a_negative_number_of_commits_is_refused_as_one(grown: CommandLine) -> None:
    for words in (["-n", "-1"], ["--max-count", "-3"], ["--max-count=-3"]):
        assert words[-1][-2:] + " is not in the range" in grown.refused(2, "log", *words)
    assert len(grown.json("log", "-2")) == 2


def test_edits_that_come_along_and_untracked_directories_are_named_from_here(grown: CommandLine) -> None:
    below = grown.directory / "graph" / "deep"
    below.mkdir(parents=True)
    (below / "new.md").write_text("new\n")
    (grown.directory / "runs").mkdir()
    (grown.directory / "runs" / "log").write_text("log\n")
    here = CommandLine(below)
    assert "\t../../runs/\n" in here.ok("status")
    assert here.ok("switch", "-c", "warm").splitlines()[0] == "A\tnew.md"
    assert here.ok("checkout", "--no-weights", "main").splitlines()[0] == "A\tnew.md"
    assert grown.ok("checkout", "-b", "other").splitlines()[0] == "A\tgraph/deep/new.md"
