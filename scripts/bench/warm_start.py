#!/usr/bin/env python
"""Measures whether a warm start saves training: steps and FLOPs to a fixed held-out loss, in seven arms.

    scripts/bench/warm_start.py --base build/demo/models/SmolLM2-135M-Instruct --work build/warm_start

| arm | before the training |
| --- | --- |
| cold | nothing |
| moments | steps at learning rate 0 on KL(model with the demos ‖ model without) |
| distil | the same steps at the full learning rate |
| moments of the training loss | steps at learning rate 0 on the loss of the training |
| moments, other demos | as moments, with the demos of another behaviour |
| distil, other demos | as distil, with the demos of another behaviour |
| cold, more steps | nothing; the training has the steps of the warm start as well |

The model is the real one. Only its last layers are trained (`--trained`), so the states below them are
computed once for each text. `--layers N` makes a smaller model of its first N layers in --work, and takes
that. The first layers of SmolLM2-135M-Instruct alone predict so badly that demos do nothing to them, so the
default is the whole model. The loop is this script's own; optimizer, losses, order of the examples and
learning rates are those of `persona train`.
Every sixth dialogue of a behaviour is held out. The target is the held-out loss at which a cold run has made
`--reach` of its way; all arms of one behaviour and one seed have the same target. Between two evaluations the
loss is taken as linear. An arm that does not reach the target is counted with all its steps, and named.

FLOPs are counted as for a training of all layers, by tokens: 6 P T for a step on T tokens (forward 2 P T,
backward 4 P T; P: parameters), and 2 P T' more for the T' tokens that a teacher reads with the demos.

Intervals are of 95 %, by bootstrap over pairs of behaviour and seed. Every finished run is kept in --work, so
a second call goes on. On two idle cores, the default takes about 25 minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import ROOT, show

from persona.behaviour.dialogues import read_dialogues
from persona.behaviour.measuring import transfer
from persona.behaviour.measuring.statistics import interval, ratio_interval
from persona.behaviour.probes import read_probes
from persona.behaviour.training import examples, warming
from persona.behaviour.training.apollo import Apollo
from persona.behaviour.training.examples import IGNORED, Example

COLD, LONGER = "cold", "cold, more steps"
ARMS = {
    COLD: (None, 0.0),
    "moments": ("own", 0.0),
    "distil": ("own", 1.0),
    "moments of the training loss": ("train", 0.0),
    "moments, other demos": ("other", 0.0),
    "distil, other demos": ("other", 1.0),
    LONGER: (None, 0.0),
}
"""The loss of the warm start of each arm, None for none, and its learning rate as a part of the full one."""
HELD_OUT = 6
EVERY = 4
"""Steps between two evaluations."""
DATA = ROOT / "persona" / "examples" / "companion" / "graph" / "data"
LONGEST = 2048


def main() -> None:
    """Parse, run what is missing, print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--base", type=Path, required=True, help="a Llama with a chat template")
    options.add_argument("--work", type=Path, required=True, help="where finished runs are kept")
    options.add_argument("--behaviours", default="listening,openness,voice")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=24)
    options.add_argument("--warm-steps", type=int, default=5)
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--lr", type=float, default=2e-4)
    options.add_argument("--optimizer", choices=("apollo", "adamw"), default="apollo")
    options.add_argument("--trained", type=int, default=4, help="how many of the last layers are trained")
    options.add_argument("--layers", type=int, help="first layers that the model has (default: all)")
    options.add_argument("--probes", type=int, default=12, help="probes that the demos are tried on")
    options.add_argument("--reach", type=float, default=0.8)
    options.add_argument("--threads", type=int, default=2)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    names = ("layers", "trained", "steps", "warm_steps", "batch", "lr", "optimizer")
    work = args.work / "-".join(str(getattr(args, name)) for name in names)
    work.mkdir(parents=True, exist_ok=True)
    keys = args.behaviours.split(",")
    args.name = args.base.name
    if args.layers is not None:
        args.base = shortened(args.base, args.layers, work / "model")
    bench = Bench(args, work)
    for seed in range(args.seeds):
        for key, other in zip(keys, keys[1:] + keys[:1], strict=True):
            for arm in ARMS:
                bench.run(key, other, seed, arm)
    report(args, keys, work, {key: bench.transfer(key) for key in keys})


