#!/usr/bin/env python3
"""How do the commands bear a base of 90,000 tensors?

A forged checkpoint of as many tiny tensors and a fine-tune of it, committed. Whole processes: `status`,
`log`, the plan of a checkout alone (through the library: what is computed and what is reused, no chunk read),
and `checkout` where everything is in place already.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import harness
import numpy as np

PLAN = """
import sys
import persona
from persona.history.planning import plan_of
with persona.open(sys.argv[1]) as repository:
    history = repository._history
    plan = plan_of(history, history.recipe_of(history.head_commit()))
    print(len(plan.tensors))
"""


def forge(directory: Path, tensors: int, elements: int, tuned: bool) -> Path:
    """A checkpoint of `tensors` bf16 vectors of `elements` elements; `tuned` changes a part of them."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": "forged"}))
    size = 2 * elements
    header = {
        f"model.layers.{index // 10}.block.{index % 10}.weight": {
            "dtype": "BF16",
            "shape": [elements],
            "data_offsets": [index * size, (index + 1) * size],
        }
        for index in range(tensors)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    bits = rng.integers(0x3C00, 0x3D00, tensors * elements).astype(np.uint16)
    if tuned:
        bits ^= (rng.random(bits.size) < 0.3).astype(np.uint16)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(bits.tobytes())
    return directory


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--tensors", type=int, default=90_000)
    options.add_argument("--elements", type=int, default=64, help="of each tensor (default: 64)")
    args = options.parse_args()
    with harness.scratch(args.scratch) as work:
        base = forge(work / "base", args.tensors, args.elements, tuned=False)
        tuned = forge(work / "tuned", args.tensors, args.elements, tuned=True)
        repository = harness.repository(args.persona, work / "repository", base, [tuned])
        persona: list[str | Path] = [args.persona, "-C", repository]
        harness.run([*persona, "checkout"])
        python = args.persona.with_name("python")
        measured = harness.rounds(
            [
                harness.Contestant("persona status", [*persona, "status"]),
                harness.Contestant("persona log", [*persona, "log"]),
                harness.Contestant("the plan of a checkout", [python, "-c", PLAN, repository]),
                harness.Contestant("persona checkout, nothing to do", [*persona, "checkout"]),
            ],
            args.rounds,
            warm_up=not args.no_warm_up,
        )
        planned = int(measured["the plan of a checkout"][-1].output)
    harness.show(
        f"a base of {planned:,} tensors",
        ["whole process", "median s", "worst s", "peak MB"],
        [
            [
                name,
                f"{harness.seconds(runs):.2f}",
                f"{max(one.seconds for one in runs):.2f}",
                f"{harness.peak(runs) / harness.MB:.0f}",
            ]
            for name, runs in measured.items()
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
