"""The progress bar is patient, and stays away where nobody watches."""

from __future__ import annotations

import sys

import pytest

from persona.cli import progress
from persona.cli.progress import ProgressBar, progress_bar
from persona.codec.native import watch
from persona.merge.workers import first_run


def test_a_pipe_is_told_of_compiling_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    bar = progress_bar(quiet=False)
    assert bar is not None
    for label in ("merging", watch.COMPILING, "merging", watch.COMPILING):
        bar(label, 1, 2)
    bar.close()
    assert capsys.readouterr().err == "persona: compiling kernels for this processor (about a minute, once)\n"


def test_the_label_is_the_one_that_the_library_uses() -> None:
    told: list[str] = []
    with first_run(lambda label, done, total: told.append(label)):
        watch.tell_of_compilation()
    assert told == [watch.COMPILING]
    assert told[0].startswith(progress.COMPILING)


def test_quiet_means_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress_bar(quiet=True) is None
    assert progress_bar(quiet=False) is not None


def test_work_of_less_than_a_second_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    bar("merge", 1, 2)
    bar.close()
    assert capsys.readouterr().err == ""


def test_longer_work_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = ProgressBar()
    bar("merge", 10**6, 2 * 10**6)
    bar("write", 0, 0)
    bar.close()
    assert "write" in capsys.readouterr().err
