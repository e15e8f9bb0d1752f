"""File names after `--` on a command line."""

from __future__ import annotations

from collections.abc import Sequence

import click

FILES = "persona.files"
"""Key of `ctx.meta`: the words after `--`, or None without `--`."""


def files_after_dashes(ctx: click.Context) -> Sequence[str] | None:
    """The file names after `--`; None without `--`."""
    files: Sequence[str] | None = ctx.meta.get(FILES)
    return files
