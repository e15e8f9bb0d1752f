"""Tensors of a checkpoint under other names: each is one of its tensors, or is put together from several.

Experts one by one and experts stacked hold the same bytes in another order of tensors, and so do q, k and v
beside a fused qkv. So a tensor of one layout is a list of byte runs of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from persona.frozen import dataclass
from persona.objects.tensors import TensorSpec

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_STEP = 1 << 22


class Weights(Protocol):
    """Bytes of the tensors of a checkpoint. Thread-safe."""

    @property
    def path(self) -> Path:
        """The path, for messages."""

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """See `Checkpoint.read_into`."""


@dataclass(frozen=True)
class Run:
    """`nbytes` bytes of a tensor of a checkpoint, from `start` on."""

    name: str
    start: int
    nbytes: int


@dataclass(frozen=True)
class Held:
    """A tensor that a checkpoint holds as these runs, one after the other."""

    spec: TensorSpec
    runs: tuple[Run, ...]

    @classmethod
    def whole(cls, spec: TensorSpec) -> Held:
        """A tensor of the checkpoint itself."""
        return cls(spec, (Run(spec.name, 0, spec.nbytes),))

    def named(self, name: str) -> Held:
        """The same under another name."""
        return Held(TensorSpec(name, self.spec.dtype, self.spec.shape), self.runs)

    def as_scalar(self, spec: TensorSpec | None) -> Held:
        """The same in the shape of `spec`, if one of the two has no dimension: FSDP adds one."""
        if spec is None or {self.spec.shape, spec.shape} != {(), (1,)}:
            return self
        return Held(TensorSpec(self.spec.name, self.spec.dtype, spec.shape), self.runs)

    def cut(self, name: str, shape: tuple[int, ...], start: int) -> Held:
        """A tensor of this shape that a tensor of the checkpoint holds in its bytes from `start` on."""
        spec = TensorSpec(name, self.spec.dtype, shape)
        (run,) = self.runs
        return Held(spec, (Run(run.name, run.start + start, spec.nbytes),))


class View:
    """A checkpoint whose tensors are `held`, by their new names."""

    def __init__(self, weights: Weights, held: Mapping[str, Held]) -> None:
        self._weights = weights
        self.held = held

    @property
    def path(self) -> Path:
        """See `Weights`."""
        return self._weights.path

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The tensors by their new names."""
        return {name: held.spec for name, held in self.held.items()}

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """See `Weights`."""
        self.read_held(self.held[name], start_byte, out)

    def read_held(self, held: Held, start_byte: int, out: WriteableBuffer) -> None:
        """Fills `out` with the bytes of a tensor, which need not be one of `held`, from `start_byte` on."""
        view = memoryview(out).cast("B")
        done = at = 0
        for run in held.runs:
            first = max(start_byte + done, at)
            count = min(run.nbytes - (first - at), view.nbytes - done)
            if count > 0:
                self._weights.read_into(run.name, run.start + first - at, view[done : done + count])
                done += count
            at += run.nbytes

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors have the same dtype, shape and bytes."""
        first, second = self.held[one], self.held[other]
        if (first.spec.dtype, first.spec.shape) != (second.spec.dtype, second.spec.shape):
            return False
        pairs = zip(self.blocks(one), self.blocks(other), strict=True)
        return first.runs == second.runs or all(a == b for a, b in pairs)

    def blocks(self, name: str) -> Iterator[bytearray]:
        """The bytes of a tensor, a few MiB at a time."""
        nbytes = self.held[name].spec.nbytes
        for start in range(0, nbytes, _STEP):
            block = bytearray(min(_STEP, nbytes - start))
            self.read_into(name, start, block)
            yield block
