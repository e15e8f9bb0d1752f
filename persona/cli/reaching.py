"""Branches and tags by their history: `--contains`, `--merged` and their opposites."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from persona.cli.completions import revisions

if TYPE_CHECKING:
    from persona.repository import Repository

F = TypeVar("F", bound=Callable[..., Any])
_HELP: Final = {
    "contains": "List only those whose history has REV (default: HEAD).",
    "no-contains": "List only those whose history does not have REV.",
    "merged": "List only those that are in the history of REV (default: HEAD).",
    "no-merged": "List only those that are not in the history of REV.",
}


def reach_options(function: F) -> F:
    """`--contains`, `--no-contains`, `--merged`, `--no-merged`, each with a revision, HEAD without one."""
    for name, text in reversed(_HELP.items()):
        function = click.option(
            f"--{name}", metavar="REV", is_flag=False, flag_value="HEAD", shell_complete=revisions, help=text
        )(function)
    return function


def reaches(
    repo: Repository,
    contains: str | None,
    no_contains: str | None,
    merged: str | None,
    no_merged: str | None,
) -> Callable[[str], bool]:
    """Whether a commit is as the options ask."""
    ids = [None if rev is None else repo.resolve(rev) for rev in (contains, no_contains, merged, no_merged)]

    def wanted(id: str) -> bool:
        has, has_not, of, not_of = ids
        return (
            (has is None or repo.is_ancestor(has, id))
            and (has_not is None or not repo.is_ancestor(has_not, id))
            and (of is None or repo.is_ancestor(id, of))
            and (not_of is None or not repo.is_ancestor(id, not_of))
        )

    return wanted
