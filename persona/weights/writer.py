"""The writer of a checkpoint: filled chunk by chunk beside its target, published whole.

Order of writes (docs/invariants.md). One file: fsync, rename to `model.safetensors`; then the old shards are
removed, the old index last. Several: each is fsynced and renamed to a name that is unique to its content;
then the index is renamed into place; then the old shards are removed, an old `model.safetensors` last. A kept
shard is a file of the directory that holds the right bytes already: it is not written, and keeps its name.
Readers prefer `model.safetensors` to an index, so at every point a reader sees all of the old weights or all
of the new.

After a cut, every file that is left has persona's own pattern of names or is named by an index. The next
publication removes it. A safetensors file that nothing names belongs to somebody else. The writer refuses to
publish beside it, and names it, before it writes anything.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from persona.errors import BusyError, InvalidInput, PersonaError, Refused, listed
from persona.store import files
from persona.weights.index import (
    INDEX_NAME,
    SINGLE_NAME,
    ShardIndex,
    encode_index,
    is_shard_name,
    read_index,
    replaced_entry,
)
from persona.weights.inputs import Fingerprint, fingerprint
from persona.weights.shards import (
    ShardLayout,
    is_published_name,
    planned_name,
    published_name,
    shard_digest,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from persona.weights.safetensors import TensorEntry

SYNC_EARLY_BYTES = 64 << 20
"""A shard of at least this many bytes is synced when it is whole, while others are still written."""
_TEMPORARY_PREFIX = ".persona-weights"


class ModelWriter:
    """Writes one checkpoint into `directory`; discards it at exit unless it was published.

    It holds a kernel lock on the directory, so two writers never mix. Leftovers of a killed writer are
    removed first.
    """

    def __init__(
        self,
        directory: Path,
        layout: Sequence[ShardLayout],
        *,
        keep: Mapping[str, str] | None = None,
        tmp_dir: Path | None = None,
    ) -> None:
        """Makes a file for each shard, beside its target or in `tmp_dir`.

        Creates `directory` if it is missing. `tmp_dir` must be on the same file system. `keep`: planned name
        → name in the directory, of kept shards. Raises Refused, by name, if the directory holds safetensors
        files or directories that would have to go and are not persona's. Raises BusyError if another writer
        is at work, SystemFault for an error of the disk.
        """
        self._layout = list(layout)
        names = [planned_name(index, len(self._layout)) for index in range(len(self._layout))]
        if not names or [shard.name for shard in self._layout] != names:
            raise ValueError("layout must come from plan_shards")
        files.mkdirs(directory)
        self.directory = Path(os.path.realpath(directory))
        self._tmp_dir = tmp_dir or self.directory
        self._kept = dict(keep or {})
        self._outputs: list[files.Output] = []
        self._written: dict[str, _Shard] = {}
        self._places: dict[str, tuple[_Shard, TensorEntry]] = {}
        self._lock = threading.Lock()
        self._missing: dict[str, int] = {}
        self._seen: Mapping[str, Fingerprint] | None = None
        self.published: dict[str, Fingerprint] = {}
        self._lock_fd = files.lock_descriptor(self.directory)
        try:
            self._take_lock()
            check_output(self.directory)
            self._remove_temporaries()
            new = [shard for shard in self._layout if shard.name not in self._kept]
            files.require_room(self._tmp_dir, sum(shard.nbytes for shard in new))
            for shard in new:
                self._create(shard)
        except BaseException:
            self.discard()
            raise

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors to be written."""
        return sum(shard.nbytes for shard in self._layout)

    def write(self, name: str, byte_offset: int, data: ReadableBuffer) -> None:
        """Writes `data` into the tensor `name` from its byte `byte_offset` on.

        Any thread may call it, for each byte once.
        """
        shard, entry = self._places[name]
        view = memoryview(data)
        length = view.nbytes
        if byte_offset < 0 or byte_offset + length > entry.nbytes:
            raise ValueError(
                f"bytes {byte_offset} to {byte_offset + length} of {name}, which has {entry.nbytes}"
            )
        if length:
            shard.output.pwrite(view.cast("B"), entry.offset + byte_offset)
            with self._lock:
                self._missing[name] -= length
                shard.missing -= length
                whole = shard.missing == 0 and shard.nbytes >= SYNC_EARLY_BYTES
            if whole:
                shard.sync_early()

    def restart(self, name: str) -> None:
        """Forgets what was written into the tensor `name`: it will be written again, whole."""
        shard, entry = self._places[name]
        with self._lock:
            shard.missing += entry.nbytes - self._missing[name]
            self._missing[name] = entry.nbytes

    def publish(
        self, digests: Mapping[str, str], *, seen: Mapping[str, Fingerprint] | None = None
    ) -> list[str]:
        """Publishes the weights, whole, and removes the old ones.

        `digests`: name → digest of each tensor. `seen`: `weights_here` when their removal was decided.
        Returns the names of the files, the index included, in the directory; `published` has their
        fingerprints if `seen` was given. Raises SystemFault, and Refused if somebody saved weights there
        since `seen`. After either, the old weights and the saved ones are as they were. A file that is saved
        after the moment of publication stays as well. The writer is done afterwards in any case.
        """
        unfinished = [name for name, missing in self._missing.items() if missing]
        if unfinished:
            raise ValueError(f"{len(unfinished)} tensors are not complete, {unfinished[0]!r} among them")
        try:
            for shard in self._written.values():
                shard.wait()
            check_output(self.directory)
            self._seen = seen
            if seen is not None:
                self.refuse_saved(seen)
                kept = self._kept.values()
                self.published.update((name, seen[name]) for name in kept if name in seen)
            return self._publish_single() if len(self._layout) == 1 else self._publish_shards(digests)
        finally:
            self.discard()

    def planned(self, digests: Mapping[str, str]) -> dict[str, tuple[int, str]]:
        """Name → size and digest of the files that `publish` is going to write.

        persona/weights/output.py defines the digests.
        """
        found: dict[str, tuple[int, str]] = {}
        names = shard_names(self._layout, digests)
        for name, shard in zip(names, self._layout, strict=True):
            size = len(shard.header()[0]) + shard.nbytes
            found[name] = size, f"tensors:{shard_digest(shard.specs, shard.metadata, digests)}"
        if len(names) > 1:
            index = self._index(names)
            found[INDEX_NAME] = len(index), f"blake3:{blake3(index).hexdigest()}"
        return found

    def refuse_saved(self, seen: Mapping[str, Fingerprint]) -> None:
        """Raises Refused that names weights saved into the directory since `seen`."""
        _refuse_saved(self.directory, changed_since(self.directory, seen))

    def discard(self) -> None:
        """Removes unpublished files and releases the directory; a second call does nothing."""
        try:
            for shard in self._written.values():
                with suppress(PersonaError):
                    shard.wait()
            for output in self._outputs:
                output.discard()
        finally:
            fd, self._lock_fd = self._lock_fd, -1
            if fd >= 0:
                files.close(fd)

    def __enter__(self) -> ModelWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _publish_single(self) -> list[str]:
        old = weight_files(self.directory)
        for shard in self._written.values():
            self._name(shard.output, SINGLE_NAME)
            files.sync_directory(self.directory)
        self._remove(sorted(set(old) - {SINGLE_NAME, INDEX_NAME}), last=INDEX_NAME)
        return [SINGLE_NAME]

    def _publish_shards(self, digests: Mapping[str, str]) -> list[str]:
        names = [
            self._kept.get(shard.name, name)
            for shard, name in zip(self._layout, shard_names(self._layout, digests), strict=True)
        ]
        old = weight_files(self.directory)
        index_bytes = self._index(names)
        going = self._going(names)
        try:
            for name, planned in zip(names, self._layout, strict=True):
                if planned.name in self._written:
                    self._name(self._written[planned.name].output, name)
            files.sync_directory(self.directory)
            index = files.Output.create(self._tmp_dir, prefix=_TEMPORARY_PREFIX)
            self._outputs.append(index)
            index.write(index_bytes)
            self._name(index, INDEX_NAME)
            files.sync_directory(self.directory)
        except BaseException:
            self._withdraw(set(names) - set(old))
            raise
        self._remove(going, last=SINGLE_NAME)
        return [*names, INDEX_NAME]

    def _going(self, names: Sequence[str]) -> list[str]:
        """The old shards, which `names` replace."""
        return sorted(set(weight_files(self.directory)) - {*names, SINGLE_NAME, INDEX_NAME})

    def _index(self, names: Sequence[str]) -> bytes:
        shards = zip(names, self._layout, strict=True)
        weight_map = {spec.name: name for name, shard in shards for spec in shard.specs}
        replaced = [replaced_entry(self.directory / name) for name in self._going(names)]
        return encode_index(weight_map, self.nbytes, replaced)

    def _name(self, output: files.Output, name: str) -> None:
        """Gives an output its name. Raises Refused if something else was saved there meanwhile."""
        target = self.directory / name
        if self._seen is None:
            output.publish(target, sync_directory=False)
            return
        output.backdate()
        output.finish()
        seen, there = self._seen.get(name), os.path.lexists(target)
        if (seen is not None) != there or not output.replace_known(target, _is(seen) if there else None):
            _refuse_saved(self.directory, [name])
        assert output.status is not None
        written, now = Fingerprint.of(output.status), fingerprint(target)
        # A rename changes the inode's time; any other difference is somebody's save.
        self.published[name] = now if now is not None and now.same_content(written) else written

    def _withdraw(self, names: set[str]) -> None:
        """Removes new shards that no index names."""
        if not names & _named(_index_of(self.directory)):
            for name in names:
                with suppress(PersonaError):
                    files.remove(self.directory / name)

    def _remove(self, names: Sequence[str], *, last: str) -> None:
        """Removes old weight files; `last` only when the others are surely gone."""
        for name in names:
            self._remove_one(name)
        files.sync_directory(self.directory)
        if _exists(self.directory / last):
            self._remove_one(last)
            files.sync_directory(self.directory)

    def _remove_one(self, name: str) -> None:
        if self._seen is None:
            files.remove(self.directory / name)
        elif name in self._seen:  # else it was saved meanwhile
            files.remove_known(self.directory / name, _is(self._seen[name]))

    def _create(self, shard: ShardLayout) -> None:
        header, entries = shard.header()
        output = files.Output.create(self._tmp_dir, prefix=_TEMPORARY_PREFIX, size=len(header) + shard.nbytes)
        self._outputs.append(output)
        output.pwrite(header, 0)
        written = self._written[shard.name] = _Shard(output, shard.nbytes)
        for name, entry in entries.items():
            if name in self._places:
                raise InvalidInput(f"the tensor {name!r} is in two shards; give each tensor once")
            self._places[name] = (written, entry)
            self._missing[name] = entry.nbytes

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another command is writing weights into {self.directory}; run this again after it"
            ) from None
        except OSError as error:
            raise files.system_fault("lock", self.directory, error) from error

    def _remove_temporaries(self) -> None:
        """Removes the leftovers of a killed writer; a running one would hold the lock."""
        for entry in files.names_in(self.directory):
            if (
                entry.name.startswith(_TEMPORARY_PREFIX)
                and files.is_unfinished(entry.name)
                and not entry.is_dir(follow_symlinks=False)
            ):
                files.remove(self.directory / entry.name)


