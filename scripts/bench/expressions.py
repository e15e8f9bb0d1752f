#!/usr/bin/env python3
"""Two fine-tunes of opposite sign: as one vector, derived by an expression, and as two terms.

The first table counts the weights in which the two recipes differ, and gives the Euclidean norms of the
change that each makes to the base and of their difference. The second has a checkout of each.
"""

from __future__ import annotations

import json

import harness

DENSITIES = ("1", "0.5", "0.2", "0.1")


def main() -> None:
    """Parse, measure, print."""
    args = harness.parser(__doc__).parse_args()
    base, tuned = harness.models_of(args.models)
    one, other = tuned[:2]
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base, [one, other])
        persona = [args.persona, "-C", repository]

        def commit(branch: str) -> None:
            harness.run([*persona, "commit", "-m", branch])
            harness.run([*persona, "branch", "-f", branch])

        def change(before: str, after: str) -> dict[str, float]:
            found = harness.run([*persona, "--json", "diff", before, after, "--weights"])
            weights: dict[str, float] = json.loads(found.output.splitlines()[-1])["weights"]
            return weights

        root = json.loads(harness.run([*persona, "--json", "log"]).output)[-1]["id"]
        start = json.loads(harness.run([*persona, "--json", "rev-parse", "HEAD"]).output)["id"]
        rows = []
        for density in DENSITIES:
            harness.run([*persona, "restore", "-s", start, "recipe.toml"])
            harness.run([*persona, "set", "--merge", f"density={density}"])
            harness.run([*persona, "set", other.name, "--alpha", "-1"])
            commit("two")
            harness.run([*persona, "vector", "derive", "contrast", f"'{one.name}' - '{other.name}'"])
            harness.run([*persona, "rm", one.name, other.name])
            commit("one")
            apart, as_one, as_two = change("two", "one"), change(root, "one"), change(root, "two")
            rows.append(
                [
                    density,
                    f"{apart['changed']:,}",
                    f"{100 * apart['changed_fraction']:.1f}",
                    f"{as_one['l2']:.2f}",
                    f"{as_two['l2']:.2f}",
                    f"{apart['l2']:.2f}",
                ]
            )
        harness.show(
            f"{one.name} - {other.name} as one vector, and as two terms",
            ["density", "weights that differ", "%", "|change|, one", "|change|, two", "|difference|"],
            rows,
        )
        out = work / "out"
        measured = harness.rounds(
            [
                harness.Contestant(
                    name,
                    [*persona, "checkout", branch, "-o", out, "--json"],
                    lambda: harness.remove(out),
                )
                for name, branch in (("one vector", "one"), ("two terms", "two"))
            ],
            args.rounds,
            warm_up=not args.no_warm_up,
        )
        harness.show(
            f"checkout -o, density {DENSITIES[-1]}",
            ["recipe", "median s", "CPU s", "peak MB"],
            [
                [
                    name,
                    f"{harness.seconds(runs):.2f}",
                    f"{sorted(run.cpu for run in runs)[len(runs) // 2]:.2f}",
                    f"{harness.peak(runs) / harness.MB:,.0f}",
                ]
                for name, runs in measured.items()
            ],
        )
        print(f"\none vector takes longer {harness.ratio(measured['one vector'], measured['two terms'])}")


if __name__ == "__main__":
    main()
