#!/usr/bin/env python3
"""Is this version slower than another one? Both run the same commands on the same models, taking turns.

    scripts/bench/versions.py --other ../older/.venv/bin/persona

Each version has its own repository and its own interpreter (the `python` beside its `persona`). Heavy
commands (`commit PATH`, `checkout`) and a live model run as often as `--rounds` says, everyday commands five
times as often. The table gives the ratio of this version to the other within a round: above 1, this version
is slower.
Processor seconds tell more than wall seconds on a machine that is shared.
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import harness
from harness import Contestant, Run

HEADER = ["what", "wall s", "other", "ratio (rounds)", "CPU s", "other", "ratio (rounds)"]

LIVE = """
import json, resource, sys, time
sys.path.remove("")  # the directory in which this script was started may hold another persona
import persona
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
with persona.open(sys.argv[1]) as repo:
    live = repo.live(rev="HEAD")
    name = sorted(live.recipe.vectors)[0]
    live.set(name, alpha=0.31)
    found = []
    for number in range(int(sys.argv[2])):
        before, started = cpu(), time.perf_counter()
        live.set(name, alpha=0.4 + number / 100)
        found.append((time.perf_counter() - started, cpu() - before))
    print(json.dumps(sorted(found)[len(found) // 2]))
"""
"""Median wall and processor seconds of `live.set`, in a process of its own."""


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--other", type=Path, required=True, help="the `persona` to compare with")
    args = options.parse_args()
    base, tuned = harness.models_of(args.models)
    rows = []
    with harness.scratch(args.scratch) as work:
        sides = [
            Side(args.persona, work / "this", base, tuned),
            Side(args.other, work / "other", base, tuned),
        ]
        heavy, light = args.rounds, args.rounds * 5
        for what, count, contestant in (
            ("commit PATH", heavy, Side.commit_path),
            ("checkout -o, all vectors, density 0.2", heavy, Side.export),
            ("checkout, one vector's α changed", heavy, Side.checkout),
            ("live.set, one α", heavy, Side.live),
            ("log -n 20", light, Side.log),
            ("status", light, Side.status),
            ("diff", light, Side.diff),
            ("commit of the recipe", light, Side.commit),
        ):
            ours, theirs = (contestant(side) for side in sides)
            pair = [replace(ours, name="this"), replace(theirs, name="other")]
            rows.append(row(what, harness.rounds(pair, count), of_live=contestant is Side.live))
    harness.show(f"this version against another, {len(tuned)} vectors", HEADER, rows)


class Side:
    """One version with its repository."""

    def __init__(self, persona: Path, work: Path, base: Path, tuned: Sequence[Path]) -> None:
        self.persona, self.work, self.tuned = persona, work, tuned
        work.mkdir()
        self.pristine = harness.repository(persona, work / "pristine", base)
        self.repository = harness.repository(persona, work / "repository", base, tuned)
        self._alphas = (f"0.{number:04d}" for number in itertools.count(1000))
        self._run("set", "--merge", "density=0.2")
        self._run("commit", "-m", "trim")
        for _ in range(30):
            self._set()
            self._run("commit", "-m", "turn a little")
        self._run("checkout")

    def commit_path(self) -> Contestant:
        """A fine-tune into a repository that holds the base alone."""
        fresh = self.work / "fresh"

        def before() -> None:
            harness.remove(fresh)
            shutil.copytree(self.pristine, fresh)
            harness.remove()

        return Contestant("", [self.persona, "-C", fresh, "commit", self.tuned[0], "-m", "bench"], before)

    def export(self) -> Contestant:
        """The weights of all vectors into a fresh directory."""
        out = self.work / "out"
        return self._contestant("checkout", "-o", out, before=lambda: harness.remove(out))

    def checkout(self) -> Contestant:
        """The weights of the work tree after a change of one strength."""
        return self._contestant("checkout", before=self._set)

    def live(self) -> Contestant:
        """A live model that changes one strength ten times."""
        python = self.persona.with_name("python")
        return Contestant("", [python, "-c", LIVE, self.repository, "10"])

    def log(self) -> Contestant:
        """The last commits."""
        return self._contestant("log", "-n", "20")

    def status(self) -> Contestant:
        """What differs from HEAD."""
        return self._contestant("status")

    def diff(self) -> Contestant:
        """An uncommitted strength."""
        return self._contestant("diff", before=self._set)

    def commit(self) -> Contestant:
        """A commit of the recipe alone."""
        return self._contestant("commit", "-m", "turn a little", before=self._set)

    def _set(self) -> None:
        self._run("set", self.tuned[0].name, "--alpha", next(self._alphas))

    def _run(self, *arguments: str) -> None:
        harness.run([self.persona, "-C", self.repository, *arguments])

    def _contestant(self, *arguments: str | Path, before: Callable[[], object] = lambda: None) -> Contestant:
        return Contestant("", [self.persona, "-C", self.repository, *arguments], before)


def row(what: str, measured: dict[str, list[Run]], *, of_live: bool) -> list[str]:
    """One line of the table."""
    cells = [what]
    timed = {name: [times(one, of_live) for one in runs] for name, runs in measured.items()}
    for place in (0, 1):
        ours, theirs = ([pair[place] for pair in timed[name]] for name in ("this", "other"))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        cells += [f"{statistics.median(ours):.3f}", f"{statistics.median(theirs):.3f}"]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return cells


def times(one: Run, of_live: bool) -> tuple[float, float]:
    """Wall and processor seconds: the process's own, or those that it printed."""
    if of_live:
        wall, cpu = json.loads(one.output.splitlines()[-1])
        return wall, cpu
    return one.seconds, one.cpu


if __name__ == "__main__":
    sys.exit(main())
