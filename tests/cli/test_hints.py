"""What an error advises is worded for whoever reads it, and can be typed as it stands."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import persona
from persona.cli.errors import guarded
from persona.cli.hints import command_line, in_shell
from persona.cli.invocation import Invocation
from persona.cli.main import cli
from persona.errors import Blank, Call, InvalidInput, Keyword, Note, Refused, WorkFile, worded
from persona.face.bisect import Bisect
from persona.face.graph import Patterns
from persona.face.notes import Notes
from persona.face.recipe import WorkingRecipe
from persona.face.refs import Branches, Tags
from persona.face.settings import Settings
from persona.face.stash import Stashes
from persona.face.vectors import Vectors
from persona.history.recipes.checked import DEFAULT
from persona.repository import Repository

from .conftest import CommandLine

PACKAGE = Path(persona.__file__).parent
NAMES = {"DEFAULT": DEFAULT, "RECIPE_FILE": "recipe.toml", "COLD": "none"}


OWNERS = {
    "": Repository,
    "recipe": WorkingRecipe,
    "vectors": Vectors,
    "graph": Patterns,
    "bisect": Bisect,
    "branches": Branches,
    "tags": Tags,
    "notes": Notes,
    "stash": Stashes,
    "config": Settings,
}


def library() -> Iterator[tuple[str, ast.Module]]:
    """Every module below the command line."""
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE).as_posix()
        if not path.startswith(("cli/", "__main__")):
            yield path, ast.parse(file.read_text())


def value(node: ast.expr) -> Any:
    """A word of a hint; what is only known when the error is raised stands as a word of its own."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Blank":
        return Blank(ast.literal_eval(node.args[0]))
    if isinstance(node, ast.Dict):
        return {
            ast.literal_eval(key): value(item)
            for key, item in zip(node.keys, node.values, strict=True)
            if key
        }
    return NAMES.get(ast.unparse(node), "word")


def methods(node: ast.expr) -> list[str]:
    """The methods that a call may name; made_again's, which come in a variable, are tried by `advised`."""
    if isinstance(node, ast.IfExp):
        return [*methods(node.body), *methods(node.orelse)]
    return [str(node.value)] if isinstance(node, ast.Constant) else []


def advised() -> Iterator[Any]:
    """Every call that a hint of the library advises."""
    for path, tree in library():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "Call" or path == "errors.py":
                continue
            arguments = [value(arg) for arg in node.args[1:] if not isinstance(arg, ast.Starred)]
            arguments += ["A", "B"] if any(isinstance(arg, ast.Starred) for arg in node.args) else []
            keywords = {str(keyword.arg): value(keyword.value) for keyword in node.keywords if keyword.arg}
            for method in methods(node.args[0]):
                yield pytest.param(Call(method, *arguments, **keywords), id=f"{path}:{node.lineno}")
    yield Call("branches.create", "lost", "3f2a91c0")
    yield Call("tags.create", "lost", "3f2a91c0")


@pytest.mark.parametrize("call", list(advised()))
def test_a_call_that_is_advised_can_be_made_in_python(call: Call) -> None:
    own = () if call.method == "init" else ("self",)
    owner, _, name = call.method.rpartition(".")
    method = getattr(persona if call.method == "init" else OWNERS[owner], name)
    bound = inspect.signature(method).bind(*own, *call.arguments, **call.values)
    assert "kwargs" not in bound.arguments


@pytest.mark.parametrize("call", list(advised()))
def test_a_call_that_is_advised_can_be_typed(call: Call) -> None:
    words = shlex.split(command_line(call))
    context = cli.make_context("persona", words[:], obj=Invocation())
    command: click.Command | None = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        _, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(command.name, rest, parent=context)
        rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []


def test_no_sentence_of_the_library_speaks_of_flags_or_commands() -> None:
    commands = "|".join(("persona", *cli.list_commands(click.Context(cli))))
    flag = re.compile(rf"(?<![\w%-])(?:--[a-z][a-z-]+|-[a-zA-Z])(?![\w-])|`(?:{commands}) ")
    # Declarations, the log of bisect, the list of a rebase, and the command lines of other programs:
    # `hf download`, `lm_eval`.
    allowed = ("history/options.py", "behaviour/options.py", "errors.py", "weights/hub.py")
    allowed += ("behaviour/measuring/tasks.py", "history/bisecting/log.py", "history/sequencing/todo_list.py")
    spoken = []
    for path, tree in library():
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if path in allowed or not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            if node not in docs and flag.search(node.value):
                spoken.append(f"{path}:{node.lineno}: {node.value[:80]}")
    assert not spoken


