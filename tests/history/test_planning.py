"""The manifests that a recipe needs: its vectors, and the vectors that its expressions are made of."""

from __future__ import annotations

import pytest

from persona.errors import IntegrityError
from persona.history.planning import manifests
from persona.objects.recipe import Recipe, Term
from persona.objects.vector import Vector
from tests.history.bots import Bot


def expression(bot: Bot, *parts: str, base: str | None = None) -> str:
    """Stores the sum of some vectors and returns its id."""
    history = bot.repo._history
    recipe = history.recipe_of(history.head_commit())
    made = Vector(
        base=base or history.base(recipe.base).digest,
        kind="expression",
        expression=tuple((part, "1") for part in sorted(parts)),
    )
    with history.store.transaction() as tx:
        return tx.put("vector", made.encode())


def of(bot: Bot, *vectors: str) -> Recipe:
    """A recipe of these vectors."""
    recipe = bot.repo._history.recipe_of(bot.repo.resolve())
    return Recipe.of(recipe.base, [Term(f"t{k}", id) for k, id in enumerate(vectors)], recipe.rules)


def ids(bot: Bot) -> tuple[str, str]:
    found = bot.repo["HEAD"].recipe.vectors
    return found["listening"].id, found["suggesting"].id


def test_an_expression_brings_the_manifests_that_it_is_made_of(grown: Bot) -> None:
    listening, suggesting = ids(grown)
    both = expression(grown, listening, suggesting)
    assert set(manifests(grown.repo._history, of(grown, both))) == {both, listening, suggesting}
    assert set(manifests(grown.repo._history, of(grown, listening))) == {listening}


def test_a_missing_part_is_named_with_the_expression(grown: Bot) -> None:
    listening, _ = ids(grown)
    lost = expression(grown, listening, "f" * 64)
    with pytest.raises(IntegrityError, match=f"f{{8,}}.*; the expression {lost[:8]} is made of it"):
        manifests(grown.repo._history, of(grown, lost))


def test_an_expression_of_an_expression_or_of_another_base_is_refused(grown: Bot) -> None:
    listening, suggesting = ids(grown)
    inner = expression(grown, listening, suggesting)
    outer = expression(grown, inner)
    with pytest.raises(IntegrityError, match=f"{outer[:8]} .* {inner[:8]}, which is an expression itself"):
        manifests(grown.repo._history, of(grown, outer))
    foreign = expression(grown, listening, base="blake3:" + "0" * 64)
    with pytest.raises(IntegrityError, match=f"{foreign[:8]} .* {listening[:8]}, which belongs to tiny"):
        manifests(grown.repo._history, of(grown, foreign))


def test_fsck_follows_an_expression(grown: Bot) -> None:
    listening, suggesting = ids(grown)
    both, lost = expression(grown, listening, suggesting), expression(grown, listening, "f" * 64)
    assert {one.id for one in grown.repo.fsck().dangling} == {both, lost}
    grown.edit(lambda text: text + f'\n[vectors.both]\nid = "{both}"\n')
    grown.commit(message="both")
    assert grown.repo.fsck().ok
    grown.edit(lambda text: text.replace(both, lost))
    said = [problem.problem for problem in grown.repo.fsck().problems]
    assert said == [f"vector ffffffff is missing, and vector {lost[:8]} refers to it"]
