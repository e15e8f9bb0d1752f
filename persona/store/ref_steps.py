"""Moves of several refs that happen together or not at all.

A step is one file to write or remove: a ref's, or HEAD.
**journal** — the steps of a move of several refs (a rename, several deletions, a new branch with HEAD on it),
in `state/refs.json` while they are taken.

If the command is cut short, the next process that takes the refs lock takes the remaining steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from persona.errors import Call, IntegrityError, PersonaError
from persona.frozen import dataclass
from persona.limits import MAX_REFLOG_BYTES
from persona.objects.ids import is_id
from persona.store import files, reflog
from persona.store.ref_files import HEAD, PREFIX, RefFiles, full
from persona.store.reflog import Entry

if TYPE_CHECKING:
    from persona.store.values import StateFile

JOURNAL: Final = "refs"
"""The state file of the steps under way."""
_REFLOG: Final = "refs.reflog"
"""In `state/`: the reflog of a renamed ref on its way to its new name."""


@dataclass(frozen=True)
class Step:
    """A file whose text is to become `new` from `old` (None: no file); `entry` goes into its reflog first.

    `earlier`: lines of the reflog before that one, if several moves are taken as one.
    """

    name: str
    old: str | None
    new: str | None
    entry: Entry | None
    earlier: tuple[Entry, ...] = ()


class Steps:
    """Takes steps. The caller holds the refs lock.

    Without a `journal`, as in a store that is being made, steps are not taken together.
    """

    def __init__(self, ref_files: RefFiles, journal: StateFile | None) -> None:
        self.root = ref_files.root
        self._files = ref_files
        self._journal = journal

    @property
    def left(self) -> bool:
        """Whether steps are under way, or were left by a command that was cut short."""
        return self._journal is not None and os.path.lexists(self._journal.path)

    def take_left(self) -> None:
        """Takes the remaining steps of a command that was cut short.

        Raises `IntegrityError` if they are not known.
        """
        if self._journal is not None and (value := self._journal.read()) is not None:
            self._finish(*_from_journal(value, self._journal.path), again=True)

    def prepare_reflog(self, data: bytes) -> None:
        """Writes the reflog that a rename, taken next, puts under the new name."""
        files.mkdirs(self._moved_reflog.parent, below=self.root)
        files.write_file(self._moved_reflog, data, tmp_dir=reflog.tmp_dir(self.root))

    def take(
        self, steps: Sequence[Step], *, together: bool = False, renamed: tuple[str, str] | None = None
    ) -> None:
        """Takes the steps; with `together` all or none, even if the command is cut short.

        A new ref is made in the same way: without the journal, a reflog that ends in a value but has no ref
        would look like that of a lost ref.
        """
        together |= any(step.old is None and step.entry is not None and step.name != HEAD for step in steps)
        if together and self._journal is not None:
            self._journal.write(_to_journal(steps, renamed))
        self._finish(steps, renamed, again=False)

    def _finish(self, steps: Sequence[Step], renamed: tuple[str, str] | None, *, again: bool) -> None:
        """Takes the steps, `again` after some of them may have been taken, and clears the journal."""
        if renamed is not None:
            self._place_reflog(*renamed)
        for step in steps:
            if again and (held := self._files.text_or_damage(step.name)) != step.old:
                if held == step.new:
                    self._files.sync(step.name)
                continue
            new_name = step.old is None and step.new is not None and step.name != HEAD
            if new_name:
                self._files.clear_way(step.name)
            entry = step.entry
            if entry is not None and step.earlier:
                value = step.earlier[0].old
                reflog.append_all(self.root, step.name, value, [*step.earlier, entry])
            elif entry is not None:
                reflog.append(self.root, step.name, entry.old, entry, again=again)
            if step.new != step.old:
                self._files.write(step.name, step.new, first=new_name)
            elif (
                step.name != HEAD
            ):  # the command that moved it may have been cut short before its name was durable
                self._files.sync(step.name)
        if self._journal is not None and os.path.lexists(self._journal.path):
            self._journal.remove()
        if renamed is not None:  # not earlier: it is the only reflog until the new one is durable
            files.remove(self._moved_reflog)

    def _place_reflog(self, old_name: str, new_name: str) -> None:
        """Puts the reflog of a renamed ref from `state/` under the new name, and removes the old one."""
        data = files.read_file(self._moved_reflog, limit=MAX_REFLOG_BYTES)
        old, new = reflog.path_of(self.root, old_name), reflog.path_of(self.root, new_name)
        files.check_directories(self.root, "logs", *old_name.split("/")[:-1])
        if old.is_file() and not old.is_symlink():
            files.remove(old)
            files.sync_directory(old.parent)
        files.remove_empty_directories(old.parent, below=self.root / "logs" / "refs")
        self._files.clear_way(new_name)
        files.relied_on_directories(new.parent, below=self.root)
        if data is not None:
            files.write_file(new, data, tmp_dir=reflog.tmp_dir(self.root))

    @property
    def _moved_reflog(self) -> Path:
        return self.root / "state" / _REFLOG


def _to_journal(steps: Sequence[Step], renamed: tuple[str, str] | None) -> dict[str, Any]:
    """The value of the journal: steps as [name, old, new, fields of the entry], and the names of a rename.

    A step with earlier lines has them as a fifth item.
    """
    listed = [
        [
            s.name,
            s.old,
            s.new,
            astuple(s.entry) if s.entry else None,
            *([[*map(astuple, s.earlier)]] * bool(s.earlier)),
        ]
        for s in steps
    ]
    return {"steps": listed, "renamed": renamed}


def _from_journal(value: Any, path: Path) -> tuple[list[Step], tuple[str, str] | None]:
    """The steps that `_to_journal` wrote; raises `IntegrityError` for any other value."""
    try:
        steps = [_step(*listed) for listed in value["steps"]]
        if value["renamed"] is None:
            return steps, None
        old, new = map(full, value["renamed"])
        return steps, (old, new)
    except (TypeError, ValueError, KeyError, PersonaError) as error:
        raise IntegrityError(
            f"{path} is damaged and does not say which refs were to move",
            hint=("remove it, then ", Call("branches.values"), " lists what is there"),
            kind="state",
            file=str(path),
        ) from error


def _step(
    name: str,
    old: str | None,
    new: str | None,
    entry: Sequence[Any] | None,
    earlier: Sequence[Sequence[Any]] = (),
) -> Step:
    """A step of a journal, checked."""
    found = None if entry is None else _entry(*entry)
    branch = name == HEAD and str(new).startswith(f"{PREFIX}refs/heads/")
    if branch:
        full(str(new).removeprefix(PREFIX))
    elif new is not None and not is_id(new):
        raise ValueError("no value of a ref")
    return Step(full(name), old, new, found, tuple(_entry(*each) for each in earlier))


def _entry(before: str | None, after: str | None, who: str, time: int, offset: int, why: str) -> Entry:
    """A line of a reflog in a journal, checked."""
    if not all(id is None or is_id(id) for id in (before, after)):
        raise ValueError("no id")
    return Entry(before, after, str(who), int(time), int(offset), str(why))
