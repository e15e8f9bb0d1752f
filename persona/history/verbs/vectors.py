"""`vector rm`: the kept names of vectors."""

from __future__ import annotations

from persona.errors import Call, Refused, UnknownName, UsageError
from persona.history.act_results import Removed
from persona.history.history import History, reason
from persona.history.recipes.text import RECIPE_FILE
from persona.history.worktree import text_files
from persona.store.refs import VECTORS, Change


def forget(history: History, *names: str) -> Removed:
    """Forgets the kept names of vectors that no recipe names, all or none.

    Raises `Refused` while `recipe.toml` names one.
    """
    if not names:
        raise UsageError("name at least one vector to delete")
    recipe = text_files.recipe(history).recipe
    kept = history.store.refs.list(VECTORS)
    changes: list[Change] = []
    for name in dict.fromkeys(names):
        if name in recipe.by_name:
            raise Refused(
                f"{RECIPE_FILE} uses the vector {name}",
                hint=(Call("recipe.remove", name), " drops it from there"),
            )
        id = kept.get(VECTORS + name)
        if id is None:
            raise UnknownName(
                f"no vector is kept under the name {name}", hint=(Call("vectors.values"), " lists them")
            )
        changes.append(Change(VECTORS + name, None, id, reason(history.committer(), f"vector: rm {name}")))
    history.store.refs.update_all(changes)
    return Removed(names)
