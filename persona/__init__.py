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
    Conflicted,
    Inconclusive,
    IntegrityError,
    InvalidInput,
    NotARepository,
    NotFound,
    NothingChanged,
    PersonaError,
    Refused,
    SystemFault,
    UnknownName,
    UnknownRevision,
    UsageError,
)

if TYPE_CHECKING:
    from persona.face.revision import Revision
    from persona.live.model import LiveModel as LiveModel
    from persona.merge.arithmetic.warm_up import WarmUp
    from persona.objects.commit import Person
    from persona.progress import Progress
    from persona.repository import Repository
    from persona.version import __version__

    open = Repository.open  # noqa: A001  as the API has it
    init = Repository.init


# Without `open`: `from persona import *` leaves Python's own alone. Without `LiveModel`, which loads torch.
__all__ = [
    "init",
    "warm_up",
    "Repository",
    "Revision",
    "Person",
    "PersonaError",
    "Refused",
    "NothingChanged",
    "Conflicted",
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


_LATE = {
    "Repository": "persona.repository",
    "Revision": "persona.face.revision",
    "LiveModel": "persona.live.model",
    "Person": "persona.objects.commit",
    "__version__": "persona.version",
}
"""The modules of the names that are imported when first asked for."""


def warm_up(*, progress: Progress | None = None) -> WarmUp:
    """Compiles every kernel for exactly this processor; see `persona.merge.arithmetic.warm_up.warm_up`."""
    from persona.merge.arithmetic.warm_up import warm_up

    return warm_up(progress)


def __dir__() -> list[str]:
    """The public names, also those that are imported on first use."""
    return sorted(
        {*__all__, *_LATE, "open", "errors", "merge", *(name for name in globals() if name[:2] == "__")}
    )


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("open", "init"):
        return getattr(import_module("persona.repository").Repository, name)
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    if name == "merge":
        return import_module("persona.merge")
    raise AttributeError(f"module 'persona' has no attribute {name!r}")
