"""Places for machine code that no other test uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from persona.codec.native import code_files, watch


@dataclass(frozen=True)
class Places:
    """Where machine code lies in a test: what this machine compiled, and what persona came with."""

    cache: Path
    shipped: Path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Both empty; nothing was logged yet."""
    found = Places(tmp_path / "cache", tmp_path / "shipped")
    monkeypatch.setattr(code_files, "cached_in", lambda: [found.cache])
    monkeypatch.setattr(code_files, "SHIPPED", found.shipped)
    monkeypatch.setattr(watch, "_LOGGED", set())
    return found
