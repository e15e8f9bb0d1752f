"""The safetensors format: a header read without trust, and written as the safetensors package writes it.

A file has the header's length n (u64, little-endian), n bytes of JSON (name → dtype, shape, data_offsets; and
`__metadata__`, string → string), then the tensors' raw little-endian bytes. A header is accepted only if its
length fits the file and the limit, no key occurs twice, names are valid, every shape agrees with its span,
and the spans cover the rest of the file without holes or overlaps. The safetensors package is not used,
because it accepts duplicate keys and any name.

Sources: https://github.com/huggingface/safetensors (README, "Format"; `src/tensor.rs` for order and
alignment).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from persona import limits
from persona.errors import InvalidInput, Keyword
from persona.frozen import dataclass
from persona.objects.dtypes import DTYPES
from persona.objects.names import check_tensor_name
from persona.objects.tensors import TensorSpec
from persona.weights import foreign
from persona.weights.inputs import InputFile
from persona.weights.scan import Scan, shorten

_ALIGNMENT = 8  # alignment of the first tensor, as in the package
_USUAL_ENTRY = re.compile(
    r'\{"dtype":"(\w{1,16})","shape":\[((?:(?:0|[1-9]\d{0,15}),){0,8}(?:0|[1-9]\d{0,15}))\],'
    r'"data_offsets":\[(0|[1-9]\d{0,17}),(0|[1-9]\d{0,17})\]\}',
    re.ASCII,
)
_DTYPE_ORDER = (
    "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ "
    "I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64"
).split()


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor in a file: `offset` is the absolute byte of its start, `nbytes` its length."""

    spec: TensorSpec
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: tensors by name, in file order, and the metadata verbatim."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_header(path: Path | InputFile) -> Header:
    """The checked header of the safetensors file `path` (symbolic links are followed to a regular file).

    Raises InvalidInput, naming file and tensor, for anything that is not exactly a safetensors file; nothing
    is allocated on the word of the file but its header, which must be there and within the cap.
    """
    if isinstance(path, InputFile):
        return _read_header(path)
    with InputFile(path) as file:
        return _read_header(file)


