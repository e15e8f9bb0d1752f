"""CUDA as a device: what there is of it is run here on the host's memory, with the kernel interpreted, and
once more on a GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from subprocess import CalledProcessError
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from persona.merge.devices import choose, cuda
from persona.merge.devices.device import DeviceFault, DeviceFull, NoDevice
from persona.merge.devices.lanes import Lanes, Need
from tests.merge.arithmetic.cuda_kernels import load, source
from tests.merge.devices.hosted import Hosted
from tests.merge.devices.late import There
from tests.merge.models import run

pytestmark = pytest.mark.usefixtures("short_slices")


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return load(source(), interpreted=True)


def gpus() -> tuple[Any, ...]:
    """The GPUs that there are."""
    try:
        return choose.cuda_devices()
    except NoDevice:
        return ()


@pytest.fixture(params=["host", "gpu"])
def device(
    request: pytest.FixtureRequest, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    if request.param == "gpu":
        if not (found := gpus()):
            pytest.skip("needs a GPU")
        yield found[0]
        return
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (1 << 30, 1 << 31))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 2)
    with np.errstate(all="ignore"):
        yield Hosted(kernels)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_what_is_loaded_and_scattered_comes_back(device: Any, dtype: Any) -> None:
    stream = device.stream()
    random = np.random.default_rng(1)
    values = device.host(1000, dtype)
    values[:] = random.integers(0, np.iinfo(dtype).max, 1000, endpoint=True, dtype=dtype)
    order, back = device.host(1000, np.uint32), device.host((2, 1000), dtype)
    order[:] = random.permutation(1000)
    memory = stream.array(16_000, np.uint8)
    there = device.view(memory[: values.nbytes], dtype)
    places = device.view(memory[4096 : 4096 + order.nbytes], np.uint32)
    target = stream.array((2, 1000), dtype)
    stream.load(values, there)
    stream.load(order, places)
    stream.clear(target)
    stream.scatter(there, places, target[1])
    stream.store(target, back)
    stream.synchronize()
    assert not back[0].any()
    np.testing.assert_array_equal(back[1][order], values)


def test_operations_queued_together_enter_the_stream_once_and_do_the_same(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, torch_stream = device.stream(), torch.cuda.stream
    entered: list[object] = []

    def enter(queue: Any) -> Any:
        entered.append(queue)
        return torch_stream(queue)

    values, order = device.host(1000, np.uint16), device.host(1000, np.uint32)
    values[:] = np.arange(1000)
    order[:] = np.random.default_rng(2).permutation(1000)
    source, target = (stream.array(1000, np.uint16) for _ in range(2))
    places = stream.array(1000, np.uint32)
    backs: list[Any] = []

    def scatter() -> None:
        backs.append(device.host(1000, np.uint16))
        stream.load(values, source)
        stream.load(order, places)
        stream.scatter(source, places, target)
        stream.store(target, backs[-1])

    scatter()  # the first scatter makes arrays that later ones use
    stream.synchronize()
    monkeypatch.setattr(torch.cuda, "stream", enter)
    with stream.together():
        scatter()
    stream.synchronize()
    assert entered == [stream._stream]
    scatter()
    stream.synchronize()
    assert entered == [stream._stream] * 5
    for back in backs:
        np.testing.assert_array_equal(back[order], values)


def test_a_failure_among_operations_queued_together_is_told_and_leaves_the_stream(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = device.stream()
    three, four = stream.array(3, np.uint16), device.host(4, np.uint16)
    with pytest.raises(DeviceFault, match=r"^the GPU failed: The size of tensor"), stream.together():
        stream.load(four, three)
    entered: list[object] = []
    monkeypatch.setattr(torch.cuda, "stream", lambda queue: entered.append(queue) or nullcontext())
    stream.clear(three)
    assert entered == [stream._stream]


def test_the_stream_over_it_gives_the_bits_of_the_cpu(device: Any, mixed: Any) -> None:
    plan, model, want = mixed
    for memory in (None, Need.of(plan, plan.tensors).least):
        found, made = run(plan, model, threads=1, device=There("cuda", memory, (device,)))
        assert found == want[0]
        assert made.device == "cuda"


def test_the_memory_of_a_tensor_is_adopted_as_it_lies(device: Any) -> None:
    tensor = torch.arange(12, dtype=torch.int16, device=device.where).reshape(3, 4)
    adopted = device.adopt(tensor)
    assert (adopted.dtype, tuple(adopted.shape), adopted.data_ptr()) == (
        torch.uint16,
        (12,),
        tensor.data_ptr(),
    )
    assert device.adopt(tensor.to(torch.int32)).dtype == torch.uint32


def test_what_is_free_is_what_the_driver_and_torch_have_to_spare(device: Any) -> None:
    assert device.free() > 0
    if isinstance(device, Hosted):
        assert device.free() == (1 << 30) + 3


def test_what_torch_says_of_a_device_is_said_in_a_sentence() -> None:
    with (
        pytest.raises(DeviceFault, match=r"^the GPU failed: CUDA error: broken$"),
        cuda._told(),
    ):
        raise RuntimeError("CUDA error: broken\nCompile with TORCH_USE_CUDA_DSA")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_a_full_device_is_called_full_whoever_finds_it_full(error: Exception) -> None:
    with pytest.raises(DeviceFull, match=r"^the GPU has too little memory for this merge$"), cuda._told():
        raise error


def test_a_gpu_on_which_not_even_a_kernel_fits_is_full_and_not_broken(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (1 << 20, 1 << 31))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 0)
    full = Hosted(SimpleNamespace(Terms=kernels.Terms, merge_chunk=fail))  # type: ignore[arg-type]
    assert cuda._working([full]) == (full,)
    with pytest.raises(DeviceFull, match=r"^the GPU has 1 MiB free, but its kernels and this recipe's"):
        Lanes([full], Need(1 << 16, 1 << 16))
    with pytest.raises(DeviceFull, match=r"^the GPU has 1 MiB free, but this recipe's chunks need at least"):
        Lanes([full], Need(1 << 21, 1 << 21))


@pytest.mark.parametrize("name", ["mem_get_info", "memory_reserved"])
def test_a_gpu_too_full_to_be_asked_for_its_memory_is_full(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(where: torch.device) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 0)
    monkeypatch.setattr(torch.cuda, name, refuse)
    with pytest.raises(DeviceFull, match="too little memory"):
        Lanes([Hosted(kernels)], Need(1 << 16, 1 << 16))


def test_a_kernel_is_tried(device: Any) -> None:
    device.try_out()


@pytest.mark.parametrize("error", [AssertionError(), CalledProcessError(1, ["gcc"]), ValueError("no")])
def test_whatever_a_kernel_raises_is_a_fault_of_the_device(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    broken = Hosted(SimpleNamespace(Terms=kernels.Terms, merge_chunk=fail))  # type: ignore[arg-type]
    with pytest.raises(DeviceFault, match=r"^the GPU failed: .+"):
        broken.try_out()


def test_streams_that_were_let_go_are_used_again(device: Any) -> None:
    one, two = device.stream(), device.stream()
    queues = [one._stream, two._stream]
    assert queues[0] is not queues[1]
    del one, two
    again = [device.stream() for _ in range(2)]
    assert {id(stream._stream) for stream in again} == {id(queue) for queue in queues}


def test_what_is_waited_for_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for where in (torch.device("cpu"), torch.device("cuda", 3)):
        cuda.settle(where)
    assert waited == [torch.device("cuda", 3)]


def test_more_than_a_gpu_has_is_refused() -> None:
    if not (found := gpus()):
        pytest.skip("needs a GPU")
    with pytest.raises(DeviceFull):
        found[0].stream().array(1 << 50, np.uint8)


def test_memory_that_cannot_be_locked_is_ordinary_memory(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(cuda.torch, "empty", refuse)
    made = Hosted(kernels).host((3, 5), np.uint16)
    assert (made.shape, made.dtype) == ((3, 5), np.uint16)
