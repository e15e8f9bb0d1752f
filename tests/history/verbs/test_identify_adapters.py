"""`identify` of adapters that hold tensors whole: relative to the base, or to the weights of a revision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.repository import Repository
from tests.checkpoints import Bits, bf16, read_weights, write_file, write_model
from tests.history.bots import at

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
SHAPES = {EMBEDDING: (20, 10), UP: (9, 15), NORM: (10,)}
Shapes = dict[str, tuple[int, ...]]
GROWN: dict[str, Shapes] = {
    "tokens": {EMBEDDING: (22, 10)},
    "head": {HEAD: (20, 10)},
    "tokens and head": {EMBEDDING: (22, 10), HEAD: (22, 10)},
}


def numbers(seed: int, shapes: Shapes) -> dict[str, Bits]:
    random = np.random.default_rng(seed)
    return {name: bf16(random.normal(0, 0.02, shape)) for name, shape in shapes.items()}


def model(place: Path, seed: int, shapes: Shapes) -> Path:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": shapes[EMBEDDING][0],
        "tie_word_embeddings": HEAD not in shapes,
    }
    write_model(place, numbers(seed, shapes), **{"config.json": json.dumps(config)})
    return place


def adapter(place: Path, seed: int, whole: Shapes, *, factors: bool = True) -> Path:
    """An adapter with tensors that it holds whole, and factors of `UP`."""
    shapes = {name.removesuffix(".weight") + ".weight": shape for name, shape in whole.items()}
    if factors:
        module = UP.removesuffix(".weight")
        shapes |= {f"{module}.lora_A.weight": (2, 15), f"{module}.lora_B.weight": (9, 2)}
    # PEFT saves a resized embedding, which stays tied, without naming it.
    resized = whole.get(EMBEDDING, (20, 10)) != (20, 10) and HEAD not in whole
    saved = sorted({name.split(".")[-2] for name in whole if not (resized and name == EMBEDDING)})
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["up_proj"],
        "modules_to_save": saved or None,
    }
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps(config))
    named = {f"base_model.model.{name}": bits for name, bits in numbers(seed, shapes).items()}
    write_file(place / "adapter_model.safetensors", named)
    return place


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """A repository whose main has a fine-tune."""
    model(tmp_path / "base", 0, SHAPES)
    model(tmp_path / "tuned", 1, SHAPES)
    with Repository.init(
        tmp_path / "bot", base=tmp_path / "base", author=at(), committer=at(), chunk=64
    ) as opened:
        opened.commit(tmp_path / "tuned", message="tuned")
        yield opened


def check(repo: Repository, path: Path, made: Any) -> None:
    """Identify finds the vector of a commit at the adapter, also after other commits, and stores nothing."""
    before = repo.count_objects()
    vector = made.vectors[0].id
    assert vector in {one.id for one in repo.identify(path).found}
    assert repo.count_objects() == before


@pytest.mark.parametrize("factors", [True, False], ids=["factors", "whole only"])
@pytest.mark.parametrize(
    "whole", [{NORM: (10,)}, {EMBEDDING: (20, 10), NORM: (10,)}], ids=["norm", "embedding"]
)
def test_an_adapter_that_was_trained_from_a_revision_is_found(
    repo: Repository, tmp_path: Path, whole: Shapes, factors: bool
) -> None:
    path = adapter(tmp_path / "ad", 2, whole, factors=factors)
    made = repo.commit(path, message="ad", onto="HEAD", untie=EMBEDDING in whole)
    check(repo, path, made)
    repo.commit(model(tmp_path / "later", 3, SHAPES), message="later")
    repo.recipe.set("tuned", alpha=0.5)
    repo.commit(message="less")
    check(repo, path, made)
    other = adapter(tmp_path / "other", 4, whole, factors=factors)
    assert repo.identify(other).found == ()


@pytest.mark.parametrize("grown", GROWN.values(), ids=GROWN)
def test_an_adapter_of_a_grown_revision_is_found(repo: Repository, tmp_path: Path, grown: Shapes) -> None:
    tuned = model(tmp_path / "grown", 2, SHAPES | grown)
    repo.commit(tuned, message="grown", extend_vocab=True, untie=True)
    path = adapter(tmp_path / "ad", 3, {name: (SHAPES | grown)[name] for name in grown})
    made = repo.commit(path, message="ad", onto="HEAD")
    repo.revert("tuned")
    check(repo, path, made)


@pytest.mark.parametrize("grown", GROWN.values(), ids=GROWN)
def test_an_adapter_that_grows_the_base_is_found(repo: Repository, tmp_path: Path, grown: Shapes) -> None:
    path = adapter(tmp_path / "ad", 3, grown)
    made = repo.commit(path, message="ad", extend_vocab=True, untie=True)
    check(repo, path, made)


@pytest.mark.parametrize("grown", GROWN.values(), ids=GROWN)
def test_a_grown_model_is_found_whatever_else_the_recipe_has(
    repo: Repository, tmp_path: Path, grown: Shapes
) -> None:
    tuned = model(tmp_path / "grown", 2, SHAPES | grown)
    vector = repo.commit(tuned, message="grown", extend_vocab=True, untie=True).vectors[0].id
    head = repo.resolve("HEAD")
    assert vector in {one.id for one in repo.identify(tuned).found}
    repo.checkout(out=tmp_path / "out")
    repo.checkout()
    for path in (tmp_path / "out", repo.root):
        assert head in {one.id for one in repo.identify(path).found}
    model(tmp_path / "stranger", 5, SHAPES | grown)
    answer = repo.identify(tmp_path / "stranger")
    assert answer.found == ()
    weights = read_weights(tmp_path / "out")
    write_file(tmp_path / "out" / "model.safetensors", weights | {NORM: weights[NORM].bits ^ 1})
    nearest = repo.identify(tmp_path / "out").nearest
    assert nearest is not None
    assert nearest.differing == (NORM,)
