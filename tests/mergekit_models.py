"""Three tiny Llama models whose changes have distinct sizes, and what mergekit made of them.

`python -m tests.mergekit_models MERGEKIT_YAML [NAME…]` runs that program (mergekit 0.1.5, torch 2.13, on the
CPU) on the recipes of tests/golden/golden-mergekit.json, and writes the weights into that file.

Elements are multiples of 1/256, and the changes of one tensor have sizes of their own. So nothing is tied at
a cut-off, and a change is exact in bf16.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints import Bits, bf16, read_weights, write_file, write_model

GOLDEN = Path(__file__).parent / "golden" / "golden-mergekit.json"
LAYERS = 3
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 2,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 4,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
ADAPTED = "model.layers.0.self_attn.q_proj.weight"
MODELS = {"base": 0, "pirate": 1, "asks": 2, "waffle": 3}


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the models."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (4, 4), "model.norm.weight": (4,)}
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        for part in "qkvo":
            found[f"{place}.self_attn.{part}_proj.weight"] = (4, 4)
        found |= {f"{place}.mlp.{part}_proj.weight": (2, 4) for part in ("gate", "up")}
        found[f"{place}.mlp.down_proj.weight"] = (4, 2)
        found |= {f"{place}.{part}_layernorm.weight": (4,) for part in ("input", "post_attention")}
    return found


def _numbers(seed: int) -> Iterator[int]:
    """A linear congruential generator, so that no library's version changes the models."""
    state = seed + 1
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        yield state >> 33


def model(name: str) -> dict[str, Bits]:
    """The weights of a model, as the bits of bf16."""
    base, own = _numbers(7), _numbers(1000 * MODELS[name])
    found = {}
    for tensor, shape in shapes().items():
        size = int(np.prod(shape))
        values = np.array([next(base) % 201 - 100 for _ in range(size)])
        if name != "base":
            sizes = sorted(range(1, size + 1), key=lambda _: next(own))
            values = values + [each * (1 - 2 * (next(own) % 2)) for each in sizes]
        found[tensor] = bf16(values / 256).reshape(shape)
    return found


def write_models(directory: Path) -> Path:
    """The base and its fine-tunes as model directories."""
    for name in MODELS:
        write_model(directory / name, model(name), **{"config.json": json.dumps(CONFIG)})
    return directory


def write_adapter(directory: Path) -> Path:
    """A LoRA adapter that adds 2 to each weight of one matrix of the base."""
    directory.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    inner = f"base_model.model.{ADAPTED.removesuffix('.weight')}"
    ones = np.full(4, 0x3F800000, np.uint32)
    factors = {f"{inner}.lora_A.weight": ones.reshape(1, 4), f"{inner}.lora_B.weight": ones.reshape(4, 1)}
    write_file(directory / "adapter_model.safetensors", factors)
    return directory


def recipes() -> dict[str, dict[str, Any]]:
    """The recipes by name: the text of each, and the weights that mergekit gave, as hex of their bits."""
    found: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())["recipes"]
    return found


def weights_of(written: str) -> dict[str, Bits]:
    """Weights from their hex, tensor after tensor in order of names."""
    bits, start, found = np.frombuffer(bytes.fromhex(written), "<u2"), 0, {}
    for tensor, shape in sorted(shapes().items()):
        size = int(np.prod(shape))
        found[tensor] = bits[start : start + size].reshape(shape)
        start += size
    return found


def main() -> None:
    """Runs mergekit on every recipe, and writes what it gave."""
    golden = json.loads(GOLDEN.read_text())
    with tempfile.TemporaryDirectory() as folder:
        place = write_models(Path(folder))
        for name in sys.argv[2:] or golden["recipes"]:
            recipe = golden["recipes"][name]
            (place / "recipe.yml").write_text(recipe["yaml"])
            command = [sys.argv[1], "recipe.yml", name, "--no-write-model-card", "--no-copy-tokenizer"]
            subprocess.run(command, cwd=place, check=True, capture_output=True)
            found = read_weights(place / name)
            recipe["weights"] = b"".join(found[tensor].bits.tobytes() for tensor in sorted(shapes())).hex()
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
