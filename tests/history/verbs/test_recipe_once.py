"""`recipe.toml` is resolved into a recipe once a command, however many of its parts need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from persona.errors import InvalidInput
from persona.history.recipes import text as recipe_text
from tests.history.bots import Bot


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were resolved, in order."""
    texts: list[str] = []
    reading = recipe_text._Reader.recipe

    def recipe(reader: Any) -> Any:
        texts.append(reader.text)
        return reading(reader)

    monkeypatch.setattr(recipe_text._Reader, "recipe", recipe)
    return texts


@pytest.mark.parametrize(
    "act",
    [
        lambda bot: bot.repo.status(),
        lambda bot: bot.repo.diff(),
        lambda bot: bot.repo.vectors["listening"],
        lambda bot: bot.commit(),
    ],
    ids=["status", "diff", "vector", "commit"],
)
def test_an_edited_text_is_resolved_once(
    grown: Bot, resolved: list[str], act: Callable[[Bot], object]
) -> None:
    text = grown.recipe.read_text() + "# edited\n"
    grown.recipe.write_text(text)
    act(grown)
    assert resolved == [text]


def test_an_import_resolves_the_text_before_it_and_the_one_that_it_writes(
    bot: Bot, resolved: list[str]
) -> None:
    before, tuned = bot.recipe.read_text(), bot.tune("one", 1)
    bot.commit(tuned)
    assert resolved == [before, bot.recipe.read_text()]


def test_a_text_that_was_read_before_means_nothing_once_its_base_has_no_name(grown: Bot) -> None:
    assert grown.repo.vectors.values()
    (name,) = (grown.root / ".persona" / "refs" / "bases").iterdir()
    name.unlink()
    with pytest.raises(InvalidInput, match="no base has the name"):
        grown.repo.vectors.values()
