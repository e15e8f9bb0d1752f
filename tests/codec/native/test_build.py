"""What a build puts into the package: machine code for every level, which computes the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from persona.codec.native import code_files, golden, kernel, key, processor

MODULE, GOLDEN = "persona.codec.kernels", "tests.codec.native.few_kernels"
SHIP = """
import pathlib, sys
from persona.codec.native import Kernels, build, processor
(level,) = (each for each in processor.levels() if each.name == sys.argv[1])
build.ship([Kernels(sys.argv[2], golden=sys.argv[3])], level, pathlib.Path(sys.argv[4]))
print("numba" in sys.modules)
"""


def ship(level: processor.Target, into: Path) -> bool:
    """Builds for a level in a process of its own; whether it compiled."""
    command = [sys.executable, "-c", SHIP, level.name, MODULE, GOLDEN, str(into)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split() == ["True"]


@pytest.mark.parametrize("level", processor.levels(), ids=lambda level: level.name)
def test_code_of_every_level_computes_the_same_bits_and_is_made_once(
    level: processor.Target, tmp_path: Path
) -> None:
    into = tmp_path / "level"
    into.mkdir()
    (into / "of an earlier build.o").write_bytes(b"old")
    assert ship(level, into)
    variants = list(golden.variants(GOLDEN))
    named = {key.names(MODULE, name, kinds, level): (name, kinds) for name, kinds in variants}
    assert {entry.name for entry in into.iterdir()} == {file for file, _ in named}
    for (file, symbol), (name, kinds) in named.items():
        code = code_files.read(file, [into])
        assert code is not None
        if processor.runs(level):
            kernel.linked(GOLDEN, name, kinds, level, code, symbol)
    assert not ship(level, into)


def test_a_processor_gets_the_highest_level_that_it_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {level.name: level for level in processor._LEVELS["x86_64"]}
    monkeypatch.setattr(processor, "levels", lambda: tuple(known.values()))
    v3, v4 = known["x86-64-v3"].needs, known["x86-64-v4"].needs
    for have, expected in [
        (frozenset({"sse4.2", "avx"}), None),
        (v3, "x86-64-v3"),
        (v3 | {"avx512f", "avx512vl"}, "x86-64-v3"),
        (v4, "x86-64-v4"),
        (v4 | {"avx512vbmi", "avx512vbmi2"}, "x86-64-v4-vbmi2"),
    ]:
        host = processor.Target("host", "any", "", frozenset(have))
        monkeypatch.setattr(processor, "host", lambda host=host: host)
        processor.level.cache_clear()
        found = processor.level()
        processor.level.cache_clear()
        assert (found and found.name) == expected


def test_only_the_level_with_the_instructions_takes_elements_out_of_vectors() -> None:
    for level in processor._LEVELS["x86_64"]:
        assert level.compress == ("avx512vbmi2" in level.needs) == ("vbmi2" in level.features)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", 3), ("amd64", 3), ("aarch64", 1), ("arm64", 1), ("riscv64", 0)],
)
def test_levels_are_those_of_the_architecture(
    machine: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"machine": machine})())
    assert len(processor.levels()) == expected
