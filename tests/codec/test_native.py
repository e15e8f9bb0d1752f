"""Machine code on disk: used without numba, refused when damaged, made again when it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from persona.codec import base as base_codec
from persona.codec import delta as delta_codec
from persona.codec import native
from persona.codec.elements import of
from persona.codec.native import Kernels, watch_compilation
from persona.errors import SystemFault
from persona.merge import cpu
from persona.merge.rules import MergeRules
from tests.codec.test_delta import round_trip

kernels = Kernels("persona.codec.kernels")
DEPENDS = ("persona.codec.elements", "persona.codec.vectors", "persona.merge.rules")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(native, "_folders", lambda: [tmp_path / "code"])
    return tmp_path / "code"


def planes(kernel: native.Kernel) -> list[list[int]]:
    values = np.arange(1000, dtype=np.uint16) * np.uint16(61)
    high, low = np.empty(1000, np.uint8), np.empty(1000, np.uint8)
    kernel(values, high, low)
    return [high.tolist(), low.tolist()]


def expected() -> list[list[int]]:
    values = [n * 61 % 65536 for n in range(1000)]
    rotated = [(v << 1 | v >> 15) & 0xFFFF for v in values]
    return [[v >> 8 for v in rotated], [v & 0xFF for v in rotated]]


def fresh() -> native.Kernel:
    """The kernel as another process would see it."""
    return Kernels("persona.codec.kernels").rotate_split_16


def test_a_first_call_compiles_and_says_so_and_a_second_does_neither(folder: Path) -> None:
    told: list[str] = []
    with watch_compilation(lambda: told.append("compiling")):
        assert planes(fresh()) == expected()
        assert planes(fresh()) == expected()
    assert told == ["compiling"]
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("at", [0, 40, -1])
def test_damaged_code_is_never_linked_but_made_again(folder: Path, at: int) -> None:
    planes(fresh())
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    path.write_bytes(damaged)
    assert planes(fresh()) == expected()
    healed = path.read_bytes()
    assert blake3(healed[32:]).digest() == healed[:32]


def test_code_that_cannot_be_kept_is_still_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(native, "_folders", lambda: [tmp_path / "file" / "code"])
    assert planes(fresh()) == expected()


@pytest.mark.parametrize(("dtype", "code"), [("BF16", cpu.BF16), ("F32", cpu.F32)])
def test_every_kernel_stands_alone(monkeypatch: pytest.MonkeyPatch, dtype: str, code: int) -> None:
    used: list[str] = []
    monkeypatch.setattr(native, "_variant", remembering(used, native._variant))
    for module in (base_codec, delta_codec, cpu):
        fresh_kernels = Kernels(module.__dict__.get("kernels", cpu._kernels)._module, *DEPENDS)
        monkeypatch.setattr(module, "_kernels" if module is cpu else "kernels", fresh_kernels)
    random = np.random.default_rng(5)
    uint = of(dtype).uint
    base = random.integers(0, 1 << 15, 5000).astype(uint)
    after = base + (random.geometric(0.02, 5000) * random.integers(0, 2, 5000)).astype(uint)
    round_trip(base, after, dtype)
    form, segments = base_codec.encode_base(base, dtype)
    base_codec.decode_base(form, segments, np.empty_like(base))
    z, order = np.ones((2, 5000), uint), np.arange(5000, dtype=np.uint32)
    theta, alpha, add = np.full(2, np.nan, np.float32), np.ones(2, np.float32), np.zeros(2, np.bool_)
    cpu.merge_chunk(base, z, order, base.copy(), theta, alpha, add, MergeRules(), code)
    cpu.sum_of_signs(base, z, theta, alpha, MergeRules(), code)
    cpu.count_high(base, z[0], code, np.zeros(1 << 16, np.int64))
    cpu.count_low(base, z[0], code, np.zeros(1 << 16, np.int32), np.zeros((1, 1 << 16), np.uint32))
    cpu.count_values(base, z[0], code)
    assert len(used) > 12
    assert not [name for name in used if name.endswith("through numba")]


def remembering(used: list[str], variant: Any) -> Any:
    def find(module: str, depends: tuple[str, ...], name: str, kinds: tuple[str, ...]) -> Any:
        found = variant(module, depends, name, kinds)
        used.append(name if found.__module__ == native.__name__ else f"{name} through numba")
        return found

    return find


def test_arrays_that_are_not_contiguous_are_refused() -> None:
    values, plane = np.zeros(20, np.uint16), np.empty(10, np.uint8)
    with pytest.raises(ValueError, match="C-contiguous"):
        kernels.rotate_split_16(values[::2], plane, plane.copy())


def test_a_second_process_imports_no_numba() -> None:
    script = (
        "import sys, numpy as np; from persona.codec.base import encode_base;"
        "encode_base(np.zeros(9, np.uint16), 'BF16'); print('numba' in sys.modules)"
    )
    base_codec.encode_base(np.zeros(9, np.uint16), "BF16")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_a_folder_that_cannot_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise SystemFault("no")

    monkeypatch.setattr(native.files, "read_file", refuse)
    assert native._read("x") is None


def test_another_numba_finds_other_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes(fresh())
    native._machine.cache_clear()
    monkeypatch.setattr(native, "_numba", lambda: "another")
    try:
        assert planes(fresh()) == expected()
    finally:
        native._machine.cache_clear()
    assert len(list(folder.iterdir())) == 2


def test_the_version_of_numba_is_known_without_importing_it() -> None:
    import numba

    assert numba.__version__ in native._numba()


def test_numba_that_is_told_not_to_compile_compiles_kernels(tmp_path: Path) -> None:
    script = (
        "import pathlib, numpy as np; from persona.codec import native;"
        "from persona.codec.base import encode_base;"
        f"native._folders = lambda: [pathlib.Path({str(tmp_path)!r})];"
        "print(encode_base(np.array([0x3F80], np.uint16), 'BF16')[1])"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "127" in done.stdout  # 0x7F, the upper byte of the rotated element
    assert len(list(tmp_path.iterdir())) == 1


def test_code_that_anybody_may_write_is_not_run(folder: Path) -> None:
    told: list[str] = []
    planes(fresh())
    (path,) = folder.iterdir()
    path.chmod(0o646)
    with watch_compilation(lambda: told.append("compiling")):
        assert planes(fresh()) == expected()
    assert told == ["compiling"]


def test_code_of_somebody_else_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes(fresh())
    (path,) = folder.iterdir()
    real = os.stat

    def owned(of: Any, **options: Any) -> Any:
        found = real(of, **options)
        return SimpleNamespace(st_uid=4711, st_mode=found.st_mode) if of == path else found

    monkeypatch.setattr(native.os, "stat", owned)
    assert native._read(path.name) is None
    monkeypatch.undo()
