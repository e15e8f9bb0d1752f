"""**locked tree** — the work tree while this command holds its lock.

A function that changes text files, HEAD or the files of `state/` takes a `LockedTree`: there is no other way
to change them.

**move** — text files on their way from one commit to another.

`state/move` names both commits from before the first file changes until HEAD has followed. If a move is cut
short, the next command that locks the tree takes it back.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.errors import Call, IntegrityError, PersonaError
from persona.history.history import History, reason
from persona.history.worktree import text_files, tracking
from persona.history.worktree.move import MOVE, FileMove, Target, left_behind, read_move
from persona.history.worktree.sequence import BISECT, ORIGIN, PREPARED, SEQUENCE, UNMERGED
from persona.history.worktree.tracking import ADDED
from persona.objects.commit import Person
from persona.store import files
from persona.store.refs import ANY, HEADS

if TYPE_CHECKING:
    from persona.history.stashes import Stashed


class LockedTree:
    """The work tree of a repository while its lock is held. Only `locked` makes one."""

    def __init__(self, history: History) -> None:
        self._history: History | None = history

    @property
    def history(self) -> History:
        """The repository, as long as the lock is held."""
        assert self._history is not None, "the lock of this work tree has been released"
        return self._history

    def release(self) -> None:
        """Ends the tree: nothing can be changed through it any more."""
        self._history = None

    # -- text files

    def put(self, target: Mapping[str, str], current: Mapping[str, str], paths: Iterable[str]) -> list[str]:
        """Makes `paths` equal `target` (absent: removed); returns those that changed.

        `current` has their blobs now.
        """
        edits = text_files.edits_of(self.history, target, current, paths)
        self.apply(edits, current, over=True)
        return list(edits)

    def apply(
        self, edits: Mapping[str, bytes | None], seen: Mapping[str, str], *, over: bool = False
    ) -> None:
        """Makes tracked files hold these bytes (None: removed).

        Files are removed first, so that a file may replace a directory and a directory a file. The others
        follow in the given order. If something is in the way, it is found before anything changes
        (`check_room`). `seen`: the blob id of each path when the edits were decided (absent: there was no
        file). A file with another content now was edited meanwhile: it stays, and `Refused` names it. All
        files are compared before the first one changes, and each again when it is replaced. `over`: a link or
        pipe in the place of a new file is replaced; otherwise `Refused` names it.
        """
        root = self.history.root
        kept = [path for path, data in edits.items() if data is not None]
        removed = [path for path, data in edits.items() if data is None]
        text_files.check_room(root, kept, removed)
        if not over and (strange := text_files.obstacles(root, [path for path in kept if path not in seen])):
            known = self.history.last_files()
            if strange := [path for path in strange if path not in known]:
                raise tracking.in_the_way(strange)
        text_files.refuse_edited([p for p in edits if text_files.id_of(root, p) != seen.get(p)])
        for path in removed:
            if not files.remove_seen(root / path, _is(seen.get(path)), below=root):
                text_files.refuse_edited([path])
        for path, data in edits.items():
            if data is not None:
                _write(root, path, data, seen.get(path))
        # Existing directories too: the command that made them may have been cut short before it synced them.
        below = [path.split("/")[:-1] for path in kept]
        files.sync_directories(
            sorted({root.joinpath(*parts[:n]) for parts in below for n in range(len(parts))})
        )

    # -- what is tracked, and the message that waits

    def track(self, paths: Iterable[str]) -> None:
        """Tracks these paths from now on."""
        before = set(tracking.added(self.history))
        if not before.issuperset(paths := set(paths)):
            self.history.store.state(ADDED).write(sorted(before | paths))

    def forget(self, paths: Collection[str] | None = None) -> None:
        """Drops these names from those that `add` was given; all by default."""
        before = tracking.added(self.history)
        rest = [] if paths is None else [path for path in before if path not in paths]
        if not rest and before:
            self.history.store.state(ADDED).remove()
        elif len(rest) < len(before):
            self.history.store.state(ADDED).write(rest)

    def prepare(self, message: str) -> None:
        """Keeps a message for the next commit on HEAD."""
        self.history.store.state(PREPARED).write({"head": self.history.head_commit(), "message": message})

    def committed(self) -> None:
        """Clears the names, the message and the conflicts that waited for a commit, which HEAD now holds."""
        self.history.store.state(PREPARED).remove()
        self.unmerged(None)
        self.forget()

    def bisect(self, value: Any) -> None:
        """Keeps the state of a bisect; None ends the bisect."""
        state = self.history.store.state(BISECT)
        if value is None:
            state.remove()
        else:
            state.write(value)

    def sequence(self, value: Any) -> None:
        """Keeps the state of a merge, cherry-pick, revert or rebase; None ends it."""
        state = self.history.store.state(SEQUENCE)
        if value is None:
            state.remove()
        else:
            state.write(value)

    def unmerged(self, value: Any) -> None:
        """Keeps the conflicts that a stash has left; None drops them."""
        state = self.history.store.state(UNMERGED)
        if value is None:
            state.remove()
        else:
            state.write(value)

    def remember(self, id: str) -> None:
        """Keeps the commit that `ORIG_HEAD` names from now on."""
        self.history.store.state(ORIGIN).write(id)

    def stash(self, entries: Iterable[Stashed]) -> None:
        """Keeps the list of the stashes, the newest first."""
        from persona.history.stashes import STASH

        state, value = self.history.store.state(STASH), [entry.to_json() for entry in entries]
        if value:
            state.write(value)
        else:
            state.remove()

    # -- moves

    @contextmanager
    def moving(self, move: FileMove) -> Iterator[None]:
        """Puts the text files of a move in place; HEAD has to follow inside. If that fails, they go back."""
        if move.to is None:
            yield
            return
        edits = text_files.edits_of(self.history, move.target, move.current, move.paths)
        move.check(self.history)
        if move.dropped:
            with self.history.store.transaction() as tx:
                for path in move.dropped:
                    tx.put("blob", text_files.read(self.history.root, path) or b"")
        state = self.history.store.state(MOVE)
        if move.paths:
            state.write({"from": self.history.last_commit(), "to": move.to})
        try:
            self.apply(edits, move.current, over=move.forced)
            yield
        except PersonaError:
            with suppress(PersonaError):  # the next command tries again
                self.take_back()
            raise
        if move.paths:
            state.remove()
        self.forget(None if move.forced else move.target)
        self.history.store.state(PREPARED).remove()
        if move.forced:
            self.unmerged(None)

    def take_back(self, *, force: bool = False) -> None:
        """Puts back the files of a move that was cut short before HEAD followed. Edits stay.

        Raises `IntegrityError` if that is not possible because its data is lost. With `force` the move is
        given up instead.
        """
        history = self.history
        state = history.store.state(MOVE)
        try:
            move = read_move(history)
            if move is None:
                return
            head = history.last_commit()
            if head is not None and move["from"] == head:
                before, after = history.files_of(head), history.files_of(move["to"])
                here = tracking.snapshot(history, {*before, *after})
                placed = [path for path in sorted({*before, *after}) if here.get(path) == after.get(path)]
                self.put(before, here, placed)
        except IntegrityError as error:
            if not force:
                raise IntegrityError(
                    f"a move of the text files was interrupted, and cannot be undone: {error.message}",
                    hint=(
                        Call("reset", mode="hard"),
                        " gives the move up and puts the files of HEAD in place",
                    ),
                    kind=error.object_kind,
                    id=error.id,
                    file=str(state.path),
                ) from None
        state.remove()

    # -- HEAD

    def move_head(
        self,
        target: Target,
        person: Person,
        *,
        verb: str = "checkout",
        typed: str | None = None,
        created: str | None = None,
        over: bool = False,
    ) -> list[str]:
        """Moves HEAD; returns notes about what it leaves. The reflogs say what git's say.

        `verb`: only after "checkout" does "-" lead back. `typed`: the revision that the user gave, where HEAD
        is to be detached. `created`: the branch is made in the same move, and this is the revision where it
        begins; `over`: it may be there, and is moved.

        Raises `BusyError` if HEAD or the branch moved since the target was looked up.
        """
        history = self.history
        head = history.head_or_name()
        old = head.branch or head.id or "nothing"
        new = target.branch.removeprefix(HEADS) if target.branch else target.id
        to = new if target.branch or typed in (None, "-") else typed
        notes = left_behind(history, head, target)
        held, where = _holds(head.branch, head.id), _holds(new if target.branch else None, target.id)
        if over and where == held:  # the branch that HEAD is on
            self.advance(target.id, person, f"branch: Reset to {created}", expect=head.id)
        elif where != held or created is not None:
            there = over and history.store.refs.read(target.branch or "") is not None
            made = "Reset to" if there else "Created from"
            history.store.refs.set_head(
                where,
                reason(person, f"{verb}: moving from {old} to {to}"),
                expect=held,
                at=target.id if target.branch else ANY,
                created=None if created is None else reason(person, f"branch: {made} {created}"),
                over=over,
            )
        return notes

    def advance(self, to: str, person: Person, why: str, *, expect: str | None) -> str | None:
        """Moves the branch under HEAD, or a detached HEAD, from `expect` to a commit.

        Returns the name of the branch.
        """
        kind, name = self.history.store.refs.advance(to, reason(person, why), expect=expect)
        return name.removeprefix(HEADS) if kind == "ref" else None


@contextmanager
def locked(history: History) -> Iterator[LockedTree]:
    """Holds the lock of the work tree, and nothing more: see `changing`."""
    with history.store.worktree_lock():
        tree = LockedTree(history)
        try:
            yield tree
        finally:
            tree.release()


def _holds(branch: str | None, id: str | None) -> Any:
    """The value of HEAD's file on a branch, or detached at an id; anything if neither is known."""
    if branch is not None:
        return "ref", HEADS + branch
    return ("id", id) if id is not None else ANY


def _write(root: Path, path: str, data: bytes, seen: str | None) -> None:
    place = root / path
    if place.is_dir() and not place.is_symlink():
        _clear(place)
    if place.parent != root:
        files.relied_on_directories(place.parent, below=root)
    if not files.replace_seen(place, data, _is(seen), there=seen is not None):
        text_files.refuse_edited([path])


def _is(seen: str | None) -> files.Known:
    """Whether a file that was moved aside has the content that was seen.

    A link to no file may lead to one from there; it holds nothing that could be lost.
    """
    return lambda place: (seen is None and place.is_symlink()) or text_files.id_at(place) == seen


def _clear(directory: Path) -> None:
    """Removes a directory that holds nothing but directories and leftovers of a write."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in filter(files.is_unfinished, names):
            files.remove(Path(folder, name))
        files.remove_empty_directories(Path(folder), below=directory.parent)
