"""The places where a model in memory holds the tensors of a base.

**slot** — the memory of one tensor in a model.
**stamp** — address and version counter of a tensor.

If the memory is contiguous, aligned and on the CPU, the CPU merges chunks straight into it. If it is
contiguous and on a GPU, that GPU does (`persona.live.resident`). In all other cases (a transposed view, or
nothing to merge) the elements are made on the CPU and copied over bit by bit. torch raises the version
counter at each change in place. `Slot.changed` raises it too, so that autograd notices a merge after it saved
a tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from persona.cores import thread_count
from persona.errors import InvalidInput
from persona.merge.devices.choose import cuda_devices
from persona.merge.devices.cuda import settle
from persona.merge.devices.device import Device, DeviceArray, NoDevice
from persona.merge.workers import in_order
from persona.objects.digest import block_digest, block_spans, tensor_digest, weights_digest
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec

Module: TypeAlias = torch.nn.Module
Tensor: TypeAlias = torch.Tensor
Stamp = tuple[int, int]


def torch_dtype(dtype: str) -> torch.dtype | None:
    """torch's dtype of a safetensors dtype, None if it has none."""
    name = DTYPES[dtype].torch
    found: torch.dtype | None = None if name is None else getattr(torch, name)
    return found


def device_of(tensor: Tensor) -> Device | None:
    """The device that a tensor lies on, if it can merge."""
    if tensor.device.type != "cuda":
        return None
    try:
        devices: tuple[Any, ...] = cuda_devices()
    except NoDevice:
        return None
    return next((device for device in devices if device.where == tensor.device), None)


def why_not(where: torch.device) -> str | None:
    """The reason why the GPU of a tensor cannot merge; None if it can, and for the CPU."""
    if where.type != "cuda":
        return None
    try:
        devices: tuple[Any, ...] = cuda_devices()
    except NoDevice as error:
        return str(error)
    if any(device.where == where for device in devices):
        return None
    return f"the GPU {where} is too old, runs no kernel, or computes other bits"


