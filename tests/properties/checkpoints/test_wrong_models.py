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
        self.base, self.tuned = base, place / "tuned"
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


@pytest.mark.parametrize("held", [True, False])
def test_the_bias_of_a_head_that_is_taken_comes_with_it(pair: Callable[[str], Pair], held: bool) -> None:
    """transformers unties the two biases with the two matrices, and saves one of them."""
    found = pair("bert")
    decoder, bias = "cls.predictions.decoder.", "cls.predictions.bias"

    def untied(model: Model) -> Model:
        words = random_like(model["bert.embeddings.word_embeddings.weight"])
        return model | {decoder + "weight": words, decoder + "bias": model[bias]}

    found.rewrite(untied)
    found.configure(lambda config: config.update(tie_word_embeddings=False))
    shutil.copytree(found.tuned, found.tuned.parent / "whole")
    if not held:
        found.rewrite(without(decoder + "bias"))
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned.parent / "whole")
    found.run.ok("set", "tuned", "--alpha", "0")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.base)


@pytest.mark.situation("two models lie in one file (`policy.`, `ref_model.`)")
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
        named = "says num_hidden_layers = 1" if pruned else "nor are its values"
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
    assert "is a layer that the base does not have, and no config.json" in found.refused()
    shutil.copy(found.run.directory / "config.json", found.tuned)
    assert "--extra ignore" in found.run.refused(4, "commit", "../tuned", "-m", "x")
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


# -- what only a config tells


def prune_config(found: Pair, key: str = "num_hidden_layers", value: int = 1) -> None:
    def prune(config: dict[str, Any]) -> None:
        config.pop("n_layer", config.pop("num_hidden_layers", None))
        config[key] = value

    found.configure(prune)


