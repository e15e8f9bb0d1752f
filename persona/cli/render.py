"""Results as text: numbers, names, and the layout of what commands print. `diffs` and `graph` do the rest.

Every function returns text or lines and prints nothing. Colour is always put in. It is taken out when the
text is printed, unless stdout is a terminal and `NO_COLOR` is not set. `terminal.echo` lets no other escape
sequence through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from click import style

from persona.cli.terminal import one_line
from persona.cli.terminal import printable as printable
from persona.errors import Note
from persona.errors import listed as listed_names

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.act_results import Removed, Restored
    from persona.history.query_results import CommitEntry, DigestResult, RefInfo, ReflogEntry, VectorInfo
    from persona.history.results import (
        Carried,
        CheckoutResult,
        CommitResult,
        Head,
        VectorChange,
        WeightsState,
    )
    from persona.history.store_results import FsckResult, ObjectCount
    from persona.history.verbs.derive import Derived
    from persona.history.verbs.vectors import Taken
    from persona.repository import Repository

SHORT = 8
"""Digits of an abbreviated id."""
LISTED = 20
"""Lines of a list if no options ask for all of them."""
_MOVE = re.compile(r"(?:checkout|switch|branch|tag|reset): ")
_WHOLE_ID = re.compile(r"\b[0-9a-f]{64}\b")
_SIGNS = {"added": "+", "replaced": "~", "removed": "-"}
_COLOURS = {"added": "green", "replaced": "yellow", "changed": "yellow", "removed": "red"}


# -- numbers and names ---------------------------------------------------------------------------------------


def bytes_text(count: int) -> str:
    """Bytes in decimal units: 25.1 MB."""
    if count < 1000:
        return f"{count} B"
    power = next((power for power in (1, 2, 3) if count < 999.95 * 1000**power), 4)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def percent(fraction: float) -> str:
    """A fraction as 9.3 %."""
    if 0 < fraction < 0.0005:
        return "< 0.1 %"
    return f"{100 * fraction:.1f} %"


def number(value: float | str | Sequence[float]) -> str:
    """An alpha, density or lambda: two decimals, or as many as it has. A list over layers in brackets."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(f'{item:.12g}' for item in value)}]"
    assert isinstance(value, (int, float, str))
    exact = f"{float(value):.12g}"
    plain = f"{float(value):.2f}"
    return plain if float(plain) == float(exact) else exact


def duration(seconds: float) -> str:
    """A time as people say it: 4.2 s, 2 min 5 s, 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted(count: int, noun: str) -> str:
    """1 file, 2 files."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def short(id: str) -> str:
    """An id, abbreviated."""
    return id[:SHORT]


def shown_path(path: str) -> str:
    """A file's name for a terminal: bytes that are no text become escapes."""
    return one_line(path.encode("utf-8", "backslashreplace").decode())


def listed(lines: Sequence[str]) -> Iterator[str]:
    """The first of many lines, and how many more there are."""
    yield from lines[:LISTED]
    if len(lines) > LISTED:
        yield f"and {len(lines) - LISTED:,} more"


def coloured_id(id: str) -> str:
    """An abbreviated id as it stands in lists."""
    return style(short(id), fg="yellow")


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows whose cells stand under each other, two spaces between."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def date_text(iso: str) -> str:
    """A date as git writes it: Sun Nov 22 09:30:00 2026 +0100."""
    moment = datetime.fromisoformat(iso)
    return f"{moment:%a %b} {moment.day} {moment:%H:%M:%S} {moment.year:04} {moment:%z}"


# -- commits -------------------------------------------------------------------------------------------------


def commit_lines(result: CommitResult) -> Iterator[str]:
    """The result of a commit or an `add`: `[main 3f2a91c0] subject`, then a line for each vector."""
    if result.id is not None:
        where = result.branch or "detached HEAD"
        root = "" if result.parents else " (root-commit)"
        yield f"[{where}{root} {short(result.id)}] {printable(result.subject)}"
    width = max((len(vector.name) for vector in result.vectors), default=0)
    for vector in result.vectors:
        yield vector_change_line(vector, width)
        if vector.unchanged and vector.new_bytes:  # else a command before this one said it
            yield f"   {'':<{width}}  unchanged: {printable(listed_names(vector.unchanged))}"


