"""Which tensors of a checkpoint are those that a plan computes, found by their digests.

A checkpoint is read once. A plan then merges the tensors that are asked for, and writes nothing. A tensor of
another float dtype than the base's is compared after a conversion: if its dtype holds every value of the
base's dtype, the checkpoint's numbers are rounded to the base's dtype. If not, the plan's numbers are rounded
to the checkpoint's dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from persona.codec.floats import in_default_environment
from persona.cores import thread_count
from persona.frozen import dataclass
from persona.merge.arithmetic import casts
from persona.merge.devices.choose import CPU, DeviceChoice
from persona.merge.plan import Plan
from persona.merge.run.hashes import Hashes
from persona.merge.run.materialise import tensor_digests
from persona.merge.workers import first_run, in_order
from persona.objects.base import Base
from persona.objects.digest import block_spans, weights_digest
from persona.objects.dtypes import DTYPES, uint
from persona.objects.tensors import TensorSpec
from persona.progress import HASHING, Progress
from persona.store.files import Buffer
from persona.weights.checkpoint import Checkpoint

_ROUNDED: Final = "{} {}"
"""The name of a hash: the dtype that a tensor was rounded to, and the tensor's name."""


@dataclass(frozen=True)
class Given:
    """The digests of a checkpoint.

    `weights`: its weights digest. `stored`: the names of its tensors. `tensors`: name → spec and digest of a
    tensor in its own dtype; a name that its model ties to a stored tensor is among them. `rounded`: (name,
    other dtype) → digest in that dtype, and whether every number is the same in both dtypes.
    """

    weights: str
    stored: tuple[str, ...]
    tensors: Mapping[str, tuple[TensorSpec, str]]
    rounded: Mapping[tuple[str, str], tuple[str, bool]]

    def expected(self, base: Base) -> dict[str, Expected]:
        """The tensors of a base that the checkpoint holds in a form that can be compared, by name."""
        found: dict[str, Expected] = {}
        for spec in base.tensors:
            source, digest = self.tensors.get(spec.name, (None, ""))
            if source is None or source.shape != spec.shape:
                continue
            if source.dtype == spec.dtype:
                found[spec.name] = Expected(digest, spec.dtype, spec.dtype)
            elif (rounded := self.rounded.get((spec.name, spec.dtype))) is not None:
                found[spec.name] = Expected(rounded[0], spec.dtype, source.dtype, exact=rounded[1])
            elif spec.merged and source.merged:
                found[spec.name] = Expected(digest, source.dtype, source.dtype, exact=False)
        return found

    def may_be_of(self, base: Base) -> bool:
        """Whether it has all tensors of a base in a form that can be compared, and no others."""
        return len(self.expected(base)) == len(base.tensors) and not self.extra(base)

    def extra(self, base: Base) -> list[str]:
        """The tensors that the base lacks, without those that equal the tensor that the base ties them to."""
        return [
            name
            for name in self.stored
            if name not in base.spec
            and self.tensors[name][1] != self.tensors.get(base.tied.get(name, ""), (None, ""))[1]
        ]


@dataclass(frozen=True)
class Expected:
    """The digest that a plan's tensor must have after its numbers are rounded to `dtype`.

    `source`: the dtype of the checkpoint's tensor. `exact`: whether nothing was rounded on either side.
    """

    digest: str
    dtype: str
    source: str
    exact: bool = True