# -- the model, its last layers apart ------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """An example at the trained layers. `states`: what enters them, tokens × width.

    `places`: the places whose next token is an answer's, `targets`: those tokens.
    """

    states: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor


def shortened(base: Path, layers: int, directory: Path) -> Path:
    """A model directory with the first layers of a model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not directory.exists():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
        made = directory.with_suffix(".part")
        AutoTokenizer.from_pretrained(base).save_pretrained(made)
        model.save_pretrained(made)
        made.rename(directory)
    return directory


class Halves:
    """A model, as layers that stay as they are and layers that are trained."""

    def __init__(self, base: Path, trained: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self.model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.model.requires_grad_(False)
        self.model.config.use_cache = False
        self.layers = list(self.model.model.layers)
        self.below, self.above = self.layers[:-trained], self.layers[-trained:]
        self.norm = self.model.model.norm
        self.hold(self.layers, self.norm)
        for layer in self.above:
            layer.requires_grad_(True)
        self.start = [{name: one.clone() for name, one in layer.state_dict().items()} for layer in self.above]

    def hold(self, layers: Sequence[Any], norm: Any) -> None:
        """Makes the model have these layers."""
        self.model.model.layers = torch.nn.ModuleList(layers)
        self.model.model.norm = norm

    def reset(self) -> None:
        """The weights of the beginning."""
        for layer, state in zip(self.above, self.start, strict=True):
            layer.load_state_dict(state)

    def text(self, ids: Sequence[int], labels: Sequence[int]) -> Text:
        """An example, run through the layers below."""
        self.hold(self.below, torch.nn.Identity())
        with torch.no_grad():
            states = self.model.model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
        wanted = torch.tensor(list(labels))[1:]
        places = (wanted != IGNORED).nonzero()[:, 0]
        return Text(states, places, wanted[places])

    def answers(self, texts: Sequence[Text]) -> torch.Tensor:
        """The states before the head at all answer places, with the trained layers as they are."""
        self.hold(self.above, self.norm)
        longest = max(len(text.states) for text in texts)
        states = torch.zeros(len(texts), longest, texts[0].states.shape[1])
        mask = torch.zeros(len(texts), longest, dtype=torch.long)
        for row, text in enumerate(texts):
            states[row, : len(text.states)] = text.states
            mask[row, : len(text.states)] = 1
        found = self.model.model(inputs_embeds=states, attention_mask=mask).last_hidden_state
        return torch.cat([found[row, text.places] for row, text in enumerate(texts)])

    def chances(self, states: torch.Tensor) -> torch.Tensor:
        """The log probabilities of the next token."""
        found: torch.Tensor = self.model.lm_head(states).log_softmax(-1)
        return found


@dataclass(frozen=True)
class Pupil:
    """An example with the states that a teacher has at its answer places, and the tokens that it read."""

    text: Text
    taught: torch.Tensor
    read: int


class Bench:
    """The runs of all arms. What does not depend on the seed is computed once."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args = args
        self.work = work
        self._halves: Halves | None = None
        self._texts: dict[str, tuple[list[Text], list[Text]]] = {}
        self._pupils: dict[tuple[str, str], list[Pupil]] = {}

    @property
    def halves(self) -> Halves:
        """The model, read when it is needed first."""
        if self._halves is None:
            self._halves = Halves(self.args.base, self.args.trained)
        return self._halves

    def run(self, key: str, other: str, seed: int, arm: str) -> None:
        """Trains one arm, unless it was trained before."""
        file = self.work / f"{key} {seed} {arm}.json"
        if file.exists():
            return
        began = time.perf_counter()
        found = self.train(key, other, seed, arm)
        file.with_suffix(".part").write_text(json.dumps(found))
        file.with_suffix(".part").rename(file)
        losses = found["curve"]
        print(
            f"{file.stem}: {losses[0][1]:.3f} → {losses[-1][1]:.3f}, {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
            flush=True,
        )

    def texts(self, key: str) -> tuple[list[Text], list[Text]]:
        """The examples to train on, and those that are held out."""
        if key not in self._texts:
            encoded = examples.supervised(self.halves.tokenizer, dialogues(key), LONGEST)
            found = [self.halves.text(one.ids, one.labels) for one in encoded]
            self._texts[key] = split(found)
        return self._texts[key]

    def pupils(self, key: str, demos: str) -> list[Pupil]:
        """The examples to train on, with what the model of the beginning says after the demos of `demos`."""
        if (key, demos) not in self._pupils:
            given = read_dialogues(demos, (DATA / f"{demos}.demos.jsonl").read_bytes())
            encoded, _ = split(warming.supervised(self.halves.tokenizer, dialogues(key), given, LONGEST))
            texts, _ = self.texts(key)
            self.halves.reset()
            self._pupils[key, demos] = [
                self.pupil(text, one) for text, one in zip(texts, encoded, strict=True)
            ]
        return self._pupils[key, demos]

    def pupil(self, text: Text, example: Example) -> Pupil:
        """An example with its teacher's states."""
        after = self.halves.text(example.prompted, example.prompted_labels)
        with torch.no_grad():
            return Pupil(text, self.halves.answers([after]), len(example.prompted))

    def train(self, key: str, other: str, seed: int, arm: str) -> dict[str, Any]:
        """The held-out loss after each training step that was evaluated, and the work until then."""
        args, halves = self.args, self.halves
        texts, held_out = self.texts(key)
        source, rate = ARMS[arm]
        warm = args.warm_steps if source else 0
        steps = args.steps + (args.warm_steps if arm == LONGER else 0)
        halves.reset()
        parameters = [one for layer in halves.above for one in layer.parameters()]
        optimizer = (
            Apollo(parameters, lr=args.lr, seed=seed)
            if args.optimizer == "apollo"
            else torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
        )
        rates = [rate] * warm + list(schedule(steps))
        pupils: list[Any] = texts
        if source in ("own", "other"):
            pupils = self.pupils(key, key if source == "own" else other)
        batches = [
            *batches_of(pupils, warm, args.batch, seed),
            *batches_of(texts, steps, args.batch, seed),
        ]
        curve, tokens = [], 0
        for number, (batch, share) in enumerate(zip(batches, rates, strict=True), 1 - warm):
            if number == 1:
                curve.append((0, self.evaluate(held_out), tokens))
            for group in optimizer.param_groups:
                group["lr"] = args.lr * share
            optimizer.zero_grad()
            if isinstance(batch[0], Pupil):
                inputs = [one.text for one in batch]
                wanted = halves.chances(torch.cat([one.taught for one in batch]))
                found = halves.chances(halves.answers(inputs))
                loss = torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="sum")
                tokens += 2 * sum(one.read for one in batch)
            else:
                inputs = batch
                found = halves.chances(halves.answers(inputs))
                loss = torch.nn.functional.nll_loss(
                    found, torch.cat([one.targets for one in inputs]), reduction="sum"
                )
            tokens += 6 * sum(len(one.states) for one in inputs)
            (loss / len(found)).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if number > 0 and (number % EVERY == 0 or number == steps):
                curve.append((number, self.evaluate(held_out), tokens))
        return {"curve": curve, "warm": warm}

    def evaluate(self, texts: Sequence[Text]) -> float:
        """The mean loss of all answer tokens, in nats."""
        with torch.no_grad():
            found = self.halves.chances(self.halves.answers(texts))
            targets = torch.cat([one.targets for one in texts])
            return float(torch.nn.functional.nll_loss(found, targets))

    def transfer(self, key: str) -> transfer.Transfer:
        """What the demos of a behaviour do to some of its probes."""
        file = self.work / f"transfer {key} {self.args.probes}.json"
        if not file.exists():
            probes = read_probes(key, key, (DATA / f"{key}.probes.jsonl").read_bytes())
            items = random.Random(0).sample(probes.items, min(self.args.probes, len(probes.items)))
            demos = read_dialogues(key, (DATA / f"{key}.demos.jsonl").read_bytes())
            chosen = type(probes)(key, tuple(items))
            pairs, groups = transfer.encode(self.halves.tokenizer, chosen, demos, None)
            self.halves.reset()
            self.halves.hold(self.halves.layers, self.halves.norm)
            found = transfer.measure(
                self.halves.model, pairs, groups, threads=self.args.threads, progress=None
            )
            file.write_text(json.dumps(found.as_data()))
        return transfer.Transfer.of(json.loads(file.read_text()))


