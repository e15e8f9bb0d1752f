"""How a sequence changes HEAD, its branch, the work tree and `state/sequence` together.

A stop: the state, as "placing"; the files and HEAD of the commits made so far; the files of the conflict; the
state, as "waiting". The end: the files and HEAD in one move; the state is removed. Going back: the state, as
"leaving"; the files and HEAD; the state is removed.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from persona.errors import Call, Conflicted, Keyword, Note, PersonaError, Refused
from persona.history.history import History, reason
from persona.history.recipes.conflicts import Conflict
from persona.history.results import Head
from persona.history.sequencing.results import views
from persona.history.sequencing.state import METHODS, Sequence, Stop, named, read_sequence, standing
from persona.history.sequencing.words import lost_notes, sentences, way_to_name
from persona.history.worktree import text_files, tracking, weights
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import FileMove, plan_files
from persona.history.worktree.sequence import SEQUENCE
from persona.objects.ids import abbreviate
from persona.objects.tree import differing
from persona.store.ref_files import Head as HeadValue
from persona.store.refs import HEADS

Trail = Many[tuple[str, str]]
"""The commits that HEAD passes on its way, each with the sentence of its reflog."""


def travel(
    tree: LockedTree,
    trail: Trail,
    *,
    goal: HeadValue | None = None,
    arrival: str | None = None,
    files: FileMove | None = None,
) -> list[str]:
    """Moves HEAD and the text files to the last commit of a trail, all or nothing; returns the notes.

    `goal`: the value that HEAD gets, by default the branch that it is on, which moves along. `arrival`: the
    sentence of the reflog of the branch that HEAD comes back to. `files`: a move that is planned already.
    """
    history = tree.history
    if not trail:
        return []
    to, person = trail[-1][0], history.committer()
    files = plan_files(history, to, force=False, can_force=False) if files is None else files
    expect, at = history.store.refs.position()
    assert at is not None
    if goal is None and expect[0] == "id" and all(id == at for id, _ in trail):
        with tree.moving(files):  # as git: a detached HEAD that stays gets no line
            return files.notes
    with tree.moving(files):
        history.store.refs.travel(
            [(id, reason(person, why)) for id, why in trail],
            expect=expect,
            at=at,
            to=goal,
            arrival=None if arrival is None else reason(person, arrival),
        )
    weights.adopt_commit(tree, history.recipe_of(to), to)
    return files.notes


def refuse_edits(history: History, what: str) -> None:
    """`Refused` if the work tree has edits that a commit of `what` would hold."""
    committed = history.files_of(history.head_commit())
    edited = differing(committed, tracking.snapshot(history))
    if edited:
        raise Refused(
            f"uncommitted edits would go into the {what}'s commit: {', '.join(edited)}",
            hint=(
                "commit first; or ",
                Call("reset", mode="hard"),
                " drops edits and new files",
                *(
                    ("; or ", Keyword(no_commit=True), " adds the revert to the edits")
                    if what == "revert"
                    else ()
                ),
            ),
        )


# -- stops ---------------------------------------------------------------------------------------------------


def stop_here(tree: LockedTree, sequence: Sequence, trail: Trail, goal: HeadValue | None = None) -> list[str]:
    """Stops a sequence: HEAD goes along the trail, and the files of the stop are written.

    `Refused` if there are edits, because the commit that concludes the stop would hold them.
    """
    history, stop = tree.history, sequence.stop
    before = history.store.state(SEQUENCE).read()
    assert stop is not None
    refuse_edits(history, sequence.verb)
    _refuse_overwriting(history, stop)
    tree.sequence(replace(sequence, phase="placing").to_json())
    try:
        notes = travel(tree, trail, goal=goal)
    except PersonaError:
        with suppress(PersonaError):
            tree.sequence(before)
        raise
    place(tree, sequence)
    return notes


def _refuse_overwriting(history: History, stop: Stop) -> None:
    """`Refused` if a file that a stop writes has been there without being tracked."""
    committed = history.files_of(history.head_commit())
    new = [path for path, blob in stop.left.items() if path not in committed and blob is not None]
    here = tracking.ids(history, new)
    strange = [path for path, id in here.items() if id != stop.left[path]]
    if strange := sorted([*strange, *text_files.obstacles(history.root, new)]):
        raise tracking.in_the_way(strange)


def place(tree: LockedTree, sequence: Sequence) -> None:
    """Writes the files of a stop into the work tree, except those that are edited."""
    history, stop = tree.history, sequence.stop
    if stop is not None:
        committed = history.files_of(sequence.head)
        here = tracking.ids(history, stop.left)
        new = {
            path: blob
            for path, blob in stop.left.items()
            if here.get(path) != blob and here.get(path) == committed.get(path)
        }
        tree.apply({path: None if blob is None else history.blob(blob) for path, blob in new.items()}, here)
        tree.track([path for path, blob in stop.left.items() if blob is not None and path not in committed])
    tree.sequence(replace(sequence, phase="waiting").to_json())


def placed(tree: LockedTree, sequence: Sequence) -> Sequence:
    """A sequence whose stop is in the work tree: one that was cut short before is written now."""
    if sequence.phase != "placing":
        return sequence
    history = tree.history
    head = history.head()
    goal: HeadValue | None = ("id", sequence.head) if sequence.verb == "rebase" else None
    if head.id != sequence.head or (goal is not None and head.branch is not None):
        travel(tree, [(sequence.head, f"{sequence.verb}: continue")], goal=goal)
    place(tree, sequence)
    return replace(sequence, phase="waiting")


def refuse_leaving(sequence: Sequence) -> None:
    """`Refused` if a way back was cut short, which has to be finished."""
    if sequence.phase == "leaving":
        hint = (Call(METHODS[sequence.verb], abort=True), " finishes it")
        raise Refused(f"the end of this {sequence.verb} was cut short", hint=hint)


def refuse_standing(tree: LockedTree, sequence: Sequence) -> None:
    """`Conflicted` if conflicts of the stop stand."""
    stop = sequence.stop
    if stop is not None and (found := standing(tree.history, stop)):
        count = "a conflict stands" if len(found) == 1 else f"{len(found)} conflicts stand"
        raise_conflict(sequence, found, f"{count} in {_files(found)}")


def _files(found: Many[Conflict]) -> str:
    return ", ".join(dict.fromkeys(conflict.path for conflict in found))


def raise_conflict(sequence: Sequence, told: Many[Conflict], sentence: str, lost: Many[str] = ()) -> NoReturn:
    """Raises the error for conflicts: each with its values, and what to do.

    `lost`: comments of theirs that are not in the files.
    """
    stop = sequence.stop
    assert stop is not None
    method = METHODS[sequence.verb]
    lines = [*sentences(sequence.verb, told, stop.labels), *lost_notes(lost, stop.labels[1])]
    listed = [f"  {line}" for line in lines]
    whole = [one.path for one in told if one.problem in ("presence", "binary", "json", "style")]
    named_ones = ("; ", Call("add", whole[0]), " keeps a file as it is") if whole else ()
    raise Conflicted(
        "\n".join([sentence, *dict.fromkeys(listed)]),
        conflicts=views(told),
        hint=(
            "edit the files and delete the markers",
            *named_ones,
            *way_to_name(told),
            "; then ",
            Call(method, continue_=True),
            "; ",
            *(() if sequence.verb == "merge" else (Call(method, skip=True), " leaves this commit out; ")),
            Call(method, abort=True),
            " goes back",
        ),
    )


# -- the end -------------------------------------------------------------------------------------------------


def moved_since(history: History, sequence: Sequence) -> Note | None:
    """The note that the user has moved HEAD since the last stop: going back would leave these commits out.

    As in git, that is no matter for a rebase, whose commits are on no branch yet.
    """
    if sequence.verb == "rebase" or sequence.phase == "placing":
        return None
    if history.head_commit() in (sequence.head, sequence.begin.id):
        return None
    back = Call("reset", abbreviate(sequence.begin.id or ""), mode="hard")
    return Note(
        f"you have moved HEAD since the {sequence.verb} stopped, so HEAD stays where it is",
        (back, f" goes back to where the {sequence.verb} began"),
    )


def go_back(tree: LockedTree, sequence: Sequence) -> list[str]:
    """Puts HEAD, its branch and the files back to where a sequence began, and ends it.

    `Refused` for edits that would be lost, made since the stop in files without a conflict.
    """
    history, begin = tree.history, sequence.begin
    assert begin.id is not None
    move = None if sequence.verb == "rebase" else _way_back(history, begin.id, sequence)
    tree.sequence(replace(sequence, phase="leaving").to_json())
    here = history.head()
    goal: HeadValue | None = None
    id = begin.id
    if sequence.verb == "rebase":
        goal = ("id", id)
        if begin.branch is not None:
            at = history.store.refs.read(HEADS + begin.branch)
            goal, id = (("ref", HEADS + begin.branch), at) if at is not None else (goal, id)
        back = f"refs/heads/{begin.branch}" if begin.branch is not None else id
        why = f"rebase (abort): returning to {back}"
    else:
        why = f"reset: moving to {'HEAD' if sequence.verb == 'merge' else id}"
    move = _way_back(history, id, sequence) if move is None else move
    stays = here.id == id and (sequence.verb != "rebase" or here.branch == begin.branch)
    if stays and not move.paths and sequence.phase in ("placing", "leaving"):
        tree.sequence(None)
        return []
    notes = travel(tree, [(id, why)], goal=goal, files=move)
    tree.forget([path for path in (sequence.stop.left if sequence.stop else ()) if path not in move.target])
    tree.sequence(None)
    return notes


def _way_back(history: History, to: str, sequence: Sequence) -> FileMove:
    """The move of the files from a stop to a commit. Edits of files with a conflict are dropped.

    As git does it, with `reset --merge`: edits of files that the sequence has not changed stay, and edits of
    others are refused. A rebase drops all edits, as with `reset --hard`.
    """
    before, after = history.files_of(history.head_commit()), history.files_of(to)
    stop = sequence.stop
    left = stop.left if stop is not None else {}
    changed = {*left, *differing(before, after)}
    here = tracking.ids(history, {*before, *after, *left})
    if sequence.verb == "rebase":
        changed |= here.keys()
    else:
        conflicted = {conflict.path for conflict in stop.conflicts} if stop is not None else set[str]()
        edited = [
            path
            for path in sorted(changed - conflicted)
            if here.get(path) not in (before.get(path), after.get(path), left.get(path))
        ]
        if edited:
            raise Refused(
                f"edits that no commit holds would be lost: {', '.join(edited)}",
                hint=(
                    "copy the files to keep them; ",
                    Call("reset", mode="hard"),
                    f" drops the edits and the {sequence.verb}",
                ),
            )
    move = FileMove(after, here, tuple(path for path in differing(here, after) if path in changed), to)
    move.check(history)
    return move


def drop_stop(tree: LockedTree, sequence: Sequence) -> Sequence:
    """Puts the files of HEAD back, and forgets the commit at which the sequence stopped."""
    history = tree.history
    left = sequence.stop.left if sequence.stop is not None else {}
    move = _way_back(history, history.head_commit(), sequence)
    tree.put(move.target, move.current, move.paths)
    tree.forget([path for path in left if path not in move.target])
    if sequence.verb != "rebase":
        head = history.head_commit()
        travel(tree, [(head, f"reset: moving to {head}")])
    return replace(sequence, stop=None, head=history.head_commit(), phase="waiting")


def settle_with(tree: LockedTree, sequence: Sequence) -> None:
    """Drops the stop after the user has moved HEAD by hand: `commit`, `reset`. The rest of the list stays.

    `head` stays too, so that `moved_since` sees it.
    """
    rest = replace(sequence, stop=None, phase="waiting")
    over = not rest.todo and rest.verb != "rebase"
    tree.sequence(None if over else rest.to_json())


def sequence_before_reset(tree: LockedTree, mode: str) -> Sequence | None:
    """The sequence that a reset drops, as "leaving" if it puts files back. `Refused` for a soft one."""
    found = read_sequence(tree.history)
    if found is None:
        return None
    if mode == "soft" and found.stop is not None and found.stop.why != "edit":
        raise Refused(
            f"cannot do a soft reset in the middle of a {found.verb}",
            hint=(Call(METHODS[found.verb], abort=True), " goes back"),
        )
    if mode == "hard":
        tree.sequence(replace(found, phase="leaving").to_json())
    return found


def where(head: Head) -> str:
    """HEAD in a sentence."""
    return head.branch or f"detached HEAD at {abbreviate(head.id or '')}"


def stopped_at(history: History, sequence: Sequence) -> str:
    """The sentence of a stop."""
    stop = sequence.stop
    assert stop is not None
    if sequence.verb == "merge":
        return f"the merge of {stop.labels[1]} stopped at a conflict"
    does = {"cherry-pick": "picked", "revert": "reverted", "rebase": "rebased"}[sequence.verb]
    return f"{named(history, stop.commit)} cannot be {does}: a conflict"


def files_left(
    history: History, edits: dict[str, bytes | None], conflicts: Many[Conflict], head: str
) -> dict[str, str | None]:
    """path → blob id of the files of a stop, also of those with a conflict that stay as they are."""
    committed = history.files_of(head)
    left = {conflict.path: committed.get(conflict.path) for conflict in conflicts}
    return left | {path: None if data is None else text_files.blob_id(data) for path, data in edits.items()}
