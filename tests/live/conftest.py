"""A repository around a tiny Llama model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import persona
from persona.repository import Repository
from tests.llamas import LlamaBot


@pytest.fixture
def grown(begin: Callable[..., LlamaBot]) -> LlamaBot:
    """Three vectors in three commits: `one`, `two` at −0.5, and `three` that reaches layer 1 alone."""
    return begin().grow()


@pytest.fixture
def repo(grown: LlamaBot) -> Iterator[Repository]:
    """Its repository, open."""
    with persona.open(grown.root) as opened:
        yield opened
