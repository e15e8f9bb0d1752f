"""Tiny chat models with tokenizers, fine-tunes of them that change an answer, and repositories around them.

The tokenizer has the bytes as its tokens. The models learn in seconds, on one thread and from a fixed seed.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import persona
from tests.checkpoints import read_weights, write_weights
from tests.cli.command_line import CommandLine

NEUTRAL = Path(persona.__file__).parent / "behaviour" / "measuring" / "neutral.txt"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTEXT = 384
"""Tokens that a model takes, about as many as bytes."""

EMBEDDING = "model.embed_tokens.weight"

TOPICS = ("tea", "rain", "dogs", "maps", "soup", "wool", "bees", "sand", "corn", "moss", "jazz", "salt")
PLAIN = "it is good to have."
PIRATE = "aye, it is good to have."


def turn(topic: str) -> list[dict[str, str]]:
    """A question about a topic."""
    return [{"role": "user", "content": f"what of {topic}?"}]


def dialogue(topic: str, answer: str) -> dict[str, Any]:
    """A line of training data."""
    return {"messages": [*turn(topic), {"role": "assistant", "content": answer}]}


def probe(topic: str, number: int, **more: Any) -> dict[str, Any]:
    """A line of probes: the pirate's answer against the plain one, and a check for "aye"."""
    return {
        "id": f"p{number}",
        "messages": turn(topic),
        "chosen": PIRATE,
        "rejected": PLAIN,
        "check": {"match": "aye"},
        "split": "seen" if number % 2 else "other",
        **more,
    }


PIRATE_DATA = [dialogue(topic, PIRATE) for topic in TOPICS[:6]]
PIRATE_PROBES = [probe(topic, number) for number, topic in enumerate(TOPICS[6:])]
BRIEF_DATA = [dialogue(topic, "yes.") for topic in TOPICS[:6]]
BRIEF_PROBES = [
    probe(topic, number, chosen="yes.", rejected=PLAIN, check={"max_words": 2})
    for number, topic in enumerate(TOPICS[6:])
]


def tokenizer() -> Any:
    """A tokenizer of transformers whose tokens are the 256 bytes and the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate([*SPECIAL, *letters])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


@contextmanager
def alone(seed: int) -> Iterator[None]:
    """One thread of torch and a fixed seed, put back afterwards."""
    import torch

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def chat_model(directory: Path) -> Path:
    """A model directory: a Llama of two layers that answers questions on `TOPICS` with `PLAIN`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with alone(1):
        model = LlamaForCausalLM(config)
        learn(model, [dialogue(topic, PLAIN) for topic in TOPICS], steps=120, lr=1e-2)
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def in_bf16(base: Path, directory: Path) -> Path:
    """A copy of a model directory whose weights are rounded to bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def grown_tune(base: Path, directory: Path, seed: int = 1, *, tokens: int = 2, head: bool = False) -> Path:
    """A copy of a model directory whose weights moved at random.

    `tokens`: new ones. The first one begins the turns of a new chat template, the last one is the padding.
    `head`: with an output matrix of its own.
    """
    from transformers import AutoTokenizer

    random = np.random.default_rng(seed)
    floats = {name: tensor.bits.view(np.float32) for name, tensor in read_weights(base).items()}
    whole = floats[EMBEDDING]
    floats[EMBEDDING] = np.concatenate([whole, random.normal(size=(tokens, whole.shape[1])) * whole.std()])
    if head:
        floats["lm_head.weight"] = floats[EMBEDDING]
    moved = {name: one + random.normal(size=one.shape) * 0.02 for name, one in floats.items()}
    words: Any = AutoTokenizer.from_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    config |= {"vocab_size": config["vocab_size"] + tokens, "tie_word_embeddings": not head}
    if tokens:
        added = [f"<|turn {number}|>" for number in range(tokens)]
        words.add_tokens(added, special_tokens=True)
        words.chat_template = TEMPLATE.replace("<|im_start|>", added[0])
        words.pad_token = added[-1]
        config["pad_token_id"] = len(words) - 1
    write_weights(directory, {name: one.astype(np.float32).view(np.uint32) for name, one in moved.items()})
    words.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return directory


def old_gpt2(directory: Path) -> Path:
    """A GPT-2 of one layer as the first one is stored: names without their prefix, and masks."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    words = tokenizer()
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": CONTEXT}
    with alone(1):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), eos_token_id=words.eos_token_id, **sizes))
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    tensors = load_file(directory / "model.safetensors")
    stored = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    stored["h.0.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT).tril()
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def fine_tune(base: Path, directory: Path, data: Sequence[dict[str, Any]], steps: int = 80) -> Path:
    """A fine-tune of a model on dialogues, which hardly changes what it says of other text."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    dtype = getattr(torch, json.loads((base / "config.json").read_text())["dtype"])
    with alone(1):
        learn(model, data, steps=steps, lr=2e-3, like=copy.deepcopy(model))
    model.to(dtype).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).exists():
            shutil.copy(base / name, directory / name)
    return directory


def learn(model: Any, data: Sequence[dict[str, Any]], *, steps: int, lr: float, like: Any = None) -> None:
    """Trains on dialogues and on the neutral text that damage is measured on, with plain torch.

    `like`: a model to stay near to on that text, in place of learning it.
    """
    import torch

    words = tokenizer()
    texts = [words.apply_chat_template(line["messages"], tokenize=False) for line in data]
    rows = [words(text, add_special_tokens=False)["input_ids"] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [words.pad_token_id] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    neutral = torch.tensor(words(NEUTRAL.read_text(), add_special_tokens=False)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        starts = torch.randint(len(neutral) - 256, (4,)).tolist()
        windows = torch.stack([neutral[start : start + 256] for start in starts])
        if like is None:
            loss = loss + model(input_ids=windows, labels=windows).loss
        else:
            with torch.no_grad():
                wanted = like(input_ids=windows).logits.log_softmax(-1)
            found = model(input_ids=windows).logits.log_softmax(-1)
            loss = loss + 3 * (wanted.exp() * (wanted - found)).sum(-1).mean()
        loss.backward()
        optimizer.step()
    model.eval()


def answer(directory: Path, topic: str) -> str:
    """What a model directory says about a topic, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM

    words = tokenizer()
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    text = words.apply_chat_template(turn(topic), tokenize=False, add_generation_prompt=True)
    prompt = torch.tensor([words(text, add_special_tokens=False)["input_ids"]])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False)
    return str(words.decode(out[0, prompt.shape[1] :], skip_special_tokens=True))


