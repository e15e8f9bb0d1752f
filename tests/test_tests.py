"""How the tests are laid out, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import persona

TESTS = Path(__file__).parent
PACKAGE = Path(persona.__file__).parent
WHOLE = {
    "docs": "the pages of docs/ say what the code does",
    "golden": "data that other programs or older versions made",
    "properties": "what holds of the whole program",
}
"""The folders that mirror no package of persona/."""
FILES = sorted(TESTS.rglob("*.py"))


def imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[str]:
    """The dotted names of what a module of a package imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            source = (*start, *(node.module or "").split("."))
            yield from (".".join((*filter(None, source), alias.name)) for alias in node.names)


def of_test_modules(names: Iterator[str]) -> list[str]:
    """The imports that reach into a module of tests."""
    return [name for name in names if any(part.startswith("test_") for part in name.split(".")[1:])]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from tests.merge.test_plan import run", True),
        ("from tests.merge import test_plan", True),
        ("import tests.merge.test_plan as plan", True),
        ("from .test_plan import run", True),
        ("from . import test_plan", True),
        ("def f():\n    from ..merge.test_plan import run", True),
        ("from tests.merge.models import run", False),
        ("from .models import run", False),
    ],
)
def test_an_import_of_a_test_module_is_recognised(source: str, expected: bool) -> None:
    assert bool(of_test_modules(imported(ast.parse(source), ("tests", "merge")))) is expected


def test_no_test_module_is_imported_by_another() -> None:
    found = {}
    for file in FILES:
        package = ("tests", *file.relative_to(TESTS).parent.parts)
        found[str(file.relative_to(TESTS))] = of_test_modules(imported(ast.parse(file.read_text()), package))
    assert not {file: names for file, names in found.items() if names}


def test_no_test_sleeps() -> None:
    asleep = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            named = node.func if isinstance(node, ast.Call) else None
            if "sleep" in (getattr(named, "attr", None), getattr(named, "id", None)):
                asleep.append(f"{file.relative_to(TESTS)}:{node.lineno}")
    assert not asleep


def test_each_folder_has_the_tests_of_one_package() -> None:
    folders = {
        file.parent.relative_to(TESTS) for file in TESTS.rglob("*.*") if "__pycache__" not in file.parts
    }
    strange = [
        str(folder)
        for folder in folders - {Path()}
        if not (PACKAGE / folder).is_dir() and folder.parts[0] not in WHOLE
    ]
    assert not strange
