"""**sequence** — a merge, cherry-pick, revert or rebase that has stopped, and waits for the user.

**stop** — the commit at which a sequence stopped, and the files that it has left in the work tree.

`state/sequence` holds a `Sequence` from the first stop until the sequence ends. A sequence that never stops
writes no state: its commits are made first, and HEAD, branch and files move once.

| phase | the work tree | how it goes on |
| --- | --- | --- |
| placing | the files of the stop are being written | any command of the sequence writes them again |
| waiting | the user's | `--continue`, `commit`, `--skip`, `--abort` |
| concluding | the user's; HEAD becomes `commit` | as waiting; if HEAD is `commit`, without the stop |
| finishing | moves to `commit` | as waiting; if HEAD is `commit`, all is done |
| leaving | is going back | `--abort` or `reset --hard` again |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, get_args

from persona.errors import Call, Refused, listed
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes.conflicts import IN_RECIPE, TERM_FIELDS, Conflict, Problem
from persona.history.recipes.line_conflicts import marked_lines, middle_lines
from persona.history.recipes.pairs import pair_lines
from persona.history.recipes.pairs import standing as standing_pairs
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import Head
from persona.history.worktree import text_files
from persona.history.worktree.sequence import SEQUENCE, UNMERGED, is_unmerged
from persona.objects.commit import Person
from persona.objects.ids import abbreviate, is_id
from persona.objects.recipe import Term

Verb = Literal["merge", "cherry-pick", "revert", "rebase"]
Why = Literal["conflict", "prepared", "edit"]
Phase = Literal["placing", "waiting", "concluding", "finishing", "leaving"]
Action = Literal["pick", "reword", "edit", "squash", "fixup", "break", "exec"]

METHODS: Final[dict[str, str]] = {
    "merge": "merge",
    "cherry-pick": "cherry_pick",
    "revert": "revert",
    "rebase": "rebase",
}
"""The method of a repository for each verb."""
DOING: Final[dict[str, str]] = {
    "merge": "merging",
    "cherry-pick": "cherry-picking",
    "revert": "reverting",
    "rebase": "rebasing",
}


@dataclass(frozen=True)
class Todo:
    """A commit whose change is to be made again. `mainline`: the parent that the change is against, from 1.

    `message`: the new commit's, None for the commit's own. "break" and "exec" have no commit; the message of
    "exec" is its command.
    """

    action: Action
    commit: str
    mainline: int | None = None
    message: str | None = None


@dataclass(frozen=True)
class Stop:
    """A commit at which a sequence stopped.

    `why`: a conflict; "prepared": a merge that was not to be committed; "edit": the user asked for it, and
    HEAD is the new commit. `theirs`: the commit whose files are the other side. `left`: path → blob id of the
    files that the stop wrote, None if it removed one. `conflicts`: all that there were. `settled`: files that
    `add` has named since. `author` None: the user.
    """

    why: Why
    commit: str
    parents: tuple[str, ...]
    message: str
    author: Person | None
    theirs: str
    left: Mapping[str, str | None]
    conflicts: tuple[Conflict, ...] = ()
    settled: tuple[str, ...] = ()
    labels: tuple[str, str] = ("HEAD", "theirs")
    amends: bool = False
    """Whether the new commit replaces HEAD: a squash."""


@dataclass(frozen=True)
class Sequence:
    """A verb that has stopped.

    `begin`: HEAD before it. `head`: the commit that HEAD was moved to for the last stop. `todo`: the commits
    after the stop. `made`: the new commits so far. `onto`: the commit that a rebase began from, and the
    branch that it will move, None for a detached HEAD.
    """

    verb: Verb
    begin: Head
    head: str
    stop: Stop | None
    todo: tuple[Todo, ...] = ()
    made: tuple[str, ...] = ()
    phase: Phase = "waiting"
    commit: str | None = None
    strategy: str | None = None
    origin: bool = False
    """Whether the messages of picked commits name the commits that they came from."""
    onto: str | None = None
    branch: str | None = None
    onto_name: str = ""
    upstream: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value of `state/sequence`."""
        stop = self.stop
        return {
            "verb": self.verb,
            "begin": {"branch": self.begin.branch, "id": self.begin.id},
            "head": self.head,
            "stop": None if stop is None else stop_json(stop),
            "todo": [[one.action, one.commit, one.mainline, one.message] for one in self.todo],
            "made": self.made,
            "phase": self.phase,
            "commit": self.commit,
            "strategy": self.strategy,
            "origin": self.origin,
            "onto": self.onto,
            "branch": self.branch,
            "onto_name": self.onto_name,
            "upstream": self.upstream,
        }

    def commits(self) -> list[str]:
        """Every commit that the sequence names."""
        stop = () if self.stop is None else (self.stop.commit, self.stop.theirs, *self.stop.parents)
        todo = tuple(one.commit for one in self.todo)
        named = (self.begin.id, self.head, self.onto, *stop, *todo, *self.made)
        return list(dict.fromkeys(id for id in named if id))


