"""The pages of docs/ as tests read them: fenced blocks by name, tables, links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> dict[str, str]:
    """The fenced blocks of a page by the words after the fence."""
    return {name: text for name, text in _FENCE.findall((DOCS / page).read_text()) if name}


def from_hex(text: str) -> list[bytes]:
    """The bytes of each line, without comments."""
    return [bytes.fromhex(line.split("#")[0]) for line in text.splitlines()]


def table(page: str, first: str, *, holding: str = "") -> list[list[str]]:
    """The rows, without backticks, of the first table whose header begins with the cell `first`, holding a
    text.
    """
    lines = iter((DOCS / page).read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {first} |") and holding in line:
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    assert rows, f"{page} has no table that begins with {first}"
    return rows


def outside_code(text: str) -> str:
    """Markdown without fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """What a link to a part of the page may name."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.strip().replace(" ", "-"))
    return found
