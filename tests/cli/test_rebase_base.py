"""`persona rebase --base` as it is typed and printed."""

from __future__ import annotations

from tests.checkpoints import write_model
from tests.cli.command_line import BASE, CommandLine


def test_recipe_moves_to_a_directory_and_back_by_name(grown: CommandLine) -> None:
    other = {**BASE, "b": [1.5, 2.0]}
    write_model(grown.directory.parent / "other", other)
    lines = grown.ok("rebase", "--base", "../other").splitlines()
    assert lines[0].endswith("] Move to the base other")
    assert lines[-1] == "The recipe is on base other now; largest rounding 0"
    assert 'base = "other"' in (grown.directory / "recipe.toml").read_text()
    answer = grown.json("rebase", "--base", "base", "-m", "and back")
    assert (answer["base_name"], answer["largest_rounding"]) == ("base", 0.0)
    assert [one["name"] for one in answer["moved"]] == ["listening"]
    assert grown.ok("log", "-1", "--oneline").rstrip().endswith("and back")
    assert grown.ok("reflog", "-n", "1").rstrip().endswith("rebase (base): and back")


def test_base_does_not_go_with_commits(grown: CommandLine) -> None:
    assert "--base" in grown.refused(2, "rebase", "--base", "../base", "main")
    assert "--name" in grown.refused(2, "rebase", "--name", "other", "main")
    said = grown.refused(1, "rebase", "--base", "base")
    assert said.startswith("base has the weights of this recipe's base already")
    assert grown("rebase", "--base", "../nothing").exit_code in (3, 4)
