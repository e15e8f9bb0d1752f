"""Two branches with random edits: a merge is the same from either side, and a conflict moves nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from persona.errors import Conflicted, PersonaError, Refused
from persona.history.recipes.three_way import merge_recipes
from persona.objects.recipe import Recipe
from tests.campaign import rounds
from tests.history.bots import Bot

VECTORS = ("one", "two", "three")


def edit(bot: Bot, rng: random.Random) -> None:
    """A few edits of the recipe and of a text file. An edit that is refused is left out."""
    recipe, template = bot.repo.recipe, bot.root / "chat_template.jinja"
    name = rng.choice(VECTORS)
    acts: list[Callable[[], object]] = [
        lambda: recipe.set(name, alpha=rng.choice(["0.25", "0.5", "-0.5"])),
        lambda: recipe.set(name, alpha=rng.choice(["0.25", "0.5", "-0.5"])),
        lambda: recipe.set(name, density=rng.choice(["0.2", "0.5"])),
        lambda: recipe.set(name, join=rng.choice(["add", "vote"])),
        lambda: recipe.set_rules({"density": rng.choice(["0.2", "0.5"])}),
        lambda: recipe.set_rules({"preset": rng.choice(["paper", "mergekit"])}),
        lambda: recipe.remove(name),
        lambda: recipe.rename(name, rng.choice(["first", "second"])),
        lambda: swap(bot, *rng.sample(VECTORS, 2)),
        lambda: bot.edit(lambda text: text.replace("[merge]", f"# {rng.randint(0, 2)}\n[merge]")),
        lambda: template.write_text(changed_line(template.read_text(), rng)),
    ]
    for act in rng.choices(acts, k=rng.randint(1, 3)):
        with suppress(PersonaError):
            act()


def swap(bot: Bot, one: str, other: str) -> None:
    """Swaps the names of two vectors that the recipe has."""
    for old, new in ((one, "aside"), (other, one), ("aside", other)):
        bot.repo.recipe.rename(old, new)


def changed_line(text: str, rng: random.Random) -> str:
    """A text with another word in one of its lines."""
    lines = text.splitlines()
    lines[rng.choice([0, 5, 11])] = rng.choice(["hello", "bye"])
    return "\n".join(lines) + "\n"


def commit(bot: Bot) -> str:
    """A commit of the edits, if there are any; the commit where HEAD is then."""
    with suppress(Refused):
        bot.commit()
    return bot.repo.resolve("HEAD")


def merged(bot: Bot, here: str, other: str) -> str | None:
    """The merge of `other` on the branch `here`, or None for a conflict, which is given up."""
    bot.repo.switch(here)
    before = bot.repo.head(), files(bot, "HEAD"), bot.recipe.read_bytes()
    with suppress(Conflicted):
        bot.repo.merge(other, no_ff=True)
        return bot.repo.resolve("HEAD")
    assert bot.repo.head() == before[0]
    bot.repo.merge(abort=True)
    assert (bot.repo.head(), files(bot, "HEAD"), bot.recipe.read_bytes()) == before
    assert not bot.repo.status().recipe_changed
    return None


def files(bot: Bot, rev: str) -> dict[str, str]:
    """The text files of a commit, without the recipe, whose terms may stand in another order."""
    found = bot.repo._history.files_of(bot.repo.resolve(rev))
    return {path: id for path, id in found.items() if path != "recipe.toml"}


@pytest.fixture
def three(bot: Bot) -> Bot:
    """A recipe of three vectors, and a text file of twelve lines."""
    for seed, name in enumerate(VECTORS, start=1):
        bot.repo.add(bot.tune(name, seed))
    (bot.root / "chat_template.jinja").write_text("".join(f"line {number}\n" for number in range(12)))
    bot.commit()
    return bot


def test_a_merge_is_the_same_from_either_side_or_a_conflict_that_moves_nothing(three: Bot) -> None:
    bot, rng = three, random.Random("merge")
    history, base = bot.repo._history, three.repo.resolve("HEAD")
    clean = 0
    for number in range(rounds(10)):
        tips = []
        for side in ("one", "two"):
            bot.repo.switch(base, create=f"{side}{number}")
            edit(bot, rng)
            tips.append(commit(bot))
        branches = [f"one{number}", f"two{number}"]
        found = [merged(bot, *branches)]
        bot.repo.switch(branches[0])
        bot.repo.reset(tips[0], "hard")
        found.append(merged(bot, branches[1], branches[0]))
        recipes: list[Recipe] = [history.recipe_of(id) for id in (base, *tips)]
        wanted, _ = merge_recipes(*recipes)
        if None in found:
            assert found == [None, None]
            continue
        clean += 1
        here, there = (id for id in found if id is not None)
        assert history.recipe_of(here) == history.recipe_of(there) == wanted
        assert files(bot, here) == files(bot, there)
        if tips[0] != base != tips[1]:
            assert history.commit(here).parents == tuple(tips) == history.commit(there).parents[::-1]
        head = bot.repo.resolve("HEAD")
        assert bot.repo.merge(base).state == bot.repo.merge(tips[1]).state == "up to date"
        assert bot.repo.resolve("HEAD") == head
    assert 0 < clean < rounds(10)
