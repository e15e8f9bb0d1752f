"""Every error that persona raises on purpose, and the exit code each one means.

    PersonaError
    ├── Refused           1   an answer of "no": nothing to commit, a conflict, work that would be overwritten
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

`kind` is the word that `--json` prints. A message says what was wrong, where, and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class PersonaError(Exception):
    """The root of the tree; never raised itself."""

    exit_code = 70
    kind = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(PersonaError):
    """An answer of "no" to a well-formed request."""

    exit_code = 1
    kind = "refused"


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


class UnknownRevision(NotFound):
    """A revision that names no commit, or more than one."""

    kind = "unknown-revision"


class UnknownName(NotFound):
    """A vector, base, branch, tag, file or key that does not exist."""

    kind = "unknown-name"


class InvalidInput(PersonaError):
    """Input from the user's world that cannot be taken as it is.

    `parameter`: the argument of the call that cannot be taken, where it is one; the message begins with it.
    """

    exit_code = 4
    kind = "invalid-input"

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message if parameter is None else f"{parameter}: {message}")
        self.parameter = parameter


class IntegrityError(PersonaError):
    """Stored bytes that are damaged, missing or not what their id says.

    `object_kind`, `id` and `file` name the culprit where they are known.
    """

    exit_code = 5
    kind = "integrity"

    def __init__(
        self, message: str, *, kind: str | None = None, id: str | None = None, file: str | None = None
    ) -> None:
        super().__init__(message)
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
    """Names in a sentence, with a count of those beyond `most`. A line feed in a name becomes `?`, so that no
    name of a file looks like another line of the message.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]).replace("\n", "?") + more


def quoted(value: object, limit: int = 100) -> str:
    """A value as it was typed, in quotes, for a sentence; the middle of a long one is left out."""
    text = repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit - limit // 4]}…{text[-(limit // 4) :]}"
