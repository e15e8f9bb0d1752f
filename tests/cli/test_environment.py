"""A command ends with a sentence and an exit code of its own in whatever environment it runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from persona.cli import identity, terminal
from persona.cli.invocation import Invocation
from persona.errors import IntegrityError, SystemFault
from persona.repository import Repository
from tests.cli.command_line import CommandLine
from tests.cli.processes import PROGRAM, environment

WORDS = [
    "status",
    "log",
    "log --json",
    "diff HEAD~1",
    "show --stat",
    "branch",
    "tag",
    "reflog",
    "config --list",
    "fsck",
    "rev-parse HEAD",
    "cat-file -p HEAD",
    "count-objects",
    "vector ls",
    "completion bash",
    "--help",
    "--version",
    "nope",
    "log nope",
    "log nope --json",
    "add",
    "commit",
    "commit -F -",
    "commit --allow-empty -m more",
    "tag -a v1",
    "revert -e HEAD",
    "set listening --alpha 0.7",
    "checkout --no-weights HEAD",
]


def through_a_shell(directory: Path, words: str, redirection: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command whose streams a shell has redirected."""
    line = f'exec "$@" {redirection}'
    return subprocess.run(
        ["sh", "-c", line, "sh", *PROGRAM, *words.split()],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("words", WORDS)
def test_closed_streams_cost_no_command_its_work(grown: CommandLine, words: str) -> None:
    usual = grown(*words.split())
    grown.ok("reset", "--hard", "HEAD@{0}")
    closed = through_a_shell(grown.directory, words, "<&- >&- 2>&-")
    assert closed.returncode == usual.exit_code != 70
    assert (closed.stdout, closed.stderr) == (b"", b"")


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-"])
def test_one_closed_stream_is_no_fault(grown: CommandLine, redirection: str) -> None:
    for words, code in (("status", 0), ("commit --allow-empty -F -", 2), ("log nope --json", 3)):
        done = through_a_shell(grown.directory, words, redirection)
        assert (words, done.returncode) == (words, code)
        assert b"Traceback" not in done.stderr + done.stdout


def test_what_a_command_opens_never_becomes_its_output(grown: CommandLine) -> None:
    before = {path: path.read_bytes() for path in grown.directory.rglob("*") if path.is_file()}
    for words in ("log", "status", "cat-file -p HEAD", "log nope"):
        through_a_shell(grown.directory, words, "<&- >&- 2>&-")
    assert before == {path: path.read_bytes() for path in grown.directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", ["status", "log", "log --json", "--help", "--version", "config --list"])
def test_a_reader_that_is_gone_is_no_error_however_little_is_said(grown: CommandLine, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*PROGRAM, *words.split()],
        cwd=grown.directory,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (0, b"")


def test_a_reader_of_remarks_that_is_gone_stops_no_commit(grown: CommandLine) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*PROGRAM, "commit", "--allow-empty", "-m", "kept"],
        cwd=grown.directory,
        env=environment(HOME="/nonexistent", XDG_CONFIG_HOME="", GIT_CONFIG_GLOBAL="/dev/null"),
        stdout=writing,
        stderr=writing,
        check=False,
    )
    os.close(writing)
    assert process.returncode == 0
    assert grown.json("log", "-1")[0]["message"].strip() == "kept"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_the_systems_fault(grown: CommandLine) -> None:
    for words in ("status", "log", "log --json", "--help"):
        done = through_a_shell(grown.directory, words, ">/dev/full")
        assert (done.returncode, done.stderr) == (7, b"persona: No space left on device\n")
    done = through_a_shell(grown.directory, "log nope --json", ">/dev/full")
    assert (done.returncode, done.stderr[:25]) == (3, b"persona: unknown revision")


