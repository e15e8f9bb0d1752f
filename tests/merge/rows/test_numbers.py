"""Rows of numbers give the bits that rows of steps give, wherever they are merged.

The same deltas are merged with steps and, as if a trim had made numbers of some of them, with numbers. No
strength is 1, so no exactness rule tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from persona.live.fill import Filler, caching_merger_of
from persona.live.resident import Residents
from persona.live.slots import new_slots
from persona.measure.compare import compare
from persona.merge.arithmetic import layout
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.cache import RowCache
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from tests.merge.devices.late import LateDevice, There
from tests.merge.models import Sandbox, run
from tests.merge.strategies import elements

CHUNK, SIZE, VECTORS = 256, 1000, 5
ALPHAS = ("0.9", "0.5", "-0.75", "0.25", "0.3")
NUMBERS = [(0,), (1, 3), (2, 3, 4), (0, 1, 2, 3, 4)]


class Mixture:
    """Five vectors over three dtypes, each of which leaves a chunk alone; one of them adds."""

    def __init__(self, folder: Path) -> None:
        self.model: dict[str, Any] = {}
        tuned: list[dict[str, Any]] = [{} for _ in range(VECTORS)]
        for seed, (name, dtype) in enumerate((("a", "BF16"), ("b", "F16"), ("c", "F32"))):
            bits, afters = elements(seed, dtype, VECTORS, "weights", SIZE + seed)
            self.model[name] = (dtype, bits.shape, bits)
            for k, after in enumerate(afters):
                tuned[k][name] = (
                    dtype,
                    bits.shape,
                    np.where(np.arange(bits.size) // CHUNK == k, bits, after),
                )
        self.sandbox = Sandbox(folder, self.model, chunk=CHUNK)
        self.ids = [self.sandbox.vector(after).id for after in tuned]
        self._want: dict[str, dict[str, bytes]] = {}

    def plan(self, preset: str, numbers: tuple[int, ...] = ()) -> Plan:
        """The plan of all vectors, with rows of numbers for some of them."""
        joins = {} if preset == "paper" else {3: "add"}
        terms = [
            Term(str(k), id, alpha=alpha, join=joins.get(k, "vote"))
            for k, (id, alpha) in enumerate(zip(self.ids, ALPHAS, strict=True))
        ]
        made = self.sandbox.plan(terms, Rules.of(preset))
        chosen = {self.ids[k] for k in numbers}
        terms = [place for place, term in enumerate(made.recipe.terms) if term.vector in chosen]
        places = {(tensor.spec.name, place) for tensor in made.tensors for place in terms}
        return replace(made, rows=replace(made.rows, rescaled=frozenset(places)))

    def want(self, preset: str) -> dict[str, bytes]:
        if preset not in self._want:
            self._want[preset] = run(self.plan(preset), self.model)[0]
        return self._want[preset]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return Mixture(tmp_path_factory.mktemp("numbers"))


@pytest.fixture
def short_slices() -> Iterator[None]:
    with mock.patch.object(layout, "SHORTEST_SLICE", 64):
        yield


@pytest.mark.parametrize("preset", ["ties", "paper", "mergekit", "peft", "joint", "linear"])
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_numbers_are_merged_like_steps(mixture: Mixture, preset: str, numbers: tuple[int, ...]) -> None:
    assert run(mixture.plan(preset, numbers), mixture.model, threads=2)[0] == mixture.want(preset)


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_slices_of_numbers_are_merged_like_whole_chunks(mixture: Mixture, numbers: tuple[int, ...]) -> None:
    plan = mixture.plan("ties", numbers)
    tensors = list(plan.tensors)
    whole = budget_of(plan, tensors, 1)
    row_bytes = plan.rows.row_bytes(plan.tensors[2].spec, plan.tensors[2].terms)
    assert row_bytes == VECTORS * 4
    least = next(memory for memory in range(1, 1 << 20, 64) if _fits(plan, memory))
    assert budget_of(plan, tensors, 1, least).slice(CHUNK, row_bytes) < CHUNK
    assert whole.slice(CHUNK, row_bytes) == CHUNK
    assert run(plan, mixture.model, threads=1, memory=least)[0] == mixture.want("ties")


def _fits(plan: Plan, memory: int) -> bool:
    try:
        budget_of(plan, list(plan.tensors), 1, memory)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_cached_numbers_are_merged_like_those_of_the_store(
    mixture: Mixture, numbers: tuple[int, ...]
) -> None:
    cache = RowCache(1 << 20)
    for chosen in (numbers, (), numbers):
        for preset in ("ties", "joint", "ties"):
            plan = mixture.plan(preset, chosen)
            assert _filled(plan, cache) == mixture.want(preset)


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("memory", [None, 16_384])
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_a_device_merges_numbers_like_the_cpu(
    mixture: Mixture, numbers: tuple[int, ...], memory: int | None
) -> None:
    place = There("cuda", memory, (LateDevice(seed=3),))
    made, result = run(mixture.plan("ties", numbers), mixture.model, threads=2, device=place)
    assert result.device == "cuda"
    assert made == mixture.want("ties")


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_tensors_with_numbers_on_a_device_are_filled_like_others(
    mixture: Mixture, numbers: tuple[int, ...]
) -> None:
    device = LateDevice(seed=5)
    assert _filled(mixture.plan("ties", numbers), device=device) == mixture.want("ties")
    assert device.merges


def test_a_measure_of_numbers_is_that_of_steps(mixture: Mixture) -> None:
    want = mixture.plan("ties")
    empty = Recipe.of(mixture.sandbox.base_id, [], Rules.of("ties"))
    before = replace(want, recipe=empty, rows=replace(want.rows, sources=()), tensors=_base(want))
    for one, other in zip(compare(before, want), compare(before, mixture.plan("ties", (1, 2))), strict=True):
        assert one.tally == other.tally
        assert other.election.mass == pytest.approx(one.election.mass, rel=1e-12)  # summed in another order
        assert other.election.products == pytest.approx(one.election.products, rel=1e-12)
        assert np.array_equal(one.election.kept, other.election.kept)


def _base(plan: Plan) -> Any:
    return tuple(replace(tensor, way="base", terms=(), key="base " + tensor.key) for tensor in plan.tensors)


def _filled(plan: Plan, cache: RowCache | None = None, device: LateDevice | None = None) -> dict[str, bytes]:
    """The bytes that a plan puts into tensors in memory."""
    _, slots = new_slots(plan.base.tensors)
    for slot in slots.values():
        slot.device = device
    merger = caching_merger_of(plan, list(plan.tensors), cache, threads=2, slots=slots)
    for _ in Filler().fill(merger, list(plan.tensors), slots, residents=Residents(1 << 20)):
        pass
    return {name: slot.bits().numpy().tobytes() for name, slot in slots.items()}
