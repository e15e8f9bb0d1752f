"""Whether two commits make the same change, each to its own parent: then a rebase leaves one of them out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from persona.history.history import History
from persona.history.recipes.diff import diff_recipes
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import as_json
from persona.objects import canonical
from persona.objects.ids import object_id
from persona.objects.tree import differing

_COMMENT = re.compile(r"#.*")


def change_key(history: History, id: str) -> str | None:
    """A digest of what a commit changes; None for a merge, for the first commit, and for no change.

    Of recipe.toml count the values that differ, with the vectors that have them, and the comments; of other
    files their whole contents.
    """
    parents = history.commit(id).parents
    if len(parents) != 1:
        return None
    before, after = history.files_of(parents[0]), history.files_of(id)
    changed = differing(before, after)
    parts: list[object] = [
        [path, before.get(path), after.get(path)] for path in changed if path != RECIPE_FILE
    ]
    if RECIPE_FILE in changed:
        recipe = history.recipe_of(id)
        rules, terms = diff_recipes(history.recipe_of(parents[0]), recipe)
        vectors = [recipe.by_name[one.name].vector for one in terms if one.change in ("changed", "renamed")]
        parts.append(repr((as_json(rules), as_json(terms), vectors)))
        old, new = (_comments(history.blob(files[RECIPE_FILE])) for files in (before, after))
        parts.append([sorted((old - new).elements()), sorted((new - old).elements())])
    return object_id("note", canonical.encode(parts)) if parts else None


def _comments(data: bytes) -> Counter[str]:
    return Counter(_COMMENT.findall(data.decode("utf-8", "replace")))


def keys_of(history: History, ids: Iterable[str]) -> set[str]:
    """The digests of the changes of commits."""
    return {key for id in ids if (key := change_key(history, id)) is not None}
