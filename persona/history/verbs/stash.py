"""`stash`: puts the edits of the work tree aside, and brings them back.

A stash is a commit of the work tree on HEAD, which no branch names. It comes back as a change from HEAD then
to that commit, merged into the work tree three ways. If a conflict is left, the stash stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from persona.errors import Call, Conflicted, Refused, UnknownName, WorkFile, listed
from persona.frozen import dataclass
from persona.history.commit_builder import build, named_by, put_tree, side_of, side_of_worktree, tidy
from persona.history.history import History
from persona.history.recipes.conflicts import Conflict
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.three_way import Names, merge_files
from persona.history.results import UNPRINTED, Diff, Result, iso_date
from persona.history.sequencing import moving, unmerged
from persona.history.sequencing.picking import refuse_other_base
from persona.history.sequencing.results import views
from persona.history.sequencing.state import Stop, refuse_second
from persona.history.sequencing.words import lost_notes, sentences
from persona.history.stashes import Stashed, place_of, stashes
from persona.history.vectors.trained_from import left_behind, left_behind_at
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changes import diff_commits
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import new_branch, plan_files
from persona.objects.ids import abbreviate
from persona.objects.tree import differing

_LABELS = ("Updated upstream", "Stashed changes")


@dataclass(frozen=True, repr=False)
class Stash(Result):
    """A stash. `selector` is `stash@{0}` for the newest; `onto` the commit that its edits were made on."""

    selector: str
    id: str
    message: str
    date: str
    onto: str


@dataclass(frozen=True, repr=False)
class StashResult(Result):
    """What a call did with a stash: "saved", "applied", "dropped"; "nothing" if there were no edits.

    `files`: those that it put aside or brought back. `dropped`: whether the stash is gone now.
    """

    state: str
    stash: Stash | None
    files: tuple[str, ...] = ()
    dropped: bool = False
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def push(
    history: History,
    *,
    message: str | None = None,
    paths: str | Sequence[str] | None = None,
    include_untracked: bool = False,
) -> StashResult:
    """Puts the edits of `recipe.toml` and of the tracked files aside; the work tree is as HEAD then.

    `paths`: only those of these files, or of files in these directories. `include_untracked`: also takes the
    untracked files. Without edits, it does nothing. Weights stay as they are. Raises `InvalidInput` if
    `recipe.toml` is edited and no valid recipe.
    """
    paths = [paths] if isinstance(paths, str) else paths
    with changing(history) as tree:
        refuse_second(history, "stash")
        head = history.head_commit()
        committed = history.files_of(head)
        known = tracking.tracked(history)
        names = {*known.paths, *committed}
        if include_untracked:
            names |= set(tracking.untracked_files(history, known))
        here = tracking.ids(history, names)
        edited = [
            path for path in differing(committed, here) if paths is None or tracking.is_among(path, paths)
        ]
        if paths is not None:
            _refuse_unknown(paths, {*here, *committed})
        if not edited:
            return StashResult("nothing", None)
        added = tuple(path for path in tracking.added(history) if path in edited)
        id = _put(history, head, {path: here.get(path) for path in edited}, message)
        tree.stash([Stashed(id, added), *stashes(history)])
        tree.put(committed, here, edited)
        if added:
            tree.forget(added)
        tree.advance(head, history.committer(), "reset: moving to HEAD", expect=head)
        notes = tuple(left_behind_at(history, head, id)) if RECIPE_FILE in edited else ()
        return StashResult("saved", _shown(history, 0), tuple(edited), notes=notes)


def pop(history: History, stash: str | int | None = None) -> StashResult:
    """Brings the edits of a stash back, as `apply`, and drops the stash.

    If a conflict is left, or if a comment of `recipe.toml` did not fit, the stash stays.
    """
    return _apply(history, stash, drop=True)


def apply(history: History, stash: str | int | None = None) -> StashResult:
    """Brings the edits of a stash back; the stash stays. `stash`: its number, or "stash@{1}"; the newest.

    HEAD may be another commit now. Raises `Refused` if a file of the stash is edited. A value that HEAD and
    the stash set differently is a conflict: both values are written into `recipe.toml`, as comments, and
    lines of other files between markers; then `Conflicted` is raised.
    """
    return _apply(history, stash, drop=False)


def branch(history: History, name: str, stash: str | int | None = None) -> StashResult:
    """Makes a branch at the commit that a stash was made on, goes there, and brings the edits back.

    The stash is dropped then. If its files cannot be put in place, nothing changes but the branch of HEAD.
    """
    with changing(history) as tree:
        refuse_second(history, "apply a stash")
        shown = _shown(history, place_of(history, stash))
        goal = new_branch(history, name, shown.onto)
        move = plan_files(history, goal.id, force=False, can_force=False)
        with tree.moving(move):
            tree.move_head(goal, history.committer(), typed=name, created=shown.onto)
    return pop(history, shown.selector)


def list_(history: History) -> list[Stash]:
    """The stashes, the newest first."""
    return [_shown(history, place) for place in range(len(stashes(history)))]


def show(history: History, stash: str | int | None = None) -> Diff:
    """The edits of a stash, by default the newest."""
    id = stashes(history)[place_of(history, stash)].id
    return diff_commits(history, history.commit(id).parents[0], id)


def drop(history: History, stash: str | int | None = None) -> StashResult:
    """Forgets a stash, by default the newest."""
    with changing(history) as tree:
        place = place_of(history, stash)
        shown = _shown(history, place)
        _drop(tree, place)
        return StashResult("dropped", shown, dropped=True)


def clear(history: History) -> int:
    """Forgets all stashes; returns how many there were."""
    with changing(history) as tree:
        count = len(stashes(history))
        tree.stash([])
        return count


def _shown(history: History, place: int) -> Stash:
    id = stashes(history)[place].id
    commit = history.commit(id)
    date = iso_date(commit.committer)
    return Stash(f"stash@{{{place}}}", id, commit.message.rstrip("\n"), date, commit.parents[0])


def _drop(tree: LockedTree, place: int) -> None:
    entries = stashes(tree.history)
    tree.stash(entries[:place] + entries[place + 1 :])


# -- push ----------------------------------------------------------------------------------------------------


def _refuse_unknown(paths: Sequence[str], names: set[str]) -> None:
    """`UnknownName` for a path that is no file which could be stashed."""
    missing = [path for path in paths if not any(tracking.is_among(name, [path]) for name in names)]
    if missing:
        hint = (Call("status"), " lists the edits")
        raise UnknownName(f"no tracked file is named {listed(missing)}", hint=hint)


def _put(history: History, head: str, edits: dict[str, str | None], message: str | None) -> str:
    """Stores the commit of a stash: HEAD with the edits of some files, path → blob id; None for no file."""
    files: dict[str, bytes | str] = {**history.files_of(head)}
    for path, blob in edits.items():
        data = None if blob is None else text_files.read(history.root, path)
        if data is None:
            files.pop(path, None)
        else:
            files[path] = data
    recipe = history.recipe_of(head)
    if RECIPE_FILE in edits:
        recipe = text_files.recipe(history).recipe
    commit, branch = history.commit(head), history.head_or_name().branch or "(no branch)"
    said = f"WIP on {branch}: {abbreviate(head)} {commit.subject}"
    if message is not None:
        said = f"On {branch}: {tidy(message)}"
    with history.store.transaction() as tx:
        durable = named_by(history.recipe_of(head))
        tree = put_tree(history, tx, recipe, sorted(files.items()), durable=durable)
        author, committer = history.author(), history.committer()
        return build(tx, tree, (head,), author=author, committer=committer, message=tidy(said))


# -- pop and apply -------------------------------------------------------------------------------------------


def _apply(history: History, selector: str | int | None, *, drop: bool) -> StashResult:
    with changing(history) as tree:
        refuse_second(history, "apply a stash")
        place = place_of(history, selector)
        entry, shown = stashes(history)[place], _shown(history, place)
        base, theirs = side_of(history, shown.onto), side_of(history, entry.id)
        touched = differing(base.files, theirs.files)
        tracked = tracking.tracked(history, touched).paths
        here = tracking.ids(history, {*tracked, *touched})
        _refuse_edited(history, touched, here)
        ours = side_of_worktree(history, here)
        names = Names(history.read_recipe, history.base_name, history.require_vector_of)
        merged = merge_files(base, theirs, ours, names, both=True)
        told = merged.conflicts
        for conflict in told:
            if conflict.problem == "directory":
                raise Refused(f"{conflict.path} would have to be a directory too, for {conflict.detail}")
            refuse_other_base(conflict)
        if told:
            merged = merge_files(base, theirs, ours, names, labels=_LABELS, both=True)
        edits = {
            path: data
            for path, data in merged.edits.items()
            if here.get(path) != (None if data is None else text_files.blob_id(data))
        }
        tree.track([path for path in entry.added if path not in here])
        tree.apply(edits, here)
        if told:
            conflicts = merged.conflicts or told
            with history.store.transaction() as tx:  # `restore` may write the conflict again
                for data in edits.values():
                    if data is not None:
                        tx.put("blob", data)
            unmerged.keep(tree, _stop(history, entry.id, edits, conflicts))
            said = [*sentences("merge", told, _LABELS), *lost_notes(merged.lost, _LABELS[1])]
            lines = [f"  {line}" for line in said]
            raise Conflicted(
                "\n".join(
                    [f"{shown.selector} conflicts with HEAD; the stash is kept", *dict.fromkeys(lines)]
                ),
                conflicts=views(conflicts),
                hint=(
                    *unmerged.ways_out(conflicts),
                    "; then ",
                    Call("stash.drop", shown.selector),
                    " forgets the stash",
                ),
            )
        notes = tuple(lost_notes(merged.lost, shown.selector))
        if drop and notes:
            drop, notes = False, (*notes, f"{shown.selector} is kept")
        if drop:
            _drop(tree, place)
        if RECIPE_FILE in edits:
            before = history.recipe_of(history.head_commit()), theirs.recipe()
            notes = (*notes, *left_behind(history, text_files.recipe(history).recipe, *before))
        return StashResult("applied", shown, tuple(edits), drop, notes)


def _stop(
    history: History, id: str, edits: Mapping[str, bytes | None], conflicts: Sequence[Conflict]
) -> Stop:
    """What a stash leaves in the work tree, in the form of a stop."""
    left = moving.files_left(history, {**edits}, conflicts, history.head_commit())
    return Stop("conflict", id, (), "", None, id, left, tuple(conflicts), labels=_LABELS)


def _refuse_edited(history: History, touched: Sequence[str], here: dict[str, str]) -> None:
    """`Refused` if a file that a stash changes is edited, or is there without being tracked."""
    committed = history.files_of(history.head_commit())
    edited = [path for path in touched if here.get(path) != committed.get(path)]
    strange = [path for path in edited if path not in committed]
    new = [path for path in touched if path not in committed and path not in here]
    if strange := [*strange, *text_files.obstacles(history.root, new)]:
        raise tracking.in_the_way(strange)
    if edited:
        raise Refused(
            f"uncommitted edits are in files that the stash changes: {listed(edited)}",
            hint=(
                "commit or stash them first, or put them back with ",
                Call("restore", WorkFile(edited[0])),
            ),
        )
