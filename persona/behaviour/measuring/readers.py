"""**reader** — a tokenizer with a chat template, by which weights take text.

Weights take text by the tokenizer and the template of the revision that is measured. If the recipe of the
revision adds tokens to the base, weights that lack these tokens have no rows for them: the base, random
vectors, and vectors alone. They take the same text by the base's own tokenizer, in the same template.

A vector that was trained from a revision with new tokens knows them, but has rows for them only together with
the vectors of that revision. Alone, these rows are zeros.
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
from persona.objects.ids import NULL_ID
from persona.objects.recipe import Recipe
from persona.objects.table import decode_vector_table

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

    @property
    def hint(self) -> str | None:
        """What to do about a token that the base has no row for: then the base came without a tokenizer."""
        if self._base is None:
            return None
        return "the base came without a tokenizer; begin with a base directory that has it, and verify there"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with the chat template of the revision."""
        own = tokenizer_of(self._history, self._rev)
        return own if self._base is None else tokenizer_of_base(self._history, self._base, own)


def has_rows(history: History, recipe: Recipe) -> bool:
    """Whether a recipe adds tokens to the base, and not only rows of zeros for them."""
    base = history.base(recipe.base)
    for _, vector in growth.vectors_of(recipe, history.vector):
        for name in (name for name, origin in vector.grown if origin is None):
            table = decode_vector_table(history.store.objects.get(vector.table or "", "table"), vector)
            if set(table.chunks(name)[base.spec[name].units // base.chunk :]) != {NULL_ID}:
                return True
    return False


class Readers:
    """The reader of each weights that are measured for a revision, None for the work tree."""

    def __init__(self, history: History, rev: str | None, base: str) -> None:
        self._history, self._rev, self._base = history, rev, base
        if rev is None:
            recipe = text_files.new_recipe(history).recipe
        else:
            recipe = history.recipe_of(resolve(history, rev))
        self._own = Reader(history, rev)
        self._grows: dict[str, bool] = {}
        grows = self._has_rows(recipe)
        self.of_base = Reader(history, rev, base) if grows else self._own
        """The reader of weights with the tokens of the base; the neutral text is in these tokens."""

    def of(self, recipe: Recipe | None) -> Reader:
        """The reader of the weights of a recipe; None for weights with the tokens of the base."""
        return self._own if recipe is not None and self._has_rows(recipe) else self.of_base

    def leaves_tokens_out(self, recipe: Recipe) -> bool:
        """Whether a recipe adds tokens that the tokenizer of the revision is not known to have."""
        return self.of_base is self._own and self._has_rows(recipe)

    def vocabulary(self, recipe: Recipe | None) -> int | None:
        """How many tokens weights have rows for; None if config.json does not say."""
        base = self._history.base(self._base)
        extended = base if recipe is None else self._history.base_of(recipe)
        return vocabulary_of(self._history, self._rev, base, extended)

    def _has_rows(self, recipe: Recipe) -> bool:
        if recipe.key not in self._grows:
            self._grows[recipe.key] = has_rows(self._history, recipe)
        return self._grows[recipe.key]
