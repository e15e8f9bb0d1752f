"""Files of a commit, annotated tags, `status -s`, the names of changed files, and the filters of `log`."""

from __future__ import annotations

import pytest

from tests.cli.command_line import CommandLine


def subjects(said: str) -> list[str]:
    return [line.partition(" ")[2] for line in said.splitlines()]


@pytest.fixture
def filed(grown: CommandLine) -> CommandLine:
    """A repository with files in directories, and a command line in one of them."""
    deep = grown.directory / "graph" / "deep"
    deep.mkdir(parents=True)
    (deep / "note.md").write_text("one\r\n\x00")
    (grown.directory / "graph" / "top.md").write_text("top")
    grown.ok("commit", "-m", "notes")
    (deep / "note.md").write_text("two")
    grown.ok("commit", "-m", "more notes")
    return CommandLine(deep)


def test_a_file_is_shown_as_a_commit_holds_it(filed: CommandLine) -> None:
    assert filed("show", "HEAD~1:graph/deep/note.md").stdout_bytes == b"one\r\n\x00"
    assert (
        filed("show", "HEAD:./note.md").stdout_bytes == filed("show", "main:graph/deep/note.md").stdout_bytes
    )
    assert filed.ok("show", "HEAD:../top.md") == "top"
    assert filed.ok("show", "main@{10:00 2100-01-01}:recipe.toml").startswith("base = ")
    said = filed.json("show", "HEAD:graph/top.md")
    assert (said["path"], said["size"], said["text"]) == ("graph/top.md", 3, "top")
    assert filed.ok("show", "HEAD:./note.md", "HEAD~1:graph/top.md") == "two\n\ntop\n"


def test_a_directory_is_listed(filed: CommandLine) -> None:
    assert filed.ok("show", "HEAD:graph") == "tree HEAD:graph\n\ndeep/\ntop.md\n"
    assert filed.ok("show", "HEAD:").splitlines()[2:] == [
        "chat_template.jinja",
        "config.json",
        "graph/",
        "recipe.toml",
    ]
    assert filed.json("show", "HEAD:.")["files"] == ["graph/deep/note.md"]


def test_a_file_that_is_not_there_is_told_with_the_one_that_is(filed: CommandLine) -> None:
    assert "`persona show HEAD:./note.md`" in filed.refused(3, "show", "HEAD:note.md")
    assert "`persona show HEAD:` lists its files" in filed.refused(3, "show", "HEAD:nope")
    assert "try `persona show HEAD:recipe.toml`" in filed.refused(3, "show", ":recipe.toml")
    assert "unknown revision 'nowhere'" in filed.refused(3, "show", "nowhere:recipe.toml")


def test_an_annotated_tag_is_shown_before_its_commit(grown: CommandLine) -> None:
    grown.ok("tag", "-a", "v1", "-m", "the first\n\nthat people liked", "HEAD~1")
    grown.ok("tag", "light", "HEAD~1")
    said = grown.ok("show", "v1").splitlines()
    assert said[0] == "tag v1"
    assert said[1].startswith("Tagger: ")
    assert said[3:7] == ["", "the first", "", "that people liked"]
    assert said[8].startswith("commit ")
    answer = grown.json("show", "v1")
    assert answer["tag"]["message"] == "the first\n\nthat people liked\n"
    assert grown.ok("show", answer["tag"]["id"][:12]).splitlines() == said
    for other in ("light", "HEAD~1", "v1~0"):
        assert grown.ok("show", other).startswith("commit ")
    assert grown.ok("show", "light", "v1").count("\ntag v1\n") == 1


def test_tags_are_listed_with_lines_of_their_messages(grown: CommandLine) -> None:
    grown.ok("tag", "-a", "v1", "-m", "the first\n\nthat people liked")
    grown.ok("tag", "a-light-one-of-many")
    assert grown.ok("tag", "-n").splitlines() == [
        "a-light-one-of-many a little less",
        "v1              the first",
    ]
    assert grown.ok("tag", "-n3", "v*") == "v1              the first\n\n    that people liked\n"
    assert grown.ok("tag", "-l", "-n") == grown.ok("tag", "-n1")


def test_status_on_one_line_for_each_file(filed: CommandLine) -> None:
    assert filed.ok("status", "-s") == ""
    assert filed.ok("status", "-sb") == "## main\n"
    filed.ok("set", "listening", "--alpha", "0.25")
    (filed.directory / "note.md").write_text("three")
    (filed.directory / "new.md").write_text("new")
    (filed.directory.parents[1] / "chat_template.jinja").unlink()
    (filed.directory.parents[1] / "mine.txt").write_text("mine")
    assert filed.ok("status", "-s").splitlines() == [
        "D  ../../chat_template.jinja",
        "A  new.md",
        "M  note.md",
        "M  ../../recipe.toml",
        "?? ../../mine.txt",
    ]
    assert filed.ok("status", "--porcelain", "--branch").splitlines()[:3] == [
        "## main",
        "D  chat_template.jinja",
        "A  graph/deep/new.md",
    ]
    filed.ok("switch", "-d", "HEAD")
    assert filed.ok("status", "-b").startswith("## HEAD (no branch)\n")