def vector_change_line(vector: VectorChange, width: int) -> str:
    """` + listening  α 1.00   25.1 MB stored of 269.1 MB (9.3 %), 34.6 % of weights changed`."""
    sign = style(_SIGNS.get(vector.change, "~"), fg=_COLOURS.get(vector.change))
    line = f" {sign} {vector.name:<{width}}"
    if vector.change == "replaced" and vector.previous and vector.previous != vector.id:
        line += "{} → {}".format(*apart(vector.previous, vector.id)).join((" ", ""))
    if vector.alpha is not None and vector.change != "removed":
        line += f"  α {number(vector.alpha)} "
    facts = []
    if vector.change != "removed":
        named = (("only", vector.only), ("except", vector.except_))
        facts += [f"{word} {printable(', '.join(globs))}" for word, globs in named if globs]
    if vector.expression is not None:
        facts.append(printable(vector.expression))
    elif vector.stored_bytes is not None and vector.raw_bytes:
        share = percent(vector.stored_bytes / vector.raw_bytes)
        verb = "already stored" if vector.new_bytes == 0 else "stored"
        facts.append(f"{bytes_text(vector.stored_bytes)} {verb} of {bytes_text(vector.raw_bytes)} ({share})")
    if vector.ranks:
        facts.append(f"{ranks_text(vector.ranks)}, {counted(vector.tensors or 0, 'tensor')}")
    if vector.changed_fraction is not None:
        facts.append(f"{percent(vector.changed_fraction)} of weights changed")
    if vector.kept_fraction is not None and vector.density not in (None, 1):
        assert vector.density is not None
        facts.append(f"density {number(vector.density)} keeps {percent(vector.kept_fraction)}")
    if vector.largest_rounding is not None:
        facts.append(f"largest rounding {vector.largest_rounding:.2g}")
    return (line + ("  " + ", ".join(facts) if facts else "")).rstrip()


