#!/usr/bin/env python3
"""How near does a GPU come to what its memory, its bus and the disk allow? Needs one NVIDIA GPU.

Bits come first: the kernel's against the CPU's, over dtypes, rules and numbers of terms; then the digests of
whole models by `persona digest`. Anything that differs ends the run. Then, in one run: the bandwidth of a
copy within the GPU's memory and, at 1, 4 and 8 vectors, of the kernel, in place and scattered, as a share of
it; the bandwidth of the bus; `persona checkout -o` as whole processes, CPU beside CUDA, taking turns; and a
change of one α in a live model whose parameters lie on the GPU. Vectors beyond those that there are come
again under other names: the bytes that are read are the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np

MIXTURES = (1, 4, 8)
ELEMENTS = 1 << 27
CHUNK = 1 << 20
KEPT_BYTES = 1 << 38
"""As much as there is may stay on the GPU."""
PRESETS: dict[str, dict[str, Any]] = {
    "ties": {"density": "0.2"},
    "paper": {},
    "mergekit": {"density": "0.3"},
    "peft": {"density": "0.2"},
    "linear": {},
}


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument(
        "--large",
        type=Path,
        default=harness.ROOT / "build/synthetic",
        help="what `models.py synthetic` wrote (default: build/synthetic)",
    )
    options.add_argument("--density", default="0.2", help="of the mixtures (default: 0.2)")
    options.add_argument(
        "--memory",
        default="4GB",
        help="persona's --memory on both sides: many cores need more than its default (default: 4GB)",
    )
    options.add_argument("--elements", type=int, default=ELEMENTS, help="of the kernel's arrays (2^27)")
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.measure is not None:
        print(json.dumps(live_rows(args.measure, args.rounds)))
        return
    import torch

    from persona.merge.device import NoDevice
    from persona.merge.place import cuda_devices

    try:
        cuda_devices()
    except NoDevice as error:
        sys.exit(f"this bench needs a GPU: {error}")
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    compare_kernels()
    print_kernels(args.elements, args.rounds)
    for models in (args.models, args.large):
        if (models / "base").is_dir():
            compare_checkouts(args, models)
        else:
            print(f"\nno models in {models}: left out (scripts/bench/models.py makes them)")


# Kernels


def on_gpu(array: np.ndarray) -> Any:
    """A numpy array on the GPU."""
    import torch

    return torch.from_numpy(array).to("cuda")


def seconds_of(run: Callable[[], object], rounds: int, repeats: int = 20) -> float:
    """The median over the rounds of the GPU's seconds for one run, after one that is not counted."""
    import torch

    run()
    found = []
    for _ in range(rounds):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            run()
        stop.record()
        stop.synchronize()
        found.append(start.elapsed_time(stop) / 1000 / repeats)
    return statistics.median(found)


def compare_kernels() -> None:
    """Bits and counts of the two kernels, on changes as fine-tunes have them and on any bits; exits where one
    differs.
    """
    import torch

    from persona.merge import cpu, cuda
    from persona.merge.rules import NO_TRIM, MergeRules
    from persona.objects.rules import Rules

    random = np.random.default_rng(0)
    compared = 0
    for code, uint in ((cpu.BF16, np.uint16), (cpu.F16, np.uint16), (cpu.F32, np.uint32)):
        for preset, axes in PRESETS.items():
            rules = MergeRules.of(Rules.of(preset, **axes))
            for count in (*MIXTURES, 11):
                for wild in (False, True):
                    n = CHUNK - 7 * count
                    most = np.iinfo(uint).max
                    base = random.integers(0, most, n, endpoint=True, dtype=uint)
                    z = random.integers(0, most if wild else 9, (count, n), dtype=uint)
                    z[random.random(z.shape) < 0.6] = 0
                    order = random.permutation(n).astype(np.uint32)
                    theta = np.full(count, NO_TRIM if preset == "linear" else 1e-3, np.float32)
                    alpha = random.choice([1.0, 0.8, -0.5, 1.5, 0.0], count).astype(np.float32)
                    add = np.arange(count) >= count - count // 4
                    want = np.empty_like(base)
                    with np.errstate(all="ignore"):
                        bad = cpu.merge_chunk(base, z, order, want, theta, alpha, add, rules, code, 1)
                    terms = cuda.Terms.of(theta, alpha, add, rules)
                    out, counter = (
                        on_gpu(np.zeros_like(base)),
                        torch.zeros(1, dtype=torch.int64, device="cuda"),
                    )
                    cuda.merge_chunk(
                        on_gpu(base), on_gpu(z), on_gpu(order), out, terms, rules, code, counter, 1
                    )
                    if not np.array_equal(out.cpu().numpy(), want) or int(counter) != bad:
                        sys.exit(f"the bits differ: dtype {code}, {preset}, {count} terms, wild: {wild}")
                    compared += 1
    print(f"The bits of {compared} chunks of about 2^20 elements are those of the CPU.")


