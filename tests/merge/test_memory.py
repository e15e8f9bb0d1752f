"""However little memory there is, the bytes are the same, or it is said how much is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.errors import UsageError
from persona.merge.arithmetic import cpu, layout
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.slices import Budget
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import elements

SIZE = 3000
VECTORS = 5


@pytest.fixture
def shortest(monkeypatch: pytest.MonkeyPatch) -> int:
    """Slices of a few elements, so that a small model has many."""
    monkeypatch.setattr(layout, "SHORTEST_SLICE", 64)
    return 64


def mixture(folder: Path, rules: Rules) -> tuple[Plan, Model]:
    base, afters = elements(7, "BF16", VECTORS, "weights", SIZE)
    half, halves = elements(8, "F32", VECTORS, "bits", SIZE)
    model = {"w": ("BF16", (SIZE,), base), "x": ("F32", (SIZE,), half)}
    sandbox = Sandbox(folder, model, chunk=1024)
    terms = []
    for k in range(VECTORS):
        changed = halves[k] if k != 2 else half
        tuned = {"w": ("BF16", (SIZE,), afters[k]), "x": ("F32", (SIZE,), changed)}
        join = "add" if k == 3 else "vote"
        terms.append(Term(name=str(k), vector=sandbox.vector(tuned).id, alpha=str(k - 1.5), join=join))
    return sandbox.plan(terms, rules), model


def needed(plan: Plan) -> int:
    """The least memory, from what is said when there is none, in bytes."""
    fixed = max(1024 * (tensor.spec.unit * 8 + 4) for tensor in plan.tensors)
    return fixed + cpu.scratch_bytes(VECTORS) + 64 * 4 * VECTORS


@pytest.mark.parametrize("preset", ["ties", "paper", "joint", "linear"])
def test_slices_change_no_bit(preset: str, shortest: int, tmp_path: Path) -> None:
    plan, model = mixture(tmp_path, Rules.of(preset))
    whole, made = run(plan, model, allow_nonfinite=True)
    sliced, again = run(plan, model, allow_nonfinite=True, memory=needed(plan))
    assert budget_of(plan, list(plan.tensors), 4, needed(plan)).slice(1024, 4 * VECTORS) < 1024
    assert sliced == whole
    assert again == made


def test_too_little_memory_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    plan, _ = mixture(tmp_path, Rules.of("ties"))
    with pytest.raises(UsageError, match=r"need at least 1 MiB of memory\nhint: give memory=1048576"):
        budget_of(plan, list(plan.tensors), 4, 1000)


def test_threads_are_fewer_where_memory_is_little(shortest: int, tmp_path: Path) -> None:
    plan, _ = mixture(tmp_path, Rules.of("ties"))
    tensors = list(plan.tensors)
    most = [budget_of(plan, tensors, 8, memory).threads for memory in (needed(plan), 300_000, 1 << 30)]
    assert most == sorted(most)
    assert (most[0], most[-1]) == (1, 8)


def test_all_rows_of_all_threads_fit_into_the_memory(shortest: int, tmp_path: Path) -> None:
    plan, _ = mixture(tmp_path, Rules.of("ties"))
    tensors = list(plan.tensors)
    for memory in range(needed(plan), 800_000, 7919):
        found = budget_of(plan, tensors, 8, memory)
        rows = max(
            found.slice(1024, tensor.spec.unit * len(tensor.terms)) * tensor.spec.unit * len(tensor.terms)
            for tensor in tensors
        )
        assert found.threads * (needed(plan) - 64 * 4 * VECTORS + rows) <= memory


def test_a_budget_of_nothing_still_holds_the_shortest_slice() -> None:
    assert Budget(1, 0).slice(1 << 20, 2 * 4) == 1 << 14


def test_a_chunk_that_fits_is_not_sliced_whatever_its_length() -> None:
    assert Budget(1, 20_001 * 2).slice(20_001, 2) == 20_001
    assert Budget(1, 20_001 * 2 - 1).slice(20_001, 2) == 1 << 14
