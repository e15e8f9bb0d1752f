"""Compiles kernels for the levels of this architecture when persona is built (setup.py)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from persona.codec.native import code_files, compiler, golden, key, processor
from persona.codec.native.kernel import Kernels, linked
from persona.codec.native.processor import Target
from persona.errors import SystemFault
from persona.store import files


def ship(every: Iterable[Kernels], level: Target, into: Path) -> None:
    """Fills the folder `into` with the machine code of all kernels for a level, and removes other files.

    A process does this once, for one level. A file that exists is not made again. On a processor that runs
    code for this level, the code must pass its golden cases first. Raises `SystemFault` if a kernel needs
    more than machine code, or computes other bits.
    """
    files.mkdirs(into)
    wanted = set()
    for kernels in every:
        for name, kinds in golden.variants(kernels.golden):
            file, symbol = key.names(kernels.module, name, kinds, level)
            wanted.add(file)
            if code_files.read(file, [into]) is None:
                code = compiler.compile_for(level, kernels.module, name, kinds, symbol)
                if not code:
                    raise SystemFault(
                        f"the machine code of {name} needs functions of numba; a kernel must need none"
                    )
                if processor.runs(level):
                    linked(kernels.golden, name, kinds, level, code, symbol)
                if code_files.write(file, code, [into]) is None:
                    raise SystemFault(
                        f"cannot write {into / file}; check the permissions and the free space there"
                    )
    for entry in files.names_in(into):
        if entry.name not in wanted:
            files.remove(Path(entry.path))
