#!/usr/bin/env python3
"""How long do the everyday commands take, from typing to prompt?

`log -n 20`, `status`, `diff` and a commit of the recipe alone, in a repository with a vector and a history
of thirty commits, whole processes; an empty Python process and git's own commands stand beside them, taking
turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

import harness


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.set_defaults(rounds=11)
    args = options.parse_args()
    base, tuned = harness.models_of(args.models)
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base, tuned[:1])
        persona: list[str | Path] = [args.persona, "-C", repository]
        strengths = iter(f"0.{number:04d}" for number in range(1, 9999))

        def turn() -> None:
            harness.run([*persona, "set", tuned[0].name, "--alpha", next(strengths)])

        for _ in range(30):
            turn()
            harness.run([*persona, "commit", "-m", "turn a little"])
        peer = work / "git"
        git: list[str | Path] = [
            "git",
            "-C",
            peer,
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@example.org",
        ]
        harness.run(["git", "init", "--quiet", peer])

        def edit() -> None:
            (peer / "recipe.toml").write_text(f"alpha = {next(strengths)}\n")

        for _ in range(30):
            edit()
            harness.run([*git, "add", "recipe.toml"])
            harness.run([*git, "commit", "--quiet", "-m", "turn a little"])
        measured = harness.rounds(
            [
                harness.Contestant("python -c pass", [sys.executable, "-c", "pass"]),
                harness.Contestant("persona log -n 20", [*persona, "log", "-n", "20"]),
                harness.Contestant("git log -n 20", [*git, "log", "-n", "20"]),
                harness.Contestant("persona status", [*persona, "status"]),
                harness.Contestant("git status", [*git, "status"]),
                harness.Contestant("persona diff", [*persona, "diff"], turn),
                harness.Contestant("git diff", [*git, "diff"], edit),
                harness.Contestant(
                    "persona commit (recipe)", [*persona, "commit", "-m", "turn a little"], turn
                ),
                harness.Contestant("git commit", [*git, "commit", "-a", "-m", "turn a little"], edit),
            ],
            args.rounds,
            warm_up=not args.no_warm_up,
        )
    harness.show(
        "everyday commands",
        ["whole process", "median s", "worst s", "peak MB"],
        [
            [
                name,
                f"{harness.seconds(runs):.3f}",
                f"{max(one.seconds for one in runs):.3f}",
                f"{harness.peak(runs) / harness.MB:.0f}",
            ]
            for name, runs in measured.items()
        ],
    )


if __name__ == "__main__":
    main()
