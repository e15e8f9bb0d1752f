#!/usr/bin/env python3
"""How much of a fine-tune do low-rank factors keep, and how large are they?

Writes `vector extract` of each fine-tune at ranks 4 to 64, with factors in bfloat16. The table has the part
of the change's energy that is kept, the megabytes of the adapter and of the vector in the store, seconds of
wall clock, and the peak memory of the process.
"""

from __future__ import annotations

import json

import harness

RANKS = (4, 8, 16, 32, 64)


def main() -> None:
    """Parse, measure, print."""
    args = harness.parser(__doc__).parse_args()
    base, tuned = harness.models_of(args.models)
    rows = []
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "bot", base, tuned)
        for path in tuned:
            for rank in RANKS:
                out = work / f"{path.name}-{rank}"
                command = [
                    args.persona,
                    "-C",
                    repository,
                    "vector",
                    "extract",
                    path.name,
                    "--rank",
                    str(rank),
                ]
                run = harness.run([*command, "--dtype", "bfloat16", "-o", out, "--json"])
                made = json.loads(run.output.splitlines()[-1])
                rows.append(
                    [
                        path.name,
                        str(rank),
                        f"{100 * made['kept_energy']:.1f}",
                        f"{made['bytes'] / harness.MB:.1f}",
                        f"{made['stored_bytes'] / harness.MB:.1f}",
                        f"{run.seconds:.1f}",
                        f"{run.peak / harness.MB:,.0f}",
                    ]
                )
    harness.show(
        "a fine-tune as an adapter",
        ["fine-tune", "rank", "energy kept %", "adapter MB", "vector MB", "s", "peak MB"],
        rows,
    )


if __name__ == "__main__":
    main()
