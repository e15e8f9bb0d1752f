"""Tensors on a device that are merged there, chunk by chunk while they are loaded and whole afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.errors import SystemFault
from persona.live import fill as live
from persona.live import resident, slots
from persona.live.fill import Filler, caching_merger_of
from persona.live.resident import Residents
from persona.live.slots import Slot, new_slots
from persona.merge import memory
from persona.merge.arithmetic import layout
from persona.merge.devices import lanes
from persona.merge.devices.device import DeviceFault
from persona.merge.plan import Plan
from persona.merge.rows.cache import RowCache
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from persona.objects.tensors import TensorSpec
from tests.merge.devices.late import LateDevice
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import elements

CHUNK = 64
SIZE = 300
VECTORS = 4
PLENTY = 1 << 20
Strengths = tuple[str, ...]


class Models:
    """Vectors each of which leaves some chunks as they are, over tensors of three dtypes; and the plans and
    bytes of their mixtures, by the CPU.
    """

    def __init__(self, folder: Path) -> None:
        self.model: dict[str, Any] = {}
        tuned: list[dict[str, Any]] = [{} for _ in range(VECTORS)]
        for seed, (name, dtype) in enumerate((("a", "BF16"), ("b", "F16"), ("c", "F32"))):
            bits, afters = elements(seed, dtype, VECTORS, "weights", SIZE + seed)
            self.model[name] = (dtype, bits.shape, bits)
            for k, after in enumerate(afters):
                chunks = np.arange(bits.size) // CHUNK
                changed = np.where((chunks == 2) | (chunks % VECTORS == k), bits, after)
                tuned[k][name] = (dtype, bits.shape, np.where(chunks == 3, bits, changed))
        self.sandbox = Sandbox(folder, self.model, chunk=CHUNK)
        self.ids = [self.sandbox.vector(after).id for after in tuned]
        self._known: dict[Any, dict[str, bytes]] = {}

    def plan(self, alphas: Strengths, joins: Strengths = ("vote",) * VECTORS) -> Plan:
        terms = [
            Term(str(k), self.ids[k], alpha=alphas[k], join=joins[k], only=("*",)) for k in range(len(alphas))
        ]
        return self.sandbox.plan(terms, Rules.of("ties", density="0.6"))

    def bytes_of(self, plan: Plan) -> dict[str, bytes]:
        key = plan.recipe.encode()
        if key not in self._known:
            self._known[key] = run(plan, self.model, threads=1)[0]
        return self._known[key]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("resident"))


class Board:
    """Tensors on a device, and what merges plans into them."""

    def __init__(self, model: Model, device: LateDevice, limit: int, kept: int = 0) -> None:
        self.device = device
        self.residents = Residents(limit)
        self.cache = RowCache(kept)
        self.filler = Filler()
        self.tensors: Any = None
        self.slots: dict[str, Slot] = {}

    def fill(self, plan: Plan, **options: Any) -> list[str]:
        """Merges a plan; the names of the tensors in the order in which they got whole."""
        if not self.slots:
            self.tensors, self.slots = new_slots(plan.base.tensors)
            for slot in self.slots.values():
                slot.device = self.device
        whole = list(plan.tensors)
        merger = caching_merger_of(plan, whole, self.cache, threads=2, slots=self.slots)
        filling = self.filler.fill(merger, whole, self.slots, residents=self.residents, **options)
        return [tensor.spec.name for tensor, _ in filling]

    def holds(self) -> dict[str, bytes]:
        return {name: slot.bits().numpy().tobytes() for name, slot in self.slots.items()}


@pytest.mark.parametrize("limit", [0, 2000, PLENTY])
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("slices", [False, True])
def test_chunks_that_vectors_leave_alone_are_right_while_loaded_and_later(
    models: Models, limit: int, seed: int | None, slices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slices:
        monkeypatch.setattr(layout, "SHORTEST_SLICE", 16)
        monkeypatch.setattr(memory, "CHUNK_MEMORY", 0)
    board = Board(models.model, LateDevice(seed=seed), limit)
    first = models.plan(("0.8", "-0.5", "1.5", "0.25"), ("vote", "add", "vote", "add"))
    for _ in range(2):
        board.fill(first)
        assert board.holds() == models.bytes_of(first)
    for joins in (("add", "vote", "vote", "vote"), ("vote",) * VECTORS):
        plan = models.plan(("0.3", "2", "-1", "0.7"), joins)
        board.fill(plan)
        assert board.holds() == models.bytes_of(plan)
    fewer = models.plan(("0.3", "0.5"))
    board.fill(fewer)
    assert board.holds() == models.bytes_of(fewer)
    board.fill(first)
    assert board.holds() == models.bytes_of(first)


def test_what_is_resident_is_not_opened_again(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(models.model, LateDevice(), PLENTY, kept=PLENTY)
    board.fill(models.plan(("0.8", "0.5", "1.5", "0.25")))
    assert board.cache.nbytes == 0
    monkeypatch.setattr(live, "chunk_span", lambda *_: pytest.fail("a chunk was asked for"))
    plan = models.plan(("0.8", "0.5", "1.5", "-0.25"))
    board.fill(plan)
    monkeypatch.undo()
    assert board.holds() == models.bytes_of(plan)


def test_what_streams_through_lanes_is_opened_from_what_the_host_keeps(models: Models) -> None:
    board = Board(models.model, LateDevice(seed=3), 0, kept=PLENTY)
    board.fill(models.plan(("0.8", "0.5", "1.5", "0.25")))
    kept = board.cache.nbytes
    plan = models.plan(("0.8", "0.5", "1.5", "-0.25"))
    board.fill(plan)
    assert board.cache.nbytes == kept > 0
    assert board.holds() == models.bytes_of(plan)


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_runs_that_end_early_leave_nothing_half_loaded_behind(models: Models, data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from([0, 1500, 4000, PLENTY]))
    device = LateDevice(seed=data.draw(st.sampled_from([None, 1])))
    board = Board(models.model, device, limit)
    for _ in range(data.draw(st.integers(1, 4))):
        alphas = data.draw(st.tuples(*[st.sampled_from(["0.5", "-1", "0.75"])] * VECTORS))
        joins = data.draw(st.tuples(*[st.sampled_from(["vote", "add"])] * VECTORS))
        plan = models.plan(alphas, joins)
        device.fail_at([device.merges + data.draw(st.integers(0, 25))])
        device.fill_up([device.allocations + data.draw(st.integers(0, 30))])
        try:
            board.fill(plan)
        except SystemFault:
            device.fail_at([])
            device.fill_up([])
            board.fill(plan)
        assert board.holds() == models.bytes_of(plan)
        cache = board.residents._caches.get(device)
        assert cache is None or device.taken == cache.nbytes <= limit


def test_a_run_that_nobody_ends_lets_go_of_what_it_loaded(models: Models) -> None:
    device = LateDevice()
    board = Board(models.model, device, PLENTY)
    plan = models.plan(("0.5", "0.5", "0.5", "0.5"))
    board.fill(plan)
    other = models.plan(("0.5", "0.5"))
    merger = caching_merger_of(other, list(other.tensors), slots=board.slots)
    filling = board.filler.fill(merger, list(other.tensors), board.slots, residents=board.residents)
    name = next(filling)[0].spec.name
    filling.close()
    cache = board.residents._caches[device]
    sizes = {spec.name: -(-spec.units // 64) * 64 * spec.unit for spec in plan.base.tensors}
    assert cache.nbytes == sum(5 * size for size in sizes.values()) + 3 * sizes[name]


def test_a_device_without_room_for_lanes_is_told_of(models: Models) -> None:
    board = Board(models.model, LateDevice(memory=10), PLENTY)
    plan = models.plan(("0.5", "0.5", "0.5", "0.5"))
    said: list[str] = []
    board.fill(plan, note=said.append)
    assert board.holds() == models.bytes_of(plan)
    assert [line.startswith("computed on the CPU: the GPU has") for line in said] == [True]


def test_every_device_is_waited_for_before_anything_is_written(models: Models) -> None:
    device = LateDevice()
    board = Board(models.model, device, PLENTY)

    def settle() -> None:
        device.settled += 1
        assert device.streams == []

    device.settle = settle  # type: ignore[method-assign]
    board.fill(models.plan(("0.5",) * VECTORS))
    assert device.settled == 1


def test_numbers_that_made_place_for_others_are_still_there_for_the_kernel(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_TERMS", 1)
    for limit in (0, PLENTY):
        board = Board(models.model, LateDevice(), limit)
        for alphas in (("0.8", "-0.5", "1.5", "0.25"), ("0.3", "2", "-1", "0.7")):
            plan = models.plan(alphas)
            board.fill(plan)
            assert board.holds() == models.bytes_of(plan)


@pytest.mark.parametrize("error", [DeviceFault("broken"), KeyboardInterrupt()])
def test_what_was_reserved_is_given_back_where_a_merge_does_not_begin(
    models: Models, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    device = LateDevice()
    board = Board(models.model, device, PLENTY)
    take, plan = device.take, models.plan(("0.5",) * VECTORS)

    def fail(nbytes: int) -> Any:
        if device.allocations == 5:  # those of a lane, a tensor's, and the next one's base
            raise error
        return take(nbytes)

    monkeypatch.setattr(device, "take", fail)
    if isinstance(error, DeviceFault):
        board.fill(plan, note=lambda line: None)
        assert board.holds() == models.bytes_of(plan)
    else:
        with pytest.raises(KeyboardInterrupt):
            board.fill(plan)
    assert device.allocations == 5
    assert board.residents._caches[device].nbytes == 0


def test_where_a_second_device_fails_the_first_gives_back_what_it_reserved(models: Models) -> None:
    device, broken = LateDevice(), LateDevice()
    board = Board(models.model, device, PLENTY)
    plan = models.plan(("0.5",) * VECTORS)
    board.tensors, board.slots = new_slots(plan.base.tensors)
    for name, slot in board.slots.items():
        slot.device = device if name < "c" else broken

    def fail() -> None:
        raise DeviceFault("broken")

    broken.settle = fail  # type: ignore[method-assign]
    with pytest.raises(DeviceFault):
        board.fill(plan)
    assert device.allocations > 2
    assert board.residents._caches[device].nbytes == 0


@pytest.mark.parametrize("stale", [True, False], ids=["of an earlier recipe", "of this recipe"])
def test_residents_make_place_before_a_model_is_left_to_the_cpu(models: Models, stale: bool) -> None:
    device = LateDevice()
    board = Board(models.model, device, PLENTY)
    first = models.plan(("0.5",) * VECTORS)
    board.fill(first)
    if not stale:  # one tensor has to be loaded, beside others that are resident
        held = board.residents._caches[device]._held
        del held[next(iter(held))]
    device.memory = device.taken + 600  # not enough for a lane any more
    merges, said = device.merges, list[str]()
    second = models.plan(("0.5",) * (VECTORS - 1)) if stale else models.plan(("0.75",) * VECTORS)
    for plan in (second, models.plan(("0.25",) * len(second.recipe.terms))):
        board.fill(plan, note=said.append)
        assert board.holds() == models.bytes_of(plan)
        assert device.merges > merges
        merges = device.merges
    assert said == []


def test_a_device_that_is_full_for_once_holds_all_the_next_time(models: Models) -> None:
    device = LateDevice(full_at=[4])
    board = Board(models.model, device, PLENTY)
    board.fill(models.plan(("0.5",) * VECTORS))
    cache = board.residents._caches[device]
    part = cache.nbytes
    board.fill(models.plan(("0.75",) * VECTORS))
    assert 0 < part < cache.nbytes


def test_a_part_of_a_device_stays_free(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = models.plan(("0.5",) * VECTORS)
    for reserve in (0, 1 << 15):
        monkeypatch.setattr(resident, "DEVICE_RESERVE", reserve)
        device = LateDevice(36_000)
        board = Board(models.model, device, PLENTY)
        board.residents = Residents(PLENTY, 4200)
        board.fill(plan)
        assert board.holds() == models.bytes_of(plan)
        assert device.most <= 36_000 - reserve + 4200
        assert (device.taken > 0) == (not reserve)


def test_residents_go_with_the_tensors_that_left_their_device(models: Models) -> None:
    device = LateDevice()
    board = Board(models.model, device, PLENTY)
    board.fill(models.plan(("0.5",) * VECTORS))
    assert device.taken > 0
    for slot in board.slots.values():
        slot.device = None
    board.fill(models.plan(("0.75",) * VECTORS))
    assert device.taken == 0


def test_what_the_host_writes_waits_for_what_the_model_queued(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(models.model, LateDevice(), 0)
    plan = models.plan(("0.5",) * VECTORS)
    _, board.slots = new_slots(plan.base.tensors)
    waited: list[tuple[Any, dict[str, bytes]]] = []
    monkeypatch.setattr(live, "settle", lambda where: waited.append((where, board.holds())))
    before = board.holds()
    board.fill(plan)
    assert waited == [(torch.device("cpu"), before)]


def test_a_copy_into_memory_that_is_not_contiguous_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.zeros((4, 3), dtype=torch.bfloat16).t()
    slot = Slot(TensorSpec("t", "BF16", (3, 4)), tensor)
    waited: list[float] = []
    monkeypatch.setattr(slots, "settle", lambda where: waited.append(float(tensor.sum())))
    with slot.span(0, 12) as out:
        out[:] = 0x3F80  # 1.0
    assert waited == []
    slot.changed()
    assert waited == [12.0]


def test_why_a_gpu_is_not_used_is_told_once(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(models.model, LateDevice(), 0)
    plan = models.plan(("0.5",) * VECTORS)
    _, board.slots = new_slots(plan.base.tensors)
    monkeypatch.setattr(live, "why_not", lambda where: "the abacus is broken")
    said: list[str] = []
    board.fill(plan, note=said.append)
    assert said == ["computed on the CPU: the abacus is broken"]
