"""A fine-tune that holds a shared tensor once, or under another name, loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import InvalidInput
from persona.intake.encode import ImportedVector
from tests.checkpoints import bf16
from tests.merge.models import Sandbox

Tensor = tuple[str, tuple[int, ...], np.ndarray[Any, Any]]
Model = dict[str, Tensor]
SHARED = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


def tensor(seed: int, *shape: int) -> Tensor:
    return ("BF16", shape, bf16(np.random.default_rng(seed).normal(size=shape)))


def nudged(held: Tensor, steps: int = 1) -> Tensor:
    return (held[0], held[1], held[2] + held[2].dtype.type(steps))


def wider(held: Tensor) -> Tensor:
    """The same numbers as F32."""
    return ("F32", held[1], held[2].astype(np.uint32) << 16)


def t5(*names: str) -> Model:
    return {name: tensor(1, 12, 8) for name in names} | {"block.0.weight": tensor(2, 8, 8)}


def trained(model: Model) -> Model:
    """A fine-tune in which equal tensors are still equal."""
    return {name: nudged(held, 1 + held[2].size % 3) for name, held in model.items()}


def folder(place: Path, name: str) -> Path:
    (place / name).mkdir()
    return place / name


def refused(sandbox: Sandbox, after: Model, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        sandbox.vector(after, **options)
    return str(caught.value)


def fitting(sandbox: Sandbox, after: Model, **options: Any) -> ImportedVector:
    """Imports a fine-tune and checks that nothing was left of it."""
    made = sandbox.vector(after, **options)
    assert not made.left
    return made


@pytest.mark.parametrize("held", [SHARED[:1], SHARED[1:2], SHARED[3:], SHARED[:2], SHARED[1:3]])
def test_a_missing_twin_takes_the_values_of_the_one_that_is_there(
    tmp_path: Path, held: tuple[str, ...]
) -> None:
    sandbox = Sandbox(tmp_path, t5(*SHARED))
    made = fitting(sandbox, trained(t5(*held)))
    assert made.id == fitting(sandbox, trained(t5(*SHARED))).id
    lacking = [name for name in SHARED if name not in held]
    (note,) = made.notes
    assert all(name in note for name in lacking)
    assert any(f" {name}: its values are used" in note for name in held)


@pytest.mark.parametrize("stored", SHARED)
@pytest.mark.parametrize("held", SHARED)
def test_a_shared_tensor_may_have_another_of_its_names(tmp_path: Path, stored: str, held: str) -> None:
    sandbox = Sandbox(tmp_path, t5(stored))
    made = fitting(sandbox, trained(t5(held)))
    assert made.id == fitting(sandbox, trained(t5(stored))).id
    assert made.id == fitting(sandbox, trained(t5(*SHARED))).id


def test_two_matrices_under_other_names_are_not_guessed(tmp_path: Path) -> None:
    apart = {
        "shared.weight": tensor(1, 12, 8),
        "lm_head.weight": tensor(3, 12, 8),
        "x.weight": tensor(2, 8, 8),
    }
    sandbox = Sandbox(tmp_path, apart)
    one = {"model.embed_tokens.weight": tensor(4, 12, 8), "x.weight": tensor(5, 8, 8)}
    for options in ({}, {"rename": True}):
        said = refused(sandbox, one, **options)
        assert "which tensor it is here is not known: model.embed_tokens.weight" in said or "renamed" in said
        assert "extra=" not in said
    sandbox = Sandbox(folder(tmp_path, "tied"), t5("shared.weight"))
    two = {"encoder.embed_tokens.weight": tensor(4, 12, 8), "decoder.embed_tokens.weight": tensor(5, 12, 8)}
    said = refused(sandbox, {**two, "block.0.weight": tensor(6, 8, 8)})
    assert "shared.weight of the base is missing, and which tensor it is here is not known" in said
    assert not any(flag in said for flag in ("missing=", "extra="))


def test_a_head_of_its_own_is_not_taken_for_the_embedding(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, t5("shared.weight"))
    after = trained(t5("shared.weight"))
    after["model.embed_tokens.weight"] = after.pop("shared.weight")
    said = refused(sandbox, after | {HEAD: tensor(5, 12, 8)}, extra="ignore", missing="zero")
    assert f"{HEAD} differs from shared.weight: leaving it out changes the model" in said


def test_twins_need_no_known_names(tmp_path: Path) -> None:
    base = {"a.x": tensor(1, 4, 4), "b.y": tensor(1, 4, 4), "c.z": tensor(2, 4, 4)}
    sandbox = Sandbox(tmp_path, base)
    after = trained(base)
    assert fitting(sandbox, {name: after[name] for name in ("b.y", "c.z")}).id == fitting(sandbox, after).id


@pytest.mark.parametrize(
    "names",
    [
        ("model.layers.0.mlp.weight", "model.layers.1.mlp.weight"),
        ("layers.0.experts.0.w1.weight", "layers.0.experts.1.w1.weight"),
        ("encoder.layer.0.mlp.weight", "decoder.layer.0.mlp.weight"),
    ],
)
def test_a_missing_layer_is_not_filled_from_an_equal_one(tmp_path: Path, names: tuple[str, str]) -> None:
    """Training moves the layers of an up-scaled model, or experts of an upcycled one, apart."""
    base = {name: tensor(1, 8, 8) for name in names} | {"norm.weight": tensor(2, 8)}
    sandbox = Sandbox(tmp_path, base)
    after = trained(base)
    del after[names[1]]
    for options in ({}, {"missing": "zero"}, {"missing": "*"}):
        said = refused(sandbox, after, **options)
        assert f"{names[1]} is missing. In the base it equals {names[0]}" in said
        assert "missing=" not in said
    assert sandbox.vector(after, missing=names[1]).left == (names[1],)


@pytest.mark.parametrize("name", ["mtp.lm_head.weight", "medusa.0.lm_head.weight"])
@pytest.mark.parametrize("lost", ["lm_head.weight", "model.embed_tokens.weight"])
def test_a_missing_matrix_is_not_taken_from_a_tensor_that_is_unlike_it(
    tmp_path: Path, lost: str, name: str
) -> None:
    sandbox = Sandbox(tmp_path, llama(head=True))
    after = trained(llama(head=True))
    name = name if lost == HEAD else name.replace("lm_head", "embed_tokens")
    after[name] = tensor(9, 12, 8)
    del after[lost]
    for options in ({}, {"rename": True}):
        said = refused(sandbox, after, **options)
        assert lost in said
        assert not any(flag in said for flag in ("missing=", "extra=", "rename="))
    after[name] = trained(llama(head=True))[lost]
    assert fitting(sandbox, after, rename=True).id == fitting(sandbox, trained(llama(head=True))).id


def test_twins_of_several_chunks_and_of_another_dtype(tmp_path: Path) -> None:
    base = {"a.x": tensor(1, 40, 5), "b.y": tensor(1, 40, 5), "c.z": tensor(2, 40, 5)}
    sandbox = Sandbox(tmp_path, base)
    after = trained(base)
    assert (
        fitting(sandbox, {"b.y": wider(after["b.y"]), "c.z": after["c.z"]}).id == fitting(sandbox, after).id
    )


def test_a_twin_that_is_left_alone_is_noted(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, t5(*SHARED))
    notes = sandbox.vector(trained(t5(*SHARED)), leave=["shared.weight", "encoder.*"]).notes
    said = "but decoder.embed_tokens.weight and lm_head.weight may change, which the base shares with it"
    assert [said in note for note in notes] == [False, True, True]
    moved = trained(t5(*SHARED))
    assert len(sandbox.vector(moved, leave=SHARED).notes) == 1


def test_twins_that_a_fine_tune_trained_apart_stay_apart(tmp_path: Path) -> None:
    base = t5(*SHARED[:2])
    sandbox = Sandbox(tmp_path, base)
    after = trained(base) | {SHARED[1]: nudged(base[SHARED[1]], 7)}
    made = fitting(sandbox, after)
    assert made.id != fitting(sandbox, trained(base)).id
    assert not made.notes


def test_a_twin_of_two_that_differ_is_refused_with_all_names(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, t5(*SHARED[:3]))
    after = trained(t5(*SHARED[:2])) | {SHARED[1]: nudged(tensor(1, 12, 8), 7)}
    said = refused(sandbox, after)
    assert all(name in said for name in SHARED[:3])
    assert "missing=" not in said


def test_a_missing_embedding_follows_the_embedding_and_not_a_head_of_its_own(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, t5(*SHARED))
    whole = trained(t5(*SHARED)) | {HEAD: nudged(tensor(1, 12, 8), 7)}
    after = {name: held for name, held in whole.items() if "embed_tokens" not in name}
    assert fitting(sandbox, after).id == fitting(sandbox, whole).id


def test_tensors_that_are_equal_by_chance_are_no_twins(tmp_path: Path) -> None:
    """Norms of ones, and biases of zeros, of a model that was not trained yet."""
    ones = ("BF16", (8,), np.full(8, 0x3F80, np.uint16))
    base = {f"layers.{n}.norm.weight": ones for n in range(2)}
    base |= {f"layers.{n}.mlp.weight": tensor(n, 8, 8) for n in range(2)}
    sandbox = Sandbox(tmp_path, base)
    after = trained(base)
    del after["layers.1.norm.weight"]
    assert "missing: layers.1.norm.weight" in refused(sandbox, after)


def test_the_bias_of_a_head_goes_with_its_matrix(tmp_path: Path) -> None:
    """BERT's head as files have it: the matrix is the embedding, and the bias is there twice, all zeros."""
    matrix, bias = tensor(1, 12, 8), ("BF16", (12,), np.zeros(12, np.uint16))
    base = {
        "bert.embeddings.word_embeddings.weight": matrix,
        "cls.predictions.decoder.weight": matrix,
        "cls.predictions.decoder.bias": bias,
        "cls.predictions.bias": bias,
    }
    sandbox = Sandbox(tmp_path, base)
    whole = trained(base)
    after = {name: held for name, held in whole.items() if "decoder" not in name}
    assert fitting(sandbox, after).id == fitting(sandbox, whole).id


