from __future__ import annotations

from typing import Any

import pytest

from persona.errors import IntegrityError
from persona.limits import MAX_CHUNK_ELEMENTS
from persona.objects import canonical
from persona.objects.base import Base, Shard
from persona.objects.tensors import TensorSpec

ID = "ab" * 32
BASE = Base(
    chunk=1 << 20,
    digest="blake3:" + ID,
    files={"config.json": ID, "a/b.txt": ID},
    shards=(Shard("one.safetensors", {"format": "pt"}), Shard("two.safetensors", {})),
    table=ID,
    tensors=(
        TensorSpec("a", "BF16", (3, 5)),
        TensorSpec("b", "I64", (2,)),
        TensorSpec("c", "F32", ()),
    ),
    shard_of=(0, 1, 0),
    tied={"lm_head.weight": "a"},
)


def with_field(key: str, value: Any) -> bytes:
    return canonical.encode(canonical.decode(BASE.encode()) | {key: value})


def test_a_base_comes_back_as_it_was() -> None:
    assert Base.decode(BASE.encode()) == BASE


def test_the_bytes_of_a_base_never_change() -> None:
    assert (
        BASE.encode()
        == (
            f'{{"chunk":1048576,"digest":"blake3:{ID}","files":{{"a/b.txt":"{ID}","config.json":"{ID}"}},'
            '"shard_of":[0,1,0],"shards":[{"metadata":{"format":"pt"},"name":"one.safetensors"},'
            f'{{"metadata":{{}},"name":"two.safetensors"}}],"table":"{ID}",'
            '"tensors":[["a","BF16",[3,5]],["b","I64",[2]],["c","F32",[]]],"tied":{"lm_head.weight":"a"}}'
        ).encode()
    )


def test_only_merged_tensors_count_for_a_vector() -> None:
    assert BASE.merged_elements == 16
    assert BASE.merged_bytes == 34


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunk", 0),
        ("chunk", 63),
        ("chunk", 96),
        ("chunk", 2 * MAX_CHUNK_ELEMENTS),
        ("chunk", "64"),
        ("chunk", True),
        ("digest", ID),
        ("digest", None),
        ("files", []),
        ("files", {"../x": ID}),
        ("files", {".persona/HEAD": ID}),
        ("files", {"/etc/passwd": ID}),
        ("files", {"a": "0" * 64}),
        ("files", {"a": None}),
        ("shard_of", [0, 1]),
        ("shard_of", [0, 1, 2]),
        ("shard_of", [0, 1, -1]),
        ("shard_of", [0, 1, "0"]),
        ("shard_of", [0, 1, [0]]),
        ("shards", []),
        ("shards", [{"metadata": {}, "name": "../x"}] * 2),
        ("shards", [{"metadata": {}, "name": "a/b"}, {"metadata": {}, "name": "b"}]),
        ("shards", [{"metadata": {}, "name": "a"}, {"metadata": {}, "name": "a"}]),
        ("shards", [{"metadata": {"a": 1}, "name": "a"}, {"metadata": {}, "name": "b"}]),
        ("shards", [{"metadata": [], "name": "a"}, {"metadata": {}, "name": "b"}]),
        ("shards", [{"metadata": {}, "name": 1}, {"metadata": {}, "name": "b"}]),
        ("table", "0" * 64),
        ("table", ["ab"]),
        ("tensors", [["b", "BF16", []], ["a", "BF16", []], ["c", "BF16", []]]),
        ("tied", []),
        ("tied", {"lm_head.weight": "absent"}),
        ("tied", {"b": "a"}),
        ("tied", {"lm_head.weight": ["a"]}),
        ("tied", {"lm_head.weight": None}),
        ("tied", {"../x": "a"}),
    ],
)
def test_a_base_with_a_wrong_field_is_refused(key: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^base"):
        Base.decode(with_field(key, value))
