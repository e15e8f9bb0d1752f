"""Differences as text: recipes in the words of recipe.toml, text files as unified diffs, and summaries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from click import style

from persona.cli.errors import failure
from persona.cli.pager import on_terminal
from persona.cli.render import checkout_lines, commit_lines, counted, number, percent, short, shown_path
from persona.cli.rendering import Shown
from persona.cli.terminal import printable
from persona.errors import Call, PersonaError, pieces
from persona.history.recipes.text import RECIPE_FILE

if TYPE_CHECKING:
    from persona.behaviour.building.results import Built
    from persona.history.results import CommitResult, Diff, FileChange, KeptFraction, TermChange
    from persona.repository import Repository

_KEYS = ("id", "alpha", "density", "only", "except", "join")
_USUAL: dict[str, Any] = {"density": None, "only": (), "except": (), "join": "vote"}
"""Keys of a term that go without saying when a whole term comes or goes."""


def diff_lines(diff: Diff) -> Iterator[str]:
    """The whole difference: `-` for removals from the recipe, `+` for additions, then each text file."""
    if diff.rules or diff.vectors:
        before = short(diff.from_) if diff.from_ else "nothing"
        yield style(f"diff recipe {before} {short(diff.to) if diff.to else 'work tree'}", bold=True)
        yield from _rules_lines(diff.rules)
        for vector in diff.vectors:
            yield from _term_lines(vector)
    for change in diff.file_changes:
        yield from _file_lines(change)


_VERBS = {"added": "new vector:", "removed": "removed:", "renamed": "renamed:"}
_LETTERS = {"added": "A", "removed": "D"}


def name_lines(diff: Diff, *, status: bool = False) -> Iterator[str]:
    """The files that differ, one a line; `status` puts A, D or M before each, as git does."""
    found = {change.path: change.change for change in diff.file_changes}
    if diff.rules or diff.vectors:
        found[RECIPE_FILE] = "changed" if diff.from_ is not None else "added"
    for path, change in sorted(found.items()):
        yield f"{_LETTERS.get(change, 'M')}\t{shown_path(path)}" if status else shown_path(path)


def changes(diff: Diff, how: str | None) -> Iterator[str]:
    """A difference as `how` says: "patch", "stat", "names", "status", or not at all."""
    match how:
        case "patch":
            yield from diff_lines(diff)
        case "stat":
            yield from stat_lines(diff)
        case "names" | "status":
            yield from name_lines(diff, status=how == "status")


def stat_lines(diff: Diff) -> Iterator[str]:
    """One line for each thing that differs, and a sum."""
    rows = [(f"vectors.{vector.name}", _term_summary(vector)) for vector in diff.vectors]
    rows += [
        (f"merge.{axis}", f"{_value(change['from'])} → {_value(change['to'])}")
        for axis, change in diff.rules.items()
    ]
    rows += [(change.path, _file_summary(change)) for change in diff.file_changes]
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        yield f" {name:<{width}} | {summary}"
    if rows:
        sums = ((len(diff.vectors), "vector"), (len(diff.rules), "rule"), (len(diff.file_changes), "file"))
        yield " " + ", ".join(counted(count, noun) for count, noun in sums if count) + " changed"


def shown_commit(repo: Repository, result: CommitResult) -> Shown:
    """The result of a commit or a revert; if the weights could not be computed, also why."""
    error = result.failure
    if error is None:
        return Shown(result, committed_lines(repo, result))
    return unplaced(result, error, committed_lines(repo, result))


def unplaced(result: CommitResult | Built, error: PersonaError, lines: Iterator[str]) -> Shown:
    """What was committed, and why its weights could not be computed."""
    from persona.cli.hints import in_shell
    from persona.history.results import as_json

    message = f"the commit is made, but its weights could not be computed: {error.message}"
    hint = (*pieces(error.hint), Call("checkout"), " tries again")
    value = as_json(result) | failure(error.kind, message, error.exit_code, hint)
    fault = [f"persona: {message}", f"hint: {in_shell(hint)}"]
    return Shown(value, lines, error.exit_code, act=True, notes=result.notes, fault=fault)


def committed_lines(repo: Repository, result: CommitResult) -> Iterator[str]:
    """The result of a commit, or of a revert that is not committed yet.

    Each change is one line; the computed weights follow.
    """
    yield from commit_lines(result)
    if result.parents:
        diff = repo.diff() if result.id is None else repo.diff(result.parents[0], result.id)
        yield from brief_lines(diff, {vector.name for vector in result.vectors}, result.kept)
    if result.checkout is not None:
        yield from checkout_lines(result.checkout)


def brief_lines(diff: Diff, shown: Collection[str], kept: Sequence[KeptFraction] = ()) -> Iterator[str]:
    """The changes of a commit, except the vectors that it added or removed, which are `shown` already."""
    for axis, change in diff.rules.items():
        yield f" {style('~', fg='yellow')} {axis} {_value(change['from'])} → {_value(change['to'])}"
    for vector in diff.vectors:
        if vector.name not in shown or vector.change == "renamed":
            yield f" {style('~', fg='yellow')} {vector.name}  {_term_summary(vector)}"
    for line in kept_lines(kept):
        yield f"   {line}"
    for file in diff.file_changes:
        sign, colour = {"added": ("+", "green"), "removed": ("-", "red")}.get(file.change, ("~", "yellow"))
        yield f" {style(sign, fg=colour)} {file.path}"


def new_file_lines(paths: Sequence[str]) -> Iterator[str]:
    """The files that `add` tracks from now on."""
    yield from (f" {style('+', fg='green')} {printable(path)}" for path in paths)


def kept_lines(kept: Sequence[KeptFraction]) -> Iterator[str]:
    """`density 0.20 keeps 23.5 % (pirate), 20.8 % (terse)`, a line for each density."""
    for density in dict.fromkeys(one.density for one in kept):
        fractions = [f"{percent(one.kept_fraction)} ({one.name})" for one in kept if one.density == density]
        yield f"density {number(density)} keeps {', '.join(fractions)}"


def change_lines(
    diff: Diff, kept: Sequence[KeptFraction] = (), path: Callable[[str], str] = str
) -> Iterator[str]:
    """The list of `status`: one line for each change that the next commit would hold.

    `path` spells a file name relative to the current directory.
    """
    for axis, change in diff.rules.items():
        yield f"{'rule:':<12}{axis} {_value(change['from'])} → {_value(change['to'])}"
    for vector in diff.vectors:
        verb = _VERBS.get(vector.change, "vector:")
        name = f"{vector.from_['name']} → {vector.name}" if vector.change == "renamed" else vector.name
        yield f"{verb:<12}{'  '.join((name, *_key_changes(vector)))}"
    for line in kept_lines(kept):
        yield f"{'':<12}{line}"
    for file in diff.file_changes:
        verb = {"added": "new file:", "removed": "deleted:"}.get(file.change, "modified:")
        yield f"{verb:<12}{path(file.path)}"


def _rules_lines(rules: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The base and the merge rules, in the order of recipe.toml."""
    if "base" in rules:
        yield from _pair("base", rules["base"]["from"], rules["base"]["to"])
    axes = {axis: change for axis, change in rules.items() if axis != "base"}
    if axes:
        yield " [merge]"
    for axis, change in axes.items():
        yield from _pair(axis, change["from"], change["to"])


