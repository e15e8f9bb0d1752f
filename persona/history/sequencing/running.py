"""Running a sequence: its commits are made one after another, then HEAD, the branch and the files move once.

Nothing moves before all commits are stored. So a command that is cut short has either moved HEAD to the end,
or to a stop, or has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Any, Final, NamedTuple, NoReturn

from persona.errors import Call, Refused
from persona.history import commit_checkout
from persona.history.commit_builder import (
    advice,
    build,
    other_kept,
    record,
    tidy,
    vector_changes,
)
from persona.history.history import History
from persona.history.options import RunOptions
from persona.history.recipes.conflicts import Strategy
from persona.history.results import CommitResult, Head, VectorChange
from persona.history.sequencing import concluding, moving
from persona.history.sequencing.picking import Change, Picked, back_from, of_commit, parent_of, pick
from persona.history.sequencing.results import SequenceResult, State
from persona.history.sequencing.state import (
    Action,
    Sequence,
    Stop,
    Todo,
    named,
    under_way,
)
from persona.history.sequencing.words import lost_notes, origin_line, revert_message, why_nothing
from persona.history.vectors.trained_from import left_behind_at
from persona.history.worktree import tracking, weights
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.sequence import is_sequence_under_way
from persona.objects.commit import Person
from persona.objects.tree import differing
from persona.store.ref_files import Head as HeadValue
from persona.store.refs import HEADS

_SQUASHES: Final[tuple[Action, ...]] = ("squash", "fixup")


class Made(NamedTuple):
    """The commits of a call, and what its result has to say besides."""

    before: Head
    commits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """The commits whose changes these have."""


def run(
    tree: LockedTree, sequence: Sequence, made: Made, trail: moving.Trail = (), *, alone: bool = False
) -> SequenceResult:
    """Makes the commits that are left of a sequence, and moves to the last one.

    `alone`: `Refused` for a commit that would change nothing; otherwise it is left out, with a note.

    `sequence.head` is the commit to begin from, and `trail` how HEAD gets there. Raises `Conflicted` at a
    conflict, after it was written.
    """
    history = tree.history
    at, steps = sequence.head, list(trail)
    notes, commits, sources = list(made.notes), list(made.commits), list(made.sources)
    todo = list(sequence.todo)
    goal: HeadValue | None = None
    while todo:
        one = todo.pop(0)
        if one.action in ("break", "exec"):
            stop = Stop("edit", at, (), history.commit(at).message, None, at, {})
            so_far = Made(made.before, tuple(commits), tuple(notes), tuple(sources))
            done = _edit(tree, sequence, at, todo, stop, steps, so_far)
            return replace(done, command=one.message)
        if _is_in_place(history, sequence, one, at):
            id = one.commit
        else:
            picked = _picked(history, sequence, one, at)
            if picked.tree is None:
                _conflict(tree, sequence, at, todo, one, picked, steps, commits)
            new = _made(history, sequence, one, picked, at)
            notes += lost_notes(picked.lost, named(history, one.commit))
            if new is None:
                if alone:
                    raise Refused(f"nothing to {sequence.verb}: {_why_nothing(sequence, one, picked)}")
                notes.append(_left_out(history, sequence, one, picked))
                continue
            id = new
            sources.append(other_side(history, sequence, one))
            commits = [*(old for old in commits if one.action not in _SQUASHES or old != at), id]
        at = id
        steps.append((id, f"{_verb_of(sequence, one)}: {history.commit(id).subject}"))
        if one.action == "edit":
            commit = history.commit(id)
            stop = Stop("edit", id, commit.parents, commit.message, commit.author, id, {})
            so_far = Made(made.before, tuple(commits), tuple(notes), tuple(sources))
            return _edit(tree, sequence, at, todo, stop, steps, so_far)
    arrival: str | None = None
    if sequence.verb == "rebase":
        goal = ("id", at)
        if sequence.branch is not None:  # as git: a detached HEAD gets no line for the end
            back, goal = HEADS + sequence.branch, ("ref", HEADS + sequence.branch)
            arrival = f"rebase (finish): {back} onto {sequence.onto}"
            steps.append((at, f"rebase (finish): returning to {back}"))
    if is_sequence_under_way(history):
        rest = replace(sequence, phase="finishing", commit=at)
        tree.sequence(rest.to_json())
    notes += moving.travel(tree, steps, goal=goal, arrival=arrival)
    tree.sequence(None)
    end = Made(made.before, tuple(commits), tuple(notes), tuple(sources))
    return result(tree, sequence.verb, "done" if commits else "nothing", end)


def result(
    tree: LockedTree,
    verb: str,
    state: State,
    made: Made,
    *,
    left: int = 0,
    stopped: str | None = None,
    **more: Any,
) -> SequenceResult:
    """The result of a call."""
    history = tree.history
    head = history.head()
    commits = tuple(commit_result(history, id, head.branch) for id in made.commits)
    lost = [] if state == "aborted" else left_behind_at(history, head.id, made.before.id, *made.sources)
    return SequenceResult(
        verb=verb,
        state=state,
        head=head,
        before=made.before,
        commits=commits,
        left=left,
        stopped=stopped,
        weights=weights.standing(history, tree),
        notes=tuple(dict.fromkeys([*made.notes, *(note for each in commits for note in each.notes), *lost])),
        **more,
    )


def commit_result(history: History, id: str, branch: str | None) -> CommitResult:
    """A commit that was made without the work tree, as `commit` shows one."""
    commit = history.commit(id)
    old = history.recipe_of(commit.parents[0]) if commit.parents else None
    new = history.recipe_of(id)
    changes: list[VectorChange] = vector_changes(history, old, new, {})
    return CommitResult(
        id=id,
        branch=branch,
        parents=commit.parents,
        vectors=tuple(changes),
        kept=other_kept(history, old, new, changes),
        notes=tuple(advice(old, new)),
        subject=commit.subject,
    )


def at_once(history: History, done: SequenceResult, options: RunOptions | None) -> SequenceResult:
    """The result, with the weights of its last commit computed if `options` are given."""
    if done.last is None:
        return done
    last = commit_checkout.at_once(history, done.last, options)
    if last is done.last:
        return done
    notes = tuple(dict.fromkeys([*done.notes, *last.notes]))
    return replace(done, commits=(*done.commits[:-1], last), notes=notes)


# -- one commit ----------------------------------------------------------------------------------------------


def change_of(history: History, sequence: Sequence, one: Todo) -> Change:
    """The change of a commit that is to be made again, or taken back."""
    if sequence.verb == "revert":
        there = f"before {named(history, one.commit)}"
        return back_from(history, one.commit, one.mainline, ("HEAD", there))
    return of_commit(history, one.commit, one.mainline, ("HEAD", named(history, one.commit)))


def other_side(history: History, sequence: Sequence, one: Todo) -> str:
    """The commit whose files are the other side of a conflict."""
    if sequence.verb != "revert":
        return one.commit
    return parent_of(history, one.commit, one.mainline, "go back to") or one.commit


def _picked(history: History, sequence: Sequence, one: Todo, at: str) -> Picked:
    change = change_of(history, sequence, one)
    strategy: Any = sequence.strategy
    with history.store.transaction() as tx:
        return pick(history, tx, change, at, strategy)


def _made(history: History, sequence: Sequence, one: Todo, picked: Picked, at: str) -> str | None:
    """The new commit; None if it would change nothing, and the old one did."""
    assert picked.tree is not None
    here = history.commit(at)
    squashes = one.action in _SQUASHES
    if picked.tree == here.tree and not squashes and not _was_empty(history, sequence, one):
        return None
    author, message = person_of(history, sequence, one), message_of(history, sequence, one)
    parents: tuple[str, ...] = (at,)
    if squashes:
        parents, author = here.parents, here.author
        message = one.message or here.message
    with history.store.transaction() as tx:
        tx.rely_on(picked.tree)
        return build(
            tx, picked.tree, parents, author=author, committer=history.committer(), message=tidy(message)
        )


def _is_in_place(history: History, sequence: Sequence, one: Todo, at: str) -> bool:
    """Whether a rebase takes a commit over as it is, because it is where it has to be."""
    kept = sequence.verb == "rebase" and one.action in ("pick", "edit") and one.message is None
    return kept and history.commit(one.commit).parents == (at,)


def _was_empty(history: History, sequence: Sequence, one: Todo) -> bool:
    """Whether a rebase takes over a commit that changes nothing, as the old one did."""
    if sequence.verb != "rebase":
        return False
    commit = history.commit(one.commit)
    return bool(commit.parents) and history.commit(commit.parents[0]).tree == commit.tree


def person_of(history: History, sequence: Sequence, one: Todo) -> Person:
    """The author of the new commit: who wrote the old one, but for a revert."""
    return history.author() if sequence.verb == "revert" else history.commit(one.commit).author


def message_of(history: History, sequence: Sequence, one: Todo) -> str:
    """The message of the new commit."""
    if one.message is not None:
        return one.message
    if sequence.verb == "revert":
        return revert_message(history, one.commit, one.mainline)
    message = history.commit(one.commit).message
    return origin_line(message, one.commit) if sequence.origin else message


def _verb_of(sequence: Sequence, one: Todo) -> str:
    """The words of a reflog for a step, as git's."""
    return f"rebase ({one.action})" if sequence.verb == "rebase" else sequence.verb


