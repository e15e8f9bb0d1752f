"""The writer of a PEFT adapter directory: filled tensor by tensor, published whole.

Order of writes: the list of the output with `complete` false, and the old files in it; the removal of the old
`adapter_config.json`; the weights; the new config; the complete list. PEFT finds no adapter in a directory
without a config. So at every point a reader sees the old adapter, the new one, or none.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.errors import BusyError, Refused, listed
from persona.objects.tensors import TensorSpec
from persona.store import files
from persona.weights import output
from persona.weights.folder import OUTPUT_NAME
from persona.weights.index import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from persona.weights.safetensors import encode_header

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class AdapterWriter:
    """Writes one adapter into `directory`; discards it at exit unless it was published.

    It holds a kernel lock on the directory, so that two writers never mix.
    """

    def __init__(self, directory: Path, specs: Sequence[TensorSpec], config: bytes, *, force: bool) -> None:
        """Makes the file of weights, with its header. `specs`: its tensors.

        Creates `directory` if it is missing. Raises Refused, by name, for files there that persona did not
        write, unless `force`, and for a model; BusyError if another writer is at work; SystemFault.
        """
        self._texts = {ADAPTER_CONFIG: config, ADAPTER_WEIGHTS: b""}
        self._check(directory, force)  # before a directory is made
        files.mkdirs(directory)
        self.directory = Path(os.path.realpath(directory))
        self._lock_fd = files.lock_descriptor(self.directory)
        self._output: files.Output | None = None
        self._lock = threading.Lock()
        try:
            self._take_lock()
            self._claim = self._check(self.directory, force)
            self._claim.clear_leftovers(self._texts)
            header, self._places = encode_header(specs)
            self._missing = sum(entry.nbytes for entry in self._places.values())
            self.nbytes = len(header) + self._missing
            files.require_room(self.directory, self.nbytes)
            self._output = files.Output.create(
                self.directory, prefix=f".{ADAPTER_WEIGHTS}.tmp", size=self.nbytes
            )
            self._output.pwrite(header, 0)
        except BaseException:
            self.discard()
            raise

    def write(self, name: str, data: ReadableBuffer, offset: int = 0) -> None:
        """Writes bytes of a tensor, from its byte `offset` on. Any thread may call it, for each byte once."""
        entry, view = self._places[name], memoryview(data)
        if offset + view.nbytes > entry.nbytes:
            raise ValueError(f"{view.nbytes} bytes at {offset} of {name}, which has {entry.nbytes}")
        assert self._output is not None
        self._output.pwrite(files.plain_view(view), entry.offset + offset)
        with self._lock:
            self._missing -= view.nbytes

    def publish(self, made: Mapping[str, Any]) -> list[str]:
        """Publishes the adapter, whole; returns the names of its files.

        `made`: from what it was made, for `persona.json`. Raises Refused if somebody saved into the directory
        since it was claimed, and SystemFault. The writer is done afterwards in any case.
        """
        assert self._output is not None
        try:
            if self._missing:
                raise ValueError(f"{self._missing} bytes of the adapter were not written")
            self._output.take_mode_of(self.directory / ADAPTER_WEIGHTS)
            self._output.finish()
            digest = output.digest_of_bytes(self._output.path)
            config = self._texts[ADAPTER_CONFIG]
            written = {
                ADAPTER_CONFIG: output.text_entry(config),
                ADAPTER_WEIGHTS: (self.nbytes, digest),
            }
            claim = self._claim
            claim.put(OUTPUT_NAME, output.record(made, written, claim.listed))
            claim.remove(written)
            claim.withdraw(ADAPTER_CONFIG)
            claim.publish(ADAPTER_WEIGHTS, self._output, digest)
            claim.put(ADAPTER_CONFIG, config)
            claim.put(OUTPUT_NAME, output.record(made, written))
            return [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes an unpublished file and releases the directory; a second call does nothing."""
        try:
            if self._output is not None:
                self._output.discard()
        finally:
            fd, self._lock_fd = self._lock_fd, -1
            if fd >= 0:
                files.close(fd)

    def __enter__(self) -> AdapterWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another command is writing into {self.directory}; run this again after it"
            ) from None
        except OSError as error:
            raise files.system_fault("lock", self.directory, error) from error

    def _check(self, directory: Path, force: bool) -> output.Claim:
        claim = output.claim(directory, self._texts, force=force)
        if claim.weights:
            raise Refused(
                f"{directory} holds a model ({listed(sorted(claim.weights), 3)}); give another directory for"
                " the adapter"
            )
        return claim