def print_kernels(elements: int, rounds: int) -> None:
    """The table of what the kernel moves in a second, beside a copy, and of the bus."""
    import torch

    from persona.merge import cpu, cuda
    from persona.merge.rules import MergeRules
    from persona.objects.rules import Rules

    torch.manual_seed(0)
    n = elements // CHUNK * CHUNK
    rules = MergeRules.of(Rules.of("ties", density="0.2"))
    numbers = torch.randn(n, device="cuda", dtype=torch.float32).mul_(0.02).to(torch.bfloat16)
    base = numbers.view(torch.int16).view(torch.uint16)
    exponents = (numbers.view(torch.int16) >> 7) & 0xFF
    order = torch.empty(n, dtype=torch.int32, device="cuda")
    for start in range(0, n, CHUNK):
        found = torch.sort(exponents[start : start + CHUNK], stable=True).indices + start
        order[start : start + CHUNK] = found.to(torch.int32)
    order = order.view(torch.uint32)
    out = torch.empty_like(base)
    counter = torch.zeros(1, dtype=torch.int64, device="cuda")
    rows = torch.empty((max(MIXTURES), n), dtype=torch.int16, device="cuda")
    for row in rows:
        row.random_(1, 8).masked_fill_(torch.rand(n, device="cuda") < 0.65, 0)
    z = rows.view(torch.uint16)
    source, target = rows.view(-1)[: 4 * n], torch.empty(4 * n, dtype=torch.int16, device="cuda")
    copy = 2 * source.nbytes / seconds_of(lambda: target.copy_(source), rounds)
    table = [["copy within the GPU", "4", f"{copy / 1e9:,.0f}", "100 %"]]
    for count in MIXTURES:
        theta, alpha = np.full(count, 1e-4, np.float32), np.full(count, 0.8, np.float32)
        terms = cuda.Terms.of(theta, alpha, np.zeros(count, np.bool_), rules)
        for name, places, more in (("in place", None, 0), ("scattered", order, 4)):

            def run(count: int = count, terms: Any = terms, places: Any = places) -> None:
                cuda.merge_chunk(base, z[:count], places, out, terms, rules, cpu.BF16, counter)

            moved = 4 + 2 * count + more
            speed = n * moved / seconds_of(run, rounds)
            table.append(
                [f"kernel, K = {count}, {name}", str(moved), f"{speed / 1e9:,.0f}", f"{speed / copy:.0%}"]
            )
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    over = host.nbytes / seconds_of(lambda: there.copy_(host, non_blocking=True), rounds, 4)
    back = host.nbytes / seconds_of(lambda: host.copy_(there, non_blocking=True), rounds, 4)
    for name, speed in (("host to device", over), ("device to host", back)):
        table.append([name, "", f"{speed / 1e9:,.1f}", ""])
    harness.show(
        f"kernel over {n:,} bf16 elements, ties, density 0.2",
        ["what", "bytes an element", "GB/s", "of the copy"],
        table,
    )


# Checkouts and live models


def mixture(args: argparse.Namespace, work: Path, base: Path, tuned: Sequence[Path], count: int) -> Path:
    """A repository with `count` vectors."""
    directory = work / f"repository-{count}"
    persona: list[str | Path] = [args.persona, "-C", directory]
    harness.repository(args.persona, directory, base, tuned[:count])
    for number in range(len(tuned), count):
        path = tuned[number % len(tuned)]
        harness.run([*persona, "commit", path, "-n", f"{path.name}-{number}", "-m", "again"])
    for number in range(count):
        name = tuned[number % len(tuned)].name + (f"-{number}" if number >= len(tuned) else "")
        harness.run([*persona, "set", name, "--alpha", str(0.8 - 0.05 * number)])
    harness.run([*persona, "set", "--merge", f"density={args.density}"])
    harness.run([*persona, "commit", "-m", "strengths"])
    return directory


