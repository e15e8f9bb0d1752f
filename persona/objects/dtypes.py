"""**dtype** — the type of a tensor's elements, by its safetensors name.

This is the only table of dtypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Dtype(NamedTuple):
    """One dtype.

    bits: of an element. numpy, torch: the name of the same type there, or None. exponent, mantissa: the bits
    of these fields of a float that can be widened and rounded; 0 for other types. merged: whether recipes
    change tensors of it. words: other names that users give it.
    """

    name: str
    bits: int
    numpy: str | None = None
    torch: str | None = None
    exponent: int = 0
    mantissa: int = 0
    merged: bool = False
    words: tuple[str, ...] = ()

    @property
    def is_float(self) -> bool:
        """Whether elements are floats that can be widened, rounded and tested for infinity."""
        return self.exponent > 0

    @property
    def infinity(self) -> int:
        """The bits of +inf: all bits of the exponent field."""
        return ((1 << self.exponent) - 1) << self.mantissa

    def holds(self, other: Dtype) -> bool:
        """Whether every value of `other` is a value of this one, both floats."""
        return self.exponent >= other.exponent and self.mantissa >= other.mantissa


DTYPES: Final[Mapping[str, Dtype]] = {
    dtype.name: dtype
    for dtype in (
        Dtype("F4", 4),
        Dtype("F6_E2M3", 6),
        Dtype("F6_E3M2", 6),
        Dtype("BOOL", 8, "?", "bool"),
        Dtype("U8", 8, "u1", "uint8"),
        Dtype("I8", 8, "i1", "int8"),
        Dtype("F8_E4M3", 8, None, "float8_e4m3fn"),
        Dtype("F8_E5M2", 8, None, "float8_e5m2"),
        Dtype("F8_E8M0", 8),
        Dtype("F8_E4M3FNUZ", 8),
        Dtype("F8_E5M2FNUZ", 8),
        Dtype("I16", 16, "<i2", "int16"),
        Dtype("U16", 16, "<u2", "uint16"),
        Dtype("F16", 16, "<f2", "float16", 5, 10, True, ("fp16",)),
        Dtype("BF16", 16, None, "bfloat16", 8, 7, True),
        Dtype("I32", 32, "<i4", "int32"),
        Dtype("U32", 32, "<u4", "uint32"),
        Dtype("F32", 32, "<f4", "float32", 8, 23, True, ("fp32",)),
        Dtype("C64", 64, "<c8", "complex64"),
        Dtype("I64", 64, "<i8", "int64"),
        Dtype("U64", 64, "<u8", "uint64"),
        Dtype("F64", 64, "<f8", "float64", 11, 52),
    )
}


def uint(nbytes: int) -> str:
    """numpy's name of the little-endian unsigned integers with this many bytes."""
    return f"<u{nbytes}"


def merged_dtype(word: str) -> Dtype | None:
    """The merged dtype that a user's word means: its name, torch's, or one of its `words`, in any case."""
    word = word.lower()
    for dtype in DTYPES.values():
        if dtype.merged and word in (dtype.name.lower(), dtype.torch, *dtype.words):
            return dtype
    return None
