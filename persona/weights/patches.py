"""**sparse patch** — a safetensors file of the elements that differ between two checkpoints, with their new
values.

Trainers send it to a running server. For each tensor NAME that differs, it holds `NAME.indices` (I32: places
in the flattened tensor, ascending) and `NAME.values` (one value for each, in the tensor's dtype). An element
that it does not name stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from persona.errors import Call, InvalidInput, Keyword, Refused
from persona.objects.dtypes import uint
from persona.objects.tensors import TensorSpec
from persona.store import files
from persona.weights.checkpoint import Checkpoint
from persona.weights.safetensors import encode_header
from persona.weights.scan import shorten

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

INDICES: Final = ".indices"
VALUES: Final = ".values"
MOST: Final = 1 << 31
"""Elements of a tensor that 32 signed bits can count."""
FROM: Final = "from"
"""The key of the metadata with the id of the commit that a patch of `export --patch` was made from."""
_ENCODING: Final = "encoding"
_RAW: Final = "raw"
"""The key of the metadata that names the form of the indices, and the form that is read and written."""
_COPY_BYTES: Final = 8 << 20


# -- read ----------------------------------------------------------------------------------------------------


def is_patch(checkpoint: Checkpoint, names: Iterable[str]) -> bool:
    """Whether a checkpoint is a sparse patch. `names`: the tensors of the base."""
    known = set(names)
    found = [name for name in checkpoint.tensors if name not in known]
    return bool(found) and any(
        name.endswith(INDICES) and name.removesuffix(INDICES) + VALUES in checkpoint.tensors for name in found
    )


def refuse_patch(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Raises `InvalidInput` for a sparse patch, where weights are needed. `names` as for `is_patch`."""
    if is_patch(checkpoint, names):
        raise InvalidInput(
            f"{checkpoint.path} is a sparse patch, which holds changes and no weights",
            hint=(Call("add", str(checkpoint.path)), " imports it as a vector"),
        )


