"""Planning a move of HEAD and the text files, for `checkout`, `switch` and `reset`.

If a move would overwrite an edited tracked file, it is refused with the file's name, unless it is forced. An
edited file that is the same on both sides is carried along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from persona.errors import Blank, Call, Keyword, Note, Refused
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import branch_named, resolve
from persona.history.names.walk import walk_links
from persona.history.results import Carried, Head
from persona.history.worktree import text_files, tracking
from persona.objects.ids import abbreviate, is_id
from persona.objects.names import check_ref_name
from persona.objects.tree import differing
from persona.store.refs import HEADS, TAGS, NoteList


@dataclass(frozen=True)
class Target:
    """A destination of HEAD: a commit, and the full ref of its branch, or None to detach."""

    id: str
    branch: str | None


@dataclass(frozen=True)
class FileMove:
    """Text files to put in place: their new contents, their contents now, and the files that change.

    `to`: the commit that HEAD goes to, None if no file moves.
    """

    target: Mapping[str, str]
    current: Mapping[str, str]
    paths: tuple[str, ...]

    to: str | None = None
    forced: bool = False
    """Whether edits are discarded, and new files that no commit holds are removed."""
    dropped: tuple[str, ...] = ()
    """Files that no commit holds and that the move removes.

    Their content stays in the store until it is collected.
    """
    carried: tuple[Carried, ...] = ()
    """The edits and new files that stay as they are, against the commit that HEAD goes to."""

    @property
    def notes(self) -> list[str]:
        """NoteList that say how to print the content of dropped files."""
        return [
            Note(
                f"removed {path}, which no commit holds",
                (Call("cat_file", abbreviate(self.current[path])), " prints its text"),
            )
            for path in self.dropped
        ]

    def check(self, history: History) -> None:
        """`Refused` if something is in the way of the files, before any of them changes."""
        changed = [path for path in self.paths if self.target.get(path) != self.current.get(path)]
        removed = [path for path in changed if path not in self.target]
        text_files.check_room(history.root, [path for path in changed if path in self.target], removed)


NO_MOVE: Final = FileMove({}, {}, ())
MOVE: Final = "move"
"""state/move: the commits that text files are on their way from and to, while they are."""


def target_of(history: History, text: str, notes: NoteList | None = None) -> Target:
    """The destination that a revision means to `checkout`.

    A branch attaches HEAD. HEAD's own name leaves it as it is. Any other revision detaches it.
    """
    if text in ("HEAD", "@"):
        head = history.head()
        return Target(history.head_commit(), HEADS + head.branch if head.branch is not None else None)
    branch = branch_named(history, text, notes)
    return Target(resolve(history, branch or text, notes), branch)


def plan_files(history: History, to: str, *, force: bool, can_force: bool = True) -> FileMove:
    """The changes of a move of the work tree from HEAD to commit `to`.

    Raises `Refused` that names edits that would be lost, or files that are in the way. `can_force`: whether
    the command takes `force`, for the hint.
    """
    before, after = history.last_files(), history.files_of(to)
    known = tracking.tracked(history).paths
    here = tracking.ids(history, {*known, *before, *after})
    if force:  # a new file that no blob can hold is not removed: its content would be lost
        here = {path: id for path, id in here.items() if is_id(id) or path in before or path in after}
    known_now = here if force else before
    moving = differing(known_now, after)
    lost = [path for path in moving if here.get(path) not in (before.get(path), after.get(path))]
    if not force:
        new = [path for path in moving if path in after and path not in here and path not in before]
        lost = sorted([*lost, *text_files.obstacles(history.root, new)])
    if lost and not force:
        there = {*here, *before}
        foreign = [path for path in lost if path not in known or path not in there]
        if foreign:
            raise tracking.in_the_way(foreign, can_force=can_force)
        raise Refused(
            f"uncommitted edits would be overwritten: {', '.join(lost)}",
            hint=(
                "commit first, or ",
                Call("stash.push"),
                " puts the edits aside, or ",
                Keyword(force=True) if can_force else Call("reset", mode="hard"),
                " discards them",
            ),
        )
    dropped = [path for path in moving if path in here and path not in before and path not in after]
    stays = {*known, *after}.difference(moving)
    carried = [
        Carried(path, _kind(after, here, path)) for path in sorted(stays) if here.get(path) != after.get(path)
    ]
    move = FileMove(after, here, tuple(moving), to, force, tuple(dropped), tuple(carried))
    move.check(history)
    return move


def _kind(committed: Mapping[str, str], here: Mapping[str, str], path: str) -> str:
    return "added" if path not in committed else "changed" if path in here else "removed"


def read_move(history: History) -> dict[str, str] | None:
    """The "from" and "to" commits in state/move; None if no move was cut short."""
    cost = ("the text files stay as they are then, and ", Call("status"), " shows them")
    return history.store.state(MOVE).decoded(_decoded, *cost)


def _decoded(value: Any) -> dict[str, str]:
    move = {"from": value["from"], "to": value["to"]}
    if not all(map(is_id, move.values())):
        raise ValueError
    return move


def new_branch(history: History, name: str, id: str, *, over: bool = False) -> Target:
    """The branch that a command is to make at `id`, and HEAD's way there.

    `Refused` if it exists, unless it may be moved `over` there.
    """
    ref = HEADS + check_ref_name(name)
    if not over and history.store.refs.read(ref) is not None:
        raise Refused(f"a branch named {name} exists already", hint=(Call("switch", name), " goes there"))
    return Target(id, ref)


def left_behind(history: History, head: Head, target: Target) -> list[str]:
    """The sentence about commits that no branch or tag reaches once a detached HEAD leaves them."""
    if head.branch is not None or head.id is None or head.id == target.id:
        return []
    notes: list[str] = []
    reachable = [target.id, *history.names(HEADS, notes).values()]
    reachable += [resolve(history, name) for name in history.names(TAGS, notes)]
    first = next(walk_links(history, [head.id], reachable), None)
    if first is None:
        return notes
    short = abbreviate(head.id)
    hint = (Call("branches.create", Blank("NAME"), short), " keeps this commit on a branch")
    return [Note(f"left {short} ({history.commit(head.id).subject}), which is on no branch", hint), *notes]
