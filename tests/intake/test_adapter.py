"""Adapters that are written by hand: what is wrong with one is named, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import persona
from persona.errors import InvalidInput, NothingChanged
from persona.intake.adapter_config import GROUPED, RANK_MAJOR
from persona.intake.factor_layouts import layouts
from persona.objects.tensors import TensorSpec
from persona.repository import Repository
from persona.weights.adapters import Place, is_adapter, place_of
from tests.checkpoints import Tensor, read_weights, write_file, write_model

ME = persona.Person("A. Tester", "tester@example.org", 1_700_000_000, 0)
Q = "base_model.model.model.layers.0.self_attn.q_proj"
SHAPES = {
    "model.embed_tokens.weight": (12, 8),
    "model.layers.0.self_attn.q_proj.weight": (6, 8),
    "model.layers.0.self_attn.q_proj.bias": (6,),
    "model.layers.0.mlp.experts.gate_up_proj": (3, 10, 8),
    "model.layers.0.norm.weight": (8,),
    "model.layers.1.self_attn.q_proj.weight": (6, 8),
}


def tensor(shape: tuple[int, ...], seed: int = 1, dtype: str = "F32") -> Tensor:
    """Random elements, small powers of two."""
    bits = np.random.default_rng(seed).standard_normal(shape).astype(np.float32).view(np.uint32)
    return Tensor(dtype, bits if dtype == "F32" else (bits >> 16).astype(np.uint16))


def write_adapter(place: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    """An adapter directory; LoRA of rank 2 unless the config says otherwise."""
    place.mkdir()
    given = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
    (place / "adapter_config.json").write_text(json.dumps(given))
    write_file(place / "adapter_model.safetensors", dict(tensors))
    return place


def pair(
    module: str = Q, rank: int = 2, rows: int = 6, columns: int = 8, dtype: str = "F32"
) -> dict[str, Tensor]:
    return {
        f"{module}.lora_A.weight": tensor((rank, columns), 2, dtype),
        f"{module}.lora_B.weight": tensor((rows, rank), 3, dtype),
    }


@pytest.fixture
def repo(tmp_path: Path) -> Any:
    base = {name: tensor(shape, number, "BF16") for number, (name, shape) in enumerate(SHAPES.items())}
    write_model(tmp_path / "base", base)
    with persona.init(tmp_path / "bot", base=tmp_path / "base", author=ME) as opened:
        yield opened


def refused(repo: Repository, path: Path, error: type[persona.PersonaError] = InvalidInput) -> str:
    before = repo.count_objects()
    with pytest.raises(error) as caught:
        repo.commit(path, message="adapt")
    assert repo.count_objects() == before
    return str(caught.value)


def test_every_name_without_a_tensor_in_the_base_is_listed(repo: Repository, tmp_path: Path) -> None:
    names = [f"base_model.model.model.layers.{layer}.self_attn.{kind}" for layer in (5, 6) for kind in "kv"]
    tensors = {name: part for module in names for name, part in pair(module).items()}
    said = refused(
        repo, write_adapter(tmp_path / "a", {**pair(), **tensors}, base_model_name_or_path="org/other")
    )
    assert "no tensor for 8 names" in said
    for kind in "kv":
        for letter in "AB":
            assert f"base_model.model.model.layers.*.self_attn.{kind}.lora_{letter}.weight (2)" in said
    assert "'org/other'" in said


WRONG: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
    (pair(columns=9), {}, "[2, 9] and"),
    (pair(rows=5), {}, "do not fit the tensor model.layers.0.self_attn.q_proj.weight [6, 8]"),
    (pair(rank=3), {}, "has the rank 3, but"),
    ({f"{Q}.lora_A.weight": tensor((2, 8))}, {}, "has no counterpart"),
    ({f"{Q}.lora_B.weight": tensor((6, 2))}, {}, "has no counterpart"),
    ({**pair(), f"{Q}.lora_magnitude_vector": tensor((6,))}, {}, "no tensor for 1 name"),
    ({**pair(), f"{Q}.lora_A.other.weight": tensor((2, 8))}, {}, "belong to two adapters"),
    ({**pair(), "base_model.model.model.layers.0.norm.weight": tensor((7,))}, {}, "has the shape [7]"),
    ({**pair(), f"{Q}.lora_B.bias": tensor((5,))}, {}, "does not fit the tensor"),
    ({f"{Q}.lora_A.weight": tensor((0, 8)), f"{Q}.lora_B.weight": tensor((6, 0))}, {"r": 0}, "has rank 0"),
    (pair(), {"peft_type": "LOHA"}, "LOHA is not LoRA"),
    (pair(), {"peft_type": "PREFIX_TUNING"}, "changes prompts"),
    (pair(), {"peft_type": None}, "names no peft_type"),
    (pair(), {"use_dora": True}, "DoRA"),
    (pair(), {"init_lora_weights": "pissa_niter_4"}, "PiSSA changes the base"),
    (pair(), {"init_lora_weights": "corda"}, "CorDA changes the base"),
    (pair(), {"layer_replication": [[0, 1]]}, "layer replication"),
    (pair(), {"lora_alpha": "4"}, "lora_alpha must be a number"),
    (pair(), {"lora_alpha": float("nan")}, "lora_alpha must be a number"),
    (pair(), {"lora_alpha": True}, "lora_alpha must be a number"),
    (pair(), {"use_rslora": 1}, "use_rslora must be true or false"),
    (pair(), {"rank_pattern": {"(a+)+b": 2}}, "cannot be used"),
    (pair(), {"alpha_pattern": {"[": 2}}, "cannot be used"),
    (pair(), {"alpha_pattern": {"q_proj": None}}, "must be a number"),
    (pair(), {"alpha_pattern": 3}, "must be a mapping"),
]


@pytest.mark.parametrize(("tensors", "config", "said"), WRONG)
def test_an_adapter_that_does_not_fit_or_is_not_linear_is_refused(
    repo: Repository, tmp_path: Path, tensors: dict[str, Tensor], config: dict[str, Any], said: str
) -> None:
    assert said in refused(repo, write_adapter(tmp_path / "a", tensors, **config))


def test_a_number_that_is_not_finite_is_refused_with_its_place(repo: Repository, tmp_path: Path) -> None:
    broken = pair()
    broken[f"{Q}.lora_A.weight"].bits[1, 3] = 0x7F800000
    said = refused(repo, write_adapter(tmp_path / "a", broken))
    assert f"{Q}.lora_A.weight: 1 element is not finite, the first at index 11" in said


def test_an_adapter_whose_b_is_zero_reaches_and_changes_nothing(repo: Repository, tmp_path: Path) -> None:
    tensors = pair()
    tensors[f"{Q}.lora_B.weight"].bits[:] = 0
    before = repo.digest().weights
    assert repo.commit(write_adapter(tmp_path / "a", tensors), message="adapt").vectors[0].tensors == 1
    assert repo.digest().weights == before


@pytest.mark.parametrize(
    ("trained_on", "said"),
    [("org/base", False), ("/models/Base/", False), ("org/other", True), (None, False)],
)
def test_another_base_is_noted(repo: Repository, tmp_path: Path, trained_on: str | None, said: bool) -> None:
    path = write_adapter(tmp_path / "a", pair(), base_model_name_or_path=trained_on)
    notes = repo.commit(path, message="adapt").notes
    assert [note for note in notes if "trained on org/other, not on base" in note] == list(notes)
    assert bool(notes) == said


def test_an_adapter_of_a_revision_is_added_as_it_is(repo: Repository, tmp_path: Path) -> None:
    one = repo.commit(write_adapter(tmp_path / "one", pair()), message="one").vectors[0]
    again = repo.commit(tmp_path / "one", name="again", onto="HEAD", message="again")
    assert again.vectors[0].id == one.id
    history = repo._history
    assert history.recipe_of(history.head_commit()).by_name["again"].join == "add"
    assert not any("compared" in note for note in again.notes)


def test_an_adapter_that_holds_only_the_bases_own_tensors_changes_nothing(
    repo: Repository, tmp_path: Path
) -> None:
    same = {"base_model.model.model.layers.0.norm.weight": tensor((8,), 4, "BF16")}
    assert "no element changed" in refused(repo, write_adapter(tmp_path / "a", same), NothingChanged)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_factors_of_two_types_are_widened(repo: Repository, tmp_path: Path, dtype: str) -> None:
    tensors = {**pair(dtype=dtype), f"{Q}.lora_B.weight": tensor((6, 2), 3, "BF16")}
    id = repo.commit(write_adapter(tmp_path / "a", tensors), message="adapt").vectors[0].id
    (factor,) = repo._history.vector(id).factors
    assert factor is not None
    assert (factor.dtype, factor.scale) == (dtype, "2")


@pytest.mark.parametrize(
    "prefix",
    ["base_model.model.", "base_model.model.model.", "base_model.model.model.language_model.", "model.", ""],
)
def test_a_name_is_found_by_its_stem(repo: Repository, tmp_path: Path, prefix: str) -> None:
    made = repo.commit(
        write_adapter(tmp_path / "a", pair(f"{prefix}layers.0.self_attn.q_proj")), message="adapt"
    )
    (spec,) = repo._history.vector(made.vectors[0].id).tensors
    assert spec.name == "model.layers.0.self_attn.q_proj.weight"


def test_a_stem_that_two_tensors_have_is_refused(tmp_path: Path) -> None:
    two = {"model.layers.0.w.weight": tensor((6, 8)), "language_model.layers.0.w.weight": tensor((6, 8), 2)}
    write_model(tmp_path / "base", two)
    with persona.init(tmp_path / "bot", base=tmp_path / "base", author=ME) as repo:
        said = refused(repo, write_adapter(tmp_path / "a", pair("base_model.model.layers.0.w")))
    assert "may be language_model.layers.0.w.weight or model.layers.0.w.weight" in said


# -- stacked experts

EXPERTS = "base_model.model.model.layers.0.mlp.experts"
STACKED = {"target_parameters": ["mlp.experts.gate_up_proj"]}


def stacked() -> dict[str, Tensor]:
    return pair(EXPERTS, rank=6, rows=10)


def test_experts_of_an_unknown_packing_are_refused_with_the_marker_to_add(
    repo: Repository, tmp_path: Path
) -> None:
    by_unsloth = {"auto_mapping": {"unsloth_fixed": True}}
    said = refused(repo, write_adapter(tmp_path / "a", stacked(), **STACKED, **by_unsloth))
    assert '"lora_B_layout": "rank_major"' in said
    assert "neither" in refused(
        repo, write_adapter(tmp_path / "b", stacked(), **STACKED, lora_B_layout="other")
    )


def test_the_marker_decides_how_experts_are_packed(repo: Repository, tmp_path: Path) -> None:
    found = {
        packing: repo.commit(
            write_adapter(tmp_path / packing, stacked(), **STACKED, lora_B_layout=packing), message=packing
        ).vectors[0]
        for packing in (RANK_MAJOR, GROUPED)
    }
    plain = repo.commit(write_adapter(tmp_path / "plain", stacked(), **STACKED), message="plain").vectors[0]
    assert plain.id == found[RANK_MAJOR].id != found[GROUPED].id


@pytest.mark.parametrize("packing", [RANK_MAJOR, GROUPED])
@pytest.mark.parametrize("transposed", [False, True])
def test_experts_are_turned_so_that_each_has_its_own_rows(packing: str, transposed: bool) -> None:
    experts, rank, in_, out = 3, 2, 5, 4
    random = np.random.default_rng(1)
    a, b = random.integers(0, 9, (experts, rank, in_)), random.integers(0, 9, (experts, out, rank))
    flat_a = a.reshape(experts * rank, in_)
    order = (1, 2, 0) if packing == RANK_MAJOR else (1, 0, 2)
    flat_b = b.transpose(order).reshape(out, experts * rank)
    shape = (experts, in_, out) if transposed else (experts, out, in_)
    specs = [TensorSpec("w", "F32", given) for given in (shape, flat_a.shape, flat_b.shape)]
    (layout,) = layouts(*specs, embedding=False, packing=packing)
    assert (layout.blocks, layout.rank, layout.transposed) == (experts, rank, transposed)
    turned_a, turned_b = layout.turn(flat_a, flat_b)
    want = np.einsum("eor,eri->eio" if transposed else "eor,eri->eoi", b, a)
    assert np.array_equal(np.matmul(turned_b, turned_a), want)


def test_a_convolution_has_a_factor_unless_it_has_groups() -> None:
    spec = TensorSpec("w", "F32", (8, 4, 3, 3))
    a, b = TensorSpec("a", "F32", (2, 4, 3, 3)), TensorSpec("b", "F32", (8, 2, 1, 1))
    (layout,) = layouts(spec, a, b, embedding=False, packing=None)
    turned_a, turned_b = layout.turn(np.zeros(a.shape), np.zeros(b.shape))
    assert (turned_a.shape, turned_b.shape) == ((1, 2, 36), (1, 8, 2))
    grouped = TensorSpec("b", "F32", (8, 1, 1, 1))
    assert layouts(spec, a, grouped, embedding=False, packing=None) == []


# -- directories and names


def test_directories_of_adapters_are_named(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_adapter(tmp_path / "run" / "one", pair())
    said = refused(repo, tmp_path / "run")
    assert str(tmp_path / "run" / "one") in said
    write_adapter(tmp_path / "run" / "two", pair())
    said = refused(repo, tmp_path / "run")
    assert "holds 2 adapters; give one of them" in said
    assert str(tmp_path / "run" / "two") in said
    assert repo.commit(tmp_path / "run" / "two", message="adapt").vectors[0].name == "two"


def test_a_model_beside_an_adapter_is_taken_and_the_adapter_by_its_file(
    repo: Repository, tmp_path: Path
) -> None:
    place = write_adapter(tmp_path / "a", pair())
    write_file(place / "model.safetensors", {"w": tensor((2,))})
    assert "missing" in refused(repo, place)
    made = repo.commit(place / "adapter_model.safetensors", message="adapt").vectors[0]
    assert (made.name, made.ranks) == ("a", (2,))


def test_the_config_stands_for_its_adapter_which_brings_no_files(repo: Repository, tmp_path: Path) -> None:
    place = write_adapter(tmp_path / "a", pair())
    assert repo.commit(place / "adapter_config.json", message="adapt").vectors[0].name == "a"
    with pytest.raises(InvalidInput, match="files: an adapter brings no files"):
        repo.add(place, files=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter_model.safetensors", "has adapter_config.json, but no adapter_model.safetensors"),
        ("adapter_config.json", "no adapter_config.json beside it"),
    ],
)
def test_half_an_adapter_is_refused(repo: Repository, tmp_path: Path, name: str, said: str) -> None:
    place = write_adapter(tmp_path / "a", pair())
    (place / name).unlink()
    assert said in refused(repo, place)


def test_a_pickle_is_never_opened(repo: Repository, tmp_path: Path) -> None:
    place = write_adapter(tmp_path / "a", pair())
    (place / "adapter_model.safetensors").unlink()
    (place / "adapter_model.bin").write_bytes(b"\x80\x02")
    assert "pickle" in refused(repo, place)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"r": ' + "[" * 10**5])
def test_a_config_that_is_none_is_refused(repo: Repository, tmp_path: Path, text: str) -> None:
    place = write_adapter(tmp_path / "a", pair())
    (place / "adapter_config.json").write_text(text)
    assert "adapter_config.json: not" in refused(repo, place)


def test_names_say_where_a_tensor_belongs() -> None:
    head = "base_model.model."
    assert place_of(f"{head}a.q.lora_A.weight") == Place("a", "a.q")
    assert place_of(f"{head}a.q.lora_B.default.weight") == Place("b", "a.q", 0, "default")
    assert place_of(f"{head}a.q.lora_B.bias") == Place("b bias", "a.q")
    assert place_of(f"{head}a.e.base_layer.lora_A.weight") == Place("a", "a.e", 1)
    assert place_of(f"{head}a.emb.lora_embedding_B") == Place("embedding b", "a.emb")
    assert place_of(f"{head}a.emb.token_adapter.trainable_tokens_delta") == Place("tokens", "a.emb")
    assert place_of(f"{head}a.emb.base_layer.weight") == Place("whole", "a.emb.weight")
    assert place_of(f"{head}score.modules_to_save.default.weight") == Place(
        "whole", "score.weight", 0, "default"
    )
    assert place_of(f"{head}a.q.lora_magnitude_vector").role == "unknown"


def test_what_is_no_adapter_is_no_adapter(tmp_path: Path) -> None:
    write_model(tmp_path / "base", {"w": tensor((2,))})
    assert not is_adapter(tmp_path / "base")
    assert not is_adapter(tmp_path / "base" / "model.safetensors")
    assert not is_adapter(tmp_path / "nothing")


def test_tensors_of_an_adapter_can_be_left_as_in_the_base(repo: Repository, tmp_path: Path) -> None:
    norm = {"base_model.model.model.layers.0.norm.weight": tensor((8,))}
    both = write_adapter(tmp_path / "both", {**pair(), **norm}, modules_to_save=["norm"])
    alone = write_adapter(tmp_path / "alone", pair())
    (change,) = repo.add(both, leave="*.norm.*", name="x").vectors
    assert change.left == ("model.layers.0.norm.weight",)
    assert change.id == repo.add(alone).vectors[0].id
    with pytest.raises(InvalidInput, match=r"^leave: '\*lm_head\*' matches none of 6 tensors"):
        repo.add(both, leave="*lm_head*", name="x")


def test_an_embedding_with_new_tokens_is_taken_if_asked_for(repo: Repository, tmp_path: Path) -> None:
    embedding = tensor((14, 8), 9, "BF16")
    name = "base_model.model.model.embed_tokens.weight"
    place = write_adapter(tmp_path / "a", {**pair(), name: embedding})
    said = refused(repo, place)
    assert "has a vocabulary of 14, but the base has 12" in said
    assert "extend_vocab=True" in said
    made = repo.commit(place, message="adapt", extend_vocab=True)
    assert made.vectors[0].grown == {"model.embed_tokens.weight": None}
    assert any("copy that of a into the work tree" in note for note in made.notes)
    repo.checkout()
    found = read_weights(tmp_path / "bot")
    assert found["model.embed_tokens.weight"].same(embedding)
    assert repo.fsck().ok
    assert not found["model.layers.0.self_attn.q_proj.weight"].same(
        read_weights(tmp_path / "base")["model.layers.0.self_attn.q_proj.weight"]
    )


def test_an_output_matrix_that_an_adapter_holds_whole_is_taken_if_asked_for(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    base = {name: tensor(shape, number, "BF16") for number, (name, shape) in enumerate(SHAPES.items())}
    write_model(tmp_path / "base", base, **{"config.json": json.dumps(config)})
    head = tensor((12, 8), 9, "BF16")
    place = write_adapter(tmp_path / "a", {**pair(), "base_model.model.lm_head.weight": head})
    with persona.init(tmp_path / "bot", base=tmp_path / "base", author=ME) as repo:
        said = refused(repo, place)
        assert "was trained apart from model.embed_tokens.weight" in said
        assert "untie=True" in said
        made = repo.commit(place, message="adapt", untie=True)
        assert made.vectors[0].grown == {"lm_head.weight": "model.embed_tokens.weight"}
        repo.checkout()
        found = read_weights(tmp_path / "bot")
        assert found["lm_head.weight"].same(head)
        assert found["model.embed_tokens.weight"].same(base["model.embed_tokens.weight"])
        assert json.loads((tmp_path / "bot" / "config.json").read_text())["tie_word_embeddings"] is False


def test_new_tokens_whole_and_trained_rows_beside_them_are_refused(repo: Repository, tmp_path: Path) -> None:
    module = "base_model.model.model.embed_tokens"
    tensors = {
        f"{module}.weight": tensor((14, 8), 9, "BF16"),
        f"{module}.token_adapter.trainable_tokens_delta": tensor((2, 8)),
    }
    place = write_adapter(tmp_path / "a", {**pair(), **tensors}, trainable_token_indices=[3, 5])
    with pytest.raises(InvalidInput, match="with new tokens, and beside it a change of some of its rows"):
        repo.commit(place, message="adapt", extend_vocab=True)


def test_trained_rows_of_new_tokens_are_taken_if_asked_for(repo: Repository, tmp_path: Path) -> None:
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    rows = tensor((3, 8), 7, "BF16")
    place = write_adapter(tmp_path / "a", {**pair(), name: rows}, trainable_token_indices=[5, 13, 12])
    assert "go to 13, but the vocabulary of model.embed_tokens.weight has 12" in refused(repo, place)
    repo.commit(place, message="adapt", extend_vocab=True)
    repo.checkout()
    found = read_weights(tmp_path / "bot")["model.embed_tokens.weight"].bits
    base = read_weights(tmp_path / "base")["model.embed_tokens.weight"].bits
    assert np.array_equal(found[[5, 13, 12]], rows.bits)
    assert np.array_equal(found[[0, 1, 2, 11]], base[[0, 1, 2, 11]])
    gap = write_adapter(tmp_path / "gap", {**pair(), name: rows}, trainable_token_indices=[5, 12, 14])
    assert "or all numbers from 12 on" in refused(repo, gap)
