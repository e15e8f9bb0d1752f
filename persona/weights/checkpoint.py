"""**checkpoint** — a model directory, one safetensors file, or an index with its shards.

Opening one checks everything that can be known without reading the tensors: its kind, every header, and that
index and shards agree. In a directory, `model.safetensors` is preferred to an index, as in transformers.
Weight files that neither names are never read; `ignored` lists them (`persona.weights.folder`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from persona import limits
from persona.errors import InvalidInput, listed
from persona.objects.base import Shard
from persona.objects.digest import BLOCK_BYTES, block_digest, block_spans, tensor_digest
from persona.objects.layers import numbered
from persona.objects.names import check_file_path
from persona.objects.tensors import TensorSpec
from persona.weights.index import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    ADAPTER_WEIGHTS,
    INDEX_NAME,
    SINGLE_NAME,
    ShardIndex,
    read_watched_index,
)
from persona.weights.inputs import (
    Fingerprint,
    InputFile,
    changed,
    fingerprint,
    json_object,
    list_directory,
    read_watched,
)
from persona.weights.safetensors import Header, TensorEntry, read_header
from persona.weights.scan import shorten
from persona.weights.tied import find_tied

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from persona.weights.folder import Beside

_ADAPTER = (
    "this is an adapter (PEFT, LoRA), not a whole model; take the model that it was trained on as the base"
)
_LONE_ADAPTER = (
    f"this is an adapter (PEFT, LoRA), not a whole model; give the directory that PEFT saved, with"
    f" {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
)
_ADAPTED: Final = re.compile(r"(?:^|[._])(?:lora|ia3|hada|lokr|oft|boft|vera|vblora|adaption|prompt)_")
"""In the names of tensors that PEFT adds."""
_SHARD: Final = re.compile(r"-of-0*(\d{1,9})\.safetensors$")
"""The name of a shard, with the number of shards."""
EMPTY_REMEDY: Final = (
    "gather the weights: run the zero_to_fp32.py of the training's checkpoint, or train with"
    " stage3_gather_16bit_weights_on_model_save, and give the directory that this makes"
)
"""The advice for empty tensors."""


class Checkpoint:
    """An open checkpoint; close it, or use it as a context manager."""

    partial = False
    """Whether a tensor that it lacks is unchanged, and not missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """As given to `open`."""
        self.tensors: dict[str, tuple[TensorSpec, int]] = {}
        """name → (spec, index into `shards`), in byte order of names."""
        self.shards: list[Shard] = []
        """The weight files in order of names, with their metadata verbatim."""
        self.config: dict[str, Any] | None = None
        """The parsed config.json that lies beside the weights, if there is one."""
        self.tied: dict[str, str] = {}
        """alias → name of the stored tensor that the model shares under that alias."""
        self.weights_seen: dict[str, Fingerprint] = {}
        """name → fingerprint of the weight files and their index when they were opened."""
        self._names: list[str] = []
        self._texts_seen: dict[Path, Fingerprint] = {}
        self._files: list[InputFile] = []
        self._entries: dict[str, TensorEntry] = {}

    @classmethod
    def open(cls, path: Path | str, *, part: bool = False) -> Checkpoint:
        """Opens and checks the model directory, .safetensors file or index at `path`.

        `part`: whether a file may be one of several shards.

        Raises InvalidInput, naming file, tensor and remedy, for anything that is not a whole safetensors
        checkpoint. Raises SystemFault if the system does not let us read it. No file's code is ever run.
        """
        checkpoint = cls(Path(path))
        try:
            checkpoint._open(part)
        except BaseException:
            checkpoint.close()
            raise
        return checkpoint

    @property
    def text_files(self) -> dict[str, Path]:
        """Relative path → real path of every regular, visible file of a directory that is not weights.

        Symbolic links are resolved; they may lead to the directory itself or to the hub cache's blobs. Empty
        if a file was opened.
        """
        return self._beside.texts

    @property
    def ignored(self) -> dict[str, str]:
        """Relative path → reason, for files of the directory that are not taken along."""
        return self._beside.ignored

    @cached_property
    def _beside(self) -> Beside:
        from persona.weights import folder

        return folder.look(self.path, self._names, {file.path.name for file in self._files} | {INDEX_NAME})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec, _ in self.tensors.values())

    def spec(self, name: str) -> TensorSpec:
        """The spec of the tensor `name`."""
        return self.tensors[name][0]

    def path_of(self, name: str) -> Path:
        """The weight file that holds the tensor `name`."""
        return self._files[self.tensors[name][1]].path

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """Fills `out` (writable, contiguous) with the bytes of the tensor `name` from `start_byte` on.

        Safe from many threads at once. Raises InvalidInput if the file was cut meanwhile, SystemFault on an
        I/O error.
        """
        entry = self._entries[name]
        length = memoryview(out).nbytes
        if start_byte < 0 or start_byte + length > entry.nbytes:
            raise ValueError(
                f"bytes {start_byte} to {start_byte + length} of {name}, which has {entry.nbytes}"
            )
        self._files[self.tensors[name][1]].read_into(entry.offset + start_byte, out)

    def digests(
        self, report: Callable[[int], object] = lambda count: None, threads: int | None = None
    ) -> dict[str, bytes]:
        """The digest of every tensor (`persona.objects.digest`), by name.

        `report` is called with the number of bytes that were read since its last call. `threads`: by default
        one for each core.
        """
        from queue import Empty, SimpleQueue

        from persona.cores import in_order, thread_count

        buffers: SimpleQueue[memoryview] = SimpleQueue()

        def work(item: tuple[str, int, int]) -> bytes:
            name, start, stop = item
            try:
                buffer = buffers.get_nowait()
            except Empty:
                buffer = memoryview(bytearray(BLOCK_BYTES))
            self.read_into(name, start, part := buffer[: stop - start])
            digest = block_digest(part)
            buffers.put(buffer)
            return digest

        blocks: dict[str, list[bytes]] = {name: [] for name in self.tensors}
        items = [
            (name, start, stop)
            for name, (spec, _) in self.tensors.items()
            for start, stop in block_spans(spec.nbytes)
        ]
        with closing(in_order(work, items, threads=thread_count(threads))) as digests:
            for (name, start, stop), digest in zip(items, digests, strict=True):
                blocks[name].append(digest)
                report(stop - start)
        return {name: tensor_digest(found) for name, found in blocks.items()}

    def read_text(self, name: str) -> bytes:
        """The bytes of one of `text_files`; `check_unchanged` watches it from then on."""
        data, seen = read_watched(self.text_files[name], limit=limits.MAX_TEXT_FILE_BYTES)
        if self._texts_seen.setdefault(self.text_files[name], seen) != seen:
            raise changed(self.text_files[name])
        return data

    def check_unchanged(self) -> None:
        """Raises InvalidInput that names a file which changed since it was opened or read.

        A file whose path leads to another one counts as changed. Call this when everything was read: a
        checkpoint that is saved meanwhile would be taken as a mixture of two.
        """
        for file in self._files:
            file.check_unchanged()
        for path, seen in self._texts_seen.items():
            if fingerprint(path) != seen:
                raise changed(path)

    def close(self) -> None:
        """Closes the weight files."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, part: bool) -> None:
        try:
            is_directory = stat.S_ISDIR(os.stat(self.path).st_mode)
        except (OSError, ValueError):
            is_directory = False  # opening it as a file reports the error
        if is_directory:
            self._names = list_directory(self.path)
            self._open_directory(self._names)
        elif self.path.name.lower().endswith(".json"):
            self._open_index(self.path)
        else:
            if not part:
                self._refuse_part()
            self._add_shard(self.path)
        self.config = self._read_config(self.path if is_directory else self.path.parent)
        self._check_adapter()
        _refuse_empty(self.path, [spec for spec, _ in self.tensors.values()])
        self.tensors = {name: self.tensors[name] for name in sorted(self.tensors)}
        self.tied = find_tied(self.tensors.keys(), (shard.metadata for shard in self.shards), self.config)

    def _open_directory(self, names: list[str]) -> None:
        present = set(names)
        if SINGLE_NAME in present:
            self._add_shard(self.path / SINGLE_NAME)
        elif INDEX_NAME in present:
            self._open_index(self.path / INDEX_NAME)
        elif adapter := sorted(ADAPTER_FILES & present):
            raise InvalidInput(f"{self.path / adapter[0]}: {_ADAPTER}")
        else:
            self._refuse_directory(names)

    def _refuse_directory(self, names: list[str]) -> NoReturn:
        """Raises the reason why a directory without the expected safetensors files is no checkpoint."""
        from persona.weights.no_weights import why_not

        only = [name for name in names if name.endswith(".safetensors")]
        if len(only) == 1:
            with InputFile(self.path / only[0]) as file:
                _refuse_adapter(file.path, read_header(file).tensors)
        raise why_not(self.path, names)

    def _refuse_part(self) -> None:
        """Refuses a file that holds a part of a model, as its name or the index beside it says."""
        found, count = _SHARD.search(self.path.name), 0
        if found is not None:
            count = int(found[1])
        elif os.path.isfile(index := self.path.parent / INDEX_NAME):
            shards = read_watched_index(index)[0].shard_names()
            count = len(shards) if self.path.name in shards else 0
        if count > 1:
            raise InvalidInput(
                f"{self.path}: it is one of {count} shards, and holds only a part of the model; give the"
                " directory that holds all of them"
            )

    def _open_index(self, path: Path) -> None:
        index, seen = read_watched_index(path)
        self.weights_seen[path.name] = self._texts_seen[path] = seen
        for shard in index.shard_names():
            if not (path.parent / shard).exists():
                from persona.weights.no_weights import unfinished_downloads

                begun = unfinished_downloads(path.parent, list_directory(path.parent))
                why = f", and a download is not finished ({listed(begun, 3)})" if begun else ""
                raise InvalidInput(
                    f"{path}: the index lists the shard {shard}, which is missing{why}; download or save it"
                    " again"
                )
            self._add_shard(path.parent / shard)
        self._check_index(path, index)

    def _check_index(self, path: Path, index: ShardIndex) -> None:
        """Index and shards must name the same tensors in the same files."""
        for name, shard in index.weight_map.items():
            held = self.tensors.get(name)
            if held is None or self.shards[held[1]].name != shard:
                raise InvalidInput(
                    f"{path}: the index says that the tensor {shorten(name)} lies in {shard}, which"
                    " does not hold it; download or save index and shards together"
                )
        for name in self.tensors:
            if name not in index.weight_map:
                raise InvalidInput(
                    f"{self.path_of(name)}: the tensor {shorten(name)} is not in the index {path.name}; "
                    "download or save index and shards together"
                )

    def _add_shard(self, path: Path) -> None:
        if len(self._files) >= limits.MAX_SHARDS:
            raise InvalidInput(
                f"{self.path}: more than {limits.MAX_SHARDS} shards; save the model in fewer shards"
            )
        if os.path.exists(f"{path}.aria2"):  # aria2 makes a file of the whole size, and fills it
            raise InvalidInput(f"{path}: its download is not finished ({path.name}.aria2); finish it first")
        file = InputFile(path, watched=True)
        self._files.append(file)
        self.weights_seen[path.name] = file.seen
        try:
            check_file_path(path.name)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error}; rename the file") from None
        header: Header = read_header(file)
        for name, entry in header.tensors.items():
            if name in self._entries:
                raise InvalidInput(
                    f"{path}: the tensor {shorten(name)} is also in {self.path_of(name).name}; save the "
                    "checkpoint again"
                )
            self._entries[name] = entry
            self.tensors[name] = (entry.spec, len(self.shards))
        if len(self._entries) > limits.MAX_TENSORS:
            raise InvalidInput(
                f"{self.path} has more than {limits.MAX_TENSORS} tensors in all, which is the limit"
            )
        self.shards.append(Shard(path.name, header.metadata))

    def _read_config(self, directory: Path) -> dict[str, Any] | None:
        """The config of a directory. It is read as the weights are, wherever links lead."""
        path = Path(os.path.realpath(directory / "config.json"))
        if not path.is_file():
            return None
        data, seen = read_watched(path, limit=limits.MAX_CONFIG_BYTES)
        self._texts_seen[path] = seen
        return json_object(path, data, "model")

    def _check_adapter(self) -> None:
        if self._files:
            _refuse_adapter(self._files[0].path, self.tensors)
        if not self.tensors:
            raise InvalidInput(f"{self.path}: holds no tensor; give a checkpoint with weights")


def _refuse_adapter(path: Path, names: dict[str, Any]) -> None:
    """Refuses an adapter, which is known by the names of its tensors.

    A model with LoRA layers of its own has other tensors too. A model that PEFT wrapped has `base_layer`s, or
    after a merge no layer of an adapter.
    """
    whole = any(".base_layer." in name for name in names) or (
        any(numbered(name) for name in names) and not any(_ADAPTED.search(name) for name in names)
    )
    if names and (
        all("lora_" in name for name in names)
        or (not whole and all(name.startswith("base_model.model.") for name in names))
    ):
        raise InvalidInput(f"{path}: {_LONE_ADAPTER}")


def _refuse_empty(path: Path, specs: Sequence[TensorSpec]) -> None:
    """Refuses weights that were saved under DeepSpeed ZeRO-3 without being gathered.

    Each rank then holds a part of a matrix, and the file holds none. Small tensors may be whole.
    """
    empty = [spec for spec in specs if spec.shape == (0,) and spec.merged]
    matrices = sum(spec.name.endswith("weight") for spec in empty)
    if empty and (len(empty) == len(specs) or matrices >= max(2, len(specs) / 4)):
        raise InvalidInput(
            f"{path}: {len(empty)} of {len(specs)} tensors are empty, as DeepSpeed ZeRO-3 saves weights that"
            " it did not gather",
            hint=EMPTY_REMEDY,
        )
