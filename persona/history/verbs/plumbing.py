"""`cat-file` and `count-objects`."""

from __future__ import annotations

import json

from persona.errors import Call, UnknownName, UnknownRevision, quoted
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.store_results import Leftover, ObjectCount, ObjectText
from persona.history.worktree.changing import leftovers
from persona.objects.table import ID_BYTES
from persona.store.refs import NoteList


def count_objects(history: History) -> ObjectCount:
    """Counts objects, packs and bytes on disk."""
    found = tuple(Leftover(str(path), size) for path, size in leftovers(history))
    return ObjectCount(*history.store.objects.counts(), found)


def cat_file(history: History, id: str) -> ObjectText:
    """An object as text, by the start of its id or by revision."""
    id, kind = _find(history, id, history.notes)
    objects = history.store.objects
    if kind in ("chunk", "delta"):
        record = objects.read(id, kind)
        sizes = ", ".join(str(memoryview(segment).nbytes) for segment in record.segments)
        lines = [f"form {record.form:#010x}", f"segments {sizes}", f"stored {objects.stored_bytes(id)}"]
        if record.relative:
            lines.insert(0, f"relative {record.relative}")
        size = sum(memoryview(segment).nbytes for segment in record.segments)
        return ObjectText(id, kind, size, ("\n".join(lines) + "\n").encode())
    data = objects.get(id, kind)
    shown = data
    if kind == "table":
        starts = range(0, len(data), ID_BYTES)
        shown = "".join(data[start : start + ID_BYTES].hex() + "\n" for start in starts).encode()
    elif kind != "blob":
        shown = json.dumps(json.loads(data), indent=1, ensure_ascii=False).encode() + b"\n"
    return ObjectText(id, kind, len(data), shown)


def _find(history: History, text: str, notes: NoteList) -> tuple[str, str]:
    found = history.objects_starting(text)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{id[: len(text) + 4]} ({kind})" for id, kind in found[:8])
        raise UnknownName(f"{text} is the start of {len(found)} objects: {listed}; give more digits")
    try:
        id = resolve(history, text, notes)
    except UnknownRevision:
        raise UnknownName(
            f"nothing has the name {quoted(text)} or an id that begins with it",
            hint=(Call("log", all=True), " lists the commits"),
        ) from None
    return id, "commit"
