"""Where a kernel's machine code comes from, and that code which is damaged, stale or wrong is never used."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from persona.codec import base as base_codec
from persona.codec.native import (
    Kernel,
    Kernels,
    code_files,
    compiler,
    key,
    link,
    processor,
    watch,
    watch_compilation,
)
from persona.errors import SystemFault
from tests.codec.native.conftest import Places

MODULE, GOLDEN = "persona.codec.kernels", "persona.codec.golden"
KINDS = ("H1", "B1", "B1")
"""Those of `rotate_split_16`, which takes a tenth of a second to compile."""


def planes(kernel: Kernel) -> list[list[int]]:
    values = np.arange(1000, dtype=np.uint16) * np.uint16(61)
    high, low = np.empty(1000, np.uint8), np.empty(1000, np.uint8)
    kernel(values, high, low)
    return [high.tolist(), low.tolist()]


def expected() -> list[list[int]]:
    values = [n * 61 % 65536 for n in range(1000)]
    rotated = [(v << 1 | v >> 15) & 0xFFFF for v in values]
    return [[v >> 8 for v in rotated], [v & 0xFF for v in rotated]]


def fresh() -> Kernel:
    """The kernel as another process would see it."""
    return Kernels(MODULE, golden=GOLDEN).rotate_split_16


def names(target: processor.Target, kernel: str = "rotate_split_16", kinds: Any = KINDS) -> tuple[str, str]:
    return key.names(MODULE, kernel, kinds, target)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What is heard of compiling."""
    heard: list[str] = []
    with watch_compilation(heard.append):
        yield heard


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The symbols of all code that is linked."""
    symbols: list[str] = []
    real = link.address_of

    def address_of(code: bytes, symbol: str) -> int | None:
        symbols.append(symbol)
        return real(code, symbol)

    monkeypatch.setattr(link, "address_of", address_of)
    return symbols


@pytest.fixture
def level(monkeypatch: pytest.MonkeyPatch) -> processor.Target:
    """A level that every processor has: one process compiles for one target only, so it is the host's."""
    host = processor.host()
    found = processor.Target("level", host.cpu, host.features + ",", host.needs, host.compress)
    monkeypatch.setattr(processor, "level", lambda: found)
    monkeypatch.setattr(processor, "levels", lambda: (found,))
    return found


def ship(level: processor.Target, places: Places) -> Path:
    """What a build puts into the package."""
    file, symbol = names(level)
    code = compiler.compile_for(processor.host(), MODULE, "rotate_split_16", KINDS, symbol)
    written = code_files.write(file, code, [places.shipped / level.name])
    assert written is not None
    return written


def test_the_first_call_compiles_and_says_so_and_the_second_does_neither(
    places: Places, told: list[str]
) -> None:
    assert planes(fresh()) == expected()
    assert planes(fresh()) == expected()
    assert told == [watch.COMPILING]
    assert len(list(places.cache.iterdir())) == 1


def test_shipped_code_is_used_and_nothing_is_compiled_or_written(
    places: Places, level: processor.Target, told: list[str]
) -> None:
    ship(level, places)
    assert planes(fresh()) == expected()
    assert not told
    assert not places.cache.exists()


def test_code_for_this_very_processor_replaces_the_shipped_code(
    places: Places, level: processor.Target, told: list[str], linked: list[str]
) -> None:
    ship(level, places)
    assert fresh().warm_up(KINDS)
    assert not fresh().warm_up(KINDS)
    linked.clear()
    assert planes(fresh()) == expected()
    assert linked == [names(processor.host())[1]]
    assert len(told) == 1


