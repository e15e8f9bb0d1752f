"""Behaviour: patterns compiled into vectors, and measured.

`persona.behaviour.verbs` has the verbs of `Repository`. The names that this module gives load torch when they
are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona.behaviour.training.apollo import Apollo as Apollo
    from persona.behaviour.training.callback import CommitCallback as CommitCallback


def __getattr__(name: str) -> Any:
    if name == "Apollo":
        from persona.behaviour.training.apollo import Apollo

        return Apollo
    if name == "CommitCallback":
        from persona.behaviour.training.callback import CommitCallback

        return CommitCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
