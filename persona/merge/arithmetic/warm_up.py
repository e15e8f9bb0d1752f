"""All kernels of persona, compiled ahead of the calls that need them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from persona.codec.delta import kernels as codec_kernels
from persona.codec.native import Kernels, build, code_files, golden, key, processor
from persona.frozen import dataclass
from persona.merge.arithmetic.cpu import kernels as merge_kernels
from persona.merge.arithmetic.filters import kernels as filter_kernels
from persona.merge.arithmetic.lowrank import kernels as lowrank_kernels
from persona.merge.workers import first_run
from persona.progress import Progress

KERNELS: Final[tuple[Kernels, ...]] = (codec_kernels, merge_kernels, filter_kernels, lowrank_kernels)


@dataclass(frozen=True)
class WarmUp:
    """The result of `warm_up`. A kernel counts once for each combination of argument types.

    compiled: how many of all `kernels` were compiled now, in `seconds`. folder: the folder of their code, or
    None if there is no writable folder. shipped: the level of the architecture whose code persona was
    installed with and uses for other kernels, such as "x86-64-v3", or None.
    """

    kernels: int
    compiled: int
    seconds: float
    folder: str | None
    shipped: str | None


def warm_up(progress: Progress | None = None) -> WarmUp:
    """Compiles every kernel for exactly this processor, and keeps the code in the user's cache.

    Every later process finds it there. Kernels that are kept already are not compiled again. Without this
    call, persona uses the code that it was installed with, and compiles a kernel only if there is none.
    progress: called once when kernels are being compiled.
    """
    began = time.monotonic()
    variants = list(_variants())
    with first_run(progress):
        compiled = sum(getattr(kernels, name).warm_up(kinds) for kernels, name, kinds in variants)
    host = processor.host()
    files = [key.names(kernels.module, name, kinds, host)[0] for kernels, name, kinds in variants]
    folder = next((each for each in code_files.cached_in() if _has_all(each, files)), None)
    return WarmUp(
        len(variants), compiled, time.monotonic() - began, str(folder) if folder else None, _shipped()
    )


def ship(level: str, into: str) -> None:
    """Compiles every kernel for a level, by its name, into the folder `into`, when persona is built."""
    (target,) = (each for each in processor.levels() if each.name == level)
    build.ship(KERNELS, target, Path(into))


def _variants() -> Iterator[tuple[Kernels, str, tuple[str, ...]]]:
    for kernels in KERNELS:
        for name, kinds in golden.variants(kernels.golden):
            yield kernels, name, kinds


def _has_all(folder: Path, names: list[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _shipped() -> str | None:
    level = processor.level()
    return level.name if level and any(each.is_dir() for each in code_files.shipped_in(level)) else None
