"""`revert`: undoing one commit's change, whatever else came after; or dropping a vector.

Three states meet: the commit's, its parent's, and HEAD's; where nothing is committed, the work tree's instead
of HEAD's. What the commit changed and still stands so comes back as the parent had it (`threeway`): the
recipe by its values, text by its lines. Where something else stands, that is a conflict, and nothing moves.

`recipe.toml` is merged by lines first, so that comments and spacing come back too; what the merged text does
not mean then is set in it key by key.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from persona.errors import InvalidInput, Refused, UnknownName, UnknownRevision, UsageError
from persona.history.commit_builder import other_kept, record, tidy, vector_changes
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import RECIPE_FILE, decode, encode, load
from persona.history.recipes.three_way import (
    Conflict,
    merge_lines,
    merge_recipes,
    renamed,
    renames,
    rules_edit,
)
from persona.history.results import CommitResult
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changing import changing
from persona.objects.commit import Person, subject
from persona.objects.ids import abbreviate, is_id
from persona.objects.recipe import Recipe, Term
from persona.objects.tree import differing
from persona.store.refs import Told


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
    with changing(history) as tree:
        told: list[str] = []
        id = None if vector else _revision(history, target, told)
        seen = tracking.snapshot(history)
        if not no_commit:
            _refuse_edits(history)
        if id is None:
            default = f'Revert vector "{target}"\n'
            edits = _dropped(history, target)
        else:
            default = f'Revert "{history.commit(id).subject}"\n\nThis reverts commit {id}.\n'
            edits = _undone(history, id, mainline, onto_edits=no_commit)
        if not no_commit:
            said = message if message is not None else default
            return record(tree, person, said, verb="revert", edits=edits, notes=tuple(told))
        tree.track([path for path, data in edits.items() if data is not None])
        tree.apply(edits, seen)
        head = history.head_commit()
        said = tidy(message or default)
        tree.prepare(said)
        recipe = text_files.recipe(history).recipe
        before = history.recipe_of(head)
        changes = vector_changes(history, before, recipe, {})
        where = history.head().branch
        return CommitResult(
            id=None,
            branch=where,
            parents=(head,),
            vectors=tuple(changes),
            kept=other_kept(history, before, recipe, changes),
            notes=tuple(told),
            subject=subject(said),
        )


def _refuse_edits(history: History) -> None:
    """`Refused` where the work tree holds edits that the new commit would take along."""
    committed = history.files_of(history.head_commit())
    here = tracking.snapshot(history)
    edited = differing(committed, here)
    if edited:
        raise Refused(
            f"{', '.join(edited)}: edited and not committed, and would go into the revert's commit; commit"
            " first, or `persona reset --hard` drops edits and new files, or --no-commit adds the revert to"
            " the edits"
        )


def _revision(history: History, target: str, told: Told) -> str | None:
    """The commit that `target` names, or None where it names a vector of the recipe."""
    recipe = text_files.recipe(history).recipe
    try:
        id = resolve(history, target, told)
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
    from persona.history.recipes.edit import remove_term

    data, recipe = text_files.recipe(history)
    if name not in recipe.by_name:
        raise UnknownName(f"{RECIPE_FILE} has no vector named {name}; `persona vector ls` lists them")
    text = remove_term(decode(data), name)
    history.read_recipe(text.encode())
    return {RECIPE_FILE: encode(text, like=data)}


def _undone(history: History, id: str, mainline: int | None, *, onto_edits: bool) -> dict[str, bytes | None]:
    """What files hold, `recipe.toml` last, where the commit's change is taken back; None for one that goes.
    `onto_edits`: from what the tracked files of the work tree hold, and not from what HEAD has.

    Raises `Refused` for a conflict, for a file that was edited, and where nothing is left to do. A file that
    is already as it has to be is no edit: the same command may have put it there before it was cut short.
    """
    parent = _parent(history, id, mainline)
    trees = [history.tree_of(commit) for commit in (parent, id, history.head_commit())]
    old, new, ours = (history.files_of_tree(tree) for tree in trees)
    tracked = tracking.tracked(history).paths
    here = tracking.ids(history, {*tracked, *old, *new, *ours})
    if onto_edits:
        ours = {path: blob for path, blob in here.items() if path in tracked}
    touched = differing(old, new)
    touched.sort(key=lambda path: path == RECIPE_FILE)
    conflicts: list[str] = []
    target: dict[str, bytes | None] = {}
    again = False
    for path in touched:
        if ours.get(path) in (new.get(path), old.get(path)):
            target[path] = history.blob(old[path]) if path in old else None
        elif path == RECIPE_FILE and all(path in side for side in (old, new, ours)):
            recipes = [history.recipe(tree.recipe) for tree in trees]
            texts = [history.blob(files[path]) for files in (old, new)]
            texts.append(
                text_files.read_recipe_text(history.root) if onto_edits else history.blob(ours[path])
            )
            recipes[2] = history.read_recipe(texts[2]) if onto_edits else recipes[2]
            target[path], again = _merged_recipe(history, recipes, texts, conflicts)
        else:
            data = [history.blob(files[path]) if path in files else None for files in (old, new)]
            held = history.blob(ours[path]) if path in ours and not onto_edits else None
            data.append(text_files.read(history.root, path) if onto_edits and path in ours else held)
            target[path] = _merged_file(path, data, conflicts)
    conflicts += _collisions(ours, target)
    if conflicts:
        listed = "\n".join(f"  {line}" for line in conflicts)
        who = "later commits or edits" if onto_edits else "later commits"
        raise Refused(f"{abbreviate(id)} cannot be reverted: {who} changed the same again\n{listed}")
    ids = {path: None if data is None else text_files.blob_id(data) for path, data in target.items()}
    edited = sorted(path for path in touched if here.get(path) not in (ours.get(path), ids[path]))
    if strange := [path for path in edited if path not in tracked]:
        raise Refused(f"{', '.join(strange)}: not tracked, and would be overwritten; move it away")
    if edited:
        raise Refused(f"{', '.join(edited)}: edited and not committed; commit or `persona restore` first")
    edits = {path: data for path, data in target.items() if here.get(path) != ids[path]}
    if not edits:
        raise Refused(f"nothing to revert: {_why_nothing(id, touched, again)}")
    return edits


def _why_nothing(id: str, touched: list[str], again: bool) -> str:
    if not touched:
        return f"{abbreviate(id)} changed no file"
    if again:
        return (
            f"the values that {abbreviate(id)} changed are as before it already, and the lines of"
            f" {RECIPE_FILE} that it wrote were written again since"
        )
    return f"what {abbreviate(id)} changed is undone already"


def _parent(history: History, id: str, mainline: int | None) -> str:
    parents = history.commit(id).parents
    if not parents:
        raise Refused(f"{abbreviate(id)} is the first commit; there is nothing before it to go back to")
    if mainline is None:
        if len(parents) > 1:
            raise UsageError(
                f"{abbreviate(id)} is a merge: say which parent to go back to, -m 1 to -m {len(parents)}"
            )
        return parents[0]
    if not 1 <= mainline <= len(parents):
        count = "one parent" if len(parents) == 1 else f"{len(parents)} parents"
        raise UsageError(f"{abbreviate(id)} has {count}, none of number {mainline}")
    return parents[mainline - 1]


def _merged_file(path: str, sides: list[bytes | None], conflicts: list[str]) -> bytes | None:
    """The text file of the third side with the commit's change of its lines taken back."""
    data = [side for side in sides if side is not None]
    if len(data) < len(sides):
        words = ["not there" if side is None else "there" for side in sides]
        conflicts.append(f"{path}: {words[1]} in that commit, {words[2]} now and changed, {words[0]} before")
        return None
    try:
        old, new, ours = (item.decode() for item in data)
    except UnicodeDecodeError:
        conflicts.append(f"{path}: changed again since, and not a text that can be merged")
        return None
    merged = merge_lines(new, old, ours)
    if merged.left or "\0" in merged.text:
        conflicts.append(f"{path}: lines that it changed, or lines beside them, were changed again since")
    elif path.endswith(".json") and _is_json(ours) and not _is_json(merged.text):
        conflicts.append(f"{path}: changed again since; taking the change back would make it invalid JSON")
    return merged.text.encode()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _collisions(ours: Mapping[str, str], target: Mapping[str, bytes | None]) -> list[str]:
    """A line for each file that would have to be a directory too."""
    after = {*ours, *(path for path, data in target.items() if data is not None)}
    after -= {path for path, data in target.items() if data is None}
    found = []
    for path in sorted(after):
        parts = path.split("/")
        for above in ("/".join(parts[:count]) for count in range(1, len(parts))):
            if above in after:
                found.append(f"{above}: a file in one, and now a directory that holds {path}")
    return found


