"""Every command can be learned from its help and from docs/commands.md, and both say the same."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from persona.cli.command import CommandGroup
from persona.cli.invocation import Invocation
from persona.cli.main import SECTIONS, cli
from persona.cli.words import ABSENT, OF_COMMANDS, OPTIONS, PLANNED, absent
from tests.cli.command_line import CommandLine
from tests.cli.commands import COMMANDS, CONTEXT, groups
from tests.docs.pages import table

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"
each_command = pytest.mark.parametrize("name", COMMANDS)


@each_command
def test_help_has_a_summary_a_paragraph_and_an_example(name: str, outside: CommandLine) -> None:
    text = outside.ok(*name.split(), "--help")
    summary, _, paragraph = (COMMANDS[name].help or "").partition("\n\n")
    assert summary.endswith(".")
    assert "\n" not in summary
    assert len(paragraph.split()) >= 8
    assert f"$ persona {name}" in text.partition("Example:")[2]


@pytest.mark.parametrize(("name", "group"), list(groups()))
def test_a_group_has_a_summary_a_paragraph_and_an_example(name: str, group: CommandGroup) -> None:
    summary, _, paragraph = (group.help or "").partition("\n\n")
    assert summary.endswith(".")
    assert len(paragraph.split()) >= 8
    assert re.search(rf"^\$ persona {name} \w", group.example)


@each_command
def test_the_example_of_a_command_can_be_typed(name: str) -> None:
    lines = COMMANDS[name].example.splitlines()
    assert lines
    for line in lines:
        for words in spoken(line):
            parse(words)


ANSWERS = {
    "init": "init ../new --base ../base",
    "help": "help commit",
    "add": "add ../suggesting",
    "commit": "commit ../suggesting -m more",
    "import": "import ../recipe.yml",
    "set": "set listening --alpha 0.25",
    "rm": "rm listening",
    "mv": "mv listening attentive",
    "restore": "restore recipe.toml",
    "build": None,
    "train": None,
    "status": "status",
    "log": "log",
    "show": "show",
    "notes list": "notes",
    "notes show": "notes show HEAD~1",
    "notes add": "notes add -m calm",
    "notes append": "notes append -m calm HEAD~1",
    "notes edit": None,
    "notes remove": "notes remove HEAD~1",
    "describe": "describe --always",
    "blame": "blame",
    "diff": "diff HEAD~1 HEAD",
    "verify": None,
    "sweep": None,
    "tune": None,
    "chat": None,
    "generate": None,
    "vector ls": "vector ls",
    "vector take": "vector take listening --from HEAD",
    "vector show": "vector show listening",
    "vector derive": "vector derive less -listening * 0.5",
    "vector extract": None,
    "vector rm": None,
    "graph check": "graph check",
    "graph status": "graph status",
    "graph show": "graph show",
    "graph import": None,
    "graph export": None,
    "digest": "digest",
    "export": None,
    "identify": "identify ../listening",
    "bisect status": "bisect",
    "bisect start": "bisect start HEAD HEAD~2",
    "bisect good": None,
    "bisect bad": None,
    "bisect skip": None,
    "bisect next": None,
    "bisect run": None,
    "bisect log": None,
    "bisect replay": None,
    "bisect reset": "bisect reset",
    "checkout": "checkout",
    "switch": "switch -c warm",
    "branch": "branch",
    "tag": "tag",
    "merge": "merge HEAD~1",
    "cherry-pick": None,
    "rebase": "rebase HEAD",
    "revert": "revert listening",
    "stash push": "stash",
    "stash pop": None,
    "stash apply": None,
    "stash branch": None,
    "stash list": None,
    "stash show": None,
    "stash drop": None,
    "stash clear": "stash clear",
    "reset": "reset HEAD~1",
    "reflog show": "reflog",
    "reflog expire": "reflog expire -n",
    "config": "config user.name Ada",
    "fsck": "fsck",
    "count-objects": "count-objects",
    "warm-up": None,
    "cat-file": "cat-file HEAD",
    "rev-parse": "rev-parse HEAD",
    "completion": "completion bash",
}
"""What is typed to see each command answer in JSON; None where so small a repository cannot, or
where it takes a minute."""


@each_command
def test_every_command_answers_with_the_json_of_the_page(name: str, grown: CommandLine) -> None:
    line = ANSWERS[name]
    entry = json_of(name)
    if line is not None:
        grown.ok("tag", "v1")
        grown.ok("notes", "add", "-m", "eager", "HEAD~1")
        answer = grown.json(*line.split())
        assert entry.startswith("[") == isinstance(answer, list)
        keys = set(answer[0] if isinstance(answer, list) else answer)
        assert keys
        assert keys <= set(re.findall(r'"(\w+)"', entry))


def json_of(name: str) -> str:
    """What the page gives as the JSON of a command; one entry may refer to another."""
    block = DOCS.read_text().partition("\n## JSON\n")[2].split("```")[1]
    for heads, entry in re.findall(r"^(\w.*?)(?:  +|\n +)(.*(?:\n .*)*)", block, re.MULTILINE):
        if name in heads.split(", "):
            referred = re.search(r"(?:one entry of|one of) (\w+(?: ls)?)?", entry)
            if referred and not entry.startswith("["):
                other = referred[1] if referred[1] not in (None, "these") else "vector ls"
                return "{" + entry + json_of(other)
            return str(entry)
    raise AssertionError(f"docs/commands.md gives no JSON for {name}")


def spoken(line: str) -> Iterator[list[str]]:
    """The words of every persona command on a line of a shell."""
    if line.lstrip().startswith("$ "):
        for part in line.lstrip().removeprefix("$ ").split("#")[0].split(" && "):
            eval_of = re.fullmatch(r'eval "\$\((.*)\)"\s*', part)
            words = shlex.split(eval_of[1] if eval_of else part)
            for end in (">", "<", "|"):
                words = words[: words.index(end)] if end in words else words
            if words[:1] == ["persona"]:
                yield words[1:]


def parse(words: list[str]) -> None:
    """Takes a command line apart as the command itself would, and does nothing. Raises for one that is
    wrong.
    """
    context = cli.make_context("persona", words[:], obj=Invocation())
    command: click.Command | None = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        _, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(command.name, rest, parent=context)
        rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []


def pages() -> Iterator[tuple[str, str]]:
    """Every line of every page that shows a persona command as it is typed."""
    root = DOCS.parents[1]
    for page in sorted([*DOCS.parent.rglob("*.md"), root / "README.md"]):
        for line in page.read_text().splitlines():
            if line.startswith("$ "):
                yield page.name, line


@pytest.mark.parametrize(("page", "line"), list(pages()))
def test_every_command_that_a_page_shows_can_be_typed(page: str, line: str) -> None:
    for words in spoken(line):
        parse(words)


@each_command
def test_every_option_has_a_line_of_help(name: str) -> None:
    options = [option for option in COMMANDS[name].params if isinstance(option, click.Option)]
    assert not [option.name for option in options if not option.help]


@each_command
def test_the_page_shows_every_command_and_every_flag(name: str) -> None:
    section = section_of(name.split()[0])
    flags = {
        max(option.opts, key=len)
        for option in COMMANDS[name].params
        if isinstance(option, click.Option) and not option.hidden
    }
    everywhere = {"--json", "--quiet", "--verbose", "--help"}
    missing = [flag for flag in flags - everywhere if not re.search(rf"{re.escape(flag)}\b", section)]
    assert f"persona {name}" in section
    assert not missing


def section_of(command: str) -> str:
    """What docs/commands.md says under the heading of a command."""
    text = DOCS.read_text()
    found = re.search(rf"^### `{re.escape(command)}`\n(.*?)(?=^##)", text + "\n##", re.MULTILINE | re.DOTALL)
    assert found, f"docs/commands.md has no section for {command}"
    return found[1]


def test_the_page_has_no_command_that_does_not_exist() -> None:
    headed = re.findall(r"^### `([\w-]+)`$", DOCS.read_text(), re.MULTILINE)
    assert headed == cli.list_commands(CONTEXT)


def test_the_list_of_commands_has_the_summaries_of_the_commands() -> None:
    for section in SECTIONS.values():
        for name, summary in section.items():
            command = cli.get_command(CONTEXT, name)
            assert command is not None
            assert (command.help or "").partition("\n\n")[0] == summary


@pytest.mark.parametrize(
    ("typed", "meant"), [("statsu", "status"), ("comit", "commit"), ("lgo", "log"), ("chekout", "checkout")]
)
def test_a_slip_is_answered_with_the_command_that_was_meant(
    outside: CommandLine, typed: str, meant: str
) -> None:
    assert f"did you mean `persona {meant}`?" in outside.refused(2, typed)


@pytest.mark.parametrize("word", ["lo-g-s", "x", "practise", "undo", "list", "history"])
def test_any_other_word_gets_the_list_and_no_guess(outside: CommandLine, word: str) -> None:
    sentence = outside.refused(2, word)
    assert "persona help" in sentence
    assert "did you mean" not in sentence


@pytest.mark.parametrize("word", [*PLANNED, *ABSENT])
def test_a_command_of_gits_is_answered_by_name(outside: CommandLine, word: str) -> None:
    sentence = outside.refused(2, word, "--anything", "x")
    assert sentence.startswith(f"persona has no `{word}`")
    assert "did you mean" not in sentence
    assert outside.refused(2, "help", word) == sentence


def test_every_command_of_gits_is_known_or_answered() -> None:
    listed = subprocess.run(
        ["git", "--list-cmds=list-mainporcelain,list-ancillarymanipulators"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ours = cli.list_commands(CONTEXT)
    assert not [name for name in listed if name not in ours and absent(name) is None]
    assert not [name for name in {*PLANNED, *ABSENT} if name in ours]


@pytest.mark.parametrize("name", ["fetch-pack", "index-pack", "multi-pack-index", "unpack-file", "mailinfo"])
def test_a_command_that_git_runs_for_itself_is_answered_too(name: str) -> None:
    assert absent(name) == f"persona has no `{name}`; `persona help` lists the commands"


def test_the_advice_for_a_command_of_gits_names_commands_that_there_are() -> None:
    options = (advice for command in OF_COMMANDS.values() for advice in command.values())
    for advice in {*PLANNED.values(), *ABSENT.values(), *OPTIONS.values(), *options}:
        for quoted in re.findall(r"`persona ([^-`][^`]*)`", advice):
            parse(quoted.replace("A...B", "main...v1").split())


def test_the_page_about_git_lists_each_option_that_is_missing_with_what_to_do_instead() -> None:
    listed = []
    for options, advice in table("git.md", "option", holding="instead"):
        command, *rest = options.split()
        listed += [(command, option.strip(","), advice) for option in rest]
    known = [
        (command, option, advice.replace("`", ""))
        for command, options in OF_COMMANDS.items()
        for option, advice in options.items()
    ]
    assert sorted(listed) == sorted(known)


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_an_option_of_gits_that_is_missing_is_answered_with_what_to_do_instead(
    outside: CommandLine, command: str
) -> None:
    for option, advice in OF_COMMANDS[command].items():
        said = outside.refused(2, command, option)
        assert f"; {advice} (see `persona {command}" in said, (option, said)


@pytest.mark.parametrize(
    "line", ["branch --sort x", "reset --merge", "log --cherry HEAD", "tag --sort x", "status --renames"]
)
def test_an_option_that_is_missing_gets_no_guess_that_means_something_else(
    grown: CommandLine, line: str
) -> None:
    sentence = grown.refused(2, *line.split())
    assert "did you mean" not in sentence.lower()
    assert f"(see `persona {line.split()[0]} --help`)" in sentence


@pytest.mark.parametrize("line", ["diff --cached", "diff --staged", "restore --staged ."])
def test_an_option_of_the_staging_area_is_told_that_there_is_none(outside: CommandLine, line: str) -> None:
    assert "; there is no staging area: `persona commit` records" in outside.refused(2, *line.split())


@pytest.mark.parametrize(
    ("line", "meant"),
    [("set x --alhpa 1", "--alpha"), ("log --onelin", "--oneline"), ("diff --stta", "--stat")],
)
def test_an_option_that_was_mistyped_is_answered_with_the_right_one(
    grown: CommandLine, line: str, meant: str
) -> None:
    assert f"did you mean {meant}?" in grown.refused(2, *line.split())


@each_command
def test_help_shows_what_the_option_shows(name: str, outside: CommandLine) -> None:
    assert outside.ok("help", *name.split()) == outside.ok(*name.split(), "--help")


def test_help_of_nothing_is_the_list(outside: CommandLine) -> None:
    assert outside.ok("help") == outside.ok("--help")
    assert outside.ok("help", "vector") == outside.ok("vector", "--help")
    assert "did you mean `persona commit`?" in outside.refused(2, "help", "comit")
    assert "it has derive, extract, ls, rm, show" in outside.refused(2, "vector", "list")
    assert "no commands of its own" in outside.refused(2, "help", "commit", "more")


def test_options_that_every_command_has_may_stand_anywhere(grown: CommandLine) -> None:
    shown = grown.json("vector", "ls")
    for words in (["vector", "--json", "ls"], ["vector", "ls", "--json"], ["--json", "vector", "ls"]):
        assert json.loads(grown.ok(*words)) == shown
    grown.ok("vector", "-q", "ls")


def test_ids_in_json_are_whole(grown: CommandLine) -> None:
    assert grown.json("rev-parse", "--short", "HEAD") == grown.json("rev-parse", "HEAD")


def test_json_of_the_page_for_what_has_several_forms(grown: CommandLine) -> None:
    assert grown.json("branch", "--show-current") == {"branch": "main"}
    assert grown.json("branch", "-m", "trunk") == {"from": "main", "to": "trunk"}
    grown.ok("config", "user.name", "Ada")
    assert grown.json("config", "--unset", "user.name") == {"unset": "user.name"}
    (grown.directory / "recipe.toml").write_text("base = \n")
    assert "recipe.toml" in grown.json("status")["problem"]


def test_no_command_at_all_shows_the_list(outside: CommandLine) -> None:
    assert re.search("checkout +Compute the weights", outside("--help").stdout)
    for words in ([], ["vector"]):
        result = CliRunner().invoke(cli, words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Usage: ")


def test_the_version_is_printed(outside: CommandLine) -> None:
    assert outside.ok("--version").startswith("persona 0.")
