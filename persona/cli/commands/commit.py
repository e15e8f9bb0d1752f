"""`persona commit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.completions import files, revisions
from persona.cli.messages import EDITOR_HINT, Draft, can_edit, edit_message, read_message
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.errors import UsageError
from persona.history.options import ImportOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "commit",
    works=True,
    example='$ persona commit ../ft/listening -m "listen before answering"\n'
    '$ persona set listening --alpha 0.7 && persona commit -m "a little less"',
)
@click.argument("path", required=False, shell_complete=files)
@click.option(
    "-m", "--message", metavar="MSG", multiple=True, help="The message. Each further -m adds a paragraph."
)
@click.option(
    "-F",
    "--file",
    metavar="FILE",
    shell_complete=files,
    help="Read the message from FILE, or from stdin with -.",
)
@click.option("-a", "--all", is_flag=True, help="No effect: a commit always records every tracked file.")
@click.option("--amend", is_flag=True, help="Replace the last commit instead of adding one.")
@click.option(
    "--no-edit",
    is_flag=True,
    help="Open no editor; take the old commit's message (--amend) or the prepared one (`revert -n`).",
)
@click.option(
    "--fixup", metavar="REV", shell_complete=revisions, help="Take the message 'fixup! …' with REV's subject."
)
@click.option(
    "--squash",
    metavar="REV",
    shell_complete=revisions,
    help="The same with 'squash! …', and a message below.",
)
@click.option("--allow-empty", is_flag=True, help="Commit even if nothing differs.")
@click.option("--author", metavar="NAME", help="Author, as 'Name <email>', or part of that of a commit.")
@click.option("--date", metavar="DATE", help="Date of the author.")
@click.option("--reset-author", is_flag=True, help="With --amend: become the author, now.")
@takes(ImportOptions)
def command(
    call: Invocation,
    repo: Repository,
    path: str | None,
    message: tuple[str, ...],
    file: str | None,
    all: bool,
    amend: bool,
    no_edit: bool,
    fixup: str | None,
    squash: str | None,
    allow_empty: bool,
    author: str | None,
    date: str | None,
    reset_author: bool,
    **options: Unpack[ImportOptions],
) -> Shown:
    """Record the recipe and the text files; with PATH, add that first.

    There is no staging area: a commit records recipe.toml and the tracked text files as they are on disk.
    With PATH, commit first does what `persona add PATH` does: it imports a fine-tune as a vector, or tracks a
    text file. Without a message, an editor opens.
    """
    if reset_author and not amend:
        raise UsageError("--reset-author changes the author of the last commit: give --amend too")
    who: dict[str, Any] = {}
    if author is not None or date is not None or reset_author:
        from persona.cli import identity

        before = repo["HEAD"].commit.author if amend and not reset_author else call.author()
        who = {"author": identity.changed(repo, before, author, date), "reset_author": amend}
    text = read_message(call, message, file)
    begun = ""
    if fixup is not None or squash is not None:
        begun = _meant_for(repo, fixup, squash)
        if fixup is not None or text is not None or no_edit:
            text = begun if text is None else f"{begun}\n\n{text}"
    if text is None:
        text = repo.prepared_message() if no_edit and not amend else None
    if text is None and not no_edit:
        text = _written(call, repo, path, amend, allow_empty, begun)
    source = None if path is None else call.model(path)
    result = repo.commit(source, message=text, amend=amend, allow_empty=allow_empty, **who, **options)
    return diffs.shown_commit(repo, result)


def _meant_for(repo: Repository, fixup: str | None, squash: str | None) -> str:
    """The subject of a commit that `rebase --autosquash` puts into another one."""
    if fixup is not None and squash is not None:
        raise UsageError("--fixup and --squash each name the commit that is meant: use one of them")
    rev = fixup or squash or ""
    if rev.startswith(("amend:", "reword:")):
        raise UsageError(
            f"--fixup has no {rev.partition(':')[0]}: `persona rebase -i REV~1` with reword changes a message"
        )
    return f"{'fixup' if fixup is not None else 'squash'}! {repo[rev].subject}"


def _written(
    call: Invocation, repo: Repository, path: str | None, amend: bool, allow_empty: bool, begun: str
) -> str | None:
    """The message from the editor; None if the library will say that there is nothing to commit."""
    if path is None and not can_edit(call):
        return None
    status = repo.status()
    if path is None and not (status.recipe_changed or status.files_changed or amend or allow_empty):
        return None
    hints = [*EDITOR_HINT, render.head_line(status.branch, status.head)]
    hints += [f"Import: {path}"] if path is not None else []
    hints += [f"    {line}" for line in diffs.change_lines(status.diff)] if status.diff is not None else []
    begun = begun or (repo["HEAD"].message if amend else repo.prepared_message() or "")
    draft = Draft(begun, [click.unstyle(line) for line in hints])
    return edit_message(call, repo, draft)
