"""`rebase`: makes the commits of a branch again on another commit.

All new commits are made first. Then HEAD, the branch and the files move once; or, at a conflict, HEAD moves
to the last new commit, on no branch, until `--continue`, `--skip` or `--abort`. The branch itself moves last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from persona.errors import BusyError, Call, Refused, UsageError, listed, quoted
from persona.history import commit_checkout
from persona.history.history import History
from persona.history.names.revisions import branch_named, resolve
from persona.history.names.walk import topological, walk
from persona.history.results import Head
from persona.history.sequencing import moving, running, state, todo_list
from persona.history.sequencing.choosing import one_of_these
from persona.history.sequencing.results import SequenceResult
from persona.history.sequencing.running import Made
from persona.history.sequencing.same_change import change_key, keys_of
from persona.history.sequencing.state import Todo, named, refuse_second, under_way
from persona.history.worktree import tracking
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.sequence import is_sequence_under_way
from persona.objects.tree import differing
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
    autosquash: bool = False,
    commands: str | Sequence[str] = (),
    execute: Callable[[str], int] | None = None,
    strategy: Literal["ours", "theirs", "mean"] | None = None,
    message: str | None = None,
    continue_: bool = False,
    abort: bool = False,
    skip: bool = False,
    edit_todo: bool = False,
    quit_: bool = False,
) -> SequenceResult:
    """Makes the commits that HEAD has and `upstream` has not again, on `upstream` or on `onto`.

    `branch`: HEAD goes to this branch first. Merges are left out, and commits whose change `upstream` has
    already. A conflict raises `Conflicted`: it is written into the work tree, with HEAD detached at the new
    commits so far. `strategy` decides conflicts, as for `merge`; "ours" is the side of `onto`. `continue_`
    goes on after that, with `message` if it is given; `skip` leaves the commit out; `abort` goes back to
    where everything was. `todo`: an interactive rebase; it takes the list of commits as text, and returns the
    edited one. `messages`: takes the message of a reworded or squashed commit, and returns the new one.
    `autosquash`: a commit whose subject begins with "fixup! " or "squash! " goes into the one that it names.
    `commands`: run after each new commit. `execute`: takes a command, runs it and returns its exit code; if
    that is not 0, or if the command leaves edits, the rebase stops there with `Refused`. `edit_todo`: `todo`
    takes the commits that are left, after a stop. `quit_`: forgets the rebase; HEAD and the files stay.
    """
    one_of_these(upstream is not None, continue_, abort, skip, edit_todo, quit_)
    wanted = None if abort or quit_ else commit_checkout.wanted(history)
    commands = [commands] if isinstance(commands, str) else commands
    if edit_todo:
        return _with_rest(history, todo or (lambda text: text), messages or (lambda text: text))
    edited = None
    if upstream is not None and (todo is not None or autosquash or commands):
        _refuse(history)  # before the lock, which no editor should hold
        goal = _goal(history, upstream, branch, onto, [])
        left_out: list[str] = []
        plan = _plan(history, goal, autosquash, commands, left_out)
        edited = goal, _edited(history, goal, plan, todo, messages or (lambda text: text)), left_out
        _check_execute(edited[1], execute)
    elif not (abort or quit_) and is_sequence_under_way(history):
        _check_execute(under_way(history, "rebase").todo, execute)
    with changing(history) as tree:
        if abort:
            return running.abort(tree, "rebase")
        if quit_:
            return running.forget(tree, "rebase")
        if skip:
            made = running.skip(tree, "rebase")
        elif continue_:
            made = running.go_on(tree, "rebase", message=message, strategy=strategy)
        else:
            assert upstream is not None
            made = _rebase(tree, upstream, branch, onto, edited, strategy)
    while made.command is not None and execute is not None:
        made = _executed(history, made, made.command, execute)
    return running.at_once(history, made, wanted)


def _check_execute(todo: Sequence[Todo], execute: Callable[[str], int] | None) -> None:
    if execute is None and any(one.action == "exec" for one in todo):
        raise UsageError("the list of commits has commands: give `execute`, which runs them")


def _executed(
    history: History, made: SequenceResult, command: str, execute: Callable[[str], int]
) -> SequenceResult:
    """What a rebase has done after a command of its list was run, and gone on. No lock is held meanwhile."""
    code = execute(command)
    edited = differing(history.files_of(history.head_commit()), tracking.snapshot(history))
    if code or edited:
        left = f" left edits in {listed(edited)}" if edited else ""
        failed = f" failed with exit code {code}" if code else ""
        raise Refused(
            f"{quoted(command)}{failed}{' and' if failed and left else ''}{left}; the rebase waits",
            hint=(
                *(("commit or drop the edits, then ",) if edited else ()),
                Call("rebase", continue_=True),
                " goes on, ",
                Call("rebase", abort=True),
                " goes back",
            ),
        )
    with changing(history) as tree:
        then = running.go_on(tree, "rebase")
    return replace(
        then,
        state="done" if then.state == "nothing" and made.commits else then.state,
        before=made.before,
        commits=(*made.commits, *then.commits),
        notes=tuple(dict.fromkeys([*made.notes, *then.notes])),
    )


def _with_rest(
    history: History, edit: Callable[[str], str], messages: Callable[[str], str]
) -> SequenceResult:
    """Replaces the commits that are left of a rebase by those of an edited list."""
    sequence = under_way(history, "rebase")
    moving.refuse_leaving(sequence)
    stop = sequence.stop
    above = stop.message if stop is not None and stop.why != "edit" else history.commit(sequence.head).message
    text = todo_list.written(history, sequence.todo, sequence.onto or sequence.head)
    todo = todo_list.read(history, edit(text), begun=True)
    todo = todo_list.with_messages(history, todo, messages, above=above, known=sequence.todo)
    with changing(history) as tree:
        if under_way(history, "rebase") != sequence:
            raise BusyError("the rebase went on while its list was edited; run the command again")
        tree.sequence(replace(sequence, todo=todo).to_json())
        return running.result(tree, "rebase", "list", Made(history.head()), left=len(todo))


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


def _plan(
    history: History, goal: Goal, autosquash: bool, commands: Sequence[str], notes: list[str]
) -> tuple[Todo, ...]:
    """The list of commits and commands, before anybody edits it."""
    todo = _todo(history, goal.tip, goal.below, notes)
    if autosquash:
        todo = todo_list.autosquashed(history, todo)
    return todo_list.with_commands(todo, commands) if commands else todo


def _edited(
    history: History,
    goal: Goal,
    todo: tuple[Todo, ...],
    edit: Callable[[str], str] | None,
    messages: Callable[[str], str],
) -> tuple[Todo, ...]:
    """The list as the user has edited it, with all messages."""
    if edit is not None:
        todo = todo_list.read(history, edit(todo_list.written(history, todo, goal.base)))
    return todo_list.with_messages(history, todo, messages)


def _rebase(
    tree: LockedTree,
    upstream: str,
    branch: str | None,
    onto: str | None,
    edited: tuple[Goal, tuple[Todo, ...], list[str]] | None,
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
    notes += () if edited is None else edited[2]
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
        state.Sequence("rebase", begin, at, None, todo),
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
