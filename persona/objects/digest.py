"""**weights digest** — the BLAKE3 of materialised tensors, the same on every machine and device.

**hash block** — 4 MiB of a tensor's raw little-endian bytes; the last block may be shorter.
**tensor digest** — the BLAKE3-256 of the 32-byte BLAKE3-256s of a tensor's blocks, in order. So many threads
can hash one tensor. An empty tensor has no block, and the digest of nothing.

For each tensor in byte order of names the weights digest covers: u64-le length of the name, the name in
UTF-8; u64-le length of the safetensors dtype string, the string; u64-le rank, each dimension u64-le; the
tensor digest. The weights digest is the BLAKE3-256 of all that (docs/numerics.md). It does not depend on
shards, file names or metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from persona.errors import IntegrityError
from persona.limits import MIB
from persona.objects.ids import is_id

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PREFIX: Final = "blake3:"
BLOCK_BYTES: Final = 4 * MIB
"""Bytes of one block."""


def block_spans(nbytes: int) -> list[tuple[int, int]]:
    """The bytes [start, stop) of each block of a tensor of `nbytes` bytes."""
    return [(start, min(start + BLOCK_BYTES, nbytes)) for start in range(0, nbytes, BLOCK_BYTES)]


def block_digest(data: ReadableBuffer) -> bytes:
    """The 32-byte BLAKE3-256 of the bytes of one block."""
    return blake3(data).digest()


def tensor_digest(blocks: Iterable[bytes]) -> bytes:
    """The digest of a tensor, 32 bytes. `blocks`: the digests of its blocks, in order."""
    return blake3(b"".join(blocks)).digest()


def weights_digest(items: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """The weights digest of tensors, given in any order.

    A tensor is (name, safetensors dtype, shape, tensor digest).
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
