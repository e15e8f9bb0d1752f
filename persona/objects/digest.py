"""**weights digest** — BLAKE3 of materialised tensors, the same on every machine and device.

For each tensor in byte order of names: u64-le length of the name, the name in UTF-8, u64-le length of the
safetensors dtype string, the string, u64-le rank, each dimension u64-le, then the 32-byte BLAKE3-256 of its
raw little-endian bytes. The digest is BLAKE3-256 of all that (docs/numerics.md). It does not depend on
sharding, file names or metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from blake3 import blake3

from persona.errors import IntegrityError
from persona.objects.ids import is_id

PREFIX: Final = "blake3:"


def weights_digest(items: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """The digest of tensors given as (name, safetensors dtype, shape, BLAKE3-256 of the raw bytes), in any
    order.
    """
    hasher = blake3()
    encoded = sorted((name.encode(), dtype.encode(), shape, digest) for name, dtype, shape, digest in items)
    for name, dtype, shape, digest in encoded:
        fields = [len(name).to_bytes(8, "little"), name, len(dtype).to_bytes(8, "little"), dtype]
        fields.append(len(shape).to_bytes(8, "little"))
        fields.extend(dimension.to_bytes(8, "little") for dimension in shape)
        fields.append(digest)
        hasher.update(b"".join(fields))
    return PREFIX + hasher.hexdigest()


def require_digest(value: object, where: str) -> str:
    """`value` as a printed digest; raises `IntegrityError` that says `where` otherwise."""
    if not isinstance(value, str) or not value.startswith(PREFIX) or not is_id(value[len(PREFIX) :]):
        raise IntegrityError(f"{where} is not a weights digest: {value!r:.80}")
    return value