def _merged_recipe(
    history: History, recipes: list[Recipe], data: list[bytes], conflicts: list[str]
) -> tuple[bytes | None, bool]:
    """HEAD's recipe text with the commit's change taken back, and whether lines that the commit wrote were
    written again, so that they stay as they are.
    """
    old, new, ours = recipes
    old_text, new_text, text = map(decode, data)
    wanted, found = merge_recipes(new, old, ours)
    if wanted is None:
        conflicts += map(_sentence, found)
        return None, False
    merged = merge_lines(new_text, old_text, text, close=True)
    whole = merged.left == 0
    # Where lines are moved and half of that was left out, a comment may be nowhere.
    candidates = [merged.text] if whole or _keeps_comments(merged.text, old_text, text) else []
    for candidate in (*candidates, text):
        try:
            told = encode(_told(history, candidate, wanted), like=data[2])
            return told, not (whole and candidate == merged.text)
        except (InvalidInput, UnknownName, Refused):
            continue  # the lines do not go together: key by key alone
    conflicts.append(f"{RECIPE_FILE}: written in a way that no command can edit; change it by hand")
    return None, False


def _keeps_comments(merged: str, old: str, ours: str) -> bool:
    """Whether the merged text has the comments that both sides have."""
    had, have, now = (Counter(re.findall(r"#.*", text)) for text in (old, merged, ours))
    return (had & now) <= have