@in_default_environment
def read(
    checkpoint: Checkpoint,
    bases: Iterable[Base],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Given:
    """The digests of a checkpoint, in its own dtypes and in those of some bases; reads it once."""
    specs = {name: spec for name, (spec, _) in checkpoint.tensors.items()}
    wanted: dict[str, set[str]] = {name: set() for name in specs}
    for base in bases:
        for spec in base.tensors:
            source = specs.get(checkpoint.tied.get(spec.name, spec.name))
            if source is not None and _rounds(source, spec):
                wanted[source.name].add(spec.dtype)
    hashes = Hashes()
    inexact: set[tuple[str, str]] = set()

    def work(span: tuple[TensorSpec, int, int]) -> int:
        spec, start, stop = span
        raw = np.empty(stop - start, np.uint8)
        checkpoint.read_into(spec.name, start, raw.data)
        for dtype in wanted[spec.name]:
            bits = raw.view(uint(spec.unit))
            rounded = _rounded(bits, spec.dtype, dtype)
            if (spec.name, dtype) not in inexact and not _same(bits, spec.dtype, rounded, dtype):
                inexact.add((spec.name, dtype))
            at = start // spec.unit * rounded.itemsize
            hashes.add(_ROUNDED.format(dtype, spec.name), at, rounded.view(np.uint8).data, raw)
        hashes.add(spec.name, start, raw.data, raw)
        return stop - start

    spans = [(spec, start, stop) for spec in specs.values() for start, stop in block_spans(spec.nbytes)]
    done = 0
    with first_run(progress) as progress:
        for nbytes in in_order(work, spans, threads=thread_count(threads)):
            done += nbytes
            if progress:
                progress(HASHING, done, checkpoint.nbytes)
    checkpoint.check_unchanged()
    digests = {name: hashes.digest(name) for name in specs}
    tensors = {name: (spec, digests[name].hex()) for name, spec in specs.items()}
    rounded = {
        (name, dtype): (hashes.digest(_ROUNDED.format(dtype, name)).hex(), (name, dtype) not in inexact)
        for name, dtypes in wanted.items()
        for dtype in dtypes
    }
    for alias, target in checkpoint.tied.items():
        if alias not in tensors:
            tensors[alias] = replace(specs[target], name=alias), digests[target].hex()
            rounded |= {(alias, dtype): rounded[target, dtype] for dtype in wanted[target]}
    weights = weights_digest((name, spec.dtype, spec.shape, digests[name]) for name, spec in specs.items())
    return Given(weights, tuple(specs), tensors, rounded)


def equal(
    plan: Plan,
    expected: Mapping[str, Expected],
    names: Iterable[str],
    *,
    threads: int | None = None,
    memory: int | None = None,
    device: DeviceChoice = CPU,
    progress: Progress | None = None,
) -> dict[str, bool]:
    """Whether each of these tensors, as the plan computes it, has the expected digest."""
    tensors = [plan.by_name[name] for name in names]
    made = tensor_digests(
        plan,
        tensors,
        cast=_Cast({name: each.dtype for name, each in expected.items()}),
        threads=threads,
        memory=memory,
        progress=progress,
        device=device,
    )
    return {name: digest == expected[name].digest for name, digest in made.items()}


class _Cast:
    """Each tensor in the dtype that it is compared in."""

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        self._dtypes = dtypes

    def spec(self, spec: TensorSpec) -> TensorSpec:
        """The tensor after the conversion."""
        return replace(spec, dtype=self._dtypes.get(spec.name, spec.dtype))

    def convert(self, spec: TensorSpec, data: Buffer) -> Buffer:
        """Some elements of a tensor, rounded to nearest even."""
        dtype = self._dtypes.get(spec.name, spec.dtype)
        if dtype == spec.dtype:
            return data
        bits = np.frombuffer(data, uint(spec.unit))
        converted: Buffer = _rounded(bits, spec.dtype, dtype).view(np.uint8).data
        return converted


def _rounds(source: TensorSpec, spec: TensorSpec) -> bool:
    """Whether a checkpoint's tensor is rounded to the base's dtype before it is compared."""
    if source.dtype == spec.dtype or source.shape != spec.shape or not spec.merged:
        return False
    return source.dtype in ("F32", "F64") and DTYPES[source.dtype].holds(DTYPES[spec.dtype])


def _rounded(bits: casts.Bits, dtype: str, to: str) -> casts.Bits:
    """Float elements rounded once, to nearest even."""
    if dtype == "F64":
        return casts.narrow(casts.widen(bits, dtype), to)
    return casts.narrow32(casts.widen32(bits, dtype), to)


def _same(bits: casts.Bits, dtype: str, rounded: casts.Bits, to: str) -> bool:
    """Whether rounding changed no number; NaNs count as equal."""
    if dtype == "F32" and np.array_equal(casts.widen32(rounded, to).view(np.uint32), bits):
        return True
    return bool(np.array_equal(casts.widen(bits, dtype), casts.widen(rounded, to), equal_nan=True))
