"""The progress bar is patient, and stays away where nobody watches."""

from __future__ import annotations

import json
import sys
from time import monotonic

import click
import pytest

from persona.cli import progress
from persona.cli.progress import CompilingLine, JsonLines, ProgressBar, Silence, shower
from persona.codec.native import watch
from persona.merge.workers import first_run
from persona.progress import MERGING, Compiling, Phase, Progress

from .conftest import CommandLine


def test_a_pipe_is_told_that_kernels_are_compiled_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    bar = shower(0.0, quiet=False, as_json=False)
    assert isinstance(bar, CompilingLine)
    for phase in (MERGING, Compiling("compiling kernels"), MERGING, Compiling("compiling kernels")):
        bar(phase, 1, 2)
    bar.close()
    assert capsys.readouterr().err == "persona: compiling kernels\n"


def test_the_library_tells_of_compiling_by_type() -> None:
    told: list[Phase] = []
    with first_run(lambda phase, done, total: told.append(phase)):
        watch.tell_of_compilation()
    assert [type(phase) for phase in told] == [Compiling]


def test_callbacks_that_know_no_units_work_as_before() -> None:
    told: list[tuple[str, int, int]] = []
    notify: Progress = lambda label, done, total: told.append((label, done, total))  # noqa: E731
    notify(MERGING, 1, 2)
    assert told == [("merging", 1, 2)]


@pytest.mark.parametrize(
    ("phase", "shown"), [(MERGING, "1.0/2.0 MB"), (Phase("walking", "commits"), "commits")]
)
def test_the_bar_counts_in_the_unit_of_the_phase(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], phase: Phase, shown: str
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = ProgressBar(monotonic())
    bar(phase, 10**6, 2 * 10**6)
    bar.close()
    assert shown in click.unstyle(capsys.readouterr().err)


def test_in_json_progress_is_lines_at_most_twice_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0.4, 4.9, 5.1, 5.2, 5.5, 5.7, 6.5])
    lines = JsonLines(0.0, lambda: next(seconds))
    for done in range(7):
        lines(Phase("walking", "commits"), done, 7)
    written = [json.loads(line)["progress"] for line in capsys.readouterr().out.splitlines()]
    assert [one["done"] for one in written] == [2, 5, 6]
    assert written[0] == {"label": "walking", "done": 2, "total": 7, "unit": "commits"}


def test_compiling_is_said_at_once_and_once_beside_lines_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = ProgressBar(monotonic())
    bar(Compiling("compiling kernels", ""), 0, 0)
    bar.close()
    assert "compiling kernels" in click.unstyle(capsys.readouterr().err)
    lines = JsonLines(0.0, lambda: 0.0)
    for _ in range(2):
        lines(Compiling("compiling kernels", ""), 0, 0)
    assert capsys.readouterr() == ("", "persona: compiling kernels\n")


def test_what_nobody_knows_the_end_of_has_no_total(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines(0.0, lambda: 9.0)(Compiling("compiling kernels"), 0, 0)
    assert json.loads(capsys.readouterr().out)["progress"]["total"] is None


def test_the_detail_of_a_phase_follows_its_label(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    phase = Phase("training calm", "steps")
    bar = ProgressBar(0.0)
    for loss in ("2.500", "1.250"):
        phase.detail = f"loss {loss}"
        bar(phase, 1, 2)
    bar.close()
    assert "training calm, loss 1.250" in click.unstyle(capsys.readouterr().err)
    JsonLines(0.0, lambda: 9.0)(phase, 1, 2)
    assert json.loads(capsys.readouterr().out)["progress"]["detail"] == "loss 1.250"


def test_the_answer_is_the_last_line(grown: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LONG", -1.0)
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    *lines, answer = grown.ok("digest", "--json").splitlines()
    assert {json.loads(line)["progress"]["label"] for line in lines} == {"merging"}
    assert set(json.loads(answer)) == {"revision", "weights"}
    assert len(grown.ok("digest", "--json", "-q").splitlines()) == 1


def test_quiet_means_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(shower(0.0, quiet=True, as_json=False), Silence)
    assert isinstance(shower(0.0, quiet=True, as_json=True), Silence)
    assert isinstance(shower(0.0, quiet=False, as_json=False), ProgressBar)


def test_work_of_less_than_a_second_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(monotonic())
    bar(Phase("merge"), 1, 2)
    bar.close()
    assert capsys.readouterr().err == ""


def test_longer_work_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = ProgressBar(monotonic())
    bar(Phase("merge"), 10**6, 2 * 10**6)
    bar(Phase("write"), 0, 0)
    bar.close()
    assert "write" in capsys.readouterr().err


def test_compiling_that_was_shown_is_not_logged_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "_LOGGED", set())
    told: list[Phase] = []
    with first_run(lambda phase, done, total: told.append(phase)):
        watch.tell_of_compilation()
    watch.tell_of_compilation()
    assert (told, caplog.messages) == ([watch.COMPILING], [])
