"""`persona merge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from persona.cli import sequencing
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.messages import read_message
from persona.cli.rendering import Shown
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "merge",
    works=True,
    example="$ persona merge warm                  # take over the changes of a branch\n"
    "$ persona merge --strategy mean warm   # both set the same alpha: take the mean\n"
    "$ persona merge --continue             # after a conflict",
)
@click.argument("revs", nargs=-1, metavar="[REV]", shell_complete=revisions)
@click.option("-m", "--message", metavar="MSG", multiple=True, help="Use this message for the merge commit.")
@sequencing.edit_options
@click.option("--ff", is_flag=True, help="No effect: a merge without a commit is made if possible.")
@click.option("--no-ff", is_flag=True, help="Make a merge commit, also if HEAD could just move.")
@click.option("--ff-only", is_flag=True, help="Only move HEAD; refuse if a merge commit is needed.")
@click.option("--no-commit", is_flag=True, help="Leave the merge in the work tree for `commit`.")
@click.option(
    "--squash", is_flag=True, help="Only edit the work tree; the next commit has the changes and one parent."
)
@sequencing.strategy_option
@click.option("--continue", "continue_", is_flag=True, help="Commit a merge whose conflicts are resolved.")
@click.option("--abort", is_flag=True, help="Give the merge up, and go back.")
@sequencing.quit_option
def command(
    call: Invocation,
    repo: Repository,
    revs: tuple[str, ...],
    message: tuple[str, ...],
    edit: bool,
    no_edit: bool,
    ff: bool,
    strategy: Literal["ours", "theirs", "mean"] | None,
    **options: Any,
) -> Shown:
    """Join the history of another branch to this one.

    A change that only one of the two branches made is in the merge. If both set the same value, each to
    another one, merge writes both into recipe.toml as comments and stops: edit the value, delete the
    comments, and run persona merge --continue. persona merge --abort goes back.

    With --squash, merge makes no commit: run persona commit after it.
    """
    if len(revs) > 1:
        steps = ", then ".join(f"`persona merge {rev:.60}`" for rev in revs[:8])
        raise UsageError(f"a merge takes one branch: {steps}")
    rev = revs[0] if revs else None
    text = read_message(call, message, None)
    editor = sequencing.editor(call, repo, edit, "nothing was merged")
    result = repo.merge(rev, message=text, edit=editor, strategy=strategy, **options)
    return sequencing.shown(result, call, repo)
