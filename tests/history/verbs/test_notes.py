"""Notes on commits: written later, shown with the commit, and never part of its id."""

from __future__ import annotations

import pytest

from persona.errors import IntegrityError, Refused, UnknownName, UsageError
from persona.repository import Repository
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.history.bots import Bot, each_cut


def test_a_note_is_shown_with_its_commit_and_changes_no_id(grown: Bot) -> None:
    repo, before = grown.repo, [one.id for one in grown.repo.log()]
    made = repo.notes.add("HEAD~1", "  too eager\n")
    assert (made.id, made.text) == (before[1], "too eager")
    assert [one.id for one in repo.log()] == before
    assert [one.note for one in repo.log()][:3] == [None, "too eager", None]
    assert repo["HEAD~1"].to_json()["note"] == "too eager"
    assert "note" not in repo["HEAD"].to_json()
    assert repo.notes["HEAD~1"] == repo.notes[before[1]] == "too eager"
    assert dict(repo.notes) == {before[1]: "too eager"}
    assert repo.fsck().ok


def test_a_note_is_not_overwritten_unless_asked(grown: Bot) -> None:
    notes = grown.repo.notes
    notes.add("HEAD", "one")
    with pytest.raises(Refused, match=r"has a note already.*\n?hint: .*force=True"):
        notes.add("HEAD", "two")
    assert notes["HEAD"] == "one"
    assert notes.append("HEAD", "two").text == "one\n\ntwo"
    assert notes.append("HEAD~1", "first").text == "first"
    assert notes.add("HEAD", "three", force=True).text == notes["HEAD"] == "three"


def test_notes_are_removed_all_or_none(grown: Bot) -> None:
    notes = grown.repo.notes
    for rev in ("HEAD", "HEAD~2"):
        notes.add(rev, rev)
    with pytest.raises(UnknownName, match="has no note"):
        notes.remove("HEAD", "HEAD~1")
    assert len(notes) == 2
    assert [one.text for one in notes.remove("HEAD", "HEAD~2")] == ["HEAD", "HEAD~2"]
    assert not notes
    with pytest.raises(UnknownName):
        notes.remove()


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_note_is_refused(grown: Bot, text: str) -> None:
    for write in (grown.repo.notes.add, grown.repo.notes.append):
        with pytest.raises(UsageError, match="the note is empty"):
            write("HEAD", text)
    assert not grown.repo.notes


def test_a_damaged_note_hides_no_commit_and_can_be_replaced_or_removed(grown: Bot) -> None:
    repo = grown.repo
    id = repo.notes.add("HEAD", "one").id
    place = repo._history.store.root / "refs/notes/text" / id[:32]
    place.write_bytes(b"nonsense\n")
    with pytest.warns(UserWarning, match="is damaged"):
        assert [one.note for one in repo.log()] == [None] * 4
    assert not repo.fsck().ok
    with pytest.raises(IntegrityError, match=r"hint: .*force=True"):
        _ = repo.notes["HEAD"]
    repo.notes.add("HEAD", "two", force=True)
    assert repo.notes["HEAD"] == "two"
    assert repo.fsck().ok


def test_a_note_that_is_cut_short_is_there_or_not(grown: Bot) -> None:
    def there_or_not(repo: Repository) -> None:
        assert repo["HEAD"].note in (None, "one")

    with replaced_calls(Quick()):
        assert each_cut(grown.root, lambda repo: repo.notes.add("HEAD", "one"), there_or_not) > 3
        grown.repo.notes.add("HEAD", "one")
        assert each_cut(grown.root, lambda repo: repo.notes.remove("HEAD"), there_or_not) > 0
