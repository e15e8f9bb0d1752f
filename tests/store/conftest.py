"""A small store, and disks that do not sync unless a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persona.store.files import replaced_calls
from persona.store.store import Store
from tests.disks import Quick


@pytest.fixture(autouse=True)
def unsynced() -> Iterator[None]:
    """Tests look at bytes, not at the speed of a disk."""
    with replaced_calls(Quick()):
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new store without a commit."""
    return Store.create(tmp_path / "repository")
