"""The two sides of a difference, as `diff` names them."""

from __future__ import annotations

from persona.errors import Call, UnknownRevision, UsageError
from persona.history.history import History
from persona.history.names.revisions import resolve, resolve_range
from persona.store.refs import NoteList


def sides(
    history: History, a: str | None, b: str | None, notes: NoteList | None = None
) -> tuple[str | None, str | None]:
    """The two commits that `Repository.diff` compares.

    None as the second side is the work tree, as the first side no commit.
    """
    if a is not None and b is None and ".." in a and not a.startswith(":/"):
        chosen = resolve_range(history, [a], notes)
        if "..." in a:
            if not chosen.hidden:
                raise UnknownRevision(
                    f"{a}: the two commits have no ancestor in common",
                    hint=(Call("diff", *a.split("...")), " compares them"),
                )
            return chosen.hidden[0], chosen.starts[1]
        return chosen.hidden[0], chosen.starts[0]
    if b is not None:
        if a is None:
            raise UsageError("a second revision needs a first one; give both")
        return resolve(history, a, notes), resolve(history, b, notes)
    return resolve(history, a, notes) if a is not None else history.head_commit(), None