def dialogues(key: str) -> Any:
    """The dialogues of a behaviour of the example."""
    return read_dialogues(key, (DATA / f"{key}.jsonl").read_bytes())


def split(items: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Those to train on, and those that are held out."""
    kept = [one for place, one in enumerate(items) if place % HELD_OUT]
    return kept, list(items[::HELD_OUT])


def batches_of(items: Sequence[Any], steps: int, batch: int, seed: int) -> Iterator[Sequence[Any]]:
    """The batches of so many steps, in the order of `persona train`."""
    found: list[Any] = examples.in_order(items, steps * batch, seed)
    for start in range(0, len(found), batch):
        yield found[start : start + batch]


def schedule(steps: int) -> Iterator[float]:
    """The learning rates of `persona train`: up in a tenth of the steps, then linearly down."""
    rise = int(0.1 * steps)
    for step in range(steps):
        yield step / rise if step < rise else (steps - step) / (steps - rise)


# -- what came out -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reached:
    """What an arm took to the target: training steps, steps with those of the warm start, work."""

    trained: float
    steps: float
    work: float
    in_time: bool
    last: float


def reached(run: dict[str, Any], target: float) -> Reached:
    """The first crossing of the target, between two evaluations by a straight line."""
    curve, warm = run["curve"], run["warm"]
    last = curve[-1][1]
    if curve[0][1] <= target:
        return Reached(0, warm, curve[0][2], True, last)
    for (step, loss, work), (next_step, next_loss, next_work) in itertools.pairwise(curve):
        if next_loss <= target:
            part = (loss - target) / (loss - next_loss)
            taken = step + part * (next_step - step)
            return Reached(taken, warm + taken, work + part * (next_work - work), True, last)
    return Reached(curve[-1][0], warm + curve[-1][0], curve[-1][2], False, last)


def report(
    args: argparse.Namespace, keys: Sequence[str], work: Path, transfers: dict[str, transfer.Transfer]
) -> None:
    """Prints the tables."""
    pairs = [(key, seed) for key in keys for seed in range(args.seeds)]
    groups = [f"{key} {seed}" for key, seed in pairs]
    found: dict[str, list[Reached]] = {arm: [] for arm in ARMS}
    for key, seed in pairs:
        runs = {arm: json.loads((work / f"{key} {seed} {arm}.json").read_text()) for arm in ARMS}
        first, last = runs[COLD]["curve"][0][1], runs[COLD]["curve"][-1][1]
        target = first - args.reach * (first - last)
        for arm, run in runs.items():
            found[arm].append(reached(run, target))
    cold = found[COLD]
    rows = []
    for arm, here in found.items():
        if arm == COLD:
            continue
        columns = [
            ratio([getattr(one, name) for one in here], [getattr(one, name) for one in cold], groups)
            for name in ("trained", "steps", "work")
        ]
        change = interval([a.last - b.last for a, b in zip(here, cold, strict=True)], groups)
        missed = sum(not one.in_time for one in here)
        end = f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
        rows.append([arm, *columns, end, f"{missed} of {len(here)}"])
    layers = "all layers" if args.layers is None else f"its first {args.layers} layers"
    title = (
        f"{args.name}, {layers}, the last {args.trained} trained by {args.optimizer} at {args.lr:g};"
        f" {args.steps} steps, {args.warm_steps} before, batch {args.batch};"
        f" {len(keys)} behaviours, {args.seeds} seeds"
    )
    header = ["arm", "training steps", "all steps", "FLOPs", "loss at the end", "not reached"]
    show(f"warm start: ratio to cold. {title}", header, rows)
    rows = []
    for key in keys:
        places = [place for place, (one, _) in enumerate(pairs) if one == key]
        ratios = [
            f"{sum(found[arm][p].trained for p in places) / sum(cold[p].trained for p in places):.2f}"
            for arm in ARMS
            if arm != COLD
        ]
        change = transfers[key].change
        assert change is not None
        rows.append([key, f"{change.mean:+.1f} [{change.low:+.1f}, {change.high:+.1f}]", *ratios])
    arms = [arm for arm in ARMS if arm != COLD]
    show("by behaviour: Δmargin by the demos, ratio of training steps", ["behaviour", "demos", *arms], rows)


def ratio(above: Sequence[float], below: Sequence[float], groups: Sequence[str]) -> str:
    """A ratio with its interval; one that holds 1 is no effect."""
    found = ratio_interval(above, below, groups)
    said = f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
    return f"{said} no effect" if found.low <= 1 <= found.high else said


if __name__ == "__main__":
    main()
