"""**golden case** — a call of a kernel whose result is known.

A kernel computes its golden cases directly after it is linked, before anybody uses it, in less than a
millisecond. A checksum shows damaged code. A golden case shows code that is whole and wrong: compiled by a
faulty compiler, for another calling convention, or from another source.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from persona.codec.native.convention import Call, kinds_of
from persona.errors import SystemFault
from persona.frozen import dataclass


@dataclass(frozen=True)
class Case:
    """One call, to be made once, because its arrays are changed in place.

    results: the arrays that the call must fill correctly, from its return value. digest: of these and of the
    return value, as `digest_of` computes it.
    """

    kernel: str
    arguments: tuple[Any, ...]
    results: Callable[[int], Sequence[npt.NDArray[Any]]]
    digest: str

    def found(self, call: Call) -> str:
        """Makes the call, and returns the digest of its results."""
        returned = int(call(*self.arguments) or 0)
        return digest_of(returned, self.results(returned))


def digest_of(returned: int, results: Sequence[npt.NDArray[Any]]) -> str:
    """16 hexadecimal digits of the BLAKE3 of the arrays, little-endian, and of the return value as int64."""
    hasher = blake3()
    for array in results:
        hasher.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    hasher.update(returned.to_bytes(8, "little", signed=True))
    return hasher.hexdigest()[:16]


def table(text: str) -> dict[str, list[str]]:
    """The digests of each kernel's cases in order; text: lines of a kernel's name and some digests."""
    digests: dict[str, list[str]] = {}
    for kernel, *more in map(str.split, text.strip().splitlines()):
        digests.setdefault(kernel, []).extend(more)
    return digests


def cases(golden: str, kernel: str, compress: bool) -> Iterator[tuple[tuple[str, ...], Case]]:
    """The golden cases of a kernel, with the kinds of their arguments.

    golden: the module that has them. compress: whether the kernel may use the instructions of
    `persona.codec.native.has_compress`.
    """
    for case in importlib.import_module(golden).cases(kernel, int(compress)):
        yield kinds_of(case.arguments), case


def variants(golden: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(kernel, kinds) of every variant that a module has golden cases for: all that persona calls."""
    for kernel in importlib.import_module(golden).KERNELS:
        for kinds in dict.fromkeys(kinds for kinds, _ in cases(golden, kernel, compress=False)):
            yield kernel, kinds


def require(golden: str, kernel: str, kinds: tuple[str, ...], compress: bool, call: Call) -> None:
    """Makes every golden case of a variant. Raises `SystemFault` if one comes out wrong."""
    tried = 0
    for found, case in cases(golden, kernel, compress):
        if found == kinds:
            tried += 1
            if (digest := case.found(call)) != case.digest:
                raise SystemFault(
                    f"the compiled kernel {kernel} computes other bits than it should ({digest}, not"
                    f" {case.digest}); upgrade numba, or report this with its version"
                )
    if not tried:
        raise SystemFault(f"the kernel {kernel}({', '.join(kinds)}) has no golden case")