def test_biases_that_are_equal_by_chance_do_not_hide_the_one_of_the_head(tmp_path: Path) -> None:
    matrix, bias = tensor(1, 12, 8), ("BF16", (12,), np.zeros(12, np.uint16))
    base = {"word_embeddings.weight": matrix, "lm_head.decoder.weight": matrix}
    base |= dict.fromkeys(("lm_head.bias", "lm_head.decoder.bias", "mlp.0.bias", "mlp.1.bias"), bias)
    sandbox = Sandbox(tmp_path, base)
    whole = base | {"lm_head.bias": nudged(bias, 9), "lm_head.decoder.bias": nudged(bias, 9)}
    whole |= {"mlp.0.bias": nudged(bias, 3), "mlp.1.bias": nudged(bias, 4)}
    after = {name: held for name, held in whole.items() if "decoder" not in name}
    assert fitting(sandbox, after).id == fitting(sandbox, whole).id


def test_a_bias_goes_with_the_matrix_beside_it(tmp_path: Path) -> None:
    """Heads that a detector shares."""
    matrix, bias = tensor(1, 4, 8), ("BF16", (4,), np.full(4, 0xC090, np.uint16))
    other = ("BF16", (4,), np.full(4, 0xC090, np.uint16))
    base = {"box.weight": matrix, "box.bias": bias, "aux_box.weight": matrix, "aux_box.bias": bias}
    base |= {"score.weight": tensor(2, 4, 8), "score.bias": other}
    sandbox = Sandbox(tmp_path, base)
    whole = trained(base) | {"score.bias": nudged(other, 9)}
    after = {name: held for name, held in whole.items() if not name.startswith("aux")}
    assert fitting(sandbox, after).id == fitting(sandbox, whole).id


