"""**output** — a model directory that `checkout -o` writes outside a repository.

Its `persona.json` says from which recipe it was made, and lists every file that was written there. A listed
file that is still as it was written is persona's. No other file is replaced or removed unless the user says
so: neither one that somebody changed since, nor one that persona did not write.

While an output is being written, its list says so (`complete`: false) and also names the files of the earlier
output. So files that a killed command left are persona's as well.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from persona.errors import InvalidInput, Keyword, PersonaError, Refused, listed
from persona.frozen import dataclass
from persona.limits import MAX_INDEX_BYTES
from persona.objects.names import check_file_path
from persona.store import files
from persona.weights.checkpoint import Checkpoint
from persona.weights.folder import OUTPUT_FORMAT, OUTPUT_NAME
from persona.weights.index import ADAPTER_WEIGHTS
from persona.weights.inputs import Fingerprint, InputFile, read_input
from persona.weights.shards import shard_digest
from persona.weights.writer import weights_here

SCHEMA: Final = 1
_BLOCK_BYTES: Final = 8 << 20

Written = Mapping[str, tuple[int, str]]
"""Path → size in bytes and digest of a file that was written.

The digest is "blake3:" of its bytes; for a file of weights it is "tensors:" of its tensors and metadata.
"""
Listed = dict[str, set[tuple[int, str]]]
"""Like `Written`, if a file may have its old content or its new one."""


@dataclass(frozen=True)
class Claim:
    """The files in the place of an output that may be replaced or removed.

    It has the digest of every file that is not weights (None: it is no regular file), and the fingerprints of
    weight files. `listed`: the files of the earlier output.
    """

    directory: Path
    texts: dict[str, str | None] = field(default_factory=dict)
    weights: dict[str, Fingerprint] = field(default_factory=dict)
    listed: Listed = field(default_factory=dict)

    def put(self, path: str, data: bytes) -> None:
        """Writes one file, whole. Raises `Refused` if somebody changed the file there meanwhile."""
        place = self.directory / check_file_path(path)
        files.mkdirs(place.parent, below=self.directory)
        if place.is_dir() and not place.is_symlink():
            raise Refused(f"{place} is a directory, but a file has to go there; move it away")
        known = _is(self.texts[path]) if path in self.texts else None
        if not files.replace_seen(place, data, known, there=path in self.texts):
            raise Refused(f"{place}: saved while this command was running, and left as saved; run it again")
        self.texts[path] = _digest(data)

    def publish(self, path: str, written: files.Output, digest: str) -> None:
        """Gives a finished file its name. Raises `Refused` as `put` does."""
        place = self.directory / path
        known, lies = self.texts.get(path), os.path.lexists(place)
        if lies != (path in self.texts) or not written.replace_known(place, _is(known) if lies else None):
            raise Refused(f"{place}: saved while this command was running, and left as saved; run it again")
        files.sync_directory(self.directory)
        self.texts[path] = digest

    def withdraw(self, path: str) -> None:
        """Removes a file that will be written again. Raises `Refused` if somebody changed it meanwhile."""
        place = self.directory / path
        if path in self.texts:
            if _lies(self.directory, path) and not files.remove_seen(
                place, _is(self.texts[path]), below=self.directory
            ):
                raise Refused(
                    f"{place}: saved while this command was running, and left as saved; run it again"
                )
            del self.texts[path]

    def clear_leftovers(self, paths: Iterable[str]) -> None:
        """Removes leftovers of commands that died while they wrote these files.

        A file that a dead command had moved aside stays unless it is persona's. The caller has the directory
        to itself.
        """
        ours = {digest for several in self.listed.values() for _, digest in several}

        def is_ours(path: Path) -> bool:
            name = path.name[1:].rpartition(".old-")[0]
            return name == OUTPUT_NAME or digest_of(path, name) in ours

        for folder in sorted({self.directory, *((self.directory / path).parent for path in paths)}):
            files.clear_leftovers(folder, beside=True, is_kept=is_ours)

    def remove(self, keep: Iterable[str]) -> None:
        """Removes files of the earlier output that this one lacks, unless somebody changed them meanwhile."""
        for path in sorted(self.listed.keys() - {OUTPUT_NAME, *keep}):
            if path in self.texts and _lies(self.directory, path):
                files.remove_seen(self.directory / path, _is(self.texts[path]), below=self.directory)


def claim(directory: Path, texts: Mapping[str, bytes], *, force: bool, threads: int | None = None) -> Claim:
    """Examines the directory that an output will go to.

    `texts`: its files beside weights. Raises `Refused`, unless `force`, that names files that are not
    persona's and would be replaced, or that lie in a directory that is no output. Raises it even with `force`
    if a directory, or a link to one, is in the way of a file. Weights are hashed, by `threads` threads.
    """
    names = [item.name for item in files.names_in(directory) if not files.is_unfinished(item.name)]
    if not names:
        return Claim(directory)
    known = _read(directory)
    weights = weights_here(directory)
    here = [path for path in sorted({OUTPUT_NAME, *texts, *known}) if _lies(directory, path)]
    _check_room(directory, [OUTPUT_NAME, *texts], {path for path in here if path not in texts})
    seen = {path: digest_of(directory / path) for path in here if path not in weights}
    strange: list[str] = []
    if not known:
        strange = names
    else:
        for path in here:
            digest = digest_of(directory / path, threads=threads) if path in weights else seen[path]
            wanted = {digest for _, digest in known.get(path, ())}
            if path in texts:
                wanted.add(_digest(texts[path]))
            if digest not in wanted and path != OUTPUT_NAME:
                strange.append(path)
        strange += [name for name in weights if name not in known]
    if strange and not force:
        raise _not_ours(directory, strange, bool(known))
    return Claim(directory, seen, weights, known)


def _lies(directory: Path, path: str) -> bool:
    """Whether a file or a link is at a path.

    The target of a link below `directory` is elsewhere.
    """
    place, above = directory / path, Path(path).parents[:-1]
    if not os.path.lexists(place) or any((directory / part).is_symlink() for part in above):
        return False
    return place.is_symlink() or not place.is_dir()


def _check_room(directory: Path, paths: Iterable[str], going: Collection[str]) -> None:
    """`Refused` that names files in the way of new files or their directories.

    `going`: the files that will be removed.
    """
    found: dict[str, None] = {}
    for path in paths:
        above = [part.as_posix() for part in reversed(Path(path).parents[:-1])]
        if any(part in going for part in above):
            continue  # a file that makes room for the directory
        way = [
            part
            for part in above
            if os.path.lexists(place := directory / part) and (place.is_symlink() or not place.is_dir())
        ]
        found.update(dict.fromkeys(way[:1] or _below(directory, path, going)))
    if found:
        names = listed(list(found), 5)
        are, it = ("is", "it") if len(found) == 1 else ("are", "them")
        raise Refused(f"{directory}: {names} {are} in the way of new files; move {it} away")


def _below(directory: Path, path: str, going: Collection[str]) -> Iterator[str]:
    """The files that keep a directory at `path` from making room for a file."""
    if not (directory / path).is_dir() or (directory / path).is_symlink():
        return
    items = files.names_in(directory / path)
    if not items:
        yield path
    for item in items:
        name = f"{path}/{item.name}"
        if item.is_dir(follow_symlinks=False):
            yield from _below(directory, name, going)
        elif name not in going:
            yield name


def _not_ours(directory: Path, strange: Sequence[str], ours: bool) -> Refused:
    names = listed(strange, 5)
    if ours:
        hint = ("move it away, or ", Keyword(force=True), " overwrites it")
        return Refused(f"{directory}: {names}: not as persona wrote it there", hint=hint)
    return Refused(
        f"{directory} holds {names}, which persona did not write",
        hint=(
            "give an empty or a new directory, or ",
            Keyword(force=True),
            " overwrites the files that it writes",
        ),
    )


def record(made: Mapping[str, Any], written: Written, before: Listed | None = None) -> bytes:
    """The bytes of `persona.json`.

    `made` says from what the output was made, `written` lists its files. `before`: while the output is being
    written, the files of the one that it replaces.
    """
    value: dict[str, Any] = {"format": OUTPUT_FORMAT, "schema": SCHEMA, "complete": before is None, **made}
    value["files"] = {path: _entry(*written[path]) for path in sorted(written)}
    if before is not None:
        value["before"] = {path: [_entry(*each) for each in sorted(before[path])] for path in sorted(before)}
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def text_entry(data: bytes) -> tuple[int, str]:
    """The size and digest of a text file, as `Written` has them."""
    return len(data), _digest(data)


def digest_of(path: Path, name: str | None = None, threads: int | None = None) -> str | None:
    """The digest of a file as it is now, see `Written`.

    None for anything that is no regular file, or no whole file of weights. `name`: its name before it was
    moved aside.
    """
    if not _is_regular(path):
        return None
    if (name or path.name) == ADAPTER_WEIGHTS:
        return digest_of_bytes(path)
    if not (name or path.name).endswith(".safetensors"):
        with suppress(InvalidInput):
            return _digest(read_input(path, limit=MAX_INDEX_BYTES))
        return None
    try:
        with Checkpoint.open(path, part=True) as checkpoint:
            digests = {name: digest.hex() for name, digest in checkpoint.digests(threads=threads).items()}
            checkpoint.check_unchanged()
            specs = [spec for spec, _ in checkpoint.tensors.values()]
            return f"tensors:{shard_digest(specs, checkpoint.shards[0].metadata, digests)}"
    except InvalidInput:
        return None


def digest_of_bytes(path: Path) -> str:
    """The digest of a file's bytes, read block by block."""
    hasher = blake3()
    with InputFile(path) as file:
        for start in range(0, file.size, _BLOCK_BYTES):
            hasher.update(file.read(start, _BLOCK_BYTES))
    return f"blake3:{hasher.hexdigest()}"


def _read(directory: Path) -> Listed:
    """The files in the directory's list; none if there is no list."""
    found: Listed = {}
    if not _is_regular(directory / OUTPUT_NAME):
        return found
    try:
        value = json.loads(read_input(directory / OUTPUT_NAME, limit=MAX_INDEX_BYTES))
        if value["format"] != OUTPUT_FORMAT or value["schema"] != SCHEMA:
            return {}
        entries = [(path, [entry]) for path, entry in value["files"].items()]
        for path, several in [*entries, *value.get("before", {}).items()]:
            known = {(int(entry["size"]), str(entry["digest"])) for entry in several}
            found.setdefault(check_file_path(path), set()).update(known)
    except (PersonaError, ValueError, OverflowError, RecursionError, TypeError, KeyError, AttributeError):
        return {}
    return found


def _entry(size: int, digest: str) -> dict[str, Any]:
    return {"size": size, "digest": digest}


def _digest(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def _is(seen: str | None) -> files.Known:
    return lambda place: digest_of(place) == seen


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
