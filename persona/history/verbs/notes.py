"""`notes`: texts that people write about commits after they were made. No id changes."""

from __future__ import annotations

from persona.errors import Blank, Call, Keyword, Refused, UnknownName, UsageError
from persona.frozen import dataclass
from persona.history import note_refs
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.results import Result
from persona.objects.ids import abbreviate
from persona.objects.note import Note


@dataclass(frozen=True, repr=False)
class CommitNote(Result):
    """The note on a commit: its id, and the text without the line end; "" for a note that is gone."""

    id: str
    text: str


def notes(history: History) -> list[CommitNote]:
    """The notes on commits, in order of ids. Notes on others, such as scores, are not among them."""
    return [CommitNote(note.about, note_refs.text_in(note)) for note in note_refs.all_of(history, "text")]


def note(history: History, rev: str = "HEAD") -> CommitNote:
    """The note on a commit. Raises `UnknownName` if it has none."""
    id = resolve(history, rev, history.notes)
    text = note_refs.text_of(history, id)
    if text is None:
        raise UnknownName(
            f"{abbreviate(id)} has no note",
            hint=(Call("notes.add", rev, message=Blank("MSG")), " writes one"),
        )
    return CommitNote(id, text)


def add_note(history: History, rev: str, message: str, *, force: bool = False) -> CommitNote:
    """Writes a note on a commit. `force` replaces a note that it has; otherwise this raises `Refused`."""
    id = resolve(history, rev, history.notes)
    if not force and note_refs.find(history, "text", id) is not None:
        raise Refused(
            f"{abbreviate(id)} has a note already",
            hint=(
                Keyword(force=True),
                " replaces it; ",
                Call("notes.append", rev, message=Blank("MSG")),
                " adds to it",
            ),
        )
    return _keep(history, id, message)


def append_note(history: History, rev: str, message: str) -> CommitNote:
    """Adds a paragraph to the note on a commit, or writes the note if there is none."""
    id = resolve(history, rev, history.notes)
    before = note_refs.text_of(history, id)
    if not message.strip():
        raise _empty()
    return _keep(history, id, message if before is None else f"{before}\n\n{message.strip()}")


def remove_notes(history: History, *revs: str) -> list[CommitNote]:
    """Removes the notes on some commits, all or none; without `revs` that of HEAD.

    Raises `UnknownName` if one has none. Returns what they said.
    """
    found = [note(history, rev) for rev in revs or ("HEAD",)]
    for one in found:
        note_refs.remove(history, "text", one.id)
    return found


def _keep(history: History, id: str, message: str) -> CommitNote:
    text = message.strip()
    if not text:
        raise _empty()
    note_refs.keep(history, Note(id, "commit", "text", {"text": text}))
    return CommitNote(id, text)


def _empty() -> UsageError:
    return UsageError(
        "the note is empty", hint=(Call("notes.remove", Blank("REV")), " removes the note on a commit")
    )
