"""Notes in refs/notes/: reading one by its name, and keeping one.

| kind | about | its ref below refs/notes/ |
| --- | --- | --- |
| scores | a commit or a vector | scores/ and the start of its id |
| measured | a weights digest | measured/ and the start of the digest of its key |
| weights | the key of a recipe | weights/ and the start of the key |
| provenance | a vector | provenance/ and the start of the note's own id |
| text | a commit | text/ and the start of its id |

A start is 32 hex digits. So a note is found without a look at the others, and a newer note replaces an older
one of the same name. These refs have no reflogs. A note may outlive what it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from persona.errors import Blank, Call, Hint, IntegrityError, PersonaError
from persona.history.history import History
from persona.objects import canonical, fields
from persona.objects.ids import object_id
from persona.store.refs import NOTES, TEXTS

if TYPE_CHECKING:
    from persona.objects.note import Note

_START: Final = 32


def ref_named(kind: str, digits: str) -> str:
    """The ref of a note by its kind, and the hex digits that name it among those."""
    return f"{NOTES}{kind}/{digits[:_START]}"


def ref_of(note: Note) -> str:
    """The ref that a note belongs to."""
    if note.kind == "provenance":
        return ref_named(note.kind, object_id("note", note.encode()))
    return ref_named(note.kind, key_digest(note.data.get("key")) if note.kind == "measured" else note.about)


def key_digest(key: Any) -> str:
    """The digest of the key of a measurement, 64 hex digits."""
    return blake3(canonical.encode(key)).hexdigest()


def find(history: History, kind: str, digits: str) -> Note | None:
    """The note of a kind and the digits that name it. Raises `IntegrityError` if it is damaged."""
    name = ref_named(kind, digits)
    try:
        id = history.store.refs.read(name)
    except IntegrityError as error:
        error.hint = _way_out(name)
        raise
    return None if id is None else read(history, name, id)


def read(history: History, name: str, id: str) -> Note:
    """The note that a ref names. Raises `IntegrityError` for damage, and for a note of another ref."""
    from persona.objects.note import Note

    try:
        note = Note.decode(history.store.objects.get(id, "note"))
    except PersonaError as error:
        raise damaged(history, name, error.message) from error
    if ref_of(note) != name:
        raise damaged(history, name, f"its note belongs to {ref_of(note)}")
    return note


def damaged(history: History, name: str, problem: str) -> IntegrityError:
    """The error for a note that cannot be read, by its ref."""
    path = str(history.store.root / name)
    return IntegrityError(f"{path}: {problem}", kind="note", file=path, hint=_way_out(name))


def text_of(history: History, commit: str) -> str | None:
    """The text of the note on a commit, or None. Raises `IntegrityError` if it is damaged."""
    note = find(history, "text", commit)
    if note is None:
        return None
    try:
        return text_in(note)
    except IntegrityError as error:
        raise damaged(history, ref_of(note), error.message) from error


def text_in(note: Note) -> str:
    """What somebody wrote about a commit. `IntegrityError` for a note that does not say it."""
    text: str = fields.text(fields.mapping(note.data, "note data", ("text",))["text"], "note text")
    if note.about_kind != "commit" or not text.strip():
        raise IntegrityError("its note must have a text about a commit")
    return text


def _way_out(name: str) -> Hint | None:
    if name.startswith(TEXTS):
        start = name.removeprefix(TEXTS)
        return (Call("notes.add", start, message=Blank("MSG"), force=True), " replaces the note")
    return None if name.startswith(f"{NOTES}provenance/") else "measure it again, which replaces the note"


def all_of(history: History, kind: str) -> list[Note]:
    """Every note of a kind. One that is damaged is left out, and the history's notes name it."""
    found = []
    for name, id in history.store.refs.list(f"{NOTES}{kind}/", notes=history.notes).items():
        try:
            found.append(read(history, name, id))
        except IntegrityError as error:
            history.notes.append(error.note)
    return found


def keep(history: History, note: Note) -> None:
    """Stores a note, in place of an older one of its name.

    Two calls at once both succeed; if they keep a note of the same name, the later one stays.
    """
    with history.store.transaction() as tx:
        id = tx.put("note", note.encode())
    history.store.refs.set_note(ref_of(note), id)


def remove(history: History, kind: str, digits: str) -> None:
    """Removes the ref of a note, also one that is damaged."""
    history.store.refs.set_note(ref_named(kind, digits), None)
