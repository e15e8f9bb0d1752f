"""`persona log`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from persona.cli import diffs, render
from persona.cli.command import Command, declare
from persona.cli.completions import all_vectors, revisions
from persona.cli.options import COMMIT_FORMS, changes_options, format_options
from persona.cli.pager import on_terminal
from persona.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from persona.cli.graph import Cell
    from persona.cli.invocation import Invocation
    from persona.history.query_results import CommitEntry
    from persona.repository import Repository

_COUNT = re.compile(r"-(\d+)")
_NOT = "\0not"
"""Stands for `--not` among the revisions, so that its place is not lost."""


class _Log(Command):
    """`-5` is `-n 5`, and `--not` has a place among the revisions."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As any command, numbers first."""
        counted = ("-n", "--max-count")
        spelled: list[str] = []
        at = args.index("--") if "--" in args else len(args)
        for before, word in zip(["", *args], args[:at], strict=False):
            count = None if before in counted else _COUNT.fullmatch(word)
            spelled += ["-n", count[1]] if count else [_NOT if word == "--not" else word]
        return super().parse_args(ctx, spelled + args[at:])


_PLAIN = ("oneline", "reference", "raw")
"""Names of formats that show a commit and nothing about it."""


@declare(
    "log",
    cls=_Log,
    example="$ persona log --oneline --graph --all\n$ persona log -p --vector listening\n"
    "$ persona log main~5..main --since '2 weeks ago' --author Ada\n"
    "$ persona log --format='%h %ad %s' --date=short --grep warm\n"
    "$ persona log -p -- chat_template.jinja",
    takes_files=True,
    pages=True,
)
@click.argument("words", nargs=-1, metavar="[REV | A..B]… [FILE]…", shell_complete=revisions)
@click.option("--oneline", is_flag=True, help="Print one line for each commit.")
@format_options
@click.option("--graph", is_flag=True, help="Draw the history as a graph.")
@click.option("--all", is_flag=True, help="Start from every branch, every tag and HEAD.")
@changes_options
@click.option(
    "-n",
    "--max-count",
    "n",
    metavar="N",
    type=click.IntRange(min=0),
    help="Show at most N commits; -5 is short for -n 5.",
)
@click.option(
    "--skip", metavar="N", type=click.IntRange(min=0), default=0, help="Leave out the first N commits."
)
@click.option("--since", "--after", metavar="DATE", help="Show only commits after DATE.")
@click.option("--until", "--before", metavar="DATE", help="Show only commits up to DATE.")
@click.option("--author", metavar="RE", multiple=True, help="Show only commits whose author matches RE.")
@click.option(
    "--committer", metavar="RE", multiple=True, help="Show only commits whose committer matches RE."
)
@click.option("--grep", metavar="RE", multiple=True, help="Show only commits whose message matches RE.")
@click.option("--all-match", is_flag=True, help="With several --grep: show only commits that match all.")
@click.option("--invert-grep", is_flag=True, help="Show only commits whose message matches no --grep.")
@click.option("-i", "--regexp-ignore-case", "ignore_case", is_flag=True, help="Match any case.")
@click.option("-S", "pickaxe", metavar="TEXT", help="Show only commits that add or remove TEXT in some file.")
@click.option(
    "-G", "lines", metavar="RE", help="Show only commits that add or remove a line that matches RE."
)
@click.option(
    "--not",
    "ignored",
    is_flag=True,
    expose_value=False,
    help="Leave out what the REVs after it reach, as ^REV.",
)
@click.option("--merges/--no-merges", default=None, help="Show only merges, or no merges.")
@click.option("--first-parent", is_flag=True, help="Follow only the first parent of a merge.")
@click.option("--reverse", is_flag=True, help="Show the oldest of the commits first.")
@click.option(
    "--vector",
    metavar="NAME",
    shell_complete=all_vectors,
    help="Show only commits that changed the vector NAME.",
)
@click.option("--notes/--no-notes", default=True, help="Show notes on commits, or leave them out.")
@click.option(
    "--decorate/--no-decorate",
    default=None,
    help="Show names of branches and tags. Default: only on a terminal.",
)
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    words: tuple[str, ...],
    oneline: bool,
    form: str | None,
    date: str,
    graph: bool,
    all: bool,
    changes: str | None,
    n: int | None,
    skip: int,
    reverse: bool,
    first_parent: bool,
    notes: bool,
    decorate: bool | None,
    **filters: Any,
) -> None:
    """Show the history.

    Shows commits from HEAD back, or from the revisions given, newest first. A..B means the commits of B that
    A does not have. A DATE is written as 2026-11-15, yesterday or '2 weeks ago'. RE is a regular expression.

    If files are named, log shows only commits that changed one of them. Put -- before files that are not
    there any more.
    """
    if graph and reverse:
        raise UsageError("--graph draws children above their parents: leave out --reverse")
    revs, paths = call.revisions_and_files(repo, words, files)
    start = _signed(revs) or ["HEAD"]
    if files is not None and filters["vector"] is None and (name := _vector(call, repo, files)) is not None:
        filters["vector"], paths = name, None
    reach: dict[str, Any] = {"all": all, "first_parent": first_parent}
    wanted = {**filters, "author": filters["author"] or None, "committer": filters["committer"] or None}
    wanted |= {"grep": filters["grep"] or None, "paths": paths}
    entries = repo.log(start, n=n, skip=skip, reverse=reverse, topological=graph, **reach, **wanted)
    if call.json:
        call.answer_json_list(entries)
        return
    refs = on_terminal() if decorate is None else decorate
    write, apart = _form(
        "oneline" if oneline and form is None else form or "medium", date, refs, notes, oneline
    )
    drawn = _cells(repo, start, reach, wanted) if graph else None
    cells = None if drawn is None else islice(drawn, skip, None)
    call.show(_lines(repo, entries, cells, write, apart, changes, paths))


