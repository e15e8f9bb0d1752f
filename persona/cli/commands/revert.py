"""`persona revert`."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from persona.cli import sequencing
from persona.cli.command import declare
from persona.cli.completions import vector_or_revision, vectors
from persona.cli.messages import EDITOR_HINT, Draft, edit_message
from persona.cli.rendering import Shown
from persona.errors import UnknownRevision, UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "revert",
    works=True,
    example="$ persona revert suggesting            # drop a behaviour\n"
    "$ persona revert HEAD~3                # undo one commit",
)
@click.argument("targets", nargs=-1, metavar="[REV | A..B | NAME]…", shell_complete=vector_or_revision)
@click.option(
    "--vector",
    metavar="NAME",
    shell_complete=vectors,
    help="Drop the vector NAME, also if NAME is a revision too.",
)
@click.option("-m", "--mainline", metavar="N", help="Undo a merge: go back to the Nth parent of the merge.")
@click.option("--message", metavar="MSG", help="Use this message instead of the prepared one.")
@click.option("-e", "--edit", is_flag=True, help="Edit the message in the editor.")
@click.option("--no-edit", is_flag=True, help="No effect: the editor opens only with -e.")
@click.option(
    "-n", "--no-commit", is_flag=True, help="Edit recipe.toml and the text files, but commit nothing."
)
@click.option(
    "--keep-files",
    is_flag=True,
    help="With NAME: keep the text files that came with the vector (`add --files`).",
)
@sequencing.strategy_option
@sequencing.stop_options
def command(
    call: Invocation,
    repo: Repository,
    targets: tuple[str, ...],
    vector: str | None,
    mainline: str | None,
    message: str | None,
    edit: bool,
    no_edit: bool,
    **options: Any,
) -> Shown:
    """Undo commits, or drop one behaviour, in new commits.

    With REV, revert undoes the changes of that commit. If a later commit changed the same value again, revert
    writes both values into recipe.toml as comments and stops: edit the value, delete the comments, and run
    persona revert --continue. --skip leaves the commit out, --abort goes back.

    With NAME, revert drops that vector from the recipe, whatever came after it. Text files that came with the
    vector become what they were before, unless you edited them since.
    """
    goes_on = any(options[key] for key in ("continue_", "abort", "skip", "quit_"))
    if goes_on + bool(targets) + (vector is not None) != 1:
        raise UsageError("give one thing to revert: a revision or the name of a vector")
    if mainline is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", mainline):
        raise UsageError("-m takes the number of a merge's parent, as in git; give a message with --message")
    names = targets if vector is None else (vector,)
    if edit and len(names) == 1:
        text = message or _draft(repo, names[0], vector is not None)
        draft = Draft(text, EDITOR_HINT, instead="--message MSG", undone="nothing was reverted")
        message = edit_message(call, repo, draft)
    result = repo.revert(
        *names,
        vector=vector is not None,
        mainline=None if mainline is None else int(mainline),
        message=message,
        **options,
    )
    return sequencing.shown(result, call, repo)


def _draft(repo: Repository, name: str, vector: bool) -> str:
    """The message that the editor starts with: the one that would be written without it."""
    if not vector:
        with suppress(UnknownRevision):
            entry = repo[name]
            return f'Revert "{entry.subject}"\n\nThis reverts commit {entry.id}.'
    return f'Revert vector "{name}"'
