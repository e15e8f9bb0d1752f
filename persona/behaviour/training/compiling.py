"""A run of training, from the weights of the base to a directory of weights that can be imported."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour.dialogues import Dialogue
from persona.behaviour.graph.pattern import TrainSettings
from persona.behaviour.measuring import transfer
from persona.behaviour.measuring.transfer import Transfer
from persona.behaviour.models import context_of, moved
from persona.behaviour.probes import ProbeSet
from persona.behaviour.training import examples as examples_of
from persona.behaviour.training import warming
from persona.behaviour.training.examples import Example
from persona.behaviour.training.runs import Run
from persona.behaviour.training.warming import Warmed, WarmSteps
from persona.errors import Blank, InvalidInput, Keyword, SystemFault
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import LoadOptions
from persona.history.planning import plan_of
from persona.live import load
from persona.objects.dtypes import DTYPES
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules
from persona.progress import Phase, Progress
from persona.store import files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from persona.objects.base import Base

WEIGHTS: Final = "weights"
Check = Callable[..., None]
"""Called with FILE:LINE of a text, and its tokens in one or several parts."""
_POINTS: Final = 100
"""Steps of a loss curve that are kept."""


@dataclass(frozen=True)
class Lesson:
    """The texts of one run: dialogues to learn, or turns to answer as the system prompt `prompt` says.

    `demos`: those of a warm start; without any, the run starts cold, whatever the settings say. `probes`: to
    tell whether the demos move the model.
    """

    dialogues: tuple[Dialogue, ...]
    prompt: str | None = None
    demos: tuple[Dialogue, ...] = ()
    probes: ProbeSet | None = None


@dataclass(frozen=True)
class Machine:
    """The device and threads of a run. `threads`: of torch. `save_every`: the steps between two checkpoints.

    By default there are about ten checkpoints, at least ten steps apart.
    """

    device: str
    threads: int
    save_every: int | None
    progress: Progress | None


@dataclass(frozen=True)
class Outcome:
    """A run that ended. `weights`: the directory of the trained weights, or of the LoRA adapter.

    `loss`: the loss of each step. `warm`: how it started, if it was asked to start warm. `resumed`: the step
    of the checkpoint that it went on from, 0 for none; those of a warm start count.
    """

    weights: Path
    loss: tuple[tuple[int, float], ...]
    warm: Warmed | None
    resumed: int
    seconds: float


def encode(
    history: History,
    tokenizer: Tokenizer,
    lesson: Lesson,
    settings: TrainSettings,
    check: Check = lambda place, *texts: None,
) -> list[Example] | list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The examples of dialogues, or the two prompts of each turn. Needs no weights, so a fault costs nothing.

    `check` hears of all tokens. Raises `InvalidInput` with FILE:LINE.
    """
    longest = _longest(history, settings)
    places = [dialogue.place for dialogue in lesson.dialogues]
    if lesson.demos:
        for place, text in zip(places, _warm_texts(tokenizer, lesson, longest), strict=True):
            check(place, *((text.ids, text.prompted) if isinstance(text, Example) else (text,)))
        pairs, _ = transfer.encode(tokenizer, lesson.probes, lesson.demos, context_of(history))
        for item in (item for pair in pairs for item in pair):
            check(item.place, item.prompt, item.chosen or (), item.rejected or ())
    if lesson.prompt is None:
        examples = examples_of.supervised(tokenizer, lesson.dialogues, longest)
        for example in examples:
            check(example.place, example.ids)
        return examples
    prompts = examples_of.prompts(tokenizer, lesson.dialogues, lesson.prompt, longest)
    for place, both in zip(places, prompts, strict=True):
        check(place, *both)
    return prompts


