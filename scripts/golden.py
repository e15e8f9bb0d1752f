#!/usr/bin/env python
"""Prints the digests of the kernels' golden cases, as numba computes them: for persona/codec/golden.py,
persona/merge/arithmetic/golden.py and draws_golden.py, after a case or a kernel was changed on purpose.

    scripts/golden.py
"""

from __future__ import annotations

import importlib

from persona.codec.floats import DefaultEnvironment
from persona.codec.native import compiler, has_compress
from persona.merge.arithmetic.warm_up import KERNELS


def main() -> None:
    """Compiles every kernel with numba, which takes a minute, and calls it."""
    for kernels in KERNELS:
        golden = importlib.import_module(kernels.golden)
        print(f"# {kernels.golden}")
        for name in golden.KERNELS:
            kernel = compiler.dispatcher(kernels.module, name)
            with DefaultEnvironment():
                digests = [case.found(kernel) for case in golden.cases(name, has_compress())]
            for at in range(0, len(digests), 4):
                print(f"    {name} {' '.join(digests[at : at + 4])}")


if __name__ == "__main__":
    main()
