"""`persona bisect` on the command line: what it prints, what it runs, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine
from tests.cli.processes import PROGRAM, environment, persona_process
from tests.history import planted
from tests.history.planted import merged

FIRST = 19
TEST = f"""
import sys, tomllib
recipe = tomllib.load(open("recipe.toml", "rb"))
sys.exit(recipe["vectors"]["listening"]["alpha"] != {planted.SOUND})
"""


@pytest.fixture(scope="module")
def grown_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty commits with merges, the fault in one of them."""
    place = tmp_path_factory.mktemp("bisect")
    with planted.repository(place) as repo:
        planted.grow(repo, merged(30), FIRST)
    return place / "bot"


@pytest.fixture
def planted_bot(grown_once: Path) -> Iterator[CommandLine]:
    """A command line there, without a bisect; main is at the last commit."""
    command_line = CommandLine(grown_once)
    yield command_line
    command_line.ok("bisect", "reset", "main")
    command_line.ok("switch", "-f", "main")


def test_run_finds_the_planted_commit_and_says_what_it_changed(planted_bot: CommandLine) -> None:
    said = planted_bot.ok("bisect", "start", "HEAD", "v1")
    assert said.startswith("Bisecting: ")
    assert "revisions left to test after this (roughly 4 steps)\n[" in said
    said = planted_bot.ok("bisect", "run", sys.executable, "-c", TEST)
    first = planted_bot.json("rev-parse", f":/^step {FIRST}$")["id"]
    last = said[said.index(f"{first} is the first bad commit\n") :]
    assert f"    step {FIRST}\n" in last
    assert "-alpha = 0.50\n+alpha = 1.50\n" in last
    assert 3 <= said.count(f"running {sys.executable} -c ") <= 6
    assert planted_bot.ok("bisect").startswith(f"{first} is the first bad commit\n")
    assert planted_bot.ok("bisect", "log").endswith(f"# first bad commit: [{first}] step {FIRST}\n")
    assert planted_bot.ok("bisect", "reset") == "Switched to branch 'main'\n"


def test_the_json_of_run_is_one_value_with_the_tests_and_the_change(planted_bot: CommandLine) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    noisy = f"print('to be seen')\n{TEST}"
    found = planted_bot.json("bisect", "run", sys.executable, "-c", noisy)
    assert found["state"] == "found"
    assert found["subject"] == f"step {FIRST}"
    assert found["diff"]["vectors"][0]["to"] == {"alpha": planted.FAULTY}
    assert {(test["mark"], test["exit_code"]) for test in found["tests"]} == {("good", 0), ("bad", 1)}


def test_quiet_prints_the_answer_alone(planted_bot: CommandLine) -> None:
    assert planted_bot.ok("bisect", "start", "HEAD", "v1", "-q") == ""
    said = planted_bot.ok("bisect", "run", "-q", sys.executable, "-c", TEST)
    assert said.split("\n")[0].endswith(" is the first bad commit")


def test_options_after_the_command_are_its_own(planted_bot: CommandLine) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    script = "import sys; sys.exit(sys.argv[1:] != ['--json', '-q', '--', '-v'])"
    found = planted_bot("bisect", "run", sys.executable, "-c", script, "--json", "-q", "--", "-v")
    assert found.exit_code == 0
    assert "running" in found.stdout
    assert "is the first bad commit" in found.stdout  # the last one: all others are good


def test_a_failure_is_no_json_because_the_command_has_that_option(planted_bot: CommandLine) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    found = planted_bot("bisect", "run", "sh", "-c", "exit 200", "--json")
    assert (found.exit_code, '{"error"' in found.stdout) == (1, False)
    found = planted_bot("bisect", "run", "--json", "sh", "-c", "exit 200")
    assert json.loads(found.stdout)["error"]["exit"] == 1


def test_answers_by_hand_and_status(planted_bot: CommandLine) -> None:
    assert planted_bot.ok("bisect", "start") == "status: waiting for both good and bad commits\n"
    said = planted_bot.ok("bisect", "bad")
    assert said == "status: waiting for good commit(s), bad commit known\n"
    planted_bot.ok("bisect", "good", "v1")
    assert "You are currently bisecting, started from branch 'main'." in planted_bot.ok("status")
    assert planted_bot.json("status")["bisect"]["branch"] == "main"
    assert '(test it, then say "persona bisect good" or "persona bisect bad")' in planted_bot.ok("bisect")
    planted_bot.ok("switch", "main")
    assert 'use "persona bisect next" to go to this commit' in planted_bot.ok("bisect", "view")
    assert planted_bot.ok("bisect", "next").startswith("Bisecting: ")


