"""`persona rev-parse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.rendering import Shown
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.repository import Repository


@declare("rev-parse", example="$ persona rev-parse 'main@{yesterday}'\n$ persona rev-parse --abbrev-ref HEAD")
@click.argument("revs", nargs=-1, metavar="REV…", shell_complete=revisions)
@click.option("--short", is_flag=True, help="Print the short id.")
@click.option("--verify", is_flag=True, help="Take only one REV.")
@click.option("--abbrev-ref", is_flag=True, help="Print the branch or tag that REV names.")
@click.option("--symbolic-full-name", is_flag=True, help="Print the full name of this branch or tag.")
@click.option("--show-toplevel", is_flag=True, help="Print the directory of the work tree.")
def command(
    repo: Repository,
    revs: tuple[str, ...],
    short: bool,
    verify: bool,
    abbrev_ref: bool,
    symbolic_full_name: bool,
    show_toplevel: bool,
) -> Shown:
    """Print the full id of a revision.

    REV is HEAD, @, a branch, a tag, or the first digits of an id, at least four. ~n, ^n, @{n} and @{date} may
    follow. REV is also - or :/text.
    """
    if show_toplevel:
        place = str(repo.root.absolute())
        return Shown({"root": place}, place)
    if not revs or (verify and len(revs) > 1):
        raise UsageError("name one revision, such as HEAD" if verify else "name a revision, such as HEAD")
    if abbrev_ref or symbolic_full_name:
        names = [repo.ref_name(rev, full=symbolic_full_name) for rev in revs]
        return _shown([{"ref": name} for name in names], [name for name in names if name])
    ids = [repo.resolve(rev) for rev in revs]
    return _shown([{"id": id} for id in ids], [render.short(id) if short else id for id in ids])


def _shown(values: list[dict[str, str | None]] | list[dict[str, str]], lines: list[str]) -> Shown:
    return Shown(values[0] if len(values) == 1 else values, lines)
