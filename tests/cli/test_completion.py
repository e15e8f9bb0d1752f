"""The Tab key: what it offers, that it is quick and silent, and that real shells take it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from persona.cli.completions import SETTINGS, VARIABLE
from persona.cli.main import cli
from persona.cli.shells import SHELLS
from persona.objects.rules import AXES, CHOICES, PRESETS
from tests.checkpoints import write_model
from tests.cli.command_line import BASE, LISTENING, SUGGESTING, CommandLine
from tests.cli.commands import COMMANDS
from tests.cli.processes import PROGRAM, environment


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A repository with three branches, two tags, two patterns, and two vectors, one with a space in its
    name. Tests look at it and leave it.
    """
    models = tmp_path_factory.mktemp("models")
    write_model(models / "base", BASE)
    write_model(models / "listening", LISTENING)
    write_model(models / "suggesting", SUGGESTING)
    CommandLine(models).ok("init", "mybot", "--base", "base")
    persona = CommandLine(models / "mybot")
    persona.ok("commit", "../listening", "-m", "listen", "--alpha", "0.5")
    persona.ok("add", "../suggesting", "-n", "less pushy", "--alpha", "-0.5")
    for branch in ("warm", "team/warm"):
        persona.ok("branch", branch)
    for tag in ("v1", "v2"):
        persona.ok("tag", tag)
    (models / "mybot" / "graph").mkdir()
    for key in ("calm", "listening"):
        (models / "mybot" / "graph" / f"{key}.md").write_text(f'+++\nkey = "{key}"\n+++\n')
    return persona


def offered(at: CommandLine | Path, line: str) -> list[str]:
    """What is offered after a line that is typed after `persona -C` and the repository, or another path."""
    directory = at.directory if isinstance(at, CommandLine) else at
    *words, begun = line.split(" ")
    completion = ShellComplete(cli, {}, "persona", VARIABLE)
    return [item.value for item in completion.get_completions(["-C", str(directory), *words], begun)]


REVISIONS = ["HEAD", "main", "team/warm", "warm", "v1", "v2"]
BRANCHES = ["main", "team/warm", "warm"]
VECTORS = ["listening", "less pushy"]


@pytest.mark.parametrize(
    "line",
    [
        "checkout ",
        "log ",
        "show ",
        "diff ",
        "diff main ",
        "digest ",
        "reset --hard ",
        "rev-parse ",
        "cat-file -p ",
        "restore --source ",
        "branch new ",
        "tag new ",
        "switch --detach ",
        "switch -c new ",
    ],
)
def test_revisions_are_offered_where_one_is_asked_for(named: CommandLine, line: str) -> None:
    assert offered(named, line) == REVISIONS


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("checkout t", ["team/warm"]),
        ("log main..w", ["main..warm"]),
        ("log main...v", ["main...v1", "main...v2"]),
        ("switch ", BRANCHES),
        ("branch -d ", BRANCHES),
        ("branch -m w", ["warm"]),
        ("reflog ", ["HEAD", *BRANCHES]),
        ("tag -d ", ["v1", "v2"]),
        ("add x --onto ", ["base", *REVISIONS]),
        ("commit x --onto b", ["base"]),
        ("set ", VECTORS),
        ("set listening ", []),
        ("rm ", VECTORS),
        ("rm listening ", ["less pushy"]),
        ("mv l", VECTORS),
        ("revert l", VECTORS),
        ("revert ", [*VECTORS, *REVISIONS]),
        ("revert --vector ", VECTORS),
        ("log --vector ", VECTORS),
        ("vector show ", VECTORS),
        ("vector derive ", VECTORS),
        ("vector derive less ", VECTORS),
        ("vector rm ", []),
        ("vector s", ["show"]),
        ("graph s", ["show", "status"]),
        ("graph show ", ["calm", "listening"]),
        ("train ", ["calm", "listening"]),
        ("train calm ", ["listening"]),
        ("build calm ", ["listening"]),
        ("verify --probe l", ["listening"]),
        ("sweep l", VECTORS),
        ("sweep listening --probe l", ["listening"]),
        ("sweep listening --preset pa", ["paper"]),
        ("sweep listening --join a", ["add"]),
        ("tune --probe l", ["listening"]),
        ("tune --vector ", VECTORS),
        ("chat m", ["main"]),
        ("generate --alpha ", ["listening=", "less pushy="]),
        ("generate --alpha listening=1 --alpha ", ["less pushy="]),
        ("set listening --join ", ["vote", "add"]),
        ("checkout --device ", ["auto", "cpu", "cuda"]),
        ("checkout --dtype b", ["bfloat16"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("config ", list(SETTINGS)),
        ("config commit.", ["commit.checkout"]),
        ("config commit.checkout ", ["true", "false"]),
        ("config user.name ", []),
        ("config merge.preset pa", ["paper"]),
        ("checkout --no-w", ["--no-weights"]),
        ("checko", ["checkout"]),
        ("rev", ["revert", "rev-parse"]),
        ("commit -m ", []),
    ],
)
def test_the_words_that_fit_are_offered(named: CommandLine, line: str, words: list[str]) -> None:
    assert offered(named, line) == words


