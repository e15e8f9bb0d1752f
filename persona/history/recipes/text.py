"""**recipe text** — `recipe.toml`, as a user writes it, and the recipe that it means.

Reading is strict: an unknown key, a value out of range, or an unknown base or vector is `InvalidInput`, and
its message begins with the file and the line. A base is written by its name or the start of its id, a vector
by the start of its id. Numbers keep their digits: they never pass through binary floats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from persona.errors import InvalidInput, PersonaError
from persona.limits import MAX_LAYER_VALUES, MAX_RECIPE_BYTES
from persona.objects.names import check_vector_name
from persona.objects.recipe import JOINS, Recipe, Term, check_alpha, check_own_density
from persona.objects.rules import AXES, CHOICES, PRESETS, Rules, check_axis

RECIPE_FILE: Final = "recipe.toml"
TERM_KEYS: Final = ("id", "alpha", "density", "only", "except", "join")
MIN_PREFIX: Final = 4
"""Hex digits of the shortest start of an id."""

Path = tuple[str, ...]
Resolve = Callable[[str], str]
Checked = TypeVar("Checked")


class _Number(str):
    """A float of the text, as it was written."""

    __slots__ = ()


def first_text(base: str, rules: Rules) -> str:
    """The recipe text of a repository's first commit: only the base, and the merge rules."""
    axes = {"density": rules.density, **rules.changed_axes()}
    lines = [f"{axis} = {toml_axis(axis, value)}" for axis, value in axes.items() if value is not None]
    return "\n".join([f"base = {toml_string(base)}", "", "[merge]", f'preset = "{rules.preset}"', *lines, ""])


def toml_axis(axis: str, value: str) -> str:
    """The value of an axis as TOML: a word, a truth value, a whole number, or a float."""
    if axis == "seed" or value in ("true", "false"):
        return value
    return toml_string(value) if axis in CHOICES else toml_number(value)


def plain_axis(axis: str, value: Any) -> Any:
    """A value of TOML as the text that a recipe holds, if it has the type of the axis."""
    if axis == "rescale" and type(value) is bool:
        return str(value).lower()
    return value


