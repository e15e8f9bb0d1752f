"""The recipe in the work tree of an open repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from persona.face.collection import Collection
from persona.face.verb import Verb
from persona.history import verbs
from persona.history.recipes.views import recipe_view
from persona.history.results import TermView
from persona.history.worktree import text_files

if TYPE_CHECKING:
    from persona.history.query_results import RecipeView


class WorkingRecipe(Collection[TermView]):
    """The recipe of `recipe.toml` as it stands: its terms by name, in canonical order.

    An edit changes `recipe.toml`, whose comments stay, and commits nothing. The new text has to mean
    something before it is written.
    """

    kind: ClassVar[str] = "vector"

    set = Verb(lambda: verbs.set.set_term)
    set_rules = Verb(lambda: verbs.set.set_rules)
    remove = Verb(lambda: verbs.set.remove_terms)
    rename = Verb(lambda: verbs.set.rename_term)

    @property
    def base(self) -> str:
        """The id of the base."""
        return self.view().base

    @property
    def rules(self) -> dict[str, str | float]:
        """The preset and every axis in use; density and lambda as numbers."""
        return self.view().rules

    def view(self) -> RecipeView:
        """Base, rules and terms as they stand now, in one value."""
        return recipe_view(text_files.recipe(self._history).recipe)

    def _read(self) -> dict[str, TermView]:
        return self.view().vectors

    def _shown(self) -> list[str]:
        return [repr(self.view()).removeprefix("RecipeView")]
