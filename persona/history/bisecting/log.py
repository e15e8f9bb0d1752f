"""The log of a bisect as text: command lines that `replay` reads, and comments. Also git's own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from persona.errors import InvalidInput, PersonaError, UsageError, quoted
from persona.history.bisecting.search import BAD, GOOD, SKIP, Search, checked_terms
from persona.history.bisecting.stepping import WAITING, next_step
from persona.history.history import History
from persona.history.results import Head

_TERMS = {"--term-new": BAD, "--term-bad": BAD, "--term-old": GOOD, "--term-good": GOOD}
_FLAGS = {"--first-parent": "first_parent", "--checkout": "checkout"}


def log_lines(history: History, search: Search) -> Iterator[str]:
    """The lines of the log."""
    bad, good = search.words
    words = ["persona bisect start"]
    if search.terms is not None and search.terms not in ((BAD, GOOD), ("new", "old")):
        words.append(f"--term-old {good} --term-new {bad}")
    words += [flag for flag, name in _FLAGS.items() if getattr(search, name)]
    yield " ".join(words)
    for mark, id in search.marks:
        yield f"# {search.word(mark)}: {described(history, id)}"
        yield f"persona bisect {search.word(mark)} {id}"
    step = WAITING
    with suppress(PersonaError):
        step = next_step(history, search)
    if step.state == "found" and step.commit is not None:
        yield f"# first {bad} commit: {described(history, step.commit)}"
    elif step.state == "undecided":
        yield "# only skipped commits left to test"
        yield from (f"# possible first {bad} commit: {described(history, id)}" for id in step.candidates)


def described(history: History, id: str) -> str:
    """`[id] subject`."""
    return f"[{id}] {history.commit(id).subject}"


def read_log(text: str, begin: Head, resolve: Callable[[str], str]) -> Search:
    """The search of a log. `InvalidInput` that names the line which cannot be read."""
    search: Search | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            program, bisect, command, *words = shlex.split(line)
            if program not in ("persona", "git") or bisect != "bisect":
                raise ValueError
            search = (
                _start(words, begin, resolve)
                if command == "start"
                else _after(search, command, words, resolve)
            )
        except ValueError:
            raise InvalidInput(f"line {number} of the log is no command of bisect: {quoted(line)}") from None
        except PersonaError as error:
            error.message = f"line {number} of the log: {error.message}"
            raise
    if search is None:
        raise InvalidInput("the log has no line that begins with `persona bisect start`")
    return search


def _start(words: list[str], begin: Head, resolve: Callable[[str], str]) -> Search:
    """The search that a line of `start` begins."""
    given: dict[str, str] = {}
    flags: dict[str, Any] = {}
    revs: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _TERMS:
            given[_TERMS[name]] = value if equals else next(rest, "")
        elif word in _FLAGS:
            flags[_FLAGS[word]] = True
        elif word.startswith("-"):
            raise UsageError(f"bisect start has no option {quoted(word)} in a log")
        else:
            revs.append(resolve(word))
    search = Search(begin, checked_terms(given.get(BAD), given.get(GOOD)))
    search = replace(search, **flags)
    return begun(search, revs[:1], revs[1:])


def begun(search: Search, bad: list[str], good: list[str]) -> Search:
    """The search with the commits that `start` names marked."""
    if bad and search.terms is None:
        search = replace(search, terms=(BAD, GOOD))
    return search.marked(BAD, bad).marked(GOOD, good)


def _after(search: Search | None, command: str, words: list[str], resolve: Callable[[str], str]) -> Search:
    if search is None or not words:
        raise ValueError
    mark = SKIP
    if command != SKIP:
        mark, search = search.settled(command)
    return search.marked(mark, map(resolve, words))
