"""File names that stand after `--`."""

from __future__ import annotations

from collections.abc import Sequence

import click

FILES = "persona.files"
"""Key of `ctx.meta`: what stood after `--`, or None where there was no `--`."""


def files_after_dashes(ctx: click.Context) -> Sequence[str] | None:
    """The file names after `--`; None where there was no `--`."""
    files: Sequence[str] | None = ctx.meta.get(FILES)
    return files
