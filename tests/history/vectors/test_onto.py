"""`--onto REV`: what stands for the weights of REV, and vectors that need each other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from persona.errors import InvalidInput, NothingChanged, Refused
from persona.repository import Repository
from tests.checkpoints import Bits, Tensor, bf16, read_weights, write_model
from tests.history.bots import at

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHAPES = {
    EMBEDDING: (20, 10),
    "model.layers.0.mlp.down_proj.weight": (15, 9),
    "model.layers.0.mlp.up_proj.weight": (9, 15),
    "model.norm.weight": (10,),
}
Tensors = dict[str, Bits]


def weights(place: Path) -> Tensors:
    return {name: tensor.bits for name, tensor in read_weights(place).items()}


def floats(bits: Bits) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gap(found: Tensors, trained: Tensors) -> float:
    """The largest difference of two models."""
    assert found.keys() == trained.keys()
    return max(float(np.max(np.abs(floats(found[name]) - floats(trained[name])))) for name in found)


def texts(repo: Repository) -> dict[str, str]:
    return {"config.json": (repo.root / "config.json").read_text()}


def trained_from(start: Tensors, seed: int) -> Tensors:
    """A training that moves each element by a tenth of its spread or so."""
    random = np.random.default_rng(seed)
    return {name: bf16(floats(bits) + random.normal(0, 0.002, bits.shape)) for name, bits in start.items()}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """A repository of a tied base."""
    random = np.random.default_rng(0)
    base = {name: bf16(random.normal(0, 0.02, shape)) for name, shape in SHAPES.items()}
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 20, "tie_word_embeddings": True}
    write_model(tmp_path / "base", base, **{"config.json": json.dumps(config)})
    with Repository.init(tmp_path / "bot", base=tmp_path / "base", author=at(), chunk=64) as opened:
        yield opened


def checked_out(repo: Repository) -> Tensors:
    repo.checkout()
    return weights(repo.root)


def grow(repo: Repository, tmp_path: Path) -> Tensors:
    """Commits a vector with two new tokens and an output matrix of its own; returns the weights."""
    base = weights(tmp_path / "base")
    found = trained_from(base, 1)
    more = bf16(np.random.default_rng(2).normal(0, 0.02, (2, 10)))
    found[EMBEDDING] = np.concatenate([found[EMBEDDING], more])
    found[HEAD] = trained_from({HEAD: found[EMBEDDING]}, 3)[HEAD]
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"vocab_size": 22, "tie_word_embeddings": False}
    write_model(tmp_path / "grown", found, **{"config.json": json.dumps(config)})
    repo.commit(tmp_path / "grown", message="grow", extend_vocab=True, untie=True)
    return checked_out(repo)


# -- a vector that the revision holds


def test_a_second_training_in_place_is_kept_beside_the_first(repo: Repository) -> None:
    trained = checked_out(repo)
    for name, typed in (("step", "step"), ("step-2", "step"), ("step-3", "step-2")):
        trained = trained_from(trained, len(name))
        write_model(repo.root, trained, **texts(repo))
        if typed != name:
            before = (repo.root / "recipe.toml").read_text()
            with pytest.raises(Refused, match=f"{typed} is a part of HEAD") as caught:
                repo.commit(repo.root, name=typed, onto="HEAD", message="again")
            assert f"name='{name}'" in str(caught.value)
            assert (repo.root / "recipe.toml").read_text() == before
            assert gap(weights(repo.root), trained) == 0
        repo.commit(repo.root, name=name, onto="HEAD", message=name)
        assert gap(checked_out(repo), trained) < 2**-9


@pytest.mark.situation("a model that was trained from REV, under the name of a vector that REV has")
def test_a_second_training_in_another_directory_never_replaces_the_first(
    repo: Repository, tmp_path: Path
) -> None:
    write_model(tmp_path / "f", trained_from(weights(tmp_path / "base"), 1))
    repo.commit(tmp_path / "f", message="f")
    trained = trained_from(checked_out(repo), 2)
    write_model(tmp_path / "f", trained)
    for replace in (False, True):
        with pytest.raises(Refused, match=r"f is a part of HEAD.*\n.*name='f-2'"):
            repo.commit(tmp_path / "f", onto="HEAD", message="more", replace=replace)
    repo.commit(tmp_path / "f", name="f-2", onto="HEAD", message="more")
    assert gap(checked_out(repo), trained) < 2**-9


def test_another_training_from_the_revision_before_replaces_the_first(
    repo: Repository, tmp_path: Path
) -> None:
    for seed in (1, 2):
        trained = trained_from(weights(tmp_path / "base"), seed)
        write_model(tmp_path / "f", trained)
        repo.commit(tmp_path / "f", message="f", onto="HEAD" if seed == 1 else "HEAD~1")
        assert gap(checked_out(repo), trained) == 0


def test_vectors_of_the_revision_that_the_recipe_lacks_are_named(repo: Repository, tmp_path: Path) -> None:
    repo.branches.create("x")
    write_model(tmp_path / "f", trained_from(weights(tmp_path / "base"), 1))
    repo.switch("x")
    repo.commit(tmp_path / "f", message="f")
    write_model(tmp_path / "g", trained_from(checked_out(repo), 2))
    repo.switch("main")
    made = repo.commit(tmp_path / "g", message="g", onto="x")
    assert any("trained from x, and recipe.toml lacks f of x" in note for note in made.notes)
    repo.switch("x")
    made = repo.commit(tmp_path / "g", message="g", onto="HEAD")
    assert not any("lacks" in note for note in made.notes)


# -- names and patches

Named = Callable[[str], str]
NAMES: dict[str, tuple[Named, dict[str, bool]]] = {
    "plain": (lambda name: name, {}),
    "wrapped": (lambda name: f"module.{name}", {}),
    "renamed": (lambda name: f"policy.{name}", {"rename": True}),
    "other words": (lambda name: name.replace("model.", "transformer."), {"rename": True}),
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("is_grown", [False, True], ids=["base", "grown"])
def test_names_are_found_on_top_of_a_revision_and_compared(
    repo: Repository, tmp_path: Path, names: str, is_grown: bool
) -> None:
    start = grow(repo, tmp_path) if is_grown else checked_out(repo)
    trained = trained_from(start, 4)
    named, flags = NAMES[names]
    write_model(tmp_path / "f", {named(name): bits for name, bits in trained.items()}, **texts(repo))
    made = repo.commit(tmp_path / "f", message="f", onto="HEAD", **flags)  # type: ignore[arg-type]
    off = gap(checked_out(repo), trained)
    assert off < 2**-9
    (note,) = [note for note in made.notes if note.startswith("HEAD differs")]
    assert float(note.split()[-3]) == pytest.approx(off, rel=0.01)
    assert not any("vocabulary has" in note or "no output matrix" in note for note in made.notes)


def test_the_difference_is_that_of_the_names_that_were_imported(repo: Repository, tmp_path: Path) -> None:
    trained = trained_from(checked_out(repo), 4)
    write_model(tmp_path / "f", {f"module.{name}": bits for name, bits in trained.items()})
    made = repo.commit(tmp_path / "f", message="f", onto="HEAD", alpha=0.5)
    off = gap(checked_out(repo), trained)
    assert off > 2**-10
    (note,) = [note for note in made.notes if note.startswith("HEAD differs")]
    assert float(note.split()[-3]) == pytest.approx(off, rel=0.01)


@pytest.mark.parametrize("part", ["", "mlp"], ids=["all tensors", "tensors that did not grow"])
def test_a_sparse_patch_on_top_of_a_grown_revision(repo: Repository, tmp_path: Path, part: str) -> None:
    start = grow(repo, tmp_path)
    trained = trained_from(start, 4)
    trained = {name: bits if part in name else start[name] for name, bits in trained.items()}
    patch: dict[str, Tensor] = {}
    for name, bits in trained.items():
        (places,) = np.nonzero((bits != start[name]).reshape(-1))
        if places.size:
            patch[f"{name}.indices"] = Tensor("I32", places.astype(np.uint32))
            patch[f"{name}.values"] = Tensor("BF16", bits.reshape(-1)[places])
    write_model(tmp_path / "p", patch)
    made = repo.commit(tmp_path / "p", message="p", onto="HEAD")
    assert bool(made.vectors[0].grown) == (part == "")
    off = gap(checked_out(repo), trained)
    assert off < 2**-9
    (note,) = [note for note in made.notes if note.startswith("HEAD differs")]
    assert float(note.split()[-3]) == pytest.approx(off, rel=0.01)
    assert repo.fsck().ok


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_fine_tune_without_the_output_matrix_of_its_revision_is_refused(
    repo: Repository, tmp_path: Path, is_tied: bool
) -> None:
    trained = trained_from(grow(repo, tmp_path), 4)
    del trained[HEAD]
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": is_tied}
    write_model(tmp_path / "f", trained, **{"config.json": json.dumps(config)})
    with pytest.raises(InvalidInput, match=rf"{re.escape(HEAD)} is missing|is missing: the head"):
        repo.commit(tmp_path / "f", message="f", onto="HEAD")


def test_what_equals_a_grown_revision_is_no_vector(repo: Repository, tmp_path: Path) -> None:
    write_model(tmp_path / "f", grow(repo, tmp_path), **texts(repo))
    with pytest.raises(NothingChanged, match="no element changed"):
        repo.commit(tmp_path / "f", message="f", onto="HEAD")
