#!/usr/bin/env python3
"""Where does the time of a checkout go? Each stage alone, on one core, beside the ceilings of this machine.

Nanoseconds and bytes are per element of the model. The stages run one after another on the same chunks,
in one process, over all chunks of a recipe: what they add up to is the work; a checkout overlaps it on all
cores. Ceilings: `memcpy` of a chunk that lies in memory, BLAKE3 of it, zstd of a plane of small numbers, a
read and a write of a chunk through the page cache, and 256 MiB brought to the disk.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import numpy as np
from blake3 import blake3

import persona
from persona.codec.base import decode_base
from persona.codec.delta import decode_delta, exponent_order
from persona.history.planning import plan_of
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.memory import budget_of
from persona.merge.rows.reader import ChunkReader, Workspaces
from persona.merge.rows.stored import StoredRows
from persona.merge.run.merger import Merger
from persona.merge.trim.cutoffs import cutoffs
from persona.objects.tensors import chunk_span
from persona.store import records


class Clock:
    """Seconds and bytes of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, int] = defaultdict(int)

    @contextmanager
    def stage(self, name: str, nbytes: int = 0) -> Iterator[None]:
        """Times a stage that moves so many bytes."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started
        self.bytes[name] += nbytes


def stored(reader: ChunkReader, id: str, kind: str, limit: int, clock: Clock, what: str) -> records.Record:
    """A record, read, verified and decompressed, each by the clock."""
    copy = next(iter(reader.objects.copies(id, kind)))
    with clock.stage(f"read {what}"):
        data = copy.read()
    header = records.parse_header(data, "")
    with clock.stage(f"verify {what}", header.stored_bytes):
        records.verify_stored(header, data, "")
    clock.bytes[f"read {what}"] += len(data)
    started = time.perf_counter()
    record = records.unpack_record(data, expect_id=id, expect_kind=kind, max_raw=limit)
    clock.seconds[f"zstd {what}"] += time.perf_counter() - started
    clock.bytes[f"zstd {what}"] += header.raw_bytes
    started = time.perf_counter()
    records.verify_stored(header, data, "")
    clock.seconds[f"zstd {what}"] -= time.perf_counter() - started
    return record


def walk(repository: Path, out: Path, most: int) -> tuple[Clock, int, int]:
    """Every stage over the chunks of HEAD's recipe, at most so many elements; (clock, elements, vectors)."""
    clock = Clock()
    total = 0
    with persona.open(repository) as repo, out.open("wb", buffering=0) as file:
        history: Any = repo._history
        plan = plan_of(history, history.recipe_of(history.head_commit()))
        budget = budget_of(plan, list(plan.tensors), 1)
        rows_of = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, plan.base.chunk))
        merger = Merger(plan, cutoffs(plan, plan.tensors, budget), rows_of, budget)
        for warm in (True, False):
            for tensor in plan.tensors:
                spec = tensor.spec
                if tensor.way != "merge":
                    continue
                for index in range(plan.chunks(tensor)):
                    if warm and index:
                        break
                    start, stop = chunk_span(spec, index, plan.base.chunk)
                    n = stop - start
                    space = rows_of.workspaces.get(spec)
                    base_id = plan.rows.chunks.id(spec, index)
                    record = stored(rows_of.chunks.reader, base_id, "chunk", n * spec.unit, clock, "the base")
                    base = space.base[:n]
                    with clock.stage("planes to elements", base.nbytes):
                        decode_base(record.form, record.segments, base)
                    rows = space.rows(len(tensor.terms), n)
                    present: list[int] = []
                    for term in tensor.terms:
                        id = plan.sources[term].chunk_id(spec, index)
                        if id is None:
                            continue
                        record = stored(
                            rows_of.chunks.reader,
                            id,
                            "delta",
                            4 * base.nbytes + (1 << 16),
                            clock,
                            "the vectors",
                        )
                        with clock.stage("groups to differences", base.nbytes):
                            decode_delta(record.form, record.segments, rows[len(present)])
                        present.append(term)
                    order, ordered = space.order[:n], space.sorted_base[:n]
                    with clock.stage("exponent order", base.nbytes):
                        exponent_order(base, spec.dtype, order, ordered)
                    buffer = np.empty(n, base.dtype)
                    with clock.stage("merge and scatter", base.nbytes):
                        merger.merge(
                            tensor, (DecodedChunk(present, ordered, rows[: len(present)], order),), buffer
                        )
                    with clock.stage("hash the output", base.nbytes):
                        blake3(buffer.view(np.uint8).data).digest()
                    with clock.stage("write the output", base.nbytes):
                        file.write(buffer.data)
                    if not warm:
                        total += n
                if total >= most:
                    break
            if warm:
                clock = Clock()
                file.seek(0)
        with clock.stage("fsync", total * 2):
            os.fsync(file.fileno())
    return clock, total, len(plan.recipe.terms)


