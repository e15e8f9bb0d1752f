#!/usr/bin/env python3
"""What does the first minute cost?

The first `init`, `commit PATH` and checkout of two vectors after an install, against the same commands later.

    scripts/bench/first_run.py [--python PYTHON] [--scratch DIR]

Installs the last commit twice, into new virtual environments: as the README says (a clone and
`scripts/environment`), and as a wheel (`pip install`, with a build environment of its own). Both download
torch. Each is tried twice: read-only and without a home directory, and with a tree that may be written. Run
it as root: the commands are run by `nobody`, who owns nothing and has no home. The model has 213,568 weights
in bf16.

Each command runs once, and then LATER times in new repositories. The table has wall seconds and processor
seconds of the first and the median of the later ones.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import harness
import numpy as np

LATER = 5
SHAPES = {"model.embed_tokens.weight": (512, 64)} | {
    f"model.layers.{layer}.{name}.weight": (64, columns)
    for layer in range(4)
    for name, columns in (("self_attn.o_proj", 194), ("mlp.up_proj", 256), ("mlp.down_proj", 256))
}


def write_model(directory: Path, seed: int) -> Path:
    """A bf16 checkpoint: Gaussian weights, and for a seed above 0 a fine-tune that moved a third of them."""
    directory.mkdir()
    tensors: dict[str, object] = {}
    data = b""
    for number, (name, shape) in enumerate(SHAPES.items()):
        weights = np.random.default_rng(number).normal(0, 0.02, shape).astype(np.float32)
        if seed:
            random = np.random.default_rng((seed, number))
            weights += (random.random(shape) < 0.33) * random.normal(0, 1e-3, shape).astype(np.float32)
        part = (weights.view(np.uint32) >> 16).astype("<u2").tobytes()
        tensors[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    (directory / "config.json").write_text('{"model_type": "llama"}\n')
    return directory


def measured(command: Sequence[str | Path], cwd: Path, user: int | None) -> tuple[float, float, str]:
    """Wall seconds, processor seconds and standard error of a command without a home."""
    nowhere = "/nonexistent"
    environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": nowhere, "XDG_CONFIG_HOME": nowhere}
    for who in ("PERSONA_AUTHOR", "PERSONA_COMMITTER"):
        environment |= {f"{who}_NAME": "bench", f"{who}_EMAIL": "bench@example.org"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        user=user,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed: {said}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, said


def day(persona: Path, work: Path, name: str, user: int | None) -> dict[str, tuple[float, float]]:
    """Seconds of each step in a new repository. Raises `RuntimeError` if one compiles."""
    place = work / name
    place.mkdir()
    if user is not None:
        os.chown(place, user, -1)
    steps: dict[str, tuple[list[str | Path], Path]] = {
        "init": (["init", "bot", "--base", work / "base"], place),
        "commit PATH": (["commit", work / "one", "-m", "one"], place / "bot"),
        "commit PATH, 2nd vector": (["commit", work / "two", "-m", "two"], place / "bot"),
        "checkout, 2 vectors": (["checkout"], place / "bot"),
    }
    seconds = {}
    for step, (words, cwd) in steps.items():
        wall, cpu, said = measured([persona, *words], cwd, user)
        if "compil" in said:
            raise RuntimeError(f"{step} in {name} compiles: {said}")
        seconds[step] = wall, cpu
    return seconds


def report(install: str, persona: Path, work: Path, user: int | None) -> None:
    """One table row for each step."""
    label = install.replace(" ", "-").replace(",", "")
    first = day(persona, work, f"{label}-first", user)
    later = [day(persona, work, f"{label}-{number}", user) for number in range(LATER)]
    for step, (wall, cpu) in first.items():
        walls, cpus = (statistics.median(run[step][kind] for run in later) for kind in (0, 1))
        print(
            f"| {install} | {step} | {wall:.2f} | {walls:.2f} | {wall / walls:.2f} |"
            f" {cpu:.2f} | {cpus:.2f} | {cpu / cpus:.2f} |",
            flush=True,
        )


def owned(tree: Path, user: int) -> None:
    """Gives a tree to a user."""
    subprocess.run(["chown", "-R", str(user), tree], check=True)


def main() -> None:
    """Install, measure, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--python", default=sys.executable, help="that makes the virtual environments")
    options.add_argument("--scratch", type=Path, help="where to work; nobody must be able to read it")
    args = options.parse_args()
    user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
    environment = {**os.environ, "PYTHON": args.python}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with harness.scratch(args.scratch) as work:
        work.chmod(0o755)
        for number, name in enumerate(("base", "one", "two")):
            write_model(work / name, number)
        clone, site = work / "clone", work / "site"
        subprocess.run(["git", "clone", "--quiet", harness.ROOT, clone], check=True)
        began = time.perf_counter()
        subprocess.run([clone / "scripts" / "environment"], env=environment, check=True)
        print(f"scripts/environment: {time.perf_counter() - began:.0f} s", flush=True)
        began = time.perf_counter()
        subprocess.run([args.python, "-m", "venv", site], check=True)
        pip: list[str | Path] = [site / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-c", clone / "constraints.txt", clone], env=environment, check=True)
        print(f"pip install: {time.perf_counter() - began:.0f} s\n", flush=True)
        print(harness.machine())
        print("| install | command | first, s | later, s | ratio | first, CPU s | later, CPU s | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for install, tree, persona in (
            ("clone", clone, clone / ".venv" / "bin" / "persona"),
            ("wheel", site, site / "bin" / "persona"),
        ):
            report(f"{install}, read-only", persona, work, user)
            if user is not None:
                owned(tree, user)
            report(f"{install}, writable", persona, work, user)


if __name__ == "__main__":
    main()
