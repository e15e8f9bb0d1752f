#!/usr/bin/env python
"""Compares an adapter that PEFT saves with PEFT's own merge and with the reference, on a real model.

    scripts/bench/adapters.py build/demo/models/SmolLM2-135M-Instruct --rank 16

For each variant: the stored bytes; how many elements differ from `merge_and_unload` in float32, rounded once
to the base's dtype, by how much at most (in units in the last place of the base's element, or of the result
if that is larger), and which of them differ by more than one unit, with base, result and PEFT's result; how
many differ from `persona.merge.reference`, at α = −1 too; and how many differ from the base after the adapter
was dropped.

MKL multiplies matrices with fused multiply-add, which rounds otherwise than persona. With
MKL_CBWR=COMPATIBLE in the environment it does not.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import persona
from persona.merge import reference

Weights = dict[str, torch.Tensor]
ME = persona.Person("A. Bench", "bench@example.org", 1_700_000_000, 0)


def lora(rank: int, **more: Any) -> LoraConfig:
    """A LoRA of all linear layers."""
    given = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(**{**given, **more})


VARIANTS: dict[str, Callable[[int], LoraConfig]] = {
    "all linear layers": lora,
    "rank-stabilised": lambda rank: lora(rank, use_rslora=True),
    "rank and alpha patterns": lambda rank: lora(
        rank, rank_pattern={"q_proj": rank // 2}, alpha_pattern={"down_proj": 3}
    ),
    "two layers": lambda rank: lora(rank, target_modules=["q_proj", "down_proj"], layers_to_transform=[3, 7]),
    "orthogonal start": lambda rank: lora(rank, init_lora_weights="orthogonal"),
    "MiCA": lambda rank: lora(rank, init_lora_weights="mica"),
    "tied embedding": lambda rank: lora(rank, target_modules=["embed_tokens", "v_proj"]),
    "tied head": lambda rank: lora(rank, target_modules=["lm_head", "v_proj"]),
    "norms saved whole": lambda rank: lora(rank, target_modules=["v_proj"], modules_to_save=["norm"]),
    "trained tokens": lambda rank: lora(rank, target_modules=["v_proj"], trainable_token_indices=[1, 2, 300]),
}


def save(base: Path, place: Path, config: LoraConfig, dtype: torch.dtype) -> None:
    """Saves an adapter with PEFT; its numbers are as large as after a short training."""
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), config)
    for _, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.01
    model.save_pretrained(place)


def merged(base: Path, adapter: Path, like: Weights) -> Weights:
    """`merge_and_unload` in float32, rounded once to the base's dtype."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    return {name: found[name].to(tensor.dtype) for name, tensor in like.items()}


def referenced(adapter: Path, like: Weights, config: LoraConfig, alpha: float = 1.0) -> Weights:
    """b + α·t of the linear layers by the reference, and the base's own other tensors."""
    factors, found = load_file(adapter / "adapter_model.safetensors"), dict(like)
    scale = config.lora_alpha / config.r
    for name, b in like.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in factors:
            low_a, low_b = (factors[f"{module}.lora_{letter}.weight"].float() for letter in "AB")
            x = alpha * reference.low_rank(low_a, low_b, scale)
            found[name] = torch.where(x == 0, b, (b.float() + x).to(b.dtype))
    return found


def differing(one: Weights, other: Weights) -> int:
    """How many elements have other bits."""
    return sum(int((words(one[name]) != words(other[name])).sum()) for name in one)


def units(one: torch.Tensor, other: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """How far elements lie apart, in units in the last place of the larger of base and result."""
    ours, theirs, b = one.double(), other.double(), base.double()
    _, exponent = torch.frexp(torch.maximum(torch.maximum(ours.abs(), theirs.abs()), b.abs()))
    unit = torch.ldexp(torch.tensor(torch.finfo(base.dtype).eps, dtype=torch.float64), exponent - 1)
    return torch.where(ours == theirs, 0.0, (ours - theirs).abs() / unit)


def far(one: Weights, other: Weights, base: Weights) -> Iterator[str]:
    """A line for each element that lies more than one unit apart."""
    for name, b in base.items():
        for place in torch.nonzero(units(one[name], other[name], b) > 1).tolist():
            three = (float(tensor[tuple(place)]) for tensor in (b, one[name], other[name]))
            yield f"{name}{place}: base {next(three):.4g}, persona {next(three):.4g}, PEFT {next(three):.4g}"


def words(tensor: torch.Tensor) -> torch.Tensor:
    """The elements as integers."""
    return tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).long()


def check(base: Path, place: Path, name: str, config: LoraConfig, dtype: torch.dtype) -> None:
    """Prints one variant."""
    adapter = place / "adapter"
    save(base, adapter, config, dtype)
    like = load_file(base / "model.safetensors")
    file = (adapter / "adapter_model.safetensors").stat().st_size

    def weights(repo: persona.Repository) -> Weights:
        repo.checkout()
        return load_file(repo.root / "model.safetensors")

    with persona.init(place / "bot", base=base, author=ME) as repo:
        vector = repo.commit(adapter, message="adapt").vectors[0]
        stored = vector.stored_bytes or 0
        share = f"{100 * stored / file:.1f} %"
        print(f"{name}: {vector.tensors} tensors, {stored:,} bytes stored of a file of {file:,} ({share})")
        found, theirs = weights(repo), merged(base, adapter, like)
        most = max(float(units(found[each], theirs[each], b).max()) for each, b in like.items())
        print(
            f"  merge_and_unload: {differing(found, theirs):,} elements differ, by {most:.2f} ulp at most",
            *far(found, theirs, like),
            sep="\n    more than one: ",
        )
        if name == "all linear layers":
            print(f"  reference: {differing(found, referenced(adapter, like, config))} differ")
            repo.recipe.set(vector.name, alpha="-1")
            minus = referenced(adapter, like, config, alpha=-1.0)
            print(f"  reference at α = −1: {differing(weights(repo), minus)} differ")
        repo.recipe.remove(vector.name)
        print(f"  base, after it was dropped: {differing(weights(repo), like)} differ", flush=True)


def main() -> None:
    """Prints all variants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", default="float32", help="of the adapter's numbers")
    parser.add_argument("--variant", choices=VARIANTS, help="by default all")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.disable_progress_bar()
    for name, config in VARIANTS.items():
        if given.variant not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as place:
            check(given.base, Path(place), name, config(given.rank), getattr(torch, given.dtype))


if __name__ == "__main__":
    main()
