"""`revert`: undoing one commit's change key by key, whatever else came after; or dropping a vector.

Three recipes meet: the commit's, its parent's, and HEAD's. Where the commit changed a key and HEAD still has
what the commit made of it, the parent's value comes back; where HEAD has something else again, that is a
conflict, and nothing moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.errors import Refused, UnknownName, UnknownRevision, UsageError
from persona.history import tracking, worktree
from persona.history.history import History
from persona.history.recipe_text import RECIPE_FILE, decode
from persona.history.recording import other_kept, record, tidy, vector_changes
from persona.history.results import CommitResult
from persona.history.revisions import resolve
from persona.objects.commit import Person
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

_MISSING = object()


def revert(
    history: History,
    target: str,
    person: Person,
    *,
    vector: bool,
    mainline: int | None,
    message: str | None,
    no_commit: bool,
) -> CommitResult:
    """See `Repository.revert`."""
    with history.changing():
        id = None if vector else _revision(history, target)
        seen = tracking.snapshot(history)
        if not no_commit:
            _refuse_edits(history)
        if id is None:
            default = f'Revert vector "{target}"\n'
            edits = _dropped(history, target)
        else:
            subject = history.commit(id).message.split("\n", 1)[0]
            default = f'Revert "{subject}"\n\nThis reverts commit {id}.\n'
            edits = _undone(history, id, mainline)
        if not no_commit:
            said = message if message is not None else default
            return record(history, person, said, verb="revert", edits=edits)
        tracking.add(history, [path for path, data in edits.items() if data is not None])
        worktree.apply(history, edits, seen)
        head = history.head_commit()
        recipe = history.read_recipe(worktree.read_recipe_text(history.root))
        before = history.recipe_of(head)
        changes = vector_changes(history, before, recipe, {})
        where = history.head().branch
        subject = tidy(message or default).split("\n", 1)[0]
        return CommitResult(
            id=None,
            branch=where,
            parents=(head,),
            vectors=tuple(changes),
            kept=other_kept(history, before, recipe, changes),
            subject=subject,
        )


def _refuse_edits(history: History) -> None:
    """`Refused` where the work tree holds edits that the new commit would take along."""
    committed = history.files_of(history.head_commit())
    here = tracking.snapshot(history)
    edited = sorted(path for path in {*committed, *here} if committed.get(path) != here.get(path))
    if edited:
        raise Refused(
            f"{', '.join(edited)}: edited and not committed, and would go into the revert's commit; commit"
            " first, or `persona reset --hard` drops edits and new files, or --no-commit adds the revert to"
            " the edits"
        )


def _revision(history: History, target: str) -> str | None:
    """The commit that `target` names, or None where it names a vector of the recipe."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    try:
        id = resolve(history, target)
    except UnknownRevision:
        if target in recipe.by_name:
            return None
        raise UnknownRevision(
            f"{target!r:.100} is neither a revision nor a vector of {RECIPE_FILE}; `persona log` and"
            " `persona vector ls` list them"
        ) from None
    if target in recipe.by_name:
        raise UsageError(
            f"{target} is a vector and a revision ({abbreviate(id)}): --vector {target} drops the vector,"
            f" {abbreviate(id)} reverts the commit"
        )
    return id


def _dropped(history: History, name: str) -> dict[str, bytes | None]:
    """What files hold without the vector."""
    from persona.history.recipe_edit import remove_term

    data = worktree.read_recipe_text(history.root)
    if name not in history.read_recipe(data).by_name:
        raise UnknownName(f"{RECIPE_FILE} has no vector named {name}; `persona vector ls` lists them")
    text = remove_term(decode(data), name)
    history.read_recipe(text.encode())
    return {RECIPE_FILE: text.encode()}


def _undone(history: History, id: str, mainline: int | None) -> dict[str, bytes | None]:
    """What files hold, `recipe.toml` last, where the commit's change is taken back; None for one that goes.

    Raises `Refused` for a conflict, for a file that was edited, and where nothing is left to do. A file that
    is already as it has to be is no edit: the same command may have put it there before it was cut short.
    """
    parent = _parent(history, id, mainline)
    head = history.head_commit()
    trees = [history.tree_of(parent), history.tree_of(id), history.tree_of(head)]
    old, new, ours = (history.files_of_tree(tree) for tree in trees)
    here = tracking.snapshot(history, {**old, **new, **ours})
    touched = [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)]
    touched.sort(key=lambda path: path == RECIPE_FILE)
    conflicts: list[str] = []
    target: dict[str, bytes | None] = {}
    for path in touched:
        if path == RECIPE_FILE and ours.get(path) != new.get(path):
            recipes = [history.recipe(tree.recipe) for tree in trees]
            target[path] = _merged_text(history, recipes, conflicts)
        elif ours.get(path) not in (new.get(path), old.get(path)):
            conflicts.append(f"{path}: changed again since")
        else:
            target[path] = history.blob(old[path]) if path in old else None
    if conflicts:
        listed = "\n".join(f"  {line}" for line in conflicts)
        raise Refused(
            f"{abbreviate(id)} cannot be reverted, for what it changed was changed again:\n{listed}"
        )
    ids = {path: None if data is None else worktree.blob_id(data) for path, data in target.items()}
    edited = sorted(path for path in touched if here.get(path) not in (ours.get(path), ids[path]))
    if edited:
        raise Refused(f"{', '.join(edited)}: edited and not committed; commit or `persona restore` first")
    edits = {path: data for path, data in target.items() if here.get(path) != ids[path]}
    if not edits:
        raise Refused(f"nothing to revert: what {abbreviate(id)} changed is undone already")
    return edits


