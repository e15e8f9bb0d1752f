"""All that merges keeps to the memory that it is given, and no bit and no sum depends on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import UsageError
from persona.limits import CHUNK_MEMORY
from persona.measure import compare as compare_module
from persona.measure import elections
from persona.measure.compare import compare
from persona.merge import memory as budgets
from persona.merge.arithmetic import layout
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.reader import Workspace
from persona.merge.trim.cutoffs import cutoffs
from persona.objects.commit import Person
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from persona.repository import Repository
from tests.checkpoints import write_file
from tests.merge.models import Model, Sandbox
from tests.merge.strategies import elements

SIZE, CHUNK, VECTORS = 70_000, 1 << 16, 12
LITTLE = 7_500_000
"""Bytes that hold less than all rows of a chunk of one tensor for one thread."""


PERSON = Person("A. Tester", "tester@example.org", 1_763_000_000, 0)


class Mixtures:
    """One tensor of each width, and more vectors than the memory holds rows for."""

    def __init__(self, folder: Path) -> None:
        self.model: dict[str, Any] = {}
        tuned: list[dict[str, Any]] = [{} for _ in range(VECTORS)]
        for seed, (name, dtype) in enumerate((("a", "BF16"), ("b", "F32"))):
            base, afters = elements(seed, dtype, VECTORS, "weights", SIZE)
            self.model[name] = (dtype, (SIZE,), base)
            for k, after in enumerate(afters):
                tuned[k][name] = (dtype, (SIZE,), after)
        self.tuned = tuned
        self.sandbox = Sandbox(folder, self.model, chunk=CHUNK)
        self.ids = [self.sandbox.vector(after).id for after in tuned]

    def plan(self, preset: str, vectors: int = VECTORS) -> Plan:
        alphas = [f"0.{k + 3}" for k in range(vectors)]
        terms = [Term(f"v{k}", self.ids[k], alpha) for k, alpha in enumerate(alphas)]
        return self.sandbox.plan(terms, Rules.of(preset))


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    return Mixtures(tmp_path_factory.mktemp("memory"))


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of the rows of vectors that a thread had at once."""
    taken: list[int] = []
    method = Workspace.rows

    def rows(self: Workspace, count: int, length: int) -> Any:
        found = method(self, count, length)
        taken.append(self.z.nbytes)
        return found

    monkeypatch.setattr(Workspace, "rows", rows)
    return taken


def numbers(before: Plan, after: Plan, **options: Any) -> list[object]:
    return [
        (one.tally, *(array.tolist() for name, array in vars(one.election).items() if name != "terms"))
        for one in compare(before, after, **options)
    ]


WHOLE = CHUNK * 4 * VECTORS


def test_a_comparison_keeps_to_its_memory(mixtures: Mixtures, longest: list[int]) -> None:
    plans = mixtures.plan("ties", VECTORS - 1), mixtures.plan("ties")
    want = numbers(*plans, threads=2)
    assert max(longest) == WHOLE
    longest.clear()
    assert numbers(*plans, threads=2, memory=LITTLE) == want
    assert max(longest) < WHOLE


def test_a_comparison_says_how_much_it_needs(mixtures: Mixtures) -> None:
    with pytest.raises(UsageError, match=r"need at least 7 MiB of memory\nhint: give memory=7340032"):
        next(compare(mixtures.plan("ties"), mixtures.plan("joint"), memory=1000))


def test_slices_of_a_comparison_are_whole_blocks() -> None:
    assert layout.SHORTEST_SLICE % elections.BLOCK == 0


def test_a_majority_is_counted_in_the_memory_that_there_is(mixtures: Mixtures, longest: list[int]) -> None:
    plan = mixtures.plan("paper")
    tensors = list(plan.tensors)
    want = cutoffs(plan, tensors, budget_of(plan, tensors, 1)).majority
    for path in mixtures.sandbox.folder.rglob("majority-*"):
        path.unlink()
    longest.clear()
    found = budget_of(plan, tensors, 2, LITTLE - elections.scratch_bytes(VECTORS))
    assert cutoffs(plan, tensors, found).majority == want
    assert max(longest) < WHOLE


