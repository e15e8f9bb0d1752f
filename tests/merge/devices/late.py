"""A device without a GPU that is late: what its streams are asked for runs when they are waited for, or at
any time before, in memory of its own that holds garbage and runs out.

So a missing wait, memory that is used again too early, or a copy that was forgotten shows as wrong bits, and
memory that was let go before it was read as an error: what waits in a stream does not hold it.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from persona.frozen import dataclass
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.devices.choose import DeviceChoice
from persona.merge.devices.device import Device, DeviceFault, DeviceFull

Array = np.ndarray[Any, Any]
GARBAGE = 0xA5


Kernel = Callable[
    [Array, Array, Array | None, Array | None, Array | None, Array, MergeArguments],
    int,
]
"""base, z, numbers, row_of, order, out and arguments as for `Stream.merge` → how many are not finite."""


def merge_on_cpu(
    base: Array,
    z: Array,
    numbers: Array | None,
    row_of: Array | None,
    order: Array | None,
    out: Array,
    arguments: MergeArguments,
) -> int:
    """The CPU's kernel, as a device's."""
    if order is None:
        order = np.arange(base.size, dtype=np.uint32)
    if numbers is None:
        numbers = np.empty((0, base.size), np.float32)
    given = [np.ascontiguousarray(array) for array in (base, z, order, numbers)]
    chunk = DecodedChunk(list(range(arguments.alpha.size)), *given, row_of)
    return cpu.merge_chunk(chunk, arguments, out)


class LateDevice:
    """`memory`: bytes of it; `full_at`: the numbers of allocations, from 0 on, for which it has no room;
    `fault_at`: the numbers of merges that fail; `seed` decides how late things run: None for as late as can
    be.
    """

    name = "cuda"

    def __init__(
        self,
        memory: int = 1 << 30,
        *,
        full_at: Collection[int] = (),
        fault_at: Collection[int] = (),
        seed: int | None = None,
        kernel: Kernel = merge_on_cpu,
    ) -> None:
        self.memory = memory
        self.taken = self.most = 0
        self.allocations = self.merges = 0
        self.locked = self.copied = 0
        self.settled = 0
        self.streams: list[LateStream] = []
        self.kernel = kernel
        self.fill_up(full_at)
        self.fail_at(fault_at)
        self._random = None if seed is None else random.Random(seed)
        self._lock = threading.RLock()

    def fail_at(self, merges: Collection[int]) -> None:
        """These merges fail, counted from the first one."""
        self._fault_at = frozenset(merges)

    def fill_up(self, allocations: Collection[int]) -> None:
        """There is no room for these allocations, counted from the first one."""
        self._full_at = frozenset(allocations)

    def free(self) -> int:
        with self._lock:
            return max(0, self.memory - self.taken)

    def host(self, shape: tuple[int, ...] | int, dtype: Any) -> Array:
        made = garbage(shape, dtype)
        with self._lock:
            self.locked += made.nbytes
        return made

    def stream(self) -> LateStream:
        with self._lock:
            self.streams.append(LateStream(self))
            return self.streams[-1]

    def view(self, part: Array, dtype: Any) -> Array:
        assert part.dtype == np.uint8
        return part.view(dtype)

    def terms(self, arguments: Sequence[MergeArguments]) -> list[Any]:
        return [self._terms(one) for one in arguments]

    def _terms(self, arguments: MergeArguments) -> Any:
        votes = np.count_nonzero(~arguments.add)
        assert not arguments.add[:votes].any(), "terms that add come after those that vote"
        numbers = self.take(8 * arguments.alpha.size).view(np.float32)
        numbers[: arguments.alpha.size] = arguments.alpha
        return numbers

    def settle(self) -> None:
        self.settled += 1

    def adopt(self, bits: Any) -> Array:
        """The memory of a tensor of the host, as if it lay here."""
        array: Array = bits.numpy()
        return array.view({2: np.uint16, 4: np.uint32}[array.itemsize])

    def take(self, nbytes: int) -> Array:
        """So much of the memory."""
        with self._lock:
            number, self.allocations = self.allocations, self.allocations + 1
            if number in self._full_at or self.taken + nbytes > self.memory:
                raise DeviceFull("the GPU has too little memory for this merge")
            self.taken += nbytes
            self.most = max(self.most, self.taken)
        made = garbage(nbytes, np.uint8)
        weakref.finalize(made, self._let_go, nbytes)
        return made

    def _let_go(self, nbytes: int) -> None:
        with self._lock:
            self.taken -= nbytes

    def luck(self, most: int) -> int:
        """How many of some waiting operations run early."""
        with self._lock:
            return 0 if self._random is None else self._random.randint(0, most)

    def count_copy(self, nbytes: int) -> None:
        with self._lock:
            self.copied += nbytes

    def count_merge(self) -> None:
        with self._lock:
            number, self.merges = self.merges, self.merges + 1
        if number in self._fault_at:
            raise DeviceFault("the GPU failed: it was told to")


@dataclass(frozen=True)
class There(DeviceChoice):
    """A place with these devices."""

    found: tuple[Device, ...] = ()

    def devices(self, tell: Callable[[str], None]) -> tuple[Device, ...]:
        return self.found


class LateStream:
    """A queue whose operations run in its order, late."""

    def __init__(self, device: LateDevice) -> None:
        self.device = device
        self.waiting: list[Callable[[], object]] = []
        self.user: int | None = None
        self.gathering = False

    def array(self, shape: tuple[int, ...] | int, dtype: Any) -> Array:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.device.take(nbytes).view(dtype).reshape(shape)

    def load(self, source: Array, target: Array) -> None:
        check_copy(source, target)
        self.device.count_copy(source.nbytes)
        self._copy(source, target)

    def store(self, source: Array, target: Array) -> None:
        check_copy(source, target)
        self.device.count_copy(source.nbytes)
        self._copy(source, target)

    def _copy(self, source: Array, target: Array) -> None:
        to, of = lent(target), lent(source)
        self._later(lambda: np.copyto(to(), of()))

    def clear(self, target: Array) -> None:
        there = lent(target)
        self._later(lambda: there().fill(0))

    def scatter(self, source: Array, order: Array, target: Array) -> None:
        to, at, of = lent(target), lent(order), lent(source)

        def run() -> None:
            to()[at()] = of()

        self._later(run)

    def merge(
        self,
        base: Array,
        z: Array,
        numbers: Array | None,
        row_of: Array | None,
        order: Array | None,
        out: Array,
        terms: Any,
        arguments: MergeArguments,
        not_finite: Array,
    ) -> None:
        assert (z.shape[0] if row_of is None else row_of.size) == arguments.alpha.size
        self.device.count_merge()
        given = [lent(array) for array in (base, z, out, not_finite, terms)]
        at = None if order is None else lent(order)
        t = None if numbers is None else lent(numbers)

        def run() -> None:
            base, z, out, not_finite, alpha = (array() for array in given)
            assert np.array_equal(alpha[: arguments.alpha.size], arguments.alpha)
            not_finite[0] += self.device.kernel(base, z, t and t(), row_of, at and at(), out, arguments)

        self._later(run)

    @contextmanager
    def together(self) -> Iterator[None]:
        assert not self.gathering
        self.gathering = True
        try:
            yield
        finally:
            self.gathering = False

    def synchronize(self) -> None:
        assert not self.gathering
        self._run(len(self.waiting))

    def _later(self, operation: Callable[[], object]) -> None:
        self.waiting.append(operation)
        self._run(self.device.luck(len(self.waiting)))

    def _run(self, count: int) -> None:
        ready, self.waiting = self.waiting[:count], self.waiting[count:]
        for operation in ready:
            operation()


def check_copy(source: Array, target: Array) -> None:
    """Copies are of whole runs of memory."""
    assert source.dtype == target.dtype
    assert source.shape == target.shape
    assert source.flags.c_contiguous
    assert target.flags.c_contiguous


def lent(array: Array) -> Callable[[], Array]:
    """Gives an array again, as long as somebody else holds its memory."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if not owner.flags.owndata:  # a tensor's
        return lambda: array
    start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    shape, dtype, steps, held = array.shape, array.dtype, array.strides, weakref.ref(owner)

    def again() -> Array:
        memory = held()
        assert memory is not None, "memory was let go before what was queued had read it"
        return np.ndarray(shape, dtype, memory, start, steps)  # type: ignore[call-overload,no-any-return]

    return again


def garbage(shape: tuple[int, ...] | int, dtype: Any) -> Array:
    """An array that holds nothing sensible."""
    made = np.empty(shape, dtype)
    made.reshape(-1).view(np.uint8)[:] = GARBAGE
    return made
