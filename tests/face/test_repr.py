"""A notebook shows values in a few lines, without whole ids."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.history.bots import Bot

SHOWN: dict[str, Callable[[Any], object]] = {
    "repository": lambda repo: repo,
    "revision": lambda repo: repo["HEAD"],
    "commit": lambda repo: repo.commit(message="x", allow_empty=True),
    "status": lambda repo: repo.status(),
    "diff": lambda repo: repo.diff("HEAD~1", "HEAD"),
    "checkout": lambda repo: repo.checkout(),
    "digest": lambda repo: repo.digest(),
    "identify": lambda repo: repo.identify(repo.root.parent / "listening"),
    "recipe": lambda repo: repo.recipe,
    "recipe of a revision": lambda repo: repo["HEAD"].recipe,
    "vectors": lambda repo: repo.vectors,
    "vector": lambda repo: repo.vectors["listening"],
    "branches": lambda repo: repo.branches,
    "branch": lambda repo: repo.branches["main"],
    "tags": lambda repo: repo.tags,
    "settings": lambda repo: repo.config,
    "move": lambda repo: repo.reflog()[0],
    "object": lambda repo: repo.cat_file("HEAD"),
    "fsck": lambda repo: repo.fsck(),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN.keys())
def test_a_value_is_shown_in_a_few_lines_without_whole_ids(grown: Bot, show: Callable[[Any], object]) -> None:
    text = repr(show(grown.repo))
    assert not re.search("[0-9a-f]{64}", text)
    assert "b'" not in text
    assert len(text.splitlines()) <= 16
    assert max(map(len, text.splitlines())) <= 120


def test_what_is_shown_is_what_one_looks_for(grown: Bot) -> None:
    repo = grown.repo
    head = repo["HEAD"]
    assert repr(repo) == f"<Repository {grown.root} on main at {head.id[:8]}>"
    assert repr(head) == f"<Revision {head.id[:8]} 'a little less'>"
    assert repr(repo.branches) == "<Branches: * main>"
    assert repr(repo.tags) == "<Tags: none>"
    assert "'listening': TermView(id=" in repr(repo.recipe)
    assert "alpha=0.7" in repr(repo.recipe)
    assert repr(repo.head()) == f"Head(branch='main', id={head.id[:8]})"
    (change,) = repo.diff("HEAD~1", "HEAD").vectors
    assert "from_={" in repr(change), "the name of the attribute"


def test_a_long_list_is_counted() -> None:
    from persona.history.results import Carried, CheckoutResult

    carried = tuple(Carried(f"notes/{number}", "changed") for number in range(40))
    result = CheckoutResult(None, None, tuple(map(str, range(40))), 0, 0, 0, 0.0, "cpu", carried)
    assert "carried=<40 of Carried>" in repr(result)
    assert "… 28 more" in repr(result)


def test_a_recipe_that_cannot_be_read_is_told_and_not_raised(grown: Bot) -> None:
    grown.edit(lambda text: text + "what\n")
    assert "recipe.toml:" in repr(grown.repo.recipe)
    assert "recipe.toml:" in repr(grown.repo.vectors)
