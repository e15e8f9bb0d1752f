#!/usr/bin/env python
"""Compares `persona tune` with a grid of as many measurements, on probes that it saw and on others.

    scripts/bench/tune.py --bot build/behaviours/bot

`--bot` is a repository whose recipe.toml holds vectors of patterns with probes, such as that of
`scripts/bench/behaviours.py` with its five vectors. It is copied first, and stays as it is.

For each seed, the groups of each pattern's probes are dealt into two halves. `tune` and the grids see the
first half alone. A grid measures as many points as `tune` spent measurements, a gradient counted as three:

- `factor`: all α times a common factor, in even steps up to twice as strong;
- `latin`: a latin hypercube over the same bounds as those of `tune`, from the seed.

The best point of each that is within the limit of damage, by the gain on the first half, is then measured on
the other half. `--probes N` takes only N probes of each half, which is faster. The table is Markdown.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine

import persona
from persona.behaviour.probes import ProbeSet
from persona.behaviour.tuning import Tuning, Variable
from persona.history.options import ComputeOptions
from persona.history.worktree import text_files

Place = tuple[float, ...]


@dataclass(frozen=True)
class Best:
    """The best point of a method: gain and loss ratio on the half that it saw, gain on the other half."""

    method: str
    points: int
    place: Place
    seen: float
    ratio: float
    held_out: float
    seconds: float


def halves(probes: ProbeSet, seed: int, most: int | None) -> tuple[ProbeSet, ProbeSet]:
    """The probes that have pairs of answers, in two parts: whole groups, dealt by a seed."""
    items = [item for item in probes.items if item.chosen is not None]
    groups = sorted({item.group for item in items})
    random.Random(f"{seed} {probes.key}").shuffle(groups)
    first = set(groups[: len(groups) // 2])
    parts = [tuple(item for item in items if (item.group in first) == side) for side in (True, False)]
    if most is not None:  # of both surface forms
        parts = [tuple(random.Random(seed).sample(part, min(most, len(part)))) for part in parts]
    return replace(probes, items=parts[0]), replace(probes, items=parts[1])


def tuning_of(repo: Any, half: int, seed: int, most: int | None, limit: float) -> Tuning:
    """The measurements of the recipe on one half of the probes."""
    history = repo._history
    found = Tuning(
        history, text_files.recipe(history).recipe, (), limit, history.in_force(ComputeOptions, {})
    )
    found.sets = {key: halves(probes, seed, most)[half] for key, probes in found.sets.items()}
    return found


def variables_of(tuning: Tuning) -> list[Variable]:
    """The α that a search may set, by name: the recipe's order is that of the ids, and so the processor's."""
    found = tuning.variables((), 2.0, any_sign=False, densities=False)
    return sorted(found, key=lambda one: one.name)


def factors(variables: Sequence[Variable], points: int) -> list[Place]:
    """All α times a common factor."""
    return [
        tuple(round(one.start * 2 * step / points, 2) for one in variables) for step in range(1, points + 1)
    ]


def latin(variables: Sequence[Variable], points: int, seed: int) -> list[Place]:
    """A latin hypercube over the bounds."""
    drawn = np.random.default_rng(seed)
    shares = [(drawn.permutation(points) + drawn.random(points)) / points for _ in variables]
    columns = [
        np.round(one.low + share * (one.high - one.low), 2)
        for one, share in zip(variables, shares, strict=True)
    ]
    return [tuple(map(float, row)) for row in zip(*columns, strict=True)]


def best_of(
    tuning: Tuning, variables: Sequence[Variable], places: Sequence[Place], limit: float
) -> Place | None:
    """The place with the largest gain within the limit."""
    found = [tuning.measure(variables, place) for place in places]
    within = [point for point in found if point.cost <= limit]
    return max(within, key=lambda point: point.gain).place if within else None


def compare(
    repo: Any, seed: int, measurements: int, grids: Sequence[str], most: int | None, limit: float
) -> list[Best]:
    """The best point of `tune`, and of each grid."""
    seen, held = (tuning_of(repo, half, seed, most, limit) for half in (0, 1))
    variables = variables_of(seen)
    found = []

    def add(method: str, points: int, place: Place | None, seconds: float) -> None:
        if place is None:
            print(f"seed {seed}, {method}: no point within the limit", file=sys.stderr)
            return
        point, other = seen.measure(variables, place), held.measure(variables, place)
        found.append(Best(method, points, place, point.gain, point.cost, other.gain, seconds))
        print(f"seed {seed}: {found[-1]}", file=sys.stderr, flush=True)

    add("as it is", 1, tuple(one.start for one in variables), 0.0)
    started = time.perf_counter()
    best, spent = seen.search(variables, measurements, seed)
    add("tune", spent, best.place if best.cost <= limit else None, time.perf_counter() - started)
    for grid in grids:
        started = time.perf_counter()
        places = factors(variables, spent) if grid == "factor" else latin(variables, spent, seed)
        place = best_of(seen, variables, places, limit)
        add(f"grid, {grid}", spent, place, time.perf_counter() - started)
    return found


@contextmanager
def copy_of(bot: Path) -> Any:
    """An open copy of a repository, which is removed afterwards."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(bot, Path(place) / "bot")
        with persona.open(Path(place) / "bot") as repo:
            yield repo


def rows_of(seed: int, found: Sequence[Best]) -> list[tuple[str, ...]]:
    """The rows of one seed."""
    return [
        (
            str(seed),
            one.method,
            str(one.points),
            ", ".join(f"{x:g}" for x in one.place),
            f"{one.seen:.4f}",
            f"{one.ratio:.4f}",
            f"{one.held_out:.4f}",
            f"{one.seconds:.0f}",
        )
        for one in found
    ]


def summary(by_seed: dict[int, list[Best]]) -> str:
    """In how many seeds `tune` ends no worse than the best point of all grids, on each half."""
    parts = []
    for half in ("seen", "held_out"):
        wins = 0
        for found in by_seed.values():
            grids = [getattr(one, half) for one in found if one.method.startswith("grid")]
            tuned = [getattr(one, half) for one in found if one.method == "tune"]
            wins += bool(tuned) and (not grids or tuned[0] >= max(grids))
        words = "the half that was seen" if half == "seen" else "the other half"
        parts.append(f"{wins} of {len(by_seed)} on {words}")
    return f"`tune` ends no worse than the best point of all grids in {parts[0]}, and in {parts[1]}."


def main() -> None:
    """Runs the comparison and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bot", type=Path, required=True, help="a repository, which is copied")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--measurements", type=int, default=12)
    parser.add_argument("--grids", default="factor,latin")
    parser.add_argument("--probes", type=int, help="probes of each half of a pattern; default: all")
    parser.add_argument("--max-damage", type=float, default=1.02)
    given = parser.parse_args()
    print(f"{machine()}\n\n{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}\n", flush=True)
    by_seed: dict[int, list[Best]] = {}
    rows: list[tuple[str, ...]] = []
    with copy_of(given.bot) as repo:
        names = variables_of(tuning_of(repo, 0, 0, given.probes, given.max_damage))
        for seed in range(given.seeds):
            by_seed[seed] = compare(
                repo, seed, given.measurements, given.grids.split(","), given.probes, given.max_damage
            )
            rows += rows_of(seed, by_seed[seed])
    alphas = "α of " + ", ".join(one.name for one in names)
    header = (
        "seed",
        "method",
        "measurements",
        alphas,
        "gain, seen half",
        "loss ratio",
        "gain, other half",
        "s",
    )
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, tuple("-" * width for width in widths), *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(f"\n{summary(by_seed)}")


if __name__ == "__main__":
    main()