def read_sequence(history: History) -> Sequence | None:
    """The sequence that is under way; None if there is none, or if its last commit has ended it."""
    state = history.store.state(SEQUENCE)
    if not os.path.lexists(state.path):
        return None
    found = state.decoded(_decoded, "the sequence is then over; the files stay as they are")
    if found is None:
        return None
    if found.phase in ("concluding", "finishing"):
        head, phase = history.head_or_name(), found.phase
        reached = head.id == found.commit
        if phase == "finishing" and reached and (found.verb != "rebase" or head.branch == found.branch):
            return None
        found = replace(found, phase="waiting", commit=None)
        if phase == "concluding" and reached:
            found = replace(found, stop=None)
    return None if is_over(found) else found


def is_over(sequence: Sequence) -> bool:
    """Whether nothing is left to do. A rebase still has to go back to its branch."""
    return sequence.stop is None and not sequence.todo and sequence.verb != "rebase"


def under_way(history: History, verb: Verb | None = None) -> Sequence:
    """The sequence that is under way. `Refused` if there is none, or if it is another verb's."""
    found = read_sequence(history)
    if found is None or (verb is not None and found.verb != verb):
        other = f"; a {found.verb} is" if found is not None else ""
        hint = ways_on(found) if found is not None else None
        raise Refused(f"no {verb or 'sequence'} is under way{other}", hint=hint)
    return found


def ways_on(sequence: Sequence) -> tuple[str | Call, ...]:
    """The hint on what can be done with a sequence."""
    method = METHODS[sequence.verb]
    return (Call(method, continue_=True), " goes on, ", Call(method, abort=True), " goes back")


def refuse_second(history: History, what: str) -> None:
    """`Refused` if a sequence is under way, which `what` would lose, or if conflicts of a stash stand."""
    found = read_sequence(history)
    if found is not None:
        raise Refused(f"cannot {what} while {DOING[found.verb]}", hint=ways_on(found))
    if (stop := unmerged(history)) is not None:
        names = list(dict.fromkeys(conflict.path for conflict in standing(history, stop)))
        hint = (
            "resolve the conflicts and ",
            Call("commit"),
            "; or ",
            Call("reset", mode="hard"),
            " drops them",
        )
        raise Refused(f"cannot {what} with unmerged files: {listed(names)}", hint=hint)


def unmerged(history: History) -> Stop | None:
    """The conflicts that a stash has left, in the form of a stop; None if none stands."""
    if not is_unmerged(history):
        return None
    stop = history.store.state(UNMERGED).decoded(decoded_stop, "the files stay as they are")
    return stop if stop is not None and standing(history, stop) else None


def standing(history: History, stop: Stop) -> list[Conflict]:
    """The conflicts of a stop that nobody has resolved yet."""
    found: list[Conflict] = []
    for path in dict.fromkeys(conflict.path for conflict in stop.conflicts):
        here = [conflict for conflict in stop.conflicts if conflict.path == path]
        if here[0].problem in IN_RECIPE:
            found += _standing_in_recipe(history, here)
        elif path in stop.settled:
            continue
        elif here[0].problem == "lines":
            found += here if _has_markers(history, stop, path) else []
        else:
            now = text_files.id_of(history.root, path)
            found += here if now == stop.left.get(path) else []
    return found


