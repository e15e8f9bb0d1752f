"""`persona train --warm`: the demos are tried on the probes, then start the optimizer, or do not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.progress import Phase
from tests.behaviour.bots import (
    PIRATE,
    PIRATE_DATA,
    PIRATE_PROBES,
    PLAIN,
    TOPICS,
    ChatBot,
    chat_bot,
    dialogue,
    probe,
)
from tests.disks import Cut

SETTINGS = "steps = 4\nbatch = 2\nlr = 1e-3\noptimizer_rank = 8"
WARM = f'{SETTINGS}\nwarm = "distil"\nwarm_steps = 4'
DEMOS = [dialogue(topic, PIRATE) for topic in ("elms", "oats", "figs")]
MIXED = [
    probe(topic, number, **({} if number % 2 else {"chosen": PLAIN, "rejected": PIRATE}))
    for number, topic in enumerate(TOPICS[6:])
]
"""Probes of which half ask for the opposite, so that nothing moves their mean."""
OPTIONS: dict[str, Any] = {"threads": 1, "save_every": 2}


@pytest.fixture
def bot(chat: ChatBot) -> ChatBot:
    chat.pirate(demos=DEMOS, settings=SETTINGS)
    return chat


def trained(bot: ChatBot, *words: str) -> dict[str, Any]:
    (result,) = bot.run.json("train", "pirate", "--threads", "1", *words)
    found: dict[str, Any] = result
    return found


def provenances(bot: ChatBot) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bot.run.json("vector", "show", "pirate")["provenance"]
    return found


# -- both ways


@pytest.mark.parametrize("method", ["full", "lora"])
def test_each_kind_of_warm_start_makes_a_vector_of_its_own(bot: ChatBot, method: str) -> None:
    rank = () if method == "full" else ("--method", "lora")
    kinds: list[tuple[str, ...]] = [(), ("--warm", "moments"), ("--warm", "distil")]
    found = [trained(bot, *rank, *kind) for kind in kinds]
    assert len({one["id"] for one in found}) == 3
    assert [one["warm"] and (one["warm"]["kind"], one["warm"]["steps"]) for one in found] == [
        None,
        ("moments", 10),
        ("distil", 10),
    ]
    assert {one["steps"] for one in found} == {4}


def test_a_pattern_may_ask_for_a_warm_start_and_the_command_for_none(bot: ChatBot) -> None:
    cold = trained(bot)
    bot.pirate(demos=DEMOS, settings=WARM)
    warm = trained(bot)
    assert (warm["warm"]["kind"], warm["warm"]["steps"]) == ("distil", 4)
    assert trained(bot, "--warm", "none")["id"] == cold["id"]
    assert trained(bot, "--warm-steps", "3")["warm"]["steps"] == 3


def test_the_note_on_the_vector_has_the_kind_the_steps_the_demos_and_what_they_do(bot: ChatBot) -> None:
    result = trained(bot, "--warm", "moments", "--warm-steps", "3")
    (origin,) = provenances(bot)
    assert (origin["settings"]["warm"], origin["settings"]["warm_steps"]) == ("moments", 3)
    assert set(origin["data"]) == {"train", "demos", "probes"}
    assert origin["warm"]["steps"] == 3
    assert [step for step, _ in origin["warm"]["loss"]] == [1, 2, 3]
    assert [step for step, _ in origin["loss"]] == [1, 2, 3, 4]
    change = [float(value) for value in origin["warm"]["change"][:3]]
    margin = result["warm"]["margin"]
    assert change == [margin["mean"], margin["low"], margin["high"]]
    assert change[1] > 0


def test_a_baked_prompt_may_start_warm_too(chat: ChatBot) -> None:
    chat.lines("pirate.turns.jsonl", [{"messages": line["messages"][:1]} for line in PIRATE_DATA[:2]])
    chat.lines("pirate.demos.jsonl", DEMOS)
    chat.lines("pirate.probes.jsonl", PIRATE_PROBES)
    (chat.root / "graph" / "data" / "aye.txt").write_text("say aye\n")
    (chat.root / "graph" / "pirate.md").write_text(
        '+++\nkey = "pirate"\nkind = "pattern"\n[data]\nprompt = "data/aye.txt"\n'
        'turns = "data/pirate.turns.jsonl"\ndemos = "data/pirate.demos.jsonl"\n'
        f'probes = "data/pirate.probes.jsonl"\n[train]\n{SETTINGS}\n+++\nAye.\n'
    )
    ids = {trained(chat, "--warm", kind, "--warm-steps", "2")["id"] for kind in ("moments", "distil")}
    assert trained(chat)["id"] not in ids
    assert len(ids) == 2


def test_of_a_contrastive_pair_only_the_side_that_the_demos_show_starts_warm(chat: ChatBot) -> None:
    opposite = [dialogue(topic, "no.") for topic in TOPICS[:6]]
    chat.pirate(demos=DEMOS, opposite=opposite, settings=SETTINGS)
    cold = trained(chat)
    warm = trained(chat, "--warm", "distil")
    assert warm["steps"] == 4  # the other side is taken as it is
    assert warm["parts"]["pirate-minus"] == cold["parts"]["pirate-minus"]
    assert warm["parts"]["pirate-plus"] != cold["parts"]["pirate-plus"]
    said = chat.run("train", "pirate", "--threads", "1", "--warm", "moments").output
    assert "only pirate-plus can start warm" in said


# -- nothing to transfer


@pytest.mark.parametrize("probes", [MIXED, [], [*PIRATE_PROBES[:4]]], ids=["mixed", "none", "few"])
def test_without_a_sign_of_an_effect_it_trains_cold_and_says_so(
    chat: ChatBot, probes: list[dict[str, Any]]
) -> None:
    chat.pattern("pirate", train=PIRATE_DATA, demos=DEMOS, probes=probes or None, settings=SETTINGS)
    cold = trained(chat)
    result = chat.run("train", "pirate", "--threads", "1", "--warm", "distil")
    words = {6: "nothing to transfer", 0: "no probes with a pair of answers", 4: "fewer than 5 groups"}
    assert words[len(probes)] in result.output
    assert "cold" in result.output
    again = trained(chat, "--warm", "distil", "--force")
    assert (again["id"], again["warm"]["steps"]) == (cold["id"], 0)
    (warm,) = [one["warm"] for one in provenances(chat) if "warm" in one]
    assert (warm["found"], warm["steps"]) == (False, 0)


def test_demos_that_move_the_probes_the_wrong_way_transfer_nothing(chat: ChatBot) -> None:
    probes = [{**one, "chosen": PLAIN, "rejected": PIRATE} for one in PIRATE_PROBES]
    chat.pattern("pirate", train=PIRATE_DATA, demos=DEMOS, probes=probes, settings=SETTINGS)
    result = trained(chat, "--warm", "moments")
    assert result["warm"]["steps"] == 0
    assert result["warm"]["margin"]["high"] < 0


# -- killed and resumed


KILLED = """
import os, signal, sys
import persona

