"""A live model whose parameters lie on a device is merged there, in place, and holds the checkout, whatever
the device keeps, however late it is, and wherever it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.errors import SystemFault, UsageError
from persona.live import fill, resident, slots
from persona.live.model import LiveModel
from persona.merge import memory as budget
from persona.merge.arithmetic import layout
from persona.repository import Repository
from tests.merge.devices.late import LateDevice

PLENTY = 1 << 20


Place = Callable[..., LateDevice]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Puts the parameters of all models on a device; those of the host are not touched."""

    def on(*devices: LateDevice, only: str = "") -> LateDevice:
        def find(tensor: Any) -> LateDevice | None:
            return devices[tensor.data_ptr() // 64 % len(devices)] if tensor.ndim else None

        monkeypatch.setattr(slots, "device_of", find)
        return devices[0]

    return on


def right(repo: Repository, model: LiveModel) -> bool:
    """Whether the parameters are what the recipe says, by the CPU's checkout of it."""
    for name, vector in model.recipe.vectors.items():
        repo.recipe.set(name, alpha=vector.alpha, only=vector.only, join=vector.join)
    repo.recipe.set_rules({"preset": model.recipe.rules["preset"], **model.recipe.rules})
    return model.digest() == repo.digest(device="cpu").weights


@pytest.mark.parametrize("rescale", [True, False, "norm"])
@pytest.mark.parametrize("cache", [0, PLENTY])
def test_it_holds_the_checkout_under_a_filter(
    repo: Repository, place: Place, cache: int, rescale: bool | str
) -> None:
    device = place(LateDevice())
    model = repo.live(repo.load("HEAD"), "HEAD", cache=cache)
    for preset, seed in (("dare_ties", 7), ("dare_ties", 8), ("della", 8), ("dare_linear", 7)):
        model.set_rules({"preset": preset, "density": 0.5, "rescale": rescale, "seed": seed})
        assert right(repo, model)
        model.set("one", alpha=0.4 + seed / 100)
        assert right(repo, model)
    assert device.merges > 0


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("cache", [0, 3000, PLENTY])
def test_it_holds_the_checkout_after_every_change(
    repo: Repository, place: Place, cache: int, seed: int | None
) -> None:
    device = place(LateDevice(seed=seed))
    model = repo.live(repo.load("HEAD~1"), "HEAD", cache=cache)
    assert model.digest() == repo.digest("HEAD").weights
    assert device.merges > 0
    assert device.settled > 0
    model.set("one", alpha=0.3)
    assert right(repo, model)
    model.set("two", join="add")
    assert right(repo, model)
    model.set("one", alpha=-0.7)
    model.set_rules({"density": 0.5})
    assert right(repo, model)
    model.set("three", only=["model.layers.0.*"])
    assert right(repo, model)
    model.checkout("HEAD~1")
    assert model.digest() == repo.digest("HEAD~1").weights


def test_a_change_of_alpha_takes_one_kernel_a_tensor_and_copies_no_element(
    repo: Repository, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = place(LateDevice())
    model = repo.live(repo.load("HEAD"), "HEAD", cache=PLENTY)
    model.set("one", alpha=0.3)
    before, copied = device.merges, device.copied
    monkeypatch.setattr(fill, "chunk_span", lambda *_: pytest.fail("a chunk was asked for"))
    result = model.set("one", alpha=0.4)
    assert device.merges - before == result.tensors_computed
    assert device.copied - copied == 16 * result.tensors_computed  # how many elements are not finite
    monkeypatch.undo()


def test_what_stays_on_a_device_stays_within_the_cache(repo: Repository, place: Place) -> None:
    found = []
    for cache in (0, 500, 3000, 20_000, PLENTY):
        device = place(LateDevice())
        model = repo.live(repo.load("HEAD~1"), "HEAD", cache=cache)
        for alpha in (0.25, 0.5):
            model.set("one", alpha=alpha)
            assert device.taken <= cache
        found.append(device.taken)
        model.close()
        assert device.taken == 0
    assert found[0] == 0 < found[1] < found[2] < found[3] <= found[4]


def test_a_model_on_several_devices_is_merged_on_each(repo: Repository, place: Place) -> None:
    devices = [LateDevice(seed=seed) for seed in (1, 2, 3)]
    place(*devices)
    model = repo.live(repo.load("HEAD~1"), "HEAD", cache=PLENTY)
    model.set("one", alpha=0.3)
    assert right(repo, model)
    assert sum(device.merges > 0 for device in devices) >= 2


@pytest.mark.parametrize("full_at", range(0, 40, 3))
def test_a_device_that_runs_out_of_memory_gives_the_same_bits(
    repo: Repository, place: Place, full_at: int
) -> None:
    device = place(LateDevice(full_at=range(full_at, full_at + 3), seed=full_at))
    loaded = repo.load("HEAD~1")
    try:
        model = repo.live(loaded, "HEAD", cache=PLENTY)
    except SystemFault:
        model = repo.live(loaded, "HEAD", cache=PLENTY)
    assert model.digest() == repo.digest("HEAD").weights
    model.set("one", alpha=0.3)
    assert right(repo, model)
    assert device.allocations > full_at


def test_a_device_without_room_for_a_lane_leaves_it_to_the_cpu_and_says_so(
    repo: Repository, place: Place
) -> None:
    place(LateDevice(memory=4))
    model = repo.live(repo.load("HEAD~1"), "HEAD", cache=PLENTY)
    assert model.digest() == repo.digest("HEAD").weights
    result = model.set("one", alpha=0.3)
    assert [note.startswith("computed on the CPU: the GPU has 0 MiB free") for note in result.notes] == [True]
    assert right(repo, model)


@pytest.mark.parametrize("cache", [0, PLENTY])
@pytest.mark.parametrize("after", [0, 5, 11])
def test_a_fault_goes_back_to_what_was_there(repo: Repository, place: Place, after: int, cache: int) -> None:
    device = place(LateDevice(seed=after))
    model = repo.live(repo.load("HEAD~1"), "HEAD", cache=cache)
    held = model.digest()
    device.fail_at([device.merges + after])
    with pytest.raises(SystemFault, match="it was told to"):
        model.set("one", alpha=0.3)
    assert not model.half_done
    assert model.digest() == held
    model.set("one", alpha=0.3)
    assert right(repo, model)


def test_a_fault_on_the_way_back_leaves_the_gate_shut_until_it_is_resumed(
    repo: Repository, place: Place
) -> None:
    device = place(LateDevice())
    model = repo.live(repo.load("HEAD~1"), "HEAD", cache=PLENTY)
    device.fail_at(range(device.merges + 3, device.merges + 1000))
    with pytest.raises(SystemFault, match="it was told to"):
        model.set("one", alpha=0.3)
    assert model.half_done
    device.fail_at([])
    model.resume()
    assert right(repo, model)


@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_any_walk_ends_at_the_recipe(repo: Repository, place: Place, data: st.DataObject) -> None:
    device = place(LateDevice(seed=data.draw(st.sampled_from([None, 1, 2]))))
    cache = data.draw(st.sampled_from([0, 2000, 6000, PLENTY]))
    model = repo.live(repo.load("HEAD"), "HEAD", cache=cache, threads=data.draw(st.integers(1, 3)))
    for _ in range(data.draw(st.integers(1, 5))):
        name = data.draw(st.sampled_from(["one", "two", "three"]))
        what = data.draw(st.sampled_from(["alpha", "join", "only", "density", "fault"]))
        if what == "alpha":
            model.set(name, alpha=data.draw(st.sampled_from([0.0, 0.5, 1.0, -1.0])))
        elif what == "join":
            model.set(name, join=data.draw(st.sampled_from(["vote", "add"])))
        elif what == "only":
            model.set(name, only=data.draw(st.sampled_from([[], ["model.layers.1.*"]])))
        elif what == "density":
            model.set_rules({"density": data.draw(st.sampled_from([0.3, 1.0]))})
        else:
            device.fail_at([device.merges + data.draw(st.integers(0, 20))])
            try:
                model.set(name, alpha=data.draw(st.sampled_from([0.25, 0.75])))
            except SystemFault:
                assert not model.half_done
            device.fail_at([])
    assert right(repo, model)


def test_short_slices_change_no_bit(repo: Repository, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHORTEST_SLICE", 64)
    for cache, memory in ((0, None), (PLENTY, None), (0, 0), (PLENTY, 0)):
        if memory is not None:  # of the host, so that it opens chunks a slice at a time
            monkeypatch.setattr(budget, "CHUNK_MEMORY", memory)
        device = place(LateDevice(seed=2 if cache else None))
        model = repo.live(repo.load("HEAD~1"), "HEAD", cache=cache, device_memory=4200)
        model.set("one", alpha=0.3)
        assert right(repo, model)
        assert device.most > 0


def test_rows_are_apart_by_whole_lines_of_memory() -> None:
    assert layout.aligned(1) * np.dtype(np.uint16).itemsize % 128 == 0


@pytest.mark.parametrize("bad", [0, -1, 1.5, "1", True])
def test_a_device_memory_that_means_nothing_is_refused_up_front(repo: Repository, bad: Any) -> None:
    with pytest.raises(UsageError, match="device_memory must be a number of bytes above 0, not"):
        repo.live(object(), device_memory=bad)


def test_too_little_device_memory_is_refused_before_anything_changes(repo: Repository, place: Place) -> None:
    place(LateDevice())
    loaded = repo.load("HEAD~1")
    with pytest.raises(UsageError, match=r"give device_memory=\d+ or more") as said:
        repo.live(loaded, "HEAD", device_memory=1)
    assert not getattr(said.value, "__notes__", [])
    model = repo.live(loaded, "HEAD~1", cache=0)
    held = model.digest()
    assert held == repo.digest("HEAD~1").weights
    keys = dict(model._keys)
    model._residents = resident.Residents(0, 1)
    with pytest.raises(UsageError, match="device_memory"):
        model.checkout("HEAD")
    assert (model._keys, model.half_done, model.digest()) == (keys, False, held)
