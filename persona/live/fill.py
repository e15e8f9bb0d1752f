"""Merging into a model in memory: no file, no second copy of the weights.

Chunks are merged into the slots of a model (`slots`). A model can also be built from merged tensors. The
slots import torch, and the call that builds a model imports transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput, listed
from persona.live.resident import DeviceFill, Residents
from persona.live.slots import Slot, Stamp, Tensor, why_not
from persona.merge.devices.cuda import settle
from persona.merge.devices.device import Device
from persona.merge.memory import budget_of
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.cache import CachedRows, RowCache
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.stored import StoredRows
from persona.merge.run.merger import Merger, tell_not_finite
from persona.merge.trim.cutoffs import cutoffs
from persona.merge.workers import first_run, in_order, worker_count
from persona.objects.tensors import TensorSpec, chunk_span
from persona.progress import MERGING, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel as PreTrainedModel

_FLOAT: Final = "__float__"
_NOT_IN_JSON: Final = ("NaN", "Infinity", "-Infinity")
"""The key and the values with which transformers writes floats that JSON lacks."""
_AHEAD: Final = 64
"""Chunks that may wait for an earlier one: they lie in their place already and hold no buffer."""


@in_default_environment
def caching_merger_of(
    plan: Plan,
    tensors: list[TensorPlan],
    cache: RowCache | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    slots: Mapping[str, Slot] = MappingProxyType({}),
) -> Merger:
    """The merger of these tensors of a plan, with cut-offs; nothing is written yet.

    `slots`: where the tensors will go, if that is known.
    """
    devices = devices_of(tensors, slots)
    budget = budget_of(plan, tensors, worker_count(threads, bool(devices)))
    with first_run(progress) as progress:
        cuts = cutoffs(plan, tensors, budget, progress)
    empty = devices[0].host if devices else np.empty
    stored = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, plan.base.chunk, empty), cuts.filter)
    rows = CachedRows(stored, cache) if cache is not None and cache.limit else stored
    return Merger(plan, cuts, rows, budget, empty=empty)


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
        progress: Progress | None = None,
        not_finite: Callable[[TensorSpec, int], None] | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> Generator[tuple[TensorPlan, Stamp], None, None]:
        """Computes these tensors with a merger from `merger_of`; gives each one when it is whole.

        It gives the tensor and its stamp. `residents`: the rows kept on the slots' devices from one run to
        the next. `note` is called with a sentence if a device cannot be used. The run waits for everything
        queued on the tensors' GPUs, because a reader may be on any stream.

        `not_finite(spec, count)` is called for tensors with elements that are not finite. Without it they end
        the run with `InvalidInput`; the content of tensors that were not given is then undefined.
        """
        self._settle()
        for where in {slots[tensor.spec.name].where for tensor in tensors}:
            settle(where)
        for where in {slots[tensor.spec.name].where for tensor in tensors if tensor.way == "merge"}:
            if why := why_not(where):
                note(f"computed on the CPU: {why}")
        plan, run = merger.plan, self._run
        total = sum(tensor.spec.nbytes for tensor in tensors)
        done = bad = 0
        with closing((residents or Residents(0)).begin(merger, tensors, slots, note)) as on_devices:
            with closing(on_devices.merge_residents(filter(on_devices.holds, tensors))) as merged:
                for tensor, count in merged:
                    if count:
                        tell_not_finite(tensor.spec, count, not_finite)
                    done += tensor.spec.nbytes
                    yield tensor, slots[tensor.spec.name].changed()
                    if progress:
                        progress(MERGING, done, total)
            spans: list[tuple[TensorPlan, int]] = []
            for tensor in tensors:
                if not plan.chunks(tensor):  # an empty tensor
                    yield tensor, slots[tensor.spec.name].changed()
                elif not on_devices.holds(tensor):
                    spans += [(tensor, index) for index in range(plan.chunks(tensor))]

            def work(span: tuple[TensorPlan, int]) -> int:
                return self._chunk(run, merger, *span, slots, on_devices)

            counts: Any = in_order(work, spans, threads=merger.budget.threads, ahead=_AHEAD)
            try:
                with first_run(progress) as progress, closing(counts):
                    for (tensor, index), count in zip(spans, counts, strict=True):
                        spec = tensor.spec
                        start, stop = chunk_span(spec, index, plan.base.chunk)
                        bad += count
                        done += (stop - start) * spec.unit
                        if stop == spec.units:
                            if bad:
                                tell_not_finite(spec, bad, not_finite)
                            bad = 0
                            on_devices.finish(tensor)
                            yield tensor, slots[spec.name].changed()
                        if progress:
                            progress(MERGING, done, total)
            finally:
                self._settle()

    def _chunk(
        self,
        run: int,
        merger: Merger,
        tensor: TensorPlan,
        index: int,
        slots: Mapping[str, Slot],
        on_devices: DeviceFill,
    ) -> int:
        """Merges one chunk; returns how many elements are not finite. Does nothing once its run is over."""
        with self._condition:
            if run != self._run:
                return 0
            self._writing += 1
        try:
            spec = tensor.spec
            if on_devices.takes(tensor):
                return on_devices.merge(tensor, index)
            with slots[spec.name].span(*chunk_span(spec, index, merger.plan.base.chunk)) as out:
                return merger.chunk_into(tensor, index, out)
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


def build(
    config: Mapping[str, Any],
    generation: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
) -> PreTrainedModel:
    """A transformers model of these tensors, of the class that `config` (config.json) names.

    It is in evaluation mode. The tensors become its parameters, without a copy if the dtype stays.
    `generation`: generation_config.json. `options` go to `from_pretrained`. Raises `InvalidInput` if
    transformers does not know the class, would need code of the model's own, or finds that tensors are
    missing.
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
    parsed = CONFIG_MAPPING[kind].from_dict(_with_floats(dict(config)))
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
        raise InvalidInput(
            f"{found.__name__} needs tensor {listed(absent, 1)}, which the base does not hold: the"
            " config.json belongs to other weights"
        )
    # transformers would call it "None", and peft would ask the Hub for that model.
    model.name_or_path = model.config.name_or_path = ""
    if generation is not None and model.can_generate():
        model.generation_config = transformers.GenerationConfig.from_dict(dict(generation))
    built: PreTrainedModel = model
    return built


def _with_floats(value: Any) -> Any:
    """A part of a config in which numbers that JSON lacks are floats: transformers marks them."""
    if isinstance(value, dict):
        if value.keys() == {_FLOAT} and value[_FLOAT] in _NOT_IN_JSON:
            return float(value[_FLOAT])
        return {key: _with_floats(each) for key, each in value.items()}
    return [_with_floats(each) for each in value] if isinstance(value, list) else value
