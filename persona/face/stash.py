"""The stashes of an open repository."""

from __future__ import annotations

from persona.face.verb import Verb
from persona.history import verbs
from persona.history.history import History


class Stashes:
    """Edits of the work tree that were put aside, as git's stash. `list()` has the newest first."""

    def __init__(self, history: History) -> None:
        self._history = history

    push = Verb(lambda: verbs.stash.push)
    pop = Verb(lambda: verbs.stash.pop)
    apply = Verb(lambda: verbs.stash.apply)
    branch = Verb(lambda: verbs.stash.branch)
    list = Verb(lambda: verbs.stash.list_)
    show = Verb(lambda: verbs.stash.show)
    drop = Verb(lambda: verbs.stash.drop)
    clear = Verb(lambda: verbs.stash.clear)

    def __repr__(self) -> str:
        if self._history.closed:
            return "<Stashes of a closed repository>"
        return f"<Stashes: {len(self.list())}>"
