"""Slopes: the chain rule against differences of the actual merge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import persona
from persona.behaviour.assessing import base_of
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring import gradients
from persona.behaviour.measuring.gradients import TURN, derivatives, strength
from persona.behaviour.measuring.measurements import Bench
from persona.behaviour.measuring.scoring import scores, settled
from persona.history.history import History
from persona.merge.arithmetic.arguments import MergeArguments
from persona.merge.reference import Numbers, merge_tensor
from persona.merge.rules import NO_TRIM, MergeRules, MergeTerm
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules
from tests.behaviour.bots import ChatBot

STEP = 2e-3
RULES = {
    "linear": Rules.of("linear", **{"lambda": "0.7"}),
    "ties": Rules.of("ties"),
    "trimmed": Rules.of("ties", **{"lambda": "1.5"}),
    "weight": Rules.of("mergekit"),
    "mass": Rules.of("ties", divide="mass"),
    "count": Rules.of("ties", divide="count"),
    "sum": Rules.of("ties", merge="sum"),
    "max": Rules.of("ties", merge="max"),
    "after": Rules.of("peft"),
    "heads": Rules.of("ties", elect="count"),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("alphas", [(0.7, 0.4, -0.5, 0.3), (1.4, 0.9, -1.8, -0.6)])
def test_the_derivative_is_the_difference_of_the_reference_where_no_vote_turns(
    name: str, alphas: tuple[float, ...]
) -> None:
    """Four terms, the last one joins by adding; the base is 0, so nothing is rounded away."""
    rules = MergeRules.of(RULES[name])
    drawn = torch.Generator().manual_seed(3)
    taus = [torch.randn(4000, generator=drawn) for _ in alphas]
    theta = [0.8 if name == "trimmed" else NO_TRIM] * 3 + [NO_TRIM]
    joins = ["vote", "vote", "vote", "add"]

    def merged(values: tuple[float, ...]) -> Any:
        terms = [MergeTerm(str(k), a, join=j) for k, (a, j) in enumerate(zip(values, joins, strict=True))]
        given = [Numbers(tau) for tau in taus]
        return merge_tensor(torch.zeros(4000), given, theta, terms, rules, rules.tie()).double()

    given = MergeArguments(
        theta=np.array(theta, np.float32),
        alpha=np.array(alphas, np.float32),
        add=np.array([join == "add" for join in joins]),
        rules=rules,
        dtype=0,
    )
    found = list(derivatives([tau.numpy() for tau in taus], given, [1, 1, 1, 1]))
    u = [
        torch.where(tau.abs() >= cut, tau, 0.0) if cut == cut else tau
        for tau, cut in zip(taus, theta, strict=True)
    ]
    mass = sum(a * one for a, one in zip(alphas[:3], u[:3], strict=True))
    calm = (mass.abs() > TURN * torch.stack(u[:3]).abs().amax(0)).numpy() | (rules.elect == "none")
    assert calm.mean() > 0.5
    for k, derivative in enumerate(found):
        up, down = (merged((*alphas[:k], alphas[k] + step, *alphas[k + 1 :])) for step in (STEP, -STEP))
        difference = ((up - down) / (2 * STEP)).numpy()
        close = np.isclose(derivative[calm], difference[calm], rtol=2e-2, atol=2e-3)
        assert close.all() if name != "max" else close.mean() > 0.98  # another one may become the largest


@pytest.fixture
def history(chat: ChatBot, pirate_tune: Path, brief_tune: Path) -> Iterator[History]:
    """A repository with the vectors `pirate` and `brief`."""
    chat.pirate()
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    chat.run.ok("commit", brief_tune, "-m", "be brief")
    with persona.open(chat.root) as repo:
        yield repo._history


@pytest.fixture
def bench(history: History) -> Bench:
    base = base_of(history, history.recipe_of(history.head_commit()))
    return Bench(history, None, base, "cpu", 1, None)


def recipe_of(history: History, rules: Rules, **terms: dict[str, Any]) -> Recipe:
    """A recipe of the vectors, with these keys of their terms."""
    head = history.recipe_of(history.head_commit())
    return Recipe.of(head.base, [replace(term, **terms[term.name]) for term in head.terms], rules)


def slopes_of(history: History, bench: Bench, recipe: Recipe, others: tuple[Recipe, ...] = ()) -> Any:
    """The slopes of the margin of the first probe, and of the secants."""
    probes = Graph.of(history, None).probes("pirate")
    assert probes is not None
    item = bench.items(probes)[0]
    with settled(1):
        scoring = bench.scoring_of(recipe)
        losses = gradients.margins(scoring.model, [item], 1.0)
        sides = [1] * len(recipe.terms)
        found = gradients.slopes(history, scoring, recipe, losses, sides=sides, others=others, threads=1)
    return {term.name: slope for term, slope in zip(recipe.terms, found.alphas, strict=True)}, found.secants


def margin_at(history: History, bench: Bench, recipe: Recipe) -> float:
    probes = Graph.of(history, None).probes("pirate")
    assert probes is not None
    item = bench.items(probes)[0]
    assert item.chosen is not None
    assert item.rejected is not None
    with settled(1):
        scoring = bench.scoring_of(recipe)
        scoring.hold(recipe)
        chosen, rejected = scores(scoring.model, item.prompt, (item.chosen, item.rejected))
    return chosen - rejected


def difference(history: History, bench: Bench, recipe: Recipe, name: str, step: float) -> float:
    """The margin's difference by the strength of a term; of a list, all numbers are scaled together."""

    def at(term: Any, more: float) -> Any:
        if isinstance(term.alpha, str):
            return repr(float(term.alpha) + more)
        return tuple(repr(float(one) * (1 + more / strength(term))) for one in term.alpha)

    values = []
    for more in (step, -step):
        terms = [replace(term, alpha=at(term, more)) if term.name == name else term for term in recipe.terms]
        values.append(margin_at(history, bench, Recipe.of(recipe.base, terms, recipe.rules)))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize(
    ("rules", "pirate", "brief", "tolerance"),
    [
        (Rules.of("linear"), {"alpha": "0.7"}, {"alpha": "0.4"}, 0.02),
        (Rules.of("linear"), {"alpha": ("0.2", "0.9")}, {"alpha": "-0.4"}, 0.02),
        (Rules.of("ties"), {"alpha": "0.7"}, {"alpha": "-0.5", "join": "add"}, 0.02),
        (Rules.of("joint"), {"alpha": "0.7"}, {"alpha": "0.5"}, 0.02),
        (Rules.of("ties"), {"alpha": "0.7"}, {"alpha": "0.6"}, 0.2),
    ],
    ids=["linear", "list", "add", "joint", "ties"],
)
def test_slopes_are_the_differences_of_a_margin_over_the_actual_merge(
    history: History, bench: Bench, rules: Rules, pirate: Any, brief: Any, tolerance: float
) -> None:
    """Float32 weights. Under ties, votes turn one by one, so the difference is taken over a wide step."""
    recipe = recipe_of(history, rules, pirate=pirate, brief=brief)
    found, _ = slopes_of(history, bench, recipe)
    step = TURN if tolerance > 0.1 else 0.01
    for name in ("pirate", "brief"):
        wanted = difference(history, bench, recipe, name, step)
        assert found[name] == pytest.approx(wanted, rel=tolerance)
        assert abs(wanted) > 1


