"""**device** — a GPU: it merges chunks in its own memory, beside the host.

**stream** — a queue of a device; its operations run one after another, and later than they are queued.

Until `Stream.synchronize` returns, queued operations may not have run. Until then a host array that is copied
from must stay unchanged, the content of one that is copied to is undefined, and no device array may be freed.
Host arrays are numpy's. Device arrays belong to their device, and are sliced and reshaped as numpy's are.

This module knows no device and imports no torch. `cuda` implements CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from persona.errors import SystemFault
from persona.merge.arithmetic.arguments import MergeArguments

DeviceArray: TypeAlias = Any
DeviceTerms: TypeAlias = Any


class DeviceFull(SystemFault):
    """A device has no room for an array."""


class DeviceFault(SystemFault):
    """A device failed at an operation."""


class OtherBits(DeviceFault):
    """A device computes something else than docs/numerics.md says."""


class NoDevice(SystemFault):
    """No device can be used; the message says why."""


class Stream(Protocol):
    """A queue of one device; one thread at a time uses it. Operations raise `DeviceFault`."""

    def array(self, shape: tuple[int, ...] | int, dtype: Any) -> DeviceArray:
        """Memory on the device for this stream, with undefined content.

        dtype is numpy's. Raises `DeviceFull`.
        """

    def load(self, source: NDArray[Any], target: DeviceArray) -> None:
        """Copies a host array to the device: same size, same dtype, both contiguous."""

    def store(self, source: DeviceArray, target: NDArray[Any]) -> None:
        """Copies a device array to the host: same size, same dtype, both contiguous."""

    def clear(self, target: DeviceArray) -> None:
        """Fills a device array with zeros."""

    def scatter(self, source: DeviceArray, order: DeviceArray, target: DeviceArray) -> None:
        """target[order[j]] = source[j]; source: uint[n], order: uint32[n], target: uint[≥ n]."""

    def merge(
        self,
        base: DeviceArray,
        z: DeviceArray,
        numbers: DeviceArray | None,
        row_of: NDArray[np.int32] | None,
        order: DeviceArray | None,
        out: DeviceArray,
        terms: DeviceTerms,
        arguments: MergeArguments,
        not_finite: DeviceArray,
    ) -> None:
        """Merges n elements, and adds to not_finite: int64[1] how many results are not finite.

        base: uint[n]; z: uint[Kz, ≥ n] and numbers: float32[Kt, ≥ n], rows as in `DecodedChunk`; row_of:
        int32[K] on the host, the row of each term of `arguments`, the voting terms first. If numbers and
        row_of are None, z has the rows of the terms in their order. order: uint32[n], so that out[order[j]]
        is element j, or None, so that out[j] is; terms: the result of `Device.terms` for the arguments.
        """

    def together(self) -> AbstractContextManager[None]:
        """While it is entered, an operation of this stream takes less time to queue."""

    def synchronize(self) -> None:
        """Waits, without the interpreter's lock, until all that was queued has run."""


class Device(Protocol):
    """One device. Thread-safe."""

    name: str
    """As results name its kind: "cuda"."""

    def free(self) -> int:
        """Bytes of its memory that nobody uses."""

    def host(self, shape: tuple[int, ...] | int, dtype: Any) -> NDArray[Any]:
        """A page-locked host array with undefined content, which a device copies directly."""

    def stream(self) -> Stream:
        """A new queue."""

    def view(self, part: DeviceArray, dtype: Any) -> DeviceArray:
        """The bytes of a device array, uint8[n], as elements of another dtype of numpy's."""

    def terms(self, arguments: Sequence[MergeArguments]) -> list[DeviceTerms]:
        """The numbers of merge arguments under the same rules, votes first, on the device.

        They are copied there at once. Raises `DeviceFull`.
        """

    def adopt(self, bits: Any) -> DeviceArray:
        """The memory of a contiguous torch tensor of integers that lies on the device: uint[n]."""

    def settle(self) -> None:
        """Waits for all that anybody queued on the device."""
