"""**expression** — a sum of vectors with coefficients, written as text: `calm - rushed`, `0.5 * (a + b)`.

The operators are + − * / and parentheses. A vector stands for its τ. The arithmetic is exact: numbers are
fractions until the end.

**reading** — a way to divide a text into names, numbers and operators.

A name may hold any of these characters. So a name in a text is a name that is known, or one in quotes, and a
text is refused if two of its readings are valid and mean different vectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from persona.errors import Call, Hint, InvalidInput, PersonaError, UnknownName, quoted
from persona.objects import canonical

MAX_CHARS: Final = 1 << 13
_MAX_READINGS: Final = 256
_SHOWN: Final = 72
"""Characters of a text that a message shows around the place of a fault."""
_OPERATORS: Final = "+-*/()"
_PREFIXES: Final = {"-": "negative", "+": "positive", "(": "("}
_QUOTED: Final = {mark: re.compile(f"{mark}((?:[^{mark}]|{mark}{mark})+){mark}(?!{mark})") for mark in "'\""}
_NUMBER: Final = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ID: Final = re.compile("[0-9a-fA-F]{4,64}", re.ASCII)
_WORD: Final = re.compile(r"[^\s+*/()]+")
_PLAIN: Final = re.compile(r"[^\W\d][\w.]*")
_BINDING: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3, "positive": 3}

Sum = Mapping[str, Fraction]
"""Coefficients of vectors, by id."""
Find = Callable[[str], Sum | None]
"""The sum that the name or the start of an id of a vector stands for; None if it stands for nothing."""


class _Token(NamedTuple):
    """An operator, a number, or the name of a vector, and where it begins in the text."""

    kind: str
    at: int
    text: str
    number: Fraction | None = None


class _State(NamedTuple):
    """A place in a text, and whether a value is expected there."""

    at: int
    operand: bool


class _Value(NamedTuple):
    """A value in the middle of a calculation: a number, or a sum of vectors."""

    at: int
    number: Fraction | None
    sum: Sum


class Fault(Exception):
    """The reason why a text, or one reading of it, is no expression, and the place in the text."""

    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why = why
        self.at = at


def evaluate(text: str, names: Sequence[str], find: Find) -> Sum:
    """The sum of vectors that a text means, without coefficients of 0.

    `names`: those of all vectors that have one. Raises `InvalidInput` with the place of the fault, and
    `UnknownName` for a vector that does not exist.
    """
    text = re.sub(r"\s", " ", text.replace("−", "-"))
    if not text.strip():
        raise InvalidInput("the expression is empty; write one such as 'calm - rushed'")
    if len(text) > MAX_CHARS:
        raise InvalidInput(f"the expression has {len(text)} characters; at most {MAX_CHARS} are possible")
    found: dict[tuple[tuple[str, Fraction], ...], Sequence[_Token]] = {}
    fault: Fault | None = None
    for count, tokens in enumerate(_readings(text, names, find)):
        if count == _MAX_READINGS:
            why = "the names in the expression can be read in too many ways; put them in quotes"
            raise InvalidInput(why)
        try:
            sum_ = _sum(tokens, find)
        except Fault as error:
            fault = fault or error
            continue
        found[tuple(sorted(sum_.items()))] = tokens
        if len(found) > 1:
            one, other = (_spelled(reading) for reading in found.values())
            raise InvalidInput(
                f"{quoted(text.strip())} can be read as {one} and as {other}; put the names in quotes"
            )
    if not found:
        assert fault is not None
        raise InvalidInput(_shown(fault.why, text, fault.at))
    return dict(next(iter(found)))


def in_quotes(name: str) -> str:
    """A name in quotes, as an expression may hold it. A quote in it is doubled."""
    mark = '"' if "'" in name else "'"
    return mark + name.replace(mark, 2 * mark) + mark


def written(parts: Sequence[Mapping[str, str]]) -> str:
    """A sum as an expression: each part has a "name" and a "coefficient". The positive ones come first."""
    text = ""
    for part in sorted(parts, key=lambda part: part["coefficient"].startswith("-")):
        name, size = part["name"], part["coefficient"].removeprefix("-")
        negative = size != part["coefficient"]
        sign = ("- " if negative else "+ ") if text else "-" * negative
        text += (" " if text else "") + sign + ("" if size == "1" else f"{size} * ")
        text += name if _PLAIN.fullmatch(name) else in_quotes(name)
    return text


# -- readings


def _readings(text: str, names: Sequence[str], find: Find) -> Iterator[Sequence[_Token]]:
    """The ways to divide a text into tokens, those with longer names first.

    Raises `InvalidInput` or `UnknownName` if there is none.
    """
    ordered = sorted(set(names), key=len, reverse=True)
    steps: dict[_State, list[tuple[_Token, _State]]] = {}
    found = [_State(_next(text, 0), operand=True)]
    for state in found:
        if state not in steps:
            ways = _operands(text, state.at, ordered, find) if state.operand else _operators(text, state.at)
            steps[state] = [(token, _State(_next(text, end), operand)) for token, end, operand in ways]
            found += [after for _, after in steps[state]]
    alive = {_State(len(text), operand=False)} & steps.keys()
    for state in sorted(steps, reverse=True):  # every step leads to a later place
        if any(after in alive for _, after in steps[state]):
            alive.add(state)
    if found[0] not in alive:
        raise _unreadable(text, *max(steps), ordered)

    tokens: list[_Token] = []
    path = [iter(steps[found[0]])]
    while path:
        step = next(path[-1], None)
        if step is None:
            path.pop()
            tokens = tokens[:-1]
        elif step[1] in alive:
            tokens.append(step[0])
            path.append(iter(steps[step[1]]))
            if step[1].at == len(text) and not step[1].operand:
                yield tuple(tokens)


def _operands(text: str, at: int, names: Sequence[str], find: Find) -> Iterator[tuple[_Token, int, bool]]:
    """The tokens that may begin a value: each with its end, and whether a value is expected then."""
    mark = text[at : at + 1]
    if mark in _QUOTED:
        match = _QUOTED[mark].match(text, at)
        if match and find(name := match[1].replace(2 * mark, mark)) is not None:
            yield _Token("name", at, name), match.end(), False
            return
    if mark in _PREFIXES:
        yield _Token(_PREFIXES[mark], at, mark), at + 1, True
    for name in names:
        if text.startswith(name, at) and _ends(text, at + len(name)):
            yield _Token("name", at, name), at + len(name), False
    number, id = _NUMBER.match(text, at), _ID.match(text, at)
    if number and _ends(text, number.end()):
        yield _Token("number", at, number[0], _number(number[0], at, text)), number.end(), False
    if id and _ends(text, id.end()) and id[0] not in names and find(id[0]) is not None:
        yield _Token("name", at, id[0]), id.end(), False


def _operators(text: str, at: int) -> Iterator[tuple[_Token, int, bool]]:
    """The token that may follow a value, in the same form."""
    mark = text[at : at + 1]
    if mark and mark in "+-*/)":
        yield _Token(mark, at, mark), at + 1, mark != ")"


def _next(text: str, at: int) -> int:
    """The place of the next character that is no space."""
    return next((place for place in range(at, len(text)) if text[place] != " "), len(text))


def _ends(text: str, at: int) -> bool:
    """Whether a name or a number may end at a place."""
    return at == len(text) or text[at] == " " or text[at] in _OPERATORS


def _number(digits: str, at: int, text: str) -> Fraction:
    try:
        return Fraction(canonical.decimal(digits))
    except InvalidInput as error:
        raise InvalidInput(_shown(error.message, text, at)) from None


def _unreadable(text: str, at: int, operand: bool, names: Sequence[str]) -> PersonaError:
    """The error for a text that no reading continues beyond a place."""
    word = _WORD.match(text, at)
    if not operand:
        why = "an operator, + - * or /, is missing here"
    elif word is None:
        why = "a vector or a number is missing here"
    elif word[0][0] in _QUOTED and text.find(word[0][0], at + 1) < 0:
        why = "this quote is not closed"
    elif word[0].startswith(("''", '""')):
        why = "a name is missing between these quotes"
    else:
        held = _QUOTED[word[0][0]].match(text, at) if word[0][0] in _QUOTED else None
        return _unknown(held[1] if held else word[0], text, at, names)
    return InvalidInput(_shown(why, text, at))


def _unknown(name: str, text: str, at: int, names: Sequence[str]) -> UnknownName:
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1)
    hint: Hint = f"did you mean {near[0]}?" if near else (Call("vectors.values"), " lists the vectors")
    return UnknownName(_shown(f"no vector has the name {name!r:.60}", text, at), hint=hint)


def _spelled(tokens: Sequence[_Token]) -> str:
    """A reading as text, its names in quotes."""
    text, tight = "", True
    for token in tokens:
        word = in_quotes(token.text) if token.kind == "name" else token.text
        text += ("" if tight or token.kind == ")" else " ") + word
        tight = token.kind in _PREFIXES.values()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _shown(why: str, text: str, at: int) -> str:
    """A sentence, and the text with a mark below the place of the fault."""
    start = max(0, at - _SHOWN // 2) if len(text) > _SHOWN else 0
    part = text[start : start + _SHOWN].rstrip()
    before, after = "…" if start else "", "…" if start + _SHOWN < len(text) else ""
    return f"{why}\n  {before}{part}{after}\n  {' ' * (at - start + len(before))}^"


# -- arithmetic


def _sum(tokens: Sequence[_Token], find: Find) -> Sum:
    """The value of a reading. Raises `Fault`."""
    values: list[_Value] = []
    waiting: list[_Token] = []

    def apply(token: _Token) -> None:
        right = values.pop()
        if token.kind in ("negative", "positive"):
            values.append(_times(right, Fraction(1 if token.kind == "positive" else -1), token.at))
        else:
            values.append(_combined(token, values.pop(), right))

    for token in tokens:
        if token.kind == "number":
            values.append(_Value(token.at, token.number, {}))
        elif token.kind == "name":
            found = find(token.text)
            assert found is not None, token
            values.append(_Value(token.at, None, found))
        elif token.kind in _PREFIXES.values():
            waiting.append(token)
        elif token.kind == ")":
            while waiting and waiting[-1].kind != "(":
                apply(waiting.pop())
            if not waiting:
                raise Fault("no ( belongs to this )", token.at)
            waiting.pop()
        else:
            while waiting and waiting[-1].kind != "(" and _BINDING[waiting[-1].kind] >= _BINDING[token.kind]:
                apply(waiting.pop())
            waiting.append(token)
    while waiting:
        if waiting[-1].kind == "(":
            raise Fault("no ) belongs to this (", waiting[-1].at)
        apply(waiting.pop())
    (value,) = values
    if value.number is not None:
        raise Fault("this is a number, not a vector", value.at)
    left = {id: coefficient for id, coefficient in value.sum.items() if coefficient}
    if not left:
        raise Fault("nothing is left of this: all coefficients are 0", value.at)
    return left


def _combined(operator: _Token, left: _Value, right: _Value) -> _Value:
    """left + right, left − right, left · right or left ÷ right."""
    if operator.kind == "*":
        if left.number is None and right.number is None:
            raise Fault("a vector cannot be multiplied by a vector", operator.at)
        if right.number is None:
            assert left.number is not None
            return _times(right, left.number, left.at)
        return _times(left, right.number, left.at)
    if operator.kind == "/":
        if right.number is None:
            raise Fault("nothing can be divided by a vector", operator.at)
        if not right.number:
            raise Fault("this divides by 0", operator.at)
        return _times(left, 1 / right.number, left.at)
    if (left.number is None) != (right.number is None):
        alone = right if left.number is None else left
        raise Fault("a number cannot be added to a vector; a number can only multiply or divide", alone.at)
    sign = 1 if operator.kind == "+" else -1
    if left.number is not None and right.number is not None:
        return _Value(left.at, left.number + sign * right.number, {})
    both = dict(left.sum)
    for id, coefficient in right.sum.items():
        both[id] = both.get(id, Fraction(0)) + sign * coefficient
    return _Value(left.at, None, both)


def _times(value: _Value, factor: Fraction, at: int) -> _Value:
    if value.number is not None:
        return _Value(at, value.number * factor, {})
    return _Value(at, None, {id: coefficient * factor for id, coefficient in value.sum.items()})