def encode_header(
    specs: Iterable[TensorSpec], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, TensorEntry]]:
    """The first bytes of a file of these tensors, and the position of each tensor, in file order.

    Tensors lie in the order of the safetensors package (wider dtypes first, then by name). So the file equals
    that of `safetensors.torch.save_file` byte for byte, except for the order of several metadata keys, which
    that package leaves to chance. `metadata` defaults to `{"format": "pt"}`.
    """
    ordered = [(spec, spec.nbytes) for spec in sorted(specs, key=_file_order)]
    entries: dict[str, object] = {}
    metadata = {"format": "pt"} if metadata is None else metadata
    if metadata:
        entries["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    for spec, nbytes in ordered:
        if spec.name in entries:
            raise InvalidInput(
                f"the tensor {shorten(spec.name)} occurs twice in one file; give each tensor once"
            )
        span = (offset, offset + nbytes)
        entries[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": span}
        offset += nbytes
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > limits.MAX_SAFETENSORS_HEADER_BYTES:
        raise InvalidInput(
            f"{len(ordered)} tensors need a header of {len(text)} bytes, more than safetensors allows "
            f"({limits.MAX_SAFETENSORS_HEADER_BYTES})",
            hint=("write smaller files: a smaller ", Keyword("max_shard_size")),
        )
    placed: dict[str, TensorEntry] = {}
    offset = 8 + len(text)
    for spec, nbytes in ordered:
        placed[spec.name] = TensorEntry(spec, offset, nbytes)
        offset += nbytes
    return len(text).to_bytes(8, "little") + text, placed


def _file_order(spec: TensorSpec) -> tuple[int, str]:
    known = spec.dtype in _DTYPE_ORDER
    return (-_DTYPE_ORDER.index(spec.dtype) if known else 1, spec.name)


def _read_header(file: InputFile) -> Header:
    where = str(file.path)
    start = file.read(0, 9)
    length = int.from_bytes(start[:8], "little")
    if (
        len(start) < 9
        or start[8:] != b"{"
        or length > limits.MAX_SAFETENSORS_HEADER_BYTES
        or length > file.size - 8
    ):
        raise InvalidInput(f"{where}: {_why_not(file, start, length)}")
    scan = Scan(file.read(8, length), f"{where}: the safetensors header")
    metadata: dict[str, str] = {}
    found: list[TensorEntry] = []
    for name in scan.members():
        if name == "__metadata__":
            metadata = scan.strings(limits.MAX_METADATA_BYTES)
            continue
        if len(found) >= limits.MAX_TENSORS:
            raise InvalidInput(f"{where}: more than {limits.MAX_TENSORS} tensors; split the file")
        try:
            check_tensor_name(name)
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {error}; rename that tensor and save the file again") from None
        found.append(_entry(scan, name, where, 8 + length))
    scan.end()
    found.sort(key=lambda entry: (entry.offset, entry.nbytes))
    _check_cover(found, where, 8 + length, file.size)
    return Header({entry.spec.name: entry for entry in found}, metadata)


def _why_not(file: InputFile, start: bytes, length: int) -> str:
    if start[8:] != b"{" or length > limits.MAX_SAFETENSORS_HEADER_BYTES:
        known = foreign.recognise(file.read(0, foreign.HEAD_BYTES))
        if known is not None:
            return f"this is {known.what}; {known.remedy}"
    if file.size < 9:
        return f"{file.size} bytes are not a safetensors file; save or download it again"
    if not any(start):
        return "the file begins with zeros, as a download that is not finished; download it again"
    if start[8:] != b"{":
        return (
            "this is not a safetensors file (its header is not a JSON object); give a safetensors checkpoint"
        )
    if length > limits.MAX_SAFETENSORS_HEADER_BYTES:
        return (
            f"a safetensors header of {length} bytes is over the format's limit of "
            f"{limits.MAX_SAFETENSORS_HEADER_BYTES}; the file is damaged or malicious"
        )
    return (
        f"the header should have {length} bytes but the file ends after {file.size}; "
        "download or save it again"
    )


def _entry(scan: Scan, name: str, where: str, data: int) -> TensorEntry:
    """The next tensor, with its span made absolute (`data`: the byte where the tensors begin)."""
    usual = _USUAL_ENTRY.match(scan.text, scan.position)
    if usual is not None:
        scan.position = usual.end()
        dtype, shape = usual[1], tuple(map(int, usual[2].split(",")))
        begin, end = int(usual[3]), int(usual[4])
    else:
        dtype, shape, begin, end = _fields(scan, name, where)
    tensor = f"{where}: the tensor {shorten(name)}"
    if dtype not in DTYPES:
        raise InvalidInput(f"{tensor} has the unknown dtype {shorten(dtype)}; convert it to BF16, F16 or F32")
    elements = 1
    for dimension in shape:
        elements *= dimension
        if elements >= limits.MAX_ELEMENTS or dimension >= limits.MAX_ELEMENTS:
            raise InvalidInput(
                f"{tensor} has the impossible shape {list(shape)}; the file is damaged or malicious"
            )
    nbytes, rest = divmod(elements * DTYPES[dtype].bits, 8)
    if rest:
        raise InvalidInput(
            f"{tensor} of {elements} {dtype} elements does not fill whole bytes; pad it and save again"
        )
    if end - begin != nbytes:
        raise InvalidInput(
            f"{tensor}, {dtype} {list(shape)}, needs {nbytes} bytes but its span [{begin}, {end}] has "
            f"{end - begin}; the file is damaged, so save or download it again"
        )
    return TensorEntry(TensorSpec(name, dtype, shape), data + begin, nbytes)


def _fields(scan: Scan, name: str, where: str) -> tuple[str, tuple[int, ...], int, int]:
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    span: tuple[int, ...] | None = None
    for field in scan.members():
        if field == "dtype":
            dtype = scan.string()
        elif field == "shape":
            shape = scan.integers(limits.MAX_RANK)
        elif field == "data_offsets":
            span = scan.integers(2)
        else:
            raise InvalidInput(
                f"{where}: the tensor {shorten(name)} has the unknown field {shorten(field)}; save the "
                "file again"
            )
    if dtype is None or shape is None or span is None or len(span) != 2:
        raise InvalidInput(
            f"{where}: the tensor {shorten(name)} lacks its dtype, shape or data_offsets; save the file again"
        )
    return dtype, shape, span[0], span[1]


def _check_cover(entries: list[TensorEntry], where: str, start: int, size: int) -> None:
    """The spans, in order, must cover the file from `start` to `size` exactly."""
    at = start
    for entry in entries:
        if entry.offset != at:
            fault = (
                "overlaps the one before it"
                if entry.offset < at
                else f"leaves a hole of {entry.offset - at} bytes"
            )
            raise InvalidInput(
                f"{where}: the tensor {shorten(entry.spec.name)} {fault}; the file is damaged or malicious"
            )
        at += entry.nbytes
    if at > size:
        last = shorten(entries[-1].spec.name)
        raise InvalidInput(
            f"{where}: the file ends {at - size} bytes before its last tensor {last} does; download or "
            "save it again"
        )
    if at < size:
        raise InvalidInput(
            f"{where}: {size - at} bytes follow the last tensor; the file is damaged or malicious"
        )
