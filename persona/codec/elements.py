"""The element types that are encoded field by field, and the numbering of forms.

An element type says where its exponent field lies. Its elements are handled as unsigned integers of its
width, so float arithmetic never touches a bit pattern (NaN payloads, signs of zeros, subnormals).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.objects.dtypes import DTYPES, uint

Elements = npt.NDArray[Any]
"""A one-dimensional array of uint16 or uint32: the bits of a chunk's elements."""
Bytes = npt.NDArray[np.uint8]
"""A one-dimensional array of uint8: a segment."""

CODEC_VERSION: Final = 1

LAYOUT_RAW: Final = 0
LAYOUT_BASE: Final = 1
LAYOUT_DELTA: Final = 2


@dataclass(frozen=True)
class ElementType:
    """A float type: sign, exponent and mantissa from the top bit down.

    `code` is its number in forms, `width` its bits, `mantissa` the bits below the exponent field, `exponent`
    the bits of that field.
    """

    name: Literal["BF16", "F16", "F32"]
    code: int
    width: int
    exponent: int
    mantissa: int

    @property
    def nbytes(self) -> int:
        """Bytes of one element."""
        return self.width // 8

    @property
    def uint(self) -> np.dtype[Any]:
        """The unsigned integer type that its elements are handled as."""
        return np.dtype(uint(self.nbytes))


def _element(name: Literal["BF16", "F16", "F32"], code: int) -> ElementType:
    dtype = DTYPES[name]
    return ElementType(name, code, dtype.bits, dtype.exponent, dtype.mantissa)


BF16: Final = _element("BF16", 1)
F16: Final = _element("F16", 2)
F32: Final = _element("F32", 3)

_BY_NAME: Final[dict[str, ElementType]] = {element.name: element for element in (BF16, F16, F32)}
_BY_CODE: Final[dict[int, ElementType]] = {element.code: element for element in (BF16, F16, F32)}


def is_encoded(dtype: str) -> bool:
    """Whether elements of a safetensors dtype are encoded field by field; all others are stored raw."""
    return dtype in _BY_NAME


def of(dtype: str) -> ElementType:
    """The element type of a safetensors dtype; InvalidInput for one that is stored raw."""
    element = _BY_NAME.get(dtype)
    if element is None:
        raise InvalidInput(f"{dtype} has no field-by-field encoding: only BF16, F16 and F32 have")
    return element


def form_of(layout: int, element: ElementType | None) -> int:
    """The form: codec version << 16 | layout << 8 | element type code (0 for the raw layout)."""
    return CODEC_VERSION << 16 | layout << 8 | (element.code if element else 0)


def parse_form(form: int) -> tuple[int, ElementType | None]:
    """(layout, element type) of a form; IntegrityError for one that this version never writes."""
    version, layout, code = form >> 16, form >> 8 & 0xFF, form & 0xFF
    if version != CODEC_VERSION:
        raise IntegrityError(f"storage form {form:#x} is of codec version {version}, not {CODEC_VERSION}")
    element = _BY_CODE.get(code)
    if (element is None) != (layout == LAYOUT_RAW) or (element is None and code):
        raise IntegrityError(f"storage form {form:#x} names no element type of codec version {version}")
    return layout, element


FORM_RAW: Final = form_of(LAYOUT_RAW, None)
"""The bytes as they are, in one segment."""


def readable(elements: Elements, element: ElementType) -> Elements:
    """The elements as a contiguous, aligned, read-only array, the one kind that kernels are compiled for."""
    if elements.dtype != element.uint or elements.ndim != 1:
        raise TypeError(
            f"elements of {element.name} must be {element.uint}[n], not {elements.dtype}{elements.shape}"
        )
    view = np.require(elements, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view


def segment_bytes(segment: Any) -> Bytes:
    """A segment (bytes-like, or a contiguous uint8 array) as a read-only uint8 array, without a copy."""
    view: Bytes = np.frombuffer(segment, np.uint8)
    view.flags.writeable = False
    return view
