#!/usr/bin/env python3
"""What does a checkout of a large model cost beside one thread, beside the disk, and when one layer changed?

Four contestants take turns, each a whole process: `checkout -o` on all cores; the same on one thread; `cat`
of the stored bytes and of the output, brought to the disk; and `checkout` in place after one layer's α
changed, where all else is there already.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import harness
from harness import Contestant


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.set_defaults(models=harness.ROOT / "build/synthetic", rounds=3)
    options.add_argument("--density", default="0.2")
    options.add_argument("--vectors", type=int, help="use only the first N fine-tunes")
    options.add_argument("--layer", default="model.layers.3.*", help="the tensors whose α changes")
    args = options.parse_args()
    base, tuned = harness.models_of(args.models)
    tuned = tuned[: args.vectors]
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base, tuned)
        persona: list[str | Path] = [args.persona, "-C", repository]
        harness.run([*persona, "set", "--merge", f"density={args.density}"])
        harness.run([*persona, "commit", tuned[0], "-n", "layer", "--only", args.layer, "-m", "one layer"])
        harness.run([*persona, "checkout"])
        ours, copy = work / "ours", work / "copy"
        alphas = itertools.cycle(("0.9", "0.8"))
        stored = " ".join(str(path) for path in (repository / ".persona/packs").glob("*.pack"))
        weights = " ".join(str(path) for path in base.glob("*.safetensors"))

        def turn() -> None:
            harness.run([*persona, "set", "layer", "--alpha", next(alphas)])
            harness.remove(ours)

        measured = harness.rounds(
            [
                Contestant("checkout -o", [*persona, "checkout", "-o", ours], lambda: harness.remove(ours)),
                Contestant(
                    "checkout -o --threads 1",
                    [*persona, "checkout", "-o", ours, "--threads", "1"],
                    lambda: harness.remove(ours),
                ),
                Contestant(
                    "cat, in and out",
                    ["sh", "-c", f"cat {stored} >/dev/null && cat {weights} >{copy} && sync {copy}"],
                    lambda: (harness.remove(ours), copy.unlink(missing_ok=True), harness.remove()),
                ),
                Contestant("checkout, one layer changed", [*persona, "checkout", "--json"], turn),
            ],
            args.rounds,
        )
        computed = json.loads(measured["checkout, one layer changed"][-1].output)["tensors_computed"]
        size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    harness.show(
        f"checkout of {size / harness.MB:,.0f} MB, {len(tuned)} vectors, density {args.density}",
        ["whole process", "median s", "all s", "peak MB"],
        [
            [
                name,
                f"{harness.seconds(runs):.2f}",
                " ".join(f"{one.seconds:.2f}" for one in runs),
                f"{harness.peak(runs) / harness.MB:,.0f}",
            ]
            for name, runs in measured.items()
        ],
    )
    whole = measured["checkout -o"]
    print(
        f"\nAll cores are faster than one thread {harness.ratio(measured['checkout -o --threads 1'], whole)};"
    )
    print(f"cat is faster than the checkout {harness.ratio(whole, measured['cat, in and out'])};")
    print(
        f"one layer ({computed} tensors computed) is faster than all"
        f" {harness.ratio(whole, measured['checkout, one layer changed'])}."
    )


if __name__ == "__main__":
    main()
