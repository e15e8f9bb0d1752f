"""The choice of the device for a merge: the CPU, or the machine's GPUs.

Chunks that need no arithmetic (of the base, or of a vector that owns its tensor) never go to a device.
Neither do cut-offs, which are found once and kept. So if nothing has to be merged, no device is looked for.
torch takes longer to import than a small checkout takes, so it is imported only if the NVIDIA driver reports
a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from persona.errors import Keyword, SystemFault, UsageError
from persona.frozen import dataclass
from persona.merge.devices.device import Device, DeviceFault, DeviceFull, NoDevice
from persona.merge.devices.lanes import Lanes, Need
from persona.merge.plan import Plan, TensorPlan

WORDS: Final = ("auto", "cpu", "cuda")
_DRIVER: Final = "libcuda.so.1"
_NO_DEVICE: Final = 100
"""CUDA_ERROR_NO_DEVICE"""

_found: list[tuple[Device, ...] | NoDevice] = []


@dataclass(frozen=True)
class DeviceChoice:
    """`device`: one of `WORDS`; the CPU is mostly as fast as a GPU (docs/decisions/034).

    `memory`: bytes that chunks may take on each GPU, see `persona.merge.devices.lanes.Lanes`.
    """

    device: str = "cpu"
    memory: int | None = None

    def check(self) -> None:
        """Raises `UsageError` for an unknown device, `SystemFault` for a GPU that cannot be used."""
        if self.device not in WORDS:
            raise UsageError(f"device must be auto, cpu or cuda, not {self.device!r:.40}")
        if self.memory is not None and self.memory < 1:
            raise UsageError("device_memory must be a number of bytes above 0")
        if self.device == "cuda":
            self.devices(lambda _: None)

    def devices(self, note: Callable[[str], None]) -> tuple[Device, ...]:
        """The devices to merge on, none for the CPU.

        `note` is called with the reason why "auto" is the CPU.
        """
        if self.device == "cpu":
            return ()
        try:
            return cuda_devices()
        except NoDevice as error:
            if self.device == "cuda":
                hint = ("use ", Keyword(device="auto"), " or ", Keyword(device="cpu"))
                raise SystemFault(f"no GPU to compute on: {error}", hint=hint) from error
            note(f"computed on the CPU: {error}")
            return ()

    def lanes(
        self, plan: Plan, tensors: Iterable[TensorPlan], note: Callable[[str], None] = lambda _: None
    ) -> Lanes | None:
        """Lanes to merge these tensors of a plan on, None for the CPU.

        Raises `SystemFault` if a GPU was asked for and is full or fails, `UsageError` if `memory` is too
        small.
        """
        need = Need.of(plan, tensors)
        if not need.whole or not (devices := self.devices(note)):
            return None
        try:
            return Lanes(devices, need, self.memory)
        except (DeviceFull, DeviceFault) as error:
            if self.device == "cuda":
                raise _with_remedy(error) from error
            note(f"computed on the CPU: {error}")
            return None


CPU: Final = DeviceChoice()


@contextmanager
def remedied() -> Iterator[None]:
    """Adds advice to an error that a device raises during the work.

    It is then too late to compute elsewhere without being asked.
    """
    try:
        yield
    except (DeviceFull, DeviceFault) as error:
        raise _with_remedy(error) from error


def _with_remedy(error: SystemFault) -> SystemFault:
    room = "make room there, or " if isinstance(error, DeviceFull) else ""
    return SystemFault(str(error), hint=(f"{room}use ", Keyword(device="cpu")))


def cuda_devices() -> tuple[Device, ...]:
    """The GPUs that this process can use, tried once. Raises `NoDevice`."""
    if not _found:
        ask_driver()
        try:
            from persona.merge.devices import cuda
        except (ImportError, OSError) as error:
            raise NoDevice(f"torch cannot be imported ({error})") from error
        try:
            _found.append(cuda.devices())
        except NoDevice as error:
            _found.append(error)
    found = _found[0]
    if isinstance(found, NoDevice):
        raise NoDevice(str(found)) from found
    return found


def ask_driver(name: str = _DRIVER) -> int:
    """How many GPUs the NVIDIA driver has for this process, at least one. Raises `NoDevice`."""
    try:
        driver = ctypes.CDLL(name)
    except OSError as error:
        raise NoDevice(f"there is no NVIDIA driver ({name})") from error
    count = ctypes.c_int(0)
    status = int(driver.cuInit(0)) or int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if status not in (0, _NO_DEVICE):
        raise NoDevice(f"the NVIDIA driver does not start (CUDA error {status})")
    if status == _NO_DEVICE or count.value < 1:
        raise NoDevice("the NVIDIA driver finds no GPU")
    return count.value
