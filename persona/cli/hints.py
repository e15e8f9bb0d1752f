"""Hints of errors and notes in the words of a shell: calls as commands, keywords as flags."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from persona.errors import Blank, Call, Hint, Keyword, Note, WorkFile, worded

_COMMANDS: Final = {
    "bisect.bad": "bisect bad",
    "bisect.good": "bisect good",
    "bisect.log": "bisect log",
    "bisect.next": "bisect next",
    "bisect.replay": "bisect replay",
    "bisect.reset": "bisect reset",
    "bisect.skip": "bisect skip",
    "bisect.start": "bisect start",
    "branches.create": "branch",
    "branches.delete": "branch -d",
    "branches.rename": "branch -m",
    "branches.values": "branch",
    "cat_file": "cat-file -p",
    "config.set": "config",
    "graph.check": "graph check",
    "graph.export_lines": "graph export",
    "graph.import_lines": "graph import",
    "graph.status": "graph status",
    "graph.view": "graph show",
    "import_mergekit": "import",
    "notes.add": "notes add",
    "notes.append": "notes append",
    "notes.remove": "notes remove",
    "rebase_base": "rebase --base",
    "recipe.remove": "rm",
    "recipe.rename": "mv",
    "recipe.set": "set",
    "recipe.set_rules": "set --merge",
    "resolve": "rev-parse",
    "stash.drop": "stash drop",
    "stash.list": "stash list",
    "stash.push": "stash push",
    "tags.create": "tag",
    "tags.delete": "tag -d",
    "tags.values": "tag",
    "vectors.all": "vector ls --all",
    "vectors.delete": "vector rm",
    "vectors.derive": "vector derive",
    "vectors.extract": "vector extract",
    "vectors.statistics": "vector show",
    "vectors.take": "vector take",
    "vectors.values": "vector ls",
}
"""The command for each method that has another name on the command line."""
_FLAGS: Final = {
    "branch": "-b",
    "create": "-c",
    "dry_run": "-n",
    "force": "-f",
    "force_create": "-C",
    "out": "-o",
    "rev": "--source",
    "user": "--global",
}
"""Flags that are spelled in another way than their keyword."""


def in_shell(hint: Hint) -> str:
    """A hint as the command line says it."""
    return worded(hint, _typed)


def seen_from(hint: Hint, seen: Callable[[str], str]) -> Hint:
    """The hint with each file of the work tree named as `seen` names it."""
    pieces = hint if isinstance(hint, tuple) else (hint,)
    return tuple(_seen(piece, seen) if isinstance(piece, Call) else piece for piece in pieces)


def _seen(call: Call, seen: Callable[[str], str]) -> Call:
    def name(word: object) -> object:
        if isinstance(word, list):
            return [name(each) for each in word]
        return seen(word) if isinstance(word, WorkFile) else word

    named = [name(word) for word in call.arguments]
    return Call(call.method, *named, **call.values)


def said(notes: Iterable[str]) -> Iterator[str]:
    """NoteList as lines, each followed by its hint."""
    for note in notes:
        yield note
        if isinstance(note, Note) and note.hint is not None:
            yield f"hint: {in_shell(note.hint)}"


def command_line(call: Call) -> str:
    """The command for a call, without its first word."""
    words: list[str] = []
    for argument in call.arguments:
        pairs = argument.items() if isinstance(argument, dict) else None
        several = argument if isinstance(argument, list) else [argument]
        words += [f"{key}={value}" for key, value in pairs] if pairs else map(_word, several)
    if any(re.match("-.", str(argument)) for argument in call.arguments):
        words.insert(0, "--")  # a name, and no option
    return " ".join((_COMMANDS.get(call.method, call.method.replace("_", "-")), *_flags(call), *words))


def _typed(piece: Keyword) -> str:
    return f"`persona {command_line(piece)}`" if isinstance(piece, Call) else " ".join(_flags(piece))


def _flags(piece: Keyword) -> Iterator[str]:
    for name in piece.names:
        yield flag(name)
    for name, value in piece.values.items():
        if name == "mode":
            yield f"--{value}"
        elif isinstance(value, bool):
            yield flag(name)
        else:
            yield f"{flag(name)} {_word(value)}"


def flag(name: str) -> str:
    """The flag of a keyword: as it is declared, else its own name."""
    from persona.history import options

    if name in _FLAGS:
        return _FLAGS[name]
    for kind in (options.RunOptions, options.ImportOptions, options.JoinOptions):
        option = options.declared(kind).get(name)
        if option is not None:
            return max(option.flags, key=len)
    return "--" + name.rstrip("_").replace("_", "-")


def _word(value: object) -> str:
    return str(value) if isinstance(value, Blank) else shlex.quote(str(value))