def _term_lines(vector: TermChange) -> Iterator[str]:
    header = f"[vectors.{_key(vector.name)}]"
    if vector.change == "added":
        yield _plus(header)
    elif vector.change == "removed":
        yield _minus(header)
    elif vector.change == "renamed":
        yield _minus(f"[vectors.{_key(vector.from_['name'])}]")
        yield _plus(header)
    else:
        yield f" {header}"
    for key in _KEYS:
        before, after = vector.from_.get(key), vector.to.get(key)
        if vector.change in ("added", "removed") and _plain(before or after) == _plain(_USUAL.get(key)):
            continue
        if key in vector.from_ or key in vector.to:
            yield from _pair(key, before, after)


def _pair(key: str, before: Any, after: Any) -> Iterator[str]:
    if before not in (None, (), []):
        yield _minus(f"{key} = {_written(before)}")
    if after not in (None, (), []):
        yield _plus(f"{key} = {_written(after)}")


def _term_summary(vector: TermChange) -> str:
    if vector.change in ("added", "removed"):
        return vector.change
    renamed = [f"renamed from {vector.from_['name']}"] if vector.change == "renamed" else []
    return ", ".join([*renamed, *_key_changes(vector)])


def _key_changes(vector: TermChange) -> Iterator[str]:
    """`α 0.50 → 1.00, density unset → 0.20`; nothing for a vector that was added or removed."""
    if vector.change in ("added", "removed"):
        return
    parts = []
    for key in _KEYS:
        if key in vector.from_ or key in vector.to:
            name = "α" if key == "alpha" else key
            parts.append(f"{name} {_value(vector.from_.get(key))} → {_value(vector.to.get(key))}")
    if parts:
        yield ", ".join(parts)


