"""The checks of `fsck` on refs, HEAD and reflogs, one by one: damage of one hides no other.

A ref is lost if it does not exist although its reflog ends in a value. A reflog is lost if it does not exist
although its ref does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from persona.errors import Call, Hint, IntegrityError, InvalidInput, Note, PersonaError
from persona.objects.ids import abbreviate
from persona.objects.names import check_ref_name
from persona.store import files, lock, reflog
from persona.store.ref_files import HEAD, made_again
from persona.store.refs import NOTES, Refs


@dataclass
class RefSurvey:
    """The result of `survey`.

    `problems`: (kind, file, sentence). `named`: (id, source, its ref) of every value and every line that can
    be read.
    """

    problems: list[tuple[str, str, str]] = field(default_factory=list)
    named: list[tuple[str, str, str]] = field(default_factory=list)


def survey(refs: Refs) -> RefSurvey:
    """Reads HEAD, every ref and every reflog, also of deleted refs; all of one moment."""
    found = RefSurvey()
    refs.settle()
    with lock.refs_steady(refs.root):
        held = dict.fromkeys([HEAD, *_names(refs.root / "refs", "refs", found)])
        logged = dict.fromkeys(_names(refs.root / "logs", "", found))
        for name in held:
            _ref(refs, name, name in logged, found)
        for name in logged:
            if name not in held:
                _reflog_alone(refs, name, found)
    return found


def _ref(refs: Refs, name: str, logged: bool, found: RefSurvey) -> None:
    try:
        value = refs.head_id() if name == HEAD else refs.read(name)
    except PersonaError as error:
        file = error.file if isinstance(error, IntegrityError) and error.file else str(refs.root / name)
        problem = "ref", file, error.note
        if problem not in found.problems:  # HEAD has the value of its branch
            found.problems.append(problem)
        if not logged and not name.startswith(NOTES):
            _lost_reflog(refs, name, found)
        _lines(refs, name, found)
        return
    if value is not None:
        found.named.append((value, name, name))
        if name.startswith(NOTES):
            return
        if not logged:
            _lost_reflog(refs, name, found)
            return
    try:
        refs.check_log(name)
    except PersonaError as error:
        found.problems.append(("reflog", str(reflog.path_of(refs.root, name)), error.note))
    _lines(refs, name, found)


def _lost_reflog(refs: Refs, name: str, found: RefSurvey) -> None:
    path = reflog.path_of(refs.root, name)
    text = f"the reflog of {name} is lost; the next move begins a new one"
    if path.is_dir():
        text = f"{path} is a directory, and should be the reflog of {name}; move it away"
    found.problems.append(("reflog", str(path), text))


def _reflog_alone(refs: Refs, name: str, found: RefSurvey) -> None:
    """A reflog without a ref: of one that was removed, as its last line says, or of one that is lost."""
    try:
        entries = reflog.load(refs.root, name, None, known=False)
    except PersonaError as error:
        found.problems.append(("reflog", str(reflog.path_of(refs.root, name)), error.note))
        entries = reflog.readable(refs.root, name)
    last = entries[-1].new if entries else None
    if last is not None:
        text = Note(f"{name} is gone, although its reflog ends at {abbreviate(last)}", _way(name, last))
        found.problems.append(("ref", str(refs.root / name), text))
    _lines(refs, name, found)


def _way(name: str, id: str) -> Hint:
    """How a lost ref is made again."""
    if command := made_again(name, id):
        return ("bring it back with ", command)
    if name.startswith("refs/bases/"):
        return f"name the base by its id in recipe.toml: base = {abbreviate(id)!r}"
    return (Call("cat_file", abbreviate(id)), " shows what it named")


def _lines(refs: Refs, name: str, found: RefSurvey) -> None:
    for entry in reflog.readable(refs.root, name):
        for id in (entry.old, entry.new):
            if id is not None:
                found.named.append((id, f"the reflog of {name}", name))


def _names(top: Path, prefix: str, found: RefSurvey) -> Iterator[str]:
    """The names of files below a directory.

    Anything that is no file, or has no name of a ref, is a problem.
    """
    pending = [(top, prefix)]
    while pending:
        directory, above = pending.pop()
        try:
            items = files.names_in(files.check_directories(directory))
        except PersonaError as error:
            found.problems.append(("ref", str(directory), error.message))
            continue
        for item in items:
            name = f"{above}/{item.name}" if above else item.name
            if item.name.startswith("."):
                continue
            if item.is_dir(follow_symlinks=False):
                pending.append((Path(item.path), name))
            elif not item.is_file(follow_symlinks=False):
                found.problems.append(("ref", item.path, files.not_plain(item.path).message))
            elif name == HEAD or _is_ref(name):
                yield name
            else:
                found.problems.append(("ref", item.path, f"{item.path} is not a ref; move it away"))


def _is_ref(name: str) -> bool:
    try:
        check_ref_name(name)
    except InvalidInput:
        return False
    return name.startswith("refs/") and name.count("/") > 1
