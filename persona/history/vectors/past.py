"""The vectors of all branches and tags, and of their past."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from persona.history.history import History
from persona.history.names.walk import walk
from persona.objects.recipe import Recipe, Term
from persona.store.refs import HEADS, TAGS


class Seen(NamedTuple):
    """A term of the newest commit that has it in this form, its recipe, and that commit."""

    term: Term
    recipe: Recipe
    commit: str


def seen(history: History) -> Iterator[Seen]:
    """Every name of every vector that a branch, a tag or HEAD leads to, the newest first, each once."""
    known: set[tuple[str, str]] = set()
    trees: set[str] = set()
    for id, commit in walk(history, _starts(history)):
        history.require_open()
        if commit.tree in trees:
            continue
        trees.add(commit.tree)
        recipe = history.recipe(history.tree(commit.tree).recipe)
        for term in recipe.terms:
            if (term.name, term.vector) not in known:
                known.add((term.name, term.vector))
                yield Seen(term, recipe, id)


def _starts(history: History) -> list[str]:
    """The commits of HEAD, of the branches, and of the tags."""
    head = history.last_commit()
    refs = [*history.names(HEADS, history.notes).values(), *history.names(TAGS, history.notes).values()]
    peeled = [history.peeled(id) for id in refs]
    commits = [id for id, kind in peeled if kind == "commit"]
    return list(dict.fromkeys([*([head] if head else []), *commits]))
