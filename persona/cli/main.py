"""The entry: finds the command of the command line and loads only that one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from persona.cli.command import CommandGroup
from persona.cli.completions import VARIABLE, directories
from persona.cli.errors import INTERRUPTED, guarded
from persona.cli.invocation import ADDED, Invocation
from persona.cli.terminal import open_streams, say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

THREADS = "OPENBLAS_NUM_THREADS"
SECTIONS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "Make a repository around a base model.",
        "help": "Show how a command is used.",
    },
    "Change the recipe": {
        "add": "Import a fine-tune and put it into recipe.toml, or track text files.",
        "commit": "Record the recipe and the text files; with PATH, add that first.",
        "import": "Take over a recipe of mergekit, with its models.",
        "set": "Change a vector's alpha, density or filter, or the merge rules.",
        "rm": "Drop a vector from the recipe.",
        "mv": "Rename a vector in the recipe.",
        "restore": "Put text files back as they were committed.",
    },
    "Behaviour": {
        "build": "Make the personality that the graph describes.",
        "train": "Train patterns of the graph into vectors of recipe.toml.",
        "verify": "Measure what a recipe or a vector does to the model's behaviour.",
        "sweep": "Measure a vector at several strengths, and find the best one.",
        "tune": "Find the strengths of all vectors together that do the most.",
        "chat": "Talk to a recipe, and change it in the middle of the conversation.",
        "generate": "Answer one prompt with the weights of a recipe.",
    },
    "Look": {
        "status": "Show what differs from HEAD and what the weights are.",
        "log": "Show the history.",
        "show": "Show one commit, or a file as a commit holds it.",
        "notes": "Write notes on commits.",
        "describe": "Name a commit by the nearest tag.",
        "blame": "Show which commit set each value of the recipe.",
        "diff": "Show what differs between two recipes.",
        "vector": "List, show, take over, derive, extract and forget vectors.",
        "graph": "Check, show and exchange patterns.",
        "digest": "Print the weights digest of a revision.",
        "export": "Write a revision in a form that another program reads.",
        "identify": "Say which revision or vector the weights in a directory are.",
        "bisect": "Find the commit that brought a change of behaviour.",
    },
    "Move": {
        "checkout": "Compute the weights of a revision and put them in place.",
        "switch": "Go to another branch without computing weights.",
        "branch": "List, make, rename and delete branches.",
        "tag": "List, make and delete tags.",
        "merge": "Join the history of another branch to this one.",
        "cherry-pick": "Make the changes of commits again, each in a new commit.",
        "rebase": "Make the commits of a branch again on another commit.",
        "revert": "Undo commits, or drop one behaviour, in new commits.",
        "stash": "Put edits of the work tree aside, and bring them back.",
        "reset": "Move the branch to another commit.",
        "reflog": "Show where a branch or HEAD has been.",
    },
    "Plumbing": {
        "config": "Read and write settings.",
        "fsck": "Check that everything stored is whole.",
        "count-objects": "Count objects, packs and bytes.",
        "warm-up": "Compile the kernels for exactly this processor.",
        "cat-file": "Print one object of the store.",
        "rev-parse": "Print the full id of a revision.",
        "completion": "Print the script that completes persona's words in a shell.",
    },
}
"""The commands and their summaries for `persona --help`, which loads no command. A test compares both."""

EXAMPLE = """\
$ persona init mybot --base ./SmolLM2-135M-Instruct
$ cd mybot
$ persona commit ../ft/listening -m "listen before answering"
$ persona set listening --alpha 0.7 && persona commit -m "a little less"
$ persona checkout"""


class Persona(CommandGroup):
    """The group of all commands. A command is loaded when it is named, from the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the help."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, its module loaded now."""
        if name not in self.list_commands(ctx):
            return None
        file = "import_" if name == "import" else name.replace("-", "_")  # `import` is a word of Python
        module = import_module(f"persona.cli.commands.{file}")
        found: click.Command = module.command
        return found

    def unknown(self, ctx: click.Context, word: str, names: Sequence[str]) -> str:
        """The sentence for a word that is no command; a command of git's is answered by name."""
        from persona.cli.words import absent, nearest

        near = nearest(word, names)
        hint = f"did you mean `persona {near}`?" if near else "`persona help` lists the commands"
        return absent(word) or f"{word!r} is not a persona command; {hint}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by purpose."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(section.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands with their summaries, without loading one; options if one was begun."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=summary)
            for section in SECTIONS.values()
            for name, summary in section.items()
            if name.startswith(incomplete)
        ]

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *ignored: Any, **settings: Any
    ) -> NoReturn:
        """Runs one command and exits with the code of docs/commands.md."""
        arguments = list(sys.argv[1:] if args is None else args)
        settings.pop("standalone_mode", None)
        if VARIABLE in os.environ:
            _complete(self)
        sys.exit(guarded(lambda: self._run(arguments, prog_name or "persona", settings), arguments))

    def _run(self, arguments: list[str], name: str, settings: dict[str, Any]) -> object:
        """Runs one command, then prints its whole answer in JSON.

        Click's own `main` would answer a broken pipe with 1.
        """
        call = settings.setdefault("obj", Invocation())
        try:
            # click takes its words out of the list that it is given.
            with self.make_context(name, arguments[:], **settings) as ctx:
                code: object = self.invoke(ctx)
        except click.exceptions.Exit as end:
            code = end.exit_code
        finally:
            call.close()
        call.deliver()
        return code


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from persona.version import __version__

        click.echo(f"persona {__version__}")
        ctx.exit()


@click.group(
    cls=Persona,
    example=EXAMPLE,
    options_metavar="[-C DIR] [-p | -P] [-q] [-v]",
    subcommand_metavar="COMMAND …",
)
@click.option(
    "-C",
    "directory",
    metavar="DIR",
    multiple=True,
    shell_complete=directories,
    help="Run as if started in DIR.",
)
@click.option(
    "-P", "--no-pager", "paginate", flag_value=False, help="Print long answers directly, not through a pager."
)
@click.option(
    "-p", "--paginate", "paginate", flag_value=True, default=None, help="Print any answer through the pager."
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(ctx: click.Context, directory: tuple[str, ...], paginate: bool | None) -> None:
    """Version control for the behaviour of a language model.

    A repository holds a base model, vectors that change it, and a history of recipes. A recipe says which
    vectors apply and how strongly. `persona checkout` turns any recipe of the history into weights that load
    like any other model's.
    """
    call = ctx.ensure_object(Invocation)
    call.go_to(Path().joinpath(*directory))
    call.paginate = paginate
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False


def _complete(group: Persona) -> NoReturn:
    """Answers a completion script. Errors are silent, because the user is in the middle of a line."""
    from persona.cli import shells

    try:
        code = shells.answer(group, os.environ[VARIABLE])
        sys.stdout.flush()
    except Exception:
        code = 1
    sys.exit(code)


def main() -> NoReturn:
    """The `persona` command."""
    # numpy's threads spin from its import on, without any use here.
    if THREADS not in os.environ:
        os.environ[THREADS] = "1"
        ADDED.add(THREADS)
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # by `entry`, while modules were loaded
            signal.signal(signal.SIGINT, signal.default_int_handler)
        open_streams()
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # before a command has begun, or while one is being answered
        say("persona: interrupted")
        code = INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    # All is written and closed: the kernel frees memory faster than the interpreter.
    os._exit(code)


if __name__ == "__main__":
    main()
