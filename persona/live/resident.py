"""**resident** — the data that decides a tensor besides α and the rules, kept on the tensor's own device.

A resident holds the base's elements and a row of ulp differences for each vector, in the order of the
elements. So a change of α is one kernel, which writes into the tensor's own memory, and nothing crosses the
bus.

A tensor of n elements with K vectors takes (1 + K)·n elements. Tensors that do not fit, and tensors with rows
of numbers, are streamed through lanes each time. A part of the device stays free, for the lanes and for what
the model itself computes. Invariant: a resident that can be found is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Final

import numpy as np

from persona.frozen import dataclass
from persona.limits import DEVICE_RESERVE
from persona.live.slots import Slot
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.arithmetic.layout import aligned
from persona.merge.devices.device import Device, DeviceArray, DeviceFault, DeviceFull
from persona.merge.devices.lanes import Lane, Lanes, Need
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.cache import BoundedCache, Key
from persona.merge.run.merger import Merger
from persona.objects.dtypes import uint
from persona.objects.tensors import chunk_span

_APART: Final = 2
"""Counters lie so many apart, 16 bytes: a pointer of other alignment needs other code of a kernel."""


@dataclass(frozen=True)
class Resident:
    """base: uint[n]; z: uint[K, ≥ n], a row for each term that reaches the tensor, votes first."""

    base: DeviceArray
    z: DeviceArray


@dataclass(frozen=True)
class _Loading:
    key: Key
    resident: Resident
    nbytes: int


class Residents:
    """The residents of the devices that a model lies on, `limit` bytes of them on each."""

    def __init__(self, limit: int, memory: int | None = None) -> None:
        """`memory`: bytes that lanes may take on each device beside them (`merge.devices.lanes.Lanes`)."""
        self._limit = limit
        self._memory = memory
        self._caches: dict[Device, BoundedCache[Resident]] = {}

    def begin(
        self,
        merger: Merger,
        tensors: Iterable[TensorPlan],
        slots: Mapping[str, Slot],
        note: Callable[[str], None] = lambda _: None,
    ) -> DeviceFill:
        """Begins a merge of these tensors, after everything queued on their devices is done.

        `note` is called if a device has no memory even for lanes, or fails at them. Then its tensors are
        computed on the CPU.
        """
        lying = {slot.device for slot in slots.values()}
        for device in [device for device in self._caches if device not in lying]:
            del self._caches[device]
        by_tensor: dict[str, _OnDevice] = {}
        try:
            for device, here in _placed(tensors, slots).items():
                device.settle()
                merged = _merged(here)
                if not merged:
                    continue
                cache = self._caches.setdefault(device, BoundedCache(self._limit))
                try:
                    on_device = _OnDevice(merger, device, cache, merged, self._memory)
                except (DeviceFull, DeviceFault) as error:
                    note(f"computed on the CPU: {error}")
                    continue
                by_tensor.update((tensor.spec.name, on_device) for tensor in merged)
            return DeviceFill(merger, by_tensor, slots)
        except BaseException:
            for on_device in by_tensor.values():
                on_device.close()
            raise

    def check(self, plan: Plan, tensors: Iterable[TensorPlan], slots: Mapping[str, Slot]) -> None:
        """Raises `UsageError` if lanes for these tensors of a plan do not fit into `memory`."""
        for here in _placed(tensors, slots).values():
            Need.of(plan, _merged(here)).check(self._memory)


def _placed(tensors: Iterable[TensorPlan], slots: Mapping[str, Slot]) -> dict[Device, list[TensorPlan]]:
    """Tensors by the devices that they lie on."""
    placed: dict[Device, list[TensorPlan]] = {}
    for tensor in tensors:
        device = slots[tensor.spec.name].device
        if device is not None:
            placed.setdefault(device, []).append(tensor)
    return placed


def _merged(tensors: Iterable[TensorPlan]) -> list[TensorPlan]:
    return [tensor for tensor in tensors if tensor.way == "merge" and tensor.spec.units]


class DeviceFill:
    """One merge into tensors on devices. Its chunks may be merged by many threads."""

    def __init__(self, merger: Merger, by_tensor: Mapping[str, _OnDevice], slots: Mapping[str, Slot]) -> None:
        self._merger = merger
        self._by_tensor = by_tensor
        self._slots = slots

    def takes(self, tensor: TensorPlan) -> bool:
        """Whether a tensor is merged on its device."""
        return tensor.spec.name in self._by_tensor

    def holds(self, tensor: TensorPlan) -> bool:
        """Whether it is resident: then `merge_residents` takes it, else `merge`, chunk by chunk."""
        device = self._by_tensor.get(tensor.spec.name)
        return device is not None and tensor.spec.name in device.found

    def merge_residents(self, tensors: Iterable[TensorPlan]) -> Generator[tuple[TensorPlan, int], None, None]:
        """Merges resident tensors; gives each with how many of its elements are not finite.

        All kernels of a device are queued before the first one is waited for, and no other thread takes part:
        queueing a kernel takes about as long as running it.
        """
        by_device: dict[_OnDevice, list[TensorPlan]] = {}
        for tensor in tensors:
            by_device.setdefault(self._by_tensor[tensor.spec.name], []).append(tensor)
        with ExitStack() as queues:
            queued = []
            for device, here in by_device.items():
                outs = [self._slots[tensor.spec.name].onto(0, tensor.spec.units) for tensor in here]
                queued.append((here, queues.enter_context(device.queued(here, outs))))
            for here, counts in queued:
                yield from zip(here, counts(), strict=True)

    def merge(self, tensor: TensorPlan, index: int) -> int:
        """Merges one chunk of a tensor and waits for it; returns how many elements are not finite."""
        spec, device = tensor.spec, self._by_tensor[tensor.spec.name]
        start, stop = chunk_span(spec, index, self._merger.plan.base.chunk)
        return device.chunk(tensor, index, start, self._slots[spec.name].onto(start, stop))

    def finish(self, tensor: TensorPlan) -> None:
        """All chunks of a tensor were merged: it is resident from now on, if there was room."""
        if self.takes(tensor):
            self._by_tensor[tensor.spec.name].finish(tensor)

    def close(self) -> None:
        """Frees tensors that were not finished."""
        for on_device in self._by_tensor.values():
            on_device.close()


class _OnDevice:
    """One device in one merge."""

    def __init__(
        self,
        merger: Merger,
        device: Device,
        cache: BoundedCache[Resident],
        tensors: list[TensorPlan],
        memory: int | None,
    ) -> None:
        self._merger = merger
        self._device = device
        self._cache = cache
        self._loading: dict[str, _Loading] = {}
        self.found: dict[str, Resident] = {}
        cache.begin()
        missing = self._free_memory(device, tensors, memory)
        try:
            if missing:
                cache.leave(max(0, device.free() - max(DEVICE_RESERVE, self._lanes.nbytes)))
            for tensor in missing:
                self._make(tensor)
        except BaseException:
            self.close()
            raise

    def _free_memory(self, device: Device, tensors: list[TensorPlan], memory: int | None) -> list[TensorPlan]:
        """Like `_look`, but makes room if the device is full.

        It first frees the residents of earlier recipes, and in the end residents that this recipe could use.
        """
        for everything in (False, True):
            with suppress(DeviceFull):
                return self._look(device, tensors, memory)
            self._cache.evict(all=everything)
        return self._look(device, tensors, memory)

    def _look(self, device: Device, tensors: list[TensorPlan], memory: int | None) -> list[TensorPlan]:
        """Finds residents, and takes lanes for the other tensors, which it returns. Raises `DeviceFull`."""
        residents = {tensor.spec.name: self._cache.find(self._key(tensor)) for tensor in tensors}
        missing = [tensor for tensor in tensors if residents[tensor.spec.name] is None]
        self.found = {}  # frees evicted memory
        self._lanes = Lanes([device], Need.of(self._merger.plan, missing), memory)
        self.found = {name: resident for name, resident in residents.items() if resident is not None}
        return missing

    def _key(self, tensor: TensorPlan) -> Key:
        """The base's digest and the tensor's name decide its elements, with a vector and its filter a row."""
        plan, spec = self._merger.plan, tensor.spec
        rows = []
        for index in self._terms(tensor):
            row_filter = self._merger.cuts.filter(spec, index)
            rows.append(plan.sources[index].identity + (f" {row_filter.identity}" if row_filter else ""))
        return plan.base.digest, spec.name, *rows

    def _terms(self, tensor: TensorPlan) -> list[int]:
        """The terms that reach a tensor in the order of its rows."""
        terms = self._merger.plan.recipe.terms
        return sorted(tensor.terms, key=lambda index: terms[index].join == "add")

    def _arguments(self, tensor: TensorPlan) -> MergeArguments:
        return self._merger.arguments(tensor, self._terms(tensor))

    def _make(self, tensor: TensorPlan) -> None:
        """Takes memory for a tensor's resident, if there is room."""
        spec, rows = tensor.spec, len(tensor.terms)
        if not all(self._merger.plan.rows.steps(spec, term) for term in tensor.terms):
            return  # rows of numbers are computed for each merge
        length = aligned(spec.units)
        nbytes = length * (1 + rows) * spec.unit
        if not self._cache.reserve(nbytes):
            return
        bits = uint(spec.unit)
        try:
            with self._lanes.lane() as (lane, _):
                base = lane.stream.array(length, bits)[: spec.units]
                z = lane.stream.array((rows, length), bits)[:, : spec.units]
        except BaseException as error:
            self._cache.refund(nbytes)
            if not isinstance(error, DeviceFull):
                raise
            self._cache.leave(0)
            return
        self._loading[spec.name] = _Loading(self._key(tensor), Resident(base, z), nbytes)

    @contextmanager
    def queued(
        self, tensors: Sequence[TensorPlan], outs: Sequence[DeviceArray]
    ) -> Iterator[Callable[[], list[int]]]:
        """Queues the merge of resident tensors into `outs`.

        The yielded function waits, and returns how many elements of each tensor are not finite.
        """
        arguments = [self._arguments(tensor) for tensor in tensors]
        with self._lanes.lane() as (lane, _):
            stream = lane.stream
            counters = stream.array((len(tensors), _APART), np.int64)
            counts = self._device.host((len(tensors), _APART), np.int64)
            terms = self._device.terms(arguments)
            lane.held += [counters, *terms]
            with stream.together():
                stream.clear(counters)
                for k, (tensor, out) in enumerate(zip(tensors, outs, strict=True)):
                    rows = self.found[tensor.spec.name]
                    stream.merge(
                        *(rows.base, rows.z, None, None, None),
                        *(out, terms[k], arguments[k], counters[k, :1]),
                    )
                stream.store(counters, counts)

            def wait() -> list[int]:
                stream.synchronize()
                found: list[int] = counts[:, 0].tolist()
                return found

            yield wait

    def chunk(self, tensor: TensorPlan, index: int, start: int, out: DeviceArray) -> int:
        """See `DeviceFill.merge`."""
        merger, spec, size = self._merger, tensor.spec, len(out)
        loading = self._loading.get(spec.name)
        parts = merger.parts(tensor, index, cache=loading is None)
        if parts is not None and loading is None:
            return self._lanes.merge(parts, lambda present: merger.arguments(tensor, present), None, out)
        if parts is not None:
            remaining = iter(parts)
            parts = chain([next(remaining)], remaining)  # decoded before a lane is taken
        else:
            elements = merger.rows.base(spec, index)
        with self._lanes.lane() as (lane, terms_of):
            if loading is None:
                lane.stream.load(elements, out)
                return 0
            base = loading.resident.base[start : start + size]
            z = loading.resident.z[:, start : start + size]
            if parts is None:
                lane.stream.load(elements, base)
                for row in range(len(tensor.terms)):
                    lane.stream.clear(z[row])
            else:
                self._scatter(lane, parts, self._terms(tensor), base, z)
            arguments = self._arguments(tensor)
            terms = terms_of(arguments)
            lane.stream.clear(lane.counter)
            lane.stream.merge(base, z, None, None, None, out, terms, arguments, lane.counter)
            return lane.counted()

    def _scatter(
        self, lane: Lane, parts: Iterable[DecodedChunk], terms: list[int], base: DeviceArray, z: DeviceArray
    ) -> None:
        """Copies a decoded chunk into its place in a resident, in the order of the elements."""
        for row in range(len(terms)):
            lane.stream.clear(z[row])
        for part in parts:
            there = [row for row, term in enumerate(terms) if term in part.present]
            sources = [part.present.index(terms[row]) for row in there]
            for loaded in lane.loaded(part, sources, len(base)):
                order = loaded.order
                lane.stream.scatter(loaded.base, order, base)
                for source, row in zip(loaded.z, there, strict=True):
                    lane.stream.scatter(source[: len(order)], order, z[row])
            if part.order.size < len(base):
                lane.stream.synchronize()

    def finish(self, tensor: TensorPlan) -> None:
        """See `DeviceFill.finish`."""
        loading = self._loading.pop(tensor.spec.name, None)
        if loading is not None:
            self._cache.put(loading.key, loading.resident, loading.nbytes)

    def close(self) -> None:
        """See `DeviceFill.close`."""
        while self._loading:
            self._cache.refund(self._loading.popitem()[1].nbytes)
