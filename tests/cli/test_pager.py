"""The pager: on a terminal only, the one that the user chose, with the exit codes of the command."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from persona.cli import pager

from .conftest import CommandLine

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from persona.cli.entry import main; main()"]


def on_terminal(at: CommandLine, *words: str, **variables: str) -> tuple[int, str]:
    """A command whose stdout is a terminal: its exit code, and what appeared there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        cwd=at.directory,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **variables},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    return process.wait(), shown.decode().replace("\r\n", "\n")


PAGES = "sed 's/^/| /'"


@pytest.mark.parametrize(
    "words",
    [
        ("log",),
        ("log", "--oneline", "--graph"),
        ("show",),
        ("diff", "HEAD~1", "HEAD"),
        ("reflog",),
        ("branch",),
        ("tag", "-l"),
        ("help", "log"),
        ("config", "--list"),
        ("notes",),
        ("notes", "show", "HEAD~1"),
        ("-p", "status", "-b"),
    ],
)
def test_what_is_read_at_length_goes_through_the_pager(grown: CommandLine, words: tuple[str, ...]) -> None:
    grown.ok("tag", "v1")
    grown.ok("config", "user.name", "Ada")
    grown.ok("notes", "add", "-m", "eager", "HEAD~1")
    code, shown = on_terminal(grown, *words, PERSONA_PAGER=PAGES)
    assert code == 0
    assert shown
    assert all(line.startswith("| ") for line in shown.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        ("--no-pager", "log"),
        ("-P", "log"),
        ("log", "--json"),
        ("status",),
        ("branch", "new"),
        ("rev-parse", "HEAD"),
    ],
)
def test_other_answers_come_directly(grown: CommandLine, words: tuple[str, ...]) -> None:
    code, shown = on_terminal(grown, *words, PERSONA_PAGER=PAGES)
    assert code == 0
    assert "| " not in [line[:2] for line in shown.splitlines()]


def test_nothing_is_paged_where_nobody_reads(grown: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_PAGER", PAGES)
    assert grown.ok("log").startswith("commit ")


def test_a_command_that_fails_says_so_directly(grown: CommandLine) -> None:
    code, shown = on_terminal(grown, "log", "nowhere", PERSONA_PAGER=PAGES)
    assert (code, shown.splitlines()[0]) == (3, "persona: unknown revision 'nowhere'")


def test_the_exit_code_is_that_of_the_command(grown: CommandLine) -> None:
    words = ("diff", "--exit-code", "HEAD~1", "HEAD")
    assert on_terminal(grown, *words, PERSONA_PAGER=PAGES)[0] == 1
    assert on_terminal(grown, *words, PERSONA_PAGER="cat >/dev/null; exit 3 #")[0] == 1


def test_a_pager_that_is_left_early_is_no_failure(grown: CommandLine) -> None:
    (grown.directory / "config.json").write_text("{}\n" * 60_000)  # more than a pipe holds
    code, shown = on_terminal(grown, "diff", PERSONA_PAGER="head -n 1")
    assert (code, len(shown.splitlines())) == (0, 1)


def test_a_pager_that_is_not_there_is_said_and_done_without(grown: CommandLine) -> None:
    code, shown = on_terminal(grown, "tag", "-l", PERSONA_PAGER="no-such-pager -x")
    assert (code, shown) == (0, "")
    code, shown = on_terminal(grown, "branch", PERSONA_PAGER="no-such-pager -x", NO_COLOR="1")
    assert (code, shown.splitlines()) == (0, ["the pager `no-such-pager -x` was not found", "* main"])


@pytest.mark.parametrize(
    "command",
    ["(sed 's/^/| /')", "cd / && sed 's/^/| /'", "exec sed 's/^/| /'", "X=1 sed 's/^/| /'", "~/pager"],
)
def test_a_pager_is_any_command_of_a_shell(grown: CommandLine, command: str, tmp_path: Path) -> None:
    (tmp_path / "pager").write_text("#!/bin/sh\nexec sed 's/^/| /'\n")
    (tmp_path / "pager").chmod(0o755)
    code, shown = on_terminal(grown, "branch", PERSONA_PAGER=command, NO_COLOR="1", HOME=str(tmp_path))
    assert (code, shown) == (0, "| * main\n")


def test_a_pager_that_no_shell_can_read_is_said_and_done_without(grown: CommandLine) -> None:
    code, shown = on_terminal(grown, "branch", PERSONA_PAGER="less 'x", NO_COLOR="1")
    assert (code, shown.splitlines()) == (0, ["the pager `less 'x` is not a shell command", "* main"])


def test_colours_and_names_are_shown_as_on_the_terminal_itself(grown: CommandLine) -> None:
    _, paged = on_terminal(grown, "log", "--oneline", PERSONA_PAGER="sed p")
    _, plain = on_terminal(grown, "--no-pager", "log", "--oneline")
    assert paged.splitlines()[::2] == plain.splitlines()
    assert "\x1b[" in plain
    assert "(HEAD -> main)" in click.unstyle(plain)
    assert "\x1b[" not in on_terminal(grown, "log", PERSONA_PAGER="sed p", NO_COLOR="1")[1]


@pytest.mark.parametrize(
    ("variables", "setting", "command"),
    [
        ({"PERSONA_PAGER": "a", "PAGER": "c"}, "b", "a"),
        ({"PAGER": "c"}, "b", "b"),
        ({"PAGER": "c"}, None, "c"),
        ({}, None, "less"),
        ({"PERSONA_PAGER": "", "PAGER": "c"}, "b", None),
        ({"PAGER": "cat"}, None, None),
        ({}, "cat", None),
    ],
)
def test_the_pager_is_the_one_that_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], setting: str | None, command: str | None
) -> None:
    for name in ("PERSONA_PAGER", "PAGER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert pager.chosen({"core.pager": setting}.get) == command


def test_a_repository_names_no_pager(grown: CommandLine, tmp_path: Path) -> None:
    assert "core.pager" in grown.refused(2, "config", "core.pager", "evil")
    config = grown.directory / ".persona" / "config"
    config.write_text(f'[core]\npager = "touch {tmp_path}/ran; cat"\n')
    code, shown = on_terminal(grown, "log", "--oneline", PAGER="cat", XDG_CONFIG_HOME=str(tmp_path))
    assert (code, len(shown.splitlines())) == (0, 3)
    assert not (tmp_path / "ran").exists()


def test_a_short_answer_needs_no_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LESS", raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "5")
    assert pager.needless("less", "one\ntwo\nthree")
    assert pager.needless("less", "\x1b[31m" * 20 + "short")
    assert not pager.needless("less", "1\n2\n3\n4\n5")
    assert not pager.needless("less", "x" * 100)
    assert not pager.needless("more", "one")
    monkeypatch.setenv("LESS", "R")
    assert not pager.needless("less", "one")


@pytest.mark.parametrize("option", ["--no-pager", "--paginate", "-C"])
def test_an_option_of_persona_itself_stands_before_the_command(grown: CommandLine, option: str) -> None:
    assert f"; {option} stands before the command (see" in grown.refused(2, "log", option, ".")
