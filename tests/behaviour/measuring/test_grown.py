"""Weights with tokens, or an output matrix, that the base lacks, against models that transformers loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import persona
from persona.behaviour import assessing
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring.damage import chances, compared, neutral_text, windows
from persona.behaviour.measuring.items import PLACES, encoded
from persona.behaviour.measuring.measurements import Bench, Need, Weights
from persona.behaviour.measuring.scoring import scores, settled
from persona.behaviour.measuring.subjects import ScoringModel
from persona.behaviour.probes import ProbeSet
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.objects.recipe import Recipe
from tests.behaviour.bots import CONTEXT, ChatBot, grown_tune

KINDS: dict[str, dict[str, Any]] = {
    "tokens": {},
    "head": {"tokens": 0, "head": True},
    "tokens and head": {"head": True},
}


@pytest.fixture(params=KINDS, ids=str)
def tuned(request: pytest.FixtureRequest, chat_base: Path, tmp_path: Path) -> Path:
    """A fine-tune with new tokens or an output matrix of its own."""
    return grown_tune(chat_base, tmp_path / "grown", **KINDS[request.param])


@pytest.fixture
def history(chat: ChatBot, tuned: Path) -> Iterator[History]:
    """A repository with the fine-tune as its last commit."""
    chat.pirate()
    chat.run.ok("commit", tuned, "-n", "pirate", "-m", "grow", "--extend-vocab", "--untie")
    with persona.open(chat.root) as repo:
        yield repo._history


@pytest.fixture
def recipe(history: History) -> Recipe:
    return history.recipe_of(history.head_commit())


@pytest.fixture
def bench(history: History, recipe: Recipe) -> Bench:
    return Bench(history, None, assessing.base_of(history, recipe), "cpu", 1, None)


@pytest.fixture
def weights(history: History, recipe: Recipe) -> Weights:
    how = history.in_force(ComputeOptions, ComputeOptions(threads=1))
    return assessing.weights(history, "grown", recipe, how)


def probes_of(history: History) -> ProbeSet:
    found = Graph.of(history, None).probes("pirate")
    assert found is not None
    return found


def loaded(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")


def words(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def margins(model: Any, tokenizer: Any, probes: ProbeSet) -> list[float]:
    """The margins of a model, in nats."""
    found = []
    with settled(1):
        for item in encoded(tokenizer, probes, CONTEXT):
            assert item.chosen
            assert item.rejected
            chosen, rejected = scores(model, item.prompt, (item.chosen, item.rejected))
            found.append(chosen - rejected)
    return found


def test_base_and_recipe_take_the_same_text_each_by_its_own_tokens(
    history: History, bench: Bench, weights: Weights, chat_base: Path, tuned: Path
) -> None:
    probes = probes_of(history)
    needs = [Need(one, "margins", probes) for one in (bench.base, weights)]
    bench.measure(needs)
    own = words(tuned)
    of_base = words(chat_base)
    of_base.chat_template = own.chat_template
    wanted = margins(loaded(chat_base), of_base, probes), margins(loaded(tuned), own, probes)
    for need, found in zip(needs, wanted, strict=True):
        assert [one / PLACES for one in bench.found(need)] == pytest.approx(found, abs=2e-3)


def test_damage_compares_both_on_the_tokens_of_the_base(
    bench: Bench, weights: Weights, chat_base: Path, tuned: Path
) -> None:
    need = Need(weights, "damage", None)
    bench.measure([need])
    base, grown = loaded(chat_base), loaded(tuned)
    cut = windows(words(chat_base), neutral_text(), CONTEXT)[:3]
    with settled(1):
        for window, numbers in zip(cut, bench.found(need), strict=False):
            before, after = chances(base, window), chances(grown, window)
            rest = torch.full((len(before), after.shape[-1] - before.shape[-1]), -torch.inf)
            wanted = compared(window, torch.cat([before, rest], -1), after)
            assert numbers == pytest.approx(wanted, rel=1e-4)


@torch.no_grad()
def test_a_random_vector_changes_what_the_base_has_and_hides_what_it_lacks(
    history: History, recipe: Recipe, chat_base: Path, tuned: Path
) -> None:
    scoring = ScoringModel(history, None, recipe, "cpu", 1)
    scoring.hold_random(recipe, 0)
    base, grown = loaded(chat_base), loaded(tuned)
    for name, place in scoring.model.named_parameters():
        held = dict(base.named_parameters()).get(name, base.get_input_embeddings().weight)
        rows = len(held)
        change, real = (one[:rows] - held for one in (place, dict(grown.named_parameters())[name]))
        assert float(change.norm()) == pytest.approx(float(real.norm()), rel=1e-4)
        assert not place[rows:].any()
    tokens = len(base.get_input_embeddings().weight)
    ids = torch.tensor([[3, 4, 5]])
    assert scoring.model(input_ids=ids).logits[..., tokens:].eq(-torch.inf).all()
    scoring.hold(recipe)
    assert scoring.model(input_ids=ids).logits.isfinite().all()


def test_the_model_of_one_recipe_does_not_take_weights_of_other_shapes(
    history: History, recipe: Recipe
) -> None:
    alone = Recipe.of(recipe.base, [], recipe.rules)
    assert not ScoringModel(history, None, alone, "cpu", 1).takes(recipe)
    scoring = ScoringModel(history, None, recipe, "cpu", 1)
    assert scoring.takes(recipe)
    assert scoring.takes(alone)
