"""CUDA as a device: torch's streams and memory, and the Triton kernel.

A device array is a torch tensor. It is made while its stream is the current one. So its memory comes from
blocks that this stream has freed, not from memory that the model's own kernels may still be reading.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from persona.codec.elements import BF16, F32
from persona.codec.native import tell_of_compilation
from persona.errors import PersonaError
from persona.merge.arithmetic import trial
from persona.merge.arithmetic.arguments import MergeArguments
from persona.merge.devices.device import DeviceArray, DeviceFault, DeviceFull, NoDevice, OtherBits
from persona.merge.rules import MergeRules

OLDEST: Final = (8, 0)
"""The lowest compute capability whose machine code was checked (docs/decisions/016-terms-on-a-gpu.md)."""


def _torch_dtype(dtype: Any) -> torch.dtype:
    """torch's dtype of numpy's integers, which it names alike."""
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


def devices() -> tuple[CudaDevice, ...]:
    """The GPUs that this process can use, in torch's order. Raises `NoDevice` if there are none."""
    if torch.version.cuda is None:
        raise NoDevice(f"torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        raise NoDevice(f"torch {torch.__version__} cannot use this NVIDIA driver")
    try:
        from persona.merge.arithmetic import cuda
    except (ImportError, OSError) as error:
        raise NoDevice(f"triton is not installed or cannot be used ({error})") from error
    try:
        count = torch.cuda.device_count()
        found = [(torch.cuda.get_device_capability(index), index) for index in range(count)]
    except RuntimeError as error:
        why = _FULL if _of_memory(error) else f"torch cannot use the GPU ({_first_line(error)})"
        raise NoDevice(why) from error
    young = [CudaDevice(index, cuda) for capability, index in found if capability >= OLDEST]
    if not young:
        (major, minor), _ = max(found)
        raise NoDevice(
            f"the GPU has compute capability {major}.{minor}, and persona needs"
            f" {OLDEST[0]}.{OLDEST[1]} or higher"
        )
    _watch(vars(cuda)["triton"])
    return _working(young)


def _working(devices: list[CudaDevice]) -> tuple[CudaDevice, ...]:
    """The GPUs that pass the self-test, or are too full for it. Raises `NoDevice` if none is left."""
    usable: list[CudaDevice] = []
    failed: list[Exception] = []
    for device in devices:
        try:
            device.try_out()
        except DeviceFull:
            usable.append(device)
        except Exception as error:
            failed.append(error)
        else:
            usable.append(device)
    if not usable:
        why = _first_line(failed[0])
        if not isinstance(failed[0], OtherBits):
            why = f"no kernel runs on the GPU: {why}"
        raise NoDevice(why) from failed[0]
    return tuple(usable)


@cache
def _watch(triton: Any) -> None:
    """Has it said that a kernel was compiled, as `persona.codec.native` says it of its own."""
    compilation = getattr(getattr(triton, "knobs", None), "compilation", None)
    if compilation is None:
        return
    others = compilation.listener

    def listen(**event: Any) -> None:
        if others is not None:
            others(**event)
        if not event["cache_hit"]:
            tell_of_compilation("compiling kernels for the GPU (some seconds, once)")

    compilation.listener = listen


def settle(where: torch.device) -> None:
    """Waits for all that anybody queued on a GPU, whether it can merge or not; on the CPU nothing waits."""
    if where.type == "cuda":
        with _told():
            torch.cuda.synchronize(where)


_FULL: Final = "the GPU has too little memory for this merge"


@contextmanager
def _told(kind: type[Exception] = RuntimeError) -> Iterator[None]:
    """Turns errors that torch raises for a device, and those of `kinds` from triton, into sentences."""
    try:
        yield
    except kind as error:
        if isinstance(error, PersonaError):
            raise
        if _of_memory(error):
            raise DeviceFull(_FULL) from error
        raise DeviceFault(f"the GPU failed: {_first_line(error)}") from error


def _of_memory(error: Exception) -> bool:
    """Whether it says that the GPU is full.

    For an array torch raises an error of its own class. If a context or an event does not fit, it says "CUDA
    error: out of memory"; if the code of a kernel does not fit, triton says "Triton Error [CUDA]: out of
    memory".
    """
    line = _first_line(error)
    return isinstance(error, torch.OutOfMemoryError) or ("CUDA" in line and "out of memory" in line)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


_ROWS: Final = 256
"""Arrangements of rows that a stream keeps on its device."""
_LAUNCHING: Final = threading.Lock()
"""Held while a kernel is launched, which compiles it when it is first met, once for all GPUs."""


class CudaDevice:
    """GPU number `index` of this process."""

    name = "cuda"

    def __init__(self, index: int, kernels: Any) -> None:
        """`kernels`: `persona.merge.arithmetic.cuda`, or a copy of it."""
        self.where = torch.device("cuda", index)
        self.kernels = kernels
        self._tried = False
        self._queues: list[tuple[Any, Any]] = []
        """Free torch streams, with an event each.

        Torch keeps the memory of a freed array for arrays of the same stream, so few streams keep little
        memory.
        """

    def free(self) -> int:
        """Bytes of its memory that nobody uses, those that torch keeps for its next arrays included."""
        with _told():
            spare = torch.cuda.memory_reserved(self.where) - torch.cuda.memory_allocated(self.where)
            return int(torch.cuda.mem_get_info(self.where)[0]) + spare

    def host(self, shape: tuple[int, ...] | int, dtype: Any) -> NDArray[Any]:
        """Page-locked memory; if the system refuses it, slower ordinary memory."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            locked: NDArray[Any] = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        except RuntimeError:
            return np.empty(shape, dtype)
        found: NDArray[Any] = locked.view(dtype).reshape(shape)
        return found

    def stream(self) -> CudaStream:
        """A torch stream, an earlier one if one is free.

        The device must pass its self-test before the first one is made. Raises `DeviceFull` if its memory is
        too small for that, `OtherBits` if it fails.
        """
        self.try_out()
        return self._stream()

    def _stream(self) -> CudaStream:
        try:
            queue = self._queues.pop()
        except IndexError:
            with _told():
                queue = self._queue()
        made = CudaStream(self, *queue)
        weakref.finalize(made, self._queues.append, queue).atexit = False
        return made

    def _queue(self) -> tuple[Any, Any]:
        stream = torch.cuda.Stream(self.where)  # type: ignore[no-untyped-call]
        return stream, torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def try_out(self) -> None:
        """Merges hard elements (`arithmetic.trial`), once a process.

        Raises `OtherBits` if a result is wrong, and the errors of kernels.
        """
        if self._tried:
            return
        for case in trial.cases():
            if not case.passes(*self._merged(case)):
                raise OtherBits(
                    f"this GPU, with Triton {self.kernels.triton.__version__}, computes other bits than"
                    f" docs/numerics.md says ({case.name} numbers); install Triton 3.6 or newer"
                )
        self._tried = True

    def _merged(self, case: trial.Case) -> tuple[NDArray[Any], int]:
        """The elements of a case, and how many of them are not finite."""
        stream, given = self._stream(), (case.base, case.z, case.order, case.numbers)
        arrays = [stream.array(one.shape, one.dtype) for one in given]
        for source, target in zip(given, arrays, strict=True):
            stream.load(source, target)
        base, z, order, numbers = arrays
        out, counter = stream.array(case.base.size, case.base.dtype), stream.array(1, np.int64)
        stream.clear(counter)
        [terms], places = self.terms([case.arguments]), order if case.scattered else None
        given_numbers = None if case.row_of is None else numbers
        stream.merge(base, z, given_numbers, case.row_of, places, out, terms, case.arguments, counter)
        found, count = np.empty_like(case.base), np.empty(1, np.int64)
        stream.store(out, found)
        stream.store(counter, count)
        stream.synchronize()
        return found, int(count[0])

    def view(self, part: DeviceArray, dtype: Any) -> DeviceArray:
        """See `Device.view`."""
        return part.view(_torch_dtype(dtype))

    def terms(self, arguments: Sequence[MergeArguments]) -> list[Any]:
        """`persona.merge.arithmetic.cuda.Terms`, see `Device.terms`."""
        given = [(one.theta, one.alpha, one.add) for one in arguments]
        with _told():
            found: list[Any] = self.kernels.Terms.all(given, arguments[0].rules, self.where)
        return found

    def adopt(self, bits: Any) -> DeviceArray:
        """See `Device.adopt`."""
        return bits.view(-1).view(torch.uint16 if bits.element_size() == 2 else torch.uint32)

    def settle(self) -> None:
        """See `Device.settle`."""
        settle(self.where)


class CudaStream:
    """See `device.Stream`.

    `done` is an event whose waits sleep. A stream's own wait would keep a core busy that could decode.
    """

    def __init__(self, device: CudaDevice, stream: Any, done: Any) -> None:
        self._device = device
        self._stream = stream
        self._done = done
        self._nothing: tuple[MergeArguments, Any, DeviceArray] | None = None
        self._rows: dict[bytes, DeviceArray] = {}
        self._entered = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Stream.together`."""
        with self._current():
            self._entered = True
            try:
                yield
            finally:
                self._entered = False

    @contextmanager
    def _current(self, kind: type[Exception] = RuntimeError) -> Iterator[None]:
        with _told(kind):
            if self._entered:
                yield
                return
            with torch.cuda.stream(self._stream), torch.inference_mode():
                yield

    def array(self, shape: tuple[int, ...] | int, dtype: Any) -> DeviceArray:
        """See `Stream.array`."""
        with _told(), torch.cuda.stream(self._stream):
            return torch.empty(shape, dtype=_torch_dtype(dtype), device=self._device.where)

    def load(self, source: NDArray[Any], target: DeviceArray) -> None:
        """See `Stream.load`."""
        with self._current():
            target.copy_(torch.from_numpy(source), non_blocking=True)

    def store(self, source: DeviceArray, target: NDArray[Any]) -> None:
        """See `Stream.store`."""
        with self._current():
            torch.from_numpy(target).copy_(source, non_blocking=True)

    def clear(self, target: DeviceArray) -> None:
        """See `Stream.clear`."""
        signed = {torch.uint16: torch.int16, torch.uint32: torch.int32}
        with self._current():
            target.view(signed.get(target.dtype, target.dtype)).zero_()

    def scatter(self, source: DeviceArray, order: DeviceArray, target: DeviceArray) -> None:
        """A merge of no terms: every element is the base's own bits."""
        if self._nothing is None:
            none = np.empty(0, np.float32)
            arguments = MergeArguments(none, none, np.empty(0, np.bool_), MergeRules(), 0)
            [terms] = self._device.terms([arguments])
            self._nothing = arguments, terms, self.array(1, np.int64)
        arguments, terms, counter = self._nothing
        arguments = replace(arguments, dtype=(F32 if source.dtype == torch.uint32 else BF16).code)
        self.merge(source, source.reshape(1, -1)[:0], None, None, order, target, terms, arguments, counter)

    def merge(
        self,
        base: DeviceArray,
        z: DeviceArray,
        numbers: DeviceArray | None,
        row_of: NDArray[np.int32] | None,
        order: DeviceArray | None,
        out: DeviceArray,
        terms: Any,
        arguments: MergeArguments,
        not_finite: DeviceArray,
    ) -> None:
        """See `Stream.merge`."""
        rules, dtype, majority = arguments.rules, arguments.dtype, arguments.majority
        with _LAUNCHING, self._current(Exception):
            rows = base, z, numbers, None if row_of is None else self._row_of(row_of)
            self._device.kernels.merge_chunk(*rows, order, out, terms, rules, dtype, not_finite, majority)

    def _row_of(self, row_of: NDArray[np.int32]) -> DeviceArray:
        """The same array on the device; there are few different ones."""
        key = row_of.tobytes()
        if key not in self._rows:
            if len(self._rows) >= _ROWS:
                self._rows.clear()
            self._rows[key] = torch.from_numpy(row_of.copy()).to(self._device.where)
        return self._rows[key]

    def synchronize(self) -> None:
        """See `Stream.synchronize`."""
        with _told():
            self._done.record(self._stream)
            self._done.synchronize()
