"""The scoring model: weights swapped in place, and random vectors of their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.behaviour.measuring import subjects
from persona.behaviour.measuring.controls import random_change
from persona.behaviour.measuring.subjects import ScoringModel
from persona.history.history import History
from persona.history.planning import plan_of
from persona.objects.recipe import Recipe
from tests.behaviour.bots import ChatBot
from tests.cli.command_line import CommandLine
from tests.families import loaded as read_model
from tests.families import train


@pytest.fixture
def history(chat: ChatBot, pirate_tune: Path) -> Iterator[History]:
    """A repository with the vector `pirate`."""
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    with persona.open(chat.root) as repo:
        yield repo._history


@pytest.fixture
def recipe(history: History) -> Recipe:
    return history.recipe_of(history.head_commit())


@pytest.fixture
def scoring(history: History, recipe: Recipe) -> ScoringModel:
    return ScoringModel(history, None, Recipe.of(recipe.base, [], recipe.rules), "cpu", 1)


def holding(history: History, recipe: Recipe) -> ScoringModel:
    made = ScoringModel(history, None, recipe, "cpu", 1)
    made.hold(recipe)
    return made


def parameters(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def loaded(directory: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    return parameters(AutoModelForCausalLM.from_pretrained(directory))


def test_weights_are_swapped_without_a_trace(
    scoring: ScoringModel, recipe: Recipe, chat_base: Path, pirate_tune: Path
) -> None:
    base, tuned = loaded(chat_base), loaded(pirate_tune)
    alone = Recipe.of(recipe.base, [], recipe.rules)
    assert same(parameters(scoring.model), base)
    for wanted, weights in ((recipe, tuned), (alone, base), (recipe, tuned), (alone, base)):
        scoring.hold(wanted)
        assert same(parameters(scoring.model), weights)
        scoring.hold_random(recipe, 1)
        assert not same(parameters(scoring.model), weights)


def test_a_random_vector_has_the_norm_of_the_change_in_each_tensor(
    scoring: ScoringModel, recipe: Recipe, chat_base: Path, pirate_tune: Path
) -> None:
    base, tuned = loaded(chat_base), loaded(pirate_tune)
    directions = []
    for seed in (0, 1):
        scoring.hold_random(recipe, seed)
        found = parameters(scoring.model)
        for name, tensor in base.items():
            norm, wanted = (found[name] - tensor).norm(), (tuned[name] - tensor).norm()
            assert float(norm) == pytest.approx(float(wanted), rel=1e-3)
        directions.append(found)
    assert not same(*directions)
    scoring.hold_random(recipe, 0)
    assert same(parameters(scoring.model), directions[0])


def test_a_random_vector_that_the_model_holds_is_not_drawn_again(
    scoring: ScoringModel, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    real = subjects.add_random
    monkeypatch.setattr(subjects, "add_random", lambda *given: (drawn.append(given[2]), real(*given)))
    for seed in (0, 0, 1, 1, 0):
        scoring.hold_random(recipe, seed)
    scoring.hold(recipe)
    scoring.hold_random(recipe, 0)
    assert drawn == [0, 1, 0, 0]


def test_a_random_change_is_normal_and_of_its_own_seed_and_name() -> None:
    import torch

    like = torch.zeros(200, 100)
    found = random_change("a", like, 3.0, 0)
    assert float(found.norm()) == pytest.approx(3.0, rel=1e-5)
    assert abs(float(found.mean() / found.std())) < 0.03
    assert float((found / found.std()).pow(4).mean()) == pytest.approx(3.0, rel=0.1)
    others = [random_change(name, like, 3.0, seed) for name, seed in (("a", 1), ("b", 0))]
    assert all(abs(float((found * other).sum())) < 9 * 0.03 for other in others)
    assert found.equal(random_change("a", like, 3.0, 0))


@pytest.fixture(params=["mixtral", "gpt2 of the hub"])
def renamed(
    request: pytest.FixtureRequest, families: Callable[[str], Path], tmp_path: Path
) -> Iterator[tuple[History, Path]]:
    """A repository whose model has other names in memory, with a vector, and the fine-tune of the vector."""
    base = families(request.param)
    tuned = train(base, tmp_path / "tuned")
    CommandLine(tmp_path).ok("init", "bot", "--base", base)
    CommandLine(tmp_path / "bot").ok("commit", tuned, "-m", "tune")
    with persona.open(tmp_path / "bot") as repo:
        yield repo._history, tuned


def test_weights_are_swapped_in_a_model_that_renames_and_stacks_tensors(
    renamed: tuple[History, Path],
) -> None:
    history, tuned = renamed
    recipe = history.recipe_of(history.head_commit())
    alone = Recipe.of(recipe.base, [], recipe.rules)
    scoring = ScoringModel(history, None, alone, "cpu", 1)
    base = parameters(scoring.model)
    wanted = parameters(holding(history, recipe).model)
    assert same(wanted, {name: one.float() for name, one in parameters(read_model(tuned)).items()})
    scoring.hold(recipe)
    assert same(parameters(scoring.model), wanted)
    scoring.hold_random(recipe, 1)
    assert not same(parameters(scoring.model), base)
    scoring.hold(alone)
    assert same(parameters(scoring.model), base)


def test_the_rise_of_a_loss_counts_each_part_of_a_stacked_parameter(renamed: tuple[History, Path]) -> None:
    import torch

    history, _ = renamed
    recipe = history.recipe_of(history.head_commit())
    alone = Recipe.of(recipe.base, [], recipe.rules)
    scoring = ScoringModel(history, None, alone, "cpu", 1)
    tuned = parameters(holding(history, recipe).model)
    reached = scoring.parameters_of(plan_of(history, recipe))
    named = {
        name: one for name, one in scoring.model.named_parameters() if any(one is each for each in reached)
    }
    assert len(named) == len(reached) == len(tuned)
    generator = torch.Generator().manual_seed(1)
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    rises = [((tuned[name] - one) * one.grad).sum(dtype=torch.float64) for name, one in named.items()]
    assert scoring.rise(recipe) == pytest.approx(float(sum(rises)), rel=1e-6)