class _Shard:
    """A shard being written, of `nbytes` of tensors, `missing` of them."""

    def __init__(self, output: files.Output, nbytes: int) -> None:
        self.output = output
        self.nbytes = self.missing = nbytes
        self._syncs: list[threading.Thread] = []
        self._failure: PersonaError | None = None

    def sync_early(self) -> None:
        """Begins to sync the bytes written so far; publication syncs the later ones."""
        thread = threading.Thread(target=self._sync, name="persona-sync")
        self._syncs.append(thread)
        thread.start()

    def wait(self) -> None:
        """Waits until no sync is under way. Raises SystemFault if one failed; none is repeated."""
        for thread in self._syncs:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _sync(self) -> None:
        try:
            self.output.sync()
        except PersonaError as error:
            self._failure = error


def weight_files(directory: Path) -> list[str]:
    """The weight files in `directory` that the next publication replaces or removes, sorted.

    They are `model.safetensors`, the index, the files that it names (and was about to remove when it was
    written), and shards under persona's own pattern of names.
    """
    index = _index_of(directory)
    ours = _named(index) | {SINGLE_NAME, INDEX_NAME}
    if index is not None:
        for name in (entry.split(" ", 2)[-1] for entry in index.replaced):
            if is_shard_name(name) and replaced_entry(directory / name) in index.replaced:
                ours.add(name)
    return [
        entry.name
        for entry in files.names_in(directory)
        if (entry.name in ours or is_published_name(entry.name)) and not entry.is_dir(follow_symlinks=False)
    ]


