"""Edits are put aside and come back, on HEAD as it is then; nothing that was edited is lost on the way."""

from __future__ import annotations

import pytest

from persona.errors import Conflicted, InvalidInput, Refused, UnknownRevision, UsageError
from persona.repository import Repository
from tests.history.bots import Bot, each_cut


def alpha(bot: Bot, name: str = "listening") -> object:
    return bot.repo.recipe[name].alpha


def test_stash_makes_the_files_as_in_head_and_pop_brings_them_back(grown: Bot) -> None:
    before = grown.recipe.read_bytes()
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.edit(lambda text: text + "# half a thought\n")
    (grown.root / "chat_template.jinja").write_text("hi\n")
    edited = grown.recipe.read_bytes()
    saved = grown.repo.stash.push()
    assert saved.files == ("chat_template.jinja", "recipe.toml")
    assert grown.recipe.read_bytes() == before
    assert grown.repo.diff().empty
    back = grown.repo.stash.pop()
    assert (back.state, back.dropped, grown.repo.stash.list()) == ("applied", True, [])
    assert grown.recipe.read_bytes() == edited
    assert (grown.root / "chat_template.jinja").read_text() == "hi\n"


def test_stash_without_edits_does_nothing(grown: Bot) -> None:
    assert grown.repo.stash.push().state == "nothing"
    assert grown.repo.stash.list() == []


def test_messages_are_those_of_git(grown: Bot) -> None:
    head = grown.repo.head().id or ""
    for message in (None, "half a thought"):
        grown.repo.recipe.set("listening", alpha="0.3")
        grown.repo.stash.push(message=message)
    assert [(one.selector, one.message) for one in grown.repo.stash.list()] == [
        ("stash@{0}", "On main: half a thought"),
        ("stash@{1}", f"WIP on main: {head[:8]} a little less"),
    ]
    assert grown.repo.reflog()[0].message == "reset: moving to HEAD"


