"""**rendering** — a result as lines of text, chosen by its type.

A rendering is a function (result, invocation, repository) → lines. Its module is imported when a result of
its type is printed. The lines of an *act*, a command that changes something, are left out with `-q`. All
other results are always printed. JSON needs no renderings: `as_json` serves all types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from persona.cli.terminal import say

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository

ACTS: Final = {
    "AdapterResult": "adapters:adapter",
    "CheckoutResult": "",
    "CommitResult": "",
    "Deleted": "",
    "Derived": "render:derived",
    "Edited": "",
    "GraphImport": "patterns:imported",
    "MergekitResult": "interchange:mergekit",
    "PatchResult": "interchange:patch",
    "RefInfo": "",
    "Removed": "render:removed",
    "Renamed": "",
    "Restored": "render:restored",
    "SwitchResult": "",
    "Taken": "render:taken",
}
"""Type of the result of an act → its rendering, a function of a module here.

None for an act that prints nothing, or whose command has the lines.
"""
ANSWERS: Final = {
    "Blame": "blaming:lines",
    "DigestResult": "render:digest",
    "GraphCheck": "patterns:check",
    "GraphExport": "patterns:exported",
    "GraphStatus": "patterns:status",
    "GraphView": "patterns:view",
    "ImportPlan": "interchange:import_plan",
    "ObjectCount": "render:object_count",
    "PatternDetails": "patterns:details",
    "Status": "commands.status:status",
    "VectorStatistics": "measures:statistics",
    "WeightsBlame": "blaming:weights_lines",
}
"""The same for results of commands that only read."""


class Shown:
    """A result with lines of its own, where options of the command decide what they say, or another exit
    code. `act`: whether it tells of something done. `notes`: of a value that has none of its own. `fault`:
    what went wrong after the act, said last, also with `-q`.

    No dataclass: making one costs every command a third of a millisecond.
    """

    __slots__ = ("act", "exit_code", "fault", "lines", "notes", "value")

    def __init__(
        self,
        value: Any,
        lines: Iterable[str] | str | None = None,
        exit_code: int = 0,
        *,
        act: bool = False,
        notes: Iterable[str] = (),
        fault: Iterable[str] = (),
    ) -> None:
        self.value = value
        self.lines = lines
        self.exit_code = exit_code
        self.act = act
        self.notes = notes
        self.fault = fault


def is_act(value: object) -> bool:
    """Whether a result tells of something that was done."""
    return type(value).__name__ in ACTS


def finish(result: Any, call: Invocation, repo: Repository | None = None) -> int:
    """Says the notes of a result, then shows it as JSON or as text. Returns the exit code."""
    shown = result if isinstance(result, Shown) else Shown(result)
    act = shown.act or is_act(shown.value)
    call.settle([*getattr(shown.value, "notes", ()), *shown.notes], act=act)
    if result is None:
        return 0
    if call.json:
        call.answer_json(shown.value)
    elif not (act and call.quiet):
        lines = lines_of(shown.value, call, repo) if shown.lines is None else shown.lines
        call.show([lines] if isinstance(lines, str) else lines)
    for sentence in shown.fault:
        say(sentence)
    return shown.exit_code


def lines_of(value: object, call: Invocation, repo: Repository | None) -> Iterable[str]:
    """The lines of a result."""
    name = type(value).__name__
    if not ACTS.get(name, "yes"):
        return ()
    module, _, function = (ACTS.get(name) or ANSWERS[name]).partition(":")
    rendering: Callable[..., Iterable[str]] = getattr(import_module(f"persona.cli.{module}"), function)
    return rendering(value, call, repo)