def _told(history: History, text: str, wanted: Recipe) -> str:
    """The text, with what it takes to mean `wanted`. Raises `InvalidInput` where that cannot be."""
    from persona.history.recipes import edit as recipe_edit
    from persona.history.recipes.edit import UNSET

    have = history.read_recipe(text.encode())
    if have == wanted:
        return text
    if have.base != wanted.base:
        text = recipe_edit.set_base(text, history.base_name(wanted.base))
    names = renames(have.by_name, wanted.by_name)
    for before, after in names.items():
        text = recipe_edit.rename_term(text, before, after)
    terms = renamed(have.by_name, names)
    for name in terms.keys() - wanted.by_name.keys():
        text = recipe_edit.remove_term(text, name)
    for name, term in wanted.by_name.items():
        keys = _keys(term)
        if name not in terms:
            keys = {key: value for key, value in keys.items() if value is not UNSET}
            text = recipe_edit.add_term(text, name, keys)
        elif terms[name] != term:
            was = _keys(terms[name])
            text = recipe_edit.set_term(
                text, name, {key: value for key, value in keys.items() if value != was[key]}
            )
    edit = rules_edit(load(text).get("merge", {}), wanted.rules)
    if edit:
        axes = {axis: UNSET if value is None else value for axis, value in edit.items()}
        text = recipe_edit.set_rules(text, axes)
    if history.read_recipe(text.encode()) != wanted:
        raise InvalidInput(f"{RECIPE_FILE}: the change cannot be written")
    return text


def _keys(term: Term) -> dict[str, Any]:
    """Every key of a term as recipe_edit takes it; UNSET where it is not written."""
    from persona.history.recipes.edit import UNSET

    return {
        "id": term.vector,
        "alpha": term.alpha,
        "density": UNSET if term.density is None else term.density,
        "only": list(term.only) or UNSET,
        "except": list(term.except_) or UNSET,
        "join": UNSET if term.join == "vote" else term.join,
    }


def _sentence(conflict: Conflict | str) -> str:
    """A conflict as it is shown: the commit's side, HEAD's, and the one that was to come back."""
    if isinstance(conflict, str):
        return conflict
    base, theirs, ours = (_shown(side) for side in (conflict.base, conflict.theirs, conflict.ours))
    return f"{conflict.path}: {base} by that commit, {ours} now, {theirs} before"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]" if value else "unset"
    if value is None:
        return "unset"
    return abbreviate(value) if is_id(value) else f"{value:.60}"
