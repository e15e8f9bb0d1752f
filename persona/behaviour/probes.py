"""**probe** — one question that tells whether a behaviour is there.

A line of a probes file is `{"id", "messages", "chosen", "rejected", "split", "group"}`: `messages` end with
the user. A probe has a pair of answers (`chosen` shows the behaviour, `rejected` does not), or a `check` on
the answer that the model gives, or both. `split` names the surface form ("seen", or another that the training
data does not use); `group` names items that belong together, which intervals treat as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from blake3 import blake3

from persona.behaviour.dialogues import Message, Prompt, messages_of, prompt_of
from persona.behaviour.json_lines import Line, lines_of
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.score_results import SEEN as SEEN
from persona.history.score_results import in_order
from persona.objects import canonical

MAX_WORDS: Final = 1_000_000
_CHECKS: Final = ("match", "not_match", "max_words", "min_words", "ends_with_question")


@dataclass(frozen=True)
class Check:
    """A condition on an answer; all parts that are given must hold."""

    match: str | None = None
    not_match: str | None = None
    max_words: int | None = None
    min_words: int | None = None
    ends_with_question: bool | None = None

    def holds(self, answer: str) -> bool:
        """Whether an answer meets the condition. Patterns are searched for, whatever the case."""
        words = len(answer.split())
        flags = re.IGNORECASE | re.DOTALL
        return (
            (self.match is None or re.search(self.match, answer, flags) is not None)
            and (self.not_match is None or re.search(self.not_match, answer, flags) is None)
            and (self.max_words is None or words <= self.max_words)
            and (self.min_words is None or words >= self.min_words)
            and (
                self.ends_with_question is None
                or answer.rstrip(" \n\t\"'”’)*").endswith("?") == self.ends_with_question
            )
        )


@dataclass(frozen=True)
class Probe:
    """One item. `chosen` and `rejected` are both there or both None."""

    place: str
    id: str
    messages: tuple[Message, ...]
    chosen: str | None
    rejected: str | None
    check: Check | None
    split: str
    group: str

    @property
    def prompt(self) -> Prompt:
        """As `Dialogue.prompt`."""
        return prompt_of(self.messages)

    def digested(self) -> dict[str, Any]:
        """Everything that decides a measurement of this item."""
        return {
            "check": None
            if self.check is None
            else {key: value for key in _CHECKS if (value := getattr(self.check, key)) is not None},
            "chosen": self.chosen,
            "group": self.group,
            "id": self.id,
            "messages": [message.as_dict() for message in self.messages],
            "rejected": self.rejected,
            "split": self.split,
        }


@dataclass(frozen=True)
class ProbeSet:
    """The probes of one pattern. `digest`: of all that decides a measurement, 64 hex digits."""

    key: str
    items: tuple[Probe, ...]

    @property
    def digest(self) -> str:
        """Which probes these are."""
        return blake3(canonical.encode([item.digested() for item in self.items])).hexdigest()

    @property
    def splits(self) -> tuple[str, ...]:
        """The surface forms, that of the training data first."""
        return tuple(in_order({item.split for item in self.items}))


def read_probes(key: str, file: str, data: bytes) -> ProbeSet:
    """The probes of a file; raises `InvalidInput` with file and line for a faulty item."""
    items: list[Probe] = []
    by_id: dict[str, str] = {}
    groups: dict[tuple[str, ...], str] = {}
    for line in lines_of(file, data):
        item = _probe(line, len(items) + 1, groups)
        if item.id in by_id:
            line.fail(f"the id {item.id!r:.60} stands in {by_id[item.id]} already")
        by_id[item.id] = line.place
        items.append(item)
    if not items:
        raise InvalidInput(f"{file}: it has no probe; a line is an object with messages, chosen and rejected")
    return ProbeSet(key, tuple(items))


def _probe(line: Line, number: int, groups: dict[tuple[str, ...], str]) -> Probe:
    """The probe in a line. `groups`: the group of each prompt that stood in a line before."""
    messages = messages_of(line)
    if messages[-1].role != "user":
        line.fail("the last message must be the user's, which is what is answered")
    chosen = line.text("chosen") if "chosen" in line.value else None
    rejected = line.text("rejected") if "rejected" in line.value else None
    check = _check(line) if line.value.get("check") is not None else None
    if (chosen is None) != (rejected is None):
        line.fail("chosen and rejected belong together; give both")
    if chosen is None and check is None:
        line.fail("a probe needs chosen and rejected, or a check")
    if chosen is not None and chosen == rejected:
        line.fail("chosen and rejected are the same answer, so they tell nothing")
    id = line.text("id", str(number))
    split = line.text("split", SEEN)
    alike = tuple(part for each in messages for part in (each.role, each.content))
    group = line.text("group", groups.get(alike, id))
    groups.setdefault(alike, group)
    return Probe(line.place, id, messages, chosen, rejected, check, split, group)


def _check(line: Line) -> Check:
    value = line.value["check"]
    if not isinstance(value, dict) or not value:
        line.fail(f"check must be an object with one or more of {', '.join(_CHECKS)}")
    if unknown := sorted(value.keys() - set(_CHECKS)):
        line.fail(f"check: {unknown[0]!r:.40} is not one of {', '.join(_CHECKS)}")
    for key in ("match", "not_match"):
        pattern = value.get(key)
        if pattern is None:
            continue
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError) as error:
            line.fail(f"check: {key} is no regular expression: {error}")
    for key in ("max_words", "min_words"):
        if key in value and (type(value[key]) is not int or not 0 <= value[key] <= MAX_WORDS):
            line.fail(f"check: {key} must be a whole number, at most {MAX_WORDS}")
    if type(value.get("ends_with_question", True)) is not bool:
        line.fail("check: ends_with_question must be true or false")
    return Check(**value)


def overlap(items: Iterable[Probe], trained: Mapping[Prompt, str]) -> list[tuple[Probe, str]]:
    """The probes whose prompt is a training prompt, each with the place of that one."""
    return [(item, trained[item.prompt]) for item in items if item.prompt in trained]


def refuse_overlap(items: Iterable[Probe], trained: Mapping[Prompt, str]) -> None:
    """Raises `InvalidInput` if a prompt of probes is trained on."""
    lines = [
        f"{probe.place} (id {probe.id}): this prompt is trained on, in {place}"
        for probe, place in overlap(items, trained)
    ]
    if lines:
        more = f"\n(and {len(lines) - 3} more)" if len(lines) > 3 else ""
        raise InvalidInput(
            "\n".join(lines[:3]) + more,
            hint="a probe must ask something that the training data do not; change the probe or the data",
        )
