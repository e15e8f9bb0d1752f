"""Every error that persona raises on purpose, and the exit code each one means.

    PersonaError
    ├── Refused           1   an answer of "no": nothing to commit, a conflict, work that would be overwritten
    │   ├── NothingChanged
    │   └── Conflicted
    ├── UsageError        2   a call or command line that cannot mean anything
    ├── NotFound          3
    │   ├── NotARepository
    │   ├── UnknownRevision
    │   └── UnknownName
    ├── InvalidInput      4   a checkpoint, adapter, recipe or option value that cannot be taken
    ├── IntegrityError    5   a damaged or missing object, ref or file of the store
    ├── BusyError         6   a lock is held, or a ref moved meanwhile
    ├── SystemFault       7   the system said no: space, permission, I/O
    └── Inconclusive      8   a verification that could decide neither way

`kind` is the word that `--json` prints. A message says what was wrong and where; a *hint* says what to do
next. A hint is built of texts and of what to type, a `Call` or a `Keyword`: `str(error)` words these for
Python (`repo.checkout(force=True)`), the command line for a shell (`persona checkout -f`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Blank(str):
    """Stands in a hint for a word that the reader has to choose: `NAME`."""

    def __repr__(self) -> str:
        return str(self)


class WorkFile(str):
    """A file of the work tree in a hint, named from its root. A shell types it from where it is."""


class Keyword:
    """Keywords that a hint advises to give: `Keyword(force=True)`; `Keyword("dtype")` for any value."""

    def __init__(self, *names: str, **values: object) -> None:
        self.names = names
        self.values = values

    def __str__(self) -> str:
        return ", ".join([*self.names, *(f"{name}={value!r}" for name, value in self.values.items())])


class Call(Keyword):
    """A call that a hint advises: `Call("checkout", "HEAD~1", force=True)`.

    `method` is one of a repository, `init` one of the package.
    """

    def __init__(self, method: str, *arguments: object, **values: object) -> None:
        super().__init__(**values)
        self.method = method
        self.arguments = arguments

    def __str__(self) -> str:
        owner = "persona" if self.method == "init" else "repo"
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.values.items())]
        return f"`{owner}.{self.method}({', '.join(given)})`"


Hint = str | Keyword | tuple[str | Keyword, ...]
"""Advice on what to do next, in pieces: texts, and calls to type."""

LISTED_BY_FSCK: Hint = (Call("fsck"), " lists what is damaged")
"""The advice for damaged bytes of the store that belong to no known object."""


def pieces(hint: Hint | None) -> tuple[str | Keyword, ...]:
    """The beginning of a hint that continues: the pieces of another hint, if any, and a separator."""
    if hint is None:
        return ()
    return (*(hint if isinstance(hint, tuple) else (hint,)), "; ")


def worded(hint: Hint, word: Callable[[Keyword], str] = str) -> str:
    """A hint as a text; `word` writes its calls, by default as Python."""
    pieces = hint if isinstance(hint, tuple) else (hint,)
    return "".join(piece if isinstance(piece, str) else word(piece) for piece in pieces)


class Note(str):
    """A sentence beside a result, with a hint of its own."""

    hint: Hint | None

    def __new__(cls, text: str, hint: Hint | None = None) -> Note:  # noqa: D102
        note = super().__new__(cls, text)
        note.hint = hint
        return note


class PersonaError(Exception):
    """The root of the tree; never raised itself."""

    exit_code = 70
    kind = "error"

    def __init__(self, message: str, *, hint: Hint | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def note(self) -> Note:
        """The message and the hint as a note."""
        return Note(self.message, self.hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {worded(self.hint)}"


class Refused(PersonaError):
    """An answer of "no" to a well-formed request."""

    exit_code = 1
    kind = "refused"


class NothingChanged(Refused):
    """A checkpoint that has the weights of the base."""


class Conflicted(Refused):
    """Changes that do not fit together: a merge, cherry-pick, revert or rebase waits in the work tree.

    `conflicts`: the places, each with its `path`, `key`, and the values `base`, `theirs` and `ours`.
    """

    kind = "conflict"

    def __init__(self, message: str, *, conflicts: tuple[Any, ...], hint: Hint | None = None) -> None:
        super().__init__(message, hint=hint)
        self.conflicts = conflicts


class UsageError(PersonaError):
    """Arguments that contradict each other or lack something."""

    exit_code = 2
    kind = "usage"


class NotFound(PersonaError):
    """Something named does not exist."""

    exit_code = 3
    kind = "not-found"


class NotARepository(NotFound):
    """No `.persona` directory here or above."""

    kind = "not-a-repository"


class UnknownRevision(NotFound, KeyError):
    """A revision that names no commit, or more than one. It is a `KeyError`: `repo[REV]` raises it."""

    kind = "unknown-revision"


class UnknownName(NotFound, KeyError):
    """A vector, base, branch, tag, file or key that does not exist.

    It is a `KeyError`: `repo.branches[NAME]` raises it.
    """

    kind = "unknown-name"


class InvalidInput(PersonaError):
    """Input from the user that cannot be taken as it is.

    `parameter`: the argument of the call that cannot be taken, if it is one; the message then begins with it.
    """

    exit_code = 4
    kind = "invalid-input"

    def __init__(self, message: str, *, parameter: str | None = None, hint: Hint | None = None) -> None:
        super().__init__(message if parameter is None else f"{parameter}: {message}", hint=hint)
        self.parameter = parameter


class IntegrityError(PersonaError):
    """Stored bytes that are damaged, missing, or do not match their id.

    `object_kind`, `id` and `file` name the object, if they are known.
    """

    exit_code = 5
    kind = "integrity"

    def __init__(
        self,
        message: str,
        *,
        kind: str | None = None,
        id: str | None = None,
        file: str | None = None,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.object_kind = kind
        self.id = id
        self.file = file


class BusyError(PersonaError):
    """Another process holds a lock or moved the ref first."""

    exit_code = 6
    kind = "busy"


class SystemFault(PersonaError):
    """The operating system refused: no space, no permission, an I/O error."""

    exit_code = 7
    kind = "system"


class Inconclusive(PersonaError):
    """A verification that could decide neither way."""

    exit_code = 8
    kind = "inconclusive"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a sentence, with a count of those beyond `most`.

    A line feed in a name becomes `?`, so that no file name looks like another line of the message.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]).replace("\n", "?") + more


def quoted(value: object, limit: int = 100) -> str:
    """A value as it was typed, in quotes, for a sentence; a long one loses its middle."""
    text = repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit - limit // 4]}…{text[-(limit // 4) :]}"
