"""**reader** — a tokenizer with a chat template, by which weights take text.

Weights take text by the tokenizer and the template of the revision that is measured. If the recipe of the
revision adds tokens to the base, weights that lack these tokens have no rows for them: the base, random
vectors, and vectors alone. They take the same text by the base's own tokenizer, in the same template.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from persona.behaviour.models import model_files, tokenizer_of, tokenizer_of_base, vocabulary_of
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.worktree import text_files
from persona.objects import canonical, growth
from persona.objects.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


class Reader:
    """The tokenizer of a revision, or of a base (`of_base`). `digest`: of all files that decide it."""

    def __init__(self, history: History, rev: str | None, of_base: str | None = None) -> None:
        self._history, self._rev, self._base = history, rev, of_base
        digests: dict[str, Any] = {
            name: blake3(data).hexdigest() for name, data in model_files(history, rev).items()
        }
        if of_base is not None:
            digests = {"base": dict(history.base(of_base).files), "files": digests}
        self.digest = blake3(canonical.encode(digests)).hexdigest()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with the chat template of the revision."""
        own = tokenizer_of(self._history, self._rev)
        return own if self._base is None else tokenizer_of_base(self._history, self._base, own)


class Readers:
    """The reader of each weights that are measured for a revision, None for the work tree."""

    def __init__(self, history: History, rev: str | None, base: str) -> None:
        self._history, self._rev, self._base = history, rev, base
        if rev is None:
            recipe = text_files.new_recipe(history).recipe
        else:
            recipe = history.recipe_of(resolve(history, rev))
        self._own = Reader(history, rev)
        self._tokens: dict[str, growth.Sizes | None] = {}
        grows = self._added(recipe) is not None
        self.of_base = Reader(history, rev, base) if grows else self._own
        """The reader of weights with the tokens of the base; the neutral text is in these tokens."""

    def of(self, recipe: Recipe | None) -> Reader:
        """The reader of the weights of a recipe; None for weights with the tokens of the base."""
        return self.of_base if recipe is None or self._added(recipe) is None else self._own

    def leaves_tokens_out(self, recipe: Recipe) -> bool:
        """Whether a recipe adds tokens that the tokenizer of the revision is not known to have."""
        return self.of_base is self._own and self._added(recipe) is not None

    def vocabulary(self, recipe: Recipe | None) -> int | None:
        """How many tokens weights have rows for; None if config.json does not say."""
        base = self._history.base(self._base)
        extended = base if recipe is None else self._history.base_of(recipe)
        return vocabulary_of(self._history, self._rev, base, extended)

    def _added(self, recipe: Recipe) -> growth.Sizes | None:
        """How many tokens the base and the weights of a recipe have; None if the recipe adds none."""
        if recipe.key not in self._tokens:
            base, extended = self._history.base(self._base), self._history.base_of(recipe)
            self._tokens[recipe.key] = growth.vocabulary(base, extended)
        return self._tokens[recipe.key]
