"""What a command leaves in `state/` for the commands after it.

**prepared message** — the message that `revert --no-commit` leaves for the next commit.
"""

from __future__ import annotations

import os
from typing import Any, Final

from persona.history.history import History
from persona.objects.ids import is_id

PREPARED: Final = "message"
"""state/message: the message for a revert that was not committed, and the commit at HEAD then."""
BISECT: Final = "bisect"
"""state/bisect: the bisect that is under way (`persona.history.bisecting.search`)."""
SEQUENCE: Final = "sequence"
"""state/sequence: the merge, cherry-pick, revert or rebase that waits (`persona.history.sequencing`)."""
UNMERGED: Final = "unmerged"
"""state/unmerged: the conflicts that `stash pop` has left (`persona.history.sequencing.unmerged`)."""
ORIGIN: Final = "orig_head"
"""state/orig_head: the commit that HEAD was at before the last merge, rebase or reset."""


def is_sequence_under_way(history: History) -> bool:
    """Whether a merge, cherry-pick, revert or rebase has stopped here. Reads nothing."""
    return os.path.lexists(history.store.state(SEQUENCE).path)


def is_unmerged(history: History) -> bool:
    """Whether conflicts of a stash may stand. Reads nothing."""
    return os.path.lexists(history.store.state(UNMERGED).path)


def original_head(history: History) -> str | None:
    """The commit that `ORIG_HEAD` names; None if there is none."""
    return history.store.state(ORIGIN).decoded(_id, "ORIG_HEAD is then unknown")


def _id(value: Any) -> str:
    if not is_id(value):
        raise ValueError
    return str(value)


def prepared_message(history: History) -> str | None:
    """The prepared message of a `revert`; None once HEAD has moved."""
    way_out = "the message of the revert is then lost"
    found = history.store.state(PREPARED).decoded(_decoded, way_out)
    return found[1] if found is not None and found[0] == history.store.refs.head_id() else None


def _decoded(value: Any) -> tuple[str, str]:
    head, message = value["head"], value["message"]
    if type(head) is not str or type(message) is not str:
        raise TypeError
    return head, message
