"""The bisect of an open repository."""

from __future__ import annotations

from persona.face.verb import Verb
from persona.history import verbs
from persona.history.history import History


class Bisect:
    """The search for the first commit with a property. `status()` says what comes next."""

    def __init__(self, history: History) -> None:
        self._history = history

    status = Verb(lambda: verbs.bisect.status)
    start = Verb(lambda: verbs.bisect.start)
    good = Verb(lambda: verbs.bisect.good)
    bad = Verb(lambda: verbs.bisect.bad)
    mark = Verb(lambda: verbs.bisect.mark)
    skip = Verb(lambda: verbs.bisect.skip)
    next = Verb(lambda: verbs.bisect.next_)
    run = Verb(lambda: verbs.bisect.run)
    log = Verb(lambda: verbs.bisect.log)
    replay = Verb(lambda: verbs.bisect.replay)
    reset = Verb(lambda: verbs.bisect.reset)

    def __repr__(self) -> str:
        if self._history.closed:
            return "<Bisect of a closed repository>"
        return f"<Bisect: {self.status().state}>"
