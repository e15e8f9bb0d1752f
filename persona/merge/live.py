"""A model in memory as the place that merged bytes go to: no file, no second copy of the weights.

**slot** — where one tensor of a base lies in a model. Where the memory is the CPU's, contiguous and aligned,
chunks are merged straight into it, by the CPU; where it is a GPU's and contiguous, by that GPU
(`persona.merge.resident`). Elsewhere (a transposed view), and where nothing is to be merged, they are made on
the CPU and copied over, bit by bit. **stamp** — address and version counter of a tensor: torch raises the
counter at each change in place, and so does `Slot.changed`, so that autograd notices what was merged after it
saved a tensor.

torch is imported at the top and transformers in the call that builds a model: `persona.history` imports this
module inside the calls that have a model in their hands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray

from persona.errors import InvalidInput
from persona.merge.chunks import UINT
from persona.merge.cuda_device import settle
from persona.merge.cutoffs import cutoffs
from persona.merge.device import Device, DeviceArray, NoDevice
from persona.merge.kept import KeepingMerger, Kept
from persona.merge.pipeline import Progress, first_run, in_order, thread_count, worker_count
from persona.merge.place import cuda_devices
from persona.merge.plan import Plan, TensorPlan
from persona.merge.resident import Landing, Residents
from persona.merge.room import room
from persona.merge.stream import Merger
from persona.objects.digest import weights_digest
from persona.objects.tensors import TensorSpec, chunk_span

if TYPE_CHECKING:
    from transformers import PreTrainedModel as PreTrainedModel

Module: TypeAlias = torch.nn.Module
Tensor: TypeAlias = torch.Tensor
Stamp = tuple[int, int]

DTYPES: Final[dict[str, torch.dtype]] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "I64": torch.int64,
    "F64": torch.float64,
}
"""safetensors dtype → torch's, for those that a model's parameters and buffers have."""

_AHEAD: Final = 64
"""Chunks that may wait for an earlier one: they lie in their place already and hold no buffer."""

_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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
    """Why the GPU that a tensor lies on cannot merge; None where it can, and for the CPU."""
    if where.type != "cuda":
        return None
    try:
        devices: tuple[Any, ...] = cuda_devices()
    except NoDevice as error:
        return str(error)
    if any(device.where == where for device in devices):
        return None
    return f"the GPU {where} is too old, or runs no kernel"


class Slot:
    """One tensor of a model that holds what `spec` says: same shape, same dtype."""

    def __init__(self, spec: TensorSpec, tensor: Tensor) -> None:
        self.spec = spec
        self._tensor = tensor
        bits = tensor.detach().view(_BITS[spec.unit])
        self._bits = bits.view(-1) if bits.is_contiguous() else bits
        self._staged: Tensor | None = None
        self._lock = threading.Lock()
        self._direct: NDArray[Any] | None = None
        if bits.is_contiguous() and bits.device.type == "cpu" and bits.data_ptr() % spec.unit == 0:
            self._direct = self._bits.numpy().view(UINT[spec.unit] if spec.merged else np.uint8)
        self.device = device_of(tensor) if spec.merged and bits.is_contiguous() else None

    @property
    def where(self) -> torch.device:
        """Where the tensor lies, by torch."""
        return self._tensor.device

    def onto(self, start: int, stop: int) -> DeviceArray:
        """Storage elements [start, stop) on the slot's device, to be written: uint16 or uint32."""
        assert self.device is not None
        return self.device.adopt(self._bits)[start:stop]

    def stamp(self) -> Stamp:
        """Where the tensor lies, and how often it was changed in place."""
        tensor = self._tensor
        return tensor.data_ptr(), 0 if tensor.is_inference() else int(tensor._version)

    @contextmanager
    def span(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Storage elements [start, stop) to be written: uint16 or uint32 where the dtype is merged, else
        uint8 bytes. From any thread, each element once; `changed` ends it.
        """
        unit = self.spec.unit
        if self._direct is not None:
            scale = 1 if self.spec.merged else unit
            yield self._direct[start * scale : stop * scale]
            return
        in_pieces = self._bits.is_contiguous()
        if in_pieces:
            taken = torch.empty(stop - start, dtype=self._bits.dtype)
        else:
            taken = self._stage()[start:stop]
        yield taken.numpy().view(UINT[unit] if self.spec.merged else np.uint8)
        if in_pieces:
            with torch.inference_mode():  # which may change its own tensors and any other
                self._bits[start:stop].copy_(taken)

    def changed(self) -> Stamp:
        """Ends the writing of the whole tensor; the stamp that it has now."""
        if self._staged is not None:
            with torch.inference_mode():
                self._bits.copy_(self._staged.view(self._bits.shape))
            settle(self.where)
            self._staged = None
        if not self._tensor.is_inference():
            torch.autograd.graph.increment_version(self._tensor)
        return self.stamp()

    def digest(self) -> bytes:
        """BLAKE3-256 of the raw bytes as they are now."""
        whole = self._bits.contiguous().cpu().view(-1)
        return blake3(whole.numpy().view(np.uint8).data).digest() if whole.numel() else blake3().digest()

    def _stage(self) -> Tensor:
        with self._lock:
            if self._staged is None:
                self._staged = torch.empty(self.spec.units, dtype=self._bits.dtype)
            return self._staged


def slots_of(model: Module, specs: Iterable[TensorSpec]) -> dict[str, Slot]:
    """Where a model holds the tensors of a base, by name; changes nothing.

    Raises `InvalidInput`, naming the tensor, where the model lacks one, holds it in another shape or dtype,
    without memory of its own or in memory shared with another one, and where it has a parameter that is
    neither among them nor tied to one.
    """
    state: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    state |= model.named_buffers(remove_duplicate=False)
    slots: dict[str, Slot] = {}
    missing: list[str] = []
    for spec in specs:
        tensor = state.get(spec.name)
        if tensor is not None:
            _check(spec, tensor)
            slots[spec.name] = Slot(spec, tensor)
        else:
            missing.append(spec.name)
    if missing:
        more = f" and {len(missing) - 1} more of the base's tensors" if len(missing) > 1 else ""
        raise InvalidInput(
            f"the model has no tensor {missing[0]}{more}: give the model itself, as repo.load makes it, not a"
            " part of it or what is wrapped around it (PEFT, DDP, torch.compile)"
        )
    _check_sharing(state, slots)
    return slots


def new_slots(specs: Iterable[TensorSpec]) -> tuple[dict[str, Tensor], dict[str, Slot]]:
    """Fresh tensors on the CPU, not filled, and their slots, by name."""
    tensors: dict[str, Tensor] = {}
    for spec in specs:
        if spec.dtype not in DTYPES:
            raise InvalidInput(f"tensor {spec.name}: torch has no parameters of dtype {spec.dtype}")
        tensors[spec.name] = torch.empty(spec.shape, dtype=DTYPES[spec.dtype])
    return tensors, {spec.name: Slot(spec, tensors[spec.name]) for spec in specs}


def digest_of(slots: Mapping[str, Slot], threads: int | None = None) -> str:
    """The weights digest of what the slots hold now."""
    found = list(slots.values())
    digests = in_order(Slot.digest, found, threads=thread_count(threads))
    return weights_digest(
        (slot.spec.name, slot.spec.dtype, slot.spec.shape, digest)
        for slot, digest in zip(found, digests, strict=True)
    )


def merger_of(
    plan: Plan,
    tensors: list[TensorPlan],
    kept: Kept | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    slots: Mapping[str, Slot] = MappingProxyType({}),
) -> Merger:
    """What computes these tensors of a plan, their cut-offs found; nothing is written yet. `slots`: where
    they will go, if that is known.
    """
    devices = devices_of(tensors, slots)
    found = room(plan, tensors, worker_count(threads, bool(devices)))
    with first_run(progress):
        cuts = cutoffs(plan, tensors, threads=found.threads, progress=progress)
    empty = devices[0].host if devices else np.empty
    if kept is not None and kept.limit:
        return KeepingMerger(plan, cuts, kept, found, empty)
    return Merger(plan, cuts, found, empty=empty)


def devices_of(tensors: Iterable[TensorPlan], slots: Mapping[str, Slot]) -> list[Device]:
    """The devices that tensors to be merged lie on."""
    found = [slots[name].device for tensor in tensors if (name := tensor.spec.name) in slots]
    return [device for device in dict.fromkeys(found) if device is not None]


class Filler:
    """Merges tensors into slots, one run at a time.

    Invariant: when a run begins no thread of an earlier one writes any more, however that one ended.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._run = 0
        self._writing = 0

    def fill(
        self,
        merger: Merger,
        tensors: list[TensorPlan],
        slots: Mapping[str, Slot],
        *,
        residents: Residents | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        not_finite: Callable[[TensorSpec, int], None] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Generator[tuple[TensorPlan, Stamp], None, None]:
        """Computes these tensors, for which `merger_of` made the merger; gives each one, with its stamp, as
        soon as it is whole. `residents`: what is kept on the devices of the slots from one run to the next;
        `tell` is told in a sentence where a device cannot be used. All that was queued on the tensors' GPUs
        is waited for, since what reads them may be on any stream.

        `not_finite(spec, count)` is told of tensors with elements that are not finite; without it they end
        the run with `InvalidInput`. The tensors that were not given hold anything then.
        """
        self._settle()
        for where in {slots[tensor.spec.name].where for tensor in tensors}:
            settle(where)
        for where in {slots[tensor.spec.name].where for tensor in tensors if tensor.way == "merge"}:
            if why := why_not(where):
                tell(f"computed on the CPU: {why}")
        plan, run = merger.plan, self._run
        total = sum(tensor.spec.nbytes for tensor in tensors)
        done = bad = 0
        workers = room(plan, tensors, worker_count(threads, bool(devices_of(tensors, slots)))).threads
        with closing((residents or Residents(0)).begin(merger, tensors, slots, tell)) as landing:
            spans: list[tuple[TensorPlan, int | None]] = []
            for tensor in tensors:
                whole = landing.holds(tensor)
                spans += [(tensor, index) for index in ([None] if whole else range(plan.chunks(tensor)))]
                if not plan.chunks(tensor):  # an empty tensor
                    yield tensor, slots[tensor.spec.name].changed()

            def work(span: tuple[TensorPlan, int | None]) -> int:
                return self._chunk(run, merger, *span, slots, landing)

            counts: Any = in_order(work, spans, threads=workers, ahead=_AHEAD)
            try:
                with first_run(progress), closing(counts):
                    for (tensor, index), count in zip(spans, counts, strict=True):
                        spec = tensor.spec
                        start, stop = _span(spec, index, plan.base.chunk)
                        bad += count
                        done += (stop - start) * spec.unit
                        if stop == spec.units:
                            if bad:
                                _tell(spec, bad, not_finite)
                            bad = 0
                            landing.finish(tensor)
                            yield tensor, slots[spec.name].changed()
                        if progress:
                            progress("merging", done, total)
            finally:
                self._settle()

    def _chunk(
        self,
        run: int,
        merger: Merger,
        tensor: TensorPlan,
        index: int | None,
        slots: Mapping[str, Slot],
        landing: Landing,
    ) -> int:
        """Merges one chunk; how many of its elements are not finite. Nothing where its run is over."""
        with self._condition:
            if run != self._run:
                return 0
            self._writing += 1
        try:
            spec, plan = tensor.spec, merger.plan
            if index is None or landing.takes(tensor):
                return landing.merge(tensor, index)
            id = plan.base_table.chunk(spec.name, index)
            with slots[spec.name].span(*chunk_span(spec, index, plan.base.chunk)) as out:
                if spec.merged:
                    return merger.merge_into(tensor, index, id, out)
                out[:] = np.frombuffer(merger.reader.base_bytes(spec, id, index), np.uint8)
                return 0
        finally:
            with self._condition:
                self._writing -= 1
                self._condition.notify_all()

    def _settle(self) -> None:
        """Ends the run, and waits for the chunks under way; interrupted, it is done again by the next run."""
        with self._condition:
            self._run += 1
            while self._writing:
                self._condition.wait()


def _span(spec: TensorSpec, index: int | None, chunk: int) -> tuple[int, int]:
    """Storage elements of a chunk, or of the whole tensor."""
    return (0, spec.units) if index is None else chunk_span(spec, index, chunk)


def build(
    config: Mapping[str, Any],
    generation: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
) -> PreTrainedModel:
    """A transformers model of these tensors: the class that `config` (config.json) names, in evaluation mode.

    The tensors become its parameters, without a copy where the dtype stays. `generation`:
    generation_config.json. `options` go to `from_pretrained`. Raises `InvalidInput` where transformers does
    not know the class, would need code of the model's own, or finds that tensors are missing.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    logging: Any = transformers.utils.logging
    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise InvalidInput(
            f"config.json: transformers {transformers.__version__} has no model of type {kind!r:.60}; persona"
            " runs no code that comes with a model: write it with checkout, and load it from there"
        )
    parsed = CONFIG_MAPPING[kind].from_dict(dict(config))
    names = config.get("architectures") or ()
    found = next((getattr(transformers, str(name), None) for name in names), None)
    if found is None:
        known: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        if type(parsed) not in known:
            raise InvalidInput(
                f"config.json: transformers {transformers.__version__} has no class for the architectures"
                f" {list(names)!r:.100} of model type {kind!r:.60}"
            )
        found = known[type(parsed)]
    wanted = {key: value for key, value in options.items() if key != "torch_dtype"}
    dtype = wanted.pop("dtype", options.get("torch_dtype", "auto"))
    wanted["dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"] = dtype
    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, report = found.from_pretrained(
            None, config=parsed, state_dict=dict(tensors), output_loading_info=True, **wanted
        )
    except (RuntimeError, ValueError, ImportError) as error:
        raise InvalidInput(f"transformers cannot build {found.__name__} of these weights: {error}") from error
    finally:
        if was_shown:
            logging.enable_progress_bar()
    if absent := sorted(report["missing_keys"]):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InvalidInput(
            f"{found.__name__} needs tensor {absent[0]}{more}, which the base does not hold: its config.json"
            " is not the one that the weights came with"
        )
    if generation is not None and model.can_generate():
        model.generation_config = transformers.GenerationConfig.from_dict(dict(generation))
    built: PreTrainedModel = model
    return built


def _check(spec: TensorSpec, tensor: Tensor) -> None:
    name = spec.name
    if type(tensor.detach()) is not Tensor or tensor.layout != torch.strided:
        raise InvalidInput(
            f"tensor {name} of the model is a {type(tensor.detach()).__name__} ({tensor.layout}), not a plain"
            " tensor: load the model without quantisation and without sharding"
        )
    if tensor.device.type == "meta":
        raise InvalidInput(
            f"tensor {name} of the model is on the meta device, without memory: load the model's weights"
            " first, or leave that to repo.load"
        )
    if tensor.dtype != DTYPES.get(spec.dtype):
        wanted = str(DTYPES.get(spec.dtype, spec.dtype)).removeprefix("torch.")
        raise InvalidInput(
            f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')} in the model and {wanted} in the"
            ' base: load the model with dtype="auto", as repo.load does, and do not convert it'
        )
    if tuple(tensor.shape) != spec.shape:
        raise InvalidInput(
            f"tensor {name} has the shape {list(tensor.shape)} in the model and {list(spec.shape)} in the"
            " base: load the model with repo.load, and do not resize it (resize_token_embeddings)"
        )


def _check_sharing(state: Mapping[str, Tensor], slots: Mapping[str, Slot]) -> None:
    """`InvalidInput` where two tensors of the base share memory, or a parameter belongs to none of them."""
    places: dict[tuple[int, tuple[int, ...]], str] = {}
    ends: list[tuple[str, int, int, str]] = []
    for name, slot in slots.items():
        tensor = state[name]
        if tensor.numel():
            reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            start = tensor.data_ptr()
            ends.append((str(tensor.device), start, start + reach * slot.spec.unit, name))
            places[start, tuple(tensor.shape)] = name
    ends.sort()
    for (device, _, end, one), (other_device, start, _, other) in pairwise(ends):
        if device == other_device and start < end:
            raise InvalidInput(
                f"tensors {one} and {other} share memory in the model, but the base holds both: load the"
                " model with tie_word_embeddings=False in its config"
            )
    for name, tensor in state.items():
        if name in slots or not isinstance(tensor, torch.nn.Parameter):
            continue
        if (tensor.data_ptr(), tuple(tensor.shape)) not in places:
            raise InvalidInput(
                f"the model has a parameter {name} that is none of the base's tensors and tied to none: call"
                " model.tie_weights() if it should be tied, else take it away"
            )


def _tell(spec: TensorSpec, count: int, not_finite: Callable[[TensorSpec, int], None] | None) -> None:
    if not_finite is None:
        raise InvalidInput(
            f"tensor {spec.name}: {count} merged element{'s are' if count > 1 else ' is'} not finite; lower"
            " alpha or lambda, or pass allow_nonfinite=True to have NaN there"
        )
    not_finite(spec, count)