def toml_string(text: str) -> str:
    """`text` as a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda char: f"\\u{ord(char[0]):04x}", escaped) + '"'


def toml_number(decimal: str) -> str:
    """A canonical decimal as a float of TOML."""
    return decimal if "." in decimal else decimal + ".0"


def parse(data: bytes, *, base: Resolve, vector: Resolve, where: str | None = RECIPE_FILE) -> Recipe:
    """The recipe of a text. `base` and `vector` turn names and starts of ids into whole ids.

    Raises `InvalidInput`, see `failure`, and the errors of `base` and `vector`.
    """
    return _Reader(decode(data, where or RECIPE_FILE), where, base, vector).recipe()


def failure(text: str, where: str | None, path: Path, problem: str) -> InvalidInput:
    """The error of the value at `path` in a text; it begins with `where` and the line.

    If `where` is None, the text is the result of an edit that nobody has seen. Then the error begins with the
    parameter.
    """
    if where is not None:
        return InvalidInput(f"{where}:{line_of(text, path)}: {dotted(path)}: {problem}")
    if path[-1] in (*TERM_KEYS[1:], *AXES, "preset"):
        return InvalidInput(problem, parameter="except_" if path[-1] == "except" else path[-1])
    return InvalidInput(f"{dotted(path)}: {problem}")


def decode(data: bytes, where: str = RECIPE_FILE) -> str:
    """The text of a recipe file without a byte order mark.

    Raises `InvalidInput` if it is too long or not UTF-8.
    """
    if len(data) > MAX_RECIPE_BYTES:
        raise InvalidInput(f"{where} has {len(data)} bytes; a recipe must have at most {MAX_RECIPE_BYTES}")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{where}:{line}: not UTF-8 text") from None


def encode(text: str, *, like: bytes) -> bytes:
    """The bytes of an edited text, with a byte order mark if the file had one."""
    mark = b"\xef\xbb\xbf" if like.startswith(b"\xef\xbb\xbf") else b""
    return mark + text.encode()


def with_line_ends(edited: str, text: str) -> str:
    """An edited text with the line ends of the original `text`.

    Lines before and after the edit keep theirs; lines of the edit end as most lines do. `edited` ends its
    lines in line feeds.
    """
    ends = [line.endswith("\r") for line in text.split("\n")[:-1]]
    if not any(ends):
        return edited
    old = text.replace("\r\n", "\n").split("\n")[:-1]
    *new, last = edited.split("\n")
    head = _alike(old, new)
    tail = _alike(old[head:][::-1], new[head:][::-1])
    usual = [2 * sum(ends) >= len(ends)] * (len(new) - head - tail)
    ends = [*ends[:head], *usual, *ends[len(ends) - tail :]]
    return "".join(line + ("\r\n" if end else "\n") for line, end in zip(new, ends, strict=True)) + last


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items are the same from the beginning."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def load(text: str, where: str = RECIPE_FILE) -> dict[str, Any]:
    """The TOML document of a text; raises `InvalidInput` with the line if it is not TOML."""
    import tomllib

    try:
        return tomllib.loads(text, parse_float=_Number)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        problem = re.sub(r" \(at .*\)$", "", str(error))
        raise InvalidInput(f"{where}:{line}: not valid TOML: {problem[:200]}") from None
    except RecursionError:
        raise InvalidInput(f"{where}: nested too deeply") from None


def written_ids(text: str) -> dict[str, str]:
    """Term name → the id as it is written, for a text that parses."""
    return {name: str(table.get("id", "")) for name, table in load(text).get("vectors", {}).items()}


class _Reader:
    """One reading of a recipe text."""

    def __init__(self, text: str, where: str | None, base: Resolve, vector: Resolve) -> None:
        self.text = text
        self.where = where
        self.base = base
        self.vector = vector

    def fail(self, path: Path, problem: str) -> InvalidInput:
        """The error of the value at `path`."""
        return failure(self.text, self.where, path, problem)

    def recipe(self) -> Recipe:
        document = load(self.text, self.where or RECIPE_FILE)
        for key in document:
            if key not in ("base", "merge", "vectors"):
                raise self.fail((key,), "unknown key; the keys are base, merge and vectors")
        base = document.get("base")
        if type(base) is not str or not base:
            problem = (
                "the name of the base is missing"
                if base is None
                else "must be the name of a base, or the start of the base's id"
            )
            raise self.fail(("base",), problem)
        base_id = self._resolve(("base",), self.base, base)
        rules = self._rules(self._table(("merge",), document.get("merge", {})))
        vectors = self._table(("vectors",), document.get("vectors", {}))
        terms = [self._term(name, item, rules) for name, item in vectors.items()]
        try:
            return Recipe.of(base_id, terms, rules)
        except InvalidInput as error:
            where = f"{self.where}: " if self.where else ""
            raise InvalidInput(where + error.message) from None

    def _rules(self, table: dict[str, Any]) -> Rules:
        preset = table.get("preset", "ties")
        if type(preset) is not str or preset not in PRESETS:
            raise self.fail(("merge", "preset"), f"{preset!r:.60} is not one of {', '.join(PRESETS)}")
        axes: dict[str, str] = {}
        for axis, value in table.items():
            path = ("merge", axis)
            if axis == "preset":
                continue
            if axis not in AXES:
                raise self.fail(path, f"unknown key; the keys are preset, {', '.join(AXES)}")
            if axis in CHOICES:
                word = plain_axis(axis, value)
                if type(word) is not str:
                    raise self.fail(path, f"{value!r:.60} is not one of {', '.join(CHOICES[axis])}")
                axes[axis] = word
            else:
                axes[axis] = self._number(path, value)
            self._checked(path, partial(_check_alone, preset, axis, axes[axis]))
        try:
            return Rules.of(preset, **axes)
        except InvalidInput as error:
            axis, _, problem = error.message.partition(": ")
            raise self.fail(("merge", axis), problem) from None

    def _term(self, name: str, item: Any, rules: Rules) -> Term:
        path = ("vectors", name)
        table = self._table(path, item)
        self._checked(path, lambda: check_vector_name(name))
        for key in table:
            if key not in TERM_KEYS:
                raise self.fail((*path, key), f"unknown key; the keys are {', '.join(TERM_KEYS)}")
        written = table.get("id")
        if type(written) is not str or not written:
            problem = "the id of the vector is missing" if written is None else "not text"
            raise self.fail((*path, "id"), problem)
        density = None
        if "density" in table:
            written_density = self._over_layers((*path, "density"), table["density"])
            density = self._checked((*path, "density"), lambda: check_own_density(written_density, ""))
            if rules.trim in ("joint", "none"):
                shared = rules.trim == "joint"
                why = "the cut-off is shared; set [merge] density" if shared else "nothing is trimmed"
                raise self.fail((*path, "density"), f"under trim = {rules.trim} {why}")
        written_alpha = self._over_layers((*path, "alpha"), table.get("alpha", 1))
        alpha = self._checked((*path, "alpha"), lambda: check_alpha(written_alpha, ""))
        join = table.get("join", "vote")
        if join not in JOINS:
            raise self.fail((*path, "join"), f"{join!r:.60} is not one of {', '.join(JOINS)}")
        return Term(
            name=name,
            vector=self._resolve((*path, "id"), self.vector, written),
            alpha=alpha,
            density=density,
            only=self._globs((*path, "only"), table.get("only", [])),
            except_=self._globs((*path, "except"), table.get("except", [])),
            join=join,
        )

    def _over_layers(self, path: Path, value: Any) -> str | list[str]:
        """A number, or a list of numbers over the layers."""
        if type(value) is list and len(value) <= MAX_LAYER_VALUES:
            return [self._number(path, item) for item in value]
        return value if type(value) is list else self._number(path, value)

    def _number(self, path: Path, value: Any) -> str:
        if type(value) is not int and type(value) is not _Number:
            raise self.fail(path, f"not a number: {value!r:.60}")
        text = str(value).replace("_", "")
        if len(text) > 400:
            raise self.fail(path, "the number has too many digits")
        return text

    def _globs(self, path: Path, value: Any) -> tuple[str, ...]:
        if type(value) is not list or any(type(item) is not str or not item for item in value):
            raise self.fail(path, 'must be a list of globs, such as ["model.layers.1?.mlp.*"]')
        return tuple(value)

    def _table(self, path: Path, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise self.fail(path, f"not a table: {value!r:.60}")
        return value

    def _resolve(self, path: Path, resolve: Resolve, text: str) -> str:
        return self._checked(path, lambda: resolve(text))

    def _checked(self, path: Path, check: Callable[[], Checked]) -> Checked:
        try:
            return check()
        except PersonaError as error:
            if error.exit_code not in (3, 4):
                raise
            problem = error.message.removeprefix(": ").removeprefix(f"{path[-1]}: ")
            raise self.fail(path, problem) from None


def _check_alone(preset: str, axis: str, value: str) -> None:
    """Checks an axis without the others; the combination is checked at the end."""
    if axis != "lambda" and PRESETS[preset][axis] is None:
        raise InvalidInput(f"the preset {preset} does not use it")
    check_axis(axis, value)


def dotted(path: Path) -> str:
    """A key as TOML writes it: `vectors."a b".alpha`."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_string(key) for key in path)


