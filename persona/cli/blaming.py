"""The lines of `blame`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from persona.cli.render import SHORT, coloured_id, columns, number, percent, printable, short
from persona.history.recipes.text import toml_string
from persona.objects.ids import is_id
from persona.objects.rules import PRESETS

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.blame import Blame, Origin
    from persona.history.verbs.blame_weights import OutvotedRows, WeightsBlame
    from persona.repository import Repository

_UNSET: Final[tuple[Any, ...]] = (None, [], "vote")
"""Values of keys that recipe.toml need not have."""


def lines(blame: Blame, call: Invocation, repo: Repository) -> Iterator[str]:
    """A line for each value: commit, author, day, key and value, subject."""
    rows: list[tuple[str, str | None, Origin]] = []
    if blame.rules:
        rows.append(("base", _value(blame.base_name), blame.base))
    rows += [
        (f"merge.{axis}", _value(origin.value), origin) for axis, origin in _shown_rules(blame.rules).items()
    ]
    for name, keys in blame.vectors.items():
        rows.append((f"[vectors.{name}]", None, keys["name"]))
        rows += [(f"  {key}", _value(origin.value), origin) for key, origin in _keys(keys).items()]
    table = list(columns([_cells(*row) for row in rows]))
    yield from (f"{coloured_id(row[:SHORT])}{row[SHORT:]}" for row in table)


def _cells(key: str, value: str | None, origin: Origin) -> tuple[str, str, str, str, str]:
    said = printable(key if value is None else f"{key} = {value}")
    if origin.commit is None or origin.author is None or origin.date is None:
        return "0" * SHORT, "Not Committed Yet", "", said, ""
    return (
        short(origin.commit),
        printable(origin.author.name),
        origin.date[:10],
        said,
        printable(origin.subject or ""),
    )


def _shown_rules(rules: dict[str, Origin]) -> dict[str, Origin]:
    """The preset, and the axes that are not the preset's own or were set by another commit."""
    if not rules:
        return {}
    preset = rules["preset"]
    usual: dict[str, Any] = {**PRESETS[preset.value], "lambda": "1"}
    return {
        axis: origin
        for axis, origin in rules.items()
        if axis == "preset"
        or origin.commit != preset.commit
        or _value(origin.value) != _value(_plain(usual.get(axis)))
    }


def _plain(value: str | None) -> Any:
    """A value of an axis as the result has it."""
    if value in ("true", "false"):
        return value == "true"
    try:
        return float(value or "")
    except ValueError:
        return value


def _keys(keys: dict[str, Origin]) -> dict[str, Origin]:
    """The keys that are set, and those that a commit of their own took away."""
    set_ = {key: origin for key, origin in keys.items() if origin.value not in _UNSET}
    came = {origin.commit for origin in set_.values()}
    return {
        key: origin
        for key, origin in keys.items()
        if key != "name" and (key in set_ or origin.commit not in came)
    }


def _value(value: Any) -> str:
    """A value as recipe.toml has it; an id is abbreviated."""
    if value is None or value == []:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return short(value) if is_id(value) else toml_string(value)
    if isinstance(value, list) and isinstance(value[0], str):
        return f"[{', '.join(map(toml_string, value))}]"
    return number(value)


def weights_lines(blame: WeightsBlame, call: Invocation, repo: Repository) -> Iterator[str]:
    """The tensor, a line for each vector, and where vectors are outvoted."""
    shape = ", ".join(map(str, blame.shape))
    moved = f"{blame.moved:,} of {blame.weights:,} weights moved"
    yield f"{printable(blame.tensor)}  {blame.dtype} [{shape}], {moved}"
    if not blame.vectors:
        yield "no vector reaches it"
        return
    yield ""
    rows = [["NAME", "α", "CHANGES", "KEPT", "JOINS", "DECIDES", "OUTVOTED", "SHARE"]]
    for one in blame.vectors:
        counts = (one.changes, one.kept, one.joined, one.decided, one.outvoted)
        share = "" if one.share is None else percent(one.share)
        rows.append([printable(one.name), number(one.alpha), *(f"{count:,}" for count in counts), share])
    yield from columns(rows)
    outvoted = [one for one in blame.vectors if one.outvoted]
    if outvoted:
        yield ""
    for one in outvoted:
        by = [f"{printable(name)} at {count:,}" for name, count in one.outvoted_by.items()]
        most = [f"{_rows(run)} ({run.outvoted:,} of {run.weights:,})" for run in one.rows]
        facts = [*([f"by {', '.join(by)}"] if by else []), f"most in rows {', '.join(most)}"]
        yield f"{printable(one.name)} is outvoted {'; '.join(facts)}"


def _rows(run: OutvotedRows) -> str:
    return f"{run.first}" if run.first == run.last else f"{run.first}-{run.last}"
