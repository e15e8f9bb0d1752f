"""How a repository begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.history.beginning import default_base_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/SmolLM2-135M", "SmolLM2-135M"),
        ("hub/models--org--My-Model/snapshots/0123abcd", "My-Model"),
        ("plain/snapshots/0123abcd", "0123abcd"),
        ("a model", "a-model"),
    ],
)
def test_a_base_is_named_after_its_model(tmp_path: Path, path: str, name: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert default_base_name(tmp_path / path) == name
