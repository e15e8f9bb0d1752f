"""One module a verb, as `persona.history.verbs`. `verbs.NAME` imports a module when it is first asked for."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.behaviour.verbs import build as build
    from persona.behaviour.verbs import chat as chat
    from persona.behaviour.verbs import generate as generate
    from persona.behaviour.verbs import graph as graph
    from persona.behaviour.verbs import sweep as sweep
    from persona.behaviour.verbs import train as train
    from persona.behaviour.verbs import tune as tune
    from persona.behaviour.verbs import verify as verify


def __getattr__(name: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"{__name__} has no module {name!r}") from None
