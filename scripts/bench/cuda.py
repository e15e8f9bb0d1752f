#!/usr/bin/env python3
"""What can be learnt of a GPU in ten minutes, the most important first. Needs one NVIDIA GPU and no network.

Every step prints one line of JSON as soon as it is done, and a step that fails, or takes longer than is left,
is a line too: nothing ends the run but its deadline. In this order: versions; the bits of 36 variants of the
kernel against digests that were computed elsewhere (`cuda_variants.py`), every difference with its index and
bits; a tensor of more than 2^31 elements; the bandwidth of the kernel beside a copy, and other shapes of it;
every preset on two fine-tunes and an adapter, in three dtypes, by CPU and GPU; checkouts of a synthetic model
by both at several numbers of threads; changes of a live model; an illegal access, in a process of its own.
The exit code is 1 if anything failed or differed.

`--dry-run` does what can be done without a GPU: the kernel is interpreted, and models are small.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cuda_variants
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 1 << 20
SHAPES = ((4, 512, 168), (4, 512, 128), (4, 512, None), (4, 1024, 168), (8, 1024, 128), (8, 512, 128))
"""Warps, elements of a block, and the limit of registers a thread."""
Facts = dict[str, Any]


class Run:
    """What is left of the time, where to compute, and whether anything failed."""

    def __init__(self, seconds: float, dry: bool) -> None:
        self.end = time.monotonic() + seconds
        self.dry = dry
        self.failed = False
        self.work = Path(tempfile.mkdtemp(prefix="persona-cuda-", dir="/dev/shm" if not dry else None))
        self.repository: Path | None = None

    @property
    def where(self) -> str:
        """torch's name of the device."""
        return "cpu" if self.dry else "cuda"

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.end - time.monotonic()

    def tell(self, step: str, **facts: Any) -> None:
        """One line, at once."""
        print(json.dumps({"step": step, "left_s": round(self.left, 1), **facts}, default=str), flush=True)

    def do(self, name: str, least: float, most: float, work: Callable[[Run], Facts]) -> None:
        """Does a step that needs at least so many seconds, within at most so many; whatever it raises is
        told.
        """
        if self.left < least:
            self.failed = True
            self.tell(name, ok=False, skipped=f"needs {least} s")
            return
        started = time.monotonic()
        try:
            with at_most(min(most, self.left)):
                facts = work(self)
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            facts = {
                "ok": False,
                "error": f"{type(error).__name__}: {error}"[:500],
                "at": f"{last.name}:{last.lineno}",
            }
            if isinstance(error, KeyboardInterrupt):
                self.end = time.monotonic()
        facts.setdefault("ok", True)
        self.failed |= not facts["ok"]
        self.tell(name, seconds=round(time.monotonic() - started, 2), **facts)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in the main thread after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Parse, run every step, say whether anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadline", type=float, default=570, help="seconds for everything (570)")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU, in little")
    parser.add_argument("--make-golden", action="store_true", help="compute the digests anew, on this CPU")
    parser.add_argument("--fault", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make_golden:
        cuda_variants.write_golden()
        return
    if args.fault:
        plant_a_fault()
        return
    if args.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
    run = Run(args.deadline, args.dry_run)
    try:
        run.do("versions", 0, 60, versions)
        run.do("bits", 10, 120, bits)
        if not run.dry:
            run.do("2^31 elements", 15, 60, large)
            run.do("memcheck", 15, 60, memcheck)
            run.do("bandwidth", 20, 60, bandwidth)
            run.do("shapes", 20, 60, shapes)
        run.do("presets", 20, 90, presets)
        run.do("a synthetic model", 30, 150, build)
        run.do("checkouts", 30, 120, checkouts)
        run.do("live", 20, 90, live)
        if not run.dry:
            run.do("fault", 15, 60, fault)
    finally:
        shutil.rmtree(run.work, ignore_errors=True)
    run.tell("done", ok=not run.failed)
    sys.exit(1 if run.failed else 0)


# Bits


def environment() -> dict[str, str]:
    """That of other processes of this script: they import the same packages."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def versions(run: Run) -> Facts:
    """What there is. The compilation of the CPU's kernels begins beside what follows."""
    import torch
    import triton

    subprocess.Popen(
        [sys.executable, "-c", "import cuda_variants as v; o = next(v.variants()); v.by_cpu(o, v.inputs(o))"],
        cwd=Path(__file__).parent,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found: Facts = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
    }
    if run.dry:
        return found
    from persona.merge.devices.choose import cuda_devices

    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,clocks.max.mem",
        "--format=csv,noheader",
    ]
    found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    started = time.monotonic()
    try:
        found["devices"] = len(cuda_devices())
    finally:
        found["trial_s"] = round(time.monotonic() - started, 2)
    return found


