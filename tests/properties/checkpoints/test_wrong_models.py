"""Fine-tunes that are nearly the base's: no advice leads to weights that are not the fine-tune's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.advice import follow
from tests.checkpoints import Model, Tensor, read_weights, same, write_file, write_weights
from tests.cli.command_line import CommandLine
from tests.families import moved, renamed, same_answers, train

Families = Callable[[str], Path]
FLAGS = ("--missing", "--extra", "--rename", "--untie")


class Pair:
    """A repository `bot` of a base, and the directory `tuned` of its fine-tune."""

    def __init__(self, place: Path, base: Path) -> None:
        self.tuned = place / "tuned"
        train(base, self.tuned)
        CommandLine(place).ok("init", "bot", "--base", base)
        self.run = CommandLine(place / "bot")

    def rewrite(self, change: Callable[[Model], Model]) -> None:
        write_file(self.tuned / "model.safetensors", change(read_weights(self.tuned)))

    def configure(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.tuned / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    def refused(self, *more: str) -> str:
        """What `commit` says, which refuses and names no flag."""
        said = self.run.refused(4, "commit", "../tuned", "-m", "x", *more)
        assert not any(flag in said for flag in FLAGS), said
        return said


@pytest.fixture
def pair(families: Families, tmp_path: Path) -> Callable[[str], Pair]:
    return lambda name: Pair(tmp_path, families(name))


def without(part: str) -> Callable[[Model], Model]:
    def change(model: Model) -> Model:
        assert any(part in name for name in model)
        return {name: held for name, held in model.items() if part not in name}

    return change


@pytest.mark.parametrize(
    ("family", "part", "keys"),
    [
        ("llama", ".layers.1.", ("num_hidden_layers",)),
        ("llava", "language_model.model.layers.1.", ("text_config", "num_hidden_layers")),
        ("t5", "decoder.block.0.", ("num_decoder_layers",)),
        ("mixtral", "experts.1.", ("num_local_experts",)),
    ],
)
def test_a_pruned_model_is_named_by_its_depth(
    pair: Callable[[str], Pair], family: str, part: str, keys: Iterable[str]
) -> None:
    found = pair(family)
    found.rewrite(without(part))

    def prune(config: dict[str, Any]) -> None:
        *outer, last = keys
        for key in outer:
            config = config[key]
        config[last] = config.get(last, 2) - 1

    found.configure(prune)
    said = found.refused()
    assert f"its config.json says {'.'.join(keys)} = " in said
    assert "no fine-tune of this base" in said


@pytest.mark.situation("the file is one shard of a model (`model-00001-of-00002.safetensors`)")
@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "first.safetensors"])
def test_one_shard_is_no_model(pair: Callable[[str], Pair], name: str) -> None:
    found = pair("llama")
    model = read_weights(found.tuned)
    (found.tuned / "model.safetensors").unlink()
    write_weights(found.tuned, model, 2)
    (found.tuned / "model-00001-of-00002.safetensors").rename(found.tuned / name)
    index = found.tuned / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001-of-00002.safetensors", name))
    said = found.run.refused(4, "commit", f"../tuned/{name}", "-m", "x")
    assert "one of 2 shards, and holds only a part of the model" in said
    assert not any(flag in said for flag in FLAGS)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


def random_like(held: Tensor) -> Tensor:
    bits = np.random.default_rng(7).permutation(held.bits.reshape(-1)).reshape(held.bits.shape)
    return Tensor(held.dtype, bits)


EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize("name", ["embed_out.weight", "other.lm_head.weight"])
def test_a_head_under_a_name_that_no_model_reads_is_not_untied(
    pair: Callable[[str], Pair], name: str
) -> None:
    found = pair("llama tied")
    found.rewrite(lambda model: model | {name: random_like(model[EMBEDDING])})
    found.configure(lambda config: config.update(tie_word_embeddings=False))
    for more in ((), ("--untie",), ("--untie", "--extra", "ignore")):
        assert "call the tensor lm_head.weight" in found.refused(*more)


def test_a_head_of_its_own_is_renamed_with_the_model(pair: Callable[[str], Pair]) -> None:
    found = pair("llama tied")
    found.rewrite(lambda model: model | {"lm_head.weight": random_like(model[EMBEDDING])})
    found.configure(lambda config: config.update(tie_word_embeddings=False))
    shutil.copytree(found.tuned, found.tuned.parent / "whole")
    found.rewrite(renamed("^", "policy."))
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned.parent / "whole")
    assert "lm_head.weight" in read_weights(found.run.directory)


def test_an_embedding_of_a_draft_is_no_head(pair: Callable[[str], Pair]) -> None:
    found = pair("llama tied")
    shutil.copytree(found.tuned, found.tuned.parent / "whole")
    found.rewrite(lambda model: model | {f"mtp.{EMBEDDING[6:]}": random_like(model[EMBEDDING])})
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned.parent / "whole")


def test_the_bias_of_a_head_that_is_taken_is_not_left_out(pair: Callable[[str], Pair]) -> None:
    found = pair("bert")
    decoder = "cls.predictions.decoder."

    def untied(model: Model) -> Model:
        words = random_like(model["bert.embeddings.word_embeddings.weight"])
        return model | {decoder + "weight": words, decoder + "bias": model["cls.predictions.bias"]}

    found.rewrite(untied)
    found.configure(lambda config: config.update(tie_word_embeddings=False))
    assert decoder + "bias" in found.refused("--untie")
    assert decoder + "bias" in found.refused("--untie", "--extra", "ignore")


@pytest.mark.situation("two models lie in one file (`policy.`, `ref_model.`), and none has the base's names")
def test_two_models_in_one_file(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    trained = read_weights(found.tuned)
    other = {f"ref_model.{name}": held for name, held in moved(trained, 4).items()}
    found.rewrite(lambda model: {f"policy.{name}": held for name, held in model.items()} | other)
    for more in ((), ("--rename",), ("--rename", "--extra", "ignore")):
        assert "ref_model" in found.refused(*more)
    found.rewrite(lambda model: trained)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


@pytest.mark.situation(
    "a weight is there as its parts (`parametrizations`, `weight_g`, `weight_orig` and `weight_mask`)"
)
@pytest.mark.parametrize("dtype", ["BF16", "U8"])
def test_a_weight_as_its_parts(pair: Callable[[str], Pair], dtype: str) -> None:
    found = pair("llama")
    trained = read_weights(found.tuned)
    name = "model.layers.0.mlp.up_proj.weight"
    ones = np.ones(trained[name].bits.shape, np.uint8 if dtype == "U8" else np.uint16)
    parts = {f"{name}_orig": trained[name], f"{name}_mask": Tensor(dtype, ones)}
    found.rewrite(lambda model: without(name)(model) | parts)
    for more in ((), ("--rename",), ("--rename", "--extra", "ignore")):
        assert "prune.remove" in found.refused(*more)
    found.rewrite(lambda model: trained)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


@pytest.mark.situation("the fine-tune lacks a matrix, and a draft model or another head has one of this name")
def test_a_matrix_of_a_draft_model_is_not_the_lost_one(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    whole = read_weights(found.tuned)
    found.rewrite(
        lambda model: without("lm_head")(model) | {"mtp.lm_head.weight": random_like(model["lm_head.weight"])}
    )
    for more in ((), ("--rename",)):
        assert "lm_head.weight" in found.refused(*more)
    found.rewrite(lambda model: whole)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


@pytest.mark.situation("the fine-tune lacks a layer or an expert that equals another one in the base")
@pytest.mark.parametrize("pruned", [False, True])
def test_a_lost_layer_of_an_upscaled_model(families: Families, tmp_path: Path, pruned: bool) -> None:
    shutil.copytree(families("llama"), tmp_path / "base")
    model = read_weights(tmp_path / "base")
    twice = {
        name: model[name.replace(".layers.1.", ".layers.0.")] if ".layers.1." in name else held
        for name, held in model.items()
    }
    write_file(tmp_path / "base" / "model.safetensors", twice)
    found = Pair(tmp_path, tmp_path / "base")
    whole = read_weights(found.tuned)
    found.rewrite(without(".layers.1."))
    if pruned:
        found.configure(lambda config: config.update(num_hidden_layers=1))
    for more in ((), ("--missing", "zero")):
        named = "says num_hidden_layers = 1" if pruned and not more else "nor are its values"
        assert named in found.refused(*more)
    found.rewrite(lambda model: whole)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same(read_weights(found.run.directory), whole)


def test_a_layer_more_is_not_left_out_if_no_config_counts_the_layers(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    found.rewrite(
        lambda model: (
            model | {name.replace("s.1.", "s.2."): held for name, held in model.items() if "s.1." in name}
        )
    )
    (found.tuned / "config.json").unlink()
    assert "in a layer that the base does not have, and no config.json" in found.refused()
    shutil.copy(found.run.directory / "config.json", found.tuned)
    assert "--extra ignore" in found.run.refused(4, "commit", "../tuned", "-m", "x")
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)