class Slot:
    """The memory of one tensor of a model, with the shape of `spec`, and with its dtype or a wider one."""

    def __init__(self, spec: TensorSpec, tensor: Tensor) -> None:
        self.spec = spec
        self._tensor = tensor
        self._integer: torch.dtype = getattr(torch, f"int{8 * spec.unit}")
        self._dtype = torch_dtype(spec.dtype) or tensor.dtype
        self._wide = tensor.dtype != self._dtype
        self._staged: Tensor | None = None
        self._lock = threading.Lock()
        self._direct: NDArray[Any] | None = None
        self._flat: Tensor | None = None
        if not self._wide and tensor.is_contiguous():
            self._flat = tensor.detach().view(self._integer).view(-1)
            if tensor.device.type == "cpu" and tensor.data_ptr() % spec.unit == 0:
                self._direct = self._flat.numpy().view(spec.bits_dtype)
        self.device = device_of(tensor) if spec.merged and self._flat is not None else None

    @property
    def where(self) -> torch.device:
        """The tensor's device, in torch's terms."""
        return self._tensor.device

    def onto(self, start: int, stop: int) -> DeviceArray:
        """Storage elements [start, stop) on the slot's device, to be written: uint16 or uint32."""
        assert self.device is not None
        return self.device.adopt(self._flat)[start:stop]

    def stamp(self) -> Stamp:
        """The tensor's address, and how often it was changed in place."""
        tensor = self._tensor
        return tensor.data_ptr(), 0 if tensor.is_inference() else int(tensor._version)

    @contextmanager
    def span(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Storage elements [start, stop) to be written, uint16 or uint32 if the dtype is merged, else bytes.

        Any thread may call it, for each element once. `changed` ends the writing.
        """
        unit = self.spec.unit
        if self._direct is not None:
            scale = 1 if self.spec.merged else unit
            yield self._direct[start * scale : stop * scale]
            return
        flat = self._flat
        if flat is not None:
            taken = torch.empty(stop - start, dtype=self._integer)
        else:
            taken = self._stage()[start:stop]
        yield taken.numpy().view(self.spec.bits_dtype)
        if flat is not None:
            with torch.inference_mode():  # which may change its own tensors and any other
                flat[start:stop].copy_(taken)

    def changed(self) -> Stamp:
        """Ends the writing of the whole tensor; the stamp that it has now."""
        if self._staged is not None:
            staged = self._staged.view(self._tensor.shape)
            with torch.inference_mode():
                if self._wide:
                    self._tensor.detach().copy_(staged.view(self._dtype))
                else:
                    self._tensor.detach().view(self._integer).copy_(staged)
            settle(self.where)
            self._staged = None
        if not self._tensor.is_inference():
            torch.autograd.graph.increment_version(self._tensor)
        return self.stamp()

    def spans(self) -> list[list[tuple[int, int]]]:
        """The blocks of the raw bytes, [start, stop) each, in groups that `block_digests` hashes at once.

        A block is a group of its own, unless the elements have to be copied to get them in order.
        """
        found = block_spans(self.spec.nbytes)
        return [[span] for span in found] if self._flat is not None else [found]

    def block_digests(self, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        """The digests of these blocks as they are now (`persona.objects.digest`). Any thread may call it."""
        bits, unit = self.bits(), self.spec.unit
        return [
            block_digest(bits[start // unit : stop // unit].cpu().numpy().view(np.uint8).data)
            for start, stop in spans
        ]

    def bits(self) -> Tensor:
        """The elements as they are now, in their order, as integers of `spec`'s dtype."""
        if self._flat is not None:
            return self._flat
        narrow = self._tensor.detach().to(self._dtype)
        return narrow.view(self._integer).reshape(-1)

    def equals(self, other: Slot) -> bool:
        """Whether another slot of the same shape and dtype holds the same bits."""
        return torch.equal(self.bits(), other.bits().to(self.where))

    def _stage(self) -> Tensor:
        with self._lock:
            if self._staged is None:
                self._staged = torch.empty(self.spec.units, dtype=self._integer)
            return self._staged


def new_slots(specs: Iterable[TensorSpec]) -> tuple[dict[str, Tensor], dict[str, Slot]]:
    """Fresh tensors on the CPU, not filled, and their slots, by name."""
    tensors: dict[str, Tensor] = {}
    for spec in specs:
        dtype = torch_dtype(spec.dtype)
        if dtype is None:
            raise InvalidInput(f"tensor {spec.name}: torch has no parameters of dtype {spec.dtype}")
        tensors[spec.name] = torch.empty(spec.shape, dtype=dtype)
    return tensors, {spec.name: Slot(spec, tensors[spec.name]) for spec in specs}


def digest_of(slots: Mapping[str, Slot], threads: int | None = None) -> str:
    """The weights digest of the slots' memory now."""
    blocks: dict[str, list[bytes]] = {name: [] for name in slots}
    groups = [(name, group) for name, slot in slots.items() for group in slot.spans()]
    digests = in_order(
        lambda item: slots[item[0]].block_digests(item[1]), groups, threads=thread_count(threads)
    )
    for (name, _), found in zip(groups, digests, strict=True):
        blocks[name] += found
    specs = [slot.spec for slot in slots.values()]
    return weights_digest(
        (spec.name, spec.dtype, spec.shape, tensor_digest(blocks[spec.name])) for spec in specs
    )


def check_held(spec: TensorSpec, tensor: Tensor, shape: tuple[int, ...], *, wide: bool) -> None:
    """`InvalidInput` unless a tensor of a model can hold a tensor of a base.

    `shape`: the shape of the tensor, or of the part of it that holds the base's. `wide`: it may be float32.
    """
    name = spec.name
    if type(tensor.detach()) is not Tensor or tensor.layout != torch.strided:
        raise InvalidInput(
            f"tensor {name} of the model is a {type(tensor.detach()).__name__} ({tensor.layout}), not a plain"
            " tensor: load the model without quantisation and without sharding"
        )
    if tensor.device.type == "meta":
        raise InvalidInput(
            f"tensor {name} of the model is on the meta device, without memory: load the model's weights"
            " first, or let repo.load do it"
        )
    if tensor.dtype != torch_dtype(spec.dtype) and not (wide and tensor.dtype == torch.float32):
        wanted = DTYPES[spec.dtype].torch or spec.dtype
        raise InvalidInput(
            f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')} in the model and {wanted} in the"
            ' base: load the model with dtype="auto", as repo.load does, and do not convert it'
        )
    if shape != spec.shape:
        raise InvalidInput(
            f"tensor {name} has the shape {list(shape)} in the model and {list(spec.shape)} in the"
            " weights of this revision, and a live model keeps its size: load the model with repo.load"
            " at this revision, and do not resize it (resize_token_embeddings)"
        )


def check_memory(state: Mapping[str, Tensor], owners: Mapping[str, str], *, untied: bool) -> None:
    """`InvalidInput` if two tensors of the base share memory, or a parameter holds and shares none of them.

    `state`: the parameters and buffers of a model. `owners`: those that hold tensors of the base → the first
    tensor that each one holds. `untied`: the model's config says that it has an output matrix of its own.
    """
    places: dict[tuple[int, tuple[int, ...]], str] = {}
    ends: list[tuple[str, int, int, str]] = []
    for owner, name in owners.items():
        tensor = state[owner]
        if tensor.numel():
            reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            start = tensor.data_ptr()
            ends.append((str(tensor.device), start, start + reach * tensor.element_size(), name))
            places[start, tuple(tensor.shape)] = name
    ends.sort()
    for (device, _, end, one), (other_device, start, _, other) in pairwise(ends):
        if device == other_device and start < end:
            raise shared(one, other, "but the base holds both")
    for name, tensor in state.items():
        if name in owners or not isinstance(tensor, torch.nn.Parameter):
            continue
        if (tensor.data_ptr(), tuple(tensor.shape)) not in places:
            advice = "call model.tie_weights() if it should be tied, else take it away"
            if untied:
                advice = "the model's config does not tie it, so load a model of that revision with repo.load"
            raise InvalidInput(
                f"the model has a parameter {name} that is none of the base's tensors and tied to none:"
                f" {advice}"
            )


def shared(one: str, other: str, why: str) -> InvalidInput:
    """The error for two tensors of a base that share memory in a model."""
    return InvalidInput(
        f"tensors {one} and {other} share memory in the model, {why}: load the model with"
        " tie_word_embeddings=False in its config"
    )
