"""A bound verb looks like a method: to `help`, to a notebook, to a subclass, and to a type checker."""

from __future__ import annotations

import inspect
import pydoc

from persona.face.recipe import WorkingRecipe
from persona.face.revision import Revision
from persona.repository import Repository
from tests.history.bots import Bot


def test_help_shows_the_signature_and_the_docstring(grown: Bot) -> None:
    for method in (grown.repo.checkout, grown.repo["HEAD"].checkout, Repository.checkout, Revision.checkout):
        text = pydoc.plain(pydoc.render_doc(method))
        assert "threads: 'int | None' = None" in text
        assert "Moves HEAD to `rev` with its files and weights." in text
        assert "history" not in inspect.signature(method).parameters
    assert next(iter(inspect.signature(Repository.checkout).parameters)) == "self"
    assert "rev" in inspect.signature(grown.repo.checkout).parameters
    assert "rev" not in inspect.signature(grown.repo["HEAD"].checkout).parameters


def test_a_method_is_named_as_it_is_called_and_shown_with_its_object(grown: Bot) -> None:
    assert grown.repo.recipe.set.__name__ == "set"
    assert WorkingRecipe.set.__qualname__ == "WorkingRecipe.set"
    assert repr(grown.repo.checkout) == f"<bound method Repository.checkout of {grown.repo!r}>"
    assert repr(grown.repo["HEAD"].digest) == f"<bound method Revision.digest of {grown.repo['HEAD']!r}>"


def test_a_method_is_called_through_its_class_and_from_a_subclass(grown: Bot) -> None:
    class Mine(Repository):
        """A repository with a habit."""

        def digest(self, *values: str) -> str:  # type: ignore[override]
            return super().digest(*values).weights

    assert Repository.status(grown.repo) == grown.repo.status()
    assert Revision.digest(grown.repo["HEAD"]) == grown.repo["HEAD"].digest()
    mine = Mine(grown.repo._history)
    assert mine.digest("HEAD") == grown.repo.digest("HEAD").weights
    mine.close()
