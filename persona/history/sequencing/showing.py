"""The sequence that is under way, as `status` shows it."""

from __future__ import annotations

from persona.history.history import History
from persona.history.sequence_views import UnderWay
from persona.history.sequencing.results import views
from persona.history.sequencing.state import read_sequence, standing, unmerged


def seen(history: History) -> UnderWay | None:
    """The sequence that is under way, or the conflicts that a stash has left; None if there is none."""
    sequence = read_sequence(history)
    if sequence is None:
        left = unmerged(history)
        if left is None:
            return None
        return UnderWay("stash", left.commit, left.why, views(standing(history, left)), 0)
    stop = sequence.stop
    found = standing(history, stop) if stop is not None and sequence.phase == "waiting" else []
    return UnderWay(
        verb=sequence.verb,
        stopped=None if stop is None else stop.commit,
        why=None if stop is None else stop.why,
        conflicts=views(found),
        left=len(sequence.todo),
        branch=sequence.branch,
        onto=sequence.onto,
        cut_short=sequence.phase in ("placing", "leaving"),
    )
