"""Every failure is a sentence, an exit code, and with --json an object."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest

from persona import errors
from persona.cli.errors import guarded


def raising(error: BaseException) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.Refused("no"), 1),
        (errors.UsageError("no"), 2),
        (errors.NotARepository("no"), 3),
        (errors.InvalidInput("no"), 4),
        (errors.IntegrityError("no"), 5),
        (errors.BusyError("no"), 6),
        (errors.SystemFault("no"), 7),
        (errors.Inconclusive("no"), 8),
        (click.UsageError("no"), 2),
        (PermissionError(13, "Permission denied", "file"), 7),
        (MemoryError(), 7),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (ValueError("no"), 70),
    ],
)
def test_each_failure_has_its_exit_code(
    error: BaseException, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(error), ["log", "--json"]) == exit_code
    said = capsys.readouterr()
    answer = json.loads(said.out)["error"]
    assert answer["exit"] == exit_code
    assert said.err == f"persona: {answer['message']}\n"


def test_without_json_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(raising(errors.Refused("nothing to commit")), ["commit"])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "persona: nothing to commit\n")


def test_a_traceback_is_shown_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(raising(ZeroDivisionError("oh")), ["log"])
    assert "Traceback" not in capsys.readouterr().err
    guarded(raising(ZeroDivisionError("oh")), ["-v", "log"])
    assert "Traceback" in capsys.readouterr().err


def test_what_a_command_returns_is_its_exit_code() -> None:
    assert guarded(lambda: 1, []) == 1
    assert guarded(lambda: None, []) == 0


def test_a_message_that_looks_like_a_flag_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(raising(errors.Refused("no")), ["restore", "--", "--json"])
    assert capsys.readouterr().out == ""
