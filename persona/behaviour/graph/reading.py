"""The file of a pattern, read: front matter in TOML between two lines `+++`, then prose.

**problem** — one fault of a file of the graph: the file, the line, and a sentence.

All problems of a file are collected, so that one run of `graph check` names all of them.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from blake3 import blake3

from persona.behaviour.graph.pattern import (
    KINDS,
    METHODS,
    OPTIMIZERS,
    SCHEDULES,
    WARM,
    DataFiles,
    Link,
    Pattern,
    Trainable,
    TrainSettings,
)
from persona.behaviour.json_lines import text_of
from persona.errors import Call, InvalidInput
from persona.frozen import dataclass
from persona.history.recipes.text import dotted, line_of
from persona.objects import globs
from persona.objects.ids import object_id
from persona.objects.names import check_vector_name

FENCE: Final = "+++"
KNOWN: Final = ("key", "kind", "sign", "links", "data", "train", "facets")
"""The keys of the front matter that persona reads. It keeps all others in `Pattern.extra`."""
DATA_KEYS: Final = tuple(field.name for field in fields(DataFiles))
FACET_KEYS: Final = ("sign", "data", "train")
LINK_KEYS: Final = ("to", "relation", "strength")
DEFAULT_RELATION: Final = "related"

_PLAIN_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_FRONT = re.compile(r"\+\+\+[ \t]*\r?\n(.*?)^\+\+\+[ \t]*\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|[\w.+-]+',
    re.DOTALL,
)
_LINKS_HEADER = re.compile(r"[ \t]*\[\[[ \t]*links[ \t]*\]\]")

Path = tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One fault. `line` counts from 1."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Written:
    """A file of a pattern as it stands: the front matter with its lines in place, and the prose.

    `front`: the TOML text, after an empty line for the first fence, so that its lines count as the file's.
    `prose`: everything after the front matter, without the last line feed.
    """

    front: str
    document: dict[str, Any]
    prose: str


def file_name(key: str) -> str:
    """The name of the file of a pattern with this key: `KEY.md`, or a safe name with a digest of the key."""
    if _PLAIN_KEY.fullmatch(key) and key != "readme":
        return f"{key}.md"
    words = re.sub(r"[^a-z0-9]+", "-", key.casefold())[:60].strip("-")
    return f"{words or 'pattern'}-{blake3(key.encode()).hexdigest()[:12]}.md"


def fault(problems: tuple[Problem, ...]) -> InvalidInput:
    """The error for the problems of one file: the first, and the number of the others."""
    more = len(problems) - 1
    if not more:
        return InvalidInput(str(problems[0]))
    also = f" (and {more} more problem{'s' * (more > 1)} in this file)"
    return InvalidInput(f"{problems[0]}{also}", hint=(Call("graph.check"), " lists them all"))


def pattern_of(file: str, data: bytes) -> tuple[Pattern | None, tuple[Problem, ...]]:
    """The pattern of a file, or None and all its problems."""
    try:
        written = written_of(file, data)
    except InvalidInput as error:
        return None, (problem_of(error),)
    reader = _Reader(file, written)
    pattern = reader.pattern(object_id("blob", data))
    return (None if reader.problems else pattern), tuple(sorted(reader.problems, key=lambda one: one.line))


def problem_of(error: InvalidInput) -> Problem:
    """The problem in an error whose message begins with FILE:LINE."""
    found = re.fullmatch(r"(.*?):(\d+): (.*)", error.message, re.DOTALL)
    assert found is not None, error.message
    return Problem(found[1], int(found[2]), found[3])


def written_of(file: str, data: bytes) -> Written:
    """The parts of a file. Raises `InvalidInput` if it has no front matter that is TOML."""
    text = text_of(file, data)
    found = _FRONT.match(text)
    if found is None:
        if not re.match(r"\+\+\+[ \t]*\r?(\n|\Z)", text):
            raise InvalidInput(
                f"{file}:1: no front matter; the file must begin with a line {FENCE}, the key, and another"
                f" line {FENCE}"
            )
        raise InvalidInput(f"{file}:1: the front matter has no end; close it with a line {FENCE}")
    front = "\n" + found[1]
    try:
        document = tomllib.loads(front)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(where[1]) if where else front.count("\n") + 1
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise InvalidInput(f"{file}:{line}: not valid TOML: {what[:200]}") from None
    except (RecursionError, ValueError) as error:  # ValueError: a number with too many digits
        raise InvalidInput(f"{file}:1: the front matter cannot be read: {error}") from None
    return Written(front, document, text[found.end() :].removesuffix("\n").removesuffix("\r"))


def link_lines(front: str) -> list[int]:
    """The line of each link in a front matter, whether `links` is one array or many tables `[[links]]`."""
    headers = [n for n, line in enumerate(front.split("\n"), 1) if _LINKS_HEADER.match(line)]
    start = re.search(r"^[ \t]*(links|\"links\"|'links')[ \t]*=", front, re.MULTILINE)
    if headers or start is None:
        return headers
    lines: list[int] = []
    depth = 0
    for token in _TOKEN.finditer(front, start.end()):
        if depth == 1 and token[0][0] not in "]}#":
            lines.append(front.count("\n", 0, token.start()) + 1)
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth <= 0:
            break
    return lines


# -- values and what they must be ----------------------------------------------------------------------------

Check = Callable[[Any], Any]
"""Returns the value as the program takes it; raises `ValueError` with the end of a sentence."""


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is not str or value not in words:
            raise ValueError(f"{value!r:.60} is not one of {', '.join(words)}")
        return value

    return check


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {value!r:.60}")
        return value

    return check


def _number(least: float, most: float, *, above: bool = False) -> Check:
    """A number in a range; `above`: `least` itself is none."""

    def check(value: Any) -> float:
        fits = type(value) in (int, float) and math.isfinite(value) and least <= value <= most
        if not fits or (above and value == least):
            words = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"
            raise ValueError(f"must be a number {words}, not {value!r:.60}")
        return float(value)

    return check


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"must be true or false, not {value!r:.60}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or not value.strip():
        raise ValueError(f"must be text that is not empty, not {value!r:.60}")
    return value


def _globs(value: Any) -> tuple[str, ...]:
    if type(value) is not list or any(type(one) is not str or not one for one in value):
        raise ValueError('must be a list of globs, such as ["model.layers.1?.mlp.*"]')
    for one in value:
        if why := globs.fault(one):
            raise ValueError(f"the glob {one!r:.60} {why}")
    return tuple(value)


def _sign(value: Any) -> int:
    if type(value) is not int or value not in (1, -1):
        raise ValueError(f"must be 1 (the wanted behaviour) or -1 (the unwanted one), not {value!r:.60}")
    return value


TRAIN: Final[Mapping[str, Check]] = {
    "method": _one_of(*METHODS),
    "modules": _globs,
    "embeddings": _truth,
    "optimizer": _one_of(*OPTIMIZERS),
    "optimizer_rank": _whole(1, 1 << 16),
    "rank": _whole(1, 1 << 16),
    "lora_alpha": _number(0, 1e6, above=True),
    "steps": _whole(1, 10_000_000),
    "batch": _whole(1, 1 << 16),
    "accumulate": _whole(1, 1 << 16),
    "lr": _number(0, 1000, above=True),
    "warmup": _number(0, 1),
    "schedule": _one_of(*SCHEDULES),
    "weight_decay": _number(0, 10),
    "max_grad_norm": _number(0, 1e6, above=True),
    "max_length": _whole(2, 1 << 24),
    "seed": _whole(0, (1 << 32) - 1),
    "warm": _one_of(*WARM),
    "warm_steps": _whole(1, 10_000_000),
}
"""The keys of `[train]` and their checks: the fields of `TrainSettings`."""


class _Reader:
    """One reading of a front matter, which collects problems."""

    def __init__(self, file: str, written: Written) -> None:
        self.file = file
        self.written = written
        self.problems: list[Problem] = []

    def fail(self, path: Path, problem: str, line: int | None = None) -> None:
        """Notes the problem of the value at `path`."""
        where = line or line_of(self.written.front, path)
        self.problems.append(Problem(self.file, where, f"{dotted(path)}: {problem}" if path else problem))

    def pattern(self, text: str) -> Pattern:
        document = self.written.document
        key = self.key(document.get("key"))
        kind = self.value(("kind",), document.get("kind", KINDS[0]), _one_of(*KINDS)) or KINDS[0]
        sign = self.value(("sign",), document.get("sign", 1), _sign) or 1
        extra = {name: value for name, value in document.items() if name not in KNOWN}
        links = self.links(document.get("links", []))
        data = self.data(("data",), document.get("data", {}))
        train = self.train(("train",), document.get("train", {}))
        facets = self.table(("facets",), document.get("facets", {}))
        trainables = []
        if not facets or data.keys() & {"train", "prompt"}:
            trainables.append(self.trainable(key, None, sign, data, train))
        others: dict[str, Any] = {}
        for name, value in facets.items():
            path = ("facets", name)
            table = self.table(path, value)
            unread = {each: item for each, item in table.items() if each not in FACET_KEYS}
            others.update({name: unread} if unread else {})
            own_data = self.data((*path, "data"), table.get("data", {}))
            own_train = self.train((*path, "train"), table.get("train", {}))
            own_sign = self.value((*path, "sign"), table.get("sign", sign), _sign) or 1
            trainables.append(
                self.trainable(key, name, own_sign, _inherited(data, own_data), {**train, **own_train})
            )
        if others:
            extra["facets"] = others
        return Pattern(
            file=self.file,
            key=key,
            kind=kind,
            text=text,
            prose=self.written.prose,
            trainables=tuple(trainables),
            links=links,
            extra=extra,
        )

    def key(self, value: Any) -> str:
        if value is None:
            self.fail((), 'no key; write key = "NAME", as the file is named', 2)
            return ""
        if type(value) is not str or not value.strip():
            self.fail(("key",), f"must be text that is not empty, not {value!r:.60}")
            return ""
        name = self.file.rpartition("/")[2]
        if name not in (f"{value}.md", file_name(value)):
            self.fail(("key",), f"{value!r:.80} is not the file's name; name the file {file_name(value)}")
        return value

    def links(self, value: Any) -> tuple[Link, ...]:
        if type(value) is not list:
            self.fail(("links",), f'must be a list such as [{{ to = "KEY" }}], not {value!r:.60}')
            return ()
        lines = link_lines(self.written.front)
        found = []
        for number, link in enumerate(value):
            line = lines[number] if number < len(lines) else line_of(self.written.front, ("links",))
            where = f"link {number + 1}: "
            if type(link) is not dict:
                self.fail((), f'{where}must be a table such as {{ to = "KEY" }}, not {link!r:.60}', line)
                continue
            for name in link.keys() - set(LINK_KEYS):
                self.fail((), f"{where}{name}: unknown key; the keys are {', '.join(LINK_KEYS)}", line)
            taken: dict[str, Any] = {"relation": DEFAULT_RELATION, "strength": 1.0}
            checks: dict[str, Check] = {"to": _text, "relation": _text, "strength": _number(0, 1)}
            for name, check in checks.items():
                if name not in link and name != "to":
                    continue
                try:
                    taken[name] = check(link.get(name))
                except ValueError as error:
                    missing = "the key of the other pattern is missing"
                    self.fail((), f"{where}{name}: {error if name in link else missing}", line)
            if "to" in taken:
                found.append(Link(taken["to"], taken["relation"], taken["strength"], line))
        return tuple(found)

    def data(self, path: Path, value: Any) -> dict[str, str]:
        """The paths of a table of data, checked alone and together."""
        table = self.table(path, value)
        found = {}
        for name, item in table.items():
            if name not in DATA_KEYS:
                self.fail((*path, name), f"unknown key; the keys are {', '.join(DATA_KEYS)}")
            elif (file := self.value((*path, name), item, _text)) is not None:
                found[name] = file
        if "train" in found and "prompt" in found:
            self.fail((*path, "prompt"), "train and prompt are two ways to train; give one of them")
        return found

    def train(self, path: Path, value: Any) -> dict[str, Any]:
        """The settings of a table that are written, in the program's types."""
        found = {}
        for name, item in self.table(path, value).items():
            if name not in TRAIN:
                self.fail((*path, name), f"unknown key; the keys are {', '.join(TRAIN)}")
            elif (setting := self.value((*path, name), item, TRAIN[name])) is not None:
                found[name] = setting
        return found

    def trainable(
        self, key: str, facet: str | None, sign: int, data: dict[str, str], train: dict[str, Any]
    ) -> Trainable:
        name = key if facet is None else f"{key}#{facet}"
        path: Path = ("data",) if facet is None else ("facets", facet, "data")
        if "opposite" in data and "train" not in data:
            self.fail((*path, "opposite"), "answers the prompts of train the other way; give train as well")
        if "turns" in data and "prompt" not in data:
            self.fail((*path, "turns"), "are the turns that a prompt is baked over; give prompt as well")
        if "prompt" in data and "turns" not in data:
            self.fail((*path, "prompt"), "is baked over the turns of a user; give turns, a file of them")
        if key and (facet is not None or data):
            try:
                check_vector_name(name)
                if "#" in (key if facet is None else facet + key):
                    raise InvalidInput(f"{name!r:.80} cannot name a vector: # stands only before a facet")
            except InvalidInput as error:
                self.fail(("key",) if facet is None else ("facets", facet), error.message)
        return Trainable(
            name=name,
            key=key,
            facet=facet,
            sign=sign,
            data=DataFiles(**data),
            settings=TrainSettings(**train),
        )

    def value(self, path: Path, value: Any, check: Check) -> Any:
        """The value, checked; None and a problem if it is none."""
        try:
            return check(value)
        except ValueError as error:
            self.fail(path, str(error))
            return None

    def table(self, path: Path, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            self.fail(path, f"must be a table, not {value!r:.60}")
            return {}
        return value


def _inherited(data: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """The data of a facet: its own, and the pattern's where they belong to the same way of training."""
    dropped = {"train": ("prompt", "turns", "opposite"), "prompt": ("train", "opposite")}
    gone = {name for key, names in dropped.items() if key in own for name in names}
    return {**{name: file for name, file in data.items() if name not in gone}, **own}
