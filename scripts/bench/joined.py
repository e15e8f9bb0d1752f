#!/usr/bin/env python3
"""Is an exported adapter the same as the recipe it was made from?

Saves two untrained adapters of the base with PEFT (B filled with Gaussian numbers) and commits them.

`one adapter`: the first, exported again. The table says how many tensors of the file have the same bits.
`two, linear`: both at strengths 0.7 and −0.4 under `linear`, exported and merged by PEFT. The table says how
many weights differ from those of `checkout`, and how many by more than one rounding of the sum on each side
and one of the change, which PEFT rounds to the base's dtype.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Make, export, merge, print."""
    args = harness.parser(__doc__).parse_args()
    base, _ = harness.models_of(args.models)
    with harness.scratch(args.scratch) as work:
        one = adapter(base, work / "one", 1, r=16, lora_alpha=32, target_modules=LINEAR)
        two = adapter(base, work / "two", 2, r=8, use_rslora=True, target_modules=["q_proj", "v_proj"])
        bot = harness.repository(args.persona, work / "bot", base)

        def persona(*words: str | Path) -> None:
            harness.run([args.persona, "-C", bot, *words])

        persona("commit", one, "-m", "one", "--alpha", "1")
        persona("export", "--adapter", "HEAD", "-o", work / "back")
        saved, back = (load_file(place / "adapter_model.safetensors") for place in (one, work / "back"))
        same = sum(name in back and torch.equal(back[name], tensor) for name, tensor in saved.items())
        persona("commit", two, "-m", "two")
        persona("set", "--merge", "preset=linear")
        persona("set", "one", "--alpha", "0.7")
        persona("set", "two", "--alpha=-0.4")
        persona("commit", "-m", "both")
        persona("export", "--adapter", "HEAD", "-o", work / "both")
        persona("checkout", "HEAD", "-o", work / "whole")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(work / "both"))
        merged = model.merge_and_unload().state_dict()
        elements = differ = far = 0
        before = load_file(base / "model.safetensors")
        for name, tensor in load_file(work / "whole" / "model.safetensors").items():
            wide = tensor.float()
            distance = (merged[name].float() - wide).abs()
            step = torch.finfo(tensor.dtype).eps / 2 * (2 * wide.abs() + (wide - before[name].float()).abs())
            elements += tensor.numel()
            differ += int((distance > 0).sum())
            far += int((distance > step).sum())
    harness.show(
        "an exported adapter against its recipe",
        ["what", "of", "equal", "differ", "by more than a rounding"],
        [
            ["one adapter, its tensors", f"{len(saved):,}", f"{same:,}", f"{len(saved) - same:,}", "–"],
            ["two, linear, weights", f"{elements:,}", f"{elements - differ:,}", f"{differ:,}", f"{far:,}"],
        ],
    )


def adapter(base: Path, place: Path, seed: int, **config: Any) -> Path:
    """An adapter of a base, as PEFT saves it."""
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(str(place))
    return place


if __name__ == "__main__":
    main()
