"""docs/python.md is what its script writes from the library."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from persona.repository import Repository
from tests.docs.pages import DOCS, ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/api_page.py."""
    spec = importlib.util.spec_from_file_location("api_page", ROOT / "scripts" / "api_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_script_writes(script: ModuleType) -> None:
    written = (DOCS / "python.md").read_text()
    assert written == script.page(), "run scripts/api_page.py"


def test_the_page_has_every_method_and_every_option_of_it(script: ModuleType) -> None:
    text = script.page()
    for name in vars(Repository):
        assert name.startswith("_") or f"### repo.{name}\n" in text or f"### persona.{name}\n" in text
    checkout = text[text.index("### repo.checkout") : text.index("### repo.switch")]
    assert all(f"    {name}: " in checkout for name in ("threads", "device", "max_shard_size", "dtype"))
