"""Where a merge runs: what is looked for, in which order, and what is said where it is not found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from subprocess import CalledProcessError
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from persona.codec.native import watch_compilation
from persona.errors import SystemFault, UsageError
from persona.live import fill
from persona.merge.devices import choose, cuda
from persona.merge.devices.choose import DeviceChoice
from persona.merge.devices.device import DeviceFull, NoDevice
from tests.merge.devices.late import LateDevice


@pytest.fixture(autouse=True)
def nothing_found_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_found", [])


class Driver:
    """NVIDIA's driver library, as far as it is asked."""

    def __init__(self, status: int, count: int) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0


def install(monkeypatch: pytest.MonkeyPatch, status: int = 0, count: int = 1) -> None:
    """A driver that answers so."""
    monkeypatch.setattr(choose.ctypes, "CDLL", lambda name: Driver(status, count))


def refusal() -> NoDevice:
    with pytest.raises(NoDevice) as caught:
        choose.cuda_devices()
    return caught.value


def test_without_a_driver_there_is_no_gpu() -> None:
    with pytest.raises(NoDevice, match=r"there is no NVIDIA driver \(libnosuch\.so\.1\)"):
        choose.ask_driver("libnosuch.so.1")


@pytest.mark.parametrize(
    ("status", "count", "said"),
    [
        (100, 0, "the NVIDIA driver finds no GPU"),
        (0, 0, "the NVIDIA driver finds no GPU"),
        (803, 0, "the NVIDIA driver does not start (CUDA error 803)"),
    ],
)
def test_a_driver_that_gives_no_gpu_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, status: int, count: int, said: str
) -> None:
    install(monkeypatch, status, count)
    assert str(refusal()) == said


def test_a_driver_tells_how_many_gpus_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, count=3)
    assert choose.ask_driver() == 3


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert str(refusal()) == f"torch {torch.__version__} is built without CUDA"


