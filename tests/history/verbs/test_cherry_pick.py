"""cherry-pick and revert of several commits: each change made again, or a stop that every way out leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from persona.errors import Conflicted, Refused, UsageError
from tests.history.bots import Bot


@pytest.fixture
def topic(grown: Bot) -> Bot:
    """A branch with four commits, the third of which sets what `main` has set too; HEAD is on main."""
    grown.repo.switch(create="topic")
    edits: list[Callable[[], object]] = [
        lambda: grown.repo.recipe.set("suggesting", alpha="-0.4"),
        lambda: grown.repo.recipe.set("suggesting", alpha="-0.3"),
        lambda: grown.repo.recipe.set("listening", alpha="0.3"),
        lambda: grown.repo.recipe.set_rules({"density": "0.5"}),
    ]
    for number, edit in enumerate(edits, 1):
        edit()
        grown.commit(message=f"topic {number}")
    grown.repo.switch("main")
    grown.repo.recipe.set("listening", alpha="0.5")
    grown.commit(message="ours")
    return grown


def subjects(bot: Bot, count: int) -> list[str]:
    """The first lines of the newest commits."""
    return [entry.subject for entry in bot.repo.log(n=count)]


def decided(text: str) -> str:
    """The text without the comments of a conflict."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))


def test_a_picked_commit_keeps_its_author_and_message(topic: Bot) -> None:
    result = topic.repo.cherry_pick("topic~3", origin=True)
    old, new = topic.repo["topic~3"], topic.repo["HEAD"]
    assert (new.author, new.date) == (old.author, old.date)
    assert new.message == f"topic 1\n\n(cherry picked from commit {old.id})\n"
    assert new.recipe.vectors["suggesting"].alpha == -0.4
    assert new.recipe.vectors["listening"].alpha == 0.5
    assert (result.id, topic.repo.reflog()[0].message) == (new.id, "cherry-pick: topic 1")


def test_a_range_is_picked_from_the_oldest_on_with_a_line_of_the_reflog_for_each(topic: Bot) -> None:
    result = topic.repo.cherry_pick("main~1..topic~2")
    assert [commit.subject for commit in result.commits] == ["topic 1", "topic 2"]
    assert subjects(topic, 3) == ["topic 2", "topic 1", "ours"]
    for ref in ("HEAD", "main"):
        assert [entry.message for entry in topic.repo.reflog(ref)][:2] == [
            "cherry-pick: topic 2",
            "cherry-pick: topic 1",
        ]
    assert topic.repo.resolve("main@{1}") == topic.repo.resolve("HEAD~1")


def test_a_commit_that_is_named_twice_is_picked_once(topic: Bot) -> None:
    topic.repo.cherry_pick("topic~3", "topic~2", "topic~3")
    assert subjects(topic, 3) == ["topic 2", "topic 1", "ours"]


def test_a_change_that_is_there_already_is_said_and_in_a_range_left_out(topic: Bot) -> None:
    topic.repo.cherry_pick("topic~3")
    with pytest.raises(Refused, match=r"nothing to cherry-pick: .* is there already"):
        topic.repo.cherry_pick("topic~3")
    result = topic.repo.cherry_pick("topic~3", "topic~2")
    assert [commit.subject for commit in result.commits] == ["topic 2"]
    assert any(note.startswith("left out ") for note in result.notes)


def stopped(bot: Bot) -> str:
    """Picks four commits, of which the third conflicts; returns HEAD before."""
    head = bot.repo.resolve("HEAD")
    with pytest.raises(Conflicted, match=r"vectors\.listening\.alpha: 0\.5 in HEAD, 0\.3 in .*topic 3"):
        bot.repo.cherry_pick("main~1..topic")
    assert subjects(bot, 3) == ["topic 2", "topic 1", "ours"]
    under_way = bot.repo.status().sequence
    assert under_way is not None
    assert (under_way.verb, under_way.left) == ("cherry-pick", 1)
    assert bot.repo.resolve("CHERRY_PICK_HEAD") == bot.repo.resolve("topic~1")
    return head


def test_a_stop_goes_on_with_the_rest(topic: Bot) -> None:
    stopped(topic)
    with pytest.raises(Conflicted, match="stands"):
        topic.repo.cherry_pick(continue_=True)
    topic.edit(lambda text: decided(text).replace("0.5\n", "0.4\n", 1))
    result = topic.repo.cherry_pick(continue_=True)
    assert subjects(topic, 5) == ["topic 4", "topic 3", "topic 2", "topic 1", "ours"]
    assert [commit.subject for commit in result.commits] == ["topic 3", "topic 4"]
    assert topic.repo["HEAD~1"].author == topic.repo["topic~1"].author
    assert topic.repo.reflog()[1].message == "commit (cherry-pick): topic 3"
    assert topic.repo.status().sequence is None


