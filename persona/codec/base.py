"""The elements of a base chunk <-> segments.

The exponent of a float takes few values, its mantissa takes all. So they are stored apart: the sign bit is
rotated to the bottom of each element, and the bytes are stored plane by plane, the highest first. Elements of
other types are one segment, as they are. Layouts: `docs/format.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from persona.codec.elements import (
    FORM_RAW,
    LAYOUT_BASE,
    LAYOUT_RAW,
    Bytes,
    Elements,
    form_of,
    is_encoded,
    of,
    parse_form,
    readable,
    segment_bytes,
)
from persona.codec.native import Kernels
from persona.errors import IntegrityError

kernels = Kernels("persona.codec.kernels", golden="persona.codec.golden")


def encode_base(raw: Elements, dtype: str) -> tuple[int, list[Bytes]]:
    """(form, segments) of a chunk of a base.

    raw: the elements, uint16[n] or uint32[n] for BF16, F16 and F32; any contiguous array for another
    safetensors dtype, whose bytes are taken as they are (without a copy).
    """
    if not is_encoded(dtype):
        return FORM_RAW, [np.ascontiguousarray(raw).reshape(-1).view(np.uint8)]
    element = of(dtype)
    raw = readable(raw, element)
    planes = [np.empty(raw.size, np.uint8) for _ in range(element.nbytes)]
    if element.width == 16:
        kernels.rotate_split_16(raw, *planes)
    else:
        kernels.rotate_split_32(raw, *planes)
    return form_of(LAYOUT_BASE, element), planes


def decode_base(form: int, segments: Sequence[Any], out: Elements) -> None:
    """Fills `out` with the chunk's elements.

    `out` is uint16[n] or uint32[n]; for the raw form any contiguous array. segments: bytes-like or uint8
    arrays. Raises IntegrityError if they do not fill `out` exactly.
    """
    layout, element = parse_form(form)
    planes = [segment_bytes(segment) for segment in segments]
    if layout == LAYOUT_RAW:
        if len(planes) != 1 or planes[0].size != out.nbytes:
            raise IntegrityError(
                f"a raw chunk must have one segment of {out.nbytes} bytes, not {[p.size for p in planes]}"
            )
        out.reshape(-1).view(np.uint8)[:] = planes[0]
        return
    if layout != LAYOUT_BASE or element is None:
        raise IntegrityError(f"storage form {form:#x} is not a form of a base chunk")
    if out.dtype != element.uint:
        raise IntegrityError(
            f"storage form {form:#x} holds {element.name}, not elements of {out.itemsize} bytes"
        )
    if [plane.size for plane in planes] != [out.size] * element.nbytes:
        raise IntegrityError(
            f"a base chunk of {out.size} elements cannot have planes of {[p.size for p in planes]} bytes"
        )
    if element.width == 16:
        high, low = planes
        kernels.rotate_join_16(high, low, out)
    else:
        p3, p2, p1, p0 = planes
        kernels.rotate_join_32(p3, p2, p1, p0, out)


def raw_chunk(form: int, segments: Sequence[Any]) -> memoryview:
    """The bytes of a base chunk's elements, little-endian; of the raw form without a copy.

    segments: bytes-like or uint8 arrays. Raises IntegrityError if they make no whole elements.
    """
    _, element = parse_form(form)
    sizes = [segment_bytes(segment).size for segment in segments]
    if element is None:
        if len(sizes) != 1:
            raise IntegrityError(f"raw elements must be in one segment, not in {len(sizes)}")
        return segment_bytes(segments[0]).data
    out = np.empty(sum(sizes) // element.nbytes, element.uint)
    decode_base(form, segments, out)
    return out.view(np.uint8).data
