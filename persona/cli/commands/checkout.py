"""`persona checkout`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import directories, revisions
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.errors import UsageError
from persona.history.options import RunOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "checkout",
    works=True,
    takes_files=True,
    example="$ persona checkout                     # the weights of recipe.toml as it stands\n"
    "$ persona checkout HEAD~1              # roll back the personality\n"
    "$ persona checkout 'main@{last week}'\n"
    "$ persona checkout main -o ../release --max-shard-size 5GB\n"
    "$ persona checkout HEAD~1 -- chat_template.jinja",
)
@click.argument("rev", required=False, shell_complete=revisions)
@click.option(
    "-b", "branch", metavar="NEW", help="Make the branch NEW at REV (default: HEAD), and switch to it."
)
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    shell_complete=directories,
    help="Write a model directory at OUT, which transformers, vLLM and others load; HEAD and the work tree do"
    " not change.",
)
@click.option("--ours", is_flag=True, help="With files that have a conflict: take your side as a whole.")
@click.option("--theirs", is_flag=True, help="With files that have a conflict: take the other side.")
@takes(RunOptions)
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    rev: str | None,
    branch: str | None,
    out: str | None,
    ours: bool,
    theirs: bool,
    **options: Unpack[RunOptions],
) -> Shown:
    """Compute the weights of a revision and put them in place.

    With REV, checkout moves HEAD there, writes the text files of REV and computes its weights. A branch name
    attaches HEAD to the branch, any other revision detaches HEAD, and - goes back to the revision before.
    Uncommitted edits come along if REV leaves their files as they are; checkout lists them.

    Without REV, checkout computes the weights of recipe.toml as it stands, committed or not. `checkout -b
    NEW` without REV changes no weights.

    Only tensors whose inputs changed are computed again. Weights appear whole or not at all. Names after --
    are files to put back from REV.
    """
    if files is not None:
        if branch is not None or out is not None:
            raise UsageError(
                "-b and -o cannot be used with files: `persona checkout REV -- FILE` puts files back and"
                " leaves HEAD"
            )
        if not files:
            raise UsageError("give the files to put back after --")
        return Shown(repo.restore(call.tracked(repo, files), rev, ours=ours, theirs=theirs))
    if ours or theirs:
        raise UsageError("--ours and --theirs go with files: `persona checkout --ours -- FILE`")
    _check_revision(call, repo, rev)
    place = None if out is None else call.path(out)
    result = repo.checkout(rev, branch=branch, out=place, **options)
    lines: list[str] = []
    if out is None and (rev is not None or branch is not None) and result.head is not None:
        detached = result.head.branch is None and not call.json
        subject = repo["HEAD"].subject if detached else None
        lines += render.carried_lines(result.carried, call.seen_from_here(repo))
        lines += render.moved_lines(result.head, subject, before=result.before, made=branch is not None)
    return Shown(result, [*lines, *render.checkout_lines(result)])


def _check_revision(call: Invocation, repo: Repository, rev: str | None) -> None:
    """If the revision is a file's name, raises an error that says what to type."""
    if rev is not None and os.path.lexists(call.path(rev)):
        with call.files_meant([rev], "checkout", "puts {} back"):
            repo.resolve(rev)