def _has_markers(history: History, stop: Stop, path: str) -> bool:
    """Whether markers of a conflict stand in a text file.

    The line between both sides also means other things, so only those count that neither side has.
    """
    text = _text(text_files.read(history.root, path))
    if marked_lines(text):
        return True
    between = middle_lines(text)
    if not between:
        return False
    sides = (history.files_of(commit).get(path) for commit in (history.head_commit(), stop.theirs))
    return between > max(0 if blob is None else middle_lines(_text(history.blob(blob))) for blob in sides)


def _text(data: bytes | None) -> str:
    return "" if data is None else data.decode("utf-8", "replace")


def _standing_in_recipe(history: History, conflicts: list[Conflict]) -> list[Conflict]:
    text = _text(text_files.read(history.root, RECIPE_FILE))
    found = standing_pairs(text, conflicts)
    return found or (conflicts[:1] if pair_lines(text) else [])


# -- as JSON -------------------------------------------------------------------------------------------------


def stop_json(stop: Stop) -> dict[str, Any]:
    """A stop as JSON."""
    return {
        "why": stop.why,
        "commit": stop.commit,
        "parents": stop.parents,
        "message": stop.message,
        "author": None if stop.author is None else stop.author.to_json(),
        "theirs": stop.theirs,
        "left": dict(stop.left),
        "conflicts": [_conflict_json(conflict) for conflict in stop.conflicts],
        "settled": stop.settled,
        "labels": stop.labels,
        "amends": stop.amends,
    }


def _conflict_json(conflict: Conflict) -> dict[str, Any]:
    sides = {side: value_json(getattr(conflict, side)) for side in ("base", "theirs", "ours")}
    rest = {name: getattr(conflict, name) for name in ("problem", "detail", "vector", "holder")}
    return {"path": conflict.path, "key": conflict.key, **sides, **rest}


def value_json(value: Any) -> Any:
    """A value of a conflict as JSON: a term by its keys."""
    if isinstance(value, Term):
        return {key: getattr(value, field) for key, field in TERM_FIELDS.items()}
    return list(value) if isinstance(value, tuple) else value


def _decoded(value: Any) -> Sequence:
    begin = Head(value["begin"]["branch"], value["begin"]["id"])
    sequence = Sequence(
        verb=_one_of(value["verb"], Verb),
        begin=begin,
        head=value["head"],
        stop=None if value["stop"] is None else decoded_stop(value["stop"]),
        todo=tuple(Todo(_one_of(one[0], Action), *one[1:]) for one in value["todo"]),
        made=tuple(value["made"]),
        phase=_one_of(value["phase"], Phase),
        commit=value["commit"],
        strategy=value["strategy"],
        origin=value["origin"],
        onto=value["onto"],
        branch=value["branch"],
        onto_name=value["onto_name"],
        upstream=value["upstream"],
    )
    if not is_id(begin.id or "") or not all(map(is_id, sequence.commits())):
        raise ValueError
    return sequence


def decoded_stop(value: Any) -> Stop:
    """The stop that JSON means."""
    author = value["author"]
    here, there = value["labels"]
    return Stop(
        why=_one_of(value["why"], Why),
        commit=value["commit"],
        parents=tuple(value["parents"]),
        message=value["message"],
        author=None if author is None else Person(**author),
        theirs=value["theirs"],
        left=dict(value["left"]),
        conflicts=tuple(_decoded_conflict(one) for one in value["conflicts"]),
        settled=tuple(value["settled"]),
        labels=(here, there),
        amends=value["amends"],
    )


def _decoded_conflict(value: Any) -> Conflict:
    problem: Problem = _one_of(value["problem"], Problem)
    base, theirs, ours = (_decoded_value(value[side], problem) for side in ("base", "theirs", "ours"))
    rest = value["detail"], value["vector"], value["holder"]
    return Conflict(value["path"], value["key"], base, theirs, ours, problem, *rest)


def _decoded_value(value: Any, problem: Problem) -> Any:
    if problem == "term" and value is not None:
        return Term(**{field: _tupled(value[key]) for key, field in TERM_FIELDS.items()})
    return _tupled(value)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_of(value: Any, words: Any) -> Any:
    if value not in get_args(words):
        raise ValueError
    return value


def named(history: History, id: str) -> str:
    """A commit in a sentence: the start of its id, and its subject."""
    return f"{abbreviate(id)} ({history.commit(id).subject})"
