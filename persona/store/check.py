"""The checks of `fsck` on the bytes of a store: records, packs, footers, idx files, other files.

**healed copy** — a damaged copy of an object that also has an intact copy: nothing is lost, and no command
reads the damaged one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from persona.cores import in_order, thread_count
from persona.errors import IntegrityError, PersonaError
from persona.frozen import dataclass
from persona.objects.ids import is_id
from persona.store import files
from persona.store.files import Buffer
from persona.store.index import Entry
from persona.store.objects import BULK_KINDS, Copy, check_id
from persona.store.pack import IDX_SUFFIX, SUFFIX, Pack
from persona.store.records import Record

if TYPE_CHECKING:
    from persona.store.objects import ObjectStore


@dataclass(frozen=True)
class Damage:
    """A problem of the files of the store.

    `healed`: an intact copy of the object exists, so nothing is lost.
    """

    kind: str
    id: str
    file: str
    problem: str
    healed: bool = False


PayloadOf = Callable[[Record], Iterable[Buffer] | None]
"""The parts of a record's canonical payload, or None when they cannot be had (its base chunk is damaged)."""


def problems(
    store: ObjectStore, full: bool = False, payload_of: PayloadOf | None = None, *, threads: int | None = None
) -> Iterator[Damage]:
    """The problems in the stored bytes of every copy of every object, and in their packs.

    `full`: also in ids. `payload_of` decodes the kinds of `BULK_KINDS`, on `threads` threads (default: one
    for each core); without it their ids stay unverified.
    """
    store.refresh()
    for one in store.open_packs().values():
        yield from _pack_problems(store, one, full, payload_of, thread_count(threads))
    for id, path in store.loose(""):
        yield from _copy_problems(store, Copy(path, None, None), id, None, full, payload_of)
    yield from _misplaced(store)


def _pack_problems(
    store: ObjectStore, one: Pack, full: bool, payload_of: PayloadOf | None, threads: int
) -> Iterator[Damage]:
    try:
        one.check_frame()
    except PersonaError as error:
        yield Damage("pack", one.name, str(one.path), error.message, _redundant(store, one))
    try:
        entries = {entry.id: entry for entry in one.index()}
    except PersonaError:
        return
    with suppress(PersonaError):
        entries.update((entry.id, entry) for entry in one.footer())

    def check(entry: Entry) -> list[Damage]:
        copy = Copy(one.path, one, entry)
        return list(_copy_problems(store, copy, entry.id, entry.kind, full, payload_of))

    in_file = sorted(entries.values(), key=lambda entry: entry.offset)
    with closing(in_order(check, in_file, threads=threads)) as checked:
        for damages in checked:
            yield from damages


def _redundant(store: ObjectStore, one: Pack) -> bool:
    """Whether every object of a pack has an intact copy elsewhere."""
    return all(
        any(copy.pack is not one and _intact(store, copy, entry.id) for copy in store.copies(entry.id))
        for entry in store.entries(one, "")
    )


def _intact(store: ObjectStore, copy: Copy, id: str) -> bool:
    try:
        store.verify(copy, id)
    except PersonaError:
        return False
    return True


def _copy_problems(
    store: ObjectStore, copy: Copy, id: str, kind: str | None, full: bool, payload_of: PayloadOf | None
) -> Iterator[Damage]:
    try:
        found = store.verify(copy, id)
        kind = kind or found.kind
        if kind != found.kind:
            raise IntegrityError(f"{found.kind} {id[:12]} in {copy.file} is indexed as {kind}")
        if found.kind in BULK_KINDS and full and payload_of is not None:
            record = store.unpack(copy, id, kind)
            parts = payload_of(record)
            if parts is not None:
                check_id(record, parts, str(copy.file))
    except PersonaError as error:
        healed = _reads_right(store, copy, id, payload_of if full else None)
        yield Damage(kind or "object", id, str(copy.file), error.message, healed)


def _reads_right(store: ObjectStore, bad: Copy, id: str, payload_of: PayloadOf | None) -> bool:
    """Whether a reader gets another copy than a bad one, and a right one."""
    found = store.intact(id)
    if found is None or found[0] == bad:
        return False
    if found[1].kind not in BULK_KINDS or payload_of is None:
        return True
    try:
        record = store.unpack(found[0], id, None)
        parts = payload_of(record)
        if parts is not None:
            check_id(record, parts, str(found[0].file))
    except PersonaError:
        return False
    return True


def _misplaced(store: ObjectStore) -> Iterator[Damage]:
    """Everything among the objects that is no object: links, pipes, files with other names."""
    for item in files.names_in(store.loose_dir):
        path = Path(item.path)
        if not (item.is_dir(follow_symlinks=False) and len(item.name) == 2 and _is_hex(item.name)):
            yield Damage("object", "", item.path, f"{item.path} is not a directory of objects")
            continue
        for below in files.names_in(path):
            if not is_id(item.name + below.name):
                yield Damage("object", "", below.path, f"{below.path} is not an object")
    for item in files.names_in(store.packs_dir):
        if not item.is_file(follow_symlinks=False) or not item.name.endswith((SUFFIX, IDX_SUFFIX)):
            yield Damage("pack", "", item.path, f"{item.path} is not a pack")


def _is_hex(text: str) -> bool:
    return is_id(text.ljust(64, "0"))
