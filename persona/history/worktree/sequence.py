"""**prepared message** — the message for a commit of what `revert --no-commit` left in the work tree."""

from __future__ import annotations

from typing import Final

from persona.history.history import History

PREPARED: Final = "message"
"""state/message: the message for a revert that was not committed, and the commit at HEAD then."""


def prepared_message(history: History) -> str | None:
    """The message for a commit of what `revert` left in the work tree; None once HEAD has moved."""
    state = history.store.state(PREPARED)
    value = state.read()
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("head", "message")):
        raise state.damaged("the message of a revert that is not committed is lost")
    return str(value["message"]) if value["head"] == history.store.refs.head_id() else None
