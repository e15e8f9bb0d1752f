"""Options that several commands share. Numbers go to the library as they were typed: it alone judges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from persona.cli.completions import base_or_revision, files
from persona.cli.invocation import Invocation
from persona.errors import InvalidInput
from persona.history.config import DEVICES, parse_size

if TYPE_CHECKING:
    from persona.repository import Repository

F = TypeVar("F", bound=Callable[..., Any])


def import_options(function: F) -> F:
    """What `add PATH` and `commit PATH` take."""
    options = (
        click.option(
            "-n", "--name", metavar="NAME", help="Name of the vector. Default: the last part of PATH."
        ),
        click.option(
            "--alpha",
            metavar="A",
            help="Strength of the vector. Default: 1. A negative one removes a behaviour.",
        ),
        click.option(
            "--density", metavar="D", help="Fraction of the vector to keep, in (0, 1]. Default: the recipe's."
        ),
        click.option(
            "--only", metavar="GLOB", multiple=True, help="Change only tensors whose name matches GLOB."
        ),
        click.option(
            "--except",
            "except_",
            metavar="GLOB",
            multiple=True,
            help="Change no tensor whose name matches GLOB.",
        ),
        click.option(
            "--onto",
            metavar="base|REV",
            shell_complete=base_or_revision,
            help="PATH was trained from the base (default), or from the weights of REV.",
        ),
        click.option(
            "--missing", type=click.Choice(["zero"]), help="Take tensors that PATH lacks as unchanged."
        ),
        click.option("--extra", type=click.Choice(["ignore"]), help="Ignore tensors that the base lacks."),
        click.option("--cast", is_flag=True, help="Convert a dtype that cannot hold the base's values."),
        click.option(
            "--files", is_flag=True, help="Also take its config, tokenizer and template files if they differ."
        ),
        click.option(
            "--replace", is_flag=True, help="Replace a vector of that name that came from another path."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def import_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The values of `import_options` as the library takes them."""
    return {
        "name": options["name"],
        "alpha": options["alpha"],
        "density": options["density"],
        "only": filters(options["only"]),
        "except_": filters(options["except_"]),
        "onto": options["onto"],
        "missing": options["missing"] or "refuse",
        "extra": options["extra"] or "refuse",
        "cast": options["cast"],
        "files": options["files"],
        "replace": options["replace"],
    }


@contextmanager
def flags(prefix: str = "--") -> Iterator[None]:
    """Names a parameter that cannot be taken as the command line spells it: `--alpha`, `--merge lambda`."""
    try:
        yield
    except InvalidInput as error:
        if error.parameter is None:
            raise
        problem = error.message.removeprefix(f"{error.parameter}: ")
        raise InvalidInput(f"{prefix}{error.parameter.rstrip('_')}: {problem}") from None


def filters(globs: tuple[str, ...]) -> tuple[str, ...] | None:
    """The globs given, None where there were none; one empty glob stands for no filter at all."""
    if not globs:
        return None
    return () if globs == ("",) else globs


def threads_option(function: F) -> F:
    """`--threads N`."""
    return click.option(
        "--threads", metavar="N", type=click.IntRange(min=1), help="Number of threads. Default: all cores."
    )(function)


def memory_option(function: F) -> F:
    """`--memory S`."""
    return click.option(
        "--memory",
        metavar="S",
        callback=size_option,
        help="Memory for decoded chunks, such as 200MB. Default: 400MB.",
    )(function)


def memory_argument(repo: Repository, memory: int | None) -> int | None:
    """The value of `memory_option`, else that of the setting."""
    return setting(repo, "checkout.memory", memory, parse_size)


def device_options(function: F) -> F:
    """`--device` and `--device-memory S`."""
    options = (
        click.option("--device", type=click.Choice(DEVICES), help="Where to compute. Default: auto."),
        click.option(
            "--device-memory",
            metavar="S",
            callback=size_option,
            help="Memory for chunks on each GPU. Default: 1GiB, or half of the free memory.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def device_arguments(repo: Repository, device: str | None, device_memory: int | None) -> dict[str, Any]:
    """The values of `device_options`, else those of the settings, as the library takes them."""
    return {
        "device": setting(repo, "checkout.device", device, str),
        "device_memory": setting(repo, "checkout.device-memory", device_memory, parse_size),
    }


def plot_option(function: F) -> F:
    """`--plot FILE`."""
    return click.option(
        "--plot",
        metavar="FILE",
        shell_complete=files,
        help="Also draw a heat map into FILE, a .png or .svg.",
    )(function)


def plot_path(call: Invocation, plot: str | None) -> Path | None:
    """Where `--plot` draws to, or None; refused at once where that cannot be."""
    if plot is None:
        return None
    from persona.cli.heatmap import check

    check(call.path(plot))
    return call.path(plot)


def size_option(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """The callback of an option that takes bytes."""
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


Setting = TypeVar("Setting")


def setting(
    repo: Repository, key: str, flag: Setting | None, parse: Callable[[str], Setting]
) -> Setting | None:
    """What a flag says, else the setting `key`. `InvalidInput` for a setting that cannot be taken."""
    text = repo.config_get(key) if flag is None else None
    try:
        return flag if text is None else parse(text)
    except ValueError as error:
        raise InvalidInput(f"config {key}: {error}") from None
