"""A small store."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new store without a commit."""
    return Store.create(tmp_path / "repository")