class Patched(Checkpoint):
    """A checkpoint as a sparse patch leaves it. It has the tensors that the patch names.

    It shares the open files of the patch. `original` gives the elements of a chunk of a tensor before the
    patch, as bits; any thread may call it. `tied`: alias → name of tensors that the patch may name by their
    alias. Raises `InvalidInput` for a file that is no patch of these tensors.
    """

    partial = True

    def __init__(
        self,
        patch: Checkpoint,
        specs: Mapping[str, TensorSpec],
        chunk: int,
        original: Callable[[str, int], NDArray[Any]],
        tied: Mapping[str, str],
    ) -> None:
        super().__init__(patch.path)
        self._given: dict[str, str] = {}
        self._patch, self._chunk, self._original = patch, chunk, original
        self.shards, self.weights_seen = patch.shards, patch.weights_seen
        self._check_encoding()
        found: dict[str, tuple[TensorSpec, int]] = {}
        for name in patch.tensors:
            if name.endswith(VALUES) and name.removesuffix(VALUES) + INDICES in patch.tensors:
                continue
            if not name.endswith(INDICES) or name.removesuffix(INDICES) + VALUES not in patch.tensors:
                raise InvalidInput(
                    f"{self.path}: the tensor {shorten(name)} has no counterpart: a sparse patch holds"
                    f" NAME{INDICES} and NAME{VALUES} for each tensor"
                )
            whole = name.removesuffix(INDICES)
            own = whole if whole in specs else tied.get(whole, whole)
            if own + INDICES in patch.tensors:
                own = whole
            self._given[own] = whole
            found[own] = self._checked(whole, specs.get(own)), 0
        self.tensors = dict(sorted(found.items()))

    @property
    def has_copies(self) -> bool:
        """Whether it names every tensor of a file that differs, as `PatchWriter` does.

        The parameters of a model, which trainers list, have one name for a tensor that several modules share.
        """
        return any(FROM in shard.metadata for shard in self.shards)

    def _check_encoding(self) -> None:
        for shard in self.shards:
            encoding = shard.metadata.get(_ENCODING, _RAW)
            if encoding != _RAW:
                raise InvalidInput(
                    f"{self.path}: its indices have the encoding {shorten(encoding)}; write the patch with"
                    " raw int32 indices"
                )

    def _checked(self, name: str, spec: TensorSpec | None) -> TensorSpec:
        """The spec of a patched tensor; that of the values if the base lacks the tensor."""
        indices, values = self._patch.spec(name + INDICES), self._patch.spec(name + VALUES)
        where = f"{self.path}: tensor {shorten(name)}"
        if indices.dtype != "I32" or len(indices.shape) != 1:
            raise InvalidInput(
                f"{where}: its indices are {indices.dtype} {list(indices.shape)}; they must be I32 with one"
                " dimension"
            )
        if values.shape != indices.shape:
            raise InvalidInput(
                f"{where}: it has {indices.elements} indices and values of the shape {list(values.shape)}"
            )
        if spec is None:
            return TensorSpec(name, values.dtype, values.shape)
        if values.dtype != spec.dtype:
            raise InvalidInput(f"{where}: its values are {values.dtype}, but the base has {spec.dtype}")
        if not spec.merged:
            raise InvalidInput(f"{where}: only BF16, F16 and F32 tensors can change in a vector")
        return spec

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """Fills `out` with the patched elements from `start_byte` on, which has to begin a chunk."""
        spec, given = self.tensors[name][0], self._given[name]
        bits = np.frombuffer(memoryview(out), uint(spec.unit))
        start = start_byte // spec.unit
        bits[:] = self._original(name, start // self._chunk)
        first, last = self._place(given, start), self._place(given, start + bits.size)
        whole = start + bits.size == spec.elements
        if (start == 0 and first) or (whole and last != self._patch.spec(given + INDICES).elements):
            raise self._disordered(name)
        indices, values = np.empty(last - first, np.int32), np.empty(last - first, bits.dtype)
        self._patch.read_into(given + INDICES, 4 * first, indices.data)
        self._patch.read_into(given + VALUES, spec.unit * first, values.view(np.uint8).data)
        inside = indices - np.int64(start)
        if last > first and (inside[0] < 0 or inside[-1] >= bits.size or (np.diff(inside) <= 0).any()):
            raise self._disordered(name)
        bits[inside] = values

    def _place(self, name: str, index: int) -> int:
        """How many indices of a tensor lie below `index`, by bisection.

        Of disordered indices it gives some number, the same for each call.
        """
        low, high = 0, self._patch.spec(name + INDICES).elements
        one = np.empty(1, np.int32)
        while low < high:
            middle = (low + high) // 2
            self._patch.read_into(name + INDICES, 4 * middle, one.data)
            if one[0] < index:
                low = middle + 1
            else:
                high = middle
        return low

    def _disordered(self, name: str) -> InvalidInput:
        spec = self.tensors[name][0]
        return InvalidInput(
            f"{self.path}: tensor {shorten(name)}: its indices must ascend, each once, from 0 to"
            f" {spec.elements - 1}"
        )

    def check_unchanged(self) -> None:
        """As for the patch's file."""
        self._patch.check_unchanged()

    def close(self) -> None:
        """Does nothing: who opened the patch closes it."""


# -- write ---------------------------------------------------------------------------------------------------


class PatchWriter:
    """Writes one sparse patch: tensor after tensor, whole or not at all.

    What was added lies on disk beside the target, so memory does not grow with the patch. It discards the
    file at exit unless it was published.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._held = ExitStack()
        self._spools = {
            part: self._held.enter_context(files.Output.create(target.parent, prefix=f".{target.name}.tmp"))
            for part in (INDICES, VALUES)
        }
        self._specs: dict[str, TensorSpec] = {}
        self._starts: dict[str, int] = {}

    def add(self, spec: TensorSpec, indices: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Adds elements of a tensor: their ascending places, and their bits. Tensors come one by one."""
        if not indices.size:
            return
        if spec.elements > MOST:
            raise InvalidInput(
                f"tensor {spec.name} has {spec.elements} elements, more than the int32 indices of a patch can"
                " count; write the weights as a whole"
            )
        for part, dtype, data in (
            (INDICES, "I32", indices.astype("<i4")),
            (VALUES, spec.dtype, np.ascontiguousarray(values)),
        ):
            name = spec.name + part
            start = self._spools[part].write(data.view(np.uint8).data)
            held = self._specs.get(name)
            self._starts.setdefault(name, start)
            count = data.size + (held.elements if held else 0)
            self._specs[name] = TensorSpec(name, dtype, (count,))

    @property
    def tensors(self) -> int:
        """How many tensors the patch names."""
        return len(self._specs) // 2

    def publish(self, metadata: Mapping[str, str], *, force: bool) -> int:
        """Puts the file in place and returns its size in bytes.

        Raises `Refused` if there is a file, unless `force`.
        """
        header, places = encode_header(self._specs.values(), {"format": "pt", _ENCODING: _RAW, **metadata})
        directory = self._target.parent
        size = len(header) + sum(entry.nbytes for entry in places.values())
        files.require_room(directory, size)
        with files.Output.create(directory, prefix=f".{self._target.name}.tmp", size=size) as output:
            output.pwrite(header, 0)
            for name, entry in places.items():
                part = INDICES if name.endswith(INDICES) else VALUES
                self._copy(self._spools[part], self._starts[name], output, entry.offset, entry.nbytes)
            if force:
                output.take_mode_of(self._target)
                output.publish(self._target)
            else:
                output.sync()
                if not output.link_to(self._target):
                    raise taken(self._target)
                output.withdraw()
                files.sync_directories([directory])
        return size

    @staticmethod
    def _copy(source: files.Output, start: int, output: files.Output, to: int, nbytes: int) -> None:
        for at in range(0, nbytes, _COPY_BYTES):
            count = min(_COPY_BYTES, nbytes - at)
            output.pwrite(files.read_at(source.fileno(), count, start + at, source.path), to + at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def taken(target: Path) -> Refused:
    """The error for a file that is there already."""
    return Refused(f"{target} is there already", hint=(Keyword(force=True), " replaces it"))


def check_target(target: Path, *, force: bool) -> None:
    """Raises `Refused` for a target that no patch can replace, and `InvalidInput` for a missing directory."""
    if not target.parent.is_dir():
        raise InvalidInput(f"{target.parent} is not a directory; make it, or write elsewhere")
    if os.path.lexists(target) and (target.is_dir() or not force):
        raise Refused(f"{target} is a directory; name a file") if target.is_dir() else taken(target)
