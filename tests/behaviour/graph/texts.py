"""Files of a graph, as a person writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from persona.behaviour.graph.pattern import Pattern
from persona.behaviour.graph.reading import fault, pattern_of


def pattern(key: str, front: str = "", prose: str = "What it means.") -> str:
    """The file of a pattern with more front matter."""
    return f'+++\nkey = "{key}"\n{front}+++\n{prose}\n'


def read_pattern(file: str, data: bytes) -> Pattern:
    """The pattern of a file without problems."""
    pattern, problems = pattern_of(file, data)
    if pattern is None:
        raise fault(problems)
    return pattern


def dialogue(asked: str, said: str = "Tell me more about it.") -> dict[str, object]:
    """A line of training data."""
    return {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}],
    }


def turn(asked: str) -> dict[str, object]:
    """A line that waits for an answer."""
    return {"messages": [{"role": "user", "content": asked}]}


def probe(asked: str, split: str = "seen", **fields: object) -> dict[str, object]:
    """A line of probes."""
    answers = {"chosen": "How was that for you?", "rejected": "You should do this now."}
    return {**turn(asked), **answers, "split": split, **fields}


def lines(values: Sequence[object]) -> str:
    """JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values)


def write(root: Path, files: dict[str, str]) -> None:
    """Writes files below graph/."""
    for name, text in files.items():
        place = root / "graph" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
