"""A safetensors header is believed only when all of it holds together."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona import limits
from persona.errors import InvalidInput, PersonaError
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec
from persona.weights.inputs import InputFile
from persona.weights.safetensors import encode_header, read_header
from tests.checkpoints import file_of
from tests.weights.crafted import entry

BIG = 10**15
ONE = '"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'
DUPLICATE = f"{{{ONE},{ONE}}}"
ESCAPED_DUPLICATE = DUPLICATE.replace('"a":', r'"\u0061":', 1)

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a safetensors file"),
    "seven bytes": (b"\x02" + bytes(6), "not a safetensors file"),
    "a length and nothing more": (struct.pack("<Q", 2), "not a safetensors file"),
    "no JSON": (struct.pack("<Q", 4) + b"nope" + bytes(9), "not a safetensors file"),
    "JSON that is no object": (file_of("[]", b"12"), "not a safetensors file"),
    "white space before the object": (file_of(" {}"), "not a safetensors file"),
    "a length beyond the file": (struct.pack("<Q", 99) + b"{}", "ends after 10"),
    "a length over the cap": (struct.pack("<Q", 100_000_001) + b"{}", "over the format's limit"),
    "the largest length": (struct.pack("<Q", 2**64 - 1) + b"{}", "over the format's limit"),
    "cut JSON": (file_of('{"a":{"dtype":"U8","sha'), "malformed"),
    "not UTF-8": (file_of(b'{"\xff":1}'), "not UTF-8"),
    "a lone surrogate in a name": (
        file_of(r'{"\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"12"),
        "escape",
    ),
    "a lone surrogate in the metadata": (file_of(r'{"__metadata__":{"a":"\udfff"}}'), "escape"),
    "text after the object": (file_of("{} {}"), "after the end"),
    "NULs after the object": (file_of("{}\0\0"), "after the end"),
    "a duplicate key": (file_of(DUPLICATE, b"12"), "'a' occurs twice"),
    "a duplicate key in other letters": (file_of(ESCAPED_DUPLICATE, b"12"), "'a' occurs twice"),
    "a duplicate field": (
        file_of('{"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}}', b"12"),
        "twice",
    ),
    "duplicate metadata": (file_of('{"__metadata__":{"a":"1","a":"2"}}'), "twice"),
    "metadata that is no text": (file_of('{"__metadata__":{"a":1}}'), "string expected"),
    "metadata that is null": (file_of('{"__metadata__":null}'), "'{' expected"),
    "an entry that is no object": (file_of('{"a":[]}'), "'{' expected"),
    "an unknown field": (file_of({"a": entry() | {"x": 1}}, b"12"), "'a' has the unknown field 'x'"),
    "no shape": (file_of('{"a":{"dtype":"U8","data_offsets":[0,2]}}', b"12"), "'a' lacks"),
    "one offset": (file_of('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0]}}', b"12"), "'a' lacks"),
    "three offsets": (
        file_of('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2,3]}}', b"12"),
        "more than 2",
    ),
    "an unknown dtype": (file_of({"a": entry("Q4")}, b"12"), "'a' has the unknown dtype 'Q4'"),
    "a float as dimension": (
        file_of('{"a":{"dtype":"U8","shape":[2.0],"data_offsets":[0,2]}}', b"12"),
        "integer",
    ),
    "true as dimension": (
        file_of('{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,2]}}', b"12"),
        "integer",
    ),
    "NaN as dimension": (
        file_of('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}', b"12"),
        "integer",
    ),
    "a negative dimension": (file_of({"a": entry(shape=[-2])}, b"12"), "integer"),
    "a number of 5,000 digits": (file_of('{"a":{"dtype":"U8","shape":[' + "9" * 5000 + "]}}"), "integer"),
    "65 dimensions": (file_of({"a": entry(shape=[1] * 64 + [2])}, b"12"), "more than 64"),
    "an absurd shape": (file_of({"a": entry(shape=[BIG, BIG])}, b"12"), "'a' has the impossible shape"),
    "a product that wraps to two": (file_of({"a": entry(shape=[2**63, 2, 2])}, b"12"), "impossible shape"),
    "an absurd shape that a zero hides": (
        file_of({"a": entry(shape=[BIG, BIG, 0], end=0)}),
        "impossible shape",
    ),
    "a dimension that a zero hides": (file_of({"a": entry(shape=[0, 2**60], end=0)}), "impossible shape"),
    "half a byte": (file_of({"a": entry("F4", [3], 0, 1)}, b"1"), "whole bytes"),
    "a span too short": (file_of({"a": entry(shape=[3])}, b"12"), "'a', U8 .3., needs 3 bytes"),
    "a span too long": (file_of({"a": entry(shape=[1])}, b"12"), "'a', U8 .1., needs 1 bytes"),
    "a span that runs backwards": (file_of({"a": entry(begin=2, end=0)}, b"12"), "needs 2 bytes"),
    "a petabyte that is not there": (
        file_of({"a": entry(shape=[BIG], end=BIG)}, b"12"),
        "before its last tensor 'a'",
    ),
    "an overlap": (file_of({"a": entry(), "b": entry(begin=1, end=3)}, b"123"), "'b' overlaps"),
    "two tensors in one place": (file_of({"a": entry(), "b": entry()}, b"12"), "'b' overlaps"),
    "a hole at the start": (file_of({"a": entry(begin=1, end=3)}, b"123"), "'a' leaves a hole of 1"),
    "a hole between": (
        file_of({"a": entry(), "b": entry(begin=3, end=5)}, b"12345"),
        "'b' leaves a hole of 1",
    ),
    "data cut by one byte": (file_of({"a": entry()}, b"1"), "ends 1 bytes before"),
    "one byte too many": (file_of({"a": entry()}, b"123"), "1 bytes follow"),
    "data that no tensor claims": (file_of("{}", b"123"), "3 bytes follow"),
    "a name that leaves its directory": (file_of({"../../x": entry()}, b"12"), "cannot name a tensor"),
    "an absolute name": (file_of({"/etc/x": entry()}, b"12"), "cannot name a tensor"),
    "a NUL in a name": (file_of({"a\0b": entry()}, b"12"), "cannot name a tensor"),
    "an empty name": (file_of({"": entry()}, b"12"), "cannot name a tensor"),
    "a name of 5,000 letters": (file_of({"n" * 5000: entry()}, b"12"), "cannot name a tensor"),
    "deep nesting": (file_of('{"a":' + "[" * 20_000), "'{' expected"),
    "a million empty lists": (file_of('{"a":[' + "[]," * 1_000_000 + "[]]}"), "'{' expected"),
    "a million dimensions": (
        file_of('{"a":{"shape":[' + "1," * 1_000_000 + '1],"dtype":"U8","data_offsets":[0,1]}}'),
        "more than 64",
    ),
}


@pytest.mark.parametrize("label", BAD_FILES)
def test_a_bad_file_is_refused_with_a_sentence_that_names_it(label: str, tmp_path: Path) -> None:
    data, problem = BAD_FILES[label]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=problem) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 1000 + len(str(path))


@pytest.mark.parametrize("label", BAD_FILES)
def test_a_bad_file_makes_nobody_allocate_more_than_a_few_times_its_size(label: str, tmp_path: Path) -> None:
    data, _ = BAD_FILES[label]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(data) + 200_000


def test_a_header_of_a_hundred_megabytes_of_nothing_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", limits.MAX_SAFETENSORS_HEADER_BYTES))
        file.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="not a safetensors file"):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("absent")
    for name in ("fifo", "link", "loop", "nowhere", "absent", "."):
        with pytest.raises(InvalidInput):
            read_header(tmp_path / name)
    with pytest.raises(InvalidInput):
        read_header(Path("/dev/zero"))
    with pytest.raises(InvalidInput):
        read_header(tmp_path / "a\0b")


def test_the_usual_and_the_unusual_spelling_of_an_entry_read_alike(tmp_path: Path) -> None:
    usual = (
        '{"a.b":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},'
        '"s":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}'
    )
    unusual = (
        '{"s" : {"data_offsets": [ 12 , 16 ], "shape": [ ],\n"dtype": "F32"},\t'
        r'"a\u002eb":{"shape":[2,3],"dtype":"BF16","data_offsets":[0,12]}}   '
    )
    (tmp_path / "usual").write_bytes(file_of(usual.ljust(160), bytes(16)))
    (tmp_path / "unusual").write_bytes(file_of(unusual.ljust(160), bytes(16)))
    first, second = read_header(tmp_path / "usual"), read_header(tmp_path / "unusual")
    assert first == second
    assert list(first.tensors) == ["a.b", "s"]
    assert first.tensors["s"].spec == TensorSpec("s", "F32", ())
    assert (first.tensors["s"].offset, first.tensors["s"].nbytes) == (8 + 160 + 12, 4)


TORCH_DTYPES = [
    getattr(torch, name)
    for name in (
        "uint8 int8 int16 uint16 float16 bfloat16 int32 uint32 float32 complex64 float64 int64 uint64 "
        "float8_e4m3fn float8_e5m2"
    ).split()
]


def test_a_written_file_is_the_one_that_the_safetensors_package_writes(tmp_path: Path) -> None:
    tensors = {
        f"layer.{i}.ü": torch.arange(48, dtype=torch.uint8).view(dtype)
        for i, dtype in enumerate(TORCH_DTYPES)
    }
    tensors |= {
        "flag": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
    }
    metadata = {"förmat": 'ä "quoted" \\ \n'}
    theirs = safetensors.torch.save(tensors, metadata)
    (tmp_path / "theirs").write_bytes(theirs)
    header = read_header(tmp_path / "theirs")
    assert header.metadata == metadata
    ours, entries = encode_header(
        [entry.spec for entry in reversed(header.tensors.values())], header.metadata
    )
    assert ours == theirs[: len(ours)]
    assert len(ours) % 8 == 0
    assert entries == header.tensors


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\."), min_size=1, max_size=12
).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 5).map(lambda n: 2 * n), max_size=4).map(tuple)


@given(
    st.dictionaries(names, st.tuples(st.sampled_from(sorted(DTYPES)), shapes), max_size=8),
    st.dictionaries(names, names),
)
def test_any_header_written_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: dict[str, tuple[str, tuple[int, ...]]],
    metadata: dict[str, str],
) -> None:
    specs = [
        TensorSpec(name, dtype, (*shape, 4)) for name, (dtype, shape) in tensors.items()
    ]  # the 4 makes whole bytes of every dtype
    header, entries = encode_header(specs, metadata)
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(header + bytes(sum(spec.nbytes for spec in specs)))
    found = read_header(path)
    assert found.tensors == entries
    assert found.metadata == metadata


VALID = file_of(
    {
        "__metadata__": {"format": "pt"},
        "a": entry(),
        "model.b": entry("BF16", [1, 2], 2, 6),
        "s": entry("F32", [], 6, 10),
    },
    bytes(10),
)


@given(st.data())
def test_no_damage_to_a_header_raises_anything_but_our_own_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if how == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del damaged[at : at + data.draw(st.integers(1, 20))]
        elif how == "insert":
            damaged[at:at] = data.draw(
                st.binary(max_size=20) | st.sampled_from([b'"', b"{", b"}", b"[", b",", b"\\u", b"9" * 30])
            )
        else:
            damaged[at:at] = damaged[at : at + 40]
        if not damaged:
            break
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(damaged)
    try:
        header = read_header(path)
    except PersonaError:
        return
    assert sum(entry.nbytes for entry in header.tensors.values()) < len(damaged)


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_anything_but_our_own_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "file"
    for noise in (data, file_of(b"{" + data), file_of(b'{"a":{"dtype":"U8","shape":[' + data)):
        path.write_bytes(noise)
        try:
            header = read_header(path)
        except InvalidInput:
            continue
        assert noise == file_of(b"{" + data)  # {} and white space are a file without tensors
        assert not header.tensors
        assert not data.strip(b" \t\r\n}")


def test_a_tensor_given_twice_and_a_header_too_long_are_not_written() -> None:
    with pytest.raises(InvalidInput, match="'a' occurs twice"):
        encode_header([TensorSpec("a", "U8", (1,)), TensorSpec("a", "U8", (1,))])
    many = [TensorSpec(f"{i:04000}", "U8", (1,)) for i in range(25_000)]
    with pytest.raises(InvalidInput, match=r"hint: write smaller files: a smaller max_shard_size"):
        encode_header(many)


def test_a_file_cut_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with InputFile(path) as file:
        path.write_bytes(bytes(50))
        with pytest.raises(InvalidInput, match="changed while it was read"):
            file.read_into(0, bytearray(100))


def test_metadata_without_end_is_refused_early(tmp_path: Path) -> None:
    entries = b",".join(b'"%d":""' % number for number in range(2_000_000))
    path = tmp_path / "file"
    path.write_bytes(file_of(b'{"__metadata__":{' + entries + b"}}"))
    with pytest.raises(InvalidInput, match="more than 16777216 characters"):
        read_header(path)
