"""The pages name only what a `Repository` has."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from persona.repository import Repository
from tests.docs.pages import PAGES

COLLECTIONS = {
    "recipe": ("persona.face.recipe", "WorkingRecipe"),
    "vectors": ("persona.face.vectors", "Vectors"),
    "branches": ("persona.face.refs", "Branches"),
    "tags": ("persona.face.refs", "Tags"),
    "config": ("persona.face.settings", "Settings"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_call_on_a_page_exists(page: Path) -> None:
    text = page.read_text()
    unknown = []
    for name, part in re.findall(r"\brepo\.([a-z_]+)(?:\.([a-z_]+))?", text):
        if not hasattr(Repository, name):
            unknown.append(name)
        elif part and name in COLLECTIONS:
            module, kind = COLLECTIONS[name]
            found = getattr(import_module(module), kind)
            if part not in {*dir(found), *getattr(found, "__annotations__", {})}:
                unknown.append(f"{name}.{part}")
    assert not unknown