def test_a_stop_that_commit_concludes_goes_on_too(topic: Bot) -> None:
    stopped(topic)
    topic.repo.recipe.set("listening", alpha="0.4")
    result = topic.commit(message="mine")
    assert "1 commit waits" in result.notes
    topic.repo.cherry_pick(continue_=True)
    assert subjects(topic, 3) == ["topic 4", "mine", "topic 2"]


def test_a_skipped_commit_is_left_out(topic: Bot) -> None:
    stopped(topic)
    topic.edit(lambda text: text.replace("0.5", "0.9"))
    topic.repo.cherry_pick(skip=True)
    assert subjects(topic, 4) == ["topic 4", "topic 2", "topic 1", "ours"]
    assert topic.repo["HEAD"].recipe.vectors["listening"].alpha == 0.5
    assert topic.repo.status().sequence is None


def test_a_resolution_that_leaves_nothing_of_the_change_makes_no_commit(topic: Bot) -> None:
    stopped(topic)
    topic.edit(decided)
    result = topic.repo.cherry_pick(continue_=True)
    assert any(note.startswith("left out ") for note in result.notes)
    assert subjects(topic, 2) == ["topic 4", "topic 2"]


def test_the_way_back_is_from_before_the_first_of_them(topic: Bot) -> None:
    text = topic.recipe.read_text()
    head = stopped(topic)
    topic.repo.cherry_pick(abort=True)
    assert (topic.repo.resolve("main"), topic.recipe.read_text()) == (head, text)
    assert topic.repo.status().sequence is None
    assert topic.repo.fsck(full=True).ok


def test_reset_drops_the_stop_and_leaves_the_rest(topic: Bot) -> None:
    stopped(topic)
    topic.repo.reset(mode="hard")
    assert not topic.repo.status().recipe_changed
    topic.repo.cherry_pick(continue_=True)
    assert subjects(topic, 2) == ["topic 4", "topic 2"]


@pytest.mark.parametrize("way", ["continue", "skip"])
@pytest.mark.parametrize("left", ["commit", "reset"])
def test_commits_that_were_made_since_the_stop_stay(topic: Bot, left: str, way: str) -> None:
    stopped(topic)
    if left == "reset":
        topic.repo.reset("HEAD", mode="hard")
    else:
        topic.repo.recipe.set("listening", alpha="0.4")
        topic.commit(message="resolved")
    topic.repo.recipe.set("listening", alpha="0.45")
    topic.commit(message="mine")
    topic.repo.cherry_pick(continue_=way == "continue", skip=way == "skip")
    resolved = ["resolved"] if left == "commit" else []
    assert subjects(topic, 4) == ["topic 4", "mine", *resolved, "topic 2", "topic 1"][:4]
    assert topic.repo["HEAD"].recipe.vectors["listening"].alpha == 0.45


def test_a_merge_is_picked_against_the_parent_that_is_named(topic: Bot) -> None:
    topic.repo.switch("topic")
    topic.repo.merge("main", strategy="ours")
    topic.repo.switch("main")
    with pytest.raises(UsageError, match="mainline=1"):
        topic.repo.cherry_pick("topic")
    topic.repo.cherry_pick("topic", mainline=2)
    assert topic.repo["HEAD"].recipe.vectors["suggesting"].alpha == -0.3


def test_without_a_commit_only_the_work_tree_changes(topic: Bot) -> None:
    head = topic.repo.head()
    result = topic.repo.cherry_pick("topic~3", "topic~2", no_commit=True)
    assert (result.id, topic.repo.head()) == (None, head)
    assert topic.repo.prepared_message() == "topic 2\n"
    text = topic.recipe.read_text()
    with pytest.raises(Refused, match=r"cannot be picked: .*\n.*listening\.alpha"):
        topic.repo.cherry_pick("topic~1", no_commit=True)
    assert topic.recipe.read_text() == text
    topic.commit()
    assert topic.repo["HEAD"].recipe.vectors["suggesting"].alpha == -0.3


# -- revert --------------------------------------------------------------------------------------------------


def test_a_range_is_reverted_from_the_newest_on(topic: Bot) -> None:
    topic.repo.switch("topic")
    result = topic.repo.revert("topic~3..topic")
    assert [commit.subject for commit in result.commits] == [f'Revert "topic {n}"' for n in (4, 3, 2)]
    assert topic.repo["HEAD"].recipe == topic.repo["topic~6"].recipe
    assert topic.repo.diff("HEAD", "HEAD~6").empty


