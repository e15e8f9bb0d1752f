"""Commands of behaviour on recipes that add tokens or an output matrix to the base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import persona
from persona.behaviour.assessing import base_of
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring.measurements import Bench
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from tests.advice import follow
from tests.behaviour.bots import ChatBot, answer, chat_bot, grown_tune
from tests.cli.command_line import CommandLine

FAST = ("--threads", "1")
QUICK = "steps = 1\nlr = 1e-2"


@pytest.fixture
def grown(chat: ChatBot) -> ChatBot:
    """A repository whose last commit adds two tokens, which the chat template needs, and the padding."""
    chat.pirate(settings=QUICK)
    chat.brief(settings=QUICK)
    grown_tune(chat.base, chat.root.parent / "grown")
    chat.run.ok("commit", "../grown", "-n", "pirate", "-m", "grow", "--extend-vocab")
    return chat


def verdicts(bot: ChatBot, *words: str) -> list[Any]:
    result = bot.run("--json", "verify", *FAST, "--no-checks", *words)
    assert result.exit_code in (0, 1, 8), result.output
    return json_of(result.stdout)


def json_of(text: str) -> list[Any]:
    lines = [line for line in text.splitlines() if not line.startswith('{"progress": ')]
    found = json.loads("".join(lines))
    return found if isinstance(found, list) else [found]


def test_vectors_of_several_shapes_are_measured_in_one_go(grown: ChatBot, brief_tune: Path) -> None:
    place = grown.root.parent
    grown_tune(grown.base, place / "head", 2, tokens=0, head=True)
    grown_tune(grown.base, place / "more", 3, tokens=3)
    made = [
        grown.run.json("commit", path, "-n", path.name, "-m", "one more", *flags)["vectors"][0]
        for path, *flags in ((place / "head", "--untie"), (brief_tune,))
    ]
    grown.run.ok("switch", "-c", "other", "HEAD~3")
    more = grown.run.json("commit", place / "more", "-n", "more", "-m", "more", "--extend-vocab")
    grown.run.ok("switch", "main")
    ids = [one["id"] for one in (*made, more["vectors"][0])]
    shutil.copytree(grown.root, place / "again")
    together = verdicts(grown, *(word for id in ids for word in ("--vector", id)))
    assert len(together) == 3
    again = ChatBot(place, grown.base, CommandLine(place / "again"))
    for id, one in zip(ids, together, strict=True):
        (alone,) = verdicts(again, "--vector", id)
        assert (alone["damage"], alone["effects"]) == (one["damage"], one["effects"])


def test_a_sweep_measures_and_tune_improves_a_grown_recipe(grown: ChatBot) -> None:
    swept = grown.run.json("sweep", "pirate", "--alpha", "0,1", *FAST)
    (whole,) = verdicts(grown, "HEAD")
    at_1 = swept["points"][1]
    assert at_1["damage"]["kl"]["mean"] == pytest.approx(whole["damage"]["kl"]["mean"], abs=1e-9)
    (spill,) = (one for one in whole["effects"] if one["pattern"] == "brief")
    assert at_1["spill"][0]["margin"]["mean"] == pytest.approx(spill["margin"]["mean"], abs=1e-9)
    said = grown.run("sweep", "pirate", "--alpha", "0,1", *FAST).output
    assert "rows of zeros" in said
    assert "allowed  without it" not in said
    tuned = grown.run.json("tune", "--dry-run", *FAST)
    assert tuned["after"]["gain"] >= tuned["before"]["gain"]


def test_training_the_base_on_tokens_that_it_lacks_is_refused_first(grown: ChatBot) -> None:
    said = grown.run.refused(4, "train", "brief", *FAST)
    assert "graph/data/brief.train.jsonl:1" in said
    assert "<|turn 0|>" in said
    grown.run.ok("train", "brief", "--onto", "HEAD", *FAST)
    grown.run.ok("commit", "-m", "brief")
    assert verdicts(grown, "--vector", "brief")


def test_training_is_refused_with_advice_that_works_before_the_tokens_are_committed(chat: ChatBot) -> None:
    chat.brief(settings=QUICK)
    grown_tune(chat.base, chat.root.parent / "grown")
    chat.run.ok("add", "../grown", "-n", "pirate", "--extend-vocab")
    follow(chat.run, "train", "brief", *FAST, fill={"MSG": "grow", "HEAD": "HEAD"})


@pytest.mark.parametrize("together", [False, True], ids=["in a later commit", "with the tokens"])
def test_a_vector_of_head_is_trained_again_as_the_advice_says(chat: ChatBot, together: bool) -> None:
    chat.brief(settings=QUICK)
    if together:
        chat.run.ok("train", "brief", *FAST)
    grown_tune(chat.base, chat.root.parent / "grown")
    chat.run.ok("commit", "../grown", "-n", "pirate", "-m", "grow", "--extend-vocab")
    if not together:
        chat.run.ok("train", "brief", "--onto", "HEAD", *FAST)
        chat.run.ok("commit", "-m", "brief")
    chat.brief(settings="steps = 2\nlr = 1e-2")
    follow(chat.run, "train", "brief", *FAST, fill={"MSG": "less", "HEAD": "HEAD"})
    assert "brief" in chat.run.ok("status")


def test_a_new_padding_alone_does_not_keep_the_base_from_training(chat: ChatBot) -> None:
    chat.brief(settings=QUICK)
    grown_tune(chat.base, chat.root.parent / "grown", tokens=2)
    template = (chat.base / "chat_template.jinja").read_bytes()
    (chat.root.parent / "grown" / "chat_template.jinja").write_bytes(template)
    chat.run.ok("commit", "../grown", "-n", "pirate", "-m", "grow", "--extend-vocab")
    said = chat.run.ok("train", "brief", *FAST)
    assert "output matrix" not in said
    assert verdicts(chat, "--vector", "brief")


def test_a_tokenizer_without_its_vector_is_refused_before_a_model_is_loaded(grown: ChatBot) -> None:
    tokenizer = (grown.root / "tokenizer.json").read_bytes()
    template = (grown.root / "chat_template.jinja").read_bytes()
    grown.run.ok("rm", "pirate")
    (grown.root / "tokenizer.json").write_bytes(tokenizer)
    (grown.root / "chat_template.jinja").write_bytes(template)
    assert "<|turn 0|>" in grown.run.refused(4, "verify", "--probe", "pirate", *FAST)


@pytest.mark.parametrize("new", [True, False], ids=["new tokens in the probes", "a new padding alone"])
def test_a_base_without_a_tokenizer_takes_the_tokens_that_it_has(
    chat_base: Path, tmp_path: Path, new: bool
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(chat_base / name, base / name)
    bot = chat_bot(tmp_path, base)
    bot.pirate()
    grown = grown_tune(chat_base, tmp_path / "grown")
    if not new:
        shutil.copy(chat_base / "chat_template.jinja", grown / "chat_template.jinja")
    bot.run.ok("commit", grown, "-n", "pirate", "-m", "grow", "--extend-vocab")
    if new:
        assert "the base came without a tokenizer" in bot.run.refused(4, "verify", *FAST)
    else:
        assert verdicts(bot, "HEAD")


def test_a_vector_that_was_trained_onto_new_tokens_takes_texts_alone_as_the_base_does(grown: ChatBot) -> None:
    grown.run.ok("train", "brief", "--onto", "HEAD", *FAST)
    with persona.open(grown.root) as repo:
        history = repo._history
        (vector,) = [one for one in repo.vectors.values() if one.name == "brief"]
        alone = Recipe.of(history.recipe_of(history.head_commit()).base, [Term("v", vector.id)], Rules.of())
        bench = Bench(history, None, base_of(history, alone), "cpu", 1, None)
        probes = Graph.of(history, None).probes("brief")
        assert probes is not None
        assert bench.items(probes, alone) == bench.items(probes)
        scoring = bench.scoring_of(alone)
        scoring.hold(alone)
        logits = scoring.model(input_ids=torch.tensor([[1, 2]])).logits
        assert logits[..., -2:].eq(-torch.inf).all()
        assert logits[..., :-2].isfinite().all()


def test_a_vector_taken_out_by_hand_leaves_a_model_that_loads(grown: ChatBot) -> None:
    text = (grown.root / "recipe.toml").read_text()
    (grown.root / "recipe.toml").write_text(text[: text.index("[vectors.pirate]")])
    said = grown.run.refused(4, "generate", "what of wool?", *FAST)
    assert "<|turn 0|>" in said
    grown.run.ok("checkout", "-o", "../out")
    grown.run.ok("checkout")
    config = json.loads((grown.base / "config.json").read_text())
    for place in (grown.root, grown.root.parent / "out"):
        assert answer(place, "wool") == answer(grown.base, "wool")
        assert json.loads((place / "config.json").read_text())["pad_token_id"] == config["pad_token_id"]


def test_a_build_trains_onto_the_grown_commit_as_its_advice_says(grown: ChatBot) -> None:
    follow(grown.run, "build", "--no-verify", "--no-checkout", *FAST, fill={"HEAD": "HEAD"})
    assert "brief" in grown.run.ok("status")


def test_a_grown_vector_that_the_recipe_lacks_is_measured_with_a_note(grown: ChatBot) -> None:
    (id,) = (one["id"] for one in grown.run.json("vector", "ls"))
    grown.run.ok("revert", "pirate")
    result = grown.run("verify", "--vector", id, "--no-checks", *FAST)
    assert "read by the tokenizer here, without them" in " ".join(result.output.split())