def test_what_is_imported_onto_a_mixture_is_the_same_in_little_memory(
    mixtures: Mixtures, longest: list[int]
) -> None:
    plan = mixtures.plan("ties")
    trained: Model = {
        name: (dtype, shape, bits ^ (np.arange(SIZE) % 3 == 0).astype(bits.dtype))
        for name, (dtype, shape, bits) in mixtures.tuned[0].items()
    }
    want = mixtures.sandbox.vector(trained, onto=plan, threads=2)
    assert max(longest) == WHOLE
    longest.clear()
    found = mixtures.sandbox.vector(trained, onto=plan, threads=2, memory=LITTLE)
    assert (found.id, found.largest_rounding) == (want.id, want.largest_rounding)
    assert max(longest) < WHOLE
    with pytest.raises(UsageError, match=r"of memory\nhint: give memory="):
        mixtures.sandbox.vector(trained, onto=plan, memory=1000)


def weights_of(repo: Repository) -> list[bytes]:
    return [array.tobytes() for _, array in repo.tensors("HEAD", device="cpu")]


MERGING: dict[str, Callable[[Repository], object]] = {
    "digest": lambda repo: repo.digest("HEAD", device="cpu").weights,
    "materialise": weights_of,
    "diff --weights": lambda repo: repo.diff_weights("HEAD~1", "HEAD"),
    "diff --weights of a majority": lambda repo: repo.diff_weights("HEAD", "HEAD~1"),
    "add --onto": lambda repo: repo.add(repo.root.parent / "m6", name="onto", onto="HEAD").vectors,
    "checkout": lambda repo: repo.checkout("HEAD", device="cpu", force=True).weights,
}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose HEAD merges five vectors, under rules that ask for the model's majority."""
    folder = tmp_path_factory.mktemp("five")
    base, afters = elements(1, "F32", 6, "weights", 3000)
    for k, bits in enumerate((base, *afters)):
        (folder / f"m{k}").mkdir()
        write_file(folder / f"m{k}" / "model.safetensors", {"w": ("F32", (3000,), bits)})
    Repository.init(folder / "work", base=folder / "m0", author=PERSON, chunk=1024)
    with Repository.open(folder / "work", author=PERSON) as repo:
        for k in range(1, 6):
            repo.add(folder / f"m{k}", name=f"v{k}")
        repo.recipe.set_rules({"preset": "paper", "density": "0.37"})
        repo.commit(message="five")
    return folder


@pytest.mark.parametrize("name", MERGING)
def test_everything_that_merges_does_it_in_slices_when_the_budget_is_small(
    name: str, five: Path, tmp_path: Path, longest: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SHORTEST_SLICE", 64)
    for module in (elections, compare_module):  # of which slices are multiples
        monkeypatch.setattr(module, "BLOCK", 64)
    most, answers = [], []
    for memory in (CHUNK_MEMORY, 0):
        monkeypatch.setattr(budgets, "CHUNK_MEMORY", memory)
        copy = tmp_path / str(memory)
        shutil.copytree(five, copy)
        for cached in (copy / "work" / ".persona" / "cache").rglob("majority-*"):
            cached.unlink()
        longest.clear()
        with Repository.open(copy / "work", author=PERSON) as repo:
            answers.append(MERGING[name](repo))
        most.append(max(longest))
    assert answers[0] == answers[1]
    assert most[0] == 5 * 1024 * 4
    assert most[1] == 1024 * 4


def test_the_setting_holds_for_every_command_that_merges(
    tmp_path: Path, longest: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SHORTEST_SLICE", 64)
    base, afters = elements(1, "F32", 6, "weights", 3000)
    for k, bits in enumerate((base, *afters)):
        (tmp_path / f"m{k}").mkdir()
        write_file(tmp_path / f"m{k}" / "model.safetensors", {"w": ("F32", (3000,), bits)})
    Repository.init(tmp_path / "work", base=tmp_path / "m0", author=PERSON, chunk=1024)
    memory = 1024 * 4 * (8 + 10 + 2) + (1 << 21)
    with Repository.open(tmp_path / "work", author=PERSON) as repo:
        for k in range(1, 6):
            repo.add(tmp_path / f"m{k}", name=f"v{k}")
        repo.commit(message="five")
        want = repo.digest(device="cpu").weights, repo.diff_weights("HEAD~1", "HEAD")
        digest = repo.digest(device="cpu", memory=memory).weights
        assert (digest, repo.diff_weights("HEAD~1", "HEAD", memory=memory)) == want
        repo.config.set("checkout.memory", "1000")
        with pytest.raises(UsageError, match="give memory="):
            repo.add(tmp_path / "m6", name="more", onto="HEAD")
