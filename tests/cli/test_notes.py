"""`notes` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine


def test_a_note_is_listed_shown_and_removed(grown: CommandLine) -> None:
    id = grown.json("rev-parse", "HEAD~1")["id"]
    assert grown.ok("notes") == ""
    assert grown.ok("notes", "add", "-m", "too eager", "-m", "with children", "HEAD~1") == ""
    assert grown.ok("notes") == grown.ok("notes", "list", "HEAD~1") == f"{id[:8]} too eager\n"
    assert grown.ok("notes", "show", "HEAD~1") == "too eager\n\nwith children\n"
    assert "\n\nNotes:\n    too eager\n\n    with children\n" in grown.ok("show", "HEAD~1")
    assert grown.json("notes", "show", "HEAD~1") == {"id": id, "text": "too eager\n\nwith children"}
    assert "has a note already" in grown.refused(1, "notes", "add", "-m", "x", "HEAD~1")
    grown.ok("notes", "add", "-f", "-m", "new", "HEAD~1")
    assert grown.ok("notes", "remove", "HEAD~1") == f"Removed the note on {id[:8]}\n"
    sentence = grown.refused(3, "notes", "show", "HEAD~1")
    assert f"{id[:8]} has no note\nhint: `persona notes add --message MSG 'HEAD~1'` writes one" in sentence


def test_a_note_may_come_from_a_file_or_stdin(grown: CommandLine) -> None:
    (grown.directory.parent / "text").write_text("from a file\n")
    grown.ok("notes", "add", "-F", "../text")
    assert grown("notes", "append", "-F", "-", typed="from stdin\n").exit_code == 0
    assert grown.ok("notes", "show") == "from a file\n\nfrom stdin\n"


def test_a_note_is_edited_in_the_editor(
    grown: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setattr("persona.cli.invocation.Invocation.interactive", True)
    monkeypatch.setenv("PERSONA_EDITOR", f'sh -c \'cp "$1" {seen}; cat {tmp_path}/new > "$1"\' x')
    (tmp_path / "new").write_text("first\n# a comment\n")
    grown.ok("notes", "edit")
    assert grown.ok("notes", "show") == "first\n"
    (tmp_path / "new").write_text("second\n")
    grown.ok("notes", "add")  # as in git, it edits the note that is there
    assert seen.read_text().startswith("first\n# Write the note on ")
    assert grown.ok("notes", "show") == "second\n"
    (tmp_path / "new").write_text("# nothing\n")
    assert grown.ok("notes", "edit").startswith("Removed the note on ")
    assert "the message is empty; no note was written" in grown.refused(1, "notes", "edit")


def test_an_empty_note_is_refused(grown: CommandLine) -> None:
    assert "the note is empty" in grown.refused(2, "notes", "add", "-m", " ")
