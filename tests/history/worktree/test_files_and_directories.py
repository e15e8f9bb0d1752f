"""A file where a directory was, and the reverse: whatever moves text files moves these too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from persona.errors import Refused
from persona.history.worktree.text_files import blob_id
from persona.repository import Repository
from persona.store import files
from tests.history.bots import Bot, each_cut

FILE, DIRECTORY = "HEAD~1", "main"
SIDES = [(FILE, DIRECTORY), (DIRECTORY, FILE)]


def tree(root: Path) -> dict[str, str | None]:
    """What lies in the work tree beside the weights: path → text, None for a directory."""
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else None
        for path in sorted(root.rglob("*"))
        if ".persona" not in path.parts
        and path.suffix != ".safetensors"
        and not files.is_unfinished(path.name)
    }


@pytest.fixture
def both(bot: Bot) -> Bot:
    """main~1 has the file graph/a, main the files graph/a/b.md and graph/a/deep/c.md; the template differs
    too.
    """
    graph = bot.root / "graph"
    graph.mkdir()
    (graph / "a").write_text("file\n")
    bot.commit(message="a file")
    (graph / "a").unlink()
    (graph / "a" / "deep").mkdir(parents=True)
    (graph / "a" / "b.md").write_text("b\n")
    (graph / "a" / "deep" / "c.md").write_text("c\n")
    (bot.root / "chat_template.jinja").write_text("late\n")
    bot.commit(message="a directory")
    bot.repo.branches.create("file", "main~1")
    return bot


MOVES: dict[str, Callable[[Repository, str], object]] = {
    "switch": lambda repo, rev: repo.switch(rev, detach=True),
    "checkout": lambda repo, rev: repo.checkout(rev, weights=False),
    "checkout with weights": lambda repo, rev: repo.checkout(rev),
    "reset": lambda repo, rev: repo.reset(rev, "hard"),
    "restore": lambda repo, rev: repo.restore(["graph", "chat_template.jinja"], rev),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_file_takes_the_place_of_a_directory_and_back(both: Bot, move: str) -> None:
    wanted = {}
    for branch in ("file", "main"):
        both.repo.switch(branch)
        wanted[branch] = tree(both.root)
    assert wanted["file"]["graph/a"] == "file\n"
    assert wanted["main"]["graph/a"] is None
    late = both.repo.resolve("main")
    MOVES[move](both.repo, "file")
    assert tree(both.root) == wanted["file"]
    MOVES[move](both.repo, late)
    assert tree(both.root) == wanted["main"]


@pytest.mark.parametrize("no_commit", [False, True])
def test_a_revert_puts_the_file_back_and_the_revert_of_that_the_directory(both: Bot, no_commit: bool) -> None:
    there = tree(both.root)
    both.repo.revert("HEAD", no_commit=no_commit)
    assert tree(both.root)["graph/a"] == "file\n"
    if not no_commit:
        both.repo.revert("HEAD")
        assert tree(both.root) == there


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", ["mine.md", ".hidden", "deep/mine.md"])
def test_a_file_of_nobody_in_the_directory_is_named_and_nothing_changes(
    both: Bot, move: str, name: str
) -> None:
    mine = both.root / "graph" / "a" / name
    mine.write_text("mine\n")
    there, head = tree(both.root), both.repo.head()
    if move == "reset" and name != ".hidden":  # a new file, which `reset --hard` drops
        MOVES[move](both.repo, "file")
        assert both.repo.cat_file(blob_id(b"mine\n")).text == b"mine\n"
        return
    with pytest.raises(Refused, match=f"graph/a/{name} is in the way"):
        MOVES[move](both.repo, "file")
    assert (tree(both.root), both.repo.head()) == (there, head)
    mine.unlink()
    MOVES[move](both.repo, "file")


@pytest.mark.parametrize("move", MOVES)
def test_a_file_of_nobody_where_a_directory_has_to_go_is_named_and_nothing_changes(
    both: Bot, move: str
) -> None:
    main = both.repo.resolve("main")
    both.repo.switch("file")
    (both.root / "graph" / "a").unlink()
    both.commit(message="neither")
    (both.root / "graph" / "a").write_text("mine\n")
    there, head = tree(both.root), both.repo.head()
    if move == "reset":  # a new file, which `reset --hard` drops
        MOVES[move](both.repo, main)
        assert both.repo.cat_file(blob_id(b"mine\n")).text == b"mine\n"
        return
    with pytest.raises(Refused, match=r"graph/a is in the way"):
        MOVES[move](both.repo, main)
    assert (tree(both.root), both.repo.head()) == (there, head)


def test_an_edit_is_not_given_up_for_a_directory_of_another_name(both: Bot) -> None:
    both.repo.switch("file")
    (both.root / "graph" / "a").write_text("edited\n")
    for act in (
        lambda: both.repo.switch("main"),
        lambda: both.repo.restore(["graph/a/b.md"], "main"),
    ):
        with pytest.raises(Refused, match=r"overwritten: graph/a|graph/a is in the way"):
            act()
    assert (both.root / "graph" / "a").read_text() == "edited\n"
    both.repo.switch("main", force=True)
    assert (both.root / "graph" / "a" / "b.md").read_text() == "b\n"


def test_empty_directories_are_in_nobodys_way(both: Bot) -> None:
    (both.root / "graph" / "a" / "empty" / "deeper").mkdir(parents=True)
    both.repo.switch("file")
    assert (both.root / "graph" / "a").read_text() == "file\n"


@pytest.mark.parametrize(("start", "goal"), [("file", "main"), ("main", "file")])
@pytest.mark.parametrize("again", ["file", "main"])
def test_a_switch_cut_anywhere_recovers_to_either_side(both: Bot, start: str, goal: str, again: str) -> None:
    wanted = {}
    for branch in (goal, start):
        both.repo.switch(branch)
        wanted[branch] = tree(both.root)

    def check(repo: Repository) -> None:
        repo.switch(again)
        assert tree(repo.root) == wanted[again]

    assert each_cut(both.root, lambda repo: repo.switch(goal), check) > 10


def test_a_revert_cut_anywhere_is_there_or_not(both: Bot) -> None:
    before = both.repo.resolve("HEAD")

    def check(repo: Repository) -> None:
        if repo.resolve("HEAD") == before:
            repo.revert("HEAD")
        assert (repo.root / "graph" / "a").read_text() == "file\n"
        assert repo.status().files_changed == ()

    assert each_cut(both.root, lambda repo: repo.revert("HEAD"), check) > 10