def test_every_rule_and_all_that_it_may_be_are_offered(named: CommandLine) -> None:
    assert offered(named, "set --merge ") == [f"{axis}=" for axis in ("preset", *AXES)]
    assert offered(named, "set --merge preset=paper rank=plus1 t") == ["trim="]
    for axis, choices in {"preset": tuple(PRESETS), **CHOICES}.items():
        assert offered(named, f"set --merge {axis}=") == [f"{axis}={choice}" for choice in choices]
    assert offered(named, "set --merge density=") == []


def test_after_C_files_are_those_of_its_directory(named: CommandLine) -> None:
    assert offered(named, "restore rec") == ["recipe.toml"]
    assert offered(named, "checkout HEAD~1 -- rec") == ["recipe.toml"]
    assert offered(named, "checkout -- rec") == ["recipe.toml"]
    assert offered(named, "add ../li") == ["../listening/"]
    assert offered(named, "init ../li") == ["../listening/"]
    assert offered(named, "checkout -o ../base/") == []
    assert offered(named, "add ../base/m") == ["../base/model.safetensors"]


def test_elsewhere_the_shell_finds_the_files() -> None:
    completion = ShellComplete(cli, {}, "persona", VARIABLE)
    for words, kind in ((["add"], "file"), (["init"], "dir"), (["-C"], "dir"), (["checkout", "--"], "file")):
        (item,) = completion.get_completions(words, "x")
        assert (item.type, item.value) == (kind, "x")


UNKNOWABLE = {
    "A", "A,…", "CMD", "D", "D,…", "DATE", "GLOB", "MSG", "N", "NAME", "NAME,…", "NEW", "P", "R", "RE", "S",
    "T", "TENSOR", "TERM", "TEXT", "X", "new", "prompt",
}  # fmt: skip
"""The metavars (or names) of what only the user can know: a number, a text, a pattern, a date, a new name."""


def silent() -> Iterator[str]:
    """Every parameter that takes a word and offers none."""
    for name, command in COMMANDS.items():
        for parameter in command.params:
            flag = isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count)
            offers = parameter._custom_shell_complete is not None or isinstance(parameter.type, click.Choice)
            if not flag and not offers and (parameter.metavar or parameter.name) not in UNKNOWABLE:
                yield f"{name}: {parameter.name}"


def test_every_parameter_offers_something_or_takes_what_only_the_user_knows() -> None:
    assert not list(silent())


