"""An index is read with suspicion and written as transformers writes it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import InvalidInput, PersonaError
from persona.weights.index import ShardIndex, encode_index, is_shard_name, read_index
from persona.weights.inputs import read_input

MAP = {"b.weight": "model-00002-of-00002.safetensors", "a.weight": "model-00001-of-00002.safetensors"}


def test_an_index_written_reads_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(encode_index(MAP, 12, ["y.safetensors", "x.safetensors"]))
    assert read_index(path) == ShardIndex(MAP, ("x.safetensors", "y.safetensors"))
    assert read_index(path).shard_names() == sorted(MAP.values())


def test_an_index_is_written_as_transformers_writes_it() -> None:
    theirs = json.dumps({"metadata": {"total_size": 12}, "weight_map": MAP}, indent=2, sort_keys=True) + "\n"
    assert encode_index(MAP, 12).decode() == theirs


def test_what_else_stands_in_an_index_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"x": [{"y": None}, 1.5], "metadata": [], "weight_map": MAP, "z": "z"}))
    assert read_index(path) == ShardIndex(MAP)


NOT_PLAIN = ["", "x", "x.bin", ".safetensors", ".x.safetensors", "-x.safetensors", "a/b.safetensors"]
NOT_PLAIN += [
    "..\\b.safetensors",
    "/b.safetensors",
    "a\0.safetensors",
    "a\n.safetensors",
    "\ud800.safetensors",
]
NOT_PLAIN += ["n" * 300 + ".safetensors"]


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_shard_has_a_plain_name(name: str) -> None:
    assert not is_shard_name(name)
    assert is_shard_name("model-00001-of-00002.safetensors")


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 200))
def test_no_damage_to_an_index_raises_anything_but_our_own_errors(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: int, length: int
) -> None:
    valid = encode_index(MAP, 12, ["x.safetensors"])
    path = tmp_path_factory.mktemp("damaged") / "index.json"
    path.write_bytes(valid[:start] + noise + valid[start + length :])
    with suppress(PersonaError):
        assert read_index(path).weight_map


def test_a_file_over_its_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(11))
    assert read_input(path, limit=11) == bytes(11)
    with pytest.raises(InvalidInput, match="over the limit of 10"):
        read_input(path, limit=10)
