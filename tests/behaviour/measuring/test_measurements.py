"""Measurements: what is computed once for several weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.behaviour import assessing
from persona.behaviour.measuring import measurements
from persona.behaviour.measuring.measurements import Bench, Need
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from tests.behaviour.bots import ChatBot


@pytest.fixture
def history(chat: ChatBot, pirate_tune: Path) -> Iterator[History]:
    """A repository with the vector `pirate`."""
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    with persona.open(chat.root) as repo:
        yield repo._history


def needs(history: History, alphas: tuple[str, ...]) -> list[Need]:
    """The damage of `pirate` at several α."""
    recipe = history.recipe_of(history.head_commit())
    how = history.in_force(ComputeOptions, {})
    made = [Recipe.of(recipe.base, [Term("v", recipe.terms[0].vector, a)], Rules.of()) for a in alphas]
    return [
        Need(assessing.weights(history, alpha, one, how), "damage", None)
        for alpha, one in zip(alphas, made, strict=True)
    ]


def bench(history: History, said: list[str]) -> Bench:
    """A bench that tells what it measures."""
    base = assessing.base_of(history, history.recipe_of(history.head_commit()))
    return Bench(history, None, base, "cpu", 1, lambda phase, done, total: said.append(phase.detail))


def test_several_damages_cost_one_pass_over_the_text_each_and_one_for_the_base(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0
    chances: Any = measurements.chances

    def counted(*given: Any) -> Any:
        nonlocal passes
        passes += 1
        return chances(*given)

    monkeypatch.setattr(measurements, "chances", counted)
    wanted = needs(history, ("0.5", "1", "-1"))
    said: list[str] = []
    together = bench(history, said)
    together.measure(wanted)
    windows = len(together.found(wanted[0]))
    assert passes == (3 + 1) * windows
    later = needs(history, ("0.7",))
    together.measure(later)  # the base's pass is held, as it is small
    assert passes == (3 + 1 + 1) * windows
    wanted += later
    assert {f"{alpha} on neutral text" for alpha in ("0.5", "1", "-1")} <= set(said)

    monkeypatch.setattr(measurements, "keep_measured", lambda *_: None)
    monkeypatch.setattr(measurements, "measured", lambda *_: None)
    for need in wanted:
        alone = bench(history, [])
        alone.measure([need])
        assert alone.found(need) == together.found(need)


def test_what_was_measured_before_a_failure_is_kept(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damages are measured `TOGETHER` at a time, and the rest one by one."""
    monkeypatch.setattr(measurements, "TOGETHER", 2)
    wanted = needs(history, ("0.5", "1", "-1"))
    first: Any = Bench._damages
    calls: list[int] = []

    def fails_at_last(self: Bench, *given: Any) -> Any:
        calls.append(len(given[1]))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return first(self, *given)

    monkeypatch.setattr(Bench, "_damages", fails_at_last)
    with pytest.raises(KeyboardInterrupt):
        bench(history, []).measure(wanted)
    assert calls == [2, 1]
    monkeypatch.setattr(Bench, "_damages", first)
    said: list[str] = []
    bench(history, said).measure(wanted)
    told = {one for one in said if one.endswith("on neutral text")}
    assert len(told) == 1  # only the damage that was not measured
