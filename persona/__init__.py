"""persona: version control for the behaviour of a language model.

    import persona
    repo = persona.init("mybot", base="./SmolLM2-135M-Instruct")     # or persona.open("mybot")
    repo.commit("../ft/listening", name="listening", alpha=1.0, message="listen before answering")
    repo.checkout("HEAD~1")

The words and the layers are those of docs/architecture.md; every error is a `PersonaError` (persona.errors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from persona.errors import (
    BusyError,
    Inconclusive,
    IntegrityError,
    InvalidInput,
    NotARepository,
    NotFound,
    PersonaError,
    Refused,
    SystemFault,
    UnknownName,
    UnknownRevision,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from persona.merge.arithmetic.warm_up import WarmUp
    from persona.objects.commit import Person
    from persona.progress import Progress
    from persona.repository import Repository

__version__ = "0.1.0"

# Without `open`: `from persona import *` leaves Python's own alone.
__all__ = [
    "init",
    "warm_up",
    "Repository",
    "Person",
    "PersonaError",
    "Refused",
    "UsageError",
    "NotFound",
    "NotARepository",
    "UnknownRevision",
    "UnknownName",
    "InvalidInput",
    "IntegrityError",
    "BusyError",
    "SystemFault",
    "Inconclusive",
    "__version__",
]


def open(  # noqa: A001  as the API of docs/commands.md has it
    path: str | PathLike[str] = ".",
    *,
    user_config: str | PathLike[str] | None = None,
    author: Person | None = None,
    committer: Callable[[], Person] | None = None,
) -> Repository:
    """The repository at `path` or above it; see `Repository.open`."""
    from persona.repository import Repository

    return Repository.open(path, user_config=user_config, author=author, committer=committer)


def init(
    path: str | PathLike[str] = ".",
    *,
    base: str | PathLike[str] | None = None,
    name: str | None = None,
    author: Person | None = None,
    committer: Callable[[], Person] | None = None,
    user_config: str | PathLike[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Repository:
    """Makes a repository with its first commit (see `Repository.init`) and opens it."""
    from persona.repository import Repository

    Repository.init(
        path,
        base=base,
        name=name,
        author=author,
        committer=committer,
        user_config=user_config,
        threads=threads,
        progress=progress,
    )
    return Repository.open(path, user_config=user_config, author=author, committer=committer)


def warm_up(*, progress: Progress | None = None) -> WarmUp:
    """Compiles every kernel for exactly this processor; see `persona.merge.arithmetic.warm_up.warm_up`."""
    from persona.merge.arithmetic.warm_up import warm_up

    return warm_up(progress)


def __dir__() -> list[str]:
    """The names of the module, also those that are imported on first use."""
    return sorted({*globals(), "Person", "Repository", "merge"})


def __getattr__(name: str) -> Any:
    """`Repository`, `Person` and `merge`, imported when first asked for."""
    if name == "merge":
        from importlib import import_module

        return import_module("persona.merge")
    if name == "Repository":
        from persona.repository import Repository

        return Repository
    if name == "Person":
        from persona.objects.commit import Person

        return Person
    raise AttributeError(f"module 'persona' has no attribute {name!r}")