def test_terms_are_commands(planted_bot: CommandLine) -> None:
    planted_bot.ok("bisect", "start", "--term-old", "calm", "--term-new=rushed")
    planted_bot.ok("bisect", "rushed", "HEAD")
    assert planted_bot.ok("bisect", "calm", "v1").startswith("Bisecting: ")
    assert "uses the terms calm and rushed, not 'good'" in planted_bot.refused(1, "bisect", "good")
    assert "'hasty' is not a command of `persona bisect`" in planted_bot.refused(2, "bisect", "hasty")
    planted_bot.ok("bisect", "start")
    planted_bot.ok("bisect", "new")
    assert planted_bot.ok("bisect", "old", "v1").startswith("Bisecting: ")


def test_skipped_commits_alone_are_listed_with_an_exit_code_of_their_own(planted_bot: CommandLine) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    found = planted_bot("bisect", "skip", "v1..HEAD", "HEAD..main")
    assert found.exit_code == 8
    assert found.stdout.startswith("There are only skipped commits left to test.\n")
    assert " step 30  (bad)\n" in found.stdout
    assert planted_bot("bisect", "skip", "--json").exit_code == 8


def test_a_log_from_a_file_or_from_stdin_is_replayed(planted_bot: CommandLine, tmp_path: Path) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    log = planted_bot.ok("bisect", "log")
    (tmp_path / "log").write_text(log)
    planted_bot.ok("bisect", "reset")
    assert planted_bot.ok("bisect", "replay", tmp_path / "log").startswith("Bisecting: ")
    assert planted_bot("bisect", "replay", "-", typed=log).stdout.startswith("Bisecting: ")
    planted_bot.refused(7, "bisect", "replay", tmp_path / "nowhere")


def test_what_cannot_be_run_or_crashes_is_said_in_a_sentence_and_marks_nothing(
    planted_bot: CommandLine,
) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    log = planted_bot.ok("bisect", "log")
    for words, says in (
        (["./nowhere.sh"], "'./nowhere.sh' cannot be run: No such file or directory"),
        (["sh", "-c", "no-such-program"], "it cannot be run, so its exit code says nothing"),
        (["sh", "-c", "exit 200"], "ended with exit code 200, which is no answer"),
        (["sh", "-c", "kill -9 $$"], "ended with signal 9, which is no answer"),
    ):
        assert says in planted_bot.refused(1, "bisect", "run", *words)
        assert planted_bot.ok("bisect", "log") == log
    assert "give the command to run" in planted_bot.refused(2, "bisect", "run")


def test_the_command_runs_at_the_top_with_the_environment_of_the_caller(planted_bot: CommandLine) -> None:
    top = planted_bot.directory
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    script = "import os, json; json.dump([os.getcwd(), dict(os.environ)], open(os.environ['OUT'], 'w'))"
    below = top / "below"
    below.mkdir(exist_ok=True)
    out = top.parent / "out.json"
    done = persona_process(below, "bisect", "run", sys.executable, "-c", script, OUT=str(out))
    assert done.returncode == 0, done.stderr
    place, seen = json.loads(out.read_text())
    assert Path(place) == top
    same = {"LC_CTYPE", "PWD", "OLDPWD"}  # that Python or the system sets
    expected = environment(OUT=str(out))
    assert {name: seen[name] for name in seen.keys() - same} == {
        name: expected[name] for name in expected.keys() - same
    }
    below.rmdir()


def test_an_interrupt_ends_the_program_too_and_the_same_run_goes_on(
    planted_bot: CommandLine, tmp_path: Path
) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    log = planted_bot.ok("bisect", "log")
    pipe = tmp_path / "started"
    os.mkfifo(pipe)
    script = f"import time; open({str(pipe)!r}, 'w').close(); time.sleep(600)"
    process = subprocess.Popen(
        [*PROGRAM, "bisect", "run", sys.executable, "-c", script],
        cwd=planted_bot.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pipe.open().close()  # waits until the program has started
    process.send_signal(signal.SIGINT)  # to persona alone
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.endswith(
        "persona: interrupted\nhint: the same `persona bisect run` goes on with this commit\n"
    )
    assert planted_bot.ok("bisect", "log") == log
    assert "is the first bad commit" in planted_bot.ok("bisect", "run", sys.executable, "-c", TEST)


def test_bisect_run_of_persona_itself_reads_the_commit_as_it_stands(planted_bot: CommandLine) -> None:
    planted_bot.ok("bisect", "start", "HEAD", "v1")
    script = [*PROGRAM, "diff", "--exit-code", "v1"]
    done = persona_process(planted_bot.directory, "bisect", "run", *script)
    assert done.returncode == 0, done.stderr
    assert f"    step {FIRST}\n" in done.stdout
