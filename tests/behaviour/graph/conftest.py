"""A repository whose graph the tests write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persona.repository import Repository
from tests.checkpoints import write_model
from tests.history.bots import Bot, at, base_tensors


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    """A fresh repository: the base alone, and an empty graph."""
    base = base_tensors()
    write_model(tmp_path / "tiny", base)
    Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at(), committer=at(), chunk=64)
    (tmp_path / "bot" / "graph" / "data").mkdir(parents=True)
    with Repository.open(tmp_path / "bot", author=at(), committer=at()) as repo:
        yield Bot(repo, tmp_path, base)