def weights_here(directory: Path) -> dict[str, Fingerprint]:
    """The fingerprints of `weight_files`; that of a link that leads nowhere is all zeros."""
    return {
        name: fingerprint(directory / name) or Fingerprint(0, 0, 0, 0) for name in weight_files(directory)
    }


def changed_since(directory: Path, seen: Mapping[str, Fingerprint]) -> list[str]:
    """The names of weight files that came, went or were written since `seen`, sorted."""
    here = weights_here(directory)
    return sorted(
        name for name in {*here, *seen} if name not in here or not here[name].same_content(seen.get(name))
    )


def _refuse_saved(directory: Path, names: Sequence[str]) -> None:
    if names:
        raise Refused(
            f"{listed(names, 5)}: saved in {directory} while this command was running, and left as saved; run"
            " the command again"
        )


def _is(seen: Fingerprint | None) -> files.Known:
    """Whether a file that was moved aside is the one that was seen."""

    def known(place: Path) -> bool:
        return (fingerprint(place) or Fingerprint(0, 0, 0, 0)).same_content(seen)

    return known


def foreign_weight_files(directory: Path) -> list[str]:
    """The .safetensors entries in `directory` that persona does not know, sorted.

    Directories in the place of weights are among them.
    """
    ours = set(weight_files(directory))
    return [
        entry.name
        for entry in files.names_in(directory)
        if entry.name not in ours and (entry.name.endswith(".safetensors") or entry.name == INDEX_NAME)
    ]


def check_output(directory: Path) -> None:
    """Raises Refused that names weights in `directory` which a publication would mix with or hide."""
    if strangers := foreign_weight_files(directory):
        raise Refused(
            f"{directory} holds {listed(strangers, 5)}, which no index lists; move these files away, then"
            " run this again"
        )


def shard_names(layout: Sequence[ShardLayout], digests: Mapping[str, str]) -> list[str]:
    """The names under which shards of these tensors are published; `digests`: name → digest of each.

    The twelve digits cover all that a file holds, so no other one ever takes the name of a shard in use.
    """
    if len(layout) == 1:
        return [SINGLE_NAME]
    names = []
    for shard in layout:
        names.append(published_name(shard.name, shard_digest(shard.specs, shard.metadata, digests)[:12]))
    return names


def _index_of(directory: Path) -> ShardIndex | None:
    """The index in `directory`; None if there is none that can be read."""
    try:
        return read_index(directory / INDEX_NAME)
    except InvalidInput:
        return None


def _named(index: ShardIndex | None) -> set[str]:
    return set() if index is None else set(index.shard_names())


def _exists(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