def test_stash_comes_back_on_another_commit(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.repo.stash.push()
    grown.repo.recipe.set("suggesting", alpha="-1")
    grown.commit(message="suggest even less")
    grown.repo.stash.pop()
    assert (alpha(grown), alpha(grown, "suggesting")) == (0.3, -1.0)


def test_conflict_shows_both_values_and_keeps_the_stash(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.repo.stash.push()
    grown.repo.recipe.set("listening", alpha="0.5")
    grown.commit(message="half")
    with pytest.raises(
        Conflicted, match=r"vectors.listening.alpha: 0.5 in Updated upstream, 0.3 in Stashed changes"
    ):
        grown.repo.stash.pop()
    text = grown.recipe.read_text()
    assert "# <<<<<<< Updated upstream: vectors.listening.alpha = 0.5" in text
    assert "# >>>>>>> Stashed changes: vectors.listening.alpha = 0.3" in text
    assert [one.selector for one in grown.repo.stash.list()] == ["stash@{0}"]


def test_stash_is_not_applied_over_edits(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.repo.stash.push()
    grown.repo.recipe.set("suggesting", alpha="-1")
    edited = grown.recipe.read_bytes()
    with pytest.raises(Refused, match=r"edits are in files that the stash changes: recipe.toml"):
        grown.repo.stash.pop()
    assert grown.recipe.read_bytes() == edited
    grown.repo.stash.push()
    grown.repo.stash.pop(1)
    assert alpha(grown) == 0.3


def test_apply_keeps_the_stash_and_drop_forgets_one(grown: Bot) -> None:
    for value in ("0.1", "0.2", "0.3"):
        grown.repo.recipe.set("listening", alpha=value)
        grown.repo.stash.push(message=value)
    grown.repo.stash.apply("stash@{2}")
    assert alpha(grown) == 0.1
    grown.repo.stash.drop(1)
    assert [one.message for one in grown.repo.stash.list()] == ["On main: 0.3", "On main: 0.1"]
    assert grown.repo.stash.clear() == 2
    with pytest.raises(Refused, match="no stash entries found"):
        grown.repo.stash.pop()


def test_stash_is_a_revision(grown: Bot) -> None:
    for value in ("0.1", "0.2"):
        grown.repo.recipe.set("listening", alpha=value)
        grown.repo.stash.push()
    assert grown.repo["stash"].recipe.vectors["listening"].alpha == 0.2
    assert grown.repo["stash@{1}"].recipe.vectors["listening"].alpha == 0.1
    assert grown.repo.resolve("stash^") == grown.repo.head().id
    assert grown.repo.stash.show(1).vectors[0].to == {"alpha": 0.1}
    with pytest.raises(UnknownRevision, match="the stash has 2 entries"):
        grown.repo.resolve("stash@{2}")
    with pytest.raises(UsageError, match="'topic' is not a stash"):
        grown.repo.stash.drop("topic")


def test_only_named_files_are_put_aside(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    (grown.root / "chat_template.jinja").write_text("hi\n")
    grown.repo.stash.push(paths="chat_template.jinja")
    assert alpha(grown) == 0.3
    assert (grown.root / "chat_template.jinja").read_text() == "hello\n"
    assert grown.repo.stash.show().files == ("chat_template.jinja",)


def test_new_files_go_and_come_back_as_tracked_or_not_as_they_were(grown: Bot) -> None:
    for name in ("tracked.txt", "loose.txt"):
        (grown.root / name).write_text(name)
    grown.repo.add(grown.root / "tracked.txt")
    grown.repo.stash.push()
    assert [(grown.root / name).exists() for name in ("tracked.txt", "loose.txt")] == [False, True]
    grown.repo.stash.pop()
    assert grown.repo.status().untracked == ("loose.txt",)
    grown.repo.stash.push(include_untracked=True)
    assert not (grown.root / "loose.txt").exists()
    grown.repo.stash.pop()
    assert (grown.root / "loose.txt").read_text() == "loose.txt"
    assert grown.repo.status().untracked == ("loose.txt",)


def test_untracked_file_in_the_way_stays(grown: Bot) -> None:
    (grown.root / "new.txt").write_text("stashed")
    grown.repo.add(grown.root / "new.txt")
    grown.repo.stash.push()
    (grown.root / "new.txt").write_text("mine")
    with pytest.raises(Refused, match=r"untracked files would be overwritten: new.txt"):
        grown.repo.stash.pop()
    assert (grown.root / "new.txt").read_text() == "mine"


def test_recipe_that_cannot_be_read_is_not_put_aside(grown: Bot) -> None:
    grown.edit(lambda text: text + "nonsense\n")
    with pytest.raises(InvalidInput):
        grown.repo.stash.push()
    assert grown.recipe.read_text().endswith("nonsense\n")


def test_stash_that_is_cut_short_loses_no_edit(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    edited = grown.recipe.read_bytes()
    root = grown.root
    grown.repo.close()

    def check(repo: Repository) -> None:
        if (repo.root / "recipe.toml").read_bytes() != edited:
            assert repo["stash"].recipe.vectors["listening"].alpha == 0.3

    assert each_cut(root, lambda repo: repo.stash.push(), check) > 10


def test_pop_that_is_cut_short_loses_no_edit(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.repo.stash.push()
    root = grown.root
    grown.repo.close()

    def check(repo: Repository) -> None:
        if not repo.stash.list():
            assert repo.recipe["listening"].alpha == 0.3
        else:
            assert repo["stash"].recipe.vectors["listening"].alpha == 0.3

    assert each_cut(root, lambda repo: repo.stash.pop(), check) > 5


def test_commit_refuses_while_the_conflict_stands(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.repo.stash.push()
    grown.repo.recipe.set("listening", alpha="0.5")
    grown.commit(message="half")
    with pytest.raises(Conflicted):
        grown.repo.stash.pop()
    with pytest.raises(Refused, match=r"a conflict stands in recipe\.toml"):
        grown.commit(message="both")
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.commit(message="decided")
    assert alpha(grown) == 0.3