def _vector(call: Invocation, repo: Repository, words: Sequence[str]) -> str | None:
    """The vector that stands after `--` in place of a file; None for a file."""
    if len(words) != 1 or os.path.lexists(call.path(words[0])):
        return None
    head = repo["HEAD"]
    return words[0] if words[0] in head.recipe.vectors and words[0] not in head.files else None


def _signed(revs: Sequence[str]) -> list[str]:
    """The revisions, with the sign of those after `--not` turned round."""
    found: list[str] = []
    turned = False
    for rev in revs:
        if rev == _NOT:
            turned = not turned
        elif not turned:
            found.append(rev)
        elif "..." in rev:
            raise UsageError(f"{rev:.60} after --not has no meaning")
        elif ".." in rev and not rev.startswith(":/"):
            left, right = rev.split("..", 1)
            found += [left or "HEAD", f"^{right or 'HEAD'}"]
        else:
            found.append(rev[1:] if rev.startswith("^") else f"^{rev}")
    return found


def _form(
    name: str, date: str, refs: bool, notes: bool, oneline: bool
) -> tuple[Callable[[CommitEntry], list[str]], bool]:
    """The way to write a commit with what is known about it, and whether an empty line parts two."""
    if name == "oneline" and oneline:
        return lambda entry: [render.oneline(entry, refs)], False
    head: Callable[[CommitEntry], list[str]]
    if (name, date) == ("medium", "default"):
        head = partial(render.entry_lines, refs=refs)
    else:
        from persona.cli import formats

        head = formats.form(name, formats.date_form(date), refs, whole_ids=not oneline)
        if name in _PLAIN or name not in COMMIT_FORMS:
            return head, name == "raw"

    def write(entry: CommitEntry) -> list[str]:
        text = head(entry)
        if notes:
            text += render.note_lines(entry)
        if entry.scores is not None:
            from persona.cli.verification import brief

            text += ["", f"Scores: {brief(entry.scores)}"]
        return text

    return write, True


def _lines(
    repo: Repository,
    entries: Iterator[CommitEntry],
    cells: Iterator[Cell] | None,
    write: Callable[[CommitEntry], list[str]],
    apart: bool,
    changes: str | None,
    paths: Sequence[str] | None,
) -> Iterator[str]:
    margin = ""
    for number, entry in enumerate(entries):
        if number and apart:
            yield margin.rstrip()
        text = write(entry)
        if changes:
            _, diff = repo.show(entry.id, paths=paths)
            below = list(diffs.changes(diff, changes))
            text += ([""] if below and apart else []) + below
        if cells is None:
            yield from text
        else:
            cell = next(cells)
            margin = cell.rest
            yield from cell.beside([line for part in text for line in part.split("\n")])


def _cells(
    repo: Repository, start: list[str], reach: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[Cell]:
    """The drawing beside each commit. Commits that the filters leave out are skipped."""
    from persona.cli.graph import Graph, within

    links: Mapping[str, Sequence[str]] = repo.links(start, **reach)
    if any(value not in (None, False, ()) for value in wanted.values()) or wanted["merges"] is False:
        links = within(links, {entry.id for entry in repo.log(start, topological=True, **reach, **wanted)})
    graph = Graph()
    for id, parents in links.items():
        yield graph.draw(id, [parent for parent in parents if parent in links])