def change_sign(change: str) -> str:
    """`+`, `~`, `-` or `=` for a vector that is added, replaced, removed or unchanged."""
    return style(_SIGNS.get(change, "="), fg=_COLOURS.get(change))


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 16`, or `ranks 8 to 16`."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"


def apart(one: str, other: str) -> tuple[str, str]:
    """Two ids, abbreviated to four digits or as many as tell them apart."""
    length = 4
    while length < len(one) and one[:length] == other[:length]:
        length += 1
    return one[:length], other[:length]


def decoration(refs: Sequence[str]) -> str:
    """` (HEAD -> main, tag: v1)` in git's colours, or nothing."""
    if not refs:
        return ""
    painted = []
    for ref in refs:
        head, arrow, branch = ref.partition(" -> ")
        if arrow:
            painted.append(style(head + arrow, fg="cyan", bold=True) + style(branch, fg="green", bold=True))
        elif ref == "HEAD":
            painted.append(style(ref, fg="cyan", bold=True))
        else:
            painted.append(style(ref, fg="yellow" if ref.startswith("tag: ") else "green", bold=True))
    comma = style(", ", fg="yellow")
    return f" {style('(', fg='yellow')}{comma.join(painted)}{style(')', fg='yellow')}"


def oneline(entry: CommitEntry, refs: bool) -> str:
    """A commit on one line."""
    return f"{coloured_id(entry.id)}{decoration(entry.refs if refs else ())} {printable(entry.subject)}"


def entry_lines(entry: CommitEntry, refs: bool, date: str | None = None) -> list[str]:
    """A commit as `log` and `show` head it. `date`: its date as it is to be written."""
    lines = [style(f"commit {entry.id}", fg="yellow") + decoration(entry.refs if refs else ())]
    if len(entry.parents) > 1:
        lines.append("Merge: " + " ".join(short(parent) for parent in entry.parents))
    lines.append(f"Author: {printable(entry.author.name)} <{printable(entry.author.email)}>")
    lines.append(f"Date:   {date or date_text(entry.date)}")
    lines.append("")
    lines += [f"    {line}".rstrip() for line in printable(entry.message).rstrip("\n").split("\n")]
    return lines


def note_lines(entry: CommitEntry) -> list[str]:
    """The note on a commit, as `log` and `show` print it below the message."""
    if entry.note is None:
        return []
    return ["", "Notes:", *(f"    {line}".rstrip() for line in printable(entry.note).split("\n"))]


# -- where HEAD and the weights are --------------------------------------------------------------------------


def head_line(branch: str | None, id: str | None) -> str:
    """`On branch main`, or the commit of a detached HEAD."""
    if branch is not None:
        return f"On branch {branch}"
    return style("HEAD detached at ", fg="red") + short(id or "")


def carried_lines(carried: Sequence[Carried], path: Callable[[str], str]) -> Iterator[str]:
    """Edits that came along, as git lists them: `M recipe.toml`. `path` names a file as it is typed."""
    letters = {"added": "A", "removed": "D"}
    yield from (f"{letters.get(edit.change, 'M')}\t{shown_path(path(edit.path))}" for edit in carried)


def moved_lines(
    head: Head, subject: str | None, *, before: Head | None = None, made: bool = False, reset: bool = False
) -> Iterator[str]:
    """The report of `checkout` and `switch` after HEAD moved from `before`.

    `made`: the branch is new. `reset`: it was moved.
    """
    stays = head.branch is not None and before is not None and before.branch == head.branch
    if reset:
        yield f"{'Reset' if stays else 'Switched to and reset'} branch '{head.branch}'"
    elif head.branch is not None and before is not None and before.branch == head.branch:
        yield f"Already on '{head.branch}'"
    elif head.branch is not None:
        yield f"Switched to {'a new ' if made else ''}branch '{head.branch}'"
    elif head.id is not None:
        yield f"HEAD is now at {short(head.id)}" + (f" {printable(subject)}" if subject else "")
        yield f'HEAD detached at {short(head.id)} (use "persona switch -c NAME" to keep what you commit here)'


def weights_lines(weights: WeightsState, root: str, recipe_changed: bool = False) -> Iterator[str]:
    """The state of the weights in the work tree, and the command to type. `root`: path of the work tree."""
    of = f" of {short(weights.revision)}" if weights.revision else ""
    match weights.state:
        case "clean":
            yield "Weights: those of HEAD" if recipe_changed else "Weights: clean"
            if recipe_changed:
                yield '  (use "persona checkout" to compute the weights of the edited recipe)'
        case "absent":
            yield "Weights: absent"
            yield '  (use "persona checkout" to compute the weights)'
        case "stale" if weights.vector is not None:
            yield f"Weights: the fine-tune that the vector {printable(weights.vector)} was made from"
            if weights.alone:
                yield '  (no commit and no recipe holds that vector; "persona checkout -f" overwrites them)'
            else:
                yield '  (use "persona checkout" to compute the weights of recipe.toml)'
        case "stale":
            yield f"Weights: stale, computed for {of.removeprefix(' of ') or 'an unknown recipe'}"
            yield '  (use "persona checkout" to compute the weights of recipe.toml)'
        case "uncommitted":
            yield "Weights: computed for the edited recipe, which is not committed"
            yield '  (use "persona commit" to record the recipe)'
        case "edited":
            yield f"Weights: edited by hand{' after the checkout' + of if of else ''}"
            onto = short(weights.revision) if weights.revision else "REV"
            yield f'  (use "persona add {root} -n NAME --onto {onto}" to keep the change as a vector,'
            yield '   "persona checkout -f" to compute the weights again)'
        case _:
            yield "Weights: unknown, not made by persona"
            yield '  (use "persona checkout -f" to replace them)'


def checkout_lines(result: CheckoutResult) -> Iterator[str]:
    """The report of a checkout's computation."""
    if result.weights is None:
        return
    work = f"{counted(result.tensors_computed, 'tensor')} computed, {result.tensors_reused:,} reused"
    written = f"{bytes_text(result.bytes_written)} written in {result.seconds:.1f} s ({result.device})"
    yield f"{work}, {written}"
    yield result.weights


# -- lists ---------------------------------------------------------------------------------------------------


def vector_table(vectors: Sequence[VectorInfo]) -> Iterator[str]:
    """One vector a line."""
    verified = any(vector.verdict for vector in vectors)
    held = any(vector.commit for vector in vectors)
    more = [*(["VERDICT"] if verified else []), *(["COMMIT"] if held else [])]
    rows = [("", "NAME", "ID", "CHANGED", "STORED", "OF", "|τ|", *more, "")]
    for vector in vectors:
        changed = "?" if vector.changed_fraction is None else percent(vector.changed_fraction)
        share = f"{bytes_text(vector.raw_bytes)}"
        if vector.raw_bytes:
            share += f" ({percent(vector.stored_bytes / vector.raw_bytes)})"
        length = "?" if vector.l2 is None else f"{vector.l2:.4g}"
        mark = "*" if vector.in_recipe else " "
        sum_ = f"= {vector.expression}" if vector.expression else ""
        stored = bytes_text(vector.stored_bytes)
        more = [vector.verdict or ""] if verified else []
        more += [short(vector.commit or "")] if held else []
        rows.append((mark, vector.name, short(vector.id), changed, stored, share, length, *more, sum_))
    if len(rows) > 1:
        yield from columns(rows)


def vector_lines(vector: VectorInfo) -> Iterator[str]:
    """Everything about one vector."""
    yield style(f"vector {vector.name}", fg="yellow") + f" {vector.id}"
    yield f"Kind:     {vector.kind}" + (f", {ranks_text(vector.ranks)}" if vector.ranks else "")
    if vector.expression is not None:
        yield f"Sum:      {printable(vector.expression)}"
    yield f"Base:     {vector.base}"
    yield f"Changes:  {counted(vector.tensors, 'tensor')} of {counted(vector.elements, 'element')}" + (
        "" if vector.changed_fraction is None else f", {percent(vector.changed_fraction)} of all weights"
    )
    if vector.grown:
        heads = [f"{name} (in place of {origin})" for name, origin in vector.grown.items() if origin]
        longer = [name for name, origin in vector.grown.items() if origin is None]
        yield f"Grows:    {printable(listed_names([*longer, *heads]))}"
    share = f" ({percent(vector.stored_bytes / vector.raw_bytes)})" if vector.raw_bytes else ""
    yield f"Stored:   {bytes_text(vector.stored_bytes)} of {bytes_text(vector.raw_bytes)}{share}"
    if vector.l2 is not None:
        yield f"Length:   {vector.l2:.6g} (Euclidean)"


def branch_lines(branches: Sequence[RefInfo], head: Head, verbose: bool) -> Iterator[str]:
    """The branches, the current one with a star."""
    names = {branch.name: branch.name for branch in branches}
    detached = f"(HEAD detached at {short(head.id)})" if head.branch is None and head.id else None
    width = max((len(name) for name in (*names, detached or "")), default=0) if verbose else 0
    if detached is not None:
        yield "* " + style(detached.ljust(width), fg="red") + (f" {short(head.id or '')}" if verbose else "")
    for branch in branches:
        mark, colour = ("* ", "green") if branch.current else ("  ", None)
        line = mark + style(branch.name.ljust(width), fg=colour)
        yield f"{line} {short(branch.id)} {printable(branch.message)}" if verbose else line


def reflog_lines(entries: Iterable[ReflogEntry], date: Callable[[str], str] | None = None) -> Iterator[str]:
    """The moves of a ref, newest first. `date` writes the time of each in place of its number."""
    for entry in entries:
        name = entry.selector.rpartition("@{")[0]
        selector = entry.selector if date is None else f"{name}@{{{date(entry.date)}}}"
        yield f"{coloured_id(entry.id)} {selector}: {printable(_with_short_ids(entry.message))}"


def _with_short_ids(why: str) -> str:
    """The reason of a move with its ids abbreviated; a commit's subject stays as it is."""
    return _WHOLE_ID.sub(lambda match: short(match[0]), why) if _MOVE.match(why) else why


def fsck_lines(result: FsckResult) -> Iterator[str]:
    """The problems, dangling objects and leftovers, then a summary."""
    for problem in result.problems:
        what = " ".join(part for part in (problem.kind, problem.id and short(problem.id)) if part)
        yield style("damaged", fg="red") + (f" {what}" if what else "") + f": {printable(problem.problem)}"
        if isinstance(problem.problem, Note) and problem.problem.hint is not None:
            from persona.cli.hints import in_shell

            yield f"  ({in_shell(problem.problem.hint)})"
    if any(problem.id for problem in result.problems):
        yield '  (to store a damaged vector again, use "persona add PATH" with its fine-tune)'
    for one in result.dangling:
        yield f"dangling {one.kind} {one.id}"
    for left in result.leftovers:
        yield f"left over: {printable(left.file)} ({bytes_text(left.bytes)})"
    sum_ = f"{counted(result.objects, 'object')} checked"
    if result.unreachable:
        sum_ += f", {result.unreachable:,} unreachable"
    yield sum_ + (", all whole" if result.ok else f", {counted(len(result.problems), 'problem')}")


# -- by type -------------------------------------------------------------------------------------------------


def digest(result: DigestResult, call: Invocation, repo: Repository) -> list[str]:
    """The digest."""
    return [result.weights]


def removed(result: Removed, call: Invocation, repo: Repository) -> list[str]:
    """One name a line, as git does it."""
    return [f"rm '{name}'" for name in result.removed]


def restored(result: Restored, call: Invocation, repo: Repository) -> list[str]:
    """How many files."""
    return [f"Put back {counted(len(result), 'file')}"]


def derived(result: Derived, call: Invocation, repo: Repository) -> list[str]:
    """` + calmer  α 1.00   calm - rushed`."""
    sign = change_sign(result.change)
    return [f" {sign} {printable(result.name)}  α {number(result.alpha)}   {printable(result.expression)}"]


def taken(result: Taken, call: Invocation, repo: Repository) -> list[str]:
    """` + calm  α 0.50   as in 3f2a91c8 (calmer answers)`."""
    where = f"as in {coloured_id(result.commit)} ({printable(result.subject)})"
    return [f" {change_sign(result.change)} {printable(result.name)}  α {number(result.alpha)}   {where}"]


def object_count(result: ObjectCount, call: Invocation, repo: Repository) -> list[str]:
    """The sums."""
    objects, packs = counted(result.objects, "object"), counted(result.packs, "pack")
    lines = [f"{objects}, {packs}, {bytes_text(result.bytes)}"]
    if result.leftovers:
        left = bytes_text(sum(one.bytes for one in result.leftovers))
        lines.append(f"left over by commands that died: {counted(len(result.leftovers), 'file')}, {left}")
    return lines