@pytest.mark.parametrize(
    ("hint", "in_python", "typed"),
    [
        (Keyword(allow_nonfinite=True), "allow_nonfinite=True", "--allow-nonfinite"),
        (Keyword(weights=False), "weights=False", "--no-weights"),
        (Keyword(except_="*norm*"), "except_='*norm*'", "--except '*norm*'"),
        (Keyword("dtype"), "dtype", "--dtype"),
        (Keyword(name=Blank("NAME")), "name=NAME", "--name NAME"),
        (
            Call("checkout", "a b", force=True),
            "`repo.checkout('a b', force=True)`",
            "`persona checkout -f 'a b'`",
        ),
        (Call("reset", mode="hard"), "`repo.reset(mode='hard')`", "`persona reset --hard`"),
        (
            Call("recipe.set_rules", {"density": "0.2"}),
            "`repo.recipe.set_rules({'density': '0.2'})`",
            "`persona set --merge density=0.2`",
        ),
        (Call("init", base=Blank("MODEL")), "`persona.init(base=MODEL)`", "`persona init --base MODEL`"),
        (Call("restore", ["a", "b c"]), "`repo.restore(['a', 'b c'])`", "`persona restore a 'b c'`"),
        (Call("restore", WorkFile("-x y")), "`repo.restore('-x y')`", "`persona restore -- '-x y'`"),
        (Call("config.set", "a.b", "-"), "`repo.config.set('a.b', '-')`", "`persona config a.b -`"),
        (("wait, or ", Keyword(force=True)), "wait, or force=True", "wait, or -f"),
        ("run it again", "run it again", "run it again"),
    ],
)
def test_a_hint_has_the_words_of_its_reader(hint: Any, in_python: str, typed: str) -> None:
    assert worded(hint) == in_python
    assert in_shell(hint) == typed


def test_an_error_shows_its_hint_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidInput("3 elements are not finite", hint=("give ", Keyword(allow_nonfinite=True)))
    assert str(error) == "3 elements are not finite\nhint: give allow_nonfinite=True"
    assert error.message == "3 elements are not finite"
    assert str(Refused("no")) == "no"


def test_the_command_line_prints_the_hint_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise Refused("no", hint=("use ", Call("checkout", force=True)))

    assert guarded(refuse, ["--json", "checkout"]) == 1
    said = capsys.readouterr()
    assert said.err == "persona: no\nhint: use `persona checkout -f`\n"
    assert json.loads(said.out)["error"]["hint"] == "use `persona checkout -f`"


def test_a_note_is_its_fact_and_carries_the_hint(grown: CommandLine) -> None:
    note = Note("config.json differs", (Keyword(files=True), " imports it"))
    assert (note, note.hint) == ("config.json differs", (note.hint or ("",)))
    (grown.directory.parent / "suggesting" / "config.json").write_text('{"model_type": "other"}\n')
    said = grown("add", "../suggesting").stderr.splitlines()
    assert said[-2].startswith("not imported: config.json")
    assert said[-1] == "hint: --files imports it too"


def test_a_file_is_named_from_where_the_command_runs(grown: CommandLine) -> None:
    (grown.directory / "its own").mkdir()
    below = CommandLine(grown.directory / "its own")
    (grown.directory / "chat_template.jinja").write_text("mine\n")
    (grown.directory.parent / "suggesting" / "chat_template.jinja").write_text("theirs\n")
    at_the_root = grown.refused(1, "add", "../suggesting", "--files")
    assert "put it back with `persona restore chat_template.jinja`" in at_the_root
    said = below.refused(1, "add", "../../suggesting", "--files")
    assert "put it back with `persona restore ../chat_template.jinja`" in said
    below.ok("restore", "../chat_template.jinja")
    below.ok("add", "../../suggesting", "--files")


def test_a_directory_that_is_missing_can_become_a_repository(outside: CommandLine) -> None:
    said = CommandLine(outside.directory / "not here").refused(3, "status")
    assert (
        f"hint: `persona init --base MODEL '{outside.directory}/not here'` makes a repository there" in said
    )


@pytest.mark.parametrize(
    ("words", "advice"), [(["tag", "-d", "v0"], "persona tag"), (["branch", "-d", "v0"], "persona branch")]
)
def test_what_lists_the_names_can_be_typed(grown: CommandLine, words: list[str], advice: str) -> None:
    assert f"hint: `{advice}` lists them" in grown.refused(3, *words)
    grown.ok(*advice.split()[1:])


def test_options_of_an_import_without_one_are_named_as_flags(grown: CommandLine) -> None:
    said = grown.refused(2, "commit", "--except", "*norm*", "--alpha", "2", "-m", "x")
    assert said.startswith(
        "no fine-tune to import\nhint: give the path of one, or leave out --alpha --except;"
    )


def test_edited_weights_are_kept_or_lost_as_advised_from_a_subdirectory(grown: CommandLine) -> None:
    grown.ok("checkout")
    weights = grown.directory / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-1] + b"\x41")
    below = CommandLine(grown.directory / "runs")
    below.directory.mkdir()
    id = grown.ok("rev-parse", "--short", "HEAD").strip()
    for command in (["status"], ["reset", "--hard"], ["switch", "--detach"]):
        assert f'use "persona add .. -n NAME --onto {id}"' in below.ok(*command)
        assert f'use "persona add . -n NAME --onto {id}"' in grown.ok(*command)
    note = below.refused(1, "commit", "-m", "x")
    assert f"`persona commit --name NAME --onto {id} ..`" in note
    assert "hint: move them away, or -f overwrites them" in below.refused(1, "checkout", "HEAD~1")
    below.ok("commit", "--name", "mine", "--onto", id, "..", "-m", "mine")
    below.ok("checkout", "-f", "HEAD~1")
