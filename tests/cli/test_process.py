"""What only a process of its own can show: start-up, pipes, signals, editors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine
from tests.cli.processes import PROGRAM, environment, on_a_terminal, persona_process, write_editor


def test_a_process_prints_and_exits(grown: CommandLine) -> None:
    done = persona_process(grown.directory, "log", "--oneline")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
    done = persona_process(grown.directory, "log", "nowhere")
    assert (done.returncode, done.stdout) == (3, "")


def test_looking_imports_nothing_heavy(grown: CommandLine) -> None:
    for words in (
        ["log", "-p", "--graph"],
        ["status"],
        ["diff", "HEAD~1", "HEAD"],
        ["show"],
        ["branch", "-v"],
    ):
        code = f"import sys; sys.argv[1:] = {words!r}\n" + (
            "from persona.cli.main import cli\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=grown.directory,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        heavy = {"numpy", "numba", "torch", "transformers", "zstandard", "rich", "tomlkit", "subprocess"}
        assert not heavy & set(eval(done.stderr.splitlines()[-1]))


def test_one_command_loads_one_command(grown: CommandLine) -> None:
    code = (
        "import sys; sys.argv[1:] = ['rev-parse', 'HEAD']\n"
        "from persona.cli.main import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('persona.cli.commands.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=grown.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "['persona.cli.commands.rev_parse']"


def test_a_reader_that_leaves_early_is_no_error(grown: CommandLine) -> None:
    for _ in range(3):
        grown.ok("commit", "--allow-empty", "-m", "x" * 100_000)
    with subprocess.Popen(
        [*PROGRAM, "log"],
        cwd=grown.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_colour_appears_on_a_terminal_but_not_with_no_color(grown: CommandLine) -> None:
    code, coloured = on_a_terminal(grown.directory, "log", "--oneline")
    assert (code, "\x1b[33m" in coloured) == (0, True)
    code, plain = on_a_terminal(grown.directory, "log", "--oneline", NO_COLOR="1")
    assert (code, "\x1b" in plain) == (0, False)
    assert "(HEAD -> main)" in plain


def test_the_editor_writes_the_message(grown: CommandLine, tmp_path: Path) -> None:
    editor = write_editor(tmp_path / "editor", 'cp "$1" "$0.saw"; printf "from the editor\\n# no\\n" > "$1"')
    grown.ok("set", "listening", "--alpha", "0.25")
    code, said = on_a_terminal(grown.directory, "commit", PERSONA_EDITOR=editor, EDITOR="/bin/false")
    assert code == 0, said
    assert grown.json("log", "-1")[0]["message"].strip() == "from the editor"
    assert "#     vector:     listening  α 0.50 → 0.25" in (tmp_path / "editor.saw").read_text()


def test_an_empty_message_gives_the_commit_up(grown: CommandLine, tmp_path: Path) -> None:
    editor = write_editor(tmp_path / "editor", ': > "$1"')
    grown.ok("set", "listening", "--alpha", "0.25")
    code, said = on_a_terminal(grown.directory, "commit", PERSONA_EDITOR=editor)
    assert (code, "the message is empty" in said) == (1, True)
    assert len(grown.json("log")) == 3


def _interruptible() -> None:
    """Undoes what a shell does to the commands that it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_exits_with_130(grown: CommandLine) -> None:
    os.mkfifo(grown.directory / "message")
    process = subprocess.Popen(
        [*PROGRAM, "commit", "--allow-empty", "-F", "message"],
        cwd=grown.directory,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_interruptible,
    )
    with process, (grown.directory / "message").open("w"):  # opens once the process waits for a writer
        for _ in range(60):  # one that falls between opening and reading is only seen at the next
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                continue
        process.kill()  # in vain, if it was interrupted
        _, said = process.communicate()
    assert process.returncode == 130
    assert said.strip() == "persona: interrupted"


INTERRUPT_AT = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Interrupt(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = ["log"]
from persona.cli.entry import main
main()
"""


@pytest.mark.parametrize(
    ("name", "ended", "said"),
    [
        ("click", -signal.SIGINT, ""),
        ("persona.cli.main", -signal.SIGINT, ""),
        ("persona.cli.commands.log", 130, "persona: interrupted\n"),
        ("persona.repository", 130, "persona: interrupted\n"),
    ],
)
def test_an_interrupt_while_modules_are_loaded_prints_no_traceback(
    grown: CommandLine, name: str, ended: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT_AT.format(name=name)],
        cwd=grown.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_interruptible,
    )
    assert (done.returncode, done.stdout, done.stderr) == (ended, "", said)


def test_the_installed_command_begins_with_the_entry() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"persona": "persona.cli.entry:main"}


@pytest.mark.parametrize(
    "words", ["log", "log --oneline --graph", "branch", "reflog", "show", "diff HEAD~1 HEAD"]
)
def test_looking_loads_only_what_it_needs(grown: CommandLine, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", PROGRAM[-1], *words.split()],
        cwd=grown.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "persona.repository" in loaded
    unwanted: tuple[str, ...] = (
        "persona.merge",
        "persona.history.recipes.linediff",
        "persona.history.verbs.checkout",
    )
    if words.split()[0] not in (
        "show",
        "diff",
    ):  # those know which files are tracked, and so what weights are
        unwanted += ("persona.weights",)
    assert not [name for name in loaded if name.startswith(unwanted)]
