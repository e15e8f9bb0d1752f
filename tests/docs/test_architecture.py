"""The tables of docs/architecture.md against the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import persona
from tests.docs.pages import table

PACKAGE = Path(persona.__file__).parent


def importers(library: str) -> list[str]:
    """The modules that import a library, inside functions too; those of `behaviour/` are one."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        typing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            if id(node) not in typing and any(name.split(".")[0] == library for name in names):
                path = file.relative_to(PACKAGE).as_posix()
                found.add("behaviour/" if path.startswith("behaviour/") else path)
    return sorted(found)


@pytest.mark.parametrize("row", table("architecture.md", "library"), ids=lambda row: row[0])
def test_a_slow_library_is_imported_by_the_files_of_the_table(row: list[str]) -> None:
    assert importers(row[0]) == sorted(row[1].split(", "))


def test_the_table_of_folders_has_every_folder() -> None:
    cells = [row[0] for row in table("architecture.md", "`persona/`")]
    named = {name.removesuffix("/") for cell in cells for name in cell.split(", ")}
    folders = {
        file.parent.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("__init__.py")
        if file.parent not in (PACKAGE, PACKAGE / "cli" / "commands")
    }
    assert folders <= named
    assert all((PACKAGE / name).exists() for name in named)
