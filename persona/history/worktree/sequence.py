"""What a command leaves in `state/` for the commands after it.

**prepared message** — the message that `revert --no-commit` leaves for the next commit.
"""

from __future__ import annotations

from typing import Any, Final

from persona.history.history import History

PREPARED: Final = "message"
"""state/message: the message for a revert that was not committed, and the commit at HEAD then."""
BISECT: Final = "bisect"
"""state/bisect: the bisect that is under way (`persona.history.bisecting.search`)."""


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