DAMAGE = {
    "a bit of the digest": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit of the code": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "the last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "half of it": lambda data: data[: len(data) // 2],
    "less than a digest": lambda data: data[:20],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_shipped_code_is_not_linked_but_compiled(
    places: Places, level: processor.Target, told: list[str], linked: list[str], damage: Any
) -> None:
    path = ship(level, places)
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    assert planes(fresh()) == expected()
    assert (len(told), linked) == (1, [names(processor.host())[1]])
    assert path.read_bytes() == damaged  # what was installed is not touched


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_cached_code_is_not_linked_but_replaced(
    places: Places, told: list[str], linked: list[str], damage: Any
) -> None:
    planes(fresh())
    (path,) = places.cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert planes(fresh()) == expected()
    assert (len(told), len(linked)) == (2, 2)  # once each that was compiled, none that was damaged
    assert path.read_bytes() == whole
    assert planes(fresh()) == expected()
    assert (len(told), len(linked)) == (2, 3)


def wrong_code(symbol: str) -> bytes:
    """Whole, undamaged code of another kernel, which takes the same arguments: it leaves `low` as it was."""
    return compiler.compile_for(
        processor.host(), "tests.codec.native.wrong_kernels", "rotate_split_16", KINDS, symbol
    )


def test_shipped_code_that_computes_other_bits_is_not_used(
    places: Places, level: processor.Target, told: list[str]
) -> None:
    file, symbol = names(level)
    code_files.write(file, wrong_code(symbol), [places.shipped / level.name])
    assert planes(fresh()) == expected()
    assert len(told) == 1


def test_cached_code_that_computes_other_bits_is_replaced(places: Places, told: list[str]) -> None:
    file, symbol = names(processor.host())
    code_files.write(file, wrong_code(symbol), [places.cache])
    assert planes(fresh()) == expected()
    assert len(told) == 1
    assert planes(fresh()) == expected()
    assert len(told) == 1


def test_code_without_the_function_that_is_asked_for_is_replaced(places: Places, told: list[str]) -> None:
    file, _ = names(processor.host())
    code_files.write(file, wrong_code("another_symbol"), [places.cache])
    assert planes(fresh()) == expected()
    assert len(told) == 1


def test_a_file_under_the_name_of_another_is_not_linked(
    places: Places, told: list[str], linked: list[str]
) -> None:
    planes(Kernels(MODULE, golden=GOLDEN).rotate_split_16)
    (path,) = places.cache.iterdir()
    path.rename(places.cache / names(processor.host(), "rotate_join_16", ("B1", "B1", "H1"))[0])
    out = np.empty(1, np.uint16)
    Kernels(MODULE, golden=GOLDEN).rotate_join_16(np.array([1], np.uint8), np.array([2], np.uint8), out)
    assert out.tolist() == [129]
    assert (len(told), len(linked)) == (2, 2)  # once each that was compiled


def test_code_of_another_version_of_the_sources_is_not_used(
    places: Places, level: processor.Target, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(level, places)
    planes(fresh())
    monkeypatch.setattr(key, "sources", lambda module: b"another version")
    assert planes(fresh()) == expected()
    assert len(told) == 1


def test_a_compiler_that_computes_other_bits_is_refused(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compiler.compile_for
    monkeypatch.setattr(
        compiler,
        "compile_for",
        lambda target, module, kernel, kinds, symbol: real(
            target, "tests.codec.native.wrong_kernels", kernel, kinds, symbol
        ),
    )
    with pytest.raises(SystemFault, match="the compiled kernel rotate_split_16 computes other bits"):
        planes(fresh())
    assert not list(places.cache.iterdir())


def test_a_kernel_that_does_not_stand_alone_runs_through_numba(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "compile_for", lambda *_: b"")
    assert planes(fresh()) == expected()
    assert not list(places.cache.iterdir())


def test_a_kernel_without_a_golden_case_is_not_called(places: Places) -> None:
    values = np.zeros(4, np.uint32)
    with pytest.raises(SystemFault, match=r"rotate_split_16\(I1, B1, B1\) has no golden case"):
        fresh()(values, np.empty(4, np.uint8), np.empty(4, np.uint8))


def test_code_that_cannot_be_kept_is_run_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(code_files, "cached_in", lambda: [tmp_path / "file" / "code"])
    with caplog.at_level(logging.WARNING):
        assert planes(fresh()) == expected()
        assert planes(fresh()) == expected()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"persona: {watch.COMPILING}",
        f"persona: compiled kernels cannot be kept in {tmp_path / 'file' / 'code'}, so every process compiles"
        " them again",
    ]


def test_python_is_told_once_that_kernels_are_compiled_unless_somebody_watches(
    places: Places, caplog: pytest.LogCaptureFixture, told: list[str]
) -> None:
    planes(fresh())
    assert told
    assert not caplog.records


SEPARATE = """
import pathlib, sys
from persona.codec.native import code_files, watch_compilation, compiler
code_files.cached_in = lambda: [pathlib.Path(sys.argv[1])]
code_files.SHIPPED = pathlib.Path(sys.argv[1]) / "none"
real = compiler.compile_for
def compile_for(*arguments):
    print("compiled", flush=True)
    return real(*arguments)
compiler.compile_for = compile_for
import numpy as np
from persona.codec.base import encode_base
print(encode_base(np.array([0x3F80], np.uint16), "BF16")[1][0], "numba" in sys.modules)
"""


def separate(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Another process that encodes 1.0 with an empty cache."""
    command = [sys.executable, "-c", SEPARATE, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


def test_two_processes_compile_once(tmp_path: Path) -> None:
    both = [separate(tmp_path) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert all("[127]" in text for text in printed)
    assert "".join(printed).count("compiled") == 1


def test_a_second_process_imports_no_numba(tmp_path: Path) -> None:
    assert separate(tmp_path).communicate()[0].split() == ["compiled", "[127]", "True"]
    assert separate(tmp_path).communicate()[0].split() == ["[127]", "False"]


def test_numba_that_is_told_not_to_compile_compiles_kernels(tmp_path: Path) -> None:
    assert separate(tmp_path, NUMBA_DISABLE_JIT="1").communicate()[0].split() == ["compiled", "[127]", "True"]
    assert len(list(tmp_path.iterdir())) == 1


def test_arrays_that_are_not_contiguous_are_refused() -> None:
    values, plane = np.zeros(20, np.uint16), np.empty(10, np.uint8)
    with pytest.raises(ValueError, match="C-contiguous"):
        base_codec.kernels.rotate_split_16(values[::2], plane, plane.copy())


def test_a_folder_that_cannot_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(40))

    def refuse(*_: object, **__: object) -> bytes:
        raise SystemFault("no")

    monkeypatch.setattr(code_files.files, "read_file", refuse)
    assert code_files.read("x", [tmp_path]) is None


def test_code_that_anybody_may_write_is_replaced_by_code_that_they_may_not(
    places: Places, told: list[str]
) -> None:
    planes(fresh())
    (path,) = places.cache.iterdir()
    path.chmod(0o646)
    assert planes(fresh()) == expected()
    assert planes(fresh()) == expected()
    assert len(told) == 2


def test_code_of_somebody_else_is_not_run(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    planes(fresh())
    (path,) = places.cache.iterdir()
    real = os.stat

    def owned(of: Any, **options: Any) -> Any:
        found = real(of, **options)
        return SimpleNamespace(st_uid=4711, st_mode=found.st_mode) if of == path else found

    monkeypatch.setattr(code_files.os, "stat", owned)
    assert code_files.read(path.name, [places.cache]) is None
    monkeypatch.undo()
