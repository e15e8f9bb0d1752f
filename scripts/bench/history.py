#!/usr/bin/env python3
"""How long does it take to look at a long history?

A repository over a forged model of a few weights. Its history has 100,000 commits, 1,000 of them merges:
every 100 commits, ten commits on the side are merged. The script makes them in a few transactions, each
commit with one of the trees that commands made before. Then whole processes, once cold (the first that walks
far makes the commit graph) and several times warm.
"""

from __future__ import annotations

from pathlib import Path

import harness
import tensors

GROW = """
import sys
import persona
from persona.objects.commit import Commit, Person
from persona.store.files import Calls, replaced_calls

class Quick(Calls):
    def fsync(self, fd):
        pass

    def start_write_back(self, fd):
        pass

with persona.open(sys.argv[1]) as repo, replaced_calls(Quick()):
    count, history = int(sys.argv[2]), repo._history
    trees = [history.commit(entry.id).tree for entry in repo.log() if "turn" in entry.message]
    main = [repo.resolve()]
    start = history.commit(main[0]).committer.time
    for begin in range(1, count, 5000):
        with history.store.transaction() as tx:
            for number in range(begin, min(begin + 5000, count)):
                who = Person("Ada", "ada@example.org", start + 60 * number, 60)
                step = number % 100
                parents = (main[-1],)
                if 50 <= step < 60:  # on the side of main[-1], which stays
                    parents = (main[-1],) if step == 50 else (side,)
                elif step == 61:
                    parents = (main[-1], side)
                tree = trees[number % len(trees)]
                id = tx.put("commit", Commit(tree, parents, who, who, f"step {number}\\n").encode())
                if 50 <= step < 60:
                    side = id
                else:
                    main.append(id)
    repo.reset(main[-1], "hard")
    for name, start in (("near", side), ("far", main[len(main) // 2])):
        tree, who = history.commit(start).tree, Person("Ada", "ada@example.org", who.time + 60, 60)
        with history.store.transaction() as tx:
            id = tx.put("commit", Commit(tree, (start,), who, who, f"on {name}\\n").encode())
        repo.branches.create(name, id)
    repo.tags.create("v1", main[len(main) // 2], message="half way")
"""


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--commits", type=int, default=100_000)
    args = options.parse_args()
    with harness.scratch(args.scratch) as work:
        base = tensors.forge(work / "base", 20, 64, tuned=False)
        tuned = tensors.forge(work / "warm", 20, 64, tuned=True)
        repository = harness.repository(args.persona, work / "repository", base, [tuned])
        persona: list[str | Path] = [args.persona, "-C", repository]
        for number in range(40):
            harness.run([*persona, "set", "warm", "--alpha", f"0.{number + 10}"])
            harness.run([*persona, "commit", "-m", "turn a little"])
        made = harness.run([args.persona.with_name("python"), "-c", GROW, repository, str(args.commits)])
        tip = harness.run([*persona, "rev-parse", "main"]).output.strip()
        lines = {
            "log -n 20": ["log", "-n", "20"],
            "log -n 20 --graph": ["log", "-n", "20", "--graph"],
            "log -n 20 --first-parent": ["log", "-n", "20", "--first-parent"],
            "the merge base of near and main": ["diff", f"near...{tip}", "--stat"],
            "the merge base of far and main": ["diff", f"far...{tip}", "--stat"],
            "rev-parse main~50000": ["rev-parse", f"{tip}~{args.commits // 2}"],
            "describe": ["describe", tip],
            "log -n 20 far..main": ["log", "-n", "20", f"far..{tip}"],
            "log -- config.json, which no commit changes": ["log", "--", "config.json"],
            "merge near": ["merge", "near", "-m", "bench"],
            "merge far": ["merge", "far", "-m", "bench"],
            "blame": ["blame"],
        }

        def back() -> None:
            harness.run([*persona, "reset", "--hard", tip])

        contestants = [
            harness.Contestant(name, [*persona, *words], back if words[0] == "merge" else lambda: None)
            for name, words in lines.items()
        ]
        cold = harness.rounds(contestants, 1, warm_up=False)
        warm = harness.rounds(contestants, args.rounds, warm_up=False)
    harness.show(
        f"a history of {args.commits:,} commits, made in {made.seconds:.0f} s",
        ["whole process", "first s", "median s", "worst s", "peak MB"],
        [
            [
                name,
                f"{cold[name][0].seconds:.2f}",
                f"{harness.seconds(runs):.2f}",
                f"{max(one.seconds for one in runs):.2f}",
                f"{harness.peak(runs) / harness.MB:.0f}",
            ]
            for name, runs in warm.items()
        ],
    )


if __name__ == "__main__":
    main()
