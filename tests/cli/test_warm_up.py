"""`persona warm-up`: with two small kernels instead of all, which take a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

import persona
from persona.codec.native import Kernels, code_files, watch
from persona.merge.arithmetic import warm_up
from tests.cli.command_line import CommandLine

KEYS = {"kernels", "compiled", "seconds", "folder", "shipped"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of machine code, in a process that has called no kernel yet."""
    folder = tmp_path / "kernels"
    few = Kernels("persona.codec.kernels", golden="tests.codec.native.few_kernels")
    monkeypatch.setattr(warm_up, "KERNELS", (few,))
    monkeypatch.setattr(code_files, "cached_in", lambda: [folder])
    monkeypatch.setattr(code_files, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(watch, "_LOGGED", set())
    return folder


def test_the_first_one_compiles_everything_and_says_so_and_the_second_finds_it(
    cache: Path, outside: CommandLine
) -> None:
    first = outside("warm-up")
    assert first.exit_code == 0
    assert first.stdout.startswith("Compiled 3 of 3 kernels in ")
    assert first.stdout.endswith(f" s, kept in {cache}\n")
    assert first.stderr == f"persona: {watch.COMPILING}\n"
    assert len(list(cache.iterdir())) == 3
    second = outside("warm-up")
    assert second.stdout == f"All 3 kernels are compiled for this processor already, in {cache}\n"
    assert second.stderr == ""


def test_only_what_is_missing_is_compiled(cache: Path, outside: CommandLine) -> None:
    outside.ok("warm-up")
    next(iter(cache.iterdir())).unlink()
    assert outside.ok("warm-up").startswith("Compiled 1 of 3 kernels in ")


def test_the_answer_in_json(cache: Path, outside: CommandLine) -> None:
    answer = outside.json("warm-up")
    assert answer.keys() == KEYS
    assert (answer["kernels"], answer["compiled"]) == (3, 3)
    assert (answer["folder"], answer["shipped"]) == (str(cache), None)


def test_code_that_cannot_be_kept_is_said(
    cache: Path, outside: CommandLine, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("in the way")
    assert ", but not kept: no folder for them is writable" in outside.ok("warm-up")
    assert outside.json("warm-up")["folder"] is None
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"persona: compiled kernels cannot be kept in {cache}, so every process compiles them again"
    ]


def test_from_python_the_log_tells_of_it_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = persona.warm_up()
    assert (done.kernels, done.compiled, done.folder) == (3, 3, str(cache))
    assert [record.getMessage() for record in caplog.records] == [f"persona: {watch.COMPILING}"]
    assert persona.warm_up().compiled == 0
    assert len(caplog.records) == 1


def test_quiet_means_quiet_also_where_nothing_can_be_kept(
    cache: Path, outside: CommandLine, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("in the way")
    assert outside("-q", "warm-up").stderr == ""
    assert not caplog.records
    watch._LOGGED.clear()
    outside.ok("warm-up")
    assert len(caplog.records) == 1
