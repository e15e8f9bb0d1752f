"""`persona import`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.completions import files
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.errors import NotARepository, PersonaError
from persona.history.options import TakeOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.results import CommitResult
    from persona.history.verbs.import_mergekit import ImportPlan
    from persona.repository import Repository


@declare(
    "import",
    works=True,
    example='$ persona import ties.yml\n$ persona commit -m "pirate and asks, as in ties.yml"\n'
    "$ persona import dare.yml -n          # only show what it would be",
)
@click.argument("path", metavar="RECIPE.yml", shell_complete=files)
@click.option(
    "--base",
    metavar="PATH",
    shell_complete=files,
    help="Directory of the base model, if it is not where the file says, or the file names none.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be imported; change nothing.")
@takes(TakeOptions)
def command(
    call: Invocation, path: str, base: str | None, dry_run: bool, **options: Unpack[TakeOptions]
) -> Shown:
    """Take over a recipe of mergekit, with its models.

    RECIPE.yml is a YAML file that mergekit runs. persona imports each of its models as a vector, and writes
    the same merge into recipe.toml, in place of the recipe there. It commits nothing.

    Where no repository is, import makes one in the current directory, from the base_model of the file, as
    `persona init` does. If persona cannot express a key of the file, import names the key and changes
    nothing.
    """
    file = call.path(path)
    source = None if base is None else call.model(base)
    try:
        with call.repository() as repo:
            return _imported(repo, repo.import_mergekit(file, base=source, dry_run=dry_run, **options))
    except NotARepository:
        if os.path.lexists(call.directory / ".persona"):
            raise
    return _begun(call, file, source, dry_run, options)


def _begun(call: Invocation, file: Path, base: Path | None, dry_run: bool, options: TakeOptions) -> Shown:
    """The import where no repository is: what it would do, or a new repository and the import."""
    from persona.history.verbs.import_mergekit import planned
    from persona.repository import Repository

    place, plan = planned(file, base)
    if dry_run:
        return Shown(plan)
    signers: Any = {"author": call.author, "committer": call.committer}
    signers["progress"] = call.tell
    with Repository.init(call.directory, base=place, user_config=call.user_config, **signers) as repo:
        where = f"Initialized persona repository in {os.path.realpath(repo.root)}"
        begun = [where, *render.commit_lines(repo.made)]
        try:
            result = repo.import_mergekit(file, base=base, **options)
        except PersonaError:
            call.remark(f"{where}; nothing is imported yet")
            raise
        return _imported(repo, result, begun)


def _imported(repo: Repository, result: CommitResult | ImportPlan, begun: list[str] | None = None) -> Shown:
    from persona.history.verbs.import_mergekit import ImportPlan

    if isinstance(result, ImportPlan):
        return Shown(result)
    return Shown(result, [*(begun or []), *diffs.committed_lines(repo, result)])