def test_the_names_of_changed_files(filed: CommandLine) -> None:
    assert filed.ok("diff", "HEAD~3", "HEAD", "--name-status").splitlines() == [
        "A\tgraph/deep/note.md",
        "A\tgraph/top.md",
        "M\trecipe.toml",
    ]
    assert filed.ok("diff", "HEAD~1", "HEAD", "--name-only") == "graph/deep/note.md\n"
    assert filed.ok("show", "--format=%s", "--name-only", "HEAD~2").splitlines()[-1] == "recipe.toml"
    assert filed.ok("log", "-n", "1", "--oneline", "--name-status").endswith(
        " more notes\nM\tgraph/deep/note.md\n"
    )
    assert "diff" not in filed.ok("show", "-s")


def test_log_finds_commits_by_person_and_message(grown: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_AUTHOR_NAME", "Ada")
    grown.ok("commit", "--allow-empty", "-m", "Warm\n\nand calm")
    log = ("log", "--oneline")
    assert subjects(grown.ok(*log, "--author", "^Ada")) == ["Warm"]
    assert subjects(grown.ok(*log, "--author", "ada", "-i", "--author=nobody")) == ["Warm"]
    assert len(subjects(grown.ok(*log, "--committer", "."))) == 4
    assert subjects(grown.ok(*log, "--committer", "Ada")) == []
    assert subjects(grown.ok(*log, "--grep", "^and", "--grep", "^listen")) == [
        "Warm",
        "listen before answering",
    ]
    assert subjects(grown.ok(*log, "--grep", "a", "--grep", "calm", "--all-match")) == ["Warm"]
    assert subjects(grown.ok(*log, "--grep", "a", "--grep", "i", "--invert-grep")) == []
    assert subjects(grown.ok(*log, "--grep", "LISTEN", "-i", "-n", "1", "--skip", "1")) == []
    assert subjects(grown.ok(*log, "-n", "2", "--reverse")) == ["a little less", "Warm"]
    assert subjects(grown.ok(*log, "-n", "1", "--skip", "1")) == ["a little less"]
    assert "is not a regular expression" in grown.refused(4, "log", "--grep", "(")
    assert "leave out --reverse" in grown.refused(2, "log", "--graph", "--reverse")
    assert grown.ok(*log, "--graph", "--author", "Ada").startswith("* ")


def test_the_reflog_with_times(grown: CommandLine) -> None:
    said = grown.ok("reflog", "--date=short").splitlines()
    assert all("HEAD@{20" in line for line in said)
    assert grown.ok("reflog", "main", "-n", "1") == grown.ok("reflog", "show", "main", "-n", "1")
    assert grown.ok("reflog", "expire", "-n", "--all").startswith("HEAD: 0 moves would be removed, 3 kept\n")
    assert grown.ok("reflog", "expire", "--expire=now", "main") == "main: 2 moves removed, 1 kept\n"


def test_two_files_of_two_commits_are_compared_as_lines(filed: CommandLine) -> None:
    said = filed.ok("diff", "HEAD~1:recipe.toml", "HEAD:recipe.toml")
    assert said == "" or said.startswith("diff a/recipe.toml b/recipe.toml\n--- a/recipe.toml\n+++ b/")
    other = filed.ok("diff", "HEAD:recipe.toml", "HEAD:config.json").splitlines()
    assert other[:3] == ["diff a/recipe.toml b/config.json", "--- a/recipe.toml", "+++ b/config.json"]
    assert filed("diff", "--exit-code", "HEAD:recipe.toml", "HEAD:config.json").exit_code == 1
    assert "each as REV:FILE" in filed.refused(2, "diff", "HEAD:recipe.toml")
    assert "each as REV:FILE" in filed.refused(2, "diff", "HEAD:recipe.toml", "HEAD")
    assert "is no file" in filed.refused(2, "diff", "HEAD:", "HEAD~1:")


def test_a_vector_may_stand_where_a_file_does(grown: CommandLine) -> None:
    assert grown.ok("log", "--oneline", "--", "listening") == grown.ok(
        "log", "--oneline", "--vector", "listening"
    )
    assert grown.ok("blame", "HEAD", "--", "listening") == grown.ok("blame", "HEAD", "--vector", "listening")
    assert "blame looks at recipe.toml only" in grown.refused(2, "blame", "HEAD", "--", "nobody")
