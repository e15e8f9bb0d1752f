"""`persona train` on a tiny chat model. One thread: several only spin where the work is so small."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file

from tests.behaviour.bots import (
    PIRATE_DATA,
    PIRATE_PROBES,
    TOPICS,
    ChatBot,
    chat_bot,
    dialogue,
    old_gpt2,
)
from tests.checkpoints import Tensor, read_weights, same, write_weights

QUICK = "steps = 4\nbatch = 3\nlr = 1e-3\naccumulate = 2"


def test_training_adds_a_term_that_is_not_committed(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    (result,) = chat.run.json("train", "--threads", "1", "pirate")
    assert result["change"] == "added"
    assert result["trained"]
    assert result["steps"] == 4
    assert result["last_loss"] < result["first_loss"]
    assert result["id"] in (chat.root / "recipe.toml").read_text()
    assert [vector["change"] for vector in chat.run.json("diff")["vectors"]] == ["added"]
    assert not list((chat.root / ".persona" / "runs").iterdir())
    assert chat.run.json("fsck")["ok"]


def test_a_second_training_of_the_same_makes_no_step(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    (first,) = chat.run.json("train", "--threads", "1", "pirate")
    (second,) = chat.run.json("train", "--threads", "1", "pirate")
    assert (second["id"], second["change"], second["trained"]) == (first["id"], "unchanged", False)
    (third,) = chat.run.json("train", "--threads", "1", "pirate", "--force")
    assert third["trained"]
    assert third["id"] == first["id"]


def test_other_data_or_settings_make_it_train_again(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    (first,) = chat.run.json("train", "--threads", "1", "pirate")
    (second,) = chat.run.json("train", "--threads", "1", "pirate", "--steps", "5")
    assert second["change"] == "replaced"
    assert second["id"] != first["id"]
    chat.lines("pirate.train.jsonl", PIRATE_DATA[:5])
    (third,) = chat.run.json("train", "--threads", "1", "pirate", "--steps", "5")
    assert third["trained"]
    assert third["id"] != second["id"]


def test_the_seed_of_the_pattern_may_be_given_too(chat: ChatBot) -> None:
    chat.pirate(settings="steps = 1")
    (first,) = chat.run.json("train", "--threads", "1", "pirate")
    (second,) = chat.run.json("train", "--threads", "1", "pirate", "--seed", "0")
    assert not second["trained"]
    assert second["id"] == first["id"]


def test_the_sign_of_the_pattern_is_the_alpha_of_a_new_term(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK, front="sign = -1")
    (result,) = chat.run.json("train", "--threads", "1", "pirate")
    assert result["alpha"] == -1
    (again,) = chat.run.json("train", "--threads", "1", "pirate", "--alpha", "0.5")
    assert again["alpha"] == 0.5


def test_a_probe_with_a_training_prompt_is_refused_with_both_places(chat: ChatBot) -> None:
    probes = [{**PIRATE_PROBES[0], "messages": PIRATE_DATA[2]["messages"][:1]}]
    chat.pattern("pirate", train=PIRATE_DATA, probes=probes, settings=QUICK)
    said = chat.run.refused(4, "train", "pirate")
    assert "graph/data/pirate.probes.jsonl:1" in said
    assert "graph/data/pirate.train.jsonl:3" in said


def test_a_contrastive_pair_is_the_difference_of_two_vectors(chat: ChatBot) -> None:
    opposite = [dialogue(topic, "no.") for topic in TOPICS[:6]]
    chat.pattern("pirate", train=PIRATE_DATA, opposite=opposite, settings=QUICK)
    (result,) = chat.run.json("train", "--threads", "1", "pirate")
    assert list(result["parts"]) == ["pirate-plus", "pirate-minus"]
    shown = chat.run.json("vector", "show", "pirate")
    assert shown["kind"] == "expression"
    (again,) = chat.run.json("train", "--threads", "1", "pirate")
    assert again["id"] == result["id"]
    assert not again["trained"]


def test_the_sides_of_a_pair_have_the_same_prompts(chat: ChatBot) -> None:
    opposite = [dialogue(topic, "no.") for topic in (*TOPICS[:3], "silk", *TOPICS[4:6])]
    chat.pattern("pirate", train=PIRATE_DATA, opposite=opposite, settings=QUICK)
    said = chat.run.refused(4, "train", "pirate")
    assert "graph/data/pirate.opposite.jsonl:4" in said
    assert "graph/data/pirate.train.jsonl:4" in said
    chat.pattern("pirate", train=PIRATE_DATA, opposite=PIRATE_DATA, settings=QUICK)
    assert "nothing would be left of the pair" in chat.run.refused(4, "train", "pirate")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_prompt_is_baked_over_turns(chat: ChatBot, method: str) -> None:
    turns = [{"messages": PIRATE_DATA[0]["messages"][:1]}, {"messages": PIRATE_DATA[1]["messages"][:1]}]
    chat.lines("aye.turns.jsonl", turns)
    (chat.root / "graph" / "data" / "aye.txt").write_text("say aye\n")
    (chat.root / "graph" / "aye.md").write_text(
        '+++\nkey = "aye"\nkind = "pattern"\n[data]\nprompt = "data/aye.txt"\n'
        f'turns = "data/aye.turns.jsonl"\n[train]\n{QUICK}\nmethod = "{method}"\n+++\nAye.\n'
    )
    (result,) = chat.run.json("train", "--threads", "1", "aye")
    assert result["trained"]
    assert result["last_loss"] < result["first_loss"]


def test_lora_gives_an_adapter_and_asks_no_host(chat: ChatBot, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *host, **more: asked.append(host))
    chat.pirate(settings=f'{QUICK}\nmethod = "lora"\nrank = 2\nmodules = ["*.q_proj.*"]')
    printed = chat.run("train", "--threads", "1", "pirate")
    assert "the adapter says" not in printed.output
    shown = chat.run.json("vector", "show", "pirate")
    assert shown["kind"] == "lowrank"
    assert not asked


def test_onto_a_commit_the_vector_adds_to_its_weights(chat: ChatBot, pirate_tune: Path) -> None:
    chat.run.ok("commit", pirate_tune, "-m", "pirate")
    chat.brief(settings=QUICK)
    (on_base,) = chat.run.json("train", "brief", "--threads", "1")
    (onto,) = chat.run.json("train", "brief", "--threads", "1", "--onto", "HEAD")
    assert onto["id"] != on_base["id"]
    assert 'join = "add"' in (chat.root / "recipe.toml").read_text()
    (again,) = chat.run.json("train", "brief", "--threads", "1", "--onto", "HEAD")
    assert not again["trained"]
    said = chat.run("train", "brief", "--threads", "1").stderr
    assert "brief votes: only the old one was trained from a revision" in said
    assert "join" not in (chat.root / "recipe.toml").read_text()


def test_a_vector_is_not_trained_onto_a_commit_that_has_it(chat: ChatBot) -> None:
    chat.brief(settings=QUICK)
    chat.run.ok("train", "brief", "--threads", "1", "--onto", "HEAD")
    chat.run.ok("commit", "-m", "brief")
    said = chat.run.refused(1, "train", "brief", "--threads", "1", "--onto", "HEAD", "-f")
    assert "brief is a part of HEAD" in said
    assert "--onto base" in said
    chat.run.ok("train", "brief", "--threads", "1", "--onto", "HEAD~1", "-f")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_onto_a_commit_with_more_tokens_the_vector_has_them_too(chat: ChatBot, method: str) -> None:
    base = read_weights(chat.base)
    (name,) = base.keys() & {"model.embed_tokens.weight"}
    bits = base[name].bits
    grown = base | {name: Tensor(base[name].dtype, np.concatenate([bits, bits[:3]]))}
    write_weights(chat.root.parent / "grown", grown)
    chat.run.ok("commit", "../grown", "-m", "grow", "--extend-vocab")
    chat.brief(settings=QUICK)
    words = ("--method", method, "--onto", "HEAD", "--threads", "1")
    chat.run.ok("train", "brief", *words)
    chat.run.ok("commit", "-m", "brief")
    chat.run.ok("checkout")
    found = read_weights(chat.root)
    assert found[name].bits.shape == grown[name].bits.shape
    assert not same(found, grown)
    chat.run.ok("revert", "HEAD")
    chat.run.ok("checkout")
    assert same(read_weights(chat.root), grown)


def test_a_base_without_the_names_prefix_and_with_masks_is_trained_and_measured(tmp_path: Path) -> None:
    base = old_gpt2(tmp_path / "gpt2")
    stored = load_file(base / "model.safetensors")
    bot = chat_bot(tmp_path, base)
    bot.pirate(settings="steps = 12\nlr = 1e-2")
    bot.run.json("train", "pirate", "--threads", "1")
    result = bot.run("verify", "--threads", "1", "--no-checks", "--vector", "pirate")
    assert result.exit_code in (0, 1, 8), result.output
    bot.run.ok("commit", "-m", "pirate")
    bot.run.ok("checkout")
    trained = load_file(bot.root / "model.safetensors")
    assert trained.keys() == stored.keys()
    changed = {name for name in stored if not torch.equal(stored[name], trained[name])}
    assert "h.0.attn.c_attn.weight" in changed
    assert not changed & {"h.0.attn.bias", "wte.weight"}


def test_weights_of_a_bf16_base_are_rounded_to_nearest(tmp_path: Path, bf16_base: Path) -> None:
    bot = chat_bot(tmp_path, bf16_base)
    bot.pirate(settings=f"{QUICK}\nmodules = ['*.0.mlp.up_proj.*']")
    bot.run.json("train", "pirate", "--threads", "1")
    bot.run.ok("commit", "-m", "pirate")
    bot.run.ok("checkout")
    before, after = (load_file(place / "model.safetensors") for place in (bot.base, bot.root))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.layers.0.mlp.up_proj.weight"}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}


def test_a_learning_rate_too_small_to_change_a_weight_is_an_error(tmp_path: Path, bf16_base: Path) -> None:
    bot = chat_bot(tmp_path, bf16_base)
    bot.pirate(settings="steps = 1\nlr = 1e-12")
    assert "changed no weight" in bot.run.refused(4, "train", "pirate", "--threads", "1")


def test_several_patterns_and_facets_are_trained_in_one_call(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    chat.lines("a.jsonl", PIRATE_DATA[:2])
    (chat.root / "graph" / "core.md").write_text(
        '+++\nkey = "core"\nkind = "core"\n[facets.voice.data]\ntrain = "data/a.jsonl"\n'
        f"[facets.voice.train]\n{QUICK}\n+++\nCore.\n"
    )
    found = chat.run.json("train", "pirate", "core", "--threads", "1")
    assert [one["name"] for one in found] == ["pirate", "core#voice"]


def test_all_keys_are_checked_before_one_is_trained(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    assert "brief" in chat.run.refused(3, "train", "pirate", "brief")
    assert "vectors" not in (chat.root / "recipe.toml").read_text()


def test_the_note_on_a_vector_says_what_it_was_trained_from(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    chat.run.json("train", "pirate", "--threads", "1", "--seed", "5")
    (origin,) = chat.run.json("vector", "show", "pirate")["provenance"]
    data = (chat.root / "graph" / "data" / "pirate.train.jsonl").read_bytes()
    assert origin["data"] == {
        "train": {"file": "graph/data/pirate.train.jsonl", "blake3": blake3(data).hexdigest()}
    }
    assert (origin["pattern"], origin["file"], origin["seed"]) == ("pirate", "graph/pirate.md", 5)
    assert (origin["given"], origin["settings"]["lr"]) == ({"seed": 5}, "0.001")
    assert [step for step, _ in origin["loss"]] == [1, 2, 3, 4]
    assert "Trained:  from graph/pirate.md, full, apollo" in chat.run.ok("vector", "show", "pirate")