def _left_out(history: History, sequence: Sequence, one: Todo, picked: Picked) -> str:
    """The note on a commit that would change nothing."""
    return f"left out {named(history, one.commit)}: {_why_nothing(sequence, one, picked)}"


def _why_nothing(sequence: Sequence, one: Todo, picked: Picked) -> str:
    return why_nothing(sequence.verb, one.commit, bool(picked.edits), picked.rewritten)


# -- stops ---------------------------------------------------------------------------------------------------


def _goal_of_stop(sequence: Sequence, at: str) -> HeadValue | None:
    """HEAD at a stop: a rebase has it detached."""
    return ("id", at) if sequence.verb == "rebase" else None


def _conflict(
    tree: LockedTree,
    sequence: Sequence,
    at: str,
    todo: Many[Todo],
    one: Todo,
    picked: Picked,
    steps: moving.Trail,
    commits: Many[str],
) -> NoReturn:
    """Stops at a conflict, and raises it."""
    history = tree.history
    squashes = one.action in _SQUASHES
    here = history.commit(at)
    message = (one.message or here.message) if squashes else message_of(history, sequence, one)
    author: Person | None = here.author if squashes else history.commit(one.commit).author
    if sequence.verb == "revert":
        author = None  # the one who concludes it, then
    stop = Stop(
        why="conflict",
        theirs=other_side(history, sequence, one),
        commit=one.commit,
        parents=here.parents if squashes else (at,),
        message=tidy(message),
        author=author,
        left=moving.files_left(history, {**picked.edits}, picked.conflicts, at),
        conflicts=picked.conflicts,
        labels=change_of(history, sequence, one).labels,
        amends=squashes,
    )
    stopped = replace(sequence, head=at, todo=tuple(todo), stop=stop, made=(*sequence.made, *commits))
    moving.stop_here(tree, stopped, steps, _goal_of_stop(sequence, at))
    moving.raise_conflict(stopped, picked.told, moving.stopped_at(history, stopped), picked.lost)


