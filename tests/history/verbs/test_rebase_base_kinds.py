"""A vector of any kind and dtype moves onto another base and back, within the two reported roundings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.history.verbs.rebase_base import BaseMove
from persona.merge.arithmetic.casts import widen
from persona.repository import Repository
from tests.checkpoints import Model, Tensor, bf16, read_weights, write_model
from tests.history.bots import at

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UP, DOWN, NORM = (
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.norm.weight",
)
SHAPES = {EMBEDDING: (20, 10), UP: (9, 15), DOWN: (15, 9), NORM: (200,)}
MIXED = {EMBEDDING: "BF16", UP: "F16", DOWN: "BF16", NORM: "F32", HEAD: "BF16"}
Floats = dict[str, np.ndarray[Any, Any]]


def narrowed(values: np.ndarray[Any, Any], dtype: str) -> Tensor:
    """Floats as the elements of a dtype."""
    if dtype == "BF16":
        return Tensor(dtype, bf16(values))
    small = values.astype({"F16": np.float16, "F32": np.float32}[dtype])
    return Tensor(dtype, small.view({"F16": np.uint16, "F32": np.uint32}[dtype]))


def wide(model: Model) -> Floats:
    """The elements of a model as binary64."""
    return {name: np.asarray(widen(one.bits, one.dtype), np.float64) for name, one in model.items()}


class Models:
    """A base, another base of the same tensors, and fine-tunes of the first, beside a repository."""

    def __init__(self, place: Path, dtypes: dict[str, str], *, head: bool = False) -> None:
        self.place, self.dtypes = place, dtypes
        shapes = SHAPES | ({HEAD: SHAPES[EMBEDDING]} if head else {})
        random = np.random.default_rng(1)
        self.base = self._write("base", {n: random.normal(0, 0.02, shape) for n, shape in shapes.items()})
        moved = {n: one + random.normal(0, 0.003, one.shape) for n, one in wide(self.base).items()}
        self.other = self._write("other", moved)
        self.repo = Repository.init(place / "bot", base=place / "base", author=at(), committer=at(), chunk=64)

    def _write(self, name: str, values: Floats) -> Model:
        made = {tensor: narrowed(one, self.dtypes[tensor]) for tensor, one in values.items()}
        config = {"vocab_size": len(values[EMBEDDING]), "tie_word_embeddings": HEAD not in values}
        write_model(self.place / name, made, **{"config.json": json.dumps(config) + "\n"})
        return made

    def tune(self, name: str, seed: int, *, tokens: int = 20, head: bool = False) -> Path:
        """A fine-tune: a third of the elements a little away, with new rows or a head of its own."""
        random = np.random.default_rng(seed)
        values = wide(self.base)
        if head and HEAD not in values:
            values[HEAD] = values[EMBEDDING] + random.normal(0, 0.01, SHAPES[EMBEDDING])
        for tensor, one in values.items():
            values[tensor] = one + random.normal(0, 0.004, one.shape) * (random.random(one.shape) < 0.34)
            if tensor in (EMBEDDING, HEAD) and tokens > 20:
                values[tensor] = np.concatenate([values[tensor], random.normal(0, 0.02, (tokens - 20, 10))])
        self._write(name, values)
        return self.place / name

    def weights(self) -> Floats:
        """The weights of the recipe."""
        self.repo.checkout(force=True)
        return wide(read_weights(self.repo.root))

    def moved(self, to: str) -> tuple[BaseMove, Floats]:
        """Moves the recipe; returns what was reported, and the weights."""
        move = self.repo.rebase_base(self.place / to if to == "other" else to)
        return move, self.weights()


def check(models: Models, *, exact: bool = False) -> None:
    """The recipe, of one vector at full strength, goes to the other base and back."""
    before = models.weights()
    there, away = models.moved("other")
    back, again = models.moved("base")
    assert models.repo.fsck(full=True).ok
    one, two = there.largest_rounding, back.largest_rounding
    assert (one, two) == (there.moved[-1].largest_rounding, back.moved[-1].largest_rounding)
    base, other = wide(models.base), wide(models.other)
    base.setdefault(HEAD, base[EMBEDDING])
    other.setdefault(HEAD, other[EMBEDDING])
    largest = 0.0
    for tensor, tuned in before.items():
        rows = len(base[tensor])
        assert away[tensor].shape == again[tensor].shape == tuned.shape
        unit = np.abs(tuned).max() * 2.0 ** {"BF16": -8, "F16": -11, "F32": -24}[models.dtypes[tensor]]
        exactly = tuned.copy()
        exactly[:rows] += other[tensor] - base[tensor]
        difference = np.abs(away[tensor] - exactly)
        untouched = tuned[:rows] == base[tensor]
        if not exact:
            assert np.array_equal(away[tensor][:rows][untouched], other[tensor][untouched])
            difference[:rows][untouched] = 0
            assert difference.max() <= one
            assert np.abs(again[tensor] - tuned).max() <= one + two
        assert difference.max() <= 2 * unit
        largest = max(largest, float(difference.max()))
    if exact:
        assert (one, two) == (0, 0)
        assert all(np.array_equal(again[tensor], tuned) for tensor, tuned in before.items())
    else:
        assert largest == pytest.approx(one)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "mixed"])
def test_a_delta_of_any_dtype(tmp_path: Path, dtype: str) -> None:
    models = Models(
        tmp_path, MIXED if dtype == "mixed" else dict.fromkeys(MIXED, dtype), head=dtype == "mixed"
    )
    models.repo.commit(models.tune("tune", 3), message="tune")
    check(models)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(("tokens", "head"), [(21, False), (84, False), (20, True), (23, True)])
def test_a_vector_that_adds_tokens_or_a_head(tmp_path: Path, dtype: str, tokens: int, head: bool) -> None:
    models = Models(tmp_path, dict.fromkeys(MIXED, dtype))
    path = models.tune("tune", 3, tokens=tokens, head=head)
    models.repo.commit(path, message="tune", extend_vocab=tokens > 20, untie=head)
    check(models)
    config = json.loads((models.repo.root / "config.json").read_text())
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (tokens, not head)


def test_tokens_of_a_base_that_is_not_tied(tmp_path: Path) -> None:
    models = Models(tmp_path, MIXED, head=True)
    models.repo.commit(models.tune("tune", 3, tokens=22), message="tune", extend_vocab=True)
    check(models)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_an_adapter_keeps_its_factors_and_comes_back_to_the_bit(tmp_path: Path, dtype: str) -> None:
    models = Models(tmp_path, dict.fromkeys(MIXED, dtype))
    models.repo.commit(models.tune("tune", 3), message="tune")
    models.repo.vectors.extract("tune", rank=4, out=tmp_path / "adapter", lora_only=True)
    models.repo.recipe.remove("tune")
    models.repo.commit(tmp_path / "adapter", message="adapter", name="adapter")
    assert models.repo.vectors["adapter"].kind == "lowrank"
    check(models, exact=True)


def test_an_adapter_with_a_whole_tensor_moves_that_tensor(tmp_path: Path) -> None:
    models = Models(tmp_path, dict.fromkeys(MIXED, "BF16"))
    models.repo.commit(models.tune("tune", 3), message="tune")
    models.repo.vectors.extract("tune", rank=4, out=tmp_path / "adapter")
    models.repo.recipe.remove("tune")
    models.repo.commit(tmp_path / "adapter", message="adapter", name="adapter")
    before = models.weights()
    there, away = models.moved("other")
    back, again = models.moved("base")
    assert there.largest_rounding > 0
    for tensor, tuned in before.items():
        rounding = there.largest_rounding + back.largest_rounding if tensor == NORM else 0
        assert np.abs(again[tensor] - tuned).max() <= rounding
        assert not np.array_equal(away[tensor], tuned)


@pytest.mark.parametrize("grown", [False, True])
def test_an_expression_of_a_delta_and_an_adapter(tmp_path: Path, grown: bool) -> None:
    models = Models(tmp_path, dict.fromkeys(MIXED, "BF16"))
    repo = models.repo
    repo.commit(models.tune("first", 3), message="first")
    repo.vectors.extract("first", rank=4, out=tmp_path / "adapter", lora_only=True)
    repo.commit(tmp_path / "adapter", message="adapter", name="adapter")
    repo.commit(models.tune("second", 4, tokens=21 if grown else 20), message="second", extend_vocab=grown)
    repo.vectors.derive("sum", "0.5 * adapter + second")
    repo.recipe.remove("first", "adapter", "second")
    repo.commit(message="sum")
    before = models.weights()
    there, away = models.moved("other")
    back, again = models.moved("base")
    assert repo.fsck(full=True).ok
    assert len(away[EMBEDDING]) == (21 if grown else 20)
    assert there.moved[0].kind == "expression"
    for tensor, tuned in before.items():
        step = np.abs(tuned).max() * 2.0**-8  # of each checkout, which rounds the sum
        rounding = there.largest_rounding + back.largest_rounding
        assert np.abs(again[tensor] - tuned).max() <= rounding + 2 * step
