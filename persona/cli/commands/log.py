"""`persona log`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from persona.cli import diffs, render
from persona.cli.command import Command, declare
from persona.cli.completions import all_vectors, revisions
from persona.cli.pager import on_terminal

if TYPE_CHECKING:
    from persona.cli.graph import Cell
    from persona.cli.invocation import Invocation
    from persona.history.query_results import CommitEntry
    from persona.repository import Repository

_COUNT = re.compile(r"-(\d+)")


class _Log(Command):
    """`-5` is `-n 5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As any command, numbers first."""
        counted = ("-n", "--max-count")
        spelled: list[str] = []
        at = args.index("--") if "--" in args else len(args)
        for before, word in zip(["", *args], args[:at], strict=False):
            count = None if before in counted else _COUNT.fullmatch(word)
            spelled += ["-n", count[1]] if count else [word]
        return super().parse_args(ctx, spelled + args[at:])


@declare(
    "log",
    cls=_Log,
    example="$ persona log --oneline --graph --all\n$ persona log -p --vector listening\n"
    "$ persona log main~5..main --since '2 weeks ago'\n"
    "$ persona log -p -- chat_template.jinja",
    takes_files=True,
    pages=True,
)
@click.argument("revisions", nargs=-1, metavar="[REV | A..B]…", shell_complete=revisions)
@click.option("--oneline", is_flag=True, help="Print one line for each commit.")
@click.option("--graph", is_flag=True, help="Draw the history as a graph.")
@click.option("--all", is_flag=True, help="Start from every branch, every tag and HEAD.")
@click.option("-p", "--patch", is_flag=True, help="Show what each commit changed.")
@click.option("--stat", is_flag=True, help="Show a summary of what each commit changed.")
@click.option(
    "-n",
    "--max-count",
    metavar="N",
    type=click.IntRange(min=0),
    help="Show at most N commits; -5 is short for -n 5.",
)
@click.option("--since", "--after", metavar="DATE", help="Show only commits after DATE.")
@click.option("--until", "--before", metavar="DATE", help="Show only commits up to DATE.")
@click.option(
    "--vector",
    metavar="NAME",
    shell_complete=all_vectors,
    help="Show only commits that changed the vector NAME.",
)
@click.option(
    "--decorate/--no-decorate",
    default=None,
    help="Show names of branches and tags. Default: only on a terminal.",
)
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    revisions: tuple[str, ...],
    oneline: bool,
    graph: bool,
    all: bool,
    patch: bool,
    stat: bool,
    max_count: int | None,
    decorate: bool | None,
    since: str | None,
    until: str | None,
    vector: str | None,
) -> None:
    """Show the history.

    Shows commits from HEAD back, or from the revisions given, newest first. A..B means the commits of B that
    A does not have. A DATE is written as 2026-11-15, yesterday or '2 weeks ago'.

    Names after -- are files: log shows only commits that changed one of them.
    """
    start = list(revisions) or ["HEAD"]
    refs = on_terminal() if decorate is None else decorate
    with call.files_meant(revisions, "log", "shows the commits that changed {}"):
        paths = None if files is None else call.tracked(repo, files)
        filters: dict[str, Any] = {"since": since, "until": until, "vector": vector, "paths": paths}
        entries = repo.log(start, all=all, n=max_count, topological=graph, **filters)
        if call.json:
            call.answer_json_list(entries)
            return
        cells = _cells(repo, start, all, filters, max_count) if graph else None
        call.show(_lines(repo, entries, cells, oneline, refs, patch, stat, paths))


def _lines(
    repo: Repository,
    entries: Iterator[CommitEntry],
    cells: dict[str, Cell] | None,
    oneline: bool,
    refs: bool,
    patch: bool,
    stat: bool,
    paths: Sequence[str] | None,
) -> Iterator[str]:
    margin = ""
    for number, entry in enumerate(entries):
        if number and not oneline:
            yield margin.rstrip()
        text = [render.oneline(entry, refs)] if oneline else render.entry_lines(entry, refs)
        if not oneline and entry.scores is not None:
            from persona.cli.verification import brief

            text += ["", f"Scores: {brief(entry.scores)}"]
        if patch or stat:
            _, diff = repo.show(entry.id, paths=paths)
            changes = list(diffs.stat_lines(diff) if stat else diffs.diff_lines(diff))
            text += ([""] if changes and not oneline else []) + changes
        if cells is None:
            yield from text
        else:
            cell = cells[entry.id]
            margin = cell.rest
            yield from cell.beside([line for part in text for line in part.split("\n")])


def _cells(
    repo: Repository, start: list[str], all: bool, filters: dict[str, Any], limit: int | None
) -> dict[str, Cell]:
    """The drawing beside each commit. Commits that the filters leave out are skipped."""
    from persona.cli.graph import Graph, within

    parents = {entry.id: entry.parents for entry in repo.log(start, all=all, topological=True)}
    kept = set(parents)
    if any(filters.values()):
        kept = {entry.id for entry in repo.log(start, all=all, topological=True, **filters)}
    graph = Graph()
    return {id: graph.draw(id, above) for id, above in islice(within(parents, kept).items(), limit)}