def test_commits_are_reverted_in_the_order_in_which_they_are_named(topic: Bot) -> None:
    topic.repo.switch("topic")
    topic.repo.revert("HEAD", "HEAD~1")
    assert subjects(topic, 2) == ['Revert "topic 3"', 'Revert "topic 4"']


def test_a_revert_stops_at_a_later_change_and_goes_on(topic: Bot) -> None:
    topic.repo.switch("topic")
    before = topic.repo.resolve("HEAD")
    with pytest.raises(Conflicted, match=r"-0\.4 by that commit, -0\.3 now, -0\.5 before"):
        topic.repo.revert("HEAD", "HEAD~3")
    assert subjects(topic, 1) == ['Revert "topic 4"']
    topic.repo._history.author_signer = topic.now
    topic.repo.revert(continue_=True, strategy="theirs")
    assert topic.repo["HEAD"].date > topic.repo["HEAD~1"].date  # by the one who concluded it, then
    assert topic.repo["HEAD"].recipe.vectors["suggesting"].alpha == -0.5
    assert topic.repo["HEAD"].message.startswith('Revert "topic 1"\n\nThis reverts commit ')
    topic.repo.reset(before, mode="hard")
    with pytest.raises(Conflicted):
        topic.repo.revert("HEAD", "HEAD~3")
    topic.repo.revert(abort=True)
    assert topic.repo.resolve("HEAD") == before


def test_a_merge_is_reverted_to_the_parent_that_is_named(topic: Bot) -> None:
    before = topic.repo["HEAD"].recipe
    topic.repo.merge("topic", strategy="theirs")
    with pytest.raises(UsageError, match="mainline=1"):
        topic.repo.revert("HEAD")
    topic.repo.revert("HEAD", mainline=1)
    assert topic.repo["HEAD"].recipe == before
    assert "reversing\nchanges made to" in topic.repo["HEAD"].message


def test_the_way_back_loses_no_commit_that_was_made_since_the_stop(topic: Bot) -> None:
    stopped(topic)
    topic.repo.recipe.set("listening", alpha="0.4")
    topic.commit(message="decided")
    (topic.root / "NOTES.md").write_text("later\n")
    topic.repo.add(topic.root / "NOTES.md")
    topic.commit(message="own")
    done = topic.repo.cherry_pick(abort=True)
    assert (done.state, done.head) == ("quit", done.before)
    assert done.notes[0].startswith("you have moved HEAD since the cherry-pick stopped")
    assert subjects(topic, 5) == ["own", "decided", "topic 2", "topic 1", "ours"]
    assert topic.repo.status().sequence is None


def test_the_way_back_keeps_edits_of_files_that_no_pick_has_changed(topic: Bot) -> None:
    head = stopped(topic)
    (topic.root / "chat_template.jinja").write_text("edited\n")
    topic.repo.cherry_pick(abort=True)
    assert topic.repo.resolve("HEAD") == head
    assert topic.repo.status().files_changed == ("chat_template.jinja",)


def test_without_a_commit_all_of_several_changes_are_made_or_none(topic: Bot) -> None:
    text = topic.recipe.read_text()
    with pytest.raises(Refused, match="cannot be picked"):
        topic.repo.cherry_pick("main~1..topic", no_commit=True)
    assert topic.recipe.read_text() == text
    topic.repo.cherry_pick("topic~3")
    done = topic.repo.cherry_pick("topic~3", "topic~2", "topic", no_commit=True)
    assert any(note.startswith("left out ") for note in done.notes)
    recipe = topic.repo.status().diff
    assert recipe is not None
    assert [change.name for change in recipe.vectors] == ["suggesting"]
    topic.repo.reset(mode="hard")
    topic.repo.cherry_pick("topic")
    with pytest.raises(Refused, match=r"nothing to cherry-pick: left out .* left out"):
        topic.repo.cherry_pick("topic~3", "topic", no_commit=True)


def test_an_amended_commit_changes_something(topic: Bot) -> None:
    before = topic.recipe.read_text()
    topic.repo.recipe.set("listening", alpha="0.9")
    topic.commit(message="more")
    topic.recipe.write_text(before)
    head = topic.repo.resolve("HEAD")
    with pytest.raises(Refused, match="would change nothing"):
        topic.commit(message="less", amend=True)
    assert topic.repo.resolve("HEAD") == head
    topic.commit(message="less", amend=True, allow_empty=True)
    assert topic.repo["HEAD"].recipe == topic.repo["HEAD~1"].recipe