def _edit(
    tree: LockedTree,
    sequence: Sequence,
    at: str,
    todo: Many[Todo],
    stop: Stop,
    steps: moving.Trail,
    made: Made,
) -> SequenceResult:
    """Stops where the user asked for it."""
    rest = replace(sequence, head=at, todo=tuple(todo), stop=stop, made=(*sequence.made, *made.commits))
    said = moving.stop_here(tree, rest, steps, _goal_of_stop(sequence, at))
    done = made._replace(notes=(*made.notes, *said))
    return result(tree, sequence.verb, "edit", done, left=len(todo), stopped=at)


# -- going on ------------------------------------------------------------------------------------------------


def go_on(
    tree: LockedTree, verb: Any, *, message: str | None = None, strategy: Strategy | None = None
) -> SequenceResult:
    """`--continue`: commits what was resolved, and makes the commits that are left.

    `strategy` resolves the conflicts that stand. Raises `Conflicted` if some stand.
    """
    history = tree.history
    before = history.head()
    sequence = under_way(history, verb)
    moving.refuse_leaving(sequence)
    sequence = moving.placed(tree, sequence)
    if strategy is not None and sequence.stop is not None:
        from persona.history.sequencing.resolving import resolve_with

        resolve_with(tree, sequence, strategy)
    made = Made(before, sources=_begun_at(sequence))
    if sequence.stop is None:
        sequence = _from_head(history, sequence)
    else:
        sequence, made = _concluded(tree, sequence, made, message)
    if not sequence.todo and sequence.verb != "rebase":
        tree.sequence(None)
        return result(tree, verb, "done" if made.commits else "nothing", made)
    return run(tree, sequence, made)