def test_a_secant_is_the_first_order_change_to_another_recipe(history: History, bench: Bench) -> None:
    recipe = recipe_of(history, Rules.of("linear"), pirate={"alpha": "0.7"}, brief={"alpha": "0.4"})
    other = recipe_of(history, Rules.of("linear"), pirate={"alpha": "0.71"}, brief={"alpha": "0.4"})
    found, (secant,) = slopes_of(history, bench, recipe, (other,))
    assert secant == pytest.approx(0.01 * found["pirate"], rel=1e-3)


def test_a_term_at_alpha_0_has_the_slope_of_its_side(history: History, bench: Bench) -> None:
    recipe = recipe_of(history, Rules.of("ties"), pirate={"alpha": "0"}, brief={"alpha": "0.5"})
    more = recipe_of(history, Rules.of("ties"), pirate={"alpha": "0.01"}, brief={"alpha": "0.5"})
    found, _ = slopes_of(history, bench, recipe)
    rise = margin_at(history, bench, more) - margin_at(history, bench, recipe)
    assert found["pirate"] == pytest.approx(rise / 0.01, rel=0.05)


def test_slopes_leave_the_weights_and_no_gradients_behind(history: History, bench: Bench) -> None:
    recipe = recipe_of(history, Rules.of("ties"), pirate={"alpha": "0.7"}, brief={"alpha": "0.6"})
    before = margin_at(history, bench, recipe)
    slopes_of(history, bench, recipe)
    assert margin_at(history, bench, recipe) == before
    assert all(
        one.grad is None and not one.requires_grad for one in bench.scoring_of(recipe).model.parameters()
    )
