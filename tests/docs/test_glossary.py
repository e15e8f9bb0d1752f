"""docs/glossary.md against the module docstrings, which define its words in bold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import persona
from tests.docs.pages import DOCS

PACKAGE = Path(persona.__file__).parent
BOLD = re.compile(r"\*\*([^*]+)\*\*")
ENTRY = re.compile(r"- \*\*([^*]+)\*\*(?: \(`([\w/.]+)`\))?: (.+)")

LINES = [line for line in (DOCS / "glossary.md").read_text().splitlines() if line.startswith("- ")]
ENTRIES = [match.groups() for line in LINES if (match := ENTRY.fullmatch(line))]


def defined() -> list[tuple[str, str]]:
    """Each word in bold in a module's docstring, and the module's path."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        path = file.relative_to(PACKAGE).as_posix()
        found += [(" ".join(word.split()), path) for word in BOLD.findall(text)]
    return found


def test_no_two_modules_define_one_word() -> None:
    words = [word for word, _ in defined()]
    assert sorted(words) == sorted(set(words))


def test_each_word_of_a_module_stands_in_the_glossary_with_that_module() -> None:
    assert sorted(defined()) == sorted((word, path) for word, path, _ in ENTRIES if path)


def test_each_entry_has_the_form_of_an_entry() -> None:
    assert len(ENTRIES) == len(LINES)


def test_entries_stand_once_and_in_alphabetical_order() -> None:
    words = [word.casefold() for word, *_ in ENTRIES]
    assert words == sorted(set(words))


def test_each_entry_is_one_sentence() -> None:
    for word, _, sentence in ENTRIES:
        assert sentence.endswith("."), word
        assert not re.search(r"[.!?] ", sentence), word
