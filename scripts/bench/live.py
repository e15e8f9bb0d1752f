#!/usr/bin/env python3
"""How long does it take to change the weights of a model in memory, against checking out and loading again?

One warm process, the fine-tunes mixed by TIES. `live.set` of one α changes every tensor that its vector
reaches; beside it, taking turns, what does the same without a live model: `persona checkout -o OUT` from
within the process, and `from_pretrained` of what it wrote. `live.checkout` goes back one commit and forth
again. After each kind of change the digest of the parameters must be that of the recipe; it is hashed outside
the times. "CPU" is processor time of all threads: on a machine that is shared it tells more than the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

HEADER = ["one change", "median s", "worst s", "CPU s", "tensors", "MB written"]
CHANGES = 200
CACHE = 512 << 20


def main() -> None:
    """Parse, measure in a child, so that the peak is its own, and print."""
    options = harness.parser(__doc__)
    options.add_argument("--density", type=float, default=0.2, help="density of the mixture (default: 0.2)")
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args.measure, args.rounds, args.density)))
        return
    base, tuned = harness.models_of(args.models)
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base, tuned)
        rounds = ["--rounds", str(args.rounds), "--density", str(args.density)]
        done = harness.run([sys.executable, __file__, "--measure", repository, *rounds])
    found = json.loads(done.output.splitlines()[-1])
    harness.show(f"live model, {len(tuned)} vectors, density {args.density}", HEADER, found["rows"])
    print(f"{CHANGES} random changes in a row and back: {found['drift']}.")
    peak, model = done.peak / harness.MB, found["model"] / harness.MB
    print(
        f"Peak {peak:,.0f} MB: three live models of {model:,.0f} MB, caches, a fourth model while it loads."
    )


def measure(directory: Path, rounds: int, density: float) -> dict[str, Any]:
    """The rows of the table, and what two hundred changes leave behind."""
    import numpy as np
    import transformers

    import persona

    transformers.utils.logging.disable_progress_bar()
    out = directory.parent / "out"
    with persona.open(directory) as repo:
        repo.recipe.set_rules({"density": density})
        repo.commit(message="trim")
        live = repo.live(rev="HEAD")
        cached, bare = repo.live(rev="HEAD", cache=CACHE), repo.live(rev="HEAD", cache=0)
        vectors = list(live.recipe.vectors)
        name = vectors[0]
        strengths = iter(0.3 + 0.001 * number for number in range(10_000))

        def check() -> None:
            repo.recipe.set(name, alpha=live.recipe.vectors[name].alpha)
            if {live.digest(), cached.digest(), bare.digest()} != {repo.digest().weights}:
                sys.exit("the digest of the parameters is not the recipe's")

        def load_again() -> Any:
            repo.recipe.set(name, alpha=next(strengths))
            result = repo.checkout(out=out)
            transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
            return result

        def back_and_forth() -> Any:
            live.checkout("HEAD~2")
            return live.checkout("HEAD")

        contestants: dict[str, Callable[[], Any]] = {
            "live.set, one α": lambda: live.set(name, alpha=next(strengths)),
            f"the same, cache of {CACHE >> 20} MiB": lambda: cached.set(name, alpha=next(strengths)),
            "the same, no cache": lambda: bare.set(name, alpha=next(strengths)),
            "checkout -o and from_pretrained": load_again,
            "live.checkout, back and forth (two changes)": back_and_forth,
        }
        measured: dict[str, list[tuple[float, float, Any]]] = {each: [] for each in contestants}
        for number in range(-1, rounds):
            for each, call in contestants.items():
                shutil.rmtree(out, ignore_errors=True)
                cpu, started = processor_seconds(), time.perf_counter()
                result = call()
                found = (time.perf_counter() - started, processor_seconds() - cpu, result)
                if number >= 0:
                    measured[each].append(found)
        live.set(name, alpha=next(strengths))
        for other in (cached, bare):
            other.set(name, alpha=live.recipe.vectors[name].alpha)
        check()
        cached.checkout("HEAD")
        expected = cached.digest()
        random = np.random.default_rng(0)
        for _ in range(CHANGES):
            cached.set(str(random.choice(vectors)), alpha=float(random.normal()))
        cached.checkout("HEAD")
        same = cached.digest() == expected == repo.digest("HEAD").weights
        return {
            "rows": [row(each, runs) for each, runs in measured.items()],
            "drift": "no bit differs" if same else "DRIFT",
            "model": sum(tensor.nbytes for tensor in live.model.parameters()),
        }


def row(name: str, runs: list[tuple[float, float, Any]]) -> list[str]:
    """One line of the table."""
    wall = [seconds for seconds, _, _ in runs]
    result = runs[-1][2]
    return [
        name,
        f"{statistics.median(wall):.3f}",
        f"{max(wall):.3f}",
        f"{statistics.median(cpu for _, cpu, _ in runs):.2f}",
        str(result.tensors_computed),
        f"{result.bytes_written / harness.MB:.0f}",
    ]


def processor_seconds() -> float:
    """User and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
