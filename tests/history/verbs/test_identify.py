"""Weights are recognised by their numbers, whatever the files, and by nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import InvalidInput
from persona.history.verbs import identify as verb
from persona.history.verbs.identify import Identity
from persona.measure import equality
from persona.repository import Repository
from persona.store.files import replaced_calls
from tests.checkpoints import Tensor, digest_of, tensor_of, write_file, write_model
from tests.disks import Watched
from tests.history.bots import Bot, Tensors, advised, at, base_tensors, read_weights


def names(answer: Identity) -> list[tuple[str, str | None]]:
    return [(found.kind, found.name) for found in answer.found]


def as_float32(tensor: Tensor) -> Tensor:
    assert tensor.dtype == "BF16"
    return Tensor("F32", tensor.bits.astype(np.uint32) << 16)


def test_each_commit_is_recognised_by_its_own_weights(grown: Bot, tmp_path: Path) -> None:
    for rev in ("main", "main~1", "main~2", "main~3"):
        grown.repo.checkout(rev, out=tmp_path / "out", force=True)
        answer = grown.repo.identify(tmp_path / "out")
        assert answer.weights == digest_of(read_weights(tmp_path / "out")) == grown.repo.digest(rev).weights
        assert ("commit", rev) in names(answer)
        assert {found.id for found in answer.found if found.kind == "commit"} == {grown.repo.resolve(rev)}
        assert answer.nearest is None
        assert (answer.dtype, answer.rounded) == (None, False)


def test_the_base_and_a_fine_tune_are_recognised(grown: Bot) -> None:
    assert names(grown.repo.identify(grown.models / "tiny")) == [("commit", "main~3"), ("base", "tiny")]
    assert names(grown.repo.identify(grown.models / "listening")) == [
        ("commit", "main~2"),
        ("vector", "listening"),
    ]
    assert names(grown.repo.identify(grown.models / "suggesting" / "model.safetensors")) == [
        ("vector", "suggesting")
    ]


def test_a_vector_that_no_recipe_has_is_recognised_by_its_kept_name(bot: Bot) -> None:
    path = bot.tune("later", 3)
    bot.repo.add(path)
    bot.repo.recipe.remove("later")
    assert names(bot.repo.identify(path)) == [("vector", "later")]


def test_a_sparse_patch_holds_no_weights(grown: Bot, tmp_path: Path) -> None:
    grown.repo.export_patch("HEAD~1", "HEAD", out=tmp_path / "p.safetensors")
    with pytest.raises(InvalidInput, match=r"p\.safetensors is a sparse patch") as caught:
        grown.repo.identify(tmp_path / "p.safetensors")
    assert advised(caught.value) == f"`repo.add('{tmp_path / 'p.safetensors'}')` imports it as a vector"


def test_a_tag_names_its_commit_and_equal_recipes_are_all_listed(grown: Bot) -> None:
    grown.repo.tags.create("v1", "HEAD~3")
    grown.repo.revert("listening")
    grown.repo.revert("suggesting")
    answer = grown.repo.identify(grown.models / "tiny")
    assert names(answer) == [("commit", "main"), ("commit", "v1"), ("base", "tiny")]
    assert answer.found[1].message == "Begin with tiny"


def test_a_commit_that_only_the_reflog_names_is_found_without_a_name(grown: Bot) -> None:
    gone = grown.repo.resolve("HEAD")
    grown.checkout()
    weights = grown.root / "model.safetensors"
    kept = grown.models / "kept.safetensors"
    kept.write_bytes(weights.read_bytes())
    grown.repo.reset("HEAD~1")
    assert [(found.id, found.name) for found in grown.repo.identify(kept).found] == [(gone, None)]


def test_order_and_metadata_make_no_difference(grown: Bot, tmp_path: Path) -> None:
    tune = dict(reversed(grown.tunes["suggesting"].items()))
    path = write_file(tmp_path / "a.safetensors", tune, {"any": "thing"})
    assert names(grown.repo.identify(path)) == [("vector", "suggesting")]


def test_a_second_copy_of_a_tied_tensor_makes_no_difference(tmp_path: Path) -> None:
    bits = np.arange(12, dtype=np.uint16).reshape(3, 4)
    once = {"model.embed_tokens.weight": bits, "model.norm.weight": bits[0]}
    twice = once | {"lm_head.weight": bits}
    config = {"config.json": '{"tie_word_embeddings": true}'}
    for stored, given in ((once, twice), (twice, once)):
        write_model(tmp_path / "base", stored, **config)
        write_model(tmp_path / "given", given, **config)
        with Repository.init(tmp_path / f"bot-{len(stored)}", base=tmp_path / "base", author=at()) as repo:
            assert names(repo.identify(tmp_path / "given")) == [("commit", "main"), ("base", "base")]
    other = once | {"lm_head.weight": bits + 1}
    write_model(tmp_path / "given", other, **config)
    with Repository.open(tmp_path / "bot-2") as repo:
        answer = repo.identify(tmp_path / "given")
    assert answer.nearest is not None
    assert answer.nearest.extra == ("lm_head.weight",)


def test_a_copy_in_float32_has_the_same_numbers(grown: Bot, tmp_path: Path) -> None:
    wide = {name: as_float32(tensor_of(given)) for name, given in grown.tunes["suggesting"].items()}
    answer = grown.repo.identify(write_file(tmp_path / "wide.safetensors", wide))
    assert names(answer) == [("vector", "suggesting")]
    assert (answer.dtype, answer.rounded) == ("float32", False)
    name = next(iter(wide))
    wide[name].bits.reshape(-1)[0] += 1  # below the precision of bf16
    answer = grown.repo.identify(write_file(tmp_path / "wide.safetensors", wide))
    assert names(answer) == [("vector", "suggesting")]
    assert (answer.dtype, answer.rounded) == ("float32", True)
    wide[name].bits.reshape(-1)[0] += 1 << 16
    answer = grown.repo.identify(write_file(tmp_path / "wide.safetensors", wide))
    assert answer.found == ()
    assert answer.nearest is not None
    assert answer.nearest.differing == (name,)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weights_that_were_written_in_another_dtype_are_recognised(
    grown: Bot, dtype: str, tmp_path: Path
) -> None:
    made = grown.repo.checkout("main", out=tmp_path / "out", dtype=dtype)
    answer = grown.repo.identify(tmp_path / "out")
    assert names(answer) == [("commit", "main")]
    assert (answer.weights, answer.dtype, answer.rounded) == (made.weights, dtype, dtype == "float16")


def test_what_is_nearest_is_told_with_the_tensors_that_differ(grown: Bot, tmp_path: Path) -> None:
    weights = grown.checkout("main~1")
    last = sorted(weights)[-1]
    weights[last] = (weights[last] + 1).astype(np.uint16)
    answer = grown.repo.identify(write_file(tmp_path / "near.safetensors", weights))
    assert answer.found == ()
    assert answer.nearest is not None
    assert [near.name for near in answer.nearest.names] == ["main~1"]
    assert answer.nearest.differing == (last,)
    assert answer.nearest.equal == answer.tensors - 1
    assert (answer.nearest.missing, answer.nearest.extra) == ((), ())


def test_missing_and_extra_tensors_are_told(grown: Bot, tmp_path: Path) -> None:
    weights = dict(grown.tunes["listening"])
    gone, reshaped = sorted(weights)[:2]
    del weights[gone]
    weights[reshaped] = np.zeros((1, 1, 7), np.uint16)
    weights["new.weight"] = np.zeros(3, np.uint16)
    answer = grown.repo.identify(write_file(tmp_path / "odd.safetensors", weights))
    assert answer.found == ()
    assert answer.nearest is not None
    assert {"listening"} <= {near.name for near in answer.nearest.names}
    assert answer.nearest.missing == (gone, reshaped)
    assert answer.nearest.extra == ("new.weight",)
    assert answer.nearest.differing == ()


def test_another_model_has_nothing_in_common(grown: Bot, tmp_path: Path) -> None:
    answer = grown.repo.identify(write_file(tmp_path / "other.safetensors", {"x": np.zeros(3, np.uint16)}))
    assert (answer.found, answer.nearest, answer.tensors) == ((), None, 1)
    with pytest.raises(InvalidInput, match="no such file"):
        grown.repo.identify(tmp_path / "nothing")


def test_two_bases_are_told_apart(grown: Bot, tmp_path: Path) -> None:
    other = {name: (bits + 1).astype(np.uint16) for name, bits in base_tensors().items()}
    write_model(tmp_path / "second", other)
    Repository.init(tmp_path / "there", base=tmp_path / "second", author=at(), chunk=64)
    with Repository.open(tmp_path / "there") as repo:
        assert names(repo.identify(tmp_path / "second")) == [("commit", "main"), ("base", "second")]
        assert repo.identify(tmp_path / "tiny").found == ()


class ReadOnly(Watched):
    """A disk on which nothing can be changed."""

    def step(self, name: str, changes: bool, *paths: Path) -> None:
        if changes:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_disk_that_is_read_only_gives_the_same_answer(grown: Bot) -> None:
    with replaced_calls(ReadOnly()):
        assert names(grown.repo.identify(grown.models / "listening"))[0] == ("commit", "main~2")


def test_nothing_but_the_cache_is_written(grown: Bot) -> None:
    def stored() -> dict[Path, bytes]:
        found = (path for path in grown.root.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in found if "cache" not in path.parts}

    before = stored()
    grown.repo.identify(grown.models / "listening")
    assert stored() == before


def test_a_damaged_vector_leaves_the_others_comparable(grown: Bot, tmp_path: Path) -> None:
    grown.repo.checkout("main~2", out=tmp_path / "out")
    manifest = grown.repo.vectors["suggesting"].id
    real = grown.repo._history.vector

    def lost(id: str) -> object:
        from persona.errors import IntegrityError

        if id == manifest:
            raise IntegrityError("vector is missing")
        return real(id)

    grown.repo._history.vector = lost  # type: ignore[method-assign, assignment]
    answer = grown.repo.identify(tmp_path / "out")
    assert ("commit", "main~2") in names(answer)
    assert any("was not compared" in note for note in answer.notes)


def test_an_adapter_is_the_vector_that_it_was_imported_as(grown: Bot, tmp_path: Path) -> None:
    grown.repo.vectors.extract("listening", rank=2, out=tmp_path / "small")
    grown.repo.vectors.extract("listening", rank=3, out=tmp_path / "larger")
    before = grown.repo.count_objects()
    answer = grown.repo.identify(tmp_path / "small")
    assert (answer.found, answer.weights, answer.nearest) == ((), None, None)
    assert [advised(note) for note in answer.notes] == [
        f"`repo.add({os.fspath(tmp_path / 'small')!r})` imports it as a vector"
    ]
    assert grown.repo.count_objects() == before
    grown.repo.recipe.remove("listening")
    grown.repo.recipe.remove("suggesting")
    made = grown.commit(tmp_path / "small", "small")
    answer = grown.repo.identify(tmp_path / "small")
    assert [(found.kind, found.id) for found in answer.found] == [
        ("commit", made.id),
        ("vector", made.vectors[0].id),
    ]
    assert grown.repo.identify(tmp_path / "larger").found == ()
    grown.repo.checkout(out=tmp_path / "whole")
    assert names(grown.repo.identify(tmp_path / "whole")) == names(answer)


def test_an_adapter_of_another_model_is_refused(grown: Bot, tmp_path: Path) -> None:
    grown.repo.vectors.extract("listening", rank=2, out=tmp_path / "adapter")
    write_model(tmp_path / "second", {"other.weight": np.zeros((4, 4), np.uint16)})
    Repository.init(tmp_path / "there", base=tmp_path / "second", author=at(), chunk=64)
    with Repository.open(tmp_path / "there") as repo, pytest.raises(InvalidInput, match=r"model\.layers"):
        repo.identify(tmp_path / "adapter")


def test_only_what_an_equal_sample_leaves_open_is_merged(grown: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = grown.checkout("main")
    monkeypatch.setattr(verb, "_SMALLEST", 1)
    asked: list[set[str]] = []
    real = equality.equal

    def equal(plan: Any, expected: Any, names: Any, **options: Any) -> dict[str, bool]:
        asked.append(set(names))
        return real(plan, expected, names, **options)

    monkeypatch.setattr(equality, "equal", equal)
    assert names(grown.repo.identify(grown.root)) == [("commit", "main")]
    sample = min(whole, key=lambda name: whole[name].size)
    assert [one for one in asked if one != {sample}] == [set(whole) - {sample}]


def test_a_damaged_reflog_is_told_and_the_rest_is_compared(grown: Bot) -> None:
    log = grown.root / ".persona" / "logs" / "HEAD"
    log.write_bytes(b"x" * 200 + log.read_bytes())
    answer = grown.repo.identify(grown.models / "listening")
    assert names(answer)[0] == ("commit", "main~2")
    assert any("reflog" in note or "logs" in note for note in answer.notes)


# -- other names

LAYERS = ("model.layers.0.mlp.weight", "model.layers.1.mlp.weight")
NAMED: dict[str, Callable[[Tensors], Tensors]] = {
    "wrapped": lambda model: {f"module.{name}": bits for name, bits in model.items()},
    "partly": lambda model: {
        name.replace("layers.0", "layers.0._orig_mod"): bits for name, bits in model.items()
    },
    "renamed": lambda model: {name.replace("model.", "net.body."): bits for name, bits in model.items()},
}


@pytest.mark.parametrize("names_of", NAMED)
def test_weights_are_recognised_under_other_names(grown: Bot, tmp_path: Path, names_of: str) -> None:
    named = NAMED[names_of]
    grown.repo.checkout(out=tmp_path / "out")
    models = {
        ("commit", "main"): read_weights(tmp_path / "out"),
        ("vector", "suggesting"): grown.tunes["suggesting"],
        ("base", "tiny"): grown.base,
    }
    for known, model in models.items():
        place = write_model(tmp_path / "-".join(map(str, known)), named(model))
        answer = grown.repo.identify(place)
        assert known in names(answer)
        assert answer.weights == digest_of(named(model))
        assert (answer.nearest, answer.tensors) == (None, len(model))
        assert any("compared under the base's names" in note for note in answer.notes)


def test_what_is_nearest_is_told_under_other_names(grown: Bot, tmp_path: Path) -> None:
    model = NAMED["wrapped"](read_weights(grown.models / "listening"))
    model[f"module.{LAYERS[0]}"] = model[f"module.{LAYERS[0]}"] ^ np.uint16(1)
    answer = grown.repo.identify(write_model(tmp_path / "near", model))
    assert answer.nearest is not None
    assert answer.nearest.differing == (LAYERS[0],)
    assert (answer.nearest.missing, answer.nearest.extra) == ((), ())


def test_names_that_no_import_takes_are_not_guessed(grown: Bot, tmp_path: Path) -> None:
    model = {f"part.{number}": bits for number, bits in enumerate(grown.base.values())}
    model.popitem()
    answer = grown.repo.identify(write_model(tmp_path / "other", model))
    assert answer.found == ()
    assert answer.notes == ()
