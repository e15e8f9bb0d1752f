"""`persona config`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import click

from persona.cli.command import Command, declare
from persona.cli.completions import setting_values, settings
from persona.cli.invocation import Invocation
from persona.cli.rendering import Shown
from persona.errors import UnknownName, UsageError
from persona.history.settings import SETTINGS


class _Config(Command):
    """A command whose VALUE may be a negative number, and whose help lists the settings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click's, but a word such as -0.5 is no option."""
        ctx.ignore_unknown_options = any(re.fullmatch(r"-\.?\d[\d.eE+-]*", word) for word in args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every setting, then the example."""
        with formatter.section("Settings"):
            formatter.write_dl([(setting.key, setting.help) for setting in SETTINGS.values()])
        super().format_epilog(ctx, formatter)


@declare(
    "config",
    cls=_Config,
    pages=True,
    example='$ persona config --global user.name "Ada"\n$ persona config commit.checkout true\n'
    "$ persona config --list",
)
@click.argument("key", required=False, shell_complete=settings)
@click.argument("value", required=False, shell_complete=setting_values)
@click.option(
    "--global", "user", is_flag=True, help="Read or set your own settings, which apply to every repository."
)
@click.option("--unset", is_flag=True, help="Remove KEY.")
@click.option("-l", "--list", "listing", is_flag=True, help="List every key with the value that applies.")
def command(
    call: Invocation, key: str | None, value: str | None, user: bool, unset: bool, listing: bool
) -> Shown:
    """Read and write settings.

    With KEY, config prints its value: the repository's or, if that is not set, yours. With KEY VALUE,
    it sets KEY. A repository's value comes before yours. An option that you type comes before both.
    """
    if listing == (key is not None) or (unset and value is not None):
        raise UsageError("give a KEY to read, a KEY and a VALUE to set, or --list")
    call.pages = call.pages and listing
    if user:
        mine = call.user_settings()
        return _run(_Settings(mine.get, mine.set, mine.unset, mine.values), key, value, unset)
    with call.repository() as repo:
        here = repo.config
        return _run(_Settings(here.get, here.set, here.unset, lambda: dict(here)), key, value, unset)


class _Settings(NamedTuple):
    """Reads and changes settings, of a repository or only of the user."""

    get: Callable[[str], str | None]
    set: Callable[[str, str], None]
    unset: Callable[[str], None]
    list: Callable[[], dict[str, str]]


def _run(settings: _Settings, key: str | None, value: str | None, unset: bool) -> Shown:
    if key is None:
        values = settings.list()
        return Shown(values, [f"{name}={setting}" for name, setting in values.items()])
    if unset:
        settings.unset(key)
        return Shown({"unset": key}, (), act=True)
    if value is not None:
        settings.set(key, value)
        return Shown({"key": key, "value": value}, (), act=True)
    found = settings.get(key)
    if found is None:
        raise UnknownName(f"{key} is not set", hint="`persona config --list` shows what is")
    return Shown({"key": key, "value": found}, found)
