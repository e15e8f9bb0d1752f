"""**weights digest** — the BLAKE3 of materialised tensors, the same on every machine and device.

For each tensor in byte order of names it covers: u64-le length of the name, the name in UTF-8; u64-le length
of the safetensors dtype string, the string; u64-le rank, each dimension u64-le; the 32-byte BLAKE3-256 of the
tensor's raw little-endian bytes. The digest is the BLAKE3-256 of all that (docs/numerics.md). It does not
depend on shards, file names or metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from blake3 import blake3

from persona.errors import IntegrityError
from persona.objects.ids import is_id

PREFIX: Final = "blake3:"


def weights_digest(items: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """The weights digest of tensors, given in any order.

    A tensor is (name, safetensors dtype, shape, BLAKE3-256 of the raw bytes).
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
    """`value` as a printed digest; raises `IntegrityError` that names `where`."""
    if not isinstance(value, str) or not value.startswith(PREFIX) or not is_id(value[len(PREFIX) :]):
        raise IntegrityError(f"{where}: {value!r:.80} is not a weights digest")
    return value
