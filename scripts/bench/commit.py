#!/usr/bin/env python3
"""How long does it take to commit a fine-tune, and how much is kept, against `git add` of the same file?

Each run starts from the same state: a repository that holds the base alone, and a fresh git repository that
holds nothing. Whole processes, taking turns. Sizes are bytes on disk over the raw bytes of the checkpoint's
elements.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import harness


def size_of(directory: Path) -> int:
    """Bytes of all files under a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def main() -> None:
    """Parse, measure, print."""
    args = harness.parser(__doc__).parse_args()
    base, tuned = harness.models_of(args.models)
    times, sizes = [], []
    with harness.scratch(args.scratch) as work:
        pristine = harness.repository(args.persona, work / "pristine", base)
        raw = raw_bytes(base)
        sizes.append(
            [
                "base",
                f"{raw / harness.MB:.1f}",
                f"{size_of(pristine / '.persona/packs') / raw:.4f}",
                "–",
                "–",
                "–",
            ]
        )
        for path in tuned:
            ours, theirs = work / "ours", work / "theirs"

            def fresh_repository(ours: Path = ours) -> None:
                harness.remove(ours)
                shutil.copytree(pristine, ours)
                harness.remove()

            def fresh_git(theirs: Path = theirs, path: Path = path) -> None:
                harness.remove(theirs)
                theirs.mkdir()
                harness.run(["git", "init", "--quiet", theirs])
                shutil.copyfile(path / "model.safetensors", theirs / "model.safetensors")
                harness.remove()

            measured = harness.rounds(
                [
                    harness.Contestant(
                        "persona commit",
                        [args.persona, "-C", ours, "commit", path, "-n", path.name, "-m", "bench", "--json"],
                        fresh_repository,
                    ),
                    harness.Contestant("git add", ["git", "add", "model.safetensors"], fresh_git, cwd=theirs),
                ],
                args.rounds,
                warm_up=not args.no_warm_up,
            )
            vector = json.loads(measured["persona commit"][-1].output)["vectors"][0]
            git = size_of(theirs / ".git" / "objects")
            growth = size_of(ours / ".persona") - size_of(pristine / ".persona")
            for name, runs in measured.items():
                each = " ".join(f"{one.seconds:.2f}" for one in runs)
                times.append(
                    [
                        path.name,
                        name,
                        f"{harness.seconds(runs):.2f}",
                        each,
                        f"{harness.peak(runs) / harness.MB:,.0f}",
                    ]
                )
            times[-1].append(harness.ratio(measured["git add"], measured["persona commit"]))
            times[-2].append("")
            sizes.append(
                [
                    path.name,
                    f"{vector['raw_bytes'] / harness.MB:.1f}",
                    f"{vector['stored_bytes'] / vector['raw_bytes']:.4f}",
                    f"{growth / vector['raw_bytes']:.4f}",
                    f"{git / vector['raw_bytes']:.4f}",
                    f"{1 - vector['changed_fraction']:.3f}",
                ]
            )
    harness.show(
        "commit of a fine-tune against git add",
        ["fine-tune", "whole process", "median s", "all s", "peak MB", "persona is faster"],
        times,
    )
    harness.show(
        "stored over raw",
        ["what", "raw MB", "persona", "growth of .persona", "git", "unchanged"],
        sizes,
    )


def raw_bytes(model: Path) -> int:
    """Bytes of the elements of a checkpoint in one file or in shards."""
    total = 0
    for path in model.glob("*.safetensors"):
        with path.open("rb") as file:
            total += path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    return total


if __name__ == "__main__":
    main()
