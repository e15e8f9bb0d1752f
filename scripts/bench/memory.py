#!/usr/bin/env python3
"""Does the memory of init, commit and checkout stay the same when the model grows?

The same commands on a small model and on a large one, with the same number of vectors: peak resident set of
each whole process.
"""

from __future__ import annotations

import json
from pathlib import Path

import harness


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.set_defaults(rounds=1)
    options.add_argument(
        "--large",
        type=Path,
        default=harness.ROOT / "build/models/big",
        help="what `models.py synthetic` wrote",
    )
    options.add_argument("--vectors", type=int, default=3)
    args = options.parse_args()
    peaks: dict[str, list[int]] = {}
    rows = []
    for models in (args.models, args.large):
        base, tuned = harness.models_of(models)
        raw = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        with harness.scratch(args.scratch) as work:
            repository, out = work / "repository", work / "out"
            persona: list[str | Path] = [args.persona, "-C", repository]
            measured = {"init": [harness.run([args.persona, "init", repository, "--base", base])]}
            measured["commit"] = [
                harness.run([*persona, "commit", path, "-n", path.name, "-m", "bench"])
                for path in tuned[: args.vectors]
            ]
            measured["checkout -o"] = []
            for _ in range(args.rounds):
                harness.remove(out)
                measured["checkout -o"].append(harness.run([*persona, "checkout", "-o", out, "--json"]))
            computed = json.loads(measured["checkout -o"][-1].output)["tensors_computed"]
        for name, runs in measured.items():
            peaks.setdefault(name, []).append(harness.peak(runs))
            seconds = f"{harness.seconds(runs):.2f}"
            tensors = str(computed) if name == "checkout -o" else ""
            rows.append(
                [f"{raw / harness.MB:,.0f}", name, f"{harness.peak(runs) / harness.MB:.0f}", seconds, tensors]
            )
    harness.show(
        f"peak memory, {args.vectors} vectors",
        ["weights MB", "command", "peak MB", "median s", "tensors computed"],
        rows,
    )
    for name, (small, large) in peaks.items():
        print(f"{name}: the large model takes {large / small - 1:+.1%} of the small one's memory")


if __name__ == "__main__":
    main()
