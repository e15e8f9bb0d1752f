"""`revert`: undoes the changes of commits, whatever came after them; or drops a vector.

Three states meet: the commit's, its parent's, and HEAD's (with `--no-commit`, the work tree's). If a value
that the commit changed is still the same in HEAD, it becomes the parent's again: that is a merge of the
change from the commit to its parent (`three_way`). If HEAD has another value, that is a conflict.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from persona.errors import Call, Keyword, UnknownName, UnknownRevision, UsageError
from persona.history import commit_checkout
from persona.history.commit_builder import record, tidy
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.results import CommitResult, Head
from persona.history.sequencing import moving, running, unrecorded
from persona.history.sequencing.choosing import chosen, is_range, one_of_these
from persona.history.sequencing.results import SequenceResult
from persona.history.sequencing.running import Made
from persona.history.sequencing.state import Sequence, Todo, refuse_second
from persona.history.worktree import text_files, tracking, weights
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.objects.ids import abbreviate
from persona.store.refs import NoteList

if TYPE_CHECKING:
    from persona.history.vectors.model_files import GivenBack


def revert(
    history: History,
    *targets: str,
    vector: bool = False,
    mainline: int | None = None,
    message: str | None = None,
    no_commit: bool = False,
    keep_files: bool = False,
    strategy: Literal["ours", "theirs", "mean"] | None = None,
    continue_: bool = False,
    abort: bool = False,
    skip: bool = False,
    quit_: bool = False,
) -> SequenceResult:
    """Undoes the changes of commits, each in a new commit, or drops a term of the recipe.

    `targets`: revisions, in this order, or ranges, newest first. One that is the name of a term, and of no
    revision, drops the term; with `vector` it does so also if there is such a revision. A conflict raises
    `Conflicted`: it is written into the work tree, and HEAD stays at the commits made so far. `strategy`
    decides conflicts, as for `merge`: "ours" is HEAD's value. `continue_` goes on after that, `skip` leaves
    the commit out, `abort` goes back, `quit_` forgets the commits that wait. `mainline`: the parent of a
    merge to go back to, from 1. `no_commit`: only edits the work tree; a conflict then changes nothing. With
    a vector go the files that came with it (`add` with `files`), unless they were edited since: they become
    what they were. `keep_files`: they stay. The setting `commit.checkout` applies as for `commit`.
    """
    one_of_these(bool(targets), continue_, abort, skip, quit_)
    wanted = None if no_commit or abort else commit_checkout.wanted(history)
    with changing(history) as tree:
        if abort:
            return running.abort(tree, "revert")
        if quit_:
            return running.forget(tree, "revert")
        if skip:
            made = running.skip(tree, "revert")
        elif continue_:
            made = running.go_on(tree, "revert", message=message, strategy=strategy)
        else:
            options = mainline, message, no_commit, strategy
            made = _revert(tree, targets, vector, keep_files, *options)
    return running.at_once(history, made, wanted)


def _revert(
    tree: LockedTree,
    targets: Many[str],
    vector: bool,
    keep_files: bool,
    mainline: int | None,
    message: str | None,
    no_commit: bool,
    strategy: str | None,
) -> SequenceResult:
    history = tree.history
    notes: list[str] = []
    refuse_second(history, "revert")
    ids = None if vector else _revisions(history, targets, notes)
    if not no_commit:
        moving.refuse_edits(history, "revert")
    if ids is None:
        return _without_vector(tree, targets[0], keep_files, message, no_commit, notes)
    if keep_files:
        raise UsageError(
            f"{targets[0]} is a commit, whose files belong to its change",
            hint=(Keyword(keep_files=True), " goes with the name of a vector"),
        )
    if message is not None and len(ids) > 1:
        raise UsageError(f"one message cannot be that of {len(ids)} commits; leave it out")
    todo = tuple(Todo("pick", id, mainline, message) for id in ids)
    before, head = history.head(), history.head_commit()
    state = replace(Sequence("revert", before, head, None, todo), strategy=strategy)
    if no_commit:
        made = unrecorded.make(tree, state, message, tuple(notes))
        return _unrecorded(history, made, before)
    return running.run(tree, state, Made(before, (), tuple(notes)), alone=len(todo) == 1)


def _unrecorded(history: History, made: CommitResult, before: Head) -> SequenceResult:
    return SequenceResult("revert", "prepared", history.head(), before, (made,), notes=made.notes)


def _without_vector(
    tree: LockedTree, name: str, keep_files: bool, message: str | None, no_commit: bool, notes: list[str]
) -> SequenceResult:
    history = tree.history
    before, seen = history.head(), tracking.snapshot(history)
    said = message if message is not None else f'Revert vector "{name}"\n'
    back = _dropped(history, name, keep_files, commits=not no_commit)
    notes += back.notes
    if no_commit:
        tree.track([path for path, data in back.edits.items() if data is not None])
        tree.apply(back.edits, seen)
        return _unrecorded(history, unrecorded.prepared(tree, tidy(said), tuple(notes)), before)
    made = record(tree, history.author(), said, verb="revert", edits=back.edits, notes=tuple(notes))
    standing = weights.standing(history, tree)
    return SequenceResult(
        "revert", "done", history.head(), before, (made,), weights=standing, notes=made.notes
    )


def _revisions(history: History, targets: Many[str], notes: NoteList) -> list[str] | None:
    """The commits that the targets name, newest first; None if the only one names a vector."""
    if len(targets) > 1 or is_range(targets[0]):
        return chosen(history, targets, notes, newest_first=True)
    id = _revision(history, targets[0], notes)
    return None if id is None else [id]


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
    from persona.history.vectors.trained_from import left_behind

    data, recipe = text_files.recipe(history)
    if name not in recipe.by_name:
        hint = (Call("vectors.values"), " lists them")
        raise UnknownName(f"{RECIPE_FILE} has no vector named {name}", hint=hint)
    text = remove_term(decode(data), name)
    after = history.read_recipe(text.encode())
    back = given_back(history, [recipe.by_name[name].vector], after, keep=keep_files, commits=commits)
    back.notes.extend(left_behind(history, after, recipe))
    return back._replace(edits={**back.edits, RECIPE_FILE: encode(text, like=data)})