_HEADER = re.compile(r"\s*\[\[?(.*?)\]?\]\s*(#.*)?$")
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")


def line_of(text: str, path: Path) -> int:
    """The line, from 1, of the deepest part of `path` that the text writes down; 1 when it writes none."""
    best, line_found = 0, 1
    table: Path = ()
    quotes = ""
    for number, line in enumerate(text.split("\n"), 1):
        if quotes:
            quotes = "" if line.count(quotes) % 2 else quotes
            continue
        here: Path | None = None
        if header := _HEADER.match(line):
            table = _keys(header[1])
            here = table
        elif key := _KEY.match(line):
            here = table + _keys(key[1])
            inline = set(re.findall(r"[A-Za-z0-9_-]+(?=\s*=)", line[key.end() :]))
            rest = path[len(here) :]
            if here == path[: len(here)] and rest and rest[0] in inline:
                here = path[: len(here) + 1]
        for mark in ('"""', "'''"):
            if line.count(mark) % 2:
                quotes = mark
        if here is not None:
            common = len(here) if here == path[: len(here)] else 0
            if common > best:
                best, line_found = common, number
    return line_found


def is_header(line: str) -> bool:
    """Whether a line begins a table."""
    return _HEADER.match(line) is not None


def header_line(text: str, path: Path) -> int | None:
    """The line, from 0, of the header `[path]`; None if the table is written in another way."""
    for number, line in enumerate(text.split("\n")):
        header = _HEADER.match(line)
        if header and _keys(header[1]) == path:
            return number
    return None


def _keys(text: str) -> Path:
    try:
        value: Any = load(text.strip() + " = 0")
    except InvalidInput:
        return ("",)
    keys: list[str] = []
    while isinstance(value, dict):
        key, value = next(iter(value.items()))
        keys.append(key)
    return tuple(keys)