def test_a_torch_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, "persona.merge.devices.cuda", None)
    monkeypatch.delattr("persona.merge.devices.cuda")
    assert str(refusal()).startswith("torch cannot be imported (")


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A torch that says that it has one GPU; what it says of it may be changed."""
    says: dict[str, Any] = {"available": True, "capability": (9, 0), "tries": [lambda: None]}
    install(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: says["available"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: says["capability"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(says["tries"]))
    monkeypatch.setattr(cuda.CudaDevice, "try_out", lambda device: says["tries"][device.where.index]())
    return says  # type: ignore[return-value]


def test_a_torch_that_cannot_use_the_driver_is_named(with_cuda: dict[str, Any]) -> None:
    with_cuda["available"] = False
    assert str(refusal()) == f"torch {torch.__version__} cannot use this NVIDIA driver"


def test_a_missing_triton_is_named(with_cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [name for name in sys.modules if name == "persona.merge.arithmetic.cuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("persona.merge.arithmetic.cuda", raising=False)
    assert str(refusal()).startswith("triton is not installed or cannot be used (")


def test_a_gpu_that_is_too_old_is_named(with_cuda: dict[str, Any]) -> None:
    with_cuda["capability"] = (7, 5)
    assert str(refusal()) == "the GPU has compute capability 7.5, and persona needs 8.0 or higher"


def test_a_gpu_that_cannot_be_asked_is_named(
    with_cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: int) -> None:
        raise RuntimeError("CUDA error: devices unavailable\nand more")

    monkeypatch.setattr(torch.cuda, "get_device_capability", refuse)
    assert str(refusal()) == "torch cannot use the GPU (CUDA error: devices unavailable)"


@pytest.mark.parametrize("name", ["device_count", "get_device_capability"])
def test_a_gpu_too_full_to_be_asked_is_called_full(
    with_cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nand more")

    monkeypatch.setattr(torch.cuda, name, refuse)
    assert str(refusal()) == "the GPU has too little memory for this merge"


def fails(*errors: Exception | None) -> list[Any]:
    """What trying GPUs comes to, one after another."""

    def trial(error: Exception | None) -> Any:
        def run() -> None:
            if error is not None:
                raise error

        return run

    return [trial(error) for error in errors]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("Failed to find C compiler.\nPlease specify"), "Failed to find C compiler."),
        (CalledProcessError(1, ["gcc"]), r"Command '\['gcc'\]' returned non-zero exit status 1."),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_gpu_on_which_no_kernel_runs_is_none_and_tried_once(
    with_cuda: dict[str, Any], error: Exception, line: str
) -> None:
    with_cuda["tries"] = fails(error)
    with pytest.raises(NoDevice, match=f"^no kernel runs on the GPU: {line}$"):
        choose.cuda_devices()
    with_cuda["tries"] = fails(KeyError("tried again"))
    assert "tried again" not in str(refusal())
    said: list[str] = []
    assert DeviceChoice("auto").devices(said.append) == ()
    assert [line.startswith("computed on the CPU: no kernel runs on the GPU: ") for line in said] == [True]


def test_gpus_that_launch_and_those_too_full_to_say_are_left(with_cuda: dict[str, Any]) -> None:
    with_cuda["tries"] = fails(RuntimeError("broken"), None, DeviceFull("full"))
    assert [device.where.index for device in choose.cuda_devices()] == [1, 2]  # type: ignore[attr-defined]


def test_why_a_tensor_is_not_merged_where_it_lies(with_cuda: dict[str, Any]) -> None:
    with_cuda["tries"] = fails(None, RuntimeError("broken"))
    assert fill.why_not(torch.device("cpu")) is None
    assert fill.why_not(torch.device("cuda", 0)) is None
    assert (
        fill.why_not(torch.device("cuda", 1))
        == "the GPU cuda:1 is too old, runs no kernel, or computes other bits"
    )
    choose._found.clear()
    with_cuda["available"] = False
    assert fill.why_not(torch.device("cuda", 0)) == str(refusal())


def test_a_gpu_is_found_once(with_cuda: dict[str, Any]) -> None:
    (found,) = choose.cuda_devices()
    assert found.name == "cuda"
    with_cuda["available"] = False
    assert choose.cuda_devices() == (found,)


def test_who_asks_for_a_gpu_is_told_that_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise NoDevice("the abacus is broken")

    monkeypatch.setattr(choose, "cuda_devices", refuse)
    said: list[str] = []
    DeviceChoice("auto").check()
    assert DeviceChoice("auto").devices(said.append) == ()
    assert said == ["computed on the CPU: the abacus is broken"]
    for asked in (DeviceChoice("cuda").check, lambda: DeviceChoice("cuda").devices(print)):
        with pytest.raises(SystemFault, match=r"the abacus is broken\nhint: use device='auto' or "):
            asked()


@pytest.mark.parametrize("word", ["auto", "cuda"])
def test_a_gpu_that_is_there_is_taken_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    devices = (LateDevice(),)
    monkeypatch.setattr(choose, "cuda_devices", lambda: devices)
    assert DeviceChoice(word).devices(pytest.fail) == devices


def test_the_cpu_is_taken_by_default_and_no_gpu_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "cuda_devices", lambda: pytest.fail("a GPU was looked for"))
    for choice in (DeviceChoice(), DeviceChoice("cpu"), DeviceChoice(memory=5)):
        choice.check()
        assert choice.devices(pytest.fail) == ()


@pytest.mark.parametrize("bad", [DeviceChoice("tpu"), DeviceChoice("cpu", 0), DeviceChoice(memory=-1)])
def test_what_means_nothing_is_refused(bad: DeviceChoice) -> None:
    with pytest.raises(UsageError, match="device"):
        bad.check()


def test_a_kernel_that_had_to_be_compiled_is_told() -> None:
    heard: list[str] = []
    before: list[object] = []
    triton = SimpleNamespace(
        knobs=SimpleNamespace(compilation=SimpleNamespace(listener=lambda **event: before.append(event)))
    )
    hashable = type("Triton", (), vars(triton))
    cuda._watch(hashable)
    with watch_compilation(heard.append):
        for cache_hit in (True, False):
            triton.knobs.compilation.listener(cache_hit=cache_hit, src=None)
    assert [text.split(" (")[0] for text in heard] == ["compiling kernels for the GPU"]
    assert len(before) == 2
    cuda._watch(type("OldTriton", (), {}))
