"""The width of the vectors that the kernels compute with. They depend on it, so it stands alone."""

from __future__ import annotations

from typing import Final

VECTOR_BYTES: Final = 64
"""Bytes of the vectors that the kernels work on (`persona.codec.simd`)."""
