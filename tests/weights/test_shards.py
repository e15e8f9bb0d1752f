"""Shards are planned as in the base, or to a size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona import limits
from persona.errors import InvalidInput
from persona.objects.base import Shard
from persona.objects.tensors import TensorSpec
from persona.weights.shards import by_layers, plan_shards

SPECS = [TensorSpec(f"layers.{i}.w", "U8", (10,)) for i in range(12)]


def test_without_a_size_the_shards_are_the_bases() -> None:
    shards = [Shard("x-1.safetensors", {"format": "pt", "from": "1"}), Shard("x-2.safetensors", {})]
    plan = plan_shards(SPECS, shards=shards, shard_of=[i % 2 for i in range(12)])
    assert [shard.name for shard in plan] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert [shard.specs for shard in plan] == [tuple(SPECS[0::2]), tuple(SPECS[1::2])]
    assert [shard.metadata for shard in plan] == [{"format": "pt", "from": "1"}, {"format": "pt"}]


def test_without_a_base_there_is_one_file() -> None:
    (shard,) = plan_shards(SPECS)
    assert (shard.name, shard.specs, shard.metadata) == ("model.safetensors", tuple(SPECS), {"format": "pt"})


def test_with_a_size_layers_stay_in_the_order_of_their_numbers() -> None:
    plan = plan_shards(SPECS, 45)
    assert [[spec.name for spec in shard.specs] for shard in plan] == [
        [f"layers.{i}.w" for i in range(start, start + 4)] for start in (0, 4, 8)
    ]


def test_metadata_that_shards_agree_on_is_kept_when_they_are_divided_anew() -> None:
    shards = [
        Shard("a", {"format": "pt", "x": "1", "y": "2"}),
        Shard("b", {"format": "pt", "x": "1", "y": "3"}),
    ]
    assert {str(shard.metadata) for shard in plan_shards(SPECS, 50, shards=shards)} == {
        str({"format": "pt", "x": "1"})
    }


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 200))
def test_every_tensor_is_in_one_shard_and_only_a_lone_one_exceeds_the_size(
    sizes: list[int], most: int
) -> None:
    specs = [TensorSpec(f"t{i}", "U8", (size,)) for i, size in enumerate(sizes)]
    plan = plan_shards(specs, most)
    assert sorted(spec.name for shard in plan for spec in shard.specs) == sorted(spec.name for spec in specs)
    assert all(shard.nbytes <= most or len(shard.specs) == 1 for shard in plan)


def layers(sizes: dict[str, int]) -> list[TensorSpec]:
    return [TensorSpec(name, "U8", (size,)) for name, size in sizes.items()]


def test_files_are_cut_between_layers_and_never_joined() -> None:
    specs = layers({"embed": 5, "h.0.a": 4, "h.10.a": 4, "h.2.a": 4, "h.2.b.7": 4, "h.3.a": 1, "norm": 1})
    shards = [Shard("a", {"from": "a"}), Shard("b", {"from": "b"})]
    plan = by_layers(plan_shards(specs, shards=shards, shard_of=[0, 0, 1, 0, 0, 1, 1]), 9)
    assert [[spec.name for spec in shard.specs] for shard in plan] == [
        ["embed", "h.0.a"],
        ["h.2.a", "h.2.b.7"],
        ["h.3.a", "h.10.a", "norm"],
    ]
    assert [shard.metadata["from"] for shard in plan] == ["a", "a", "b"]
    assert [shard.name for shard in plan] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def test_a_layer_that_does_not_fit_is_cut_between_tensors() -> None:
    specs = layers({"h.0.a": 4, "h.0.b": 4, "h.0.c": 20, "h.1.a": 4})
    plan = by_layers(plan_shards(specs, shards=[Shard("a", {})] * 2, shard_of=[0, 0, 0, 1]), 10)
    assert [shard.nbytes for shard in plan] == [8, 20, 4]


def test_a_lone_file_stays_one_and_too_many_stay_as_they_are() -> None:
    assert by_layers(plan_shards(SPECS), 10) == plan_shards(SPECS)
    many = [TensorSpec(f"h.{i}.w", "U8", (2,)) for i in range(limits.MAX_SHARDS + 2)]
    layout = plan_shards(many, shards=[Shard("a", {})] * 2, shard_of=[i % 2 for i in range(len(many))])
    assert by_layers(layout, 2) == layout


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 100)), max_size=30),
    st.integers(1, 200),
)
def test_cutting_loses_no_tensor_and_keeps_to_the_size(found: list[tuple[int, int, int]], size: int) -> None:
    specs = [TensorSpec(f"h.{layer}.{i}", "U8", (n,)) for i, (layer, _, n) in enumerate(found)]
    layout = plan_shards(specs, shards=[Shard("a", {})] * 3, shard_of=[place for _, place, _ in found])
    plan = by_layers(layout, size)
    assert sorted(spec.name for shard in plan for spec in shard.specs) == sorted(spec.name for spec in specs)
    whole = {shard.specs: set(shard.specs) for shard in layout}
    assert all(any(set(part.specs) <= specs for specs in whole.values()) for part in plan)
    assert len(plan) == 1 or all(part.nbytes <= size or len(part.specs) == 1 for part in plan)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInput, match="too small"):
        plan_shards(SPECS, 0)
    with pytest.raises(InvalidInput, match="larger max_shard_size"):
        plan_shards([TensorSpec(f"t{i}", "U8", (2,)) for i in range(limits.MAX_SHARDS + 1)], 1)
    with pytest.raises(ValueError, match="places"):
        plan_shards(SPECS, shard_of=[0])
