"""`persona chat`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.behaviour.options import AnswerOptions
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import takes

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "chat",
    works=True,
    example="$ persona chat                     # recipe.toml as it stands\n"
    "$ persona chat HEAD~1 --system 'Answer in one sentence.'\n"
    "$ persona chat < lines.txt",
)
@click.argument("rev", required=False, shell_complete=revisions)
@click.option("--system", metavar="TEXT", help="System message. Default: the chat template's own.")
@takes(AnswerOptions)
def command(
    call: Invocation,
    repo: Repository,
    rev: str | None,
    system: str | None,
    **options: Unpack[AnswerOptions],
) -> None:
    """Talk to a recipe, and change it in the middle of the conversation.

    Loads the weights of REV, or of recipe.toml as it stands, into memory and answers each line that is typed.
    `/alpha listening 0.4` changes a strength from the next answer on, `/rev REV` goes to another revision,
    `/undo` takes such a change back, `/compare REV` shows two answers side by side, and `/help` lists all
    commands. recipe.toml and HEAD do not change.

    In a pipe, each line of the input is a message or a command, and only the answers are printed.
    """
    from persona.cli.chatting import Chat

    with repo.chat(rev, system=system, **options) as conversation:
        chat = Chat(call, repo, conversation)
        chat.run()
    click.get_current_context().exit(chat.exit_code)
