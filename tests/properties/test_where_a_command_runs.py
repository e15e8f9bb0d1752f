"""Commands below the work tree, and beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine
from tests.llamas import LlamaBot


@pytest.fixture
def below(grown: LlamaBot) -> CommandLine:
    """A command line in a directory of the graph, which has one committed file."""
    place = grown.root / "graph" / "a b"
    place.mkdir(parents=True)
    (place / "one.md").write_text("one\n")
    grown.run.ok("commit", "-m", "a pattern")
    return CommandLine(place)


@pytest.mark.parametrize("command", [["restore"], ["checkout", "--"], ["checkout", "HEAD", "--"]])
def test_files_are_named_from_where_the_command_runs(
    grown: LlamaBot, below: CommandLine, command: list[str]
) -> None:
    file = below.directory / "one.md"
    for name in ("one.md", "./one.md", ".", "../a b/one.md", str(file)):
        file.write_text("two\n")
        grown.recipe.write_text(grown.recipe.read_text() + "# mine\n")
        below.ok(*command, name)
        assert file.read_text() == "one\n"
        assert grown.recipe.read_text().endswith("# mine\n")
    below.ok(*command, "../../recipe.toml")
    assert not grown.recipe.read_text().endswith("# mine\n")
    below.refused(3, *command, "graph/a b/one.md")
    for outside in ("", "../../../base/config.json", "/etc/passwd"):
        below.refused(2, *command, outside)


def test_a_directory_beside_a_repository_is_in_none(grown: LlamaBot) -> None:
    beside = grown.place / "beside"
    beside.mkdir()
    before = grown.run.ok("rev-parse", "HEAD")
    for directory in (Path("../beside"), Path("graph/../../beside")):
        away = CommandLine(grown.root / directory)
        assert "persona init" in away.refused(3, "status")
        assert "persona init" in away.refused(3, "commit", "--allow-empty", "-m", "x")
    assert grown.run.ok("rev-parse", "HEAD") == before


def test_a_link_to_a_work_tree_leads_to_it(grown: LlamaBot) -> None:
    (grown.place / "link").symlink_to(grown.root)
    linked = CommandLine(grown.place / "link")
    assert linked.ok("rev-parse", "HEAD") == grown.run.ok("rev-parse", "HEAD")
    linked.ok("commit", "../one", "-n", "again", "--alpha", "0.1", "-m", "through a link")
    linked.ok("checkout")
    assert grown.run.json("status")["weights"]["state"] == "clean"
