"""**node** — a pattern as another program exports it: one JSON object on a line, with `key`, `content`,
`weight`, `category` and `links`.

`content` becomes the prose of the pattern's file, `category` its kind, `links` its links, as far as persona
understands them. The table `[import]` of the file keeps everything else, and the fields of the node in order.
So an export gives a node back as it came, with the edits that somebody made in the file since.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time
from typing import Any, Final

from persona.behaviour.graph.pattern import KINDS, Link, Pattern
from persona.behaviour.graph.reading import DEFAULT_RELATION, FENCE, KNOWN
from persona.behaviour.json_lines import lines_of
from persona.errors import InvalidInput, quoted
from persona.frozen import dataclass
from persona.history.recipes.text import toml_string

IMPORT: Final = "import"
MOST_NESTED: Final = 16
"""Levels of a value that TOML holds; a deeper one is kept as JSON."""
_INT: Final = 1 << 63

Value = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """One line: its place (FILE:LINE), its key, and the whole object."""

    place: str
    key: str
    value: Value


def read_nodes(file: str, data: bytes) -> tuple[Node, ...]:
    """The nodes of a file. Raises `InvalidInput` with file and line for one without a key of its own."""
    found: dict[str, Node] = {}
    for line in lines_of(file, data):
        key = line.text("key")
        if key in found:
            line.fail(f"the key {quoted(key)} stands in {found[key].place} already")
        found[key] = Node(line.place, key, line.value)
    return tuple(found.values())


# -- from a node to the text of a file -----------------------------------------------------------------------


def file_text(value: Value, position: int, own: Mapping[str, Any] | None = None, prose: str = "") -> str:
    """The file of a node. `position`: its place among all nodes.

    `own`: keys of the front matter that the file has besides. `prose`: for a node without a content.
    """
    kept = {name: item for name, item in value.items() if name not in ("key", *_PLAIN)}
    kept |= {
        name: value[name] for name in _PLAIN if name in value and not same(value[name], _plain(value, name))
    }
    native = {name: item for name, item in kept.items() if _is_native(item)}
    others = {name: _json(item) for name, item in kept.items() if name not in native}
    links = [_link_table(link) for link in _links(value.get("links"))]
    front: Value = {"key": value["key"], "kind": _kind(value.get("category"))}
    front |= {"links": links} if links else {}
    front |= dict(own or {})
    front[IMPORT] = {"position": position, "fields": list(value)}
    front[IMPORT] |= {"values": native} if native else {}
    front[IMPORT] |= {"json": others} if others else {}
    text = _prose(value["content"]) if "content" in value else prose
    return f"{FENCE}\n{toml_document(front)}{FENCE}\n{text}\n"


def _kind(category: Any) -> str:
    return category if category in KINDS else KINDS[0]


def _prose(content: Any) -> str:
    """The prose that a file has for a content, as it is read back."""
    return content.removesuffix("\r") if isinstance(content, str) else ""


def _links(links: Any) -> tuple[Link, ...]:
    """The links of a node that persona understands: keys, or objects with `to`, `relation` and `strength`.

    Other programs say `target`, `type` and `weight`.
    """
    found = []
    for item in links if isinstance(links, list) else ():
        link: Value = item if isinstance(item, dict) else {"to": item}
        to: Any = link.get("to", link.get("target"))
        relation: Any = link.get("relation", link.get("type", DEFAULT_RELATION))
        strength: Any = link.get("strength", link.get("weight", 1.0))
        is_number = type(strength) in (int, float) and 0 <= strength <= 1
        if is_number and all(isinstance(text, str) and text.strip() for text in (to, relation)):
            found.append(Link(to, relation, float(strength), 0))
    return tuple(found)


def _link_table(link: Link) -> Value:
    return {"to": link.to, "relation": link.relation, "strength": link.strength}


def _plain(value: Value, name: str) -> Any:
    """What a file without `[import]` would give for a field of a node."""
    return _PLAIN[name](value.get(name))


_PLAIN: Final[dict[str, Callable[[Any], Any]]] = {
    "content": _prose,
    "category": _kind,
    "links": lambda links: [_link_table(link) for link in _links(links)],
}
"""The fields that have a place of their own in a file."""


# -- from a pattern back to its node -------------------------------------------------------------------------


def node_of(pattern: Pattern) -> Value:
    """The node of a pattern: as it was imported, with later edits of its file."""
    kept, fields = _imported(pattern)
    today = {
        "content": pattern.prose,
        "category": pattern.kind,
        "links": [_link_table(link) for link in pattern.links],
    }
    found: Value = {"key": pattern.key}
    for name, value in today.items():
        is_kept = name in kept and same(_PLAIN[name](kept[name]), value)
        is_absent = fields is not None and name not in fields and same(_PLAIN[name](None), value)
        if not is_absent and (value or fields is not None):
            found[name] = kept[name] if is_kept else value
    own = {name: value for name, value in pattern.extra.items() if name not in (IMPORT, *KNOWN)}
    for name, value in {**kept, **own}.items():
        if name not in ("key", *_PLAIN):
            found[name] = as_json(value)
    order = dict.fromkeys([*(fields or ()), *found])
    return {name: found[name] for name in order if name in found}


def position_of(pattern: Pattern) -> int | None:
    """The place of a pattern among the nodes that were imported; None if it is none of them."""
    table = pattern.extra.get(IMPORT)
    position = table.get("position") if isinstance(table, dict) else None
    return position if type(position) is int else None


def in_order(patterns: Iterable[Pattern]) -> list[Pattern]:
    """Imported patterns in the order of their nodes, then the others by key."""
    known = [(position_of(pattern), pattern) for pattern in patterns]
    first = sorted(((place, one) for place, one in known if place is not None), key=lambda pair: pair[0])
    others = sorted((one for place, one in known if place is None), key=lambda one: one.key)
    return [one for _, one in first] + others


def line_of_node(value: Value) -> str:
    """A node as a line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _imported(pattern: Pattern) -> tuple[Value, list[str] | None]:
    """What `[import]` of a file keeps, and the fields of the node; nothing and None if it is not usable."""
    table = pattern.extra.get(IMPORT)
    if not isinstance(table, dict) or not isinstance(table.get("fields"), list):
        return {}, None
    values = table.get("values", {})
    kept = dict(values) if isinstance(values, dict) else {}
    others = table.get("json", {})
    for name, text in others.items() if isinstance(others, dict) else ():
        try:
            kept[name] = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            raise InvalidInput(
                f"{pattern.file}:1: import.json.{name}: this is not JSON; put it back"
            ) from None
    return kept, [name for name in table["fields"] if isinstance(name, str)]


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 is not 1.0, and not true."""
    return _json(one) == _json(other)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=False)


def as_json(value: Any) -> Any:
    """A value of TOML as JSON: dates as text."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, (date, time)) else value


