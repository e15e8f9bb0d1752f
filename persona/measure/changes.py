"""The elements whose bits differ between the weights of two recipes, chunk by chunk on all cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import Blank, Call, InvalidInput
from persona.limits import CHUNK_MEMORY
from persona.merge.plan import Plan
from persona.merge.run.merger import NotFinite, merger_of, tell_not_finite
from persona.merge.workers import first_run, in_order
from persona.objects.tensors import TensorSpec, chunk_span
from persona.progress import COMPARING, Progress

Changed = tuple[TensorSpec, NDArray[np.int64], NDArray[Any]]
"""A tensor, the places of some of its elements in ascending order, and their new bits."""


def changed_elements(
    before: Plan,
    after: Plan,
    *,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    not_finite: NotFinite | None = None,
) -> Iterator[Changed]:
    """Every element with other bits in `after`: tensor by tensor in byte order of names, chunk by chunk.

    `memory`: bytes for chunks of both sides. `not_finite` as for `merge.run.merger.pieces`. Raises
    `InvalidInput` for two bases with other tensors or chunks.
    """
    _check_bases(before, after)
    tensors = [tensor for tensor in after.tensors if before.by_name[tensor.spec.name].key != tensor.key]
    olds = [before.by_name[tensor.spec.name] for tensor in tensors]
    share = (CHUNK_MEMORY if memory is None else memory) // 2
    old = merger_of(before, olds, threads, share, None)
    new = merger_of(after, tensors, threads, share, None)
    chunk = after.base.chunk

    def work(span: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[Any], int]:
        at, index = span
        spec = tensors[at].spec
        start, stop = chunk_span(spec, index, chunk)
        one, _ = old.chunk(olds[at], index)
        other, bad = new.chunk(tensors[at], index)
        nbytes = (stop - start) * spec.unit
        was, now = one[:nbytes].view(spec.bits_dtype), other[:nbytes].view(spec.bits_dtype)
        places = np.flatnonzero(was != now)
        values = now[places]
        old.buffers.give(one)
        new.buffers.give(other)
        if places.size and not spec.merged:
            raise InvalidInput(
                f"tensor {spec.name} of dtype {spec.dtype} differs between the two bases: a patch holds"
                " only BF16, F16 and F32 tensors"
            )
        return places + start, values, bad

    spans = [(at, index) for at, tensor in enumerate(tensors) for index in range(after.chunks(tensor))]
    total, done, bad = sum(tensor.spec.nbytes for tensor in tensors), 0, 0
    workers = min(old.budget.threads, new.budget.threads)
    with first_run(progress) as progress, closing(in_order(work, spans, threads=workers)) as made:
        for (at, index), (places, values, count) in zip(spans, made, strict=True):
            spec = tensors[at].spec
            start, stop = chunk_span(spec, index, chunk)
            bad += count
            if stop == spec.units and bad:
                tell_not_finite(spec, bad, not_finite)
                bad = 0
            yield spec, places, values
            done += (stop - start) * spec.unit
            if progress:
                progress(COMPARING, done, total)


def _alike(before: Plan, after: Plan, name: str) -> bool:
    return before.base.spec.get(name) == after.base.spec.get(name)


def _check_bases(before: Plan, after: Plan) -> None:
    """Raises `InvalidInput` unless both sides have the same tensors, in chunks of one length."""
    if before.base.tensors == after.base.tensors and before.base.chunk == after.base.chunk:
        return
    if before.recipe.base == after.recipe.base:
        name = next(name for name in {**before.origins, **after.origins} if not _alike(before, after, name))
        shapes = [plan.base.spec[name].shape if name in plan.base.spec else None for plan in (before, after)]
        one, other = ("missing" if shape is None else str(list(shape)) for shape in shapes)
        raise InvalidInput(
            f"the vectors of the two revisions add different rows to the base: {name} is {one} in the first"
            f" and {other} in the second; a patch replaces elements, and adds none",
            hint=(Call("checkout", Blank("REV"), out=Blank("OUT")), " writes the whole model"),
        )
    names = [spec.name for spec in after.base.tensors if before.base.spec.get(spec.name) != spec]
    names += [spec.name for spec in before.base.tensors if spec.name not in after.base.spec]
    what = f"differ in the tensor {names[0]}" if names else "are stored in chunks of different lengths"
    raise InvalidInput(f"the two revisions have bases that {what}; no patch leads from one to the other")
