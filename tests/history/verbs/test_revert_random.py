"""Random edits with a revert in the middle: the recipe is that of the history without it, or a conflict.

The model knows nothing of texts: a recipe is a flat mapping, in which a term goes by its id in the commit
that is reverted; if its vector was replaced, by its name there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace

import pytest

from persona.errors import InvalidInput, PersonaError, Refused
from persona.history.recipes.three_way import merge_recipes
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import AXES, PRESETS, Rules
from tests.campaign import rounds
from tests.history.bots import Bot

Flat = dict[tuple[str, ...], object]
ABSENT = object()


def flat(recipe: Recipe, keys: dict[str, str]) -> Flat:
    """Every effective value of a recipe by itself; `keys`: what a term goes by, by its name."""
    found: Flat = {("merge", axis): value for axis, value in recipe.rules.axes().items()}
    found["merge", "preset"] = recipe.rules.preset
    for term in recipe.terms:
        for item in fields(Term):
            found["vector", keys[term.name], item.name] = getattr(term, item.name)
    return found


def keys_of(side: Recipe, base: Recipe, other: Recipe) -> dict[str, str]:
    """What each term of a side goes by: the id that it has in the base, else its own."""
    known, there = ({term.vector: term.name for term in recipe.terms} for recipe in (base, other))
    found = {}
    for name, term in side.by_name.items():
        before = base.by_name.get(name)
        replaced = before is not None and before.vector not in {one.vector for one in side.terms}
        if replaced and term.vector in there:  # on both sides: one vector, which replaced another in both
            replaced = there[term.vector] == name and before is not None and before.vector not in there
        found[name] = before.vector if replaced and before and term.vector not in known else term.vector
    return found


def without(old: Flat, new: Flat, head: Flat) -> Flat | None:
    """HEAD without the change from `old` to `new`; None where something it changed was changed again."""
    left = dict(head)
    for key in old | new:
        before, after, now = (side.get(key, ABSENT) for side in (old, new, head))
        if before in (after, now):
            continue
        if now != after:
            return None
        left.pop(key, None)
        if key in old:
            left[key] = old[key]
    return left


def recipe_of(base: str, values: Flat) -> Recipe | None:
    """The recipe of flat values, or None where there is none."""
    axes = {axis: values["merge", axis] for axis in AXES}
    try:
        rules = Rules.of(
            str(values["merge", "preset"]), **{key: item for key, item in axes.items() if item is not None}
        )
        if rules.axes() != axes:
            return None
        terms = [
            Term(**{item.name: values["vector", id, item.name] for item in fields(Term)})  # type: ignore[arg-type]
            for id in dict.fromkeys(key[1] for key in values if key[0] == "vector")
        ]
        return Recipe.of(base, terms, rules)
    except InvalidInput:
        return None


class Author:
    """Somebody who edits a recipe at random."""

    def __init__(self, bot: Bot, rng: random.Random, ids: list[str]) -> None:
        self.bot, self.rng, self.ids = bot, rng, ids
        self.comments = 0

    def edit(self) -> None:
        """One edit; what the rules forbid is left."""
        kinds: list[Callable[[], None]] = [self.term, self.term, self.term, self.rules, self.rules]
        kinds += [self.preset, self.add, self.remove, self.rename, self.comment, self.space]
        before = self.bot.recipe.read_text()
        try:
            self.rng.choice(kinds)()
            self.bot.repo._history.read_recipe(self.bot.recipe.read_bytes())
        except PersonaError:
            self.bot.recipe.write_text(before)

    def name(self) -> str:
        names = list(self.bot.repo._history.read_recipe(self.bot.recipe.read_bytes()).by_name)
        return self.rng.choice(names or ["nobody"])

    def term(self) -> None:
        key, values = self.rng.choice(
            [
                ("alpha", ["1", "0.5", "-0.25"]),
                ("density", ["0.2", "0.5", "1"]),
                ("only", [[], ["*mlp*"], ["*norm*", "*mlp*"]]),
                ("except_", [[], ["*embed*"]]),
                ("join", ["vote", "add"]),
            ]
        )
        self.bot.repo.recipe.set(self.name(), **{key: self.rng.choice(values)})  # type: ignore[arg-type]

    def rules(self) -> None:
        axis, values = self.rng.choice(
            [
                ("density", ["0.2", "0.5", "1"]),
                ("lambda", ["1", "0.9"]),
                ("on_tie", ["drop", "positive"]),
                ("divide", ["strength", "count"]),
            ]
        )
        self.bot.repo.recipe.set_rules({axis: self.rng.choice(values)})

    def preset(self) -> None:
        self.bot.repo.recipe.set_rules({"preset": self.rng.choice(list(PRESETS))})

    def add(self) -> None:
        held = self.bot.recipe.read_text()
        id = self.rng.choice([id for id in self.ids if id not in held] or ["none"])
        name = self.rng.choice("abcdef")
        self.bot.recipe.write_text(f'{held}\n[vectors.{name}]\nid = "{id}"\nalpha = 1.0\n')

    def remove(self) -> None:
        self.bot.repo.recipe.remove(self.name())

    def rename(self) -> None:
        self.bot.repo.recipe.rename(self.name(), self.rng.choice("abcdef"))

    def comment(self) -> None:
        self.comments += 1
        lines = self.bot.recipe.read_text().splitlines()
        at = self.rng.randint(0, len(lines))
        self.bot.recipe.write_text("\n".join([*lines[:at], f"# {self.comments}", *lines[at:]]) + "\n")

    def space(self) -> None:
        text = self.bot.recipe.read_text()
        self.bot.recipe.write_text(text.replace(" = ", "  =  ") if "  =  " not in text else text + "\n")


def expected(old: Recipe, new: Recipe, head: Recipe) -> Recipe | None:
    """The recipe that a revert gives; None stands for a conflict."""
    keys = keys_of(old, new, head), keys_of(new, new, new), keys_of(head, new, old)
    left = without(*(flat(recipe, each) for recipe, each in zip((old, new, head), keys, strict=True)))
    return None if left is None else recipe_of(head.base, left)


def refusal(act: Callable[[], object]) -> str | None:
    """Why something is refused, or None where it is done."""
    try:
        act()
    except Refused as error:
        return error.message
    return None


@pytest.fixture
def ids(bot: Bot) -> list[str]:
    """The ids of three vectors that recipes can name."""
    for number in range(3):
        bot.commit(bot.tune(f"v{number}", number + 1))
    return [term.vector for term in bot.repo._history.recipe_of(bot.repo.resolve("HEAD")).terms]


def test_a_revert_is_the_history_without_the_commit_or_a_conflict(bot: Bot, ids: list[str]) -> None:
    history = bot.repo._history
    rng = random.Random("revert")
    author = Author(bot, rng, ids)
    done = 0
    for _ in range(rounds(30)):
        commits = [bot.repo.resolve("HEAD")]
        for _ in range(rng.randint(2, 6)):
            for _ in range(rng.choice((1, 1, 2, 3))):
                author.edit()
            with suppress(Refused):
                bot.commit()
                commits.append(bot.repo.resolve("HEAD"))
        if len(commits) < 2:
            continue
        place = rng.randrange(1, len(commits))
        sides = [history.recipe_of(commits[at]) for at in (place - 1, place, -1)]
        wanted = expected(*sides)
        text = bot.recipe.read_text()
        why = refusal(lambda at=commits[place]: bot.repo.revert(at))
        if bot.repo.status().sequence is not None:
            bot.repo.revert(abort=True)
            assert bot.repo.resolve("HEAD") == commits[-1]
        if why is None:
            done += 1
            assert history.recipe_of(bot.repo.resolve("HEAD")) == wanted
            continue
        assert bot.recipe.read_text() == text
        assert "object object" not in why
        if "nothing to revert" in why:
            assert sides[2] == wanted
        else:
            assert wanted is None, why
    assert done > rounds(30) / 4


def changed(rng: random.Random, terms: dict[str, Term]) -> dict[str, Term]:
    """Some vectors added, removed, renamed or set otherwise."""
    terms = dict(terms)
    for _ in range(rng.randint(1, 3)):
        name, free = rng.choice("abc"), {"1" * 64, "2" * 64, "3" * 64} - {t.vector for t in terms.values()}
        act = rng.choice(("add", "remove", "rename", "set"))
        if act == "add" and name not in terms and free:
            terms[name] = Term(name, rng.choice(sorted(free)))
        elif act == "remove":
            terms.pop(name, None)
        elif act == "rename" and name not in terms and terms:
            terms[name] = replace(terms.pop(rng.choice(list(terms))), name=name)
        elif act == "set" and name in terms:
            terms[name] = replace(terms[name], alpha=rng.choice("123"))
    return terms


def test_vectors_that_swap_names_are_merged_as_in_the_model() -> None:
    rng = random.Random("names")
    for _ in range(rounds(1000)):
        before = changed(rng, changed(rng, {}))
        after = changed(rng, before)
        sides = [before, after, changed(rng, after)]
        old, new, head = (Recipe.of("0" * 64, list(side.values()), Rules.of()) for side in sides)
        assert merge_recipes(new, old, head)[0] == expected(old, new, head)
