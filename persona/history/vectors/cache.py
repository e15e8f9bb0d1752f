"""Counts of vectors, and the paths that they came from, kept in `cache/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.history.history import History
from persona.objects.rules import NUMERICS

if TYPE_CHECKING:
    pass


def remember(history: History, id: str, changed_fraction: float, l2: float | None = None) -> dict[str, Any]:
    """Keeps these counts; returns all that is known of the vector."""
    found = {"changed_fraction": changed_fraction} | ({} if l2 is None else {"l2": l2})
    known = {**known_counts(history, id), **found}
    history.store.cache(f"vectors-{NUMERICS}/{id}").write(json.dumps(known).encode())
    return known


def remember_origin(history: History, id: str, place: Path) -> None:
    """Keeps the path that a vector was imported from on this machine."""
    history.store.cache(f"origins/{id}").write(json.dumps(str(place)).encode())


def known_origin(history: History, id: str) -> Path | None:
    """The path that a vector was imported from, or None."""
    data = history.store.cache(f"origins/{id}").read()
    return Path(json.loads(data)) if data else None


def known_fraction(history: History, id: str) -> float | None:
    """The fraction of weights that a vector changes, or None if it was not counted."""
    value = known_counts(history, id).get("changed_fraction")
    return float(value) if value is not None else None


def known_counts(history: History, id: str) -> dict[str, Any]:
    """Everything that was counted of a vector; empty if nothing was."""
    data = history.store.cache(f"vectors-{NUMERICS}/{id}").read()
    value = json.loads(data) if data else {}
    return value if isinstance(value, dict) else {}
