#!/usr/bin/env python3
"""How much memory and time does each optimizer take on a whole model?

Each optimizer trains the model in float32, in a process of its own, on the same random tokens. "State" is the
bytes of all tensors that the optimizer keeps, as counted after the last step. "Peak" is the largest resident
set of the process: weights, gradients and activations are in it, and SGD, which has no state, shows how much
they take. "Step" is the median time of `optimizer.step()`, without the first, and "CPU" its processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import harness

OPTIMIZERS = ("SGD", "AdamW", "APOLLO, rank 16", "APOLLO-Mini")
HEADER = ["embeddings", "optimizer", "state MB", "against AdamW", "peak MB", "step ms", "step CPU ms"]


def main() -> None:
    """Parse, measure in children that take turns, and print."""
    options = harness.parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--base", type=Path, help="a model directory (default: that of --models)")
    options.add_argument("--steps", type=int, default=5)
    options.add_argument("--measure", nargs=2, metavar=("OPTIMIZER", "EMBEDDINGS"), help=argparse.SUPPRESS)
    args = options.parse_args()
    base = args.base or harness.models_of(args.models)[0]
    if args.measure is not None:
        print(json.dumps(measure(base, args.steps, *args.measure)))
        return
    rows = []
    for embeddings in ("trained", "frozen"):
        command = [sys.executable, __file__, "--base", base, "--steps", str(args.steps), "--measure"]
        contestants = [harness.Contestant(name, [*command, name, embeddings]) for name in OPTIMIZERS]
        runs = harness.rounds(contestants, args.rounds, warm_up=False)
        found = {name: [json.loads(one.output.splitlines()[-1]) for one in runs[name]] for name in runs}
        for name, results in found.items():
            state, of_adamw = results[0]["state"], found["AdamW"][0]["state"]
            rows.append(
                [
                    embeddings,
                    name,
                    f"{state / harness.MB:,.1f}",
                    "" if name in ("SGD", "AdamW") else f"{of_adamw / state:.0f} times less",
                    f"{harness.peak(runs[name]) / harness.MB:,.0f}",
                    *(f"{statistics.median(one[key] for one in results):.0f}" for key in ("wall", "cpu")),
                ]
            )
    harness.show("memory of the optimizers", HEADER, rows)


def measure(base: Path, steps: int, name: str, embeddings: str) -> dict[str, Any]:
    """The bytes of state, and the milliseconds of a step."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if embeddings == "frozen":
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(name, trained)
    walls, cpus = [], []
    for _ in range(steps):
        ids = torch.randint(model.config.vocab_size, (2, 64))
        model(input_ids=ids, labels=ids).loss.backward()
        wall, cpu = time.perf_counter(), time.process_time()
        optimizer.step()
        walls.append((time.perf_counter() - wall) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
        optimizer.zero_grad()
    values = [value for state in optimizer.state.values() for value in state.values()]
    return {
        "state": sum(value.nbytes for value in values if isinstance(value, torch.Tensor)),
        "wall": statistics.median(walls[1:]),
        "cpu": statistics.median(cpus[1:]),
    }


def optimizer_of(name: str, parameters: list[Any]) -> Any:
    """A new optimizer of the table."""
    import torch

    from persona.behaviour.training.apollo import MINI, Apollo

    if name == "SGD":
        return torch.optim.SGD(parameters, lr=1e-5)
    if name == "AdamW":
        return torch.optim.AdamW(parameters, lr=1e-5)
    return Apollo(parameters, lr=1e-4, **(MINI if name == "APOLLO-Mini" else {"rank": 16}))


if __name__ == "__main__":
    main()
