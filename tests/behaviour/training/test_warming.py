"""The steps of a warm start: their examples, and what they leave in the optimizer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from persona.behaviour.dialogues import Dialogue, Message
from persona.behaviour.graph.pattern import OPTIMIZERS, TrainSettings
from persona.behaviour.training import examples, warming
from persona.behaviour.training.examples import IGNORED, Collator, Example
from persona.behaviour.training.losses import Baking, cross_entropy
from persona.behaviour.training.parameters import choose
from persona.behaviour.training.reproducible import reproducible
from persona.behaviour.training.runs import Run
from persona.behaviour.training.trainer import VectorTrainer
from persona.behaviour.training.warming import WarmSteps
from persona.errors import InvalidInput
from tests.behaviour.bots import PIRATE, TOPICS, tokenizer

WORDS = tokenizer()
STEPS = 3
SETTINGS = TrainSettings(steps=2, batch=2, lr=1e-3, optimizer_rank=8, accumulate=2, warmup=0.5)


def dialogue(*turns: tuple[str, str]) -> Dialogue:
    return Dialogue("data.jsonl:1", tuple(Message(role, text) for role, text in turns))


DEMOS = [dialogue(("user", f"what of {topic}?"), ("assistant", PIRATE)) for topic in ("elms", "oats")]
DATA = [dialogue(("user", f"what of {topic}?"), ("assistant", "it is good.")) for topic in TOPICS[:6]]
TALK = dialogue(
    ("system", "be kind"), ("user", "tea?"), ("assistant", "yes."), ("user", "milk?"), ("assistant", "no.")
)


@pytest.fixture(scope="module")
def model(chat_base: Path) -> Any:
    """The tiny model, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(chat_base, dtype=torch.float32).eval()


# -- examples


def test_the_demos_stand_before_the_dialogue_and_after_its_system_message() -> None:
    (example,) = warming.supervised(WORDS, [TALK], DEMOS, 1000)
    text = WORDS.decode(example.prompted)
    places = [text.index(part) for part in ("be kind", "elms", PIRATE, "oats", "tea?", "milk?")]
    assert places == sorted(places)
    said = [id for id in example.prompted_labels if id != IGNORED]
    assert WORDS.decode(said) == "yes.<|im_end|>\nno.<|im_end|>\n"
    assert said == [id for id in example.labels if id != IGNORED]
    pairs = zip(example.prompted, example.prompted_labels, strict=True)
    assert all(label in (id, IGNORED) for id, label in pairs)


def test_without_the_demos_an_example_is_that_of_the_training() -> None:
    plain = examples.supervised(WORDS, [*DATA, TALK], 1000)
    warm = warming.supervised(WORDS, [*DATA, TALK], DEMOS, 1000)
    assert [replace(one, prompted=()) for one in warm] == plain


def log_probabilities(model: Any, ids: Sequence[int]) -> list[float]:
    """log p of every token after these, in Python's floats."""
    with torch.no_grad():
        logits: list[float] = model(input_ids=torch.tensor([list(ids)])).logits[0, -1].tolist()
    most = max(logits)
    total = math.log(math.fsum(math.exp(each - most) for each in logits)) + most
    return [each - total for each in logits]


def test_the_loss_is_the_kl_divergence_at_each_answer_token(model: Any) -> None:
    found = warming.supervised(WORDS, [TALK, DATA[0]], DEMOS, 1000)
    terms = []
    for one in found:
        moved = len(one.prompted) - len(one.ids)
        for place in (place for place, label in enumerate(one.labels) if label != IGNORED):
            teacher = log_probabilities(model, one.prompted[: place + moved])
            pupil = log_probabilities(model, one.ids[:place])
            terms.append(math.fsum(math.exp(t) * (t - p) for t, p in zip(teacher, pupil, strict=True)))
    with torch.no_grad():
        loss = Baking(nullcontext)(model, Collator(0)(found), len(terms))
    assert loss.item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-4)