def progress(phase, done, total):
    if phase.startswith("warming") and done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

with persona.open(sys.argv[1]) as repo:
    repo.train("pirate", threads=1, save_every=2, progress=progress)
"""


@pytest.fixture(scope="module")
def whole(chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the vector of a warm run that nothing interrupts, in a repository of its own."""
    bot = chat_bot(tmp_path_factory.mktemp("whole"), chat_base)
    bot.pirate(demos=DEMOS, settings=WARM)
    with persona.open(bot.root) as repo:
        (result,) = repo.train("pirate", **OPTIONS)
    return str(result.id)


def test_a_run_that_is_killed_in_its_warm_start_goes_on_and_gives_the_same_vector(
    bot: ChatBot, whole: str
) -> None:
    bot.pirate(demos=DEMOS, settings=WARM)
    step = random.randrange(3, 5)
    done = subprocess.run([sys.executable, "-c", KILLED, str(bot.root), str(step)], check=False)
    assert done.returncode == -signal.SIGKILL
    phases: list[str] = []
    with persona.open(bot.root) as repo:
        (result,) = repo.train(
            "pirate", **OPTIONS, resume=True, progress=lambda phase, done, total: phases.append(str(phase))
        )
    assert (result.id, result.resumed) == (whole, 2), step
    assert not any("demos" in phase for phase in phases)


