"""A key, or the name of a cache, holds what decides the bits and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persona.history.vectors import cache
from persona.merge import plan
from persona.merge.memory import budget_of
from persona.merge.plan import Plan, TensorPlan
from persona.merge.trim import cutoffs, densities
from persona.merge.trim.walk import Found, Walk
from persona.objects import recipe as recipes
from persona.objects.recipe import Term
from persona.objects.rules import NUMERICS, Rules
from persona.objects.tensors import TensorSpec
from tests.merge.models import Model, Sandbox
from tests.merge.strategies import elements

SIZE = 300


class Folder:
    """Two tensors and three vectors, the last of which changes one of them."""

    def __init__(self, folder: Path) -> None:
        base, afters = elements(3, "BF16", 3, "weights", SIZE)
        self.model: Model = dict.fromkeys("wx", ("BF16", (SIZE,), base))
        self.sandbox = Sandbox(folder, self.model)
        self.ids = []
        for k, after in enumerate(afters):
            tuned = {"w": after, "x": after if k < 2 else base}
            made = {name: ("BF16", (SIZE,), bits) for name, bits in tuned.items()}
            self.ids.append(self.sandbox.vector(made).id)
        self.folder = folder / ".persona"

    def plan(
        self, rules: Rules, *, alphas: str = "123", names: str = "abc", only: tuple[str, ...] = ()
    ) -> Plan:
        terms = [
            Term(name, vector, alpha, only=only if name == names[0] else ())
            for name, vector, alpha in zip(names, self.ids, alphas, strict=True)
        ]
        return self.sandbox.plan(terms, rules)

    def keys(self, rules: Rules, **choices: object) -> list[str]:
        return [tensor.key for tensor in self.plan(rules, **choices).tensors]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tensors whose chunks are read to find cut-offs or a majority."""
    names: list[str] = []
    select, signs = Walk.select, cutoffs._signs

    def selected(self: Walk, spec: TensorSpec, *rest: Any) -> Found:
        names.append(spec.name)
        return select(self, spec, *rest)

    def counted(rows: Any, cuts: Any, rules: Any, tensor: TensorPlan) -> int:
        names.append(tensor.spec.name)
        return signs(rows, cuts, rules, tensor)

    monkeypatch.setattr(Walk, "select", selected)
    monkeypatch.setattr(cutoffs, "_signs", counted)
    return names


def find(made: Plan) -> cutoffs.Cutoffs:
    return cutoffs.cutoffs(made, made.tensors, budget_of(made, made.tensors, 1))


@pytest.mark.parametrize("preset", ["joint", "paper"])
def test_a_name_is_in_no_key_and_costs_nothing(preset: str, folder: Folder, walked: list[str]) -> None:
    rules = Rules.of(preset)
    assert folder.keys(rules) == folder.keys(rules, names="xyz")
    find(folder.plan(rules))
    assert walked
    walked.clear()
    find(folder.plan(rules, names="zyx"))
    assert not walked


def test_an_alpha_moves_no_joint_cut_off(folder: Folder, walked: list[str]) -> None:
    rules = Rules.of("joint")
    want = find(folder.plan(rules)).by_tensor
    assert sorted(walked) == ["w", "x"]
    walked.clear()
    for alphas in ("321", "100", "777"):
        assert find(folder.plan(rules, alphas=alphas)).by_tensor == want
    assert not walked
    assert find(folder.plan(rules, only=("w",))).by_tensor != want
    assert find(folder.plan(Rules.of("joint", density="0.3"))).by_tensor != want


def test_cut_offs_of_some_tensors_are_kept_beside_those_of_others(folder: Folder, walked: list[str]) -> None:
    made = folder.plan(Rules.of("joint"))
    for tensors in ([made.tensors[0]], [made.tensors[1]], list(made.tensors)):
        cutoffs.cutoffs(made, tensors, budget_of(made, tensors, 1))
    assert walked == ["w", "x"]


def test_what_an_alpha_or_a_filter_changes_has_another_majority(folder: Folder) -> None:
    rules = Rules.of("paper")
    keys = {tuple(folder.keys(rules, **choice)) for choice in ({}, {"alphas": "321"}, {"only": ("w",)})}
    assert len(keys) == 3


def test_another_version_of_the_arithmetic_copies_nothing_and_finds_nothing(
    folder: Folder, walked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Rules.of("joint")
    before = find(folder.plan(rules)).plan
    walked.clear()
    key = before.recipe.key
    for module in (plan, cache, recipes):
        monkeypatch.setattr(module, "NUMERICS", 1_000_000)
    for module in (densities, cutoffs):
        monkeypatch.setattr(module, "CACHE", "thresholds-1000000")
    after = find(folder.plan(rules)).plan
    assert not {tensor.key for tensor in before.tensors} & {tensor.key for tensor in after.tensors}
    assert sorted(walked) == ["w", "x"]
    assert after.recipe.key != key
    caches = [path.name for path in (folder.folder / "cache").glob("thresholds*")]
    assert sorted(caches) == ["thresholds-1000000", f"thresholds-{NUMERICS}"]