def bits(run: Run) -> Facts:
    """Every variant, told one by one where it differs."""
    golden = cuda_variants.golden()
    started = time.monotonic()
    compared = differing = 0
    for variant in cuda_variants.variants():
        given = cuda_variants.inputs(variant)
        try:
            found, count = by_gpu(run, variant, given)
        except Exception as error:
            differing += 1
            run.tell("bits of a variant", ok=False, variant=variant.name, error=str(error)[:300])
            continue
        compared += 1
        if cuda_variants.digest(found, count) != golden[variant.name]:
            differing += 1
            run.tell(
                "bits of a variant",
                ok=False,
                variant=variant.name,
                not_finite=count,
                **differences(variant, given, found),
            )
    return {
        "ok": not differing,
        "compared": compared,
        "differing": differing,
        "each_s": round((time.monotonic() - started) / 36, 3),
    }


def by_gpu(run: Run, variant: cuda_variants.Variant, given: cuda_variants.Inputs) -> tuple[Any, int]:
    """(elements, count not finite) by the CUDA kernel, the arrays lying as the variant says."""
    import torch

    from persona.codec.elements import of
    from persona.merge.arithmetic import cuda

    shift = 1 if variant.layout == "misaligned" else 0
    n = given.base.size

    def there(array: Any) -> Any:
        held = np.zeros((*array.shape[:-1], n + (16 if shift else 0)), array.dtype)
        held[..., shift : shift + n] = array
        return torch.from_numpy(held).to(run.where)[..., shift : shift + n]

    out, count = there(np.zeros_like(given.base)), torch.zeros(1, dtype=torch.int64, device=run.where)
    terms = cuda.Terms.of(given.theta, given.alpha, given.add, variant.rules, run.where)
    order = there(given.order) if variant.layout == "scattered" else None
    with np.errstate(all="ignore"):
        rows = there(given.base), there(given.z), None, None
        cuda.merge_chunk(*rows, order, out, terms, variant.rules, of(variant.dtype).code, count)
    return out.cpu().numpy(), int(count)


def differences(variant: cuda_variants.Variant, given: cuda_variants.Inputs, found: Any) -> Facts:
    """Every element that differs from the reference, by index, with the bits that led to it."""
    want = cuda_variants.by_reference(variant, given)
    places = np.argsort(given.order) if variant.layout == "scattered" else np.arange(found.size)
    listed = [
        {
            "at": int(at),
            "want": f"{want[at]:x}",
            "found": f"{found[at]:x}",
            "base": f"{given.base[places[at]]:x}",
            "after": [f"{row[places[at]]:x}" for row in given.after],
        }
        for at in np.flatnonzero(want != found)
    ]
    return {"elements": len(listed), "differences": listed}


# The kernel alone


