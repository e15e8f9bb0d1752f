"""Runs of `persona train` that are cut short, and what they leave."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.errors import Refused, SystemFault
from persona.progress import STORING_VECTOR, Phase
from persona.store.files import replaced_calls
from tests.behaviour.bots import PIRATE_DATA, ChatBot, chat_bot
from tests.disks import Cut, Dying, count_calls

SETTINGS = "steps = 8\nbatch = 2\nlr = 1e-3\noptimizer_rank = 8"
ANSWERED = {"role": "assistant", "content": "yes."}
OPTIONS: dict[str, Any] = {"threads": 1, "save_every": 2}


class Stop:
    """A display of progress that ends the training with an error after a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step = step
        self.error = error

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        if phase.startswith("training") and done == self.step:
            raise self.error


@pytest.fixture
def bot(chat: ChatBot) -> ChatBot:
    chat.pirate(settings=SETTINGS)
    return chat


@pytest.fixture(scope="module")
def whole(chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the vector of a run that nothing interrupts, in a repository of its own."""
    bot = chat_bot(tmp_path_factory.mktemp("whole"), chat_base)
    bot.pirate(settings=SETTINGS)
    return train(bot).id


def train(bot: ChatBot, **options: Any) -> Any:
    with persona.open(bot.root) as repo:
        (result,) = repo.train("pirate", **{**OPTIONS, **options})
        return result


def cut(bot: ChatBot, step: int, **options: Any) -> None:
    with pytest.raises(Cut):
        train(bot, progress=Stop(step, Cut()), **options)


def runs(bot: ChatBot) -> list[Path]:
    return sorted((bot.root / ".persona" / "runs").iterdir())


KILLED = """
import os, signal, sys
import persona

def progress(phase, done, total):
    if phase.startswith("training") and done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

with persona.open(sys.argv[1]) as repo:
    repo.train("pirate", threads=1, save_every=2, progress=progress)
"""


def test_a_killed_run_goes_on_and_gives_the_same_vector(bot: ChatBot, whole: str) -> None:
    step = random.randrange(3, 9)
    done = subprocess.run([sys.executable, "-c", KILLED, str(bot.root), str(step)], check=False)
    assert done.returncode == -signal.SIGKILL
    result = train(bot, resume=True)
    assert result.resumed == (step - 1) // 2 * 2, step
    assert result.id == whole, step
    assert not runs(bot)


def test_an_interrupted_run_says_how_it_goes_on(bot: ChatBot, whole: str) -> None:
    stopped = Stop(5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as caught:
        train(bot, progress=stopped)
    assert caught.value.__notes__ == ["step 4 of 8 is kept; the same command goes on from there"]
    assert train(bot).id == whole


def test_a_run_that_ended_but_was_not_stored_makes_no_step_again(bot: ChatBot, whole: str) -> None:
    def progress(phase: Phase, done: int, total: int) -> None:
        if phase == STORING_VECTOR:
            raise Cut

    with pytest.raises(Cut):
        train(bot, progress=progress)
    result = train(bot)
    assert (result.resumed, result.id) == (8, whole)


def test_wherever_the_disk_ends_for_a_run_the_next_one_gives_the_same_vector(
    bot: ChatBot, whole: str
) -> None:
    most = count_calls(lambda: train(chat_like(bot)))
    for left in sorted(random.sample(range(most), 3)):
        with replaced_calls(Dying(left)), suppress(Cut):
            train(bot, force=True)
        assert train(bot).id == whole, left
        assert not runs(bot), left


def chat_like(bot: ChatBot) -> ChatBot:
    """A second repository like it."""
    other = chat_bot(bot.place / "other", bot.base)
    other.pirate(settings=SETTINGS)
    return other


def test_of_a_damaged_checkpoint_the_one_before_is_taken(bot: ChatBot, whole: str) -> None:
    cut(bot, 7)
    weights = runs(bot)[0] / "checkpoint-6" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    result = train(bot)
    assert (result.resumed, result.id) == (4, whole)


def test_a_checkpoint_without_its_mark_does_not_count(bot: ChatBot, whole: str) -> None:
    cut(bot, 3)
    (runs(bot)[0] / "checkpoint-2" / "persona.json").unlink()
    result = train(bot)
    assert (result.resumed, result.id) == (0, whole)


@contextmanager
def files_at_most(nbytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: what a full disk does, in every library."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_for_the_weights_it_fails_and_goes_on_later(bot: ChatBot, whole: str) -> None:
    cut(bot, 3)
    with files_at_most(20_000), pytest.raises(SystemFault, match=r"cannot write .*checkpoint-4"):
        train(bot)
    result = train(bot)
    assert (result.resumed, result.id) == (2, whole)


def test_without_room_for_the_state_of_the_optimizer_it_fails_too(bot: ChatBot) -> None:
    cut(bot, 3, optimizer="adamw")
    with files_at_most(130_000), pytest.raises(SystemFault, match=r"cannot write .*checkpoint-4"):
        train(bot, optimizer="adamw")
    assert [path.name for path in runs(bot)[0].glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_run_of_other_settings_is_named_and_does_not_go_on(bot: ChatBot) -> None:
    cut(bot, 5)
    bot.lines("pirate.train.jsonl", PIRATE_DATA[:4])
    with pytest.raises(Refused, match="cannot go on; changed since: data train, setting seed"):
        train(bot, resume=True, seed=4)
    result = train(bot, seed=4)
    assert result.resumed == 0
    assert any("cut short at step 4" in note for note in result.notes)
    assert not runs(bot)


def test_the_rest_of_a_run_whose_removal_was_cut_short_goes_with_the_next_one(bot: ChatBot) -> None:
    train(bot)
    folder = bot.root / ".persona" / "runs"
    (folder / ("a" * 32)).mkdir()
    kept = folder / "trained-0123456789abcdef"
    kept.mkdir()
    train(bot)
    assert runs(bot) == [kept]


def test_resume_needs_a_run_that_was_cut_short(bot: ChatBot) -> None:
    with pytest.raises(Refused, match="no run of pirate was cut short"):
        train(bot, resume=True)


def test_a_run_that_ended_before_the_recipe_was_written_can_be_resumed(bot: ChatBot, whole: str) -> None:
    recipe = (bot.root / "recipe.toml").read_text()
    train(bot)
    (bot.root / "recipe.toml").write_text(recipe)
    result = train(bot, resume=True)
    assert (result.id, result.steps, result.change) == (whole, 0, "added")
    with pytest.raises(Refused, match="no run of pirate was cut short"):
        train(bot, resume=True)


def test_a_pair_is_resumed_after_its_first_side(bot: ChatBot) -> None:
    def stop(phase: Phase, done: int, total: int) -> None:
        if phase == "training pirate, minus":
            raise Cut

    opposite = [{**line, "messages": [line["messages"][0], ANSWERED]} for line in PIRATE_DATA]
    bot.pirate(opposite=opposite, settings=SETTINGS)
    with pytest.raises(Cut):
        train(bot, progress=stop)
    for run in runs(bot):
        shutil.rmtree(run)
    result = train(bot, resume=True)
    assert (result.steps, len(result.parts)) == (8, 2)


def test_the_process_is_as_it_was_before(bot: ChatBot) -> None:
    import os

    import numpy
    import torch
    from transformers.utils import logging

    def state() -> list[Any]:
        return [
            random.getstate(),
            str(numpy.random.get_state()),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            dict(os.environ),
        ]

    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        before = state()
        cut(bot, 3)
        assert state() == before
        train(bot)
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_other_commands_do_not_stumble_over_a_run(bot: ChatBot) -> None:
    cut(bot, 3)
    assert bot.run.json("fsck")["ok"]
    assert "leftovers" not in bot.run.json("count-objects")
    bot.run.ok("commit", "-m", "the pattern")
    assert bot.run.json("status")["files_changed"] == []


def test_a_loss_that_is_no_number_ends_the_run(bot: ChatBot) -> None:
    said = bot.run.refused(4, "train", "pirate", "--lr", "900", "--threads", "1")
    assert "the loss is" in said
    assert "--lr X" in said
    assert not runs(bot)
