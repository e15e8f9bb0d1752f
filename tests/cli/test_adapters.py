"""`persona export --adapter` and `persona vector extract`, as somebody types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import bf16, write_model
from tests.cli.command_line import CommandLine

SHAPES = {
    "model.embed_tokens.weight": (12, 6),
    "model.layers.0.q_proj.weight": (8, 6),
    "model.norm.weight": (6,),
}


@pytest.fixture
def tuned(tmp_path: Path) -> CommandLine:
    """A repository with one fine-tune of a model whose matrices have names."""
    random = np.random.default_rng(1)
    base = {name: random.normal(0, 1, shape) for name, shape in SHAPES.items()}
    moved = {name: values + random.normal(0, 0.1, values.shape) for name, values in base.items()}
    for place, values in (("base", base), ("calm", moved)):
        write_model(tmp_path / place, {name: bf16(value) for name, value in values.items()})
    CommandLine(tmp_path).ok("init", "mybot", "--base", "base")
    persona = CommandLine(tmp_path / "mybot")
    persona.ok("commit", "../calm", "-m", "calm")
    return persona


def test_extract_says_where_how_much_and_how_large(tuned: CommandLine) -> None:
    lines = tuned.ok("vector", "extract", "calm", "--rank", "2", "-o", "../calm-r2").splitlines()
    assert re.match(r"wrote .*\.\./calm-r2: rank 2, ", lines[0])
    assert "% of the change's energy kept, " in lines[0]
    assert "(the vector: " in lines[0]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["embed_tokens", "1", "tensor"],
        ["q_proj", "1", "tensor"],
        ["norm", "1", "tensor"],
    ]
    assert lines[-1].endswith("whole  100.0 %")


def test_export_answers_in_json_and_is_silent_with_q(tuned: CommandLine) -> None:
    found = tuned.json("export", "--adapter", "HEAD", "-o", "../out")
    assert found["files"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert found["vector"] is None
    assert tuned.ok("export", "--adapter", "-o", "../out", "-q") == ""
    config = json.loads((tuned.directory.parent / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["embed_tokens", "q_proj"]


def test_export_without_a_form_says_what_to_type(tuned: CommandLine) -> None:
    said = tuned.refused(2, "export", "HEAD", "-o", "../out")
    assert "--adapter" in said
    assert "persona checkout -o OUT REV" in said


def test_a_rank_is_a_whole_number(tuned: CommandLine) -> None:
    assert "whole number" in tuned.refused(2, "vector", "extract", "calm", "--rank", "0", "-o", "../out")
    assert "whole number" in tuned.refused(2, "vector", "extract", "calm", "--rank", "2.5", "-o", "../out")
