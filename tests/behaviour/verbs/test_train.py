"""`persona train` on a tiny chat model."""

from __future__ import annotations

import pytest

from tests.behaviour.bots import PIRATE_DATA, PIRATE_PROBES, TOPICS, ChatBot, dialogue

QUICK = "steps = 4\nbatch = 3\nlr = 1e-3\naccumulate = 2"


def test_training_adds_a_term_that_is_not_committed(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    (result,) = chat.run.json("train", "pirate")
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
    (first,) = chat.run.json("train", "pirate")
    (second,) = chat.run.json("train", "pirate")
    assert (second["id"], second["change"], second["trained"]) == (first["id"], "unchanged", False)
    (third,) = chat.run.json("train", "pirate", "--force")
    assert third["trained"]
    assert third["id"] == first["id"]


def test_other_data_or_settings_make_it_train_again(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK)
    (first,) = chat.run.json("train", "pirate")
    (second,) = chat.run.json("train", "pirate", "--steps", "5")
    assert second["change"] == "replaced"
    assert second["id"] != first["id"]
    chat.lines("pirate.train.jsonl", PIRATE_DATA[:5])
    (third,) = chat.run.json("train", "pirate", "--steps", "5")
    assert third["trained"]
    assert third["id"] != second["id"]


def test_the_sign_of_the_pattern_is_the_alpha_of_a_new_term(chat: ChatBot) -> None:
    chat.pirate(settings=QUICK, front="sign = -1")
    (result,) = chat.run.json("train", "pirate")
    assert result["alpha"] == -1
    (again,) = chat.run.json("train", "pirate", "--alpha", "0.5")
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
    (result,) = chat.run.json("train", "pirate")
    assert list(result["parts"]) == ["pirate-plus", "pirate-minus"]
    shown = chat.run.json("vector", "show", "pirate")
    assert shown["kind"] == "expression"
    (again,) = chat.run.json("train", "pirate")
    assert again["id"] == result["id"]
    assert not again["trained"]


def test_the_sides_of_a_pair_have_the_same_prompts(chat: ChatBot) -> None:
    opposite = [dialogue(topic, "no.") for topic in (*TOPICS[:3], "silk", *TOPICS[4:6])]
    chat.pattern("pirate", train=PIRATE_DATA, opposite=opposite, settings=QUICK)
    said = chat.run.refused(4, "train", "pirate")
    assert "graph/data/pirate.opposite.jsonl:4" in said
    assert "graph/data/pirate.train.jsonl:4" in said


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_prompt_is_baked_over_turns(chat: ChatBot, method: str) -> None:
    turns = [{"messages": PIRATE_DATA[0]["messages"][:1]}, {"messages": PIRATE_DATA[1]["messages"][:1]}]
    chat.lines("aye.turns.jsonl", turns)
    (chat.root / "graph" / "data" / "aye.txt").write_text("say aye\n")
    (chat.root / "graph" / "aye.md").write_text(
        '+++\nkey = "aye"\nkind = "pattern"\n[data]\nprompt = "data/aye.txt"\n'
        f'turns = "data/aye.turns.jsonl"\n[train]\n{QUICK}\nmethod = "{method}"\n+++\nAye.\n'
    )
    (result,) = chat.run.json("train", "aye")
    assert result["trained"]
    assert result["last_loss"] < result["first_loss"]


def test_lora_gives_an_adapter(chat: ChatBot) -> None:
    chat.pirate(settings=f'{QUICK}\nmethod = "lora"\nrank = 2\nmodules = ["*.q_proj.*"]')
    chat.run.json("train", "pirate")
    shown = chat.run.json("vector", "show", "pirate")
    assert shown["kind"] == "lowrank"
