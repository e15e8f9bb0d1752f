"""`revert`: undoes the change of one commit, whatever came after it; or drops a vector.

Three states meet: the commit's, its parent's, and HEAD's (with `--no-commit`, the work tree's). If a value
that the commit changed is still the same in HEAD, it becomes the parent's again: that is a merge of the
change from the commit to its parent (`three_way`). If HEAD has another value, that is a conflict, and nothing
moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from persona.errors import Call, Keyword, Refused, UnknownName, UnknownRevision, UsageError, WorkFile
from persona.history import placing
from persona.history.commit_builder import other_kept, record, side_of, side_of_worktree, tidy, vector_changes
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.recipes.three_way import Conflict, Names, merge_files
from persona.history.results import CommitResult
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changing import changing
from persona.objects.commit import subject
from persona.objects.ids import abbreviate, is_id
from persona.objects.tree import differing
from persona.store.refs import NoteList

if TYPE_CHECKING:
    from persona.history.vectors.model_files import GivenBack

_WORDS: Final = {
    "lines": "lines that it changed, or lines beside them, were changed again since",
    "binary": "changed again since, and not a text that can be merged",
    "json": "changed again since; taking the change back would make it invalid JSON",
    "directory": "a file in one, and now a directory that holds ",
    "style": "written in a way that no command can edit; change it by hand",
}


def revert(
    history: History,
    target: str,
    *,
    vector: bool = False,
    mainline: int | None = None,
    message: str | None = None,
    no_commit: bool = False,
    keep_files: bool = False,
) -> CommitResult:
    """Undoes the change of one commit, or drops a term of the recipe.

    It drops one if `vector` is given, or if only a term has the name. A conflict is `Refused` with both
    sides, and nothing moves. `mainline`: the parent of a merge to go back to, from 1. `no_commit`: only edits
    the work tree. With a vector go the files that came with it (`add` with `files`), unless they were edited
    since: they become what they were. `keep_files`: they stay. The setting `commit.checkout` applies as for
    `commit`.
    """
    wanted = None if no_commit else placing.wanted_at_once(history)
    made = _revert(history, target, vector, mainline, message, no_commit, keep_files)
    return placing.at_once(history, made, wanted)


def _revert(
    history: History,
    target: str,
    vector: bool,
    mainline: int | None,
    message: str | None,
    no_commit: bool,
    keep_files: bool,
) -> CommitResult:
    with changing(history) as tree:
        notes: list[str] = []
        id = None if vector else _revision(history, target, notes)
        seen = tracking.snapshot(history)
        if not no_commit:
            _refuse_edits(history)
        if id is None:
            default = f'Revert vector "{target}"\n'
            back = _dropped(history, target, keep_files, commits=not no_commit)
            edits = back.edits
            notes += back.notes
        elif keep_files:
            raise UsageError(
                f"{target} is a commit, whose files belong to its change",
                hint=(Keyword(keep_files=True), " goes with the name of a vector"),
            )
        else:
            default = f'Revert "{history.commit(id).subject}"\n\nThis reverts commit {id}.\n'
            edits = _undone(history, id, mainline, onto_edits=no_commit)
        if not no_commit:
            said = message if message is not None else default
            return record(tree, history.author(), said, verb="revert", edits=edits, notes=tuple(notes))
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
            notes=tuple(notes),
            subject=subject(said),
        )


def _refuse_edits(history: History) -> None:
    """`Refused` if the work tree has edits that the new commit would hold."""
    committed = history.files_of(history.head_commit())
    here = tracking.snapshot(history)
    edited = differing(committed, here)
    if edited:
        raise Refused(
            f"uncommitted edits would go into the revert's commit: {', '.join(edited)}",
            hint=(
                "commit first; or ",
                Call("reset", mode="hard"),
                " drops edits and new files; or ",
                Keyword(no_commit=True),
                " adds the revert to the edits",
            ),
        )


def _revision(history: History, target: str, notes: NoteList) -> str | None:
    """The commit that `target` names, or None if it names a vector of the recipe."""
    recipe = text_files.recipe(history).recipe
    try:
        id = resolve(history, target, notes)
    except UnknownRevision:
        if target in recipe.by_name:
            return None
        raise UnknownRevision(
            f"{target!r:.100} is neither a revision nor a vector of {RECIPE_FILE}",
            hint=(Call("log"), " and ", Call("vectors.values"), " list them"),
        ) from None
    if target in recipe.by_name:
        raise UsageError(
            f"{target} is a vector and a revision ({abbreviate(id)})",
            hint=(
                Call("revert", target, vector=True),
                " drops the vector, ",
                Call("revert", abbreviate(id)),
                " undoes the commit",
            ),
        )
    return id


def _dropped(history: History, name: str, keep_files: bool, *, commits: bool) -> GivenBack:
    """The contents of files without the vector, `recipe.toml` last."""
    from persona.history.recipes.edit import remove_term
    from persona.history.vectors.model_files import given_back

    data, recipe = text_files.recipe(history)
    if name not in recipe.by_name:
        hint = (Call("vectors.values"), " lists them")
        raise UnknownName(f"{RECIPE_FILE} has no vector named {name}", hint=hint)
    text = remove_term(decode(data), name)
    after = history.read_recipe(text.encode())
    back = given_back(history, [recipe.by_name[name].vector], after, keep=keep_files, commits=commits)
    return back._replace(edits={**back.edits, RECIPE_FILE: encode(text, like=data)})


def _undone(history: History, id: str, mainline: int | None, *, onto_edits: bool) -> dict[str, bytes | None]:
    """The contents of files with the commit's change taken back, `recipe.toml` last; None removes a file.

    `onto_edits`: starts from the tracked files of the work tree instead of HEAD's. Raises `Refused` for a
    conflict, for an edited file, and if nothing is left to do. A file that has its new content already is no
    edit: the same command may have written it before it was cut short.
    """
    before, after = side_of(history, _parent(history, id, mainline)), side_of(history, id)
    ours = side_of(history, history.head_commit())
    tracked = tracking.tracked(history).paths
    here = tracking.ids(history, {*tracked, *before.files, *after.files, *ours.files})
    if onto_edits:
        ours = side_of_worktree(history, {path: blob for path, blob in here.items() if path in tracked})
    merged = merge_files(after, before, ours, Names(history.read_recipe, history.base_name))
    if merged.conflicts:
        listed = "\n".join(f"  {_sentence(conflict)}" for conflict in merged.conflicts)
        who = "later commits or edits" if onto_edits else "later commits"
        raise Refused(f"{abbreviate(id)} cannot be reverted: {who} changed the same again\n{listed}")
    ids = {path: None if data is None else text_files.blob_id(data) for path, data in merged.edits.items()}
    edited = sorted(path for path in ids if here.get(path) not in (ours.files.get(path), ids[path]))
    if strange := [path for path in edited if path not in tracked]:
        raise Refused(f"untracked files would be overwritten; move them away: {', '.join(strange)}")
    if edited:
        raise Refused(
            f"uncommitted edits are in files that the revert changes: {', '.join(edited)}",
            hint=("commit first, or put it back with ", Call("restore", WorkFile(edited[0]))),
        )
    edits = {path: data for path, data in merged.edits.items() if here.get(path) != ids[path]}
    if not edits:
        raise Refused(f"nothing to revert: {_why_nothing(id, bool(ids), merged.rewritten)}")
    return edits


def _why_nothing(id: str, touched: bool, again: bool) -> str:
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
                f"{abbreviate(id)} is a merge of {len(parents)} commits",
                hint=("say which parent to go back to: ", Keyword(mainline=1), ", or another number"),
            )
        return parents[0]
    if not 1 <= mainline <= len(parents):
        count = "one parent" if len(parents) == 1 else f"{len(parents)} parents"
        raise UsageError(f"{abbreviate(id)} has {count}, none of number {mainline}")
    return parents[mainline - 1]


def _sentence(conflict: Conflict) -> str:
    """A conflict as it is shown: the commit's side, HEAD's, and the one that was to come back."""
    sides = conflict.base, conflict.ours, conflict.theirs
    if conflict.problem == "together":
        return conflict.detail
    if conflict.problem == "values":
        after, now, before = map(_shown, sides)
        return f"{conflict.key}: {after} by that commit, {now} now, {before} before"
    if conflict.problem == "presence":
        after, now, before = ("not there" if side is None else "there" for side in sides)
        return f"{conflict.path}: {after} in that commit, {now} now and changed, {before} before"
    return f"{conflict.path}: {_WORDS[conflict.problem]}{conflict.detail}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]" if value else "unset"
    if value is None:
        return "unset"
    return abbreviate(value) if is_id(value) else f"{value:.60}"