def ceilings(out: Path) -> list[list[str]]:
    """What this machine can do at best: GB/s on one core."""
    data = np.random.default_rng(0).integers(0, 1 << 16, 1 << 20, dtype=np.uint16)
    other = np.empty_like(data)
    rows = []

    def rate(name: str, nbytes: int, work: Any) -> None:
        work()
        best = min(_timed(work) for _ in range(20))
        rows.append([name, f"{nbytes / best / 1e9:.1f}"])

    rate("memcpy of 2 MiB", data.nbytes, lambda: np.copyto(other, data))
    rate("BLAKE3", data.nbytes, lambda: blake3(data.view(np.uint8).data).digest())
    skewed = (data & 15).astype(np.uint8) & (data >> 8 & 15).astype(np.uint8)
    frame = records._compressor("bulk").compress(skewed.data)
    rate("zstd, bytes out", skewed.nbytes, lambda: records._decompressor().decompress(frame))
    with out.open("w+b", buffering=0) as file:
        rate("write through the page cache", data.nbytes, lambda: os.pwrite(file.fileno(), data.data, 0))
        rate("read through the page cache", data.nbytes, lambda: os.preadv(file.fileno(), [other.data], 0))
        file.truncate(0)
        big = np.tile(data, 128)

        def synced() -> None:
            os.pwrite(file.fileno(), big.data, 0)
            os.fsync(file.fileno())

        rows.append(
            ["write and fsync of 256 MiB", f"{big.nbytes / min(_timed(synced) for _ in range(3)) / 1e9:.1f}"]
        )
    return rows


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Parse, walk, print."""
    options = harness.parser(__doc__)
    options.add_argument("--density", default="0.2")
    options.add_argument("--vectors", type=int, help="use only the first N fine-tunes")
    options.add_argument("--elements", type=int, default=1 << 62, help="stop after so many")
    args = options.parse_args()
    base, tuned = harness.models_of(args.models)
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base, tuned[: args.vectors])
        harness.run([args.persona, "-C", repository, "set", "--merge", f"density={args.density}"])
        harness.run([args.persona, "-C", repository, "commit", "-m", "density"])
        clock, total, vectors = walk(repository, work / "out", args.elements)
        limits = ceilings(Path(tempfile.mkstemp(dir=work)[1]))
    harness.show(
        f"stages, {vectors} vectors, density {args.density}, {total:,} elements, one core",
        ["stage", "ns an element", "bytes an element", "GB/s"],
        [
            [
                name,
                f"{seconds / total * 1e9:.2f}",
                f"{clock.bytes[name] / total:.2f}",
                f"{clock.bytes[name] / seconds / 1e9:.1f}",
            ]
            for name, seconds in clock.seconds.items()
        ]
        + [["together", f"{sum(clock.seconds.values()) / total * 1e9:.2f}", "", ""]],
    )
    harness.show("ceilings, one core", ["what", "GB/s"], limits)


if __name__ == "__main__":
    main()
