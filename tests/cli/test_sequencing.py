"""merge, cherry-pick, revert and rebase as a user types them: what is said, and what to type next."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine


@pytest.fixture
def parted(grown: CommandLine) -> CommandLine:
    """`main` and `topic` have both set the alpha of listening; topic has added a file, too."""
    grown.ok("switch", "-c", "topic")
    grown.ok("set", "listening", "--alpha", "0.2")
    (grown.directory / "notes.md").write_text("of topic\n")
    grown.ok("add", grown.directory / "notes.md")
    grown.ok("commit", "-m", "of topic")
    grown.ok("switch", "main")
    grown.ok("set", "listening", "--alpha", "0.4")
    grown.ok("commit", "-m", "of main")
    return grown


def test_a_conflict_says_both_values_and_each_step_that_it_advises_works(parted: CommandLine) -> None:
    said = parted.refused(1, "merge", "topic")
    assert said.splitlines() == [
        "the merge of topic stopped at a conflict",
        "  vectors.listening.alpha: 0.4 in HEAD, 0.2 in topic, 0.5 before",
        "hint: edit the files and delete the markers; then `persona merge --continue`;"
        " `persona merge --abort` goes back",
    ]
    status = parted.ok("status")
    assert "You have unmerged paths.\n" in status
    assert "nothing to commit" not in status
    assert '  (fix conflicts and run "persona merge --continue")\n' in status
    assert '  (use "persona merge --abort" to go back to where the merge began)\n' in status
    assert re.search(
        r"Unmerged paths:\n(?:  .*\n)+\tboth modified: +recipe\.toml\n\t +vectors\.listening\.alpha\n", status
    )
    assert "new file:   notes.md" in status
    assert parted.ok("status", "-s").splitlines()[:2] == ["UU recipe.toml", "A  notes.md"]
    assert "cannot switch branches while merging" in parted.refused(1, "switch", "topic")
    assert "a conflict stands in recipe.toml" in parted.refused(1, "merge", "--continue")
    parted.ok("merge", "--abort")
    assert "nothing to commit, work tree clean" in parted.ok("status")
    parted.refused(1, "merge", "topic")
    parted.ok("set", "listening", "--alpha", "0.3")
    assert "All conflicts fixed but you are still merging." in parted.ok("status")
    said = parted.ok("merge", "--continue")
    assert re.match(r"\[main [0-9a-f]{8}\] Merge branch 'topic'\n", said)
    assert " + notes.md\n" in said
    assert parted.ok("log", "--oneline", "-n", "1").endswith("Merge branch 'topic'\n")


def test_a_conflict_in_json_has_its_values(parted: CommandLine) -> None:
    result = parted("merge", "topic", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["exit"]) == ("conflict", 1)
    assert error["conflicts"] == [
        {
            "path": "recipe.toml",
            "key": "vectors.listening.alpha",
            "base": "0.5",
            "theirs": "0.2",
            "ours": "0.4",
            "problem": "values",
        }
    ]
    under_way = parted.json("status")["sequence"]
    assert (under_way["verb"], under_way["why"], len(under_way["conflicts"])) == ("merge", "conflict", 1)
    assert parted.json("merge", "--abort")["state"] == "aborted"
    assert parted.json("status")["sequence"] is None


def test_a_fast_forward_and_nothing_to_do_are_said_as_git_says_them(grown: CommandLine) -> None:
    grown.ok("branch", "old", "HEAD~1")
    assert grown.ok("merge", "old") == "Already up to date.\n"
    grown.ok("switch", "old")
    said = grown.ok("merge", "main").splitlines()
    assert re.fullmatch(r"Updating [0-9a-f]{8}\.\.[0-9a-f]{8}", said[0])
    assert said[1:3] == ["Fast-forward", " vectors.listening | α 1.00 → 0.50"]


def test_several_commits_are_picked_and_taken_back(parted: CommandLine) -> None:
    parted.ok("switch", "topic")
    parted.ok("set", "--merge", "density=0.5")
    parted.ok("commit", "-m", "trim")
    parted.ok("switch", "main")
    said = parted.refused(1, "cherry-pick", "main..topic")
    assert "of topic) cannot be picked: a conflict" in said
    assert "`persona cherry-pick --skip` leaves this commit out" in said
    status = parted.ok("status")
    assert re.search(
        r"You are currently cherry-picking commit [0-9a-f]{8}\.\n  \(1 commit left to do\)\n", status
    )
    said = parted.ok("cherry-pick", "--continue", "-X", "theirs")
    assert re.findall(r"^\[main [0-9a-f]{8}\] (.*)$", said, re.MULTILINE) == ["of topic", "trim"]
    said = parted.ok("revert", "HEAD~2..HEAD")
    subjects = ['Revert "trim"', 'Revert "of topic"']
    assert re.findall(r"^\[main [0-9a-f]{8}\] (.*)$", said, re.MULTILINE) == subjects
    assert parted.json("diff", "HEAD", "HEAD~4")["vectors"] == []


def test_an_interactive_rebase_opens_the_editor_on_the_list(
    parted: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parted.ok("set", "--merge", "density=0.5")
    parted.ok("commit", "-m", "trim")
    monkeypatch.setenv(
        "PERSONA_EDITOR", "sed -i -e 's/^pick \\(.*of main\\)/reword \\1/' -e 's/^of main/mine/'"
    )
    said = parted.ok("rebase", "-i", "HEAD~2")
    assert "Successfully rebased and updated refs/heads/main.\n" in said
    assert [line[9:] for line in parted.ok("log", "--oneline").splitlines()[:2]] == ["trim", "mine"]
    monkeypatch.setenv("PERSONA_EDITOR", "sed -i -e s/^pick/edit/")
    said = parted.ok("rebase", "-i", "HEAD~1")
    assert 'run "persona rebase --continue"' in said
    assert "You are currently rebasing branch 'main'" in parted.ok("status")
    parted.ok("commit", "--amend", "-m", "trimmed")
    parted.ok("rebase", "--continue")
    assert parted.ok("log", "--oneline").splitlines()[0][9:] == "trimmed"
    monkeypatch.delenv("PERSONA_EDITOR")
    assert "no terminal to open an editor on" in parted.refused(2, "rebase", "-i", "HEAD~1")


def test_the_editor_opens_on_the_message_of_a_merge_and_of_a_pick(
    parted: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_EDITOR", "sed -i -e 1s/$/,edited/")
    parted.ok("cherry-pick", "-e", "-X", "ours", "topic")
    assert parted.json("show")["message"] == "of topic,edited\n"
    parted.ok("merge", "-e", "-X", "ours", "topic")
    assert parted.json("show")["message"] == "Merge branch 'topic',edited\n"


def test_a_rebase_is_said_as_git_says_it(parted: CommandLine) -> None:
    parted.ok("set", "--merge", "density=0.5")
    parted.ok("commit", "-m", "trim")
    said = parted.ok("rebase", "topic", "--strategy", "mean")
    assert said.endswith("Successfully rebased and updated refs/heads/main.\n")
    assert parted.json("show")["recipe"]["vectors"]["listening"]["alpha"] == 0.3
    assert parted.ok("rebase", "topic") == "Current branch main is up to date.\n"


@pytest.mark.parametrize("line", ["merge", "cherry-pick", "rebase", "revert"])
def test_a_command_without_anything_to_do_says_what_to_give(grown: CommandLine, line: str) -> None:
    grown.refused(2, line)
    for way in ("--continue", "--abort"):
        assert f"no {line} is under way" in grown.refused(1, line, way)
    assert grown.refused(3, line, "nope")


def test_commands_of_a_rebase_run_in_the_work_tree_and_one_that_fails_waits(parted: CommandLine) -> None:
    parted.ok("switch", "-c", "more", "main~1")
    parted.ok("set", "--merge", "density=0.5")
    parted.ok("commit", "-m", "trim")
    said = parted.refused(
        1, "rebase", "-x", "test -f recipe.toml && test -d .persona", "-x", "exit 4", "main"
    )
    assert "'exit 4' failed with exit code 4; the rebase waits" in said
    assert "`persona rebase --continue` goes on" in said
    assert "You are currently rebasing branch 'more'" in parted.ok("status")
    said = parted.ok("rebase", "--continue")
    assert "Successfully rebased and updated refs/heads/more.\n" in said
    assert [line[9:] for line in parted.ok("log", "--oneline").splitlines()[:2]] == ["trim", "of main"]


def test_a_fixup_goes_into_its_commit(grown: CommandLine) -> None:
    for alpha, message in (("0.1", ("-m", "less")), ("0.2", ("--fixup", "HEAD"))):
        grown.ok("set", "listening", "--alpha", alpha)
        grown.ok("commit", *message)
    grown.ok("set", "--merge", "density=0.5")
    grown.ok("commit", "--squash", "HEAD~1", "-m", "and trim")
    lines = [line[9:] for line in grown.ok("log", "--oneline", "-n", "3").splitlines()]
    assert lines == ["squash! less", "fixup! less", "less"]
    assert "--fixup and --squash each name" in grown.refused(2, "commit", "--fixup", "@", "--squash", "@")
    assert "reword changes a message" in grown.refused(2, "commit", "--fixup", "reword:HEAD")
    grown.ok("rebase", "--autosquash", "HEAD~3")
    assert grown.json("log", "-n", "1")[0]["message"] == "less\n\nand trim\n"
    assert grown.json("diff", "HEAD~1", "HEAD")["vectors"][0]["name"] == "listening"


def test_a_merge_of_several_branches_is_answered_with_the_steps(parted: CommandLine) -> None:
    said = parted.refused(2, "merge", "topic", "main")
    assert "a merge takes one branch: `persona merge topic`, then `persona merge main`" in said


def test_status_and_restore_say_how_a_stashed_conflict_is_resolved(grown: CommandLine) -> None:
    grown.ok("set", "listening", "--alpha", "0.2")
    grown.ok("stash")
    grown.ok("set", "listening", "--alpha", "0.4")
    grown.ok("commit", "-m", "mine")
    grown.refused(1, "stash", "pop")
    status = grown.ok("status")
    assert "both modified:   recipe.toml\n" in status
    assert "currently" not in status
    assert grown.ok("status", "-s").startswith("UU recipe.toml\n")
    said = grown.refused(1, "restore", "recipe.toml")
    assert "`persona restore --theirs recipe.toml` the other side" in said
    grown.ok("restore", "--theirs", "recipe.toml")
    assert grown("diff", "-q").exit_code == 1
    grown.ok("commit", "-m", "theirs")


def test_reset_of_a_file_names_restore_and_a_branch_is_made_again(grown: CommandLine) -> None:
    for words in (["recipe.toml"], ["HEAD", "recipe.toml"], ["--", "recipe.toml"]):
        assert "`persona restore " in grown.refused(3, "reset", *words)
    assert grown.ok("switch", "-C", "topic") == "Switched to a new branch 'topic'\n"
    grown.ok("switch", "main")
    assert grown.ok("switch", "-C", "topic", "HEAD~1").startswith("Switched to and reset branch 'topic'\n")
    assert grown.ok("switch", "-C", "topic", "main").startswith("Reset branch 'topic'\n")
    assert grown.ok("rev-parse", "topic") == grown.ok("rev-parse", "main")
