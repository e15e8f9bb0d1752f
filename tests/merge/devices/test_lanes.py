"""The stream over a device equals the stream over the CPU, bit for bit, however late the device is, however
little it holds, and wherever it fails.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import Refused, SystemFault, UsageError
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import MergeArguments
from persona.merge.devices import lanes as lanes_module
from persona.merge.devices.device import DeviceFault
from persona.merge.devices.lanes import Lanes, Need
from persona.merge.plan import Plan
from persona.merge.run.merger import Merger, merger_of, pieces
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge.arithmetic.cuda_kernels import load, source
from tests.merge.devices.conftest import CHUNK, SIZE, VECTORS
from tests.merge.devices.late import LateDevice, There
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import SETTINGS, draw_model, draw_rules, draw_terms, elements

pytestmark = pytest.mark.usefixtures("short_slices")


def needs(plan: Plan) -> Need:
    return Need.of(plan, plan.tensors)


def merger(plan: Plan, *devices: LateDevice, **options: Any) -> Merger:
    place = There("cuda", options.pop("memory", None), devices)
    return merger_of(plan, list(plan.tensors), 2, None, None, place)


def lanes_of(made: Merger) -> Lanes:
    assert made.lanes is not None
    return made.lanes


def check_idle(made: Lanes) -> None:
    """Every lane is back, and nothing waits in its stream."""
    for side in made._by_device:
        assert len(side.idle) == side.made > 0
        assert all(not lane.stream.waiting for lane in side.idle)  # type: ignore[attr-defined]


def twice(plan: Plan, made: Merger) -> tuple[dict[str, bytes], int]:
    """What a merger makes of a plan, where a chunk that fails is asked for again; and how many failed."""
    found: dict[str, bytes] = {}
    failures = 0
    for tensor in plan.tensors:
        for index in range(plan.chunks(tensor)):
            try:
                buffer, _ = made.chunk(tensor, index)
            except SystemFault:
                failures += 1
                check_idle(lanes_of(made))
                buffer, _ = made.chunk(tensor, index)
            size = min(CHUNK, tensor.spec.units - index * CHUNK) * tensor.spec.unit
            found[tensor.spec.name] = found.get(tensor.spec.name, b"") + buffer[:size].tobytes()
    check_idle(lanes_of(made))
    return found, failures


@SETTINGS
@given(st.data())
def test_the_stream_over_devices_equals_that_over_the_cpu(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    base, afters = draw_model(data.draw, count)
    rules = data.draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base, chunk=data.draw(st.sampled_from([64, 128])))
        ids = []
        for after in afters:
            try:
                ids.append(sandbox.vector(after).id)
            except Refused:
                continue
        plan = sandbox.plan(draw_terms(data.draw, ids, rules), rules)
        need = needs(plan)
        seeds = data.draw(st.lists(st.sampled_from([None, 1, 2]), min_size=1, max_size=3))
        full_at = data.draw(st.sets(st.integers(2, 12), max_size=6))
        devices = tuple(LateDevice(seed=seed, full_at=full_at) for seed in seeds)
        memory = data.draw(st.none() | st.integers(need.least, 3 * need.whole + 1))
        place = There("cuda", memory or None, devices)
        threads = data.draw(st.integers(1, 6))
        want = run(plan, base, threads=1, allow_nonfinite=True)
        try:
            found = run(plan, base, threads=threads, allow_nonfinite=True, device=place)
        except SystemFault:
            if not full_at:
                raise
            return
    assert found[0] == want[0]
    assert found[1].not_finite == want[1].not_finite
    assert found[1].weights == want[1].weights
    assert (found[1].device == "cuda") == bool(need.whole)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("count", [1, 3])
def test_every_budget_gives_the_same_bits(mixed: Any, count: int, seed: int | None) -> None:
    plan, model, want = mixed
    need = needs(plan)
    assert need.least < need.whole
    for memory in (need.least, (need.least + need.whole) // 2, need.whole, 3 * need.whole, None):
        devices = tuple(LateDevice(seed=seed) for _ in range(count))
        assert run(plan, model, threads=4, device=There("cuda", memory, devices))[0] == want[0]
        for device in devices:
            assert device.merges or count > 1
            assert memory is None or device.most <= memory + 4096  # and the numbers of terms


def test_slices_of_the_host_are_slices_of_the_device_too(mixed: Any) -> None:
    plan, model, want = mixed
    fixed = CHUNK * (4 * 8 + 4) + cpu.scratch_bytes(VECTORS)
    memory = fixed + 64 * 4 * VECTORS
    for device_memory in (None, needs(plan).least):
        for seed in (None, 3):
            place = There("cuda", device_memory, (LateDevice(seed=seed),))
            assert run(plan, model, threads=4, memory=memory, device=place)[0] == want[0]


def test_too_little_memory_is_refused_with_what_is_needed(mixed: Any) -> None:
    plan, model, _ = mixed
    with pytest.raises(UsageError, match=r"need at least 1 MiB on the GPU\nhint: give device_memory=1048576"):
        run(plan, model, device=There("cuda", needs(plan).least - 1, (LateDevice(),)))


def test_a_full_device_gets_smaller_lanes_then_fewer_then_none(mixed: Any) -> None:
    plan, model, want = mixed
    need = needs(plan)
    for memory in (need.whole + 8192, need.least + 8192):
        device = LateDevice(memory)
        assert run(plan, model, threads=4, device=There("cuda", 4 * need.whole, (device,)))[0] == want[0]
    with pytest.raises(SystemFault, match=r"(?s)MiB free, .* need at least 1 MiB.*make room.*device='cpu'"):
        run(plan, model, device=There("cuda", need.whole, (LateDevice(need.least // 2),)))
    said = run(plan, model, device=There("auto", need.whole, (LateDevice(need.least // 2),)))
    assert said[0] == want[0]
    assert said[1].device == "cpu"
    assert [remark.startswith("computed on the CPU: the GPU has") for remark in said[1].notes] == [True]


def test_a_device_that_fails_before_anything_is_written_leaves_it_to_the_cpu(mixed: Any) -> None:
    plan, model, want = mixed

    class Broken(LateDevice):
        def stream(self) -> Any:
            raise DeviceFault("the GPU failed: it is broken")

    found, made = run(plan, model, device=There("auto", None, (Broken(),)))
    assert found == want[0]
    assert made.notes == ["computed on the CPU: the GPU failed: it is broken"]
    with pytest.raises(SystemFault, match=r"it is broken\nhint: use device='cpu'"):
        run(plan, model, device=There("cuda", None, (Broken(),)))


def test_a_device_that_fails_is_left_out_where_another_works(mixed: Any) -> None:
    plan, model, want = mixed

    class Broken(LateDevice):
        def free(self) -> int:
            raise DeviceFault("the GPU failed: it is broken")

    other = LateDevice()
    found, made = run(plan, model, device=There("cuda", None, (Broken(), other)))
    assert (found, made.device, made.notes) == (want[0], "cuda", [])
    assert other.merges > 0
    with pytest.raises(SystemFault, match=r"it is broken\nhint: use device='cpu'"):
        run(plan, model, device=There("cuda", None, (Broken(), LateDevice(10))))


def test_a_device_that_is_full_is_left_out_where_another_has_room(mixed: Any) -> None:
    plan, model, want = mixed
    full, other = LateDevice(100), LateDevice()
    assert run(plan, model, device=There("cuda", None, (full, other)))[0] == want[0]
    assert (full.merges, other.merges > 0) == (0, True)


@pytest.mark.parametrize("full_at", range(9))
def test_no_allocation_that_fails_changes_a_bit_or_loses_a_lane(mixed: Any, full_at: int) -> None:
    plan, _, want = mixed
    device = LateDevice(full_at=[full_at], seed=full_at)
    made = merger(plan, device)
    found, failures = twice(plan, made)
    assert failures <= 1
    assert found == want[0]


@pytest.mark.parametrize("fault_at", [0, 3, 7])
def test_a_fault_in_the_middle_of_a_chunk_gives_the_lane_back(mixed: Any, fault_at: int) -> None:
    plan, _, want = mixed
    device = LateDevice(fault_at=[fault_at])
    made = merger(plan, device, memory=needs(plan).least)
    assert twice(plan, made) == (want[0], 1)


def test_a_fault_ends_the_run_with_its_sentence(mixed: Any) -> None:
    plan, model, want = mixed
    device = LateDevice(fault_at=[5], seed=1)
    place = There("cuda", None, (device,))
    with pytest.raises(SystemFault, match=r"it was told to\nhint: use device='cpu'"):
        run(plan, model, threads=4, device=place)
    assert run(plan, model, threads=4, device=place)[0] == want[0]


def test_what_one_run_took_of_a_device_is_let_go_with_it(mixed: Any) -> None:
    plan, model, _ = mixed
    device = LateDevice(seed=2)
    run(plan, model, threads=3, device=There("cuda", None, (device,)))
    assert device.most > 0
    assert device.taken == 0


def test_devices_share_the_chunks_out(mixed: Any) -> None:
    plan, _, _ = mixed
    devices = [LateDevice(), LateDevice()]
    made = lanes_of(merger(plan, *devices))
    with made.lane() as (one, _), made.lane() as (two, _), made.lane() as (three, _):
        assert {one.device, two.device} == set(devices)
        assert three.device in devices
    check_idle(made)


def test_lanes_are_no_more_than_the_memory_holds(mixed: Any) -> None:
    plan, model, _ = mixed
    whole = needs(plan).whole
    for memory, most in ((whole, 1), (2 * whole, 2), (100 * whole, lanes_module.MOST_LANES)):
        device = LateDevice()
        run(plan, model, threads=8, device=There("cuda", memory, (device,)))
        assert 1 <= len(device.streams) <= most


def test_pieces_come_from_devices_too(mixed: Any) -> None:
    plan, _, want = mixed
    found: dict[str, bytes] = {}
    place = There("cuda", None, (LateDevice(seed=4),))
    for piece in pieces(plan, list(plan.tensors), threads=3, device=place):
        found[piece.spec.name] = found.get(piece.spec.name, b"") + bytes(piece.data)
    assert found == want[0]


def test_what_needs_no_arithmetic_goes_to_no_device(tmp_path: Path) -> None:
    bits, (after,) = elements(1, "BF16", 1, "weights", SIZE)
    model: Model = {"w": ("BF16", (SIZE,), bits), "x": ("BF16", (SIZE,), bits)}
    tuned: Model = {"w": ("BF16", (SIZE,), after), "x": ("BF16", (SIZE,), bits)}
    sandbox = Sandbox(tmp_path, model, chunk=CHUNK)
    plan = sandbox.plan([Term("v", sandbox.vector(tuned).id)], Rules.of("ties"))
    device = LateDevice()
    written, made = run(plan, model, device=There("cuda", None, (device,)))
    assert written["w"] == after.tobytes()
    assert (made.device, device.streams) == ("cpu", [])


def test_what_a_device_copies_lies_in_memory_that_it_made(mixed: Any) -> None:
    plan, _, _ = mixed
    device = LateDevice()
    made = merger(plan, device)
    before = device.locked
    made.chunk(plan.tensors[0], 0)
    rows = len(plan.tensors[0].terms)
    assert device.locked - before >= CHUNK * (2 + 4 + 2 * rows)


def test_the_kernel_for_gpus_in_the_lanes_gives_the_same_bits(mixed: Any) -> None:
    plan, model, want = mixed
    cuda = load(source(), interpreted=True)

    def kernel(
        base: Any, z: Any, numbers: Any, row_of: Any, order: Any, out: Any, mixture: MergeArguments
    ) -> int:
        terms = cuda.Terms.of(mixture.theta, mixture.alpha, mixture.add, mixture.rules, "cpu")
        bad = torch.zeros(1, dtype=torch.int64)
        arrays = (base, z, numbers, row_of, order, out)
        given = [None if array is None else torch.from_numpy(array) for array in arrays]
        cuda.merge_chunk(*given, terms, mixture.rules, mixture.dtype, bad, mixture.majority)
        return int(bad)

    device = LateDevice(kernel=kernel, seed=5)
    with np.errstate(all="ignore"):
        found, _ = run(plan, model, threads=1, device=There("cuda", needs(plan).least, (device,)))
    assert found == want[0]


def test_numbers_stay_until_the_lane_was_waited_for(mixed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "_TERMS", 1)
    plan, model, want = mixed
    made = merger(plan, LateDevice())
    voters = [index for index in plan.tensors[0].terms if plan.recipe.terms[index].join == "vote"]
    first = made.arguments(plan.tensors[0], voters[:2])
    mixtures = [replace(first, alpha=first.alpha * np.float32(times)) for times in (1, 2, 3)]
    with lanes_of(made).lane() as (lane, terms_of):
        base, z = lane.stream.array(CHUNK, np.uint16), lane.stream.array((2, CHUNK), np.uint16)
        out = lane.out(CHUNK, np.uint16)
        for mixture in mixtures:
            lane.stream.merge(base, z, None, None, None, out, terms_of(mixture), mixture, lane.counter)
        lane.counted()
    assert run(plan, model, threads=4, device=There("cuda", None, (LateDevice(),)))[0] == want[0]
