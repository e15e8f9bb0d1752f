"""Commands cut short at each call that changes the disk: what was acknowledged stays, the next one works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from persona.errors import Refused
from persona.history.results import Head
from persona.repository import Repository
from tests.checkpoints import same, write_model
from tests.disks import cut_at_each_call
from tests.history.bots import Bot, at, base_tensors, each_cut, read_weights


@pytest.fixture
def ready(grown: Bot) -> Bot:
    """Weights and a text file that differ between two revisions."""
    (grown.root / "chat_template.jinja").write_text("late\n")
    grown.commit()
    grown.checkout()
    return grown


def test_a_checkout_cut_anywhere_leaves_whole_weights_and_can_be_done_again(ready: Bot) -> None:
    late, early = read_weights(ready.root), ready.tunes["listening"]

    def check(repo: Repository) -> None:
        assert repo.status().weights.state in ("clean", "stale", "uncommitted")
        here = read_weights(repo.root)
        assert same(here, late) or same(here, early)
        if repo.head().branch is None:
            repo.checkout("main~3")
            assert same(read_weights(repo.root), early)
            assert not repo.status().recipe_changed
        repo.checkout("main")
        assert not repo.status().recipe_changed
        assert same(read_weights(repo.root), late)
        assert repo.status().files_changed == ()

    assert each_cut(ready.root, lambda repo: repo.checkout("main~3"), check) > 20


def test_a_checkout_into_shards_and_back_cut_anywhere_leaves_whole_weights(ready: Bot) -> None:
    late = ready.repo.digest().weights
    early = ready.repo.digest("HEAD~3").weights

    def check(repo: Repository) -> None:
        from persona.history.worktree.weights import measure

        assert repo.status().weights.state in ("clean", "stale", "uncommitted")
        assert measure(repo.root) in (late, early)
        assert repo.checkout("main").weights == late

    def there(repo: Repository) -> None:
        repo.checkout("main~3", max_shard_size=300)

    each_cut(ready.root, there, check)
    ready.repo.checkout(max_shard_size=300)
    ready.edit(lambda text: text + "# x\n")
    ready.commit()
    each_cut(ready.root, lambda repo: repo.checkout("main~4"), check)


@pytest.mark.parametrize("again", ["main", "main~3"])
def test_a_switch_cut_anywhere_leaves_no_edit_behind_and_keeps_those_of_the_user(
    ready: Bot, again: str
) -> None:
    (ready.root / "config.json").write_text("mine")

    def check(repo: Repository) -> None:
        repo.switch(again, detach=True)
        assert repo.status().files_changed == ("config.json",)
        assert not repo.status().recipe_changed

    assert each_cut(ready.root, lambda repo: repo.switch("main~3", detach=True), check) > 5


@pytest.mark.parametrize("command", ["checkout", "switch"])
@pytest.mark.parametrize("start", ["HEAD", "main~3"])
def test_a_branch_made_and_gone_to_cut_anywhere_can_be_made_again(
    ready: Bot, command: str, start: str
) -> None:
    id = ready.repo.resolve(start)
    ready.repo.switch(create="warm")  # and not the first of its name
    ready.repo.switch("main")
    ready.repo.branches.delete("warm")

    def act(repo: Repository) -> None:
        if command == "switch":
            repo.switch(start, create="warm")
        else:
            repo.checkout(start, branch="warm")

    def check(repo: Repository) -> None:
        if repo.head().branch == "main":
            act(repo)
        assert repo.head() == Head("warm", id)
        assert not repo.status().recipe_changed
        assert repo.status().files_changed == ()
        assert repo.switch("-").branch == "main"
        with pytest.raises(Refused, match="warm"):
            act(repo)

    assert each_cut(ready.root, act, check) > 5


@pytest.fixture
def patterned(grown: Bot) -> Bot:
    """A last commit that brings a vector's pattern, drops a template and changes the recipe."""
    (grown.root / "chat_template.jinja").unlink()
    (grown.root / "graph").mkdir()
    (grown.root / "graph" / "listening.md").write_text("listen\n")
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.commit()
    return grown


@pytest.mark.parametrize("target", ["HEAD", "listening"])
def test_a_revert_cut_anywhere_is_there_or_leaves_no_edit(patterned: Bot, target: str) -> None:
    before = patterned.repo.resolve("HEAD")
    wanted = patterned.repo.digest("HEAD~1").weights if target == "HEAD" else None

    def check(repo: Repository) -> None:
        if repo.resolve("HEAD") == before:
            repo.revert(target)
        assert repo.resolve("HEAD~1") == before
        assert ("listening" in repo["HEAD"].recipe.vectors) is (target == "HEAD")
        assert wanted in (None, repo.digest().weights)
        repo.switch(create="clean")  # with what a cut left taken back
        assert not repo.status().recipe_changed
        assert repo.status().files_changed == ()

    assert each_cut(patterned.root, lambda repo: repo.revert(target), check) > 10


def test_a_revert_without_a_commit_cut_anywhere_can_be_done_again(patterned: Bot) -> None:
    def act(repo: Repository) -> None:
        repo.revert("HEAD", no_commit=True)

    def check(repo: Repository) -> None:
        with suppress(Refused):  # undone already
            act(repo)
        assert repo.diff("HEAD~1").empty
        with pytest.raises(Refused, match="undone already"):
            act(repo)

    assert each_cut(patterned.root, act, check) > 5


def test_a_commit_of_a_fine_tune_cut_anywhere_is_there_or_not(ready: Bot) -> None:
    path = ready.tune("late", 7)
    before = ready.repo.resolve("HEAD")

    def act(repo: Repository) -> None:
        repo.commit(path, message="late")

    def check(repo: Repository) -> None:
        head = repo.resolve("HEAD")
        assert head == before or repo.resolve("HEAD~1") == before
        if head == before:
            act(repo)
        assert "late" in repo["HEAD"].recipe.vectors
        assert not repo.status().recipe_changed

    each_cut(ready.root, act, check)


def test_an_init_cut_anywhere_can_be_done_again(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny", base_tensors(), **{"chat_template.jinja": "hello\n"})
    place = tmp_path / "bot"

    def start() -> Path:
        shutil.rmtree(place, ignore_errors=True)
        return place

    def init(place: Path) -> None:
        Repository.init(place, base=tmp_path / "tiny", author=at(), chunk=64)

    for _, done in cut_at_each_call(start, init):
        if done:
            break
        try:
            init(place)
        except Exception:
            with Repository.open(place) as repo:
                assert repo.resolve("main")
        with Repository.open(place) as repo:
            assert repo.fsck(full=True).ok
            assert repo.status().files_changed == ()


NAMES: dict[str, Callable[[Repository], object]] = {
    "branch -m": lambda repo: repo.branches.rename(None, "main/line"),
    "branch -d": lambda repo: repo.branches.delete("one", "two"),
    "tag -a": lambda repo: repo.tags.create("v1", message="the first"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_moved_and_cut_anywhere_are_as_before_or_as_wanted(bot: Bot, what: str) -> None:
    for name in ("one", "two"):
        bot.repo.branches.create(name)

    def names(repo: Repository) -> object:
        return repo.head(), [ref.name for ref in (*repo.branches.values(), *repo.tags.values())]

    before, seen = names(bot.repo), []

    def check(repo: Repository) -> None:
        seen.append(names(repo))
        if seen[-1] == before:
            NAMES[what](repo)
        assert names(repo) != before
        assert repo.fsck().ok

    each_cut(bot.root, NAMES[what], check)
    assert seen == sorted(seen, key=lambda found: found != before)
    assert len({str(found) for found in seen}) == 2
