"""The flags of the options that the library declares, and those that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from persona.cli import completions
from persona.cli.completions import files
from persona.cli.invocation import Invocation
from persona.errors import InvalidInput

if TYPE_CHECKING:
    from persona.history.options import Option

F = TypeVar("F", bound=Callable[..., Any])
DATE_FORMS = ("iso", "iso-strict", "rfc", "short", "relative", "raw", "unix", "local")
"""Names of ways to write a date, which `persona.cli.formats` knows."""
COMMIT_FORMS = ("oneline", "short", "medium", "full", "fuller", "reference", "raw")
"""The same for a commit."""


def takes(declaration: type, *only: str) -> Callable[[F], F]:
    """Gives a command the flags of a declaration, or of some of its keywords.

    The function takes the typed ones as `**options`, in the library's form.
    """
    from persona.history.options import ComputeOptions, declared  # `log` takes none of these flags

    chosen = {key: option for key, option in declared(declaration).items() if not only or key in only}
    machine = ComputeOptions.__annotations__  # where to work, and with how much: last in the help
    order = sorted(chosen, key=lambda key: key in machine)

    def decorate(function: F) -> F:
        for key in reversed(order):
            function = click.option(*chosen[key].flags, key, cls=_Flag, option=chosen[key])(function)
        return function

    return decorate


class _Flag(click.Option):
    """One option on the command line. An option that was not typed does not reach the function."""

    def __init__(self, names: Sequence[str], *, option: Option, **settings: Any) -> None:
        self._option = option
        super().__init__(
            names,
            help=option.help,
            metavar=option.metavar,
            is_flag=True if option.metavar is None else None,
            multiple=option.repeated,
            type=click.Choice(option.words) if option.words and option.parse is None else None,
            callback=_parsed(option),
            shell_complete=_completion(option),
            **settings,
        )

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """As click does it."""
        value, rest = super().handle_parse_result(ctx, opts, args)
        assert self.name is not None
        if ctx.get_parameter_source(self.name) is not ParameterSource.COMMANDLINE:
            ctx.params.pop(self.name, None)
        elif value is True:
            ctx.params[self.name] = self._option.gives
        elif value == ("",):  # one empty glob stands for no filter at all
            ctx.params[self.name] = ()
        return value, rest


def _parsed(option: Option) -> Callable[[click.Context, click.Parameter, Any], Any] | None:
    """The callback that has the library read the text of an option."""
    parse = option.parse
    if parse is None:
        return None

    def callback(ctx: click.Context, parameter: click.Parameter, text: Any) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from None

    return callback


def _completion(option: Option) -> completions.Completer | None:
    if isinstance(option.completion, str):
        named: completions.Completer = getattr(completions, option.completion)
        return named
    words = option.words or option.completion
    return completions.one_of(*words) if words else None


@contextmanager
def rules_named() -> Iterator[None]:
    """Names a merge rule that cannot be taken as the command line spells it: `--merge lambda`."""
    try:
        yield
    except InvalidInput as error:
        if error.parameter is None:
            raise
        problem = error.message.removeprefix(f"{error.parameter}: ")
        raise InvalidInput(f"--merge {error.parameter}: {problem}", hint=error.hint) from None


def changes_options(function: F) -> F:
    """`-p`, `--stat`, `--name-only`, `--name-status` and `-s`: how changes are shown, as `changes`."""
    for flags, value, text in (
        (("-s", "--no-patch"), "none", "Show no changes."),
        (("--name-status",), "status", "Show the names of the changed files, with A, D or M before each."),
        (("--name-only",), "names", "Show only the names of the changed files."),
        (("--stat",), "stat", "Show a summary of the changes."),
        (("-p", "-u", "--patch"), "patch", "Show the changes of the recipe and the text files."),
    ):
        function = click.option(*flags, "changes", is_flag=True, flag_value=value, default=None, help=text)(
            function
        )
    return function


def format_options(function: F) -> F:
    """`--format` and `--date`: how commits are written."""
    function = click.option(
        "--date",
        metavar="FORM",
        default="default",
        shell_complete=completions.one_of(*DATE_FORMS),
        help="Write dates as FORM, such as iso, short, relative or format:%Y.",
    )(function)
    return click.option(
        "--format",
        "--pretty",
        "form",
        metavar="FORM",
        shell_complete=completions.one_of(*COMMIT_FORMS),
        help="Write commits as FORM: a name such as fuller, or a text such as '%h %an %s'.",
    )(function)


def adapter_place(function: F) -> F:
    """`-o OUT`, required."""
    return click.option(
        "-o",
        "--out",
        metavar="OUT",
        required=True,
        shell_complete=completions.directories,
        help="Write the adapter directory at OUT.",
    )(function)


def plot_option(function: F) -> F:
    """`--plot FILE`."""
    return click.option(
        "--plot",
        metavar="FILE",
        shell_complete=files,
        help="Also draw a heat map into FILE, a .png or .svg.",
    )(function)


def plot_path(call: Invocation, plot: str | None) -> Path | None:
    """The path of `--plot`, or None; a path that cannot be written is refused at once."""
    if plot is None:
        return None
    from persona.cli.heatmap import check

    check(call.path(plot))
    return call.path(plot)