def test_a_failed_command_answers_with_one_value(grown: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = list(Repository.open(grown.directory).log()) * 200

    def broken(*_: object, **__: object) -> object:
        yield from entries
        raise IntegrityError("one is lost")

    monkeypatch.setattr(Repository, "log", broken)
    result = grown("log", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stdout) == {"error": {"kind": "integrity", "message": "one is lost", "exit": 5}}


# -- no home, no account


NO_ACCOUNT = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"


def without_an_account(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user whom the system does not know, without HOME."""
    bare = {key: value for key, value in environment().items() if key not in ("HOME", "XDG_CONFIG_HOME")}
    return subprocess.run(
        [sys.executable, "-c", NO_ACCOUNT + PROGRAM[-1], *words],
        cwd=directory,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )


def test_nobody_without_a_home_can_do_everything_but_keep_settings_there(grown: CommandLine) -> None:
    for words in (
        ["status"],
        ["log"],
        ["config", "--list"],
        ["commit", "--allow-empty", "-m", "x"],
        ["tag", "v1"],
    ):
        assert without_an_account(grown.directory, *words).returncode == 0
    assert without_an_account(grown.directory, "init", "../other", "--base", "../base").returncode == 0
    for words in (["config", "--global", "user.name", "Ada"], ["config", "--global", "--list"]):
        done = without_an_account(grown.directory, *words)
        assert (done.returncode, "set HOME" in done.stderr) == (7, True)


def test_a_relative_home_of_settings_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for useless in ("settings", "", "./x"):
        monkeypatch.setenv("XDG_CONFIG_HOME", useless)
        assert Invocation().user_config == Path("/home/ada/.config/persona/config")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/ada")
    assert Invocation().user_config == Path("/etc/ada/persona/config")


# -- where a command runs


def test_a_directory_that_is_missing_is_named(grown: CommandLine) -> None:
    for where, why in (("nope", "No such file"), ("recipe.toml", "Not a directory"), ("a/b", "No such file")):
        sentence = CommandLine(grown.directory / where).refused(3, "reset", "--hard", "HEAD~1")
        assert sentence.startswith(f"cannot change to '{grown.directory / where}': {why}")
    assert len(grown.json("log")) == 3


def test_a_loop_of_links_is_the_systems_fault(grown: CommandLine) -> None:
    (grown.directory / "loop").symlink_to("loop")
    assert "symbolic links" in CommandLine(grown.directory / "loop").refused(7, "status")
    with pytest.raises(SystemFault, match="symbolic links"):
        Repository.open(grown.directory / "loop")


LOOPS = """
commit loop -m x; add loop; add loop/x; commit loop/x -m x; add loop/x -n x; checkout -o loop
checkout -o loop/x; init loop --base ../base
init loop/y --base ../base; init ../q --base loop; restore loop; restore loop/x
diff -- loop; log -- loop/x; checkout loop; checkout -- loop/x; commit -F loop; add . --onto loop
status; diff
"""


def test_a_loop_of_links_in_any_place_is_answered(grown: CommandLine) -> None:
    (grown.directory / "loop").symlink_to("loop")
    for line in LOOPS.replace("\n", "; ").strip("; ").split("; "):
        result = grown(*line.split())
        assert result.exit_code in range(8), (line, result.output)


@pytest.mark.parametrize("word", [b"\xff", b"a\xffb", "é".encode("latin-1")])
def test_a_word_that_is_not_utf_8_is_taken_or_refused(grown: CommandLine, word: bytes) -> None:
    for words in WORDS:
        result = grown(*words.split(), os.fsdecode(word))
        assert result.exit_code in (0, 1, 2, 3, 4), (words, result.output)


# -- colour


@pytest.mark.parametrize(("value", "coloured"), [("", True), ("0", False), ("1", False)])
def test_an_empty_no_color_is_none(grown: CommandLine, value: str, coloured: bool) -> None:
    master, slave = pty.openpty()
    done = subprocess.run(
        [*PROGRAM, "log", "--oneline", "-1"],
        cwd=grown.directory,
        env=environment(TERM="xterm", NO_COLOR=value),
        stdout=slave,
        check=False,
    )
    os.close(slave)
    written = os.read(master, 4096)
    os.close(master)
    assert (done.returncode, b"\x1b[" in written) == (0, coloured)


def test_odd_widths_of_a_terminal_stop_nothing(grown: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in ("", "0", "-1", "abc", "1", "99999999999999999999"):
        monkeypatch.setenv("COLUMNS", width)
        grown.ok("diff", "HEAD~1", "HEAD", "--weights")
        grown.ok("log", "--help")


# -- what never reaches a terminal

HOSTILE = [
    "\x9b2J",
    "\x1b[2J",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u200f",
    "\u2028",
    "\ufeff",
    "\U000e0041",
    "\x07",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_steers_a_terminal_is_printed(text: str) -> None:
    assert terminal.printable(f"a{text}b").isprintable()
    assert terminal.printable("á 日本\u3000語 ❤️ 😀\n\t") == "á 日本\u3000語 ❤️ 😀\n\t"


@pytest.mark.parametrize("text", [one for one in HOSTILE if one[0] > "\x7f" and one[0] != "\u2028"])
def test_hostile_names_are_shown_without_what_steers_a_terminal(grown: CommandLine, text: str) -> None:
    name = f"a{text}b"
    grown.ok("branch", name)
    grown.ok("tag", name)
    grown.ok("mv", "listening", name)
    (grown.directory / "graph").mkdir()
    (grown.directory / "graph" / name).write_text(f"{name}\n")
    said = [grown("status"), grown("diff"), grown("commit", "-m", name)]
    said += [grown("switch", name), grown("switch", "main")]
    for words in (
        "log -p --decorate",
        "show",
        "show --stat",
        "branch",
        "tag",
        "reflog",
        "vector ls",
        f"vector show {name}",
        f"log {name}x",
        f"set {name}x --alpha 1",
        f"restore {name}x",
        f"config {name}",
        f"nope{name}",
        f"log --nope{name}",
        f"-C {name} status",
    ):
        said.append(grown(*words.split(" ")))
    for result in said:
        assert result.exit_code != 70, result.output
        hidden = [char for char in result.output if not char.isprintable() and char not in "\n\t"]
        assert not hidden, result.output
    assert name in [one["name"] for one in grown.json("branch")]


# -- who signs


def test_an_unknown_author_is_said_once_and_by_commands_that_sign(
    grown: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def nobody(directory: str) -> dict[str, str]:
        asked.append(directory)
        return {}

    monkeypatch.setattr(identity, "git_settings", nobody)
    for half in ("NAME", "EMAIL"):
        monkeypatch.delenv(f"PERSONA_AUTHOR_{half}", raising=False)
    for signing, words in (
        (False, "branch one"),
        (False, "branch two"),
        (False, "branch -d one two"),
        (False, "switch -c three"),
        (False, "tag light"),
        (False, "reset --soft HEAD"),
        (False, "checkout --no-weights main"),
        (False, "revert nope"),
        (False, "commit -m nothing"),
        (False, "add ../suggesting"),
        (True, "commit -m suggest"),
        (True, "tag -a heavy -m heavy"),
        (True, "revert suggesting"),
        (True, "init ../another --base ../base"),
    ):
        asked.clear()
        result = grown(*words.split())
        assert result.stderr.count("committing as") == signing, (words, result.stderr)
        assert len(asked) <= 1, words
