"""**ref** — a name (`refs/heads/main`) that holds an id.

**HEAD** — the ref that names a branch, or holds an id itself (detached).

A ref is a file of two lines: its value, then the first 16 hex digits of BLAKE3 over its name and value. So a
changed byte or a file of another ref is noticed. A ref moves by compare-and-swap under the refs lock: the
reflog's line first, synced, then the new file, synced, then the rename, then the directory. It holds its old
or its new value at every moment.

A move of several files happens whole or not at all: see `ref_steps.py`. If it was cut short, the next reader
finishes it.

Readers take no lock. If a ref looks damaged, a move may be under way: the reader looks again under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from persona.errors import (
    BusyError,
    IntegrityError,
    InvalidInput,
    Refused,
    SystemFault,
    UsageError,
)
from persona.frozen import dataclass
from persona.objects.ids import is_id
from persona.store import files, lock, reflog
from persona.store.ref_files import HEAD, PREFIX, Head, RefFiles, full
from persona.store.ref_steps import Step, Steps
from persona.store.reflog import Entry

if TYPE_CHECKING:
    from persona.store.values import StateFile


class _Any:
    """The type of `ANY`."""


HEADS: Final = "refs/heads/"
TAGS: Final = "refs/tags/"
BASES: Final = "refs/bases/"
VECTORS: Final = "refs/vectors/"
NOTES: Final = "refs/notes/"
SCORES: Final = "refs/notes/scores/"
TEXTS: Final = "refs/notes/text/"

ANY: Final = _Any()
"""A value of `expect`: the ref may hold anything."""

When = tuple[int, int]
"""Seconds since 1970 UTC, and the offset from UTC in minutes."""

Found = TypeVar("Found")


class NoteList(Protocol):
    """Takes the sentences to the user that a call has besides its result: a list, say."""

    def append(self, note: str, /) -> None:
        """Takes one."""


@dataclass(frozen=True)
class Reason:
    """The person, time and sentence of a move of a ref, for its reflog."""

    who: str
    when: When
    why: str

    def entry(self, old: str | None, new: str | None) -> Entry:
        """The line of a reflog for a move."""
        return Entry(old, new, self.who, *self.when, self.why)


@dataclass(frozen=True)
class Change:
    """A ref to move from `expect` to `new` (None: no ref), and why."""

    name: str
    new: str | None
    expect: str | _Any | None
    reason: Reason


class Refs:
    """The refs below a `.persona` directory."""

    def __init__(
        self,
        root: Path,
        *,
        require_writable: Callable[[], None] = lambda: None,
        journal: StateFile | None = None,
    ) -> None:
        self.root = root
        self._require_writable = require_writable
        self._files = RefFiles(root)
        self._steps = Steps(self._files, journal)

    # -- reading

    def read(self, name: str) -> str | None:
        """The id that a ref holds, or None if it does not exist. Raises `IntegrityError` if it is damaged."""
        name = full(name)
        return self._steady(lambda: self._files.value(name))

    def list(self, prefix: str = "refs/", *, notes: NoteList | None = None) -> dict[str, str]:
        """Every ref whose full name begins with `prefix`, with its id, in order of names.

        All are of one moment. A damaged ref raises `IntegrityError`. If `notes` is given, it gets a sentence
        instead, and the other refs are returned.
        """
        self.settle()
        found: dict[str, str] = {}
        with lock.refs_steady(self.root):
            for name in sorted(self._files.names(prefix)):
                try:
                    id = self._files.value(name)
                except IntegrityError as error:
                    if notes is None:
                        raise
                    notes.append(error.note)
                    continue
                if id is not None:
                    found[name] = id
        return found

    def names(self, prefix: str) -> set[str]:
        """The full names of the refs that begin with `prefix`; their values are not read."""
        self.settle()
        return set(self._files.names(prefix))

    def last(self, name: str) -> str | None:
        """The last id that the reflog of a ref that is gone names, if one can be read."""
        name = full(name)
        return self._steady(lambda: self._files.last(name))

    def head(self) -> Head:
        """The value of HEAD. Raises `IntegrityError` if it is missing or damaged."""
        self.settle()
        return self._files.head()

    def head_id(self) -> str | None:
        """The commit that HEAD leads to; None in a repository without a commit. Raises as `position`."""
        return self.position()[1]

    def position(self) -> tuple[Head, str | None]:
        """The value of HEAD, and the commit that it leads to; None in a repository without a commit.

        Raises `IntegrityError` if HEAD names a branch that does not exist although there is history.
        """
        return self._steady(self._files.position)

    def log(self, name: str) -> tuple[Entry, ...]:
        """The moves of a ref, or of HEAD, newest first; empty if none is recorded.

        For a deleted ref, or HEAD on a deleted branch, all moves that are left.
        """
        name = full(name)
        return self._steady(lambda: tuple(reversed(self._files.entries(name))))

    # -- moving

    def update(self, name: str, new: str | None, reason: Reason, *, expect: str | _Any | None) -> None:
        """Moves a ref to `new` (None removes it) if it holds `expect` (None: if it does not exist).

        Durable on return. If HEAD is attached to the ref, the move is in HEAD's reflog too. Raises
        `BusyError` if the ref holds another value. Raises `InvalidInput` for an impossible name, a name that
        differs from an existing one only in case, or one that is a directory of another. Raises `Refused` for
        the removal of the branch that HEAD is attached to.
        """
        self.update_all([Change(name, new, expect, reason)])

    def update_all(self, changes: Sequence[Change], *, under_head: bool = True) -> None:
        """Moves several refs, each like `update`: all or none.

        Unless `under_head`, it also raises `Refused` for a move of the branch that HEAD is attached to.
        """
        with self._moving():
            steps: list[Step] = []
            for change in changes:
                name, new = full(change.name), change.new
                if name == HEAD:
                    raise UsageError("changes must not name HEAD; move HEAD with advance or set_head")
                old = self._files.value(name)
                _compare(name, old, change.expect)
                if old is None and new is None:
                    continue
                if old is None:
                    self._files.check_new(name)
                line = change.reason.entry(old, new)
                if self._files.attached_to(name):
                    if old is not None and (new is None or not under_head):
                        raise Refused(f"HEAD is attached to {name}; switch to another branch first")
                    steps.append(Step(HEAD, PREFIX + name, PREFIX + name, line))
                steps.append(Step(name, old, new, line))
            self._steps.take(steps, together=len(changes) > 1)

    def set_note(self, name: str, id: str | None) -> None:
        """Makes a ref below refs/notes/ hold an id, whatever it held, also if it was damaged.

        None removes the ref. Durable on return. The refs of notes have no reflog.
        """
        assert name.startswith(NOTES)
        with self._moving():
            self._steps.take([Step(full(name), self._files.text_or_damage(name), id, None)])

    def advance(self, new: str, reason: Reason, *, expect: str | _Any | None) -> Head:
        """Moves the branch that HEAD is on, or a detached HEAD, from `expect` to `new`.

        Returns the value of HEAD afterwards. As in git, a move to the same commit is only in the reflog of a
        HEAD on a branch.
        """
        with self._moving():
            (kind, value), old = self._files.position()
            _compare(value if kind == "ref" else HEAD, old, expect)
            line = reason.entry(old, new)
            if kind == "id":
                if old != new:
                    self._steps.take([Step(HEAD, value, new, line)])
                return kind, new
            if old is None:
                self._files.check_new(value)
            moved = [Step(value, old, new, line)] if old != new else []
            if not moved:  # the command that moved it may have been cut short before it was durable
                self._files.sync(value)
            self._steps.take([Step(HEAD, PREFIX + value, PREFIX + value, line), *moved])
            return kind, value

    def travel(
        self,
        stops: Sequence[tuple[str, Reason]],
        *,
        expect: Head,
        at: str,
        to: Head | None = None,
        arrival: Reason | None = None,
    ) -> None:
        """Moves HEAD through commits to the last one as a single move, with a line of its reflog for each.

        `expect` and `at`: the value of HEAD now, and its commit. Without `to`, the branch under HEAD moves
        along. With `to`, HEAD is detached there, or attached to a branch; the branch then moves to the last
        commit too, for the reason `arrival`. Raises `BusyError` if something moved meanwhile.
        """
        with self._moving():
            held, id = self._files.position()
            if (held, id) != (expect, at):
                raise BusyError("HEAD moved meanwhile; run the command again")
            places = [at, *(place for place, _ in stops)]
            lines = [
                why.entry(old, new) for old, new, (_, why) in zip(places, places[1:], stops, strict=False)
            ]
            last, goal = places[-1], to or held
            if goal[0] == "id" and to is None:
                goal = ("id", last)
            steps = [Step(HEAD, _text(held), _text(goal), lines[-1], tuple(lines[:-1]))]
            if goal[0] == "ref":
                before = self._files.value(goal[1])
                if before is None:
                    raise BusyError(f"{goal[1]} was deleted meanwhile; run the command again")
                if to is None and last != before:
                    steps.append(Step(goal[1], before, last, lines[-1], tuple(lines[:-1])))
                elif last != before:
                    if arrival is None:
                        raise BusyError(f"{goal[1]} moved meanwhile; run the command again")
                    steps.append(Step(goal[1], before, last, arrival.entry(before, last)))
            self._steps.take(steps, together=len(steps) > 1 or len(lines) > 1)

    def set_head(
        self,
        target: Head,
        reason: Reason,
        *,
        expect: Head | _Any = ANY,
        at: str | _Any = ANY,
        created: Reason | None = None,
        over: bool = False,
    ) -> None:
        """Attaches HEAD to a branch that is `at` an id, or detaches it at an id, if HEAD holds `expect`.

        `created`: the branch is made there in the same move, for this reason, or, with `over`, moved there.
        Only in a repository without history may the branch be missing otherwise. `BusyError` when something
        moved.
        """
        kind, value = target
        if kind == "ref":
            if not full(value).startswith("refs/heads/"):
                raise InvalidInput(f"{value} is not a branch; HEAD can only be attached to one")
        elif not is_id(value):
            raise UsageError(f"not an id: {value!r:.80}")
        with self._moving():
            held = self._files.text_or_damage(HEAD)
            if not isinstance(expect, _Any) and (held is None or self._files.head() != expect):
                raise BusyError("HEAD moved meanwhile; run the command again")
            old: str | None = None
            with suppress(IntegrityError):
                old = self._files.position()[1]
            steps: list[Step] = []
            new: str | None = value
            if kind == "ref":
                new = self._files.value(value)
                if created is not None and not isinstance(at, _Any):
                    if new is None or not over:
                        _compare(value, new, None)
                        self._files.check_new(value)
                    if new != at:
                        steps.append(Step(value, new, at, created.entry(new, at)))
                    new = at
                elif new is None and self._files.has_history():
                    raise BusyError(f"{value} was deleted meanwhile; run the command again")
                else:
                    _compare(value, new, at)
            line = reason.entry(old, new) if old is not None or new is not None else None
            steps.append(Step(HEAD, held, PREFIX + value if kind == "ref" else value, line))
            self._steps.take(steps, together=len(steps) > 1)

    def move(self, old_name: str, new_name: str, reason: Reason, *, over: bool = False) -> None:
        """Renames a ref, with its reflog, to a name that does not exist, or, `over` it, to one that does.

        HEAD follows when it is attached to the ref; `Refused` when it is attached to the name that goes.
        """
        old_name, new_name = full(old_name), full(new_name)
        with self._moving():
            id, lost = self._files.value(old_name), self._files.value(new_name)
            if id is None:
                raise BusyError(f"{old_name} was deleted meanwhile; run the command again")
            if lost is not None and (not over or self._files.attached_to(new_name)):
                raise Refused(f"{new_name} exists already")
            if lost is None:
                self._files.check_new(new_name, leaving=old_name)
            line = reason.entry(id, id)
            here = [Step(new_name, lost, id, None)]
            if self._files.attached_to(old_name):
                here.append(Step(HEAD, PREFIX + old_name, PREFIX + new_name, line))
            gone = Step(old_name, id, None, None)
            in_the_way = f"{old_name}/".casefold().startswith(f"{new_name}/".casefold())
            in_the_way |= f"{new_name}/".casefold().startswith(f"{old_name}/".casefold())
            steps = [gone, *here] if in_the_way else [*here, gone]
            self._steps.prepare_reflog(reflog.renamed(self.root, old_name, new_name, id, line))
            self._steps.take(steps, together=True, renamed=(old_name, new_name))

    def logged(self) -> Sequence[str]:
        """HEAD, and the branches and tags that have a reflog, also those that are gone."""
        found = ["HEAD"]
        pending = [HEADS, TAGS]
        while pending:
            folder = pending.pop()
            directory = files.check_directories(self.root, "logs", *folder.rstrip("/").split("/"))
            for item in files.names_in(directory):
                if item.is_dir(follow_symlinks=False):
                    pending.append(f"{folder}{item.name}/")
                elif not files.is_unfinished(item.name):
                    found.append(folder + item.name)
        return sorted(found)

    def expire_log(self, name: str, keeps: Callable[[Entry], bool]) -> int:
        """Drops the moves of a ref or of HEAD that `keeps` does not want; returns how many.

        The newest always stays. Raises `IntegrityError` for a reflog that is damaged.
        """
        name = full(name)
        with self._moving():
            try:
                value, known = (self._files.position()[1] if name == HEAD else self._files.value(name)), True
            except IntegrityError:
                value, known = None, False
            return reflog.expire(self.root, name, value, keeps, known=known and value is not None)

    def check_log(self, name: str) -> None:
        """`IntegrityError` unless the reflog of a ref or of HEAD is whole and ends at its value."""

        def look() -> None:
            value = self._files.position()[1] if name == HEAD else self._files.value(name)
            reflog.load(self.root, name, value)

        self._steady(look)

    # -- one moment

    def _steady(self, look: Callable[[], Found]) -> Found:
        """The result of `look`. If that shows damage, it looks again while nothing moves."""
        self.settle()
        try:
            return look()
        except IntegrityError:
            with lock.refs_steady(self.root):
                return look()

    def settle(self) -> None:
        """Finishes the steps of a command that was cut short.

        In a read-only store they stay.
        """
        if self._steps.left:
            with suppress(BusyError, IntegrityError, Refused, SystemFault), self._moving():
                pass

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Holds the refs lock, with nothing left to finish."""
        self._require_writable()
        with lock.refs_lock(self.root):
            self._steps.take_left()
            yield


def _text(value: Head) -> str:
    """The text of HEAD's file for a value."""
    return PREFIX + value[1] if value[0] == "ref" else value[1]


def _compare(name: str, held: str | None, expect: str | _Any | None) -> None:
    if not isinstance(expect, _Any) and held != expect:
        raise BusyError(
            f"{name} moved meanwhile: it is at {held[:12] if held else 'nothing'}, "
            f"not at {expect[:12] if expect else 'nothing'}; run the command again"
        )
