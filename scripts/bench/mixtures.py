#!/usr/bin/env python3
"""What does a checkout with two adapters and one delta cost, beside one with three deltas?

Two repositories of the same base: one with the first three fine-tunes, one with the first of them and two
adapters of the same rank, for every linear layer or for some (`--modules`). `checkout -o` of each, as whole
processes, takes turns. The adapters are random numbers of the size that training gives, and are made here. So
this process holds torch, and the peak memory of its children would be its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import harness
import torch
from safetensors import safe_open
from safetensors.torch import save_file

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(base: Path, out: Path, rank: int, seed: int, modules: list[str]) -> None:
    """A PEFT adapter of one rank for these modules of the base."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 — no mapping
                module = name.removesuffix(".weight")
                if module.rpartition(".")[2] not in modules:
                    continue
                rows, columns = opened.get_slice(name).get_shape()
                key = f"base_model.model.{module}"
                tensors[f"{key}.lora_A.weight"] = (
                    torch.randn(rank, columns, generator=generator) / columns**0.5
                )
                tensors[f"{key}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 1e-3
    out.mkdir(parents=True)
    save_file(tensors, out / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": modules,
    }
    (out / "adapter_config.json").write_text(json.dumps(settings, indent=1))


def measure(args: argparse.Namespace, rank: int) -> list[list[str]]:
    """The rows of one rank."""
    base, tuned = harness.models_of(args.models)
    with harness.scratch(args.scratch) as work:
        adapters = [work / f"adapter-{number}" for number in range(2)]
        for number, path in enumerate(adapters):
            write_adapter(base, path, rank, number, args.modules)
        names = {"three deltas": tuned[:3], f"one delta, two adapters of rank {rank}": [tuned[0], *adapters]}
        contestants = []
        for number, (name, vectors) in enumerate(names.items()):
            repository, out = work / f"repository-{number}", work / f"out-{number}"
            harness.repository(args.persona, repository, base)
            harness.run([args.persona, "-C", repository, "set", "--merge", f"density={args.density}"])
            for place, path in enumerate(vectors):
                command = [args.persona, "-C", repository, "commit", path, "-n", f"v{place}", "-m", "bench"]
                harness.run(command)
            command = [args.persona, "-C", repository, "checkout", "-o", out]
            if args.memory:
                command += ["--memory", args.memory]
            contestants.append(harness.Contestant(name, command, lambda out=out: harness.remove(out)))
        measured = harness.rounds(contestants, args.rounds, warm_up=not args.no_warm_up)
        deltas, mixed = measured.values()
        return [
            [
                name,
                f"{harness.seconds(runs):.2f}",
                f"{sum(run.cpu for run in runs) / len(runs):.2f}",
                harness.ratio(mixed, deltas) if runs is mixed else "",
            ]
            for name, runs in measured.items()
        ]


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--density", default="1", help="of every term (default: 1)")
    options.add_argument("--rank", type=int, nargs="+", default=[16], help="of the adapters (default: 16)")
    options.add_argument(
        "--modules", nargs="+", default=list(LINEAR), help="that are adapted (default: every linear layer)"
    )
    options.add_argument("--memory", help="persona's --memory")
    args = options.parse_args()
    header = ["recipe", "s", "CPU s", "against three deltas"]
    for rank in args.rank:
        harness.show(f"Mixtures, density {args.density}", header, measure(args, rank))


if __name__ == "__main__":
    main()
