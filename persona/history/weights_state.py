"""What the weights in the work tree are: for which recipe they were computed, and whether they still are
that.

**record** — the recipe's meaning (its key), the commit it was computed for, the weights digest, and size,
time and inode of every weights file. ``now`` is what was published; ``next`` is written before a publication,
so that one cut short is recognised by its digest. Files whose size, time and inode are unchanged are taken to
be unchanged; otherwise they are hashed before anything is said. **untouched** — a file whose inode was not
changed since either: that time no program sets back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from persona.errors import PersonaError
from persona.history.history import History, renamed
from persona.history.results import Progress, WeightsState
from persona.objects.digest import weights_digest
from persona.objects.ids import object_id
from persona.objects.recipe import Recipe
from persona.objects.rules import NUMERICS
from persona.weights.checkpoint import Checkpoint
from persona.weights.writer import weight_files

STATE: Final = "weights"
_TENSORS: Final = "checkout"
_EDITED: Final = "edited"
_READ_BYTES: Final = 8 << 20

Stats = dict[str, list[int]]


@dataclass(frozen=True)
class Record:
    """What weights were computed for. `revision` is None for a recipe that was not committed; `changed`: when
    each file's inode was changed last, in nanoseconds.
    """

    key: str
    revision: str | None
    digest: str
    files: Stats
    changed: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form in state/weights."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """absent | unknown | intact | edited, and the record of the weights where there is one."""

    state: str
    record: Record | None


def key_of(recipe: Recipe) -> str:
    """What a recipe means in this version of the arithmetic: equal for recipes that differ by names alone."""
    return object_id("recipe", b"numerics %d\0" % NUMERICS + renamed(recipe).encode())


def stats(root: Path) -> Stats:
    """Size, modification time in nanoseconds and inode of every weights file in the work tree."""
    found: Stats = {}
    for name in weight_files(root):
        try:
            status = (root / name).stat()
        except OSError:
            found[name] = []
            continue
        found[name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return found


def untouched(root: Path, record: Record) -> set[str]:
    """The weights files in which nothing was written since they were published, not even in secret."""
    here = _changed(root)
    return {name for name, time in record.changed.items() if here.get(name) == time}


def _changed(root: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in weight_files(root):
        with suppress(OSError):
            found[name] = (root / name).stat().st_ctime_ns
    return found


def measure(directory: Path, progress: Progress | None = None) -> str:
    """The weights digest of the checkpoint in a directory, computed from its files. Raises what opening it
    raises.
    """
    digests: list[tuple[str, str, tuple[int, ...], bytes]] = []
    buffer = memoryview(bytearray(_READ_BYTES))
    with Checkpoint.open(directory) as checkpoint:
        done, total = 0, checkpoint.nbytes
        for name, (spec, _) in checkpoint.tensors.items():
            hasher = blake3()
            for start in range(0, spec.nbytes, _READ_BYTES):
                part = buffer[: min(_READ_BYTES, spec.nbytes - start)]
                checkpoint.read_into(name, start, part)
                hasher.update(part)
                done += len(part)
                if progress:
                    progress("hashing the weights", done, total)
            digests.append((name, spec.dtype, spec.shape, hasher.digest()))
    return weights_digest(digests)


def look(history: History, *, locked: bool = False) -> Found:
    """What the weights of the work tree are. `locked`: the caller holds the work tree's lock."""
    now, next_ = _read(history)
    here = stats(history.root)
    if not here:
        return Found("absent", now)
    if now is None and next_ is None:
        return Found("unknown", None)
    if now is not None and now.files == here and next_ is None:
        return Found("intact", now)
    return _identify(history, here, now, next_, locked)


def expect(history: History, recipe: Recipe, revision: str | None, digest: str) -> None:
    """Notes, before a publication, what is going to be there."""
    now, _ = _read(history)
    _write(history, now, Record(key_of(recipe), revision, digest, {}))


def settle(
    history: History,
    recipe: Recipe,
    revision: str | None,
    digest: str,
    tensors: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Notes what is there after a publication. `tensors`: name → (key of its inputs, BLAKE3 hex of its
    bytes).
    """
    record = Record(key_of(recipe), revision, digest, stats(history.root), _changed(history.root))
    _write(history, record, None)
    if tensors is not None:
        value = {"digest": digest, "tensors": tensors}
        history.store.cache(_TENSORS).write(json.dumps(value).encode())


def take(history: History, progress: Progress | None) -> None:
    """Weights that were trained in place and taken in as a vector are no edit that could be lost any more."""
    _write(history, Record("", None, measure(history.root, progress), stats(history.root)), None)


def adopt_commit(history: History, recipe: Recipe, revision: str) -> None:
    """Weights computed for this recipe before it was committed are those of the commit now."""
    now, next_ = _read(history)
    if now is not None and now.revision is None and now.key == key_of(recipe):
        _write(history, replace(now, revision=revision), next_)


def tensor_digests(history: History, record: Record) -> dict[str, tuple[str, str]]:
    """name → (key of its inputs, BLAKE3 hex of its bytes) of the weights of `record`; empty where that is not
    known.
    """
    data = history.store.cache(_TENSORS).read()
    value = json.loads(data) if data else {}
    if value.get("digest") != record.digest:
        return {}
    return {name: (key, digest) for name, (key, digest) in value["tensors"].items()}


def describe(
    found: Found, head: str | None, head_recipe: Recipe | None, recipe: Recipe | None
) -> WeightsState:
    """The state as `status` names it; `recipe` is the work tree's, None when it cannot be read."""
    record = found.record
    if found.state != "intact" or record is None:
        named = record.revision if record and found.state == "edited" else None
        return WeightsState(found.state, named)
    if head_recipe is not None and record.key == key_of(head_recipe):
        return WeightsState("clean", head)
    if recipe is not None and record.key == key_of(recipe):
        return WeightsState("uncommitted", None)
    return WeightsState("stale", record.revision)


def _identify(history: History, here: Stats, now: Record | None, next_: Record | None, locked: bool) -> Found:
    """Hashes weights that do not look as they were left, and finds out whose they are."""
    cache = history.store.cache(_EDITED)
    known = [here, now.digest if now else None, next_.digest if next_ else None]
    if cache.read() == json.dumps(known).encode():
        return Found("edited", now)
    try:
        digest = measure(history.root)
    except PersonaError:
        digest = None
    for record in (now, next_):
        if record is not None and record.digest == digest:
            record = replace(record, files=here)
            _adopt(history, record, (now, next_), locked)
            return Found("intact", record)
    cache.write(json.dumps(known).encode())
    return Found("edited", now)


def _adopt(history: History, record: Record, seen: tuple[Record | None, Record | None], locked: bool) -> None:
    """Writes down what hashing found out, unless another command is at work on the work tree or was
    meanwhile.
    """
    if locked:
        _write(history, record, None)
        return
    try:
        with history.store.worktree_lock():
            if _read(history) == seen and stats(history.root) == record.files:
                _write(history, record, None)
    except PersonaError:
        return


def _read(history: History) -> tuple[Record | None, Record | None]:
    value = history.store.state(STATE).read() or {}
    return _record(value.get("now")), _record(value.get("next"))


def _record(value: dict[str, Any] | None) -> Record | None:
    return Record(**value) if value else None


def _write(history: History, now: Record | None, next_: Record | None) -> None:
    value = {"now": now.to_json() if now else None, "next": next_.to_json() if next_ else None}
    history.store.state(STATE).write(value)
