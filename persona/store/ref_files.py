"""The files of refs and HEAD: their bytes, their names, and names that cannot stand beside each other.

Nothing here takes a lock; `refs.py` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from blake3 import blake3

from persona.errors import Call, Hint, IntegrityError, InvalidInput, Keyword, PersonaError
from persona.limits import MAX_REF_BYTES
from persona.objects.ids import abbreviate, is_id
from persona.objects.names import check_ref_name
from persona.store import files, reflog
from persona.store.reflog import Entry

HEAD: Final = "HEAD"
PREFIX: Final = "ref: "
"""Before the name of a branch in HEAD."""
_CHECK_CHARS: Final = 16

Head = tuple[Literal["ref", "id"], str]
"""("ref", full name of a branch) or ("id", a commit's id)."""


class RefFiles:
    """The files of the refs below a `.persona` directory. Names have been checked by `full`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- reading

    def value(self, name: str) -> str | None:
        """The id that a ref holds, or None if it does not exist. Raises `IntegrityError` if it is damaged."""
        text = self.text(name)
        if text is not None and not is_id(text):
            raise self._damaged(name)
        return text

    def head(self) -> Head:
        """The value of HEAD. Raises `IntegrityError` if it is missing or damaged."""
        text = self.text(HEAD)
        if text is None:
            raise IntegrityError(
                f"{self.path(HEAD)} is missing",
                kind="ref",
                file=str(self.path(HEAD)),
                hint=self.way_out(None),
            )
        if is_id(text):
            return "id", text
        name = text.removeprefix(PREFIX)
        try:
            if name != text:
                return "ref", full(name)
        except PersonaError:
            pass
        raise self._damaged(HEAD)

    def position(self) -> tuple[Head, str | None]:
        """The value of HEAD, and the commit that it leads to.

        Raises `IntegrityError` if HEAD names a branch that does not exist although there is history.
        """
        kind, value = self.head()
        if kind == "id":
            return (kind, value), value
        id = self.value(value)
        if id is None and self.has_history():
            raise IntegrityError(
                f"HEAD is on {value}, which does not exist",
                kind="ref",
                file=str(self.path(HEAD)),
                hint=self.way_out(value),
            )
        return (kind, value), id

    def entries(self, name: str) -> tuple[Entry, ...]:
        """The moves of a ref or HEAD, oldest first.

        For a deleted ref, or a HEAD that leads nowhere, all moves that are left.
        """
        try:
            value = self.position()[1] if name == HEAD else self.value(name)
        except IntegrityError:
            return reflog.load(self.root, name, None, known=False)
        try:
            return reflog.load(self.root, name, value)
        except IntegrityError:
            if value is not None:
                raise
            return reflog.load(self.root, name, None, known=False)

    def attached_to(self, name: str) -> bool:
        """Whether HEAD is attached to a branch."""
        try:
            return self.head() == ("ref", name)
        except IntegrityError:
            return False

    def has_history(self) -> bool:
        """Whether a branch exists, or HEAD ever led to a commit; a first move that never happened is none."""
        try:
            return any(True for _ in self.names("refs/heads/")) or bool(reflog.load(self.root, HEAD, None))
        except IntegrityError:
            return True

    # -- files

    def path(self, name: str) -> Path:
        """The file of a ref or HEAD."""
        return self.root / name

    def _damaged(self, name: str) -> IntegrityError:
        path, last = self.path(name), self.last(name)
        hint = self.way_out(None) if name == HEAD else None
        if last is not None and (command := made_again(name, last)):
            hint = ("remove the file, then bring it back with ", command)
        return IntegrityError(f"{path} is damaged: its check is wrong", kind="ref", file=str(path), hint=hint)

    def text_or_damage(self, name: str) -> str | None:
        """Like `text`, but "" if the file is damaged and will be replaced."""
        try:
            return self.text(name)
        except IntegrityError:
            return ""

    def text(self, name: str) -> str | None:
        """The text of a ref's file, or HEAD's; None if there is no file."""
        path = self.path(name)
        files.check_directories(self.root, *name.split("/")[:-1])
        try:
            data = files.read_file(path, limit=MAX_REF_BYTES)
        except IntegrityError:
            if name != HEAD and path.is_dir() and not path.is_symlink():  # of names that begin with it
                return None
            raise
        if data is None:
            return None
        try:
            value, check, rest = data.decode("utf-8").split("\n")
        except ValueError:
            raise self._damaged(name) from None
        if rest or check != _check(name, value):
            raise self._damaged(name)
        return value

    def sync(self, name: str) -> None:
        """Syncs the directories of a ref; an earlier write may have been cut short before its sync."""
        place = self.path(name).parent
        while not place.is_dir():
            place = place.parent
        files.sync_directory(place)

    def write(self, name: str, value: str | None, *, first: bool) -> None:
        """Makes a file hold a value, durably; None removes it. `first`: no file of that name was there."""
        path = self.path(name)
        if value is None:
            files.remove(path)
            files.sync_directory(path.parent)
            parts = name.split("/")
            files.remove_empty_directories(path.parent, below=self.root.joinpath(*parts[:2]))
            return
        if first:
            files.relied_on_directories(path.parent, below=self.root)
        text = f"{value}\n{_check(name, value)}\n"
        files.write_file(path, text.encode(), tmp_dir=reflog.tmp_dir(self.root))

    def names(self, prefix: str) -> Iterator[str]:
        """Full names of the ref files below `prefix`. A link or anything else that is no file is damage."""
        start = prefix[: prefix.rfind("/") + 1].rstrip("/") or "refs"
        pending = [start]
        while pending:
            folder = pending.pop()
            directory = files.check_directories(self.root, *folder.split("/"))
            for item in files.names_in(directory):
                name = f"{folder}/{item.name}"
                if item.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif not item.is_file(follow_symlinks=False):
                    raise files.not_plain(item.path)
                elif name.startswith(prefix) and not item.name.startswith("."):
                    yield name

    def way_out(self, branch: str | None) -> Hint | None:
        """The hint for a HEAD that leads nowhere: make its branch again, or switch to another one."""
        ways: list[str | Keyword] = []
        with suppress(PersonaError):
            last = self.last(branch) if branch is not None else None
            if branch is not None and last is not None and (again := made_again(branch, last)):
                self.check_new(branch)
                ways += [f"it was at {abbreviate(last)}: ", again, " makes it again"]
        with suppress(PersonaError):
            other = self._whole_branch()
            if other is not None:
                ways += ["; or " if ways else "", Call("switch", other), " goes to a branch that exists"]
        return tuple(ways) or None

    def _whole_branch(self) -> str | None:
        """The short name of a branch that can be read."""
        for name in sorted(self.names("refs/heads/")):
            with suppress(IntegrityError):
                if self.value(name) is not None:
                    return name.removeprefix("refs/heads/")
        return None

    def last(self, name: str) -> str | None:
        """The last id that the reflog of a ref names, in a line that can be read."""
        entries = reversed(reflog.readable(self.root, name))
        return next((entry.new for entry in entries if entry.new is not None), None)

    def check_new(self, name: str, *, leaving: str | None = None) -> None:
        """Refuses a new name that differs from another only in case, or that conflicts with its directory.

        A name conflicts if it is a directory of another, or lies in one. `leaving` is a ref that is removed
        in the same move.
        """
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder, part = "/".join(parts[:depth]), parts[depth]
            for item in files.names_in(files.check_directories(self.root, *parts[:depth])):
                if item.name.casefold() != part.casefold():
                    continue
                here, is_directory = f"{folder}/{item.name}", item.is_dir(follow_symlinks=False)
                if item.name == part and is_directory and depth < len(parts) - 1:
                    continue
                names = self.names(f"{here}/") if is_directory else iter([here])
                other = next((other for other in names if other != leaving), None)
                if other is None:
                    continue
                if item.name == part:
                    raise InvalidInput(
                        f"{name} cannot exist beside {other}: one path would be both a ref"
                        " and a directory; choose another name"
                    )
                raise InvalidInput(f"{name} and {other} differ only in case; choose another name")

    def clear_way(self, name: str) -> None:
        """Removes reflogs of removed refs and empty directories that are in the way of a new ref.

        They are in the way if a file must become a directory, or a directory a file.
        """
        parts = name.split("/")
        files.check_directories(self.root, "logs", *parts[:-1])
        for count in range(3, len(parts)):
            path = reflog.path_of(self.root, "/".join(parts[:count]))
            if path.is_file() and not path.is_symlink():
                files.remove(path)
                files.sync_directory(path.parent)
        for top, logs in ((reflog.path_of(self.root, name), True), (self.path(name), False)):
            if not top.is_dir() or top.is_symlink():
                continue
            for folder, _, names in os.walk(top, topdown=False):
                for item in names if logs else ():
                    files.remove(Path(folder) / item)
                files.remove_empty_directories(Path(folder), below=top.parent)


def made_again(name: str, id: str) -> Call | None:
    """The call that makes a branch or a tag of this full name at an id; None for other refs."""
    for prefix, method in (("refs/heads/", "branches.create"), ("refs/tags/", "tags.create")):
        if name.startswith(prefix):
            return Call(method, name.removeprefix(prefix), abbreviate(id))
    return None


def full(name: str) -> str:
    """A full ref name, checked: HEAD, or one that begins with refs/."""
    if name == HEAD:
        return name
    check_ref_name(name)
    if not name.startswith("refs/") or name.count("/") < 1:
        raise InvalidInput(f"{name!r:.100} is not a full ref name")
    return name


def _check(name: str, value: str) -> str:
    return blake3(b"ref\x00%s\x00%s" % (name.encode(), value.encode())).hexdigest()[:_CHECK_CHARS]
