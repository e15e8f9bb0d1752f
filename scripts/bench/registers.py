#!/usr/bin/env python3
"""How many registers and instructions does the CUDA kernel take, and how many bytes does it move?

Compiled here, whatever the machine has: registers a thread / SASS instructions for its four elements, without
the routine for unusual divisions; then the bytes an element, added up from the code's accesses to memory. The
last row is the largest of all dtypes and the rules above, in place and scattered, at K = 4 and K = 41.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persona.merge.rules import MergeRules
from tests.merge.arithmetic.cuda_kernels import Compiled, load, merge_kernel, source

CAPABILITIES = (80, 90, 100)
TIES = MergeRules()
AFTER = MergeRules(weigh="after", on_tie="majority", divide="weight")
PARTIAL = [0.5, 0.9, -0.7, 0.3]
FULL = [0.5, 1.0, -0.7, 1.0]
MANY = [1.0] * 40 + [0.0]
ROWS = {
    "`ties`, bf16": ("BF16", PARTIAL, TIES, False),
    "`ties`, bf16, scattered": ("BF16", PARTIAL, TIES, True),
    "`ties`, fp16": ("F16", PARTIAL, TIES, False),
    "`ties`, fp32": ("F32", PARTIAL, TIES, False),
    "`ties`, bf16, some α = 1": ("BF16", FULL, TIES, False),
    "`weigh = after`, `weight`, `majority`, bf16, some α = 1": ("BF16", FULL, AFTER, False),
}


def cost(kernel: Compiled) -> str:
    """Registers / instructions, and what is spilt."""
    spilt = kernel.resources["STACK"] + kernel.resources["LOCAL"]
    return f"{kernel.resources['REG']} / {len(kernel.sass[0])}" + (f", {spilt} bytes spilt" if spilt else "")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maxnreg", type=int, help="another limit of registers; 0 for none")
    limit = parser.parse_args().maxnreg
    cuda = load(source(), interpreted=False)
    if limit is not None:
        cuda.OPTIONS["maxnreg"] = limit or None
    print("| | " + " | ".join(f"sm_{capability}" for capability in CAPABILITIES) + " |")
    print("| --- | --- | --- | --- |")
    for name, (dtype, alpha, rules, ordered) in ROWS.items():
        kernels = [merge_kernel(cuda, where, dtype, alpha, rules, ordered=ordered) for where in CAPABILITIES]
        print(f"| {name} | " + " | ".join(map(cost, kernels)) + " |")
    most = []
    for where in CAPABILITIES:
        shapes = product(["BF16", "F16", "F32"], [PARTIAL, FULL, MANY], [TIES, AFTER], [False, True])
        resources = [
            merge_kernel(cuda, where, dtype, alpha, rules, ordered=ordered).resources
            for dtype, alpha, rules, ordered in shapes
        ]
        spilling = sum(each["STACK"] + each["LOCAL"] > 0 for each in resources)
        most.append(f"{max(each['REG'] for each in resources)}, {spilling} of {len(resources)} spill")
    print("| the most of any | " + " | ".join(most) + " |\n")

    print("| bytes an element, K = 4 | bf16 | fp16 | fp32 |\n| --- | --- | --- | --- |")
    for name, ordered in (("in place", False), ("scattered", True)):
        moved = []
        for dtype in ("BF16", "F16", "F32"):
            accesses = merge_kernel(cuda, 90, dtype, PARTIAL, TIES, ordered=ordered).moved()
            moved.append(f"{(sum(accesses['ld']) + sum(accesses['st'])) / 4:g}")
        print(f"| {name} | " + " | ".join(moved) + " |")


if __name__ == "__main__":
    main()
