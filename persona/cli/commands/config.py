"""`persona config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from persona.history.config import Config


@declare(
    "config",
    example='$ persona config --global user.name "Ada"\n$ persona config commit.checkout true\n'
    "$ persona config --list",
)
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--global", "user", is_flag=True, help="The user's file alone, in every repository's place.")
@click.option("--unset", is_flag=True, help="Remove KEY.")
@click.option("-l", "--list", "listing", is_flag=True, help="List every key and the value in force.")
@click.pass_obj
def command(
    call: Invocation, key: str | None, value: str | None, user: bool, unset: bool, listing: bool
) -> None:
    """Read and write settings.

    KEY alone prints its value: the repository's, else the user's. KEY VALUE sets it. Known keys: user.name,
    user.email, and the defaults of merge.* and checkout.* and commit.checkout.
    """
    if listing == (key is not None) or (unset and value is not None):
        raise UsageError("give a KEY to read, a KEY and a VALUE to set, or --list")
    if user:
        _run(call, call.user_settings(), key, value, unset, listing, user=True)
    else:
        with call.repository() as repo:
            _run(call, repo.config, key, value, unset, listing, user=False)


def _run(
    call: Invocation,
    settings: Config,
    key: str | None,
    value: str | None,
    unset: bool,
    listing: bool,
    *,
    user: bool,
) -> None:
    if key is None or listing:
        values = settings.values()
        call.answer(values, [f"{name}={setting}" for name, setting in values.items()])
    elif unset:
        settings.unset(key, user=user)
        call.report({"unset": key}, [])
    elif value is not None:
        settings.set(key, value, user=user)
        call.report({"key": key, "value": value}, [])
    else:
        found = settings.get(key)
        if found is None:
            raise UnknownName(f"{key} is not set; `persona config --list` shows what is")
        call.answer({"key": key, "value": found}, found)