def test_a_copy_of_the_embedding_is_left_out_of_a_renamed_fine_tune(tmp_path: Path) -> None:
    base = {"wte.weight": tensor(1, 12, 8), "h.0.attn.weight": tensor(2, 8, 8), "ln_f.weight": tensor(3, 8)}
    sandbox = Sandbox(tmp_path, base)
    after = {f"transformer.{name}": held for name, held in trained(base).items()}
    after[HEAD] = after["transformer.wte.weight"]
    said = refused(sandbox, after)
    assert "rename=True" in said
    assert fitting(sandbox, after, rename=True).id == fitting(sandbox, trained(base)).id
    apart = after | {HEAD: tensor(9, 12, 8)}
    assert "leaving it out changes the model" in refused(sandbox, apart, rename=True, extra="ignore")


# -- heads

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def llama(*, head: bool) -> Model:
    return {EMBEDDING: tensor(1, 12, 8), "model.norm.weight": tensor(2, 8)} | (
        {HEAD: tensor(3, 12, 8)} if head else {}
    )


@pytest.mark.parametrize("options", [{}, {"extra": "ignore"}, {"extra": "*"}, {"extra": ["x", "*"]}])
def test_a_head_of_its_own_is_never_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    sandbox = Sandbox(tmp_path, llama(head=False))
    said = refused(sandbox, trained(llama(head=True)), **options)
    assert f"{HEAD} differs from {EMBEDDING}: leaving it out changes the model" in said
    assert "extra=" not in said


