"""**sequence** — commands that are given to persona and to git, one after the other.

A line of a sequence is one of these:

- a command, which both programs get. Then their exit codes and states are compared;
- `= COMMAND`: the text that the command prints is compared too;
- `git: COMMAND` and `persona: COMMAND`: only this program gets it, at the time of the line before, and
  nothing is compared;
- `edit NAME ALPHA`: changes the strength of a vector, in persona with `set`, in git as a line of a file;
- `name OLD NEW`: renames a vector, in persona with `mv`, in git as a line of a file;
- `recipe NAME=ALPHA…`: writes the first recipe.toml with these strengths;
- `lines N=TEXT…`: writes the first chat_template.jinja with these lines;
- `write PATH TEXT` and `remove PATH`;
- `editor COMMAND`: the editor of both programs from now on.

After ` ≠ ROW`, the two have to differ, as this row of the table in docs/git.md says.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.properties.beside_git.world import World

FOLDER = Path(__file__).parent / "sequences"
START = 1_763_000_000
_REFUSED = {1: {1, 2, 3}, 2: {1}, 128: {1, 2, 3, 4, 7}, 129: {2}}
"""An exit code of git → the codes that persona may have instead, which says more: see docs/commands.md."""
_LOOKING = ("describe", "diff", "log", "notes show", "reflog", "rev-parse", "show", "stash list")
"""Commands after which the states are not compared, because they change nothing."""


@dataclass(frozen=True)
class Answer:
    """What a command exited with and printed."""

    code: int
    out: str
    error: str


class Clock:
    """The time of both programs."""

    def __init__(self) -> None:
        self.now = START

    def tick(self) -> None:
        """A minute later."""
        self.now += 60


@dataclass(frozen=True)
class Sequence:
    """A sequence by its title, which begins with the name of its file."""

    title: str
    lines: tuple[str, ...]

    @property
    def rows(self) -> set[str]:
        """The rows of the table that it shows."""
        return {line.split(" ≠ ")[1] for line in self.lines if " ≠ " in line}


@dataclass(frozen=True)
class Step:
    """A line that was run: the answers of both programs, and what differs afterwards."""

    line: str
    git: Answer | None
    persona: Answer | None
    differences: tuple[str, ...]
    row: str | None

    @property
    def as_expected(self) -> bool:
        """Whether the two differ exactly where the table says so."""
        return bool(self.differences) == (self.row is not None)

    def __str__(self) -> str:
        said = [f"  git {self.git.code}: {self.git.error}{self.git.out}"] if self.git else []
        said += (
            [f"  persona {self.persona.code}: {self.persona.error}{self.persona.out}"] if self.persona else []
        )
        expected = f"expected to differ: {self.row}" if self.row else "expected to be the same"
        return "\n".join([f"{self.line}   ({expected})", *said, *self.differences])


def read(file: Path) -> list[Sequence]:
    """The sequences of a file. A title begins with `#`, and a line below it is one step."""
    found: list[Sequence] = []
    for part in re.split(r"^# ", file.read_text(), flags=re.MULTILINE)[1:]:
        title, *lines = part.splitlines()
        name = f"{file.stem}: {title.strip()}"
        found.append(Sequence(name, tuple(line.strip() for line in lines if line.strip())))
    return found


def run(sequence: Sequence, world: World) -> Iterator[Step]:
    """Runs a sequence; yields each step."""
    for text in sequence.lines:
        line, _, row = text.partition(" ≠ ")
        if not line.startswith(("git:", "persona:")):
            world.clock.tick()
        yield _step(line.strip(), row or None, world)


def _step(line: str, row: str | None, world: World) -> Step:
    words = shlex.split(line)
    if words[0] == "git:":
        return Step(line, world.git.run(words[1:]), None, (), row)
    if words[0] == "persona:":
        return Step(line, None, world.persona.run(words[1:]), (), row)
    if words[0] in world.edits:
        world.edits[words[0]](*words[1:])
        return Step(line, None, None, (), row)
    printed = words[0] == "="
    words = words[1:] if printed else words
    git, persona = world.git.run(words), world.persona.run(words)
    found: list[str] = []
    if persona.code not in _REFUSED.get(git.code, {git.code}):
        found.append(f"exit code: {git.code} in git, {persona.code} in persona")
    if printed and git.code == 0:
        here, there = world.git.in_text(git.out), world.persona.in_text(persona.out)
        if [one.rstrip() for one in here.splitlines()] != [one.rstrip() for one in there.splitlines()]:
            found.append(f"printed:\n{here}\n  in persona:\n{there}")
    if not " ".join(words).startswith(_LOOKING):
        found += world.git.state().differences(world.persona.state())
    return Step(line, git, persona, tuple(found), row)