# -- TOML ----------------------------------------------------------------------------------------------------


def toml_document(document: Value) -> str:
    """A document as TOML: values first, then tables."""
    return "".join(f"{line}\n" for line in _table((), document))


def _table(path: tuple[str, ...], table: Value) -> Iterator[str]:
    inline = path == (IMPORT, "values")  # which keeps the order of fields
    values = {name: item for name, item in table.items() if inline or not isinstance(item, dict)}
    if path and (values or not table):
        yield f"[{'.'.join(map(_key, path))}]"
    for name, item in values.items():
        if item and isinstance(item, list) and all(isinstance(one, dict) for one in item):
            yield f"{_key(name)} = ["
            yield from (f"    {_toml(one)}," for one in item)
            yield "]"
        else:
            yield f"{_key(name)} = {_toml(item)}"
    for name, item in table.items():
        if name not in values:
            yield from _table((*path, name), item)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_string(name)


def _toml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        is_literal = '"' in value and "'" not in value and value.isprintable()
        return f"'{value}'" if is_literal else toml_string(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return repr(value)


def _is_native(value: Any, depth: int = 0) -> bool:
    """Whether TOML has a value for a JSON value, which has no null, no large integer and not every text."""
    if depth > MOST_NESTED:
        return False
    if isinstance(value, dict):
        return all(_is_native(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return all(_is_native(item, depth + 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -_INT <= value < _INT
    return isinstance(value, str)