def test_nothing_is_offered_and_nothing_said_outside_a_repository(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in ("checkout ", "set ", "log --vector ", "switch ", "tag -d ", "vector show "):
        assert offered(tmp_path, line) == []
    assert offered(tmp_path / "nowhere", "add ") == []
    assert offered(tmp_path, "set --merge tr") == ["trim="]
    assert capfd.readouterr() == ("", "")


def test_a_broken_recipe_or_a_damaged_ref_leaves_the_rest(grown: CommandLine) -> None:
    grown.ok("tag", "v1")
    (grown.directory / "recipe.toml").write_text("[vectors\n")
    assert offered(grown, "rm ") == []
    (grown.directory / ".persona/refs/tags/v1").write_text("nonsense\n")
    assert offered(grown, "checkout ") == ["HEAD", "main"]


@pytest.mark.parametrize("line", ["nonsense ", "vector nonsense ", "checkout --nonsense ", "log 'main", '"'])
def test_a_line_that_makes_no_sense_is_no_error(named: CommandLine, line: str) -> None:
    done = asked(named, f"persona {line}")
    assert (done.returncode, done.stderr) == (0, "")


def asked(where: CommandLine, line: str) -> subprocess.CompletedProcess[str]:
    """What a process answers to the script of bash."""
    return subprocess.run(
        PROGRAM,
        cwd=where.directory,
        env=environment(COMP_WORDS=line, **{VARIABLE: "bash_complete"}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_instruction_that_is_unknown_is_refused_in_silence(named: CommandLine) -> None:
    for instruction in ("tcsh_complete", "bash_dance", ""):
        done = subprocess.run(
            PROGRAM,
            cwd=named.directory,
            env=environment(COMP_WORDS="persona ", **{VARIABLE: instruction}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("", "")
        assert done.returncode == 1


@pytest.mark.parametrize("line", ["", "set ", "log main..", "config "])
def test_completing_imports_nothing_heavy(named: CommandLine, line: str) -> None:
    code = (
        "import sys\n"
        "from persona.cli.main import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "print([name for name in sys.modules if name.startswith('persona.cli.commands.')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=named.directory,
        env=environment(COMP_WORDS=f"persona {line}", **{VARIABLE: "bash_complete"}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout
    modules, commands = map(eval, done.stderr.splitlines())
    heavy = {"numpy", "numba", "torch", "transformers", "zstandard", "rich", "tomlkit", "subprocess"}
    assert not heavy & set(modules)
    assert commands == [f"persona.cli.commands.{word}" for word in line.split()[:1]]


# -- the scripts in their shells


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A `persona` for a shell to find."""
    directory = tmp_path / "bin"
    directory.mkdir()
    file = directory / "persona"
    file.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    file.chmod(0o755)
    return directory


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed_and_its_shell_can_read_it(
    outside: CommandLine, tmp_path: Path, shell: str
) -> None:
    script = outside.ok("completion", shell)
    assert f"{VARIABLE}={shell}_complete" in script
    assert outside.json("completion", shell) == {"shell": shell, "script": script}
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_no_shell_or_another_one_is_a_usage_error(outside: CommandLine) -> None:
    outside.refused(2, "completion")
    assert "bash" in outside.refused(2, "completion", "tcsh")


def in_shell(named: CommandLine, program: Path, words: list[str]) -> str:
    """What a shell prints."""
    path = f"{program}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=named.directory,
        env=environment(PATH=path, HOME=str(program)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


BASH = """\
eval "$(persona completion bash)"
complete -p persona > /dev/null || exit 1
COMP_LINE=$1; COMP_POINT=${2:-${#1}}
COMP_WORDS=($3); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_persona_completion persona
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("persona checko", ["checkout"]),
        ("persona switch ", BRANCHES),
        ("persona set --merge tri", ["trim="]),
        ("persona set --merge trim=gl", ["global"]),  # readline takes what stands after = for the word
        ("persona log main..w", ["main..warm"]),
        ("persona rm le", [r"less\ pushy"]),
        ('persona rm "le', ["less pushy"]),
        ("persona rm less\\ pu", [r"less\ pushy"]),
        ("persona -C .. vector sh", ["show"]),
        ("persona checkout HEAD@{", [""]),
    ],
)
def test_bash_takes_the_answers(named: CommandLine, program: Path, line: str, replies: list[str]) -> None:
    last = line.split(" ")[-1] or "''"
    shown = in_shell(named, program, ["bash", "--norc", "-c", BASH, "bash", line, "", last])
    assert shown.splitlines() == replies


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_in_the_middle_of_a_line(named: CommandLine, program: Path) -> None:
    line = "persona swi main"
    shown = in_shell(named, program, ["bash", "--norc", "-c", BASH, "bash", line, "11", "swi"])
    assert shown.splitlines() == ["switch"]


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_takes_the_answers(named: CommandLine, program: Path) -> None:
    for line, replies in {
        "persona set --merge trim=gl": ["trim=global"],
        "persona rm ": ["listening\tα 0.5", "less pushy\tα -0.5"],
        "persona restore rec": ["recipe.toml"],
    }.items():
        code = f"persona completion fish | source; complete -C {shlex.quote(line)}"
        shown = in_shell(named, program, ["fish", "--no-config", "-c", code])
        assert sorted(shown.splitlines()) == sorted(replies)


ZSH = """\
autoload -Uz compinit && compinit -u -D
eval "$(persona completion zsh)"
compadd() { [[ " $* " == *' -a '* ]] && print -rl -- ${(P)@[-1]} }
_describe() { print -rl -- ${(P)3} }
words=("${(@Q)${(z)1}}"); [[ $1 == *' ' ]] && words+=('')
CURRENT=$#words
_persona_completion
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_takes_the_answers(named: CommandLine, program: Path) -> None:
    for line, replies in {
        "persona set --merge trim=gl": ["trim=global"],
        "persona set --merge tri": ["trim="],
        "persona rm ": ["listening:α 0.5", "less pushy:α -0.5"],
        "persona switch w": ["warm:branch"],
    }.items():
        shown = in_shell(named, program, ["zsh", "-f", "-c", ZSH, "zsh", line])
        assert shown.splitlines() == replies
