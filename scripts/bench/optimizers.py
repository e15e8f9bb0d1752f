#!/usr/bin/env python3
"""How fast does the loss fall under AdamW, APOLLO and APOLLO-Mini?

`persona train` trains one behaviour of the example `companion` with each optimizer: the same examples in
the same order, whole weights, the embeddings frozen. The loss of a step is that of its own batch, in nats
per token of the answers. All optimizers see the same batch at the same step, so compare the curves step by
step. Several learning rates for one optimizer (`--lr adamw=1e-5,2e-5`) show how much the rate matters. The
chart has the first of each.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import harness

NAMES = {"adamw": "AdamW", "apollo": "APOLLO, rank 16", "apollo-mini": "APOLLO-Mini"}
HEADER = ["optimizer", "lr", "steps", "seconds", "first 5", "steps 11 to 20", "last 10", "changed"]


def main() -> None:
    """Parse, train, draw, print."""
    options = harness.parser(__doc__)
    options.add_argument("--base", type=Path, help="a model directory (default: that of --models)")
    options.add_argument("--pattern", default="listening")
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--seed", type=int, help="default: that of the pattern")
    options.add_argument(
        "--lr",
        nargs="*",
        default=[],
        metavar="OPTIMIZER=LR,…",
        help="learning rates to try (default: the one of persona)",
    )
    options.add_argument("--chart", type=Path, help="a PNG to draw the curves into")
    args = options.parse_args()
    base = args.base or harness.models_of(args.models)[0]
    given = dict(word.split("=") for word in args.lr)
    with harness.scratch(args.scratch) as work:
        curves = train(base, work / "repository", args, given)
    harness.show(f"optimizers, pattern {args.pattern}", HEADER, [row(*curve) for curve in curves])
    if args.chart is not None:
        draw(curves, args.chart)


def train(
    base: Path, directory: Path, args: Any, given: dict[str, str]
) -> list[tuple[str, float, Any, list[float]]]:
    """The optimizer, its rate, the result of `train`, and the loss of each step, for each run."""
    import persona
    from persona.behaviour.training import provenance
    from persona.behaviour.training.settings import RATES

    harness.run([args.persona, "init", directory, "--base", base, "--example", "companion"])
    found = []
    with persona.open(directory) as repo:
        for optimizer in given or NAMES:
            rates = given.get(optimizer, str(RATES[optimizer])).split(",")
            for lr in map(float, rates):
                print(f"training with {NAMES[optimizer]} at {lr:g} …", flush=True)
                (result,) = repo.train(
                    args.pattern, optimizer=optimizer, lr=lr, steps=args.steps, seed=args.seed
                )
                notes = {one.vector: one for one in provenance.known(repo._history)}
                losses = [float(loss) for _, loss in notes[result.id].loss]
                found.append((optimizer, lr, result, losses))
    return found


def row(optimizer: str, lr: float, result: Any, losses: list[float]) -> list[str]:
    """A row of the table; losses are means over steps."""
    parts = (losses[:5], losses[10:20], losses[-10:])
    return [
        NAMES[optimizer],
        f"{lr:g}",
        str(result.steps),
        f"{result.seconds:.0f}",
        *(f"{statistics.mean(part):.3f}" for part in parts),
        f"{result.changed_fraction:.3f}",
    ]


def draw(curves: list[tuple[str, float, Any, list[float]]], chart: Path) -> None:
    """Draws the loss of each step, faint, and its mean over the last 10 steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    drawn: set[str] = set()
    for optimizer, lr, _, losses in curves:
        if optimizer in drawn:
            continue
        drawn.add(optimizer)
        color = f"C{len(drawn) - 1}"
        steps = range(1, len(losses) + 1)
        means = [statistics.mean(losses[max(0, step - 10) : step]) for step in steps]
        axes.plot(steps, losses, color=color, alpha=0.25, linewidth=1)
        axes.plot(steps, means, color=color, label=f"{NAMES[optimizer]}, lr {lr:g}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per token")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    chart.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(chart, dpi=150)


if __name__ == "__main__":
    main()
