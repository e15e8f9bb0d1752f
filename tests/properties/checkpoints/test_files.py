"""Directories whose files differ from the base's: shards, pickles, dtypes."""

from __future__ import annotations

import pickle
import shutil
import unicodedata

import numpy as np
import pytest
import torch

from tests.advice import follow
from tests.checkpoints import INDEX, Model, Tensor, read_weights, same
from tests.cli.command_line import CommandLine
from tests.families import loaded, save_again
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
def test_the_advice_for_a_pickle_gives_its_model(bot: LlamaBot) -> None:
    tuned = bot.tune("trusted", 1)
    model = loaded(bot.place / "trusted")
    pickled = bot.place / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((bot.place / "trusted" / "config.json").read_bytes())
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    said = bot.run.refused(4, "commit", "../pickled", "-m", "x")
    assert "load it where you trust it, write it with save_pretrained (safetensors)" in said
    save_again(pickled, bot.place / "safe")
    bot.run.ok("commit", "../safe", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("`pytorch_model.bin`, or another pickle")
def test_a_pickle_is_never_opened(bot: LlamaBot) -> None:
    place = bot.place / "pickled"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Canary(bot.place / "sprung")}))
    assert "a pickle" in bot.run.refused(4, "commit", "../pickled", "-m", "x")
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


@pytest.mark.situation("a directory whose subdirectories hold the weights (`checkpoint-500/`, a pipeline)")
def test_the_advice_for_weights_further_down_names_a_directory_that_holds_them(bot: LlamaBot) -> None:
    (bot.place / "run").mkdir()
    bot.tune("run/checkpoint-100", 1)
    tuned = bot.tune("run/checkpoint-200", 2)
    (bot.place / "run" / "logs").mkdir()
    said = bot.run.refused(4, "commit", "../run", "-m", "x")
    assert "in its subdirectories: checkpoint-100, checkpoint-200\n" in said
    bot.run.ok("commit", said.rpartition("such as ")[2], "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("a download that is not finished")
@pytest.mark.parametrize("loader", ["hf download", "aria2", "a browser", "zeros"])
def test_a_download_that_is_not_finished_is_named(bot: LlamaBot, loader: str) -> None:
    tuned = bot.tune("loading", 1, shards=2)
    shard = bot.place / "loading" / "model-00002-of-00002.safetensors"
    data = shard.read_bytes()
    begun = shard
    if loader == "aria2":
        begun = shard.with_name(f"{shard.name}.aria2")
        begun.write_bytes(b"")
    elif loader == "zeros":
        shard.write_bytes(bytes(len(data)))
    else:
        shard.unlink()
        begun = shard.with_name(f"{shard.name}.crdownload")
        if loader == "hf download":
            begun = shard.parent / ".cache" / "huggingface" / "download" / "x.incomplete"
            begun.parent.mkdir(parents=True)
        begun.write_bytes(data[:9])
    said = bot.run.refused(4, "commit", "../loading", "-m", "x")
    assert shard.name in said
    assert "not finished" in said
    assert begun.name in said
    if begun != shard:
        begun.unlink(missing_ok=True)
    shard.write_bytes(data)
    bot.run.ok("commit", "../loading", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation(
    "one file of weights under another name (`MODEL.SAFETENSORS`, `model.fp16.safetensors`)"
)
@pytest.mark.parametrize("name", ["MODEL.SAFETENSORS", "model.fp16.safetensors"])
def test_weights_under_another_name_are_pointed_at(bot: LlamaBot, name: str) -> None:
    tuned = bot.tune("odd", 1)
    (bot.place / "odd" / "model.safetensors").rename(bot.place / "odd" / name)
    said = bot.run.refused(4, "commit", "../odd", "-m", "x")
    given = said.partition("; give ")[2].partition(" itself")[0]
    bot.run.ok("commit", given, "-n", "odd", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("two models in one directory (`actor.safetensors`, `critic.safetensors`)")
def test_one_of_two_models_in_a_directory_can_be_given(bot: LlamaBot) -> None:
    bot.tune("pair", 1)
    tuned = bot.tune("other", 2)
    pair = bot.place / "pair"
    (pair / "model.safetensors").rename(pair / "critic.safetensors")
    (bot.place / "other" / "model.safetensors").rename(pair / "actor.safetensors")
    said = bot.run.refused(4, "commit", "../pair", "-m", "x")
    assert "actor.safetensors, critic.safetensors, but no model.safetensors" in said
    assert said.endswith("give one of them")
    bot.run.ok("commit", "../pair/actor.safetensors", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("a directory of links to the files of another")
def test_links_that_lead_out_bring_weights_and_no_texts(bot: LlamaBot) -> None:
    tuned = bot.tune("real", 1)
    (bot.place / "real" / "chat_template.jinja").write_text("other\n")
    (bot.place / "farm").mkdir()
    for file in (bot.place / "real").iterdir():
        (bot.place / "farm" / file.name).symlink_to(file)
    said = bot.run("commit", "../farm", "--files", "-m", "x").stderr
    assert "left out: chat_template.jinja, config.json (a link that leads out of the directory)" in said
    bot.checkout()
    assert bot.holds(tuned)
    assert (bot.root / "chat_template.jinja").read_text() != "other\n"
    shutil.copytree(bot.place / "farm", bot.place / "copy")
    bot.run.ok("add", "../copy", "--files")
    assert (bot.root / "chat_template.jinja").read_text() == "other\n"
