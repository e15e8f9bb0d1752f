"""One module a verb: what a command, or a method of `persona.Repository`, does. A verb imports no other verb.

`verbs.NAME` imports a module when it is first asked for, so that no command pays for the others.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.history.verbs import adapters as adapters
    from persona.history.verbs import add as add
    from persona.history.verbs import bisect as bisect
    from persona.history.verbs import blame as blame
    from persona.history.verbs import blame_weights as blame_weights
    from persona.history.verbs import checkout as checkout
    from persona.history.verbs import cherry_pick as cherry_pick
    from persona.history.verbs import commit as commit
    from persona.history.verbs import complete as complete
    from persona.history.verbs import derive as derive
    from persona.history.verbs import describe as describe
    from persona.history.verbs import diff as diff
    from persona.history.verbs import digest as digest
    from persona.history.verbs import expire as expire
    from persona.history.verbs import export_mergekit as export_mergekit
    from persona.history.verbs import fsck as fsck
    from persona.history.verbs import identify as identify
    from persona.history.verbs import import_mergekit as import_mergekit
    from persona.history.verbs import init as init
    from persona.history.verbs import log as log
    from persona.history.verbs import measure as measure
    from persona.history.verbs import merge as merge
    from persona.history.verbs import notes as notes
    from persona.history.verbs import patches as patches
    from persona.history.verbs import plumbing as plumbing
    from persona.history.verbs import rebase as rebase
    from persona.history.verbs import rebase_base as rebase_base
    from persona.history.verbs import refs as refs
    from persona.history.verbs import restore as restore
    from persona.history.verbs import revert as revert
    from persona.history.verbs import set as set  # noqa: A004
    from persona.history.verbs import stash as stash
    from persona.history.verbs import status as status
    from persona.history.verbs import switch as switch
    from persona.history.verbs import tensors as tensors
    from persona.history.verbs import vectors as vectors


def __getattr__(name: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"{__name__} has no module {name!r}") from None
