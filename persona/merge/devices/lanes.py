"""**lane** — one stream of a device with memory for a chunk; a thread takes a lane to have its chunk merged.

A thread decodes a chunk on the host, takes a lane, queues the copies to the device, the kernel and the copy
back, waits for its stream, and gives the lane back. Meanwhile other threads decode, write and hash. So the
bus, the kernels and the cores work at the same time, and a few lanes keep both directions of the bus busy.

If no lane is free, a new one is made, as long as the memory lasts. If the memory does not hold a lane for a
whole chunk, a chunk is loaded in slices of its exponent order. Its finished elements lie on the device whole,
and are copied back once. No bit depends on any of that (docs/decisions/017-what-crosses-the-bus.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.errors import Keyword, UsageError
from persona.frozen import dataclass
from persona.limits import DEVICE_MEMORY, MIB
from persona.merge.arithmetic import layout
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.arithmetic.layout import aligned, aligned_down
from persona.merge.devices.device import Device, DeviceArray, DeviceFault, DeviceFull, DeviceTerms
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.source import NUMBER_BYTES

MOST_LANES: Final = 4
"""Lanes of a device: one copies in, one computes, one copies back, one is being filled or given back."""
_TERMS: Final = 1024
"""Mixtures whose numbers stay on a device."""


def _nbytes(size: int, length: int, unit: int, row_bytes: int) -> int:
    """The bytes of a chunk of `size` elements, `length` of them at a time.

    They are out, base, order and the rows, which take `row_bytes` for an element together.
    """
    return aligned(size) * unit + aligned(length) * (unit + layout.ORDER_BYTES + row_bytes)


@dataclass(frozen=True)
class Need:
    """Bytes of a lane: `whole` for all chunks of some tensors at once, `least` in the shortest slices."""

    whole: int
    least: int

    def check(self, memory: int | None) -> None:
        """Raises `UsageError` for bytes of a device in which not even slices fit."""
        if memory is not None and memory < self.least:
            raise UsageError(
                f"this recipe's chunks need at least {-(-self.least // MIB)} MiB on the GPU",
                hint=("give ", Keyword(device_memory=-(-self.least // MIB) * MIB), " or more"),
            )

    @classmethod
    def of(cls, plan: Plan, tensors: Iterable[TensorPlan]) -> Need:
        """The memory that merging these tensors of a plan takes."""
        whole = least = 0
        for tensor in tensors:
            if tensor.way == "merge":
                size, unit = min(tensor.spec.units, plan.base.chunk), tensor.spec.unit
                row_bytes = plan.rows.row_bytes(tensor.spec, tensor.terms)
                whole = max(whole, _nbytes(size, size, unit, row_bytes))
                least = max(least, _nbytes(size, min(size, layout.SHORTEST_SLICE), unit, row_bytes))
        return cls(whole, least)


@dataclass(frozen=True)
class LoadedSlice:
    """Some elements of a chunk on a device, as `Stream.merge` takes them: base, z, numbers, row_of, order."""

    base: DeviceArray
    z: DeviceArray
    numbers: DeviceArray | None
    row_of: NDArray[np.int32] | None
    order: DeviceArray

    @property
    def rows(self) -> tuple[DeviceArray, DeviceArray, DeviceArray | None, NDArray[np.int32] | None]:
        """The arrays before `order`."""
        return self.base, self.z, self.numbers, self.row_of


class Lane:
    """A stream, `nbytes` of memory, and a counter of elements that are not finite; for one thread."""

    def __init__(self, device: Device, nbytes: int) -> None:
        """Raises `DeviceFull`."""
        self.device = device
        self.nbytes = nbytes
        self.stream = device.stream()
        self.counter = self.stream.array(1, np.int64)
        self.held: list[DeviceTerms] = []
        """Arrays that operations in the stream may read, and that only the lane holds."""
        self._memory = self.stream.array(nbytes, np.uint8)
        self._count = device.host(1, np.int64)

    def out(self, size: int, dtype: Any) -> DeviceArray:
        """Room for the finished elements of a chunk: dtype[size]."""
        return self.device.view(self._memory[: size * np.dtype(dtype).itemsize], dtype)

    def loaded(
        self, part: DecodedChunk, terms: Sequence[int] | NDArray[np.intp], size: int
    ) -> Iterator[LoadedSlice]:
        """A part of a chunk of `size` elements, on the device, in slices that fit.

        `terms`: the places in `part.present` of the terms whose rows are wanted, in the order of the rows
        there. Operations that are queued for one slice run before the next slice is copied over it.
        """
        uint, unit = part.sorted_base.dtype, part.sorted_base.itemsize
        rows = part.rows()[terms]
        of_z, of_numbers = np.unique(rows[rows >= 0]), np.unique(~rows[rows < 0])
        if not of_numbers.size:
            of_z = rows
        start = aligned(size) * unit
        each = unit + layout.ORDER_BYTES + of_z.size * unit + of_numbers.size * NUMBER_BYTES
        length = min(aligned(part.order.size), aligned_down((self.nbytes - start) // each))
        base = self._part(start, length, uint)
        start += length * unit
        order = self._part(start, length, np.uint32)
        start += length * layout.ORDER_BYTES
        z = base.reshape((1, length))[:0]
        if of_z.size:
            z = self._part(start, of_z.size * length, uint).reshape((of_z.size, length))
        numbers: DeviceArray = None
        row_of: NDArray[np.int32] | None = None
        if of_numbers.size:
            start += of_z.size * length * unit
            numbers = self._part(start, of_numbers.size * length, np.float32)
            numbers = numbers.reshape((of_numbers.size, length))
            places = np.where(rows >= 0, np.searchsorted(of_z, rows), ~np.searchsorted(of_numbers, ~rows))
            row_of = places.astype(np.int32)
        for begin in range(0, part.order.size, length):
            end = min(begin + length, part.order.size)
            count = end - begin
            self.stream.load(part.sorted_base[begin:end], base[:count])
            self.stream.load(part.order[begin:end], order[:count])
            if count == length == part.z.shape[1] and np.array_equal(of_z, range(len(part.z))):
                self.stream.load(part.z, z)  # one copy instead of one for each row
            else:
                for place, row in enumerate(of_z):
                    self.stream.load(part.z[row, begin:end], z[place, :count])
            for place, row in enumerate(of_numbers):
                self.stream.load(part.numbers[row, begin:end], numbers[place, :count])
            yield LoadedSlice(base[:count], z, numbers, row_of, order[:count])

    def _part(self, start: int, elements: int, dtype: Any) -> DeviceArray:
        stop = start + elements * np.dtype(dtype).itemsize
        return self.device.view(self._memory[start:stop], dtype)

    def counted(self) -> int:
        """Waits for the stream; how many elements came out not finite since `counter` was cleared."""
        self.stream.store(self.counter, self._count)
        self.stream.synchronize()
        return int(self._count[0])


class _DeviceLanes:
    """The lanes of one device. `made` exist, `idle` of them are free; at most `limit` of `nbytes` each."""

    def __init__(self, device: Device, need: Need, memory: int | None) -> None:
        self.device = device
        self.need = need
        self.idle: list[Lane] = []
        self.made = 0
        need.check(memory)
        budget = max(need.least, min(DEVICE_MEMORY, device.free() // 2)) if memory is None else memory
        self.nbytes = min(need.whole, budget)
        self.limit = min(MOST_LANES, budget // max(1, self.nbytes))
        self._terms: dict[tuple[object, ...], DeviceTerms] = {}

    def make(self) -> Lane | None:
        """One more lane; the first may be smaller. None if the device has no memory for it."""
        while True:
            try:
                lane = Lane(self.device, self.nbytes)
            except DeviceFull:
                if self.made or self.nbytes == self.need.least:
                    self.limit = self.made
                    return None
                self.nbytes = max(self.need.least, self.nbytes // 2)
                self.limit = 1
            except DeviceFault:
                if not self.made:
                    raise
                self.limit = self.made
                return None
            else:
                self.made += 1
                return lane

    def terms(self, arguments: MergeArguments) -> DeviceTerms:
        """The numbers of merge arguments on the device, for which every tensor asks again at each chunk."""
        arrays = (arguments.theta, arguments.alpha, arguments.add)
        key = (*(array.tobytes() for array in arrays), arguments.rules)
        found = self._terms.get(key)
        if found is None:
            if len(self._terms) >= _TERMS:
                self._terms.clear()
            [found] = self.device.terms([arguments])
            self._terms[key] = found
        return found


class Lanes:
    """The lanes of one or several devices, on which chunks are merged. Thread-safe.

    Every lane that was taken comes back idle, however its use ended.
    """

    def __init__(self, devices: Sequence[Device], need: Need, memory: int | None = None) -> None:
        """`memory`: bytes that lanes may take on each device.

        By default half of its free memory, and at most `DEVICE_MEMORY`. A device that fails is left out like
        one that is full. Raises `UsageError` for a memory in which not even slices fit, `DeviceFault` if no
        device is left and one failed, `DeviceFull` if none has enough memory.
        """
        self._condition = threading.Condition()
        self._by_device = []
        failed: DeviceFault | None = None
        for device in devices:
            try:
                one = _DeviceLanes(device, need, memory)
                lane = one.make()
            except DeviceFault as error:
                failed = failed or error
                continue
            if lane is not None:
                one.idle.append(lane)
                self._by_device.append(one)
        if not self._by_device and failed:
            raise failed
        if not self._by_device:
            free = max((device.free() for device in devices), default=0)
            wanted = "its kernels and this recipe's chunks need more"
            if free < need.least:
                wanted = f"this recipe's chunks need at least {-(-need.least // MIB)} MiB"
            raise DeviceFull(f"the GPU has {free // MIB} MiB free, but {wanted}")

    @property
    def nbytes(self) -> int:
        """The bytes of all lanes that may be made."""
        return sum(one.limit * one.nbytes for one in self._by_device)

    @property
    def devices(self) -> list[Device]:
        """The devices that have lanes."""
        return [one.device for one in self._by_device]

    def host(self, shape: tuple[int, ...] | int, dtype: Any) -> NDArray[Any]:
        """A host array that copies to and from any of the devices without a detour."""
        return self._by_device[0].device.host(shape, dtype)

    @contextmanager
    def lane(self) -> Iterator[tuple[Lane, Callable[[MergeArguments], DeviceTerms]]]:
        """A lane of the device with the most free lanes, and its function for merge arguments.

        Waits until a lane is free. When it is given back, nothing that was queued on it is left. The
        arguments stay valid until then.
        """
        one, lane = self._take()

        def terms_of(arguments: MergeArguments) -> DeviceTerms:
            lane.held.append(one.terms(arguments))
            return lane.held[-1]

        try:
            try:
                yield lane, terms_of
            finally:
                lane.stream.synchronize()
                lane.held.clear()
        finally:
            with self._condition:
                one.idle.append(lane)
                self._condition.notify()

    def _take(self) -> tuple[_DeviceLanes, Lane]:
        with self._condition:
            while True:
                one = min(self._by_device, key=lambda one: one.made - len(one.idle))
                if one.idle:
                    return one, one.idle.pop()
                if one.made < one.limit and (lane := one.make()) is not None:
                    return one, lane
                other = next((one for one in self._by_device if one.idle), None)
                if other is not None:
                    return other, other.idle.pop()
                self._condition.wait()

    def merge(
        self,
        parts: Iterable[DecodedChunk],
        arguments_of: Callable[[list[int]], MergeArguments],
        out: NDArray[Any] | None,
        onto: DeviceArray | None = None,
    ) -> int:
        """Merges the parts of one chunk; returns how many elements are not finite.

        The result goes to out: uint[n], or without it to onto: uint[n] on the device. A part's arrays may be
        used again as soon as the next part is asked for.
        """
        remaining = iter(parts)
        first = next(remaining)
        rows, arguments = arguments_of(first.present).votes_first()
        target: DeviceArray = onto
        with self.lane() as (lane, terms_of):
            terms = terms_of(arguments)
            lane.stream.clear(lane.counter)
            size = len(target) if out is None else out.size
            if out is not None:
                target = lane.out(size, out.dtype)
            part: DecodedChunk | None = first
            while part is not None:
                with lane.stream.together():
                    for loaded in lane.loaded(part, rows, size):
                        lane.stream.merge(*loaded.rows, loaded.order, target, terms, arguments, lane.counter)
                if part.order.size < size:
                    lane.stream.synchronize()
                part = next(remaining, None)
            if out is not None:
                lane.stream.store(target, out)
            return lane.counted()
