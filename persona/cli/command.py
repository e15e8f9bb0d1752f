"""The parts that all commands share: `--json`, `-q`, `-v`, an example in the help, file names after `--`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from persona.cli.dashes import FILES
from persona.cli.errors import USAGE
from persona.cli.invocation import Invocation
from persona.cli.rendering import finish
from persona.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Command(click.Command):
    """A command. `example`: lines of a shell, shown in its help. `takes_files`: files may follow `--`.
    `pages`: its answer goes through the pager on a terminal. `works`: it shows progress.
    """

    def __init__(
        self,
        *arguments: Any,
        example: str = "",
        takes_files: bool = False,
        pages: bool = False,
        works: bool = False,
        **settings: Any,
    ) -> None:
        settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*arguments, **settings)
        self.example = example
        self.takes_files = takes_files
        self.pages = pages
        self.works = works
        taken = {spelling for option in self.params for spelling in option.opts}
        self.params += [option for option in common_options() if not taken & set(option.opts)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click's, but words after `--` are kept apart if they name files."""
        if self.takes_files:
            ctx.meta[FILES] = None
            if "--" in args:
                at = args.index("--")
                ctx.meta[FILES] = tuple(args[at + 1 :])
                args = args[:at]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        call = ctx.ensure_object(Invocation)
        call.pages = self.pages if call.paginate is None else call.paginate
        call.works = self.works
        if not call.quiet:
            return super().invoke(ctx)
        from persona.cli.progress import silence

        with silence():
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Like click's, with files after `--` if the command takes them."""
        if ctx.meta.get(FILES) is not None:
            from persona.cli.completions import paths

            return paths(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example."""
        write_example(formatter, self.example)


class CommandGroup(click.Group):
    """A command with commands of its own, such as `vector ls`."""

    def __init__(self, *arguments: Any, example: str = "", **settings: Any) -> None:
        settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        settings["no_args_is_help"] = False
        super().__init__(*arguments, **settings)
        self.example = example
        self.params += common_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; nothing at all is answered with the help, as a usage error."""
        if not args and not ctx.resilient_parsing and not ctx.ensure_object(Invocation).json:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's; for an unknown command it says what to type instead."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names and not ctx.resilient_parsing:
            raise UsageError(self.unknown(ctx, args[0], names))
        return super().resolve_command(ctx, args)

    def unknown(self, ctx: click.Context, word: str, names: Sequence[str]) -> str:
        """The sentence for a word that is none of the commands `names`."""
        from persona.cli.words import nearest

        near = nearest(word, names)
        hint = f"did you mean `{ctx.command_path} {near}`?" if near else f"it has {', '.join(names)}"
        return f"{word!r} is not a command of `{ctx.command_path}`; {hint}"

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example."""
        write_example(formatter, self.example)


def declare(
    name: str,
    *,
    example: str,
    cls: type[Command] = Command,
    group: click.Group | None = None,
    takes_files: bool = False,
    pages: bool = False,
    works: bool = False,
) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function a command of that name. Its docstring is the help: a summary, then a paragraph.

    The function takes the typed arguments, and what it names besides: `call`, this invocation; `repo`, the
    repository, which is opened for it and signs; `files`, the words after `--`, if `takes_files`. It returns
    a result, which is printed by its type (`persona.cli.rendering`), or None for nothing. `pages`: the answer
    goes through the pager. `works`: it may take long, and shows progress then. `group`: the command that it
    belongs to.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        how = {"takes_files": takes_files, "pages": pages, "works": works}
        made: Command = click.command(name, cls=cls, example=example, **how)(_running(function))
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def _running(function: Callable[..., Any]) -> Callable[..., int]:
    """Calls the function with all that it names, and shows its result; returns the exit code."""
    code = function.__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    @wraps(function)
    def run(**typed: Any) -> int:
        ctx = click.get_current_context()
        call: Invocation = ctx.obj
        if "files" in named and FILES in ctx.meta:
            typed["files"] = ctx.meta[FILES]
        if "call" in named:
            typed["call"] = call
        if "repo" not in named:
            return finish(function(**typed), call)
        with call.repository() as repo:
            return finish(function(repo=repo, **typed), call, repo)

    return run


def common_options() -> list[click.Option]:
    """`--json`, `-q`, `-v` and `-h`, which reach no function."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set("json"),
            help="Print the result as JSON.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set("quiet"),
            help="Print no reports, notes or progress.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set("verbose"),
            help="Show the traceback of an unexpected error.",
        ),
        # Click's own option looks for a translation of its help on disk, whatever the command.
        click.Option(
            ["-h", "--help"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_help,
            help="Show this message and exit.",
        ),
    ]


def write_example(formatter: click.HelpFormatter, example: str) -> None:
    """Lines of a shell, as they are typed."""
    if example:
        with formatter.section("Example"):
            for line in example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _set(attribute: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            setattr(ctx.ensure_object(Invocation), attribute, True)

    return callback


def _show_help(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()
