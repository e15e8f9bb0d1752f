"""`rebase`: makes the commits of a branch again on another commit.

All new commits are made first. Then HEAD, the branch and the files move once; or, at a conflict, HEAD moves
to the last new commit, on no branch, until `--continue`, `--skip` or `--abort`. The branch itself moves last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from persona.errors import BusyError
from persona.history import placing
from persona.history.history import History
from persona.history.names.revisions import branch_named, resolve
from persona.history.names.walk import topological, walk
from persona.history.results import Head
from persona.history.sequencing import moving, running, todo_list
from persona.history.sequencing.choosing import one_of_these
from persona.history.sequencing.results import SequenceResult
from persona.history.sequencing.running import Made
from persona.history.sequencing.same_change import change_key, keys_of
from persona.history.sequencing.state import Sequence, Todo, named, refuse_second
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.store.ref_files import Head as HeadValue
from persona.store.refs import HEADS


def rebase(
    history: History,
    upstream: str | None = None,
    branch: str | None = None,
    *,
    onto: str | None = None,
    todo: Callable[[str], str] | None = None,
    messages: Callable[[str], str] | None = None,
    strategy: Literal["ours", "theirs", "mean"] | None = None,
    message: str | None = None,
    continue_: bool = False,
    abort: bool = False,
    skip: bool = False,
) -> SequenceResult:
    """Makes the commits that HEAD has and `upstream` has not again, on `upstream` or on `onto`.

    `branch`: HEAD goes to this branch first. Merges are left out, and commits whose change `upstream` has
    already. A conflict raises `Conflicted`: it is written into the work tree, with HEAD detached at the new
    commits so far. `strategy` decides conflicts, as for `merge`; "ours" is the side of `onto`. `continue_`
    goes on after that, with `message` if it is given; `skip` leaves the commit out; `abort` goes back to
    where everything was. `todo`: an interactive rebase; it takes the list of commits as text, and returns the
    edited one. `messages`: takes the message of a reworded or squashed commit, and returns the new one.
    """
    one_of_these(upstream is not None, continue_, abort, skip)
    wanted = None if abort else placing.wanted_at_once(history)
    edited = None
    if upstream is not None and todo is not None:  # before the lock, which no editor should hold
        _refuse(history)
        goal = _goal(history, upstream, branch, onto, [])
        edited = goal, _edited(history, goal, todo, messages or (lambda text: text))
    with changing(history) as tree:
        if abort:
            return running.abort(tree, "rebase")
        if skip:
            made = running.skip(tree, "rebase")
        elif continue_:
            made = running.go_on(tree, "rebase", message=message, strategy=strategy)
        else:
            assert upstream is not None
            made = _rebase(tree, upstream, branch, onto, edited, strategy)
    return running.at_once(history, made, wanted)


class Goal(NamedTuple):
    """The commits that a rebase is about: the branch, the upstream, and the commit to build on."""

    begin: Head
    tip: str
    below: str
    base: str
    name: str


def _goal(history: History, upstream: str, branch: str | None, onto: str | None, notes: list[str]) -> Goal:
    begin = history.head() if branch is None else _head_of(history, branch, notes)
    below = resolve(history, upstream, notes)
    base = below if onto is None else resolve(history, onto, notes)
    return Goal(begin, begin.id or history.head_commit(), below, base, onto or upstream)


def _refuse(history: History) -> None:
    """`Refused` if a sequence is under way, or if the work tree has edits."""
    refuse_second(history, "rebase")
    moving.refuse_edits(history, "rebase")


def _edited(
    history: History, goal: Goal, edit: Callable[[str], str], messages: Callable[[str], str]
) -> tuple[Todo, ...]:
    """The list of commits as the user has edited it, with all messages."""
    todo = _todo(history, goal.tip, goal.below, [])
    todo = todo_list.read(history, edit(todo_list.written(history, todo, goal.base)))
    return todo_list.with_messages(history, todo, messages)


def _rebase(
    tree: LockedTree,
    upstream: str,
    branch: str | None,
    onto: str | None,
    edited: tuple[Goal, tuple[Todo, ...]] | None,
    strategy: str | None,
) -> SequenceResult:
    history = tree.history
    _refuse(history)
    notes: list[str] = []
    before = history.head()
    goal = _goal(history, upstream, branch, onto, notes)
    if edited is not None and edited[0] != goal:
        raise BusyError("a branch moved while the list of commits was edited; run the command again")
    todo = _todo(history, goal.tip, goal.below, notes) if edited is None else edited[1]
    at, todo = _kept(history, goal.base, todo)
    made = Made(before, (), tuple(notes))
    begin, tip = goal.begin, goal.tip
    if at == tip and not todo:
        if before != begin:
            head: HeadValue = ("id", tip) if begin.branch is None else ("ref", HEADS + begin.branch)
            moving.travel(tree, [(tip, f"rebase: checkout {branch}")], goal=head)
        return running.result(tree, "rebase", "up to date", made)
    tree.remember(tip)
    sequence = replace(
        Sequence("rebase", begin, at, None, todo),
        strategy=strategy,
        onto=goal.base,
        branch=begin.branch,
        onto_name=goal.name,
        upstream=goal.below,
    )
    return running.run(tree, sequence, made, [(at, f"rebase (start): checkout {goal.name}")])


def _head_of(history: History, branch: str, notes: list[str]) -> Head:
    """HEAD at a branch, or detached at a revision."""
    ref = branch_named(history, branch, notes)
    id = resolve(history, ref or branch, notes)
    return Head(None if ref is None else ref.removeprefix(HEADS), id)


def _todo(history: History, tip: str, below: str, notes: list[str]) -> tuple[Todo, ...]:
    """The commits to make again, oldest first."""
    found = [id for id, commit in topological(walk(history, [tip], [below])) if len(commit.parents) == 1]
    there = keys_of(history, (id for id, _ in walk(history, [below], [tip]))) if found else set()
    todo: list[Todo] = []
    for id in reversed(found):
        if there and change_key(history, id) in there:
            notes.append(f"left out {named(history, id)}: its change is there already")
        else:
            todo.append(Todo("pick", id))
    return tuple(todo)


def _kept(history: History, base: str, todo: tuple[Todo, ...]) -> tuple[str, tuple[Todo, ...]]:
    """The commit to begin from, and the rest of the list: commits that are in place already stay."""
    at = base
    while todo and todo[0].action == "pick" and history.commit(todo[0].commit).parents == (at,):
        following = todo[1].action if len(todo) > 1 else None
        if following in ("squash", "fixup"):
            break
        at, todo = todo[0].commit, todo[1:]
    return at, todo
