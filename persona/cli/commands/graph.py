"""`persona graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli.command import CommandGroup, declare
from persona.cli.completions import files, patterns, revisions
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.behaviour.states import GraphStatus
    from persona.behaviour.verbs.graph import GraphExport, GraphImport, GraphView, PatternDetails
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@click.group("graph", cls=CommandGroup, example="$ persona graph status\n$ persona graph show listening")
def command() -> None:
    """Check, show and exchange patterns.

    A pattern is a file graph/KEY.md that says what the model should be like: links to other patterns, data to
    train on, probes that measure it, and prose. A pattern, or each of its facets, owns one vector.
    """


@declare("check", group=command, example="$ persona graph check\n$ persona graph check HEAD~3")
@click.argument("rev", required=False, shell_complete=revisions)
def check(repo: Repository, rev: str | None) -> Shown:
    """Check every pattern and its data.

    Names file and line of all problems: faulty front matter, links to nothing, data files that are missing or
    cannot be read, and prompts that stand in both training data and probes. Warnings name what is probably
    not meant, such as answers of very different length. Exits with 1 if there is a problem.

    REV is a revision to check in place of the work tree.
    """
    result = repo.graph.check(rev)
    return Shown(result, exit_code=0 if result.ok else 1)


@declare("status", group=command, example="$ persona graph status")
def status(repo: Repository) -> GraphStatus:
    """Show how far the vector of each pattern is.

    It is untrained, stale (its text, data, base or settings changed since it was trained), trained, verified
    (its probes pass) or failing. Reads notes and files, and measures nothing.
    """
    return repo.graph.status()


@declare(
    "show",
    group=command,
    pages=True,
    example="$ persona graph show\n$ persona graph show listening\n$ persona graph show -o graph.svg",
)
@click.argument("key", required=False, shell_complete=patterns)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    shell_complete=files,
    help="Also draw the graph into FILE, a .png or .svg.",
)
def show(call: Invocation, repo: Repository, key: str | None, out: str | None) -> GraphView | PatternDetails:
    """Show the patterns with their links, or one pattern.

    Prints a tree: under each pattern its facets, then the patterns that it links to. Each line has the state
    of the vector, its alpha in recipe.toml, and its id. With KEY, prints everything about that pattern.
    """
    view = repo.graph.view() if key is None or out is not None else None
    if view is not None and out is not None:
        from persona.cli import graph_drawing

        graph_drawing.write(call.path(out), view, key)
    if key is not None:
        return repo.graph.describe(key)
    assert view is not None
    return view


@declare(
    "import",
    group=command,
    example='$ persona graph import nodes.jsonl\n$ persona commit -m "the nodes of the memory"',
)
@click.argument("file", metavar="FILE", shell_complete=files)
@click.option("-f", "--force", is_flag=True, help="Change files that were edited by hand, too.")
def import_(call: Invocation, repo: Repository, file: str, force: bool) -> GraphImport:
    """Take over nodes of another program.

    FILE has one JSON object on a line, with the fields key, content, weight, category and links. import
    writes graph/KEY.md for each. It keeps all other fields, and export gives them back. import commits
    nothing.

    If a file was edited since its import, import changes nothing, unless you give -f. Then the file gets the
    fields of the node, and keeps its data, training settings and facets.
    """
    return repo.graph.import_lines(call.path(file), force=force)


@declare(
    "export",
    group=command,
    example="$ persona graph export > nodes.jsonl\n$ persona graph export HEAD~3 -o old.jsonl",
)
@click.argument("rev", required=False, shell_complete=revisions)
@click.option("-o", "--out", metavar="FILE", shell_complete=files, help="Write the lines into FILE.")
def export(call: Invocation, repo: Repository, rev: str | None, out: str | None) -> Shown | GraphExport:
    """Print the patterns as nodes for other programs.

    Prints one JSON object on a line for each pattern, in the order in which the nodes were imported. A node
    that was imported has all its fields again, with the edits of its file since.

    REV is a revision to export in place of the work tree.
    """
    result = repo.graph.export_lines(rev)
    if out is None:
        return result
    from persona.store import files as disk

    disk.write_file(call.path(out), "".join(f"{line}\n" for line in result.lines).encode())
    return Shown(result, [f"{len(result.nodes):,} in {out}"], act=True)
