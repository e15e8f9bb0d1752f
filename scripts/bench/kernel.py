"""How long the merge kernel takes: nanoseconds an element and vector, one core, against eager torch on the
same inputs.

    python scripts/bench/kernel.py [--elements N] [--torch]

One chunk of a Gaussian bf16 base (σ 0.02) and Gaussian updates (σ 3e-5), density 0.2, α = 0.8; the best of
several runs.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np

from persona.codec.delta import exponent_order
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.rules import Rules

MIXTURES = (1, 2, 3, 4, 8)


def bf16(numbers: np.ndarray) -> np.ndarray:
    """float32 → the bits of the nearest bf16."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def ulp_delta(base: np.ndarray, after: np.ndarray) -> np.ndarray:
    """zigzag(mono(after) − mono(base))."""

    def mono(bits: np.ndarray) -> np.ndarray:
        return np.where(bits >> 15, ~bits, bits | 0x8000).astype(np.uint16)

    d = (mono(after) - mono(base)).view(np.int16)
    return ((d << 1) ^ (d >> 15)).view(np.uint16)


def fastest(run: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--elements", type=int, default=1 << 20)
    parser.add_argument("--torch", action="store_true", help="time the reference beside it")
    options = parser.parse_args()
    n = options.elements
    random = np.random.default_rng(0)
    base = bf16(random.normal(0, 0.02, n).astype(np.float32))
    numbers = (base.astype(np.uint32) << 16).view(np.float32)
    afters = [bf16(numbers + random.normal(0, 3e-5, n).astype(np.float32)) for _ in range(max(MIXTURES))]
    order, ordered, out = np.empty(n, np.uint32), np.empty(n, np.uint16), np.empty(n, np.uint16)
    exponent_order(base, "BF16", order, ordered)
    z = np.stack([ulp_delta(base, after)[order] for after in afters])
    magnitudes = [np.abs((after.astype(np.uint32) << 16).view(np.float32) - numbers) for after in afters]
    theta = np.array([np.partition(m, n - n // 5)[n - n // 5] for m in magnitudes], np.float32)

    print(f"{platform.machine()} {platform.node()}, {n} elements, {np.mean(z == 0):.2f} unchanged, one core")
    print(f"{'preset':10}{'K':>3}{'ns/element':>13}{'ns/element/vector':>20}")
    for preset in ("ties", "mergekit", "peft", "linear"):
        rules = MergeRules.of(Rules.of(preset) if preset == "linear" else Rules.of(preset, density="0.2"))
        for k in MIXTURES:
            alpha, add = np.full(k, 0.8, np.float32), np.zeros(k, np.bool_)
            cuts = np.full(k, np.nan, np.float32) if rules.trim == "none" else theta[:k]

            def run(
                k: int = k,
                cuts: np.ndarray = cuts,
                alpha: np.ndarray = alpha,
                add: np.ndarray = add,
                rules: MergeRules = rules,
            ) -> int:
                chunk = DecodedChunk(list(range(k)), ordered, z[:k], order)
                return cpu.merge_chunk(chunk, MergeArguments(cuts, alpha, add, rules, cpu.BF16), out)

            seconds = fastest(run, 15)
            print(f"{preset:10}{k:3}{seconds / n * 1e9:13.2f}{seconds / n / k * 1e9:20.2f}")
    if options.torch:
        print_reference(base, afters[:3], n)


def print_reference(base: np.ndarray, afters: list[np.ndarray], n: int) -> None:
    """The same merge by the reference, whole tensors, one thread."""
    import torch

    from persona.merge import reference

    torch.set_num_threads(1)

    def tensor(bits: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)

    terms = [MergeTerm(str(k) * 64, 0.8) for k in range(len(afters))]
    model, tuned = {"w": tensor(base)}, [{"w": tensor(after)} for after in afters]
    rules = MergeRules.of(Rules.of("ties", density="0.2"))
    seconds = fastest(lambda: reference.merge(model, tuned, terms, rules), 3)
    per_vector = seconds / n / len(afters) * 1e9
    print(f"{'reference':10}{len(afters):3}{seconds / n * 1e9:13.2f}{per_vector:20.2f}")


if __name__ == "__main__":
    main()
