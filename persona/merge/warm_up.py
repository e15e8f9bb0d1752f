"""All kernels of persona, compiled ahead of the calls that need them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from persona.codec.delta import kernels as codec_kernels
from persona.codec.native import Kernels, build, code_files, golden, processor
from persona.merge.cpu import kernels as merge_kernels

KERNELS: Final[tuple[Kernels, ...]] = (codec_kernels, merge_kernels)


@dataclass(frozen=True)
class WarmUp:
    """Kernels that this machine's own processor has code for in the user's cache.

    kernels: all of them, a kernel counted for each combination of argument types. compiled: those that were
    compiled now, in `seconds`. folder: where the code is kept, or None where it cannot be kept. shipped: the
    level whose code persona was installed with and uses otherwise, or None.
    """

    kernels: int
    compiled: int
    seconds: float
    folder: str | None
    shipped: str | None


def warm_up(progress: Callable[[str, int, int], None] | None = None) -> WarmUp:
    """Compiles every kernel for exactly this processor, unless that was done before, and keeps the code in
    the user's cache, where every later process finds it.

    Without it, persona uses the code that it was installed with, for the processor's level, and compiles
    only where there is none. progress: told (label, kernels done, kernels in all).
    """
    began = time.monotonic()
    every = [(kernels, name, kinds) for kernels in KERNELS for name, kinds in golden.variants(kernels.golden)]
    compiled = 0
    for done, (kernels, name, kinds) in enumerate(every):
        if progress is not None:
            progress(f"compiling {name}", done, len(every))
        compiled += getattr(kernels, name).warm_up(kinds)
    return WarmUp(len(every), compiled, time.monotonic() - began, None, shipped())


def shipped() -> str | None:
    """The level whose code persona was installed with, and which this processor has; else None."""
    level = processor.level()
    return level.name if level and any(folder.is_dir() for folder in code_files.shipped_in(level)) else None


def ship(level: str, into: str) -> None:
    """Compiles every kernel for a level, by its name, into the folder `into`, when persona is built."""
    (target,) = (each for each in processor.levels() if each.name == level)
    build.ship(KERNELS, target, Path(into))
