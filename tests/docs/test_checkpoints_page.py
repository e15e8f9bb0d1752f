"""Every row of docs/checkpoints.md has a test that builds its situation, and every such test has a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.docs.pages import DOCS, ROOT


def rows() -> list[list[str]]:
    """The rows of the tables that begin with `situation`, without backticks."""
    found: list[list[str]] = []
    inside = False
    for line in (DOCS / "checkpoints.md").read_text().splitlines():
        if line.startswith("| situation |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            found.append([cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")])
    return found


def built() -> Iterator[str]:
    """The situations that tests build: the texts of `@pytest.mark.situation`."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.situation":
                yield from (ast.literal_eval(argument).replace("`", "") for argument in node.args)


def test_each_row_has_a_test_and_each_situation_a_row() -> None:
    listed = [row[0] for row in rows()]
    assert sorted(listed) == sorted(set(built()))


def test_each_row_says_what_happens_and_what_to_type() -> None:
    assert all(len(row) == 3 and all(row) for row in rows())