def large(run: Run) -> Facts:
    """2^31 + 515 elements in place, one term: a block of 2^16 repeated, so that the result repeats too."""
    import torch

    from persona.merge.arithmetic import cpu, cuda
    from persona.merge.rules import MergeRules

    period, n = 1 << 16, (1 << 31) + 515
    one = cuda_variants.Variant("BF16", "plain", "in place", 1)
    given = cuda_variants.inputs(one, period)
    want = cuda_variants.by_reference(one, given)
    repeats = -(-n // period)
    base, z = (
        torch.from_numpy(array.view(np.int16)).cuda().repeat(repeats)[:n].view(torch.uint16)
        for array in (given.base, given.z[0])
    )
    out, count = torch.empty_like(base), torch.zeros(1, dtype=torch.int64, device="cuda")
    rules: MergeRules = one.rules
    terms = cuda.Terms.of(given.theta, given.alpha, given.add, rules)
    cuda.merge_chunk(base, z.reshape(1, -1), None, None, None, out, terms, rules, cpu.BF16, count)
    whole = out.view(torch.int16)[: n // period * period].view(-1, period)
    expected = torch.from_numpy(want.view(np.int16)).cuda()
    wrong = [int((rows != expected).sum()) for rows in whole.split(1 << 12)]
    tail = int((out.view(torch.int16)[n // period * period :] != expected[: n % period]).sum())
    return {"ok": not sum(wrong) and not tail, "elements": n, "wrong": sum(wrong), "wrong_at_the_end": tail}


def memcheck(run: Run) -> Facts:
    """NVIDIA's compute-sanitizer over one scattered merge of five terms."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"skipped": "no compute-sanitizer here"}
    script = (
        "import cuda, cuda_variants as v; o = v.Variant('BF16', 'plain', 'scattered', 5);"
        "cuda.by_gpu(cuda.Run(60, False), o, v.inputs(o))"
    )
    done = subprocess.run(
        [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    return {"ok": done.returncode == 0, "exit": done.returncode, "output": done.stdout[-500:]}


def seconds_of(work: Callable[[], object], rounds: int = 5, repeats: int = 10) -> float:
    """The median over the rounds of the GPU's seconds for one run, after one that is not counted."""
    import torch

    work()
    found = []
    for _ in range(rounds):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            work()
        stop.record()
        stop.synchronize()
        found.append(start.elapsed_time(stop) / 1000 / repeats)
    return statistics.median(found)


class Rows:
    """2^27 bf16 elements on the GPU, in the exponent order of their chunks, and eight rows of changes."""

    def __init__(self, n: int = 1 << 27) -> None:
        import torch

        torch.manual_seed(0)
        self.n = n
        numbers = torch.randn(n, device="cuda").mul_(0.02).to(torch.bfloat16).view(torch.int16)
        self.base = numbers.view(torch.uint16)
        exponents = ((numbers >> 7) & 0xFF).view(-1, CHUNK)
        order = (
            torch.sort(exponents, stable=True).indices
            + CHUNK * torch.arange(n // CHUNK, device="cuda")[:, None]
        )
        self.order = order.view(-1).to(torch.int32).view(torch.uint32)
        self.rows = torch.empty((8, n), dtype=torch.int16, device="cuda")
        for row in self.rows:
            row.random_(1, 8).masked_fill_(torch.rand(n, device="cuda") < 0.65, 0)
        self.z = self.rows.view(torch.uint16)
        self.out = torch.empty_like(self.base)
        self.count = torch.zeros(1, dtype=torch.int64, device="cuda")

    def speed(self, terms: int, scattered: bool) -> float:
        """Bytes a second of a merge under `ties`."""
        from persona.merge.arithmetic import cpu, cuda
        from persona.merge.rules import MergeRules

        rules = MergeRules(density=0.2)
        theta, alpha = np.full(terms, 1e-4, np.float32), np.full(terms, 0.8, np.float32)
        made = cuda.Terms.of(theta, alpha, np.zeros(terms, np.bool_), rules)
        order = self.order if scattered else None
        took = seconds_of(
            lambda: cuda.merge_chunk(
                self.base, self.z[:terms], None, None, order, self.out, made, rules, cpu.BF16, self.count
            )
        )
        return self.n * (4 + 2 * terms + (4 if scattered else 0)) / took

    def copy_speed(self) -> float:
        """Bytes a second of a copy within the GPU's memory."""
        import torch

        source = self.rows.view(-1)[: 4 * self.n]
        target = torch.empty_like(source)
        return 2 * source.nbytes / seconds_of(lambda: target.copy_(source))


def bandwidth(run: Run) -> Facts:
    """GB/s of a copy, of the kernel in place and scattered, and of the bus."""
    import torch

    rows = Rows()
    found: Facts = {"copy": rows.copy_speed()}
    for terms in (1, 4, 8):
        for scattered in (False, True):
            found[f"K={terms} {'scattered' if scattered else 'in place'}"] = rows.speed(terms, scattered)
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    found["to the GPU"] = host.nbytes / seconds_of(lambda: there.copy_(host, non_blocking=True), repeats=4)
    found["from the GPU"] = host.nbytes / seconds_of(lambda: host.copy_(there, non_blocking=True), repeats=4)
    return {"GB/s": {name: round(speed / 1e9, 1) for name, speed in found.items()}}


def shapes(run: Run) -> Facts:
    """The kernel at K = 4 with other warps, blocks and limits of registers: decision 016's numbers."""
    from persona.merge.arithmetic import cuda

    rows, found, before = Rows(), {}, (dict(cuda.OPTIONS), cuda.BLOCK)
    try:
        for warps, block, registers in (
            (4, 512, 168),
            (4, 512, 128),
            (4, 512, None),
            (4, 1024, 168),
            (8, 1024, 128),
            (8, 512, 128),
        ):
            cuda.OPTIONS.update(num_warps=warps, maxnreg=registers)
            cuda.BLOCK = block  # type: ignore[misc]
            name = f"{warps} warps, {block} elements, {registers or 'no'} registers"
            try:
                speeds = [round(rows.speed(4, scattered) / 1e9, 1) for scattered in (False, True)]
                found[name] = speeds
            except Exception as error:
                found[name] = str(error)[:100]
    finally:
        cuda.OPTIONS.update(before[0])
        cuda.BLOCK = before[1]  # type: ignore[misc]
    return {"GB/s in place, scattered": found}


# Whole models


def presets(run: Run) -> Facts:
    """The digests of every preset by CPU and GPU, which must be equal, in every dtype."""
    from persona.codec.elements import of
    from persona.objects.commit import Person
    from persona.objects.rules import PRESETS
    from persona.repository import Repository

    random = np.random.default_rng(1)
    shape = (64, 96) if run.dry else (1100, 1000)
    names = [f"model.layers.{k}.q_proj" for k in range(2)]
    person = Person("bench", "bench@example.org", 1_763_000_000, 0)
    compared, differing, seconds = 0, [], {}
    for dtype in cuda_variants.DTYPES:
        element, folder = of(dtype), run.work / dtype
        folder.mkdir()
        normal = {name: random.standard_normal(shape, np.float32) * np.float32(0.02) for name in names}
        base = {
            f"{name}.weight": values.astype(np.float16).view(np.uint16)
            if dtype == "F16"
            else (values.view(np.uint32) >> (32 - element.width)).astype(element.uint)
            for name, values in normal.items()
        }
        write(folder / "base", base, dtype)
        Repository.init(folder / "repository", base=folder / "base", author=person)
        with Repository.open(folder / "repository", author=person) as repo:
            for k in range(2):
                steps = random.integers(0, 8, shape, element.uint) * (random.random(shape) < 0.4)
                tuned = {name: bits + steps.astype(element.uint) for name, bits in base.items()}
                write(folder / f"tuned-{k}", tuned, dtype)
                repo.add(folder / f"tuned-{k}", name=f"v{k}", alpha=str(1 - 0.3 * k))
            write_adapter(folder / "adapter", names, shape, random)
            repo.add(folder / "adapter", name="adapter", alpha="0.9")
            for preset, row in PRESETS.items():
                rules = {"preset": preset} | ({"density": 0.4} if row["density"] else {})
                repo.recipe.set_rules(rules)
                digests = []
                for device in ("cpu", "cpu" if run.dry else "cuda"):
                    started = time.perf_counter()
                    digests.append(repo.digest(device=device).weights)
                    seconds[device] = seconds.get(device, 0.0) + time.perf_counter() - started
                compared += 1
                if digests[0] != digests[1]:
                    differing.append(f"{dtype} {preset}")
    rounded = {device: round(took, 2) for device, took in seconds.items()}
    return {"ok": not differing, "compared": compared, "differing": differing, "seconds of digests": rounded}


def write_adapter(folder: Path, names: list[str], shape: tuple[int, int], random: Any) -> None:
    """A PEFT adapter of rank 8 for these modules, in float32."""
    tensors = {}
    for name in names:
        key = f"base_model.model.{name}"
        a = random.standard_normal((8, shape[1]), np.float32) * np.float32(shape[1] ** -0.5)
        b = random.standard_normal((shape[0], 8), np.float32) * np.float32(1e-3)
        tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
    write(folder, tensors, "F32", "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def build(run: Run) -> Facts:
    """A repository of a bf16 model of half a billion parameters and four fine-tunes, made here."""
    from persona.objects.commit import Person
    from persona.repository import Repository

    tensors, shape = (3, (64, 80)) if run.dry else (30, (4096, 4096))
    random = np.random.default_rng(0)
    base = {
        f"model.layers.{k}.weight": (random.standard_normal(shape, np.float32) * 0.02).view(np.uint32) >> 16
        for k in range(tensors)
    }
    person = Person("bench", "bench@example.org", 1_763_000_000, 0)
    write(run.work / "base", {name: bits.astype(np.uint16) for name, bits in base.items()})
    Repository.init(run.work / "repository", base=run.work / "base", author=person)
    run.repository = run.work / "repository"
    with Repository.open(run.repository, author=person) as repo:
        for k in range(4):
            steps = random.integers(0, 16, shape, np.uint8)
            steps[steps > 5] = 0
            tuned = run.work / f"tuned-{k}"
            write(tuned, {name: (bits + np.roll(steps, k)).astype(np.uint16) for name, bits in base.items()})
            repo.add(tuned, name=f"v{k}", alpha=str(0.8 - 0.05 * k))
            shutil.rmtree(tuned)
        repo.recipe.set_rules({"density": 0.2})
        repo.commit(message="four")
    return {"parameters": sum(bits.size for bits in base.values())}


def write(
    folder: Path, tensors: dict[str, Any], dtype: str = "BF16", file_name: str = "model.safetensors"
) -> None:
    """A model directory of tensors of one dtype."""
    folder.mkdir()
    header, end = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    with (folder / file_name).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(values.data)
    (folder / "config.json").write_text("{}")


def checkouts(run: Run) -> Facts:
    """The digest by CPU and GPU at several numbers of threads: wall seconds, and how many cores were busy."""
    from persona.repository import Repository

    assert run.repository is not None, "there is no model"
    cores = len(os.sched_getaffinity(0))
    digests, seconds = set(), {}
    with Repository.open(run.repository) as repo:
        for threads in [count for count in (1, 4, 8, 16) if count <= cores]:
            for device in ("cpu", "cpu") if run.dry else ("cpu", "cuda"):
                wall, busy = time.perf_counter(), time.process_time()
                digests.add(repo.digest(device=device, threads=threads, memory=4 << 30).weights)
                wall, busy = time.perf_counter() - wall, time.process_time() - busy
                seconds[f"{device} {threads}"] = [round(wall, 3), round(busy / wall, 2)]
                run.tell("a checkout", device=device, threads=threads, seconds=round(wall, 3))
    return {"ok": len(digests) == 1, "digests": sorted(digests), "seconds, cores busy": seconds}


def live(run: Run) -> Facts:
    """Changes of one α in parameters on the GPU: while nothing else runs, beside multiplications on another
    stream, through 0 and 1, and with hardly any memory free.
    """
    import torch

    from persona.repository import Repository

    assert run.repository is not None, "there is no model"
    with Repository.open(run.repository) as repo:
        model = torch.nn.Module()
        for name, array in repo.tensors("HEAD~1", torch=True):
            *parents, leaf = name.split(".")
            place = model
            for part in parents:
                if part not in dict(place.named_children()):
                    place.add_module(part, torch.nn.Module())
                place = place.get_submodule(part)
            place.register_parameter(leaf, torch.nn.Parameter(array.to(run.where), requires_grad=False))
        started = time.perf_counter()
        hand = repo.live(model, "HEAD", cache=1 << 38)
        found: Facts = {"loaded_s": round(time.perf_counter() - started, 2)}

        def times(alphas: list[float]) -> list[float]:
            took = []
            for alpha in alphas:
                before = time.perf_counter()
                hand.set("v0", alpha=round(alpha, 4))
                took.append(1000 * (time.perf_counter() - before))
            return [round(statistics.median(took), 2), round(max(took), 2)]

        found["ms_median_worst"] = times([0.3 + k / 1000 for k in range(50)])
        found["ms_through_0_and_1"] = times([-0.1, 0.0, 0.1, 0.9, 1.0, 1.1])
        if not run.dry:
            other, matrix = torch.cuda.Stream(), torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
            with torch.cuda.stream(other):
                for _ in range(2000):
                    matrix @ matrix
            found["ms_beside_matmuls"] = times([0.5 + k / 1000 for k in range(10)])
            other.synchronize()
            free = torch.cuda.mem_get_info()[0] - (300 << 20)
            filler = torch.empty(max(0, free), dtype=torch.uint8, device="cuda")
            found["ms_when_full"] = times([0.6 + k / 1000 for k in range(5)])
            del filler
        repo.recipe.set("v0", alpha=hand.recipe.vectors["v0"].alpha)
        found["ok"] = hand.digest() == repo.digest(device="cpu").weights
    return found


def fault(run: Run) -> Facts:
    """An illegal access in another process: a sentence and an exit code, no trace."""
    import torch

    torch.cuda.empty_cache()  # what earlier steps filled
    done = subprocess.run(
        [sys.executable, __file__, "--fault"], capture_output=True, text=True, timeout=55, check=False
    )
    said = done.stderr.strip().splitlines()[-1:]
    return {"ok": done.returncode == 7, "exit": done.returncode, "said": said}


def plant_a_fault() -> None:
    """Merges with an order that points far out of its array; exits as persona would."""
    import torch

    from persona.errors import PersonaError
    from persona.merge.devices.choose import cuda_devices
    from persona.merge.devices.cuda import CudaDevice

    try:
        (device, *_) = cuda_devices()
        assert isinstance(device, CudaDevice)
        stream = device.stream()
        order = torch.full((CHUNK,), 0x7FFF_FFF0, dtype=torch.int32, device="cuda").view(torch.uint32)
        source = stream.array(CHUNK, np.uint16)
        stream.scatter(source, order, stream.array(CHUNK, np.uint16))
        stream.synchronize()
    except PersonaError as error:
        print(f"persona: {error}", file=sys.stderr)
        os._exit(error.exit_code)


if __name__ == "__main__":
    main()