@pytest.mark.parametrize("phase_of_cut", ["asking", "warming", "training"])
def test_wherever_a_warm_run_is_cut_short_it_goes_on_and_gives_the_same_vector(
    bot: ChatBot, whole: str, phase_of_cut: str
) -> None:
    bot.pirate(demos=DEMOS, settings=WARM)
    step = random.randrange(1, 5)

    def progress(phase: Phase, done: int, total: int) -> None:
        if phase.startswith(phase_of_cut) and done == step:
            raise Cut

    with persona.open(bot.root) as repo:
        with pytest.raises(Cut) as caught:
            repo.train("pirate", **OPTIONS, progress=progress)
        before = {"asking": 0, "warming": step - 1, "training": step + 3}[phase_of_cut] // 2 * 2
        said = [f"step {before} of 8 is kept; the same command goes on from there"] if before else []
        assert getattr(caught.value, "__notes__", []) == said
        (result,) = repo.train("pirate", **OPTIONS)
    assert (result.id, result.resumed) == (whole, before), step


# -- what makes it stale, and what is refused


def state(bot: ChatBot) -> tuple[str, list[str]]:
    (found,) = bot.run.json("graph", "status")["trainables"]
    return found["state"], found["changed"]


def test_other_demos_make_a_vector_stale_only_if_they_were_used(bot: ChatBot) -> None:
    trained(bot)
    bot.lines("pirate.demos.jsonl", DEMOS[:2])
    assert state(bot) == ("trained", [])
    warm = trained(bot, "--warm", "moments")
    assert state(bot) == ("trained", [])
    bot.lines("pirate.demos.jsonl", DEMOS)
    assert state(bot) == ("stale", ["data demos"])
    again = trained(bot, "--warm", "moments")
    assert again["trained"]
    assert again["id"] != warm["id"]


def test_a_warm_start_without_demos_is_refused_and_says_what_to_do(chat: ChatBot) -> None:
    chat.pirate(settings=SETTINGS)
    said = chat.run.refused(4, "train", "pirate", "--warm", "moments")
    assert "graph/pirate.md:4: a warm start needs example dialogues" in said
    assert "`persona train --warm none pirate`" in said
    chat.pirate(settings=WARM)
    assert "a warm start needs example dialogues" in chat.run.refused(4, "train", "pirate")
    assert "the warm start of pirate needs demos in [data]" in chat.run("graph", "check").output
    assert trained(chat, "--warm", "none")["trained"]


def test_demos_with_a_system_message_and_steps_of_no_warm_start_are_refused(bot: ChatBot) -> None:
    system = {"role": "system", "content": "be kind"}
    bot.lines("pirate.demos.jsonl", [{"messages": [system, *DEMOS[0]["messages"]]}])
    said = bot.run.refused(4, "train", "pirate", "--warm", "distil")
    assert "graph/data/pirate.demos.jsonl:1: the demos" in said
    assert "--warm-steps" in bot.run.refused(4, "train", "pirate", "--warm-steps", "3")


def test_probes_that_are_too_long_after_the_demos_are_named(chat: ChatBot) -> None:
    chat.pirate(demos=[dialogue(f"{topic} {'x' * 80}", PIRATE) for topic in TOPICS[:2]], settings=SETTINGS)
    long = [{**PIRATE_PROBES[0], "chosen": "aye " * 40}, *PIRATE_PROBES[1:]]
    chat.lines("pirate.probes.jsonl", long)
    said = chat.run.refused(4, "train", "pirate", "--warm", "moments")
    assert "graph/data/pirate.probes.jsonl:1" in said
