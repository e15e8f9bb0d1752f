#!/usr/bin/env python3
"""Does memory stay the same when the model or the number of vectors grows, and time in proportion?

The same commands on a small model and on a large one: peak resident set of each whole process, and the time
of `checkout -o` for each element. Where there are fewer fine-tunes than vectors asked for, they are merged
again under other names, at another α.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import harness


def measure(args: argparse.Namespace, models: Path, vectors: int) -> list[list[str]]:
    """The rows of one model with so many vectors."""
    base, tuned = harness.models_of(models)
    raw = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    with harness.scratch(args.scratch) as work:
        repository, out = work / "repository", work / "out"
        persona: list[str | Path] = [args.persona, "-C", repository]
        measured = {"init": [harness.run([args.persona, "init", repository, "--base", base])]}
        harness.run([*persona, "set", "--merge", f"density={args.density}"])
        measured["commit"] = []
        for number in range(vectors):
            path, turn = tuned[number % len(tuned)], number // len(tuned)
            alpha = ["--alpha", str(round(1 - 0.2 * turn, 1))]
            name = f"{path.name}.{turn}"
            done = harness.run([*persona, "commit", path, "-n", name, *alpha, "-m", "bench"])
            measured["commit"].append(done)
        measured["checkout -o"] = []
        for _ in range(args.rounds):
            harness.remove(out)
            measured["checkout -o"].append(harness.run([*persona, "checkout", "-o", out]))
    return [
        [
            f"{raw / harness.MB:,.0f}",
            str(vectors),
            name,
            f"{harness.peak(runs) / harness.MB:.0f}",
            f"{harness.seconds(runs):.2f}",
            f"{harness.seconds(runs) / raw * 2e9:.1f}" if name == "checkout -o" else "",
        ]
        for name, runs in measured.items()
    ]


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.set_defaults(rounds=2)
    options.add_argument(
        "--large",
        type=Path,
        default=harness.ROOT / "build/synthetic",
        help="what `models.py synthetic` wrote (default: build/synthetic)",
    )
    options.add_argument("--vectors", type=int, nargs="+", default=[4, 12])
    options.add_argument("--density", default="0.2")
    args = options.parse_args()
    rows = [
        row
        for vectors in args.vectors
        for models in (args.models, args.large)
        for row in measure(args, models, vectors)
    ]
    harness.show(
        f"memory and time, density {args.density}",
        ["weights MB", "vectors", "command", "peak MB", "median s", "ns an element"],
        rows,
    )


if __name__ == "__main__":
    main()
