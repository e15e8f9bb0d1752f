"""Directories whose files differ from the base's: shards, pickles, dtypes."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from tests.advice import follow
from tests.checkpoints import INDEX, Model, Tensor, read_weights, same
from tests.cli.command_line import CommandLine
from tests.llamas import LlamaBot, a_few_ulps, fine_tune
from tests.pickles import Canary


@pytest.mark.situation("the fine-tune has other shards than the base")
def test_the_shards_of_a_fine_tune_do_not_matter(bot: LlamaBot) -> None:
    tuned = bot.tune("sharded", 1, shards=3)
    bot.tune("whole", 1)
    bot.run.ok("add", "../sharded")
    bot.run.ok("add", "../whole")
    ids = {vector["id"] for vector in bot.run.json("vector", "ls")}
    assert len(ids) == 1
    bot.run.ok("rm", "whole")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("the index names a shard that is missing")
def test_a_missing_shard_is_named(bot: LlamaBot) -> None:
    tuned = bot.tune("sharded", 1, shards=3)
    shard = bot.place / "sharded" / "model-00002-of-00003.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    said = bot.run.refused(4, "commit", "../sharded", "-m", "x")
    assert f"the index lists the shard {shard.name}, which is missing" in said
    shard.write_bytes(data)
    bot.run.ok("commit", "../sharded", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("shards without their index")
def test_a_missing_index_is_named(bot: LlamaBot) -> None:
    tuned = bot.tune("sharded", 1, shards=2)
    index = bot.place / "sharded" / INDEX
    text = index.read_text()
    index.unlink()
    said = bot.run.refused(4, "commit", "../sharded", "-m", "x")
    assert "model-00001-of-00002.safetensors" in said
    assert f"no {INDEX}" in said
    index.write_text(text)
    bot.run.ok("commit", "../sharded", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("`pytorch_model.bin`, or another pickle")
def test_a_pickle_is_refused_unopened(bot: LlamaBot) -> None:
    import pickle

    place = bot.place / "pickled"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Canary(bot.place / "sprung")}))
    said = bot.run.refused(4, "commit", "../pickled", "-m", "x")
    assert "save_pretrained" in said
    assert not (bot.place / "sprung").exists()


def as_f32(model: Model) -> Model:
    return {name: Tensor("F32", tensor.bits.astype(np.uint32) << 16) for name, tensor in model.items()}


@pytest.mark.situation("the fine-tune has a wider dtype than the base")
def test_a_wider_fine_tune_is_rounded(bot: LlamaBot) -> None:
    tuned = a_few_ulps(bot.base, 1)
    wide = {name: Tensor("F32", tensor.bits + 1) for name, tensor in as_f32(tuned).items()}
    fine_tune(bot.place / "base", bot.place / "wide", wide)
    result = bot.run("commit", "../wide", "-m", "x")
    assert "rounded from F32" in result.stderr
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("the fine-tune has a dtype that cannot hold the base's values")
def test_the_advice_for_a_narrower_dtype_gives_the_converted_model(bot: LlamaBot) -> None:
    import torch

    tuned = a_few_ulps(bot.base, 1)
    half = {}
    expected = {}
    for name, tensor in tuned.items():
        values = torch.from_numpy(tensor.bits.copy()).view(torch.bfloat16).to(torch.float16)
        half[name] = Tensor("F16", values.view(torch.uint16).numpy())
        expected[name] = Tensor("BF16", values.to(torch.bfloat16).view(torch.uint16).numpy())
    fine_tune(bot.place / "base", bot.place / "half", half)
    follow(bot.run, "commit", "../half", "-m", "half")
    bot.checkout()
    assert same(read_weights(bot.root), expected)


@pytest.mark.situation("a directory with an accent in its name, as macOS writes it")
def test_a_name_in_form_d_is_taken_in_form_c(bot: LlamaBot) -> None:
    place = unicodedata.normalize("NFD", "modèle d’été")
    tuned = bot.tune(place, 1)
    bot.run.ok("commit", f"../{place}", "-m", "x")
    assert [vector["name"] for vector in bot.run.json("vector", "ls")] == ["modèle d’été"]
    assert CommandLine(bot.place).ok("init", "other", "--base", place)
    bot.checkout()
    assert bot.holds(tuned)
