"""The golden cases of two small kernels of `persona.codec.kernels`, for a build of a second or two."""

from __future__ import annotations

from collections.abc import Iterator

from persona.codec import golden
from persona.codec.native.golden import Case

KERNELS = ("rotate_join_16", "take_tails")


def cases(kernel: str, wide: int) -> Iterator[Case]:
    return golden.cases(kernel, wide)
