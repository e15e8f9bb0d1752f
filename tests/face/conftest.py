"""The repository of tests/history, for the face above it."""

from __future__ import annotations

from tests.history.conftest import bot, grown

__all__ = ["bot", "grown"]