def _concluded(
    tree: LockedTree, sequence: Sequence, made: Made, message: str | None
) -> tuple[Sequence, Made]:
    """The sequence after its stop, with what the work tree holds committed."""
    history, stop = tree.history, sequence.stop
    assert stop is not None
    head = history.head_commit()
    moving.refuse_standing(tree, sequence)
    committed = history.files_of(head)
    changed = bool(differing(committed, tracking.snapshot(history)))
    if stop.why == "edit":
        if changed and (head != stop.commit or not stop.parents):
            raise Refused(
                "there are edits that no commit holds",
                hint=(
                    "record them with ",
                    Call("commit"),
                    ", or ",
                    Call("commit", amend=True),
                    " puts them into the last commit; then ",
                    Call("rebase", continue_=True),
                ),
            )
        if changed:
            who, verb = history.author(), "rebase (continue)"
            done = record(tree, who, message, amend=True, allow_empty=True, verb=verb)
            head = done.id or head
            made = made._replace(commits=(head,))
        return replace(sequence, stop=None, head=head), made
    if not changed and sequence.verb != "merge" and not stop.amends:
        note = f"left out {named(history, stop.commit)}: nothing of its change is left"
        return replace(sequence, stop=None, head=head), made._replace(notes=(note,))
    verb = "rebase (continue)" if sequence.verb == "rebase" else concluding.reflog_verb(sequence)
    done = concluding.conclude(tree, sequence, message, verb)
    assert done.id is not None
    rest = replace(sequence, stop=None, head=done.id, made=(*sequence.made, done.id))
    return rest, made._replace(commits=(*made.commits, done.id), notes=done.notes)


def skip(tree: LockedTree, verb: Any) -> SequenceResult:
    """`--skip`: drops the commit at which the sequence stopped, and makes the others."""
    history = tree.history
    before = history.head()
    sequence = under_way(history, verb)
    moving.refuse_leaving(sequence)
    if sequence.phase == "placing":
        sequence = moving.placed(tree, sequence)
    notes: tuple[str, ...] = ()
    if sequence.stop is not None:
        if sequence.stop.why != "edit":
            notes = (f"left out {named(history, sequence.stop.commit)}",)
        sequence = moving.drop_stop(tree, sequence)
        over = not sequence.todo and verb != "rebase"
        tree.sequence(None if over else sequence.to_json())
        if over:
            return result(tree, verb, "nothing", Made(before, (), notes))
    else:
        sequence = _from_head(history, sequence)
    return run(tree, sequence, Made(before, (), notes, _begun_at(sequence)))


def _begun_at(sequence: Sequence) -> tuple[str, ...]:
    """The commit from which a rebase takes the branch away, as a source of its commits."""
    return (sequence.begin.id,) if sequence.verb == "rebase" and sequence.begin.id else ()


def _from_head(history: History, sequence: Sequence) -> Sequence:
    """A sequence without a stop, which goes on from HEAD: commits may have been made since the stop."""
    return replace(sequence, head=history.head_commit())


def forget(tree: LockedTree, verb: Any) -> SequenceResult:
    """`--quit`: forgets the sequence; HEAD and the files stay as they are."""
    before = tree.history.head_or_name()
    if verb == "rebase" or is_sequence_under_way(tree.history):  # as git: only `rebase` complains
        under_way(tree.history, verb)
    tree.sequence(None)
    return result(tree, verb, "quit", Made(before))


def abort(tree: LockedTree, verb: Any) -> SequenceResult:
    """`--abort`: HEAD, its branch and the files are as they were before the sequence.

    As in git, HEAD and the files stay as they are if the user has moved HEAD since the stop.
    """
    history = tree.history
    before = history.head_or_name()
    sequence = under_way(history, verb)
    if (note := moving.moved_since(history, sequence)) is not None:
        tree.sequence(None)
        return result(tree, verb, "quit", Made(before, (), (note,)))
    notes = moving.go_back(tree, sequence)
    return result(tree, verb, "aborted", Made(before, (), tuple(notes)))