def _value(value: Any) -> str:
    if value is None or value in ((), []):
        return "unset"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)) and not isinstance(value[0], str):
        return number(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return short(text) if len(text) == 64 else text


def _written(value: Any) -> str:
    return f'"{_value(value)}"' if isinstance(value, str) else _value(value)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _key(name: str) -> str:
    bare = name.isascii() and all(char.isalnum() or char in "-_" for char in name)
    return name if bare else f'"{name}"'


def _plus(text: str) -> str:
    return style(f"+{text}", fg="green")


def _minus(text: str) -> str:
    return style(f"-{text}", fg="red")


def _text(content: bytes | None) -> list[str] | None:
    """The lines of a file without their ends, or None if it is not text.

    A missing last line end is marked.
    """
    if content and b"\0" in content:
        return None
    try:
        lines = [] if content is None else content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    if lines and lines[-1] == "":
        lines.pop()
    elif lines:
        lines[-1] += "\n\\ No newline at end of file"
    return lines


def _file_lines(change: FileChange) -> Iterator[str]:
    from persona.history.recipes.linediff import unified

    old, arrow, path = printable(change.path).partition(" => ")
    path = path if arrow else old
    # As git does: patch reads a name up to a space, or up to this tab.
    end, end_old = ("\t" if " " in name else "" for name in (path, old))
    yield style(f"diff a/{old} b/{path}", bold=True)
    before, after = _text(change.before()), _text(change.after())
    if before is None or after is None:
        yield f"Binary files a/{old} and b/{path} differ"
        return
    yield style("--- " + ("/dev/null" if change.change == "added" else f"a/{old}{end_old}"), bold=True)
    yield style("+++ " + ("/dev/null" if change.change == "removed" else f"b/{path}{end}"), bold=True)
    for line in unified(before, after):
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        shown = _shown(line)
        yield style(shown, fg=colour) if colour else shown


def _shown(line: str) -> str:
    """A line of a file for printing.

    Carriage returns of files from Windows are shown on a terminal, and kept if `patch` may read them.
    """
    if on_terminal() or "\r" not in line:
        return printable(line)
    parts = [(part.removesuffix("\r"), part.endswith("\r")) for part in line.split("\n")]
    return "\n".join(printable(text) + "\r" * ended for text, ended in parts)


def _file_summary(change: FileChange) -> str:
    from persona.history.recipes.linediff import runs

    before, after = _text(change.before()), _text(change.after())
    if before is None or after is None:
        return f"Bin {len(change.before() or b'')} → {len(change.after() or b'')} bytes"
    changed = runs(before, after)
    lost = sum(end - start for start, end, _, _ in changed)
    gained = sum(end - start for _, _, start, end in changed)
    bar = min(gained + lost, 40)
    plus = round(bar * gained / (gained + lost))
    plus = min(max(plus, gained > 0), bar - (lost > 0))  # a few lines among many are one sign, not none
    if not changed:
        return "0"
    return f"{gained + lost} " + style("+" * plus, fg="green") + style("-" * (bar - plus), fg="red")