def compare_checkouts(args: argparse.Namespace, models: Path) -> None:
    """Digests, then the checkout of all fine-tunes on both devices, then live models."""
    base, tuned = harness.models_of(models)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    title = f"{size / harness.MB:,.0f} MB, density {args.density}"
    rows = []
    live = []
    with harness.scratch(args.scratch) as work:
        for count in MIXTURES:
            repository = mixture(args, work, base, tuned, count)
            persona: list[str | Path] = [args.persona, "-C", repository]
            digests = {
                device: harness.run([*persona, "digest", "--device", device]).output
                for device in ("cpu", "cuda")
            }
            if digests["cpu"] != digests["cuda"]:
                sys.exit(f"the digests of {count} vectors differ: {digests}")
            out = work / "out"

            checkout = ["checkout", "-o", out, "--json", "--memory", args.memory, "--device"]

            def clear(out: Path = out) -> None:
                harness.remove(out)

            measured = harness.rounds(
                [
                    harness.Contestant(
                        device,
                        [*persona, *checkout, device],
                        clear,
                    )
                    for device in ("cpu", "cuda")
                ],
                args.rounds,
                warm_up=not args.no_warm_up,
            )
            for device, runs in measured.items():
                answers = [json.loads(one.output) for one in runs]
                if any(answer["device"] != device for answer in answers):
                    sys.exit(f"a checkout with --device {device} ran elsewhere")
                rows.append(
                    [
                        f"{count} vectors, {device}",
                        f"{harness.seconds(runs):.2f}",
                        f"{statistics.median(answer['seconds'] for answer in answers):.2f}",
                        " ".join(f"{one.seconds:.2f}" for one in runs),
                        f"{harness.peak(runs) / harness.MB:,.0f}",
                    ]
                )
            clear()
            command = [sys.executable, __file__, "--measure", repository, "--rounds", str(args.rounds)]
            live += json.loads(harness.run(command).output.splitlines()[-1])
            harness.remove(repository)
    harness.show(
        f"checkout -o: {title}",
        ["whole process", "median s", "of them the checkout s", "all s", "peak MB of the host"],
        rows,
    )
    harness.show(
        f"live.set of one α on the GPU: {title}",
        ["vectors", "median ms", "worst ms", "GB/s", "ns an element", "loaded in s"],
        live,
    )


def live_rows(repository: Path, rounds: int) -> list[list[str]]:
    """One line of the table of live models; in a process of its own, which ends where a digest differs."""
    import torch
    import transformers

    import persona

    transformers.utils.logging.disable_progress_bar()
    with persona.open(repository) as repo:
        model = repo.load("HEAD~1").to("cuda")
        started = time.perf_counter()
        live = repo.live(model, "HEAD", cache=KEPT_BYTES)
        loading = time.perf_counter() - started
        vectors = list(live.recipe.vectors)
        name = vectors[0]
        took = []
        for number in range(10 * rounds + 1):  # the first compiles what is left
            torch.cuda.synchronize()
            started = time.perf_counter()
            live.set(name, alpha=0.3 + 0.001 * number)
            took.append(time.perf_counter() - started)
        repo.set_term(name, alpha=live.recipe.vectors[name].alpha)
        if live.digest() != repo.digest(device="cpu").weights:
            sys.exit("the digest of the parameters is not the recipe's")
        elements = sum(parameter.numel() for parameter in model.parameters())
    later = took[1:]
    median = statistics.median(later)
    moved = elements * (4 + 2 * len(vectors))
    return [
        [
            str(len(vectors)),
            f"{1000 * median:.2f}",
            f"{1000 * max(later):.2f}",
            f"{moved / median / 1e9:,.0f}",
            f"{median / elements * 1e9:.4f}",
            f"{loading:.2f}",
        ]
    ]


if __name__ == "__main__":
    main()