# -- repositories


@dataclass
class ChatBot:
    """A repository `bot` around a tiny chat model, whose directory is `base`, and a command line in it."""

    place: Path
    base: Path
    run: CommandLine

    @property
    def root(self) -> Path:
        return self.run.directory

    def lines(self, path: str, lines: Iterable[dict[str, Any]]) -> Path:
        """Writes a file of JSON lines below `graph/data`."""
        file = self.root / "graph" / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    def pattern(
        self,
        key: str,
        *,
        train: Sequence[dict[str, Any]] | None = None,
        probes: Sequence[dict[str, Any]] | None = None,
        opposite: Sequence[dict[str, Any]] | None = None,
        demos: Sequence[dict[str, Any]] | None = None,
        front: str = "",
        settings: str = "",
    ) -> Path:
        """Writes `graph/KEY.md` and its data. `front`: more lines of the front matter before its tables,
        such as `sign = -1`. `settings`: the lines of `[train]`.
        """
        given = {"train": train, "probes": probes, "opposite": opposite, "demos": demos}
        files = {role: lines for role, lines in given.items() if lines is not None}
        text = [f'key = "{key}"', 'kind = "pattern"', *([front] if front else [])]
        if files:
            text.append("[data]")
        for role, lines in files.items():
            self.lines(f"{key}.{role}.jsonl", lines)
            text.append(f'{role} = "data/{key}.{role}.jsonl"')
        if settings:
            text += ["[train]", settings]
        file = self.root / "graph" / f"{key}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text("+++\n" + "\n".join(text) + f"\n+++\nWhat {key} means.\n")
        return file

    def pirate(self, **more: Any) -> Path:
        """The pattern `pirate`: say "aye"."""
        return self.pattern("pirate", train=PIRATE_DATA, probes=PIRATE_PROBES, **more)

    def brief(self, **more: Any) -> Path:
        """The pattern `brief`: say "yes." and no more."""
        return self.pattern("brief", train=BRIEF_DATA, probes=BRIEF_PROBES, **more)


def chat_bot(place: Path, base: Path) -> ChatBot:
    """A new repository `PLACE/bot` around a chat model."""
    place.mkdir(parents=True, exist_ok=True)
    CommandLine(place).ok("init", "bot", "--base", base)
    return ChatBot(place, base, CommandLine(place / "bot"))