def compile_weights(
    history: History,
    tokenizer: Tokenizer,
    lesson: Lesson,
    settings: TrainSettings,
    machine: Machine,
    run: Run,
    *,
    base: str,
    onto: str | None,
    label: str,
) -> Outcome:
    """Trains the base, or the weights of the commit `onto`, and writes the result into the run's directory.

    With demos, the run starts warm if they move the probes. Goes on from the last checkpoint of the run. The
    process is as it was afterwards (`reproducible`).
    """
    from persona.behaviour.training.parameters import choose
    from persona.behaviour.training.reproducible import reproducible
    from persona.behaviour.training.trainer import VectorTrainer, written

    encoded: Any = encode(history, tokenizer, lesson, settings)
    with reproducible(settings.seed, machine.threads):
        model = _model(history, base, onto, machine)
        padding = examples_of.padding_of(tokenizer, model.config.get_text_config().vocab_size)
        loss: Any
        warm: WarmSteps | None = None
        if lesson.prompt is None:
            from persona.behaviour.training.losses import cross_entropy

            found, loss = encoded, cross_entropy
        else:
            found = _answered(history, model, tokenizer, lesson, encoded, settings, machine, run, padding)
            loss = _baking(model, settings)
        measured = _transfer(history, model, tokenizer, lesson, machine, run) if lesson.demos else None
        if measured is not None and measured.found:
            warm = _warm_steps(history, model, tokenizer, lesson, settings, found, loss)
        model.config.use_cache = False
        model = choose(model, settings)
        first = warm.steps if warm else 0
        last = run.last()
        phase, warm_phase = Phase(f"training {label}", "steps"), Phase(f"warming {label} up", "steps")
        began = monotonic()

        def tell(step: int, value: float) -> None:
            now, done, total = (
                (phase, step - first, settings.steps) if step > first else (warm_phase, step, first)
            )
            now.detail = f"loss {value:.3f}"
            if machine.progress:
                machine.progress(now, done, total)

        trainer = VectorTrainer(
            model,
            examples_of.in_order(found, _needed(settings, settings.steps), settings.seed),
            loss,
            run,
            settings,
            device=machine.device,
            padding=padding,
            save_every=machine.save_every or max(10, -(-(first + settings.steps) // 10)),
            tell=tell,
            warm=warm,
        )
        with _enough_memory():
            trainer.train(resume_from_checkpoint=None if last is None else str(last[0]))
        curve = [
            (int(entry["step"]), entry["loss"]) for entry in trainer.state.log_history if "loss" in entry
        ]
        seconds = monotonic() - began
        target = run.directory / WEIGHTS
        files.remove_tree(target)
        with written(target):
            _save(history, base, model, target, settings)
    return Outcome(
        target,
        loss=tuple((step - first, value) for step, value in curve if step > first),
        warm=Warmed(measured, first, tuple(curve[:first])) if measured is not None else None,
        resumed=0 if last is None else last[1],
        seconds=seconds,
    )


def thinned(curve: Sequence[tuple[int, float]]) -> tuple[tuple[int, str], ...]:
    """At most `_POINTS` points of a loss curve, the first and the last among them, as decimals."""
    stride = max(1, math.ceil(len(curve) / _POINTS))
    chosen = [*curve[::stride], *([curve[-1]] if (len(curve) - 1) % stride else [])] if curve else []
    return tuple((step, f"{loss:.4f}") for step, loss in chosen)


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Turns the errors of torch for a full memory, of a GPU or of the machine, into `SystemFault`."""
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        smaller = ("try a smaller batch: ", Keyword(batch=Blank("N")))
        raise SystemFault("the memory is too small for a step of this training", hint=smaller) from error


def _needed(settings: TrainSettings, steps: int) -> int:
    """The examples that so many steps take."""
    return steps * settings.batch * settings.accumulate


def _longest(history: History, settings: TrainSettings) -> int:
    """Tokens that an example may have: `max_length`, or the model's context if that is less."""
    context = context_of(history)
    return settings.max_length if context is None else min(settings.max_length, context)


def _model(history: History, base: str, onto: str | None, machine: Machine) -> Any:
    """The model in float32, with the weights of the base or of a commit."""
    import torch

    recipe = Recipe.of(base, (), Rules.of()) if onto is None else history.recipe_of(onto)
    options = LoadOptions(threads=machine.threads, allow_nonfinite=False, progress=machine.progress)
    model: Any
    model, _ = load.built(history, onto, plan_of(history, recipe), options, {"dtype": torch.float32})
    if not model.can_generate():
        raise InvalidInput(
            f"config.json: {type(model).__name__} generates no text, so it cannot be trained on dialogues"
        )
    return moved(model, machine.device)


def _answered(
    history: History,
    model: Any,
    tokenizer: Tokenizer,
    lesson: Lesson,
    encoded: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    settings: TrainSettings,
    machine: Machine,
    run: Run,
    padding: int,
) -> list[Example]:
    """The examples of a baked prompt. The answers are generated once for a run."""
    from persona.behaviour.training.answering import answers

    found = run.answers()
    if found is None or len(found) != len(encoded):
        found = answers(
            model,
            tokenizer,
            [prompted for _, prompted in encoded],
            longest=_longest(history, settings),
            padding=padding,
            progress=machine.progress,
        )
        run.keep_answers(found)
    return examples_of.baked(lesson.dialogues, encoded, found)


def _warm_texts(tokenizer: Tokenizer, lesson: Lesson, longest: int) -> list[Example] | list[tuple[int, ...]]:
    """The dialogues without and with the demos before them, or the turns after the demos."""
    encode = warming.supervised if lesson.prompt is None else warming.prompts
    return encode(tokenizer, lesson.dialogues, lesson.demos, longest)


def _transfer(
    history: History, model: Any, tokenizer: Tokenizer, lesson: Lesson, machine: Machine, run: Run
) -> Transfer:
    """What the demos do to the probes. It is measured once for a run."""
    found = run.transfer()
    if found is None:
        asked = transfer.encode(tokenizer, lesson.probes, lesson.demos, context_of(history))
        measured = transfer.measure(model, *asked, threads=machine.threads, progress=machine.progress)
        run.keep_transfer(found := measured.as_data())
    return Transfer.of(found)


def _warm_steps(
    history: History,
    model: Any,
    tokenizer: Tokenizer,
    lesson: Lesson,
    settings: TrainSettings,
    found: Sequence[Example],
    loss: Any,
) -> WarmSteps:
    """The warm start of a run. `found`, `loss`: the examples and the loss of its training."""
    from persona.behaviour.training.losses import Baking

    longest = _longest(history, settings)
    texts: Any = _warm_texts(tokenizer, lesson, longest)
    if lesson.prompt is not None:
        texts = warming.answered(found, texts, longest)
    rate = warming.rate_of(settings.warm)
    if lesson.prompt is None:  # else a frozen teacher is there
        loss = _baking(model, settings) if rate else Baking(nullcontext)
    count = _needed(settings, settings.warm_steps)
    return WarmSteps(settings.warm_steps, examples_of.in_order(texts, count, settings.seed), loss, rate)


def _baking(model: Any, settings: TrainSettings) -> Any:
    """The loss of a baked prompt: the teacher is a frozen copy, or the same model without its adapter."""
    from persona.behaviour.training.losses import Baking

    if settings.method == "lora":

        @contextmanager
        def without_adapter(trained: Any) -> Iterator[Any]:
            with trained.disable_adapter():
                yield trained

        return Baking(without_adapter)
    frozen = copy.deepcopy(model).eval().requires_grad_(False)

    @contextmanager
    def copied(trained: Any) -> Iterator[Any]:
        yield frozen

    return Baking(copied)


def _save(history: History, base: str, model: Any, target: Path, settings: TrainSettings) -> None:
    """Writes the trained weights in the dtype of the base, rounded to nearest, or the adapter as it is."""
    import torch

    if settings.method == "lora":
        model.save_pretrained(target)
        return
    dtypes = {spec.dtype for spec in history.base(base).tensors if DTYPES[spec.dtype].is_float}
    known = {"BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
    if len(dtypes) == 1 and (dtype := known.get(dtypes.pop())) is not None:
        model.to(dtype)
    model.save_pretrained(target, state_dict=named_as_in(history.base(base), model))
    for name in (load.CONFIG, load.GENERATION_CONFIG):  # the base's hold
        files.remove(target / name)


def named_as_in(base: Base, model: Any) -> dict[str, Any] | None:
    """The weights by the names of a base that lack the prefix of the model's; None if they do not."""
    names = {spec.name for spec in base.tensors}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    state: dict[str, Any] = model.state_dict()
    if not any(name not in names and name.removeprefix(prefix) in names for name in state):
        return None
    return {name if name in names else name.removeprefix(prefix): tensor for name, tensor in state.items()}
