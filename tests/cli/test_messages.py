"""Where messages come from: words, files, stdin and the editor. One that was typed is not lost."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from persona.cli.invocation import Invocation
from tests.cli.command_line import CommandLine
from tests.cli.processes import PROGRAM, on_a_terminal, write_editor

LATIN = "für später".encode("latin-1")


def last_message(persona: CommandLine) -> str:
    return str(persona.json("log", "-1")[0]["message"]).rstrip("\n")


@pytest.fixture
def changed(grown: CommandLine) -> CommandLine:
    """A repository with something to commit."""
    grown.ok("set", "listening", "--alpha", "0.25")
    return grown


@pytest.mark.parametrize("way", ["-m", "-F", "-F -", "editor"])
def test_a_message_in_latin_1_is_taken_and_said(changed: CommandLine, tmp_path: Path, way: str) -> None:
    (tmp_path / "latin").write_bytes(LATIN)
    if way == "editor":
        editor = write_editor(tmp_path / "editor", f'cat "{tmp_path}/latin" > "$1"')
        code, said = on_a_terminal(changed.directory, "commit", PERSONA_EDITOR=editor)
        assert code == 0, said
    else:
        words: list[str | Path] = {
            "-m": ["-m", os.fsdecode(LATIN)],
            "-F": ["-F", tmp_path / "latin"],
            "-F -": ["-F", "-"],
        }[way]
        result = changed("commit", *words, typed=LATIN)
        assert result.exit_code == 0, result.output
        said = result.stderr
    assert "not UTF-8" in said
    assert last_message(changed) == "für später"


def test_a_message_without_end_is_refused(changed: CommandLine) -> None:
    assert "longer than" in changed.refused(4, "commit", "-F", "/dev/zero")
    changed.refused(7, "commit", "-F", "nowhere")
    changed.refused(7, "commit", "-F", "..")


def test_the_file_of_a_message_has_a_name_that_editors_know(changed: CommandLine, tmp_path: Path) -> None:
    editor = write_editor(tmp_path / "editor", 'echo "$1" >> "$0.saw"; echo words > "$1"')
    assert on_a_terminal(changed.directory, "commit", PERSONA_EDITOR=editor)[0] == 0
    assert on_a_terminal(changed.directory, "tag", "-a", "v1", PERSONA_EDITOR=editor)[0] == 0
    assert on_a_terminal(changed.directory, "revert", "-e", "HEAD", PERSONA_EDITOR=editor)[0] == 0
    saw = (tmp_path / "editor.saw").read_text().split()
    names = ["COMMIT_EDITMSG", "TAG_EDITMSG", "COMMIT_EDITMSG"]
    assert saw == [str(changed.directory / ".persona" / name) for name in names]
    assert changed.json("tag")[0]["message"] == "words"
    assert changed.json("fsck")["ok"]


def test_a_message_survives_a_commit_that_fails(changed: CommandLine, tmp_path: Path) -> None:
    # While the editor is open somebody else commits the same.
    body = f'echo "an hour of thought" > "$1"; {shlex.join(PROGRAM)} commit -m meanwhile >/dev/null'
    editor = write_editor(tmp_path / "editor", body)
    code, said = on_a_terminal(changed.directory, "commit", PERSONA_EDITOR=editor)
    assert code == 1, said
    kept = re.search(r"kept in (\S+); give it with -m MSG or -F FILE", said)
    assert kept, said
    changed.ok("commit", "--allow-empty", "-F", kept[1])
    assert last_message(changed) == "an hour of thought"


def test_a_revert_that_is_committed_later_has_its_message_prepared(
    grown: CommandLine, tmp_path: Path
) -> None:
    subject = grown.json("log")[0]["message"].split("\n")[0]
    grown.ok("revert", "-n", "HEAD")
    code, said = on_a_terminal(grown.directory, "commit", PERSONA_EDITOR="true")
    assert code == 0, said
    assert last_message(grown).startswith(f'Revert "{subject}"')
    grown.ok("revert", "-n", "HEAD")
    grown.ok("commit", "--no-edit")
    assert last_message(grown).startswith('Revert "Revert')


@pytest.mark.parametrize(
    "away", [("commit", "-m", "x"), ("reset", "--hard"), ("switch", "-d", "HEAD~1", "-f")]
)
def test_a_prepared_message_is_gone_with_the_revert(grown: CommandLine, away: tuple[str, ...]) -> None:
    grown.ok("revert", "-n", "HEAD")
    grown.ok(*away)
    assert "a commit needs a message" in grown.refused(2, "commit", "--no-edit", "--allow-empty")


def test_a_message_of_a_tag_survives_too(grown: CommandLine, tmp_path: Path) -> None:
    grown.ok("tag", "v1")
    editor = write_editor(tmp_path / "editor", 'echo thought > "$1"')
    code, said = on_a_terminal(grown.directory, "tag", "-a", "v1", PERSONA_EDITOR=editor)
    assert code == 1, said
    assert f"kept in {grown.directory}/.persona/TAG_EDITMSG" in said
    grown.ok("tag", "-f", "-F", grown.directory / ".persona" / "TAG_EDITMSG", "v1")
    assert grown.json("tag")[0]["message"] == "thought"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 3", "failed with exit code 3"),
        ("kill -9 $$", "failed with exit code"),
        (None, "was not found"),
    ],
)
@pytest.mark.parametrize("words", ["commit", "tag -a v1", "revert -e HEAD", "commit --amend"])
def test_an_editor_that_fails_is_a_no(
    grown: CommandLine, tmp_path: Path, body: str | None, why: str, words: str
) -> None:
    if words == "commit":
        grown.ok("set", "listening", "--alpha", "0.25")
    editor = write_editor(tmp_path / "editor", body) if body else "/nowhere/editor"
    before = grown.json("log"), grown.json("tag")
    code, said = on_a_terminal(grown.directory, *words.split(), PERSONA_EDITOR=editor)
    assert code == 1, said
    assert f"the editor `{editor}` {why}" in " ".join(said.split())
    assert "core.editor" in said
    assert before == (grown.json("log"), grown.json("tag"))


@pytest.mark.parametrize(
    ("words", "undone"),
    [
        ("commit", "nothing was committed"),
        ("tag -a v1", "no tag was made"),
        ("revert -e HEAD", "nothing was reverted"),
    ],
)
def test_an_empty_message_says_what_was_not_done(
    changed: CommandLine, tmp_path: Path, words: str, undone: str
) -> None:
    editor = write_editor(tmp_path / "editor", ': > "$1"')
    code, said = on_a_terminal(changed.directory, *words.split(), PERSONA_EDITOR=editor)
    assert (code, f"the message is empty; {undone}" in said) == (1, True), said


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("tag -a v1", "-m MSG or -F FILE"),
        ("revert -e HEAD", "--message MSG"),
    ],
)
def test_without_a_terminal_the_flags_are_named(grown: CommandLine, words: str, instead: str) -> None:
    sentence = grown.refused(2, *words.split())
    assert sentence.endswith(f"give one with {instead}")
    for flag in re.findall(r"-[a-zA-Z-]+", instead):
        assert f"{flag}" in grown.ok(words.split()[0], "--help")


# -- which editor


def test_the_editor_is_the_one_that_git_would_open(
    grown: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from persona.cli import messages

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name in ("PERSONA_EDITOR", "GIT_EDITOR", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)

    def chosen() -> str | None:
        return messages._editor(Invocation(grown.directory))

    assert chosen() is None
    with monkeypatch.context() as on_terminal:
        on_terminal.setattr(Invocation, "interactive", True)
        assert chosen() == "vi"
    monkeypatch.setenv("EDITOR", "five")
    assert chosen() == "five"
    monkeypatch.setenv("VISUAL", "four")
    monkeypatch.setenv("TERM", "dumb")
    assert chosen() == "five"
    monkeypatch.setenv("TERM", "xterm")
    assert chosen() == "four"
    subprocess.run(["git", "config", "--global", "core.editor", "three"], check=True)
    assert chosen() == "three"
    grown.ok("config", "--global", "core.editor", "two and a half")
    assert chosen() == "two and a half"
    monkeypatch.setenv("GIT_EDITOR", "two")
    assert chosen() == "two"
    monkeypatch.setenv("PERSONA_EDITOR", "one")
    assert chosen() == "one"


def test_a_repository_names_no_editor(grown: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from persona.cli import messages

    said = grown.refused(2, "config", "core.editor", "their own")
    assert "`persona config --global core.editor 'their own'`" in said
    (grown.directory / ".persona" / "config").write_text('[core]\neditor = "theirs"\n')
    subprocess.run(["git", "init", "--quiet"], cwd=grown.directory, check=True)
    subprocess.run(["git", "config", "core.editor", "theirs"], cwd=grown.directory, check=True)
    for name in ("PERSONA_EDITOR", "GIT_EDITOR", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    assert messages._editor(Invocation(grown.directory)) is None
    assert messages._list_editor(Invocation(grown.directory)) is None


def test_an_editor_may_have_arguments(changed: CommandLine, tmp_path: Path) -> None:
    editor = write_editor(tmp_path / "my editor", 'echo "$1" > "$2"')
    code, said = on_a_terminal(changed.directory, "commit", GIT_EDITOR=f'"{editor}" "with an argument"')
    assert code == 0, said
    assert last_message(changed) == "with an argument"


def test_an_editor_that_is_named_needs_no_terminal(
    changed: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDITOR", write_editor(tmp_path / "editor", 'echo "by a script" > "$1"'))
    changed.ok("commit")
    assert last_message(changed) == "by a script"
    changed.ok("tag", "-a", "v1")
    changed.ok("notes", "edit")
    assert changed.ok("notes", "show").strip() == "by a script"
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i -e s/^pick/reword/")
    changed.ok("commit", "--allow-empty", "-m", "another")
    changed.ok("rebase", "-i", "HEAD~1")
    assert last_message(changed) == "by a script"
