"""Timing whole processes, side by side.

A *contestant* is a command, with what has to be in place before each of its runs. A *round* runs every
contestant once, in turn (A B A B …), so that a shared machine's moods fall on all alike; what counts is the
median over the rounds of the ratio within a round. Peak memory is the largest resident set of the process
or of any child that it waited for. One round goes first, unmeasured: it fills the page cache, and compiled
kernels are written to disk in it.

This module stays small on purpose: a child's peak memory can never be seen below that of the process that
forked it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

MB = 1_000_000
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds, processor seconds, peak resident bytes, standard output."""

    seconds: float
    cpu: float
    peak: int
    output: str


@dataclass(frozen=True)
class Contestant:
    """A command that takes part, and what is done, untimed, before each of its runs."""

    name: str
    command: Sequence[str | Path]
    before: Callable[[], object] = lambda: None
    cwd: Path | None = None


def run(command: Sequence[str | Path], *, cwd: Path | None = None) -> Run:
    """Run a command to its end; RuntimeError, with what it said, where it fails."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # everybody's byte code is on disk after the warm-up
    for who in ("PERSONA_AUTHOR", "PERSONA_COMMITTER"):
        environment |= {f"{who}_NAME": "bench", f"{who}_EMAIL": "bench@example.org"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        output = out.read().decode(errors="replace")
        if process.returncode:
            said = err.read().decode(errors="replace") + output
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}\n{said[-3000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak, output)


def rounds(contestants: Sequence[Contestant], count: int, *, warm_up: bool = True) -> dict[str, list[Run]]:
    """The measured runs of every contestant, taking turns, after one round that is not counted."""
    measured: dict[str, list[Run]] = {one.name: [] for one in contestants}
    for number in range(-1 if warm_up else 0, count):
        for one in contestants:
            one.before()
            done = run(one.command, cwd=one.cwd)
            if number >= 0:
                measured[one.name].append(done)
    return measured


def seconds(runs: Sequence[Run]) -> float:
    """The median wall seconds."""
    return statistics.median(one.seconds for one in runs)


def peak(runs: Sequence[Run]) -> int:
    """The largest peak resident bytes."""
    return max(one.peak for one in runs)


def ratio(slower: Sequence[Run], faster: Sequence[Run]) -> str:
    """How many times faster, paired by round: the median, and the range."""
    found = [a.seconds / b.seconds for a, b in zip(slower, faster, strict=True)]
    return f"{statistics.median(found):.1f} times (rounds: {min(found):.1f} to {max(found):.1f})"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, under its title and the machine's name."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(f"\n## {title}\n{date.today().isoformat()}, {machine()}\n")
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    sys.stdout.flush()


def machine() -> str:
    """The processor, the cores this process may use, the memory, the system and the interpreter."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    python = platform.python_version()
    return f"{processor}, {cores} cores, {memory:.0f} GB, {platform.system()}, Python {python}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every bench has."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--models",
        type=Path,
        default=ROOT / "build/models",
        help="what `models.py real` wrote (default: build/models)",
    )
    options.add_argument(
        "--rounds", type=int, default=5, help="measured runs of each contestant (default: 5)"
    )
    options.add_argument("--no-warm-up", action="store_true", help="count the first round too")
    options.add_argument(
        "--scratch", type=Path, help="where to work (default: the system's temporary directory)"
    )
    options.add_argument(
        "--persona",
        type=Path,
        default=Path(sys.executable).with_name("persona"),
        help="the command to measure",
    )
    return options


def models_of(directory: Path) -> tuple[Path, list[Path]]:
    """The base and the fine-tunes that models.py wrote; exits with a hint where there are none."""
    tuned = sorted(directory.glob("ft-*"))
    if not (directory / "base").is_dir() or not tuned:
        sys.exit(f"no models in {directory}: make them with scripts/bench/models.py")
    return (directory / "base").resolve(), [one.resolve() for one in tuned]


@contextlib.contextmanager
def scratch(directory: Path | None) -> Iterator[Path]:
    """A directory to work in, removed at the end."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as made:
        yield Path(made)


def remove(*paths: Path) -> None:
    """Remove directories, there or not, and let the disk come to rest."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    os.sync()


def repository(persona: Path, directory: Path, base: Path, tuned: Sequence[Path] = ()) -> Path:
    """A repository of a base, with one commit for each fine-tune."""
    run([persona, "init", directory, "--base", base])
    for path in tuned:
        run([persona, "-C", directory, "commit", path, "-n", path.name, "-m", f"add {path.name}"])
    return directory
