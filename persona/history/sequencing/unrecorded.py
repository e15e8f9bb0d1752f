"""Changes made to the work tree, which no commit holds yet: `cherry-pick --no-commit`, `revert --no-commit`.

Edits of the work tree stay. A conflict changes nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from collections.abc import Sequence as Many

from persona.errors import Call, Refused, WorkFile
from persona.history.commit_builder import other_kept, side_of_worktree, tidy, vector_changes
from persona.history.history import History
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.three_way import Names, merge_files
from persona.history.results import CommitResult
from persona.history.sequencing.picking import refuse_other_base, with_edits
from persona.history.sequencing.running import change_of, message_of, other_side
from persona.history.sequencing.state import Sequence, named
from persona.history.sequencing.words import sentences, why_nothing
from persona.history.vectors.trained_from import left_behind
from persona.history.worktree import text_files, tracking
from persona.history.worktree.locked import LockedTree
from persona.objects.commit import subject
from persona.objects.ids import abbreviate

_DONE = {"cherry-pick": "picked", "revert": "reverted"}


def make(tree: LockedTree, sequence: Sequence, message: str | None, notes: tuple[str, ...]) -> CommitResult:
    """Makes the changes of all commits of a sequence to the work tree, and prepares the last message.

    All or none. A change that is there already is left out, with a note.
    """
    history = tree.history
    seen, edits, left_out = _edits(history, sequence)
    tree.track([path for path, data in edits.items() if data is not None])
    tree.apply(edits, seen)
    said = tidy(message or message_of(history, sequence, sequence.todo[-1]))
    sources = [other_side(history, sequence, one) for one in sequence.todo]
    return prepared(tree, said, (*notes, *left_out), sources)


def prepared(tree: LockedTree, message: str, notes: tuple[str, ...], sources: Many[str] = ()) -> CommitResult:
    """The result of a change that only the work tree has; the next commit takes the message.

    `sources`: the commits whose changes it has.
    """
    history = tree.history
    head = history.head_commit()
    tree.prepare(message)
    old, recipe = history.recipe_of(head), text_files.recipe(history).recipe
    changes = vector_changes(history, old, recipe, {})
    others = [history.recipe_of(id) for id in sources]
    notes = tuple(dict.fromkeys([*notes, *left_behind(history, recipe, old, *others)]))
    return CommitResult(
        id=None,
        branch=history.head().branch,
        parents=(head,),
        vectors=tuple(changes),
        kept=other_kept(history, old, recipe, changes),
        notes=notes,
        subject=subject(message),
    )


def put(tree: LockedTree, edits: Mapping[str, bytes | None], verb: str) -> None:
    """Makes changes against HEAD to the work tree. `Refused` for a file that is edited, or in the way."""
    history = tree.history
    committed = history.files_of(history.head_commit())
    here = tracking.ids(history, edits)
    ids = {path: None if data is None else text_files.blob_id(data) for path, data in edits.items()}
    edited = sorted(path for path in ids if here.get(path) not in (committed.get(path), ids[path]))
    new = [path for path, id in ids.items() if id is not None and path not in {**here, **committed}]
    _refuse([*edited, *text_files.obstacles(history.root, new)], committed, verb)
    tree.track([path for path, data in edits.items() if data is not None and path not in committed])
    tree.apply({path: data for path, data in edits.items() if here.get(path) != ids[path]}, here)


def _edits(
    history: History, sequence: Sequence
) -> tuple[Mapping[str, str], Mapping[str, bytes | None], list[str]]:
    """The files as they are, their new contents, `recipe.toml` last, and notes on changes that are there.

    Raises `Refused` for a conflict, for an edited file, and if nothing is left to do. A file that has its new
    content already is no edit: the same command may have written it before it was cut short.
    """
    changes = [(one, change_of(history, sequence, one)) for one in sequence.todo]
    committed = history.files_of(history.head_commit())
    tracked = tracking.tracked(history).paths
    touched = {path for _, change in changes for side in (change.base, change.theirs) for path in side.files}
    here = tracking.ids(history, {*tracked, *touched, *committed})
    ours = side_of_worktree(history, {path: blob for path, blob in here.items() if path in tracked})
    before, now = ours.files, dict(here)
    names = Names(history.read_recipe, history.base_name, history.require_vector_of)
    edits: dict[str, bytes | None] = {}
    notes: list[str] = []
    for one, change in changes:
        merged = merge_files(change.base, change.theirs, ours, names)
        for conflict in merged.conflicts:
            refuse_other_base(conflict)
        if merged.conflicts:
            told = sentences(sequence.verb, merged.conflicts, change.labels)
            raise Refused(
                f"{abbreviate(one.commit)} cannot be {_DONE[sequence.verb]}: later commits or edits changed"
                " the same again\n" + "\n".join(f"  {line}" for line in told)
            )
        ids = {path: _id(data) for path, data in merged.edits.items()}
        if all(now.get(path) == id for path, id in ids.items()):
            why = why_nothing(sequence.verb, one.commit, bool(merged.edits), merged.rewritten)
            notes.append(why if len(changes) == 1 else f"left out {named(history, one.commit)}: {why}")
            continue
        edits |= merged.edits
        now |= {path: id for path, id in ids.items() if id is not None}
        for path in [path for path, id in ids.items() if id is None]:
            now.pop(path, None)
        ours = with_edits(history, ours, merged.edits)
    if len(notes) == len(changes):
        raise Refused(f"nothing to {sequence.verb}: {'; '.join(notes)}")
    edited = sorted(path for path in edits if here.get(path) not in (before.get(path), now.get(path)))
    new = [path for path in edits if path in now and path not in here and path not in committed]
    _refuse([*edited, *text_files.obstacles(history.root, new)], tracked, sequence.verb)
    paths = sorted(edits, key=lambda path: path == RECIPE_FILE)
    return here, {path: edits[path] for path in paths if here.get(path) != now.get(path)}, notes


def _id(data: bytes | None) -> str | None:
    return None if data is None else text_files.blob_id(data)


def _refuse(edited: Many[str], known: Container[str], verb: str) -> None:
    """`Refused` for files that are edited, or that are there without being known."""
    if strange := [path for path in edited if path not in known]:
        raise tracking.in_the_way(strange)
    if edited:
        raise Refused(
            f"uncommitted edits are in files that the {verb} changes: {', '.join(edited)}",
            hint=("commit first, or put it back with ", Call("restore", WorkFile(edited[0]))),
        )
