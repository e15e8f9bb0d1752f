"""The origin of a value is the commit that a line of its own would have, on any history."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from persona.history import origins as module
from persona.history.history import History
from persona.history.origins import Key, origins
from persona.history.recipes.pairing import same_terms
from persona.objects.commit import Commit
from persona.objects.recipe import Recipe
from persona.objects.tree import Tree
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.history.bots import Bot, at
from tests.history.graphs import CLOCKS, history

CHOICES = ("0.25", "0.5", "0.75")
NAMES = ("listening", "hearing")


@pytest.fixture
def quick(grown: Bot) -> Iterator[Bot]:
    """Its disk syncs nothing."""
    with replaced_calls(Quick()):
        yield grown


def put(bot: Bot, rng: random.Random, clock: str) -> list[tuple[str, tuple[str, ...]]]:
    """A random history in the store: each commit changes an α, a rule, a name, a vector, or nothing."""
    store = bot.repo._history.store
    head = bot.repo._history.head_commit()
    tree, start = bot.repo._history.tree_of(head), bot.repo._history.recipe_of(head)
    graph = history(rng, clock)
    made: dict[str, str] = {}
    recipes: dict[str, Recipe] = {}
    with store.transaction() as tx:
        for id, parents in graph.parents.items():
            recipe = changed(rng, recipes[parents[0]] if parents else start)
            recipes[id] = recipe
            person = replace(at(), time=graph.times[id])
            held = Tree(tx.put("recipe", recipe.encode()), tree.files)
            above = tuple(made[parent] for parent in parents)
            said = f"{id} {rng.random()}\n"
            made[id] = tx.put(
                "commit", Commit(tx.put("tree", held.encode()), above, person, person, said).encode()
            )
    return [(made[id], tuple(made[parent] for parent in parents)) for id, parents in graph.parents.items()]


def changed(rng: random.Random, recipe: Recipe) -> Recipe:
    """The recipe with one random edit."""
    terms, rules = list(recipe.terms), recipe.rules
    place = rng.randrange(len(terms)) if terms else 0
    match rng.randrange(7):
        case 0 | 1 if terms:
            terms[place] = replace(terms[place], alpha=rng.choice(CHOICES))
        case 2 if terms:
            new = rng.choice(NAMES)
            if all(term.name != new for term in terms):
                terms[place] = replace(terms[place], name=new)
        case 3 if terms:
            other = rng.choice(terms)
            terms[place] = replace(terms[place], vector=other.vector)
        case 4 if len(terms) > 1:
            del terms[place]
        case 5:
            rules = replace(rules, density=rng.choice(("0.5", "1")))
        case _:
            pass
    return Recipe.of(recipe.base, terms, rules)


def naive(history: History, id: str, known: dict[str, dict[Key, str]]) -> dict[Key, str]:
    """The model: a value's origin is that of the first parent with the same value, else the commit."""
    if id not in known:
        mine = history.recipe_of(id)
        values = values_of(mine)
        found: dict[Key, str] = dict.fromkeys(values, id)
        for parent in reversed(history.commit(id).parents):
            theirs = history.recipe_of(parent)
            before, above = values_of(theirs), naive(history, parent, known)
            old = {new: name for name, new in same_terms(theirs.by_name, mine.by_name).items()}
            for (name, field), value in values.items():
                named = name if name is None else old.get(name, "")
                if (named, field) in before and before[named, field] == value:
                    found[name, field] = above[named, field]
        known[id] = found
    return known[id]


def values_of(recipe: Recipe) -> dict[Key, object]:
    values: dict[Key, object] = {(None, "base"): recipe.base}
    values |= {(None, axis): value for axis, value in recipe.rules.to_json().items()}
    for term in recipe.terms:
        values |= {(term.name, field): value for field, value in term.to_json().items()}
    return values


@pytest.mark.parametrize("clock", CLOCKS)
def test_origins_are_those_of_the_model_whatever_the_clocks(quick: Bot, clock: str) -> None:
    rng = random.Random(clock)
    for _ in range(6):
        known: dict[str, dict[Key, str]] = {}
        for id, _parents in put(quick, rng, clock):
            assert origins(quick.repo._history, id) == naive(quick.repo._history, id, known)


def test_walk_that_meets_an_earlier_one_finds_the_same(quick: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 2)
    rng = random.Random(7)
    read: list[str] = []
    for _ in range(10):
        commits = put(quick, rng, "ordered")
        rng.shuffle(commits)
        known: dict[str, dict[Key, str]] = {}
        for id, _parents in commits:
            assert origins(quick.repo._history, id) == naive(quick.repo._history, id, known)
    last = commits[0][0]
    get = quick.repo._history.store.objects.get
    monkeypatch.setattr(
        quick.repo._history.store.objects,
        "get",
        lambda id, kind, **how: (read.append(id), get(id, kind, **how))[1],
    )
    origins(quick.repo._history, last)
    assert len(read) <= 6  # the commit, its tree and recipe, and those of its parents


def test_damaged_cache_changes_nothing(quick: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 1)
    head = quick.repo.head().id
    assert head is not None
    before = origins(quick.repo._history, head)
    cache = quick.repo._history.store.cache(module._CACHE)
    data = bytearray(cache.path.read_bytes())
    data[-3] ^= 1
    cache.path.write_bytes(data)
    assert origins(quick.repo._history, head) == before