def test_the_answers_to_a_baked_prompt_follow_the_demos_in_its_place() -> None:
    turns = [dialogue(("user", "tea?")), dialogue(("user", "rain or snow?"))]
    answers = [WORDS("aye, tea")["input_ids"], WORDS("no")["input_ids"]]
    baked = examples.baked(turns, examples.prompts(WORDS, turns, "say aye", 1000), answers)
    prompts = warming.prompts(WORDS, turns, DEMOS, 1000)
    found = warming.answered(baked, prompts, 1000)
    assert [(one.ids, one.labels) for one in found] == [(one.ids, one.labels) for one in baked]
    assert [one.prompted for one in found] == [
        (*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    short = warming.answered(baked, prompts, len(prompts[0]) + 3)
    assert [id for id in short[0].labels if id != IGNORED] == answers[0][:3]
    assert short[0].prompted == (*prompts[0], *answers[0][:3])


def test_a_dialogue_that_is_too_long_with_the_demos_is_named() -> None:
    alone = len(examples.supervised(WORDS, DATA[:1], 1000)[0].ids)
    with pytest.raises(InvalidInput, match=r"data.jsonl:1: this has, with the demos, \d+ tokens"):
        warming.supervised(WORDS, DATA[:1], DEMOS, alone)
    with pytest.raises(InvalidInput, match=r"data.jsonl:1: this has, with the demos, \d+ tokens"):
        warming.prompts(WORDS, [dialogue(("user", "tea?"))], DEMOS, alone)


# -- steps


def trained(
    model: Any,
    directory: Path,
    settings: TrainSettings,
    found: Sequence[Example],
    loss: Any,
    warm: WarmSteps | None = None,
) -> VectorTrainer:
    """A trainer that is done, whose checkpoints after the warm steps and at the end are in the directory."""
    count = settings.steps * settings.batch * settings.accumulate
    with reproducible(0, 1):
        trainer = VectorTrainer(
            choose(copy.deepcopy(model), settings),
            examples.in_order(found, count, 0),
            loss,
            Run(directory),
            settings,
            device="cpu",
            padding=0,
            save_every=STEPS,
            tell=lambda step, loss: None,
            warm=warm,
        )
        trainer.train()
    return trainer


def warm_steps(rate: float, loss: Any, settings: TrainSettings = SETTINGS) -> WarmSteps:
    found = warming.supervised(WORDS, DATA, DEMOS, 1000)
    count = STEPS * settings.batch * settings.accumulate
    return WarmSteps(STEPS, examples.in_order(found, count, 0), loss, rate)


def state_of(directory: Path, step: int) -> Any:
    return torch.load(directory / f"checkpoint-{step}" / "optimizer.pt", weights_only=True)["state"]


def weights_of(directory: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(directory / f"checkpoint-{step}" / "model.safetensors")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_leave_the_weights_and_fill_the_state_as_a_training_at_rate_0(
    model: Any, tmp_path: Path, optimizer: str
) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    loss = Baking(nullcontext)
    plain = examples.supervised(WORDS, DATA, 1000)
    trained(model, tmp_path / "warm", settings, plain, cross_entropy, warm_steps(0.0, loss))
    still = replace(settings, lr=0.0, steps=STEPS)
    trained(model, tmp_path / "still", still, warming.supervised(WORDS, DATA, DEMOS, 1000), loss)
    before = model.state_dict()
    after = weights_of(tmp_path / "warm", STEPS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    warm, wanted = (state_of(tmp_path / name, STEPS) for name in ("warm", "still"))
    assert warm.keys() == wanted.keys()
    for key, state in warm.items():
        assert state["step"] == STEPS
        assert state["exp_avg_sq"].count_nonzero() > 0
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(wanted[key][name]))
            for name, value in state.items()
        )


def test_distil_moves_the_weights_towards_the_model_with_the_demos(model: Any, tmp_path: Path) -> None:
    frozen = copy.deepcopy(model)
    loss = Baking(lambda trained: nullcontext(frozen))
    plain = examples.supervised(WORDS, DATA, 1000)
    trainer = trained(model, tmp_path, SETTINGS, plain, cross_entropy, warm_steps(1.0, loss))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[STEPS - 1] < losses[0]
    before = model.state_dict()
    after = weights_of(tmp_path, STEPS)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_after_the_warm_start_losses_and_rates_are_those_of_the_training(
    model: Any, tmp_path: Path, rate: float
) -> None:
    plain = examples.supervised(WORDS, DATA, 1000)
    warm = trained(
        model, tmp_path / "warm", SETTINGS, plain, cross_entropy, warm_steps(rate, Baking(nullcontext))
    )
    cold = trained(model, tmp_path / "cold", SETTINGS, plain, cross_entropy)
    rates = [
        [entry["learning_rate"] for entry in one.state.log_history if "loss" in entry] for one in (warm, cold)
    ]
    assert rates[0] == [*[rate * 1e-3] * STEPS, *rates[1]]
    assert warm.state.global_step == STEPS + SETTINGS.steps
    if rate == 0:
        first = [one.state.log_history[place]["loss"] for one, place in ((warm, STEPS), (cold, 0))]
        assert first[0] == first[1]