def _parent(history: History, id: str, mainline: int | None) -> str:
    parents = history.commit(id).parents
    if not parents:
        raise Refused(f"{abbreviate(id)} is the first commit; there is nothing before it to go back to")
    if mainline is None:
        if len(parents) > 1:
            raise UsageError(f"{abbreviate(id)} is a merge: say which parent to go back to, from 1")
        return parents[0]
    if not 1 <= mainline <= len(parents):
        raise UsageError(f"{abbreviate(id)} has {len(parents)} parents, none of number {mainline}")
    return parents[mainline - 1]


def _merged_text(history: History, recipes: list[Recipe], conflicts: list[str]) -> bytes:
    """HEAD's recipe text with the change from `old` to `new` taken back."""
    from persona.history import recipe_edit

    old, new, ours = recipes
    text = decode(history.blob(history.files_of(history.head_commit())[RECIPE_FILE]))
    if base := _pick("base", old.base, new.base, ours.base, conflicts):
        text = recipe_edit.set_base(text, history.base_name(base))
    axes = _rules_edit(old.rules, new.rules, ours.rules, conflicts)
    edits = {
        name: _term_edit(
            name, old.by_name.get(name), new.by_name.get(name), ours.by_name.get(name), conflicts
        )
        for name in dict.fromkeys([*old.by_name, *new.by_name])
    }
    if conflicts:
        return text.encode()
    for name, edit in edits.items():
        if edit is _MISSING:
            text = recipe_edit.remove_term(text, name)
        elif edit and name in ours.by_name:
            text = recipe_edit.set_term(text, name, edit)
        elif edit:
            text = recipe_edit.add_term(
                text, name, {k: v for k, v in edit.items() if v is not recipe_edit.UNSET}
            )
    if axes:
        text = recipe_edit.set_rules(text, axes)
    history.read_recipe(text.encode())
    return text.encode()


def _pick(what: str, old: Any, new: Any, ours: Any, conflicts: list[str]) -> Any:
    """The old value where it has to come back, None where nothing has to be done."""
    if old == new or ours == old:
        return None
    if ours != new:
        conflicts.append(f"{what}: {_shown(new)} by that commit, {_shown(ours)} now, {_shown(old)} before")
        return None
    return old


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(str, value)) + "]"
    return "unset" if value is None else str(value)[:16]


def _rules_edit(old: Rules, new: Rules, ours: Rules, conflicts: list[str]) -> dict[str, Any]:
    from persona.history.recipe_edit import UNSET

    if old == new or ours == old:
        return {}
    before, after, now = _axes(old), _axes(new), _axes(ours)
    edit: dict[str, Any] = {}
    for axis in dict.fromkeys([*before, *after]):
        if before.get(axis) == after.get(axis) or now.get(axis) == before.get(axis):
            continue
        value = _pick(f"merge.{axis}", before.get(axis), after.get(axis), now.get(axis), conflicts)
        edit[axis] = UNSET if value is None else value
    return edit


def _axes(rules: Rules) -> Mapping[str, str]:
    return {"preset": rules.preset, **rules.changed_axes()}


def _term_edit(name: str, old: Term | None, new: Term | None, ours: Term | None, conflicts: list[str]) -> Any:
    """The keys of a term to set; `_MISSING` to remove it; empty for nothing."""
    if old == new or ours == old:
        return {}
    where = f"vectors.{name}"
    if old is None:
        if ours is None:
            return {}
        if ours == new:
            return _MISSING
        assert new is not None
        _conflict(where, new, ours, conflicts)
        return {}
    before = _keys(old)
    if new is None or ours is None:
        if ours is not None:
            conflicts.append(f"{where}: removed by that commit, there again now")
        elif new is not None:
            conflicts.append(f"{where}: changed by that commit, removed now")
        else:
            return before
        return {}
    after, now = _keys(new), _keys(ours)
    return {
        key: before[key]
        for key in before
        if before[key] != after[key]
        and now[key] != before[key]
        and _pick(f"{where}.{key}", before[key], after[key], now[key], conflicts) is not None
    }


def _conflict(where: str, new: Term, ours: Term, conflicts: list[str]) -> None:
    after, now = _keys(new), _keys(ours)
    for key in after:
        if after[key] != now[key]:
            conflicts.append(f"{where}.{key}: {_shown(after[key])} by that commit, {_shown(now[key])} now")


def _keys(term: Term) -> dict[str, Any]:
    """Every key of a term as recipe_edit takes it; UNSET where it is not written."""
    from persona.history.recipe_edit import UNSET

    return {
        "id": term.vector,
        "alpha": term.alpha,
        "density": UNSET if term.density is None else term.density,
        "only": list(term.only) or UNSET,
        "except": list(term.except_) or UNSET,
        "join": UNSET if term.join == "vote" else term.join,
    }