@pytest.mark.parametrize("rows", [10, 16])
def test_a_head_of_another_size_than_the_embedding_is_never_left_out(tmp_path: Path, rows: int) -> None:
    sandbox = Sandbox(tmp_path, llama(head=False))
    after = trained(llama(head=False)) | {HEAD: tensor(3, rows, 8)}
    for options in ({}, {"extra": "ignore"}, {"untie": True}, {"extra": "*", "untie": True}):
        said = refused(sandbox, after, **options)
        assert f"{HEAD} has {rows} rows, and {EMBEDDING} has 12" in said
        assert "extra=" not in said
    grown = {EMBEDDING: tensor(1, 14, 8), "model.norm.weight": tensor(2, 8), HEAD: tensor(3, 12, 8)}
    said = refused(sandbox, grown, extra="ignore", untie=True, extend_vocab=True)
    assert f"{HEAD} has 12 rows, and {EMBEDDING} has 14" in said


def test_a_small_head_beside_a_head_of_the_base_is_an_extra(tmp_path: Path) -> None:
    """The head of a draft model has its own vocabulary."""
    sandbox = Sandbox(tmp_path, llama(head=True))
    after = trained(llama(head=True))
    made = sandbox.vector(after | {"draft.lm_head.weight": tensor(9, 5, 8)}, extra="ignore")
    assert made.id == sandbox.vector(after).id


def test_vocabularies_of_two_sizes_are_named_with_both(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama(head=True))
    after = trained(llama(head=True)) | {EMBEDDING: tensor(1, 14, 8), HEAD: tensor(3, 16, 8)}
    said = refused(sandbox, after, extend_vocab=True)
    assert "14" in said
    assert "16" in said
    assert "would keep" not in said


@pytest.mark.parametrize(
    ("head", "matrix"), [("proj_out.weight", "model.decoder.embed_tokens.weight"), ("output.decoder", "x")]
)
def test_a_matrix_of_its_own_is_a_head_by_its_name(tmp_path: Path, head: str, matrix: str) -> None:
    sandbox = Sandbox(tmp_path, {matrix: tensor(1, 12, 8)})
    said = refused(sandbox, {matrix: tensor(2, 12, 8), head: tensor(3, 12, 8)})
    assert ("leaving it out changes the model" in said) is (head == "proj_out.weight")


def test_a_copy_of_the_embedding_is_left_out_in_any_dtype(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama(head=False))
    after = trained(llama(head=False))
    want = fitting(sandbox, after).id
    for copy in (after[EMBEDDING], wider(after[EMBEDDING])):
        made = fitting(sandbox, after | {HEAD: copy})
        assert made.id == want
        assert f"{HEAD} equals {EMBEDDING}" in made.notes[0]
    assert "differs" in refused(sandbox, after | {HEAD: nudged(wider(after[EMBEDDING]), 1 << 16)})