@pytest.mark.parametrize(
    "given", ["model.safetensors", "weights.safetensors", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("linked", [False, True])
def test_the_config_beside_a_given_file_is_read(
    pair: Callable[[str], Pair], given: str, linked: bool
) -> None:
    found = pair("llama")
    found.rewrite(without(".layers.1."))
    prune_config(found)
    model = read_weights(found.tuned)
    if given.endswith("json"):
        (found.tuned / "model.safetensors").unlink()
        write_weights(found.tuned, model, 2)
    else:
        (found.tuned / "model.safetensors").rename(found.tuned / given)
    if linked:
        (found.tuned / "config.json").rename(found.tuned.parent / "elsewhere.json")
        (found.tuned / "config.json").symlink_to(found.tuned.parent / "elsewhere.json")
    for more in ((), ("--missing", "zero")):
        said = found.run.refused(4, "commit", f"../tuned/{given}", "-m", "x", *more)
        assert "says num_hidden_layers = 1, and the base's says 2" in said


@pytest.mark.situation("no `config.json` lies beside the weights")
@pytest.mark.parametrize("part", [".layers.1.", "lm_head"])
def test_nothing_is_guessed_without_a_config(pair: Callable[[str], Pair], part: str) -> None:
    found = pair("llama")
    whole = read_weights(found.tuned)
    config = (found.tuned / "config.json").read_text()
    (found.tuned / "config.json").unlink()
    found.rewrite(without(part))
    for more in ((), ("--missing", "zero")):
        said = found.refused(*more)
        assert "is missing, and no config.json says" in said
        assert "give a directory that holds the weights and their config.json" in said
    found.rewrite(lambda model: whole)
    assert (
        "no config.json lies beside the weights of tuned" in found.run("commit", "../tuned", "-m", "x").stderr
    )
    (found.tuned / "config.json").write_text(config)
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


def test_a_head_that_was_not_saved_is_not_the_one_of_the_base(pair: Callable[[str], Pair]) -> None:
    """`save_pretrained` leaves it out while the two matrices share their memory, whatever the config says."""
    found = pair("llama")
    whole = read_weights(found.tuned)
    found.rewrite(without("lm_head"))
    for more in ((), ("--missing", "zero")):
        assert "nothing else of the base: it was lost when the model was saved" in found.refused(*more)
    found.run.ok("commit", "../tuned", "-m", "x", "--missing", "lm_head.weight")
    found.rewrite(lambda model: whole)  # as the hint says
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


def test_a_pruned_model_of_a_base_without_a_config(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    place = found.tuned.parent
    shutil.copytree(found.tuned, place / "lone")
    (place / "lone" / "config.json").unlink()
    CommandLine(place).ok("init", "other", "--base", place / "lone" / "model.safetensors")
    found.run = CommandLine(place / "other")
    found.rewrite(lambda model: without(".layers.1.")(moved(model, 2)))
    prune_config(found)
    for more in ((), ("--missing", "zero")):
        assert "model.layers.1 of the base is missing, and its config.json says" in found.refused(*more)


@pytest.mark.parametrize(
    ("family", "part", "key"),
    [
        ("gpt2", ".h.1.", "num_hidden_layers"),
        ("llama", ".layers.1.", "decoder_num_layers"),
        ("llama", ".layers.0.", "unknown"),
    ],
)
def test_a_depth_under_another_key(pair: Callable[[str], Pair], family: str, part: str, key: str) -> None:
    found = pair(family)
    found.rewrite(without(part))
    prune_config(found, key)
    for more in ((), ("--missing", "zero")):
        said = found.refused(*more)
        assert f"says {key} = 1" in said or "does not say that the model has 2 layers" in said


def test_a_layer_is_missing_from_the_file_alone(pair: Callable[[str], Pair]) -> None:
    """Its config counts as many layers as the base's, so the layer may have been frozen."""
    found = pair("llama")
    found.rewrite(without(".layers.1."))
    assert "--missing zero" in found.run.refused(4, "commit", "../tuned", "-m", "x")
    found.run.ok("commit", "../tuned", "-m", "x", "--missing", "zero")


def test_a_layer_that_no_config_counts_may_be_missing(families: Families, tmp_path: Path) -> None:
    """The base's file holds a multi-token head as a layer, which transformers neither computes nor saves."""
    shutil.copytree(families("llama"), tmp_path / "base")
    model = read_weights(tmp_path / "base")
    more = {name.replace("s.1.", "s.2."): random_like(held) for name, held in model.items() if "s.1." in name}
    write_file(tmp_path / "base" / "model.safetensors", model | more)
    found = Pair(tmp_path, tmp_path / "base")
    found.rewrite(without(".layers.2."))
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same(read_weights(found.run.directory), read_weights(found.tuned) | more)


def test_biases_of_zeros_may_be_missing(families: Families, tmp_path: Path) -> None:
    shutil.copytree(families("qwen2"), tmp_path / "base")
    model = read_weights(tmp_path / "base")
    zeros = {
        name: Tensor(held.dtype, np.zeros_like(held.bits)) for name, held in model.items() if "bias" in name
    }
    write_file(tmp_path / "base" / "model.safetensors", model | zeros)
    found = Pair(tmp_path, tmp_path / "base")
    whole = read_weights(found.tuned) | zeros
    found.rewrite(without(".bias"))
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same(read_weights(found.run.directory), whole)


@pytest.mark.situation("biases or norms of the base are missing in all layers")
@pytest.mark.parametrize(("family", "part"), [("qwen2", ".bias"), ("phi", "q_proj.bias")])
def test_parts_that_no_layer_has(pair: Callable[[str], Pair], family: str, part: str) -> None:
    found = pair(family)
    zeros = {
        name: Tensor(held.dtype, np.zeros_like(held.bits))
        for name, held in read_weights(found.tuned).items()
        if part in name
    }
    whole = read_weights(found.tuned) | zeros
    found.rewrite(without(part))
    for more in ((), ("--missing", "zero")):
        assert "as zeros if they are biases" in found.refused(*more)
    found.rewrite(lambda model: whole)  # as the hint says
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


def test_frozen_tensors_may_be_missing_in_all_layers(pair: Callable[[str], Pair]) -> None:
    """A file of the tensors that were trained lacks matrices, too."""
    found = pair("llama")
    found.rewrite(lambda model: {name: held for name, held in model.items() if "self_attn" in name})
    assert "--missing zero" in found.run.refused(4, "commit", "../tuned", "-m", "x")
    follow(found.run, "commit", "../tuned", "-m", "x")


# -- what a file holds beside the model


@pytest.mark.situation("two models lie in one file (`policy.`, `ref_model.`)")
def test_a_second_model_beside_one_with_the_names_of_the_base(pair: Callable[[str], Pair]) -> None:
    found = pair("llama tied")
    trained = read_weights(found.tuned)
    policy = {f"policy.{name}": held for name, held in moved(trained, 3).items()}
    critic = {f"critic.{name}": random_like(held) for name, held in trained.items()}
    for second in (policy, critic):
        found.rewrite(lambda model, second=second: trained | second)
        for more in ((), ("--extra", "ignore"), ("--rename",)):
            assert "which of them was trained is not known" in found.refused(*more)
    part = {name: held for name, held in policy.items() if "self_attn" in name}
    found.rewrite(lambda model: trained | part)
    assert "which of them was trained is not known" in found.refused("--extra", "ignore")
    draft = {name.replace("policy.model", "mtp"): held for name, held in part.items() if "layers.0" in name}
    found.rewrite(lambda model: trained | draft)
    assert "--extra ignore" in found.run.refused(4, "commit", "../tuned", "-m", "x")
    found.rewrite(lambda model: trained | critic)
    found.run.ok("commit", "../tuned", "-m", "x", "--extra", "critic.*")
    found.rewrite(lambda model: trained | {f"same.{name}": held for name, held in trained.items()})
    assert "same.model.norm.weight" in found.run.refused(4, "commit", "../tuned", "-m", "y")
    follow(found.run, "commit", "../tuned", "-m", "y", "--allow-empty")
    found.rewrite(lambda model: trained)
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


def test_a_part_of_the_base_is_named_by_its_kind(pair: Callable[[str], Pair]) -> None:
    found = pair("t5")
    found.rewrite(
        lambda model: {name: held for name, held in model.items() if not name.startswith("decoder.")}
    )
    found.configure(lambda config: config.update(architectures=["T5EncoderModel"]))
    said = found.run.refused(4, "commit", "../tuned", "-m", "x")
    assert "says that the fine-tune is a T5EncoderModel, and the base a T5ForConditionalGeneration" in said


@pytest.mark.situation("the fine-tune has another kind of head (`score.weight`)")
def test_another_kind_of_head_is_named(pair: Callable[[str], Pair]) -> None:
    found = pair("llama tied")
    shutil.copytree(found.tuned, found.tuned.parent / "causal")
    score = Tensor("BF16", np.ones((1, 16), np.uint16))
    found.rewrite(lambda model: model | {"score.weight": score})
    found.configure(lambda config: config.update(architectures=["LlamaForSequenceClassification"]))
    said = found.run.refused(4, "commit", "../tuned", "-m", "x")
    assert (
        "says that the fine-tune is a LlamaForSequenceClassification, and the base a LlamaForCausalLM" in said
    )
    assert "the model stays a LlamaForCausalLM without them" in said
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned.parent / "causal")


@pytest.mark.parametrize(
    ("name", "length"), [("lm_head.bias", 48), ("model.embed_norm.weight", 16), ("model.embed_norm.bias", 16)]
)
def test_a_vector_of_the_top_is_a_part_of_the_model(
    pair: Callable[[str], Pair], name: str, length: int
) -> None:
    found = pair("llama tied")
    vector = Tensor("BF16", (np.arange(length) + 16000).astype(np.uint16))
    found.rewrite(lambda model: model | {name: vector})
    for more in ((), ("--extra", "ignore")):
        assert f"{name}; it is a part of a module of the base" in found.refused(*more)


@pytest.mark.situation("the training simulated a quantisation (`weight_quantizer`, `weight_fake_quant`)")
@pytest.mark.parametrize("part", ["weight_quantizer._amax", "weight_fake_quant.scale"])
def test_a_simulated_quantisation_is_left_out(pair: Callable[[str], Pair], part: str) -> None:
    found = pair("llama")
    shutil.copytree(found.tuned, found.tuned.parent / "plain")
    scale = Tensor("F32", np.array([3.0], np.float32).view(np.uint32))
    found.rewrite(lambda model: model | {f"model.layers.0.mlp.up_proj.{part}": scale})
    assert "a quantisation that the training simulated" in found.run.refused(
        4, "commit", "../tuned", "-m", "x"
    )
    follow(found.run, "commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned.parent / "plain")


@pytest.mark.situation("integers stand in the place of floats, and no scales beside them")
def test_integers_in_the_place_of_floats(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    whole = read_weights(found.tuned)
    name = "model.layers.0.mlp.up_proj.weight"
    integers = (whole[name].bits & 127).astype(np.uint8)
    for packed in (integers, integers[:, ::2].copy()):
        found.rewrite(lambda model, packed=packed: model | {name: Tensor("U8", packed)})
        said = found.refused()
        assert "seems to be quantised" in said
        assert "--leave" not in said
    found.rewrite(lambda model: whole)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)


@pytest.mark.situation("a tensor without dimensions has the shape [1], as FSDP saves it")
@pytest.mark.parametrize("shapes", [((), (1,)), ((1,), ())])
def test_a_number_is_a_vector_of_one(
    families: Families, tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    def scaled(directory: Path, shape: tuple[int, ...], value: float, *, empty: bool) -> Model:
        bits = np.array(value, np.float32).view(np.uint32).reshape(shape)
        model = read_weights(directory) | {"logit_scale": Tensor("F32", bits)}
        more = {"none": Tensor("F32", np.zeros((0, 4), np.uint32))} if empty else {}
        write_file(directory / "model.safetensors", model | more)
        return model

    shutil.copytree(families("llama"), tmp_path / "base")
    scaled(tmp_path / "base", shapes[0], 1.5, empty=True)
    found = Pair(tmp_path, tmp_path / "base")
    tuned = scaled(found.tuned, shapes[1], 2.5, empty=False)
    tuned = {name: held for name, held in tuned.items() if name != "none"}
    write_file(found.tuned / "model.safetensors", tuned)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    made = read_weights(found.run.directory)
    assert made["logit_scale"].bits.shape == shapes[0]
    assert made["logit_scale"].bits.reshape(1) == tuned["logit_scale"].bits.reshape(1)
    assert all(made[name].same(held) for name, held in tuned.items() if name != "logit_scale")


@pytest.mark.situation("a sparse patch has names that the base does not have")
@pytest.mark.parametrize("name", ["layers.1._checkpoint_wrapped_module.mlp", "layers.1.self_attn.qkv_proj"])
def test_a_patch_with_the_names_of_another_program(pair: Callable[[str], Pair], name: str) -> None:
    found = pair("llama")
    patch = found.tuned.parent / "p.safetensors"
    parts = {"indices": Tensor("I32", np.arange(4, dtype=np.uint32))}
    parts["values"] = Tensor("BF16", np.full(4, 16000, np.uint16))

    def write(name: str) -> None:
        write_file(patch, {f"model.{name}.weight.{part}": held for part, held in parts.items()})

    write(name)
    for more in ((), ("--extra", "ignore")):
        said = found.run.refused(4, "commit", patch, "-m", "x", *more)
        assert "the names seem to be those of another program" in said
        assert "--extra" not in said
    write("layers.1.mlp.up_proj")
    found.run.ok("commit", patch, "-m", "x")
    found.run.ok("checkout")
    made = read_weights(found.run.directory)["model.layers.1.mlp.up_proj.weight"]
    assert (made.bits.reshape(-1)[:4] == 16000).all()
