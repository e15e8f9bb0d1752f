"""**tensor spec** — the name, safetensors dtype and shape of a tensor.

**chunk** — a fixed run of one tensor's elements: the unit of storage, hashing and streaming.

Tensors of dtype BF16, F16 and F32 are merged; all others are copied from the base. A dtype that is narrower
than a byte is counted in bytes. A scalar has one element. An empty tensor has no chunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from math import prod
from typing import Any

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.limits import MAX_ELEMENTS, MAX_RANK, MAX_TENSORS
from persona.objects.dtypes import DTYPES, uint
from persona.objects.names import check_tensor_name


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its numbers: name, safetensors dtype string, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the raw little-endian elements."""
        return (self.elements * DTYPES[self.dtype].bits + 7) // 8

    @property
    def merged(self) -> bool:
        """Whether recipes change tensors of this dtype at all."""
        return DTYPES[self.dtype].merged

    @cached_property
    def unit(self) -> int:
        """Bytes of one storage element: the element, or one byte for dtypes narrower than that."""
        return max(1, DTYPES[self.dtype].bits // 8)

    @property
    def bits_dtype(self) -> str:
        """numpy's name of the integers that storage elements are handled as.

        They are as wide as an element if the tensor is merged, else bytes.
        """
        return uint(self.unit if self.merged else 1)

    @cached_property
    def units(self) -> int:
        """The number of storage elements."""
        return self.nbytes // self.unit


def chunk_count(spec: TensorSpec, chunk_elements: int) -> int:
    """How many chunks a tensor has; 0 when it is empty."""
    return -(-spec.units // chunk_elements)


def chunk_span(spec: TensorSpec, index: int, chunk_elements: int) -> tuple[int, int]:
    """The storage elements [start, stop) of chunk `index`; the last chunk may be shorter."""
    start = index * chunk_elements
    return start, min(start + chunk_elements, spec.units)


def check_spec(spec: TensorSpec) -> TensorSpec:
    """`spec`, or `InvalidInput` when its name, dtype or shape cannot be."""
    check_tensor_name(spec.name)
    if spec.dtype not in DTYPES:
        raise InvalidInput(f"tensor {spec.name}: unknown dtype {spec.dtype!r:.40}")
    if len(spec.shape) > MAX_RANK:
        raise InvalidInput(f"tensor {spec.name}: {len(spec.shape)} dimensions, more than {MAX_RANK}")
    elements = 1
    for dimension in spec.shape:
        if type(dimension) is not int or not 0 <= dimension < MAX_ELEMENTS:
            raise InvalidInput(f"tensor {spec.name}: impossible dimension {dimension!r:.40}")
        elements *= dimension
        if elements >= MAX_ELEMENTS:
            raise InvalidInput(f"tensor {spec.name}: more than 2^53 elements")
    if elements * DTYPES[spec.dtype].bits % 8:
        raise InvalidInput(f"tensor {spec.name}: {elements} elements of {spec.dtype} do not fill whole bytes")
    return spec


def sort_key(name: str) -> bytes:
    """Tensors are ordered by the UTF-8 bytes of their names."""
    return name.encode()


def specs_to_json(specs: Iterable[TensorSpec]) -> list[list[Any]]:
    """Canonical form of a manifest's tensors: [[name, dtype, [dimension, …]], …]."""
    return [[spec.name, spec.dtype, list(spec.shape)] for spec in specs]


def specs_from_json(value: Any, where: str) -> tuple[TensorSpec, ...]:
    """The tensors of a manifest, in strictly rising byte order of names; `IntegrityError` otherwise."""
    if type(value) is not list or len(value) > MAX_TENSORS:
        raise IntegrityError(f"{where}: the tensors must be a list of at most {MAX_TENSORS}")
    specs: list[TensorSpec] = []
    last = b""
    for item in value:
        if type(item) is not list or len(item) != 3 or type(item[2]) is not list:
            raise IntegrityError(f"{where}: a tensor is not [name, dtype, shape]")
        name, dtype, shape = item
        if type(name) is not str or type(dtype) is not str:
            raise IntegrityError(f"{where}: a tensor is not [name, dtype, shape]")
        try:
            spec = check_spec(TensorSpec(name, dtype, tuple(shape)))
        except InvalidInput as error:
            raise IntegrityError(f"{where}: {error.message}") from None
        key = name.encode()
        if key <= last:
            raise IntegrityError(
                f"{where}: the tensors must be in ascending byte order of names; {name} is out of place"
            )
        last = key
        specs.append(spec)
    return tuple(specs)
