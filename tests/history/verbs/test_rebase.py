"""rebase: a branch's commits made again elsewhere, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from persona.errors import Conflicted, Refused, UsageError
from persona.history.results import Head
from persona.repository import Repository
from tests.history.bots import Bot, each_cut, some_cuts


def set_suggesting(bot: Bot, number: int) -> None:
    """A commit that sets a strength."""
    bot.repo.recipe.set("suggesting", alpha=f"-0.{number}")
    bot.commit(message=f"topic {number}")


@pytest.fixture
def topic(grown: Bot) -> Bot:
    """A branch with three commits, beside one on main; HEAD is on topic."""
    grown.repo.switch(create="topic")
    for number in (4, 3, 2):
        set_suggesting(grown, number)
    grown.repo.switch("main")
    grown.repo.recipe.set("listening", alpha="0.6")
    grown.commit(message="on main")
    grown.repo.switch("topic")
    return grown


@pytest.fixture
def clashing(topic: Bot) -> Bot:
    """The same, and main has set what the second commit of topic sets too."""
    topic.repo.switch("main")
    topic.repo.recipe.set("suggesting", alpha="-0.45")
    topic.commit(message="clash")
    topic.repo.switch("topic")
    topic.repo.reset("topic~3", mode="hard")
    topic.repo.recipe.set_rules({"lambda": "0.9"})
    topic.commit(message="first")
    topic.repo.recipe.set("suggesting", alpha="-0.2")
    topic.commit(message="second")
    topic.repo.recipe.set_rules({"density": "0.5"})
    topic.commit(message="third")
    return topic


def subjects(bot: Bot, count: int) -> list[str]:
    """The first lines of the newest commits."""
    return [entry.subject for entry in bot.repo.log(n=count)]


def messages(bot: Bot, ref: str, count: int) -> list[str]:
    """The newest lines of a reflog."""
    return [entry.message for entry in bot.repo.reflog(ref)][:count]


def test_the_commits_are_made_again_and_the_reflogs_are_gits(topic: Bot) -> None:
    old = topic.repo.resolve("topic")
    result = topic.repo.rebase("main")
    assert subjects(topic, 4) == ["topic 2", "topic 3", "topic 4", "on main"]
    assert topic.repo.head() == Head("topic", result.id)
    assert topic.repo["HEAD"].author == topic.repo[old].author
    assert messages(topic, "HEAD", 5) == [
        "rebase (finish): returning to refs/heads/topic",
        "rebase (pick): topic 2",
        "rebase (pick): topic 3",
        "rebase (pick): topic 4",
        "rebase (start): checkout main",
    ]
    base = topic.repo.resolve("main")
    assert messages(topic, "topic", 1) == [f"rebase (finish): refs/heads/topic onto {base}"]
    assert topic.repo.resolve("ORIG_HEAD") == topic.repo.resolve("topic@{1}") == old
    assert topic.repo.rebase("main").state == "up to date"
    assert topic.repo.fsck(full=True).ok


def test_a_branch_that_is_only_behind_is_moved(topic: Bot) -> None:
    topic.repo.switch("main")
    topic.repo.reset("HEAD~1", mode="hard")
    topic.repo.rebase("topic")
    assert topic.repo.resolve("main") == topic.repo.resolve("topic")
    assert topic.repo.head().branch == "main"


def test_onto_another_commit_goes_only_what_upstream_has_not(topic: Bot) -> None:
    topic.repo.recipe.set_rules({"lambda": "0.9"})
    topic.commit(message="rules")
    topic.repo.rebase("topic~1", onto="main")
    assert subjects(topic, 3) == ["rules", "on main", "a little less"]


def test_another_branch_is_gone_to_first(topic: Bot) -> None:
    topic.repo.switch("main")
    topic.repo.rebase("main", "topic")
    assert (topic.repo.head().branch, subjects(topic, 2)) == ("topic", ["topic 2", "topic 3"])


def test_a_change_that_upstream_has_is_left_out(topic: Bot) -> None:
    topic.repo.switch("main")
    topic.repo.cherry_pick("topic~2")
    topic.repo.switch("topic")
    result = topic.repo.rebase("main")
    assert subjects(topic, 3) == ["topic 2", "topic 3", "topic 4"]
    assert [commit.subject for commit in result.commits] == ["topic 3", "topic 2"]
    assert any(note.startswith("left out ") for note in result.notes)


def test_merges_are_left_out_and_their_commits_made_one_after_another(topic: Bot) -> None:
    topic.repo.switch("topic~1", create="side")
    topic.repo.recipe.set_rules({"lambda": "0.9"})
    topic.commit(message="side")
    topic.repo.switch("topic")
    topic.repo.merge("side")
    topic.repo.rebase("main")
    assert sorted(subjects(topic, 4)) == ["side", "topic 2", "topic 3", "topic 4"]
    assert all(len(entry.parents) == 1 for entry in topic.repo.log(n=5))


def stopped(bot: Bot) -> None:
    """A rebase that stops at the second of three commits."""
    with pytest.raises(
        Conflicted, match=r"suggesting\.alpha: -0\.45 in HEAD, -0\.2 in .*second.*, -0\.5 before"
    ):
        bot.repo.rebase("main")
    under_way = bot.repo.status().sequence
    assert under_way is not None
    assert (under_way.verb, under_way.branch, under_way.left) == ("rebase", "topic", 1)
    assert bot.repo.head() == Head(None, bot.repo.resolve("HEAD"))
    assert subjects(bot, 2) == ["first", "clash"]


def test_a_stop_goes_on(clashing: Bot) -> None:
    stopped(clashing)
    clashing.repo.recipe.set("suggesting", alpha="-0.3")
    clashing.repo.rebase(continue_=True)
    assert subjects(clashing, 4) == ["third", "second", "first", "clash"]
    assert clashing.repo.head().branch == "topic"
    assert messages(clashing, "HEAD", 3)[1:] == ["rebase (pick): third", "rebase (continue): second"]
    assert clashing.repo["HEAD"].recipe.vectors["suggesting"].alpha == -0.3


def test_a_stop_that_commit_concludes_goes_on(clashing: Bot) -> None:
    stopped(clashing)
    clashing.repo.recipe.set("suggesting", alpha="-0.3")
    clashing.commit(message="mine")
    clashing.repo.rebase(continue_=True)
    assert subjects(clashing, 3) == ["third", "mine", "first"]


def test_a_skipped_commit_is_left_out(clashing: Bot) -> None:
    stopped(clashing)
    clashing.repo.rebase(skip=True)
    assert subjects(clashing, 3) == ["third", "first", "clash"]
    assert clashing.repo["HEAD"].recipe.vectors["suggesting"].alpha == -0.45


def test_the_way_back_leaves_everything_as_it_was(clashing: Bot) -> None:
    before, text = clashing.repo.head(), clashing.recipe.read_text()
    stopped(clashing)
    clashing.edit(lambda text: text.replace("-0.45", "-0.9"))
    clashing.repo.rebase(abort=True)
    assert (clashing.repo.head(), clashing.recipe.read_text()) == (before, text)
    assert messages(clashing, "HEAD", 1) == ["rebase (abort): returning to refs/heads/topic"]
    assert clashing.repo.status().sequence is None


# -- interactive ---------------------------------------------------------------------------------------------


def lines(*actions: str) -> Callable[[str], str]:
    """An editor that puts these actions before the commits, `-` deleting a line."""

    def edit(text: str) -> str:
        picks = [line for line in text.splitlines() if line.startswith("pick ")]
        pairs = [pair for pair in zip(actions, picks, strict=True) if pair[0] != "-"]
        return "\n".join(line.replace("pick", action, 1) for action, line in pairs)

    return edit


def test_an_interactive_rebase_rewords_squashes_and_drops(topic: Bot) -> None:
    topic.repo.recipe.set_rules({"lambda": "0.9"})
    topic.commit(message="rules")
    topic.repo.rebase("main", todo=lines("r", "s", "fixup", "-"), messages=lambda text: text + "and more\n")
    assert subjects(topic, 2) == ["topic 4", "on main"]
    assert topic.repo["HEAD"].message.split("\n\n") == ["topic 4\nand more", "topic 3\nand more\n"]
    assert topic.repo["HEAD"].recipe.vectors["suggesting"].alpha == -0.2
    assert topic.repo["HEAD"].recipe.rules["lambda"] == 1.0


def test_commits_go_in_the_order_of_the_list(topic: Bot) -> None:
    topic.repo.recipe.set_rules({"lambda": "0.9"})
    topic.commit(message="rules")
    topic.repo.rebase(
        "main",
        todo=lambda text: "\n".join(sorted(text.splitlines()[:4], key=lambda line: "rules" not in line)),
    )
    assert subjects(topic, 4) == ["topic 2", "topic 3", "topic 4", "rules"]


def test_an_edit_stops_after_its_commit_which_can_be_amended(topic: Bot) -> None:
    result = topic.repo.rebase("main", todo=lines("e", "p", "p"))
    assert (result.state, subjects(topic, 1), topic.repo.head().branch) == ("edit", ["topic 4"], None)
    topic.commit(message="amended", amend=True)
    topic.repo.rebase(continue_=True)
    assert subjects(topic, 3) == ["topic 2", "topic 3", "amended"]
    assert topic.repo.head().branch == "topic"


def test_a_list_that_means_nothing_moves_nothing(topic: Bot) -> None:
    before = topic.repo.head()
    for text, error in (
        ("", Refused),
        ("pikc HEAD", UsageError),
        ("squash HEAD", UsageError),
        ("p", UsageError),
    ):
        with pytest.raises(error):
            topic.repo.rebase("main", todo=lambda _, text=text: text)
    assert topic.repo.head() == before
    assert topic.repo.status().sequence is None


def test_a_commit_is_split_at_an_edit(clashing: Bot) -> None:
    repo = clashing.repo
    repo.rebase("topic~2", todo=lambda text: text.replace("pick", "edit", 1))
    repo.reset("HEAD~1", mode="hard")
    for name, alpha in (("suggesting", "-0.1"), ("listening", "0.2")):
        repo.recipe.set(name, alpha=alpha)
        clashing.commit(message=name)
    repo.rebase(continue_=True)
    assert subjects(clashing, 4) == ["third", "listening", "suggesting", "first"]
    assert repo["HEAD"].recipe.vectors["listening"].alpha == 0.2


# -- cut short -----------------------------------------------------------------------------------------------


def many(bot: Bot, count: int) -> tuple[str, str]:
    """A branch with many commits beside one on main; returns the ids of both."""
    bot.repo.switch(create="topic")
    for number in range(count):
        bot.edit(lambda text, number=number: f"# {number}\n" + text)
        bot.commit(message=f"topic {number}")
    bot.repo.switch("main")
    bot.repo.recipe.set("listening", alpha="0.6")
    bot.commit(message="on main")
    bot.repo.switch("topic")
    return bot.repo.resolve("topic"), bot.repo.resolve("main")


def test_a_rebase_of_twenty_commits_cut_anywhere_is_done_or_has_not_begun(grown: Bot) -> None:
    old, base = many(grown, 20)
    text = grown.recipe.read_text()

    def check(repo: Repository) -> None:
        if repo.status().sequence is not None:
            repo.rebase(abort=True)
        repo.switch("topic")
        if repo.resolve("topic") == old:
            assert (repo.root / "recipe.toml").read_text() == text
            repo.rebase("main")
        assert repo.resolve("topic~20") == base
        assert repo.head() == Head("topic", repo.resolve("topic"))
        assert not repo.status().recipe_changed

    assert some_cuts(grown.root, lambda repo: repo.rebase("main"), check) > 100


@pytest.mark.parametrize("way", ["go on", "abort", "skip"])
def test_a_rebase_that_stops_cut_anywhere_goes_on_or_back(clashing: Bot, way: str) -> None:
    before, text = clashing.repo.head(), clashing.recipe.read_text()

    def act(repo: Repository) -> None:
        with pytest.raises(Conflicted):
            repo.rebase("main")
        if way == "abort":
            repo.rebase(abort=True)
        elif way == "skip":
            repo.rebase(skip=True)
        else:
            repo.recipe.set("suggesting", alpha="-0.3")
            repo.rebase(continue_=True)

    seen: list[str] = []

    def back(repo: Repository) -> None:
        under_way = repo.status().sequence
        if under_way is not None and len(seen) % 2 and way != "abort":
            repo.rebase(continue_=True, strategy="theirs")
        elif under_way is not None:
            repo.rebase(abort=True)
        seen.append("")
        if repo.head() == before:
            assert (repo.root / "recipe.toml").read_text() == text
        else:
            assert way != "abort"
            assert repo.head().branch == "topic"
            assert repo["HEAD"].subject == "third"
        assert not repo.status().recipe_changed

    each_cut(clashing.root, act, back)


def _sets(bot: Bot) -> Callable[[str], int]:
    """A command that edits the recipe."""

    def execute(command: str) -> int:
        bot.repo.recipe.set("listening", alpha="0.7")
        return 0

    return execute


def test_a_command_runs_after_each_commit_and_a_failure_waits(topic: Bot) -> None:
    seen: list[tuple[str, str]] = []

    def execute(command: str) -> int:
        seen.append((command, topic.repo["HEAD"].subject))
        return int(len(seen) == 2)

    with pytest.raises(UsageError, match="give `execute`"):
        topic.repo.rebase("main", commands="check")
    with pytest.raises(Refused, match="'check' failed with exit code 1; the rebase waits"):
        topic.repo.rebase("main", commands="check", execute=execute)
    assert topic.repo.head().branch is None
    result = topic.repo.rebase(continue_=True, execute=execute)
    assert seen == [("check", f"topic {number}") for number in (4, 3, 2)]
    assert (result.state, topic.repo.head().branch) == ("done", "topic")
    assert subjects(topic, 4) == ["topic 2", "topic 3", "topic 4", "on main"]


def test_a_command_may_commit_and_one_that_leaves_edits_waits(topic: Bot) -> None:
    def execute(command: str) -> int:
        topic.repo.recipe.set("listening", alpha="0.9")
        if command == "commit":
            topic.commit(message="by the command")
        return 0

    topic.repo.rebase("main", todo=lambda text: text.replace("\n\n", "\nx commit\n\n", 1), execute=execute)
    assert subjects(topic, 2) == ["by the command", "topic 2"]
    topic.repo.switch("main")
    with pytest.raises(Refused, match=r"'edit' left edits in recipe.toml; the rebase waits"):
        topic.repo.rebase("main", "topic", commands="edit", todo=lambda text: text, execute=_sets(topic))
    assert topic.repo.rebase(abort=True).state == "aborted"


def test_the_rest_of_the_list_is_edited_and_keeps_messages_that_were_edited(topic: Bot) -> None:
    lines: list[str] = []

    def first(text: str) -> str:
        one, two, three, *rest = text.splitlines()
        return "\n".join([one.replace("pick", "edit"), two.replace("pick", "reword"), three, *rest])

    def second(text: str) -> str:
        lines.extend(text.splitlines()[:2])
        return lines[0]

    asked: list[str] = []
    topic.repo.rebase("main", todo=first, messages=lambda text: asked.append(text) or "reworded\n")
    result = topic.repo.rebase(edit_todo=True, todo=second)
    assert (result.state, result.left) == ("list", 1)
    assert [line.split()[0] for line in lines] == ["reword", "pick"]
    topic.repo.rebase(continue_=True)
    assert subjects(topic, 3) == ["reworded", "topic 4", "on main"]
    assert asked == ["topic 3\n"]


def test_an_empty_rest_ends_the_rebase_and_a_faulty_one_changes_nothing(topic: Bot) -> None:
    topic.repo.rebase("main", todo=lambda text: text.replace("pick", "edit", 1))
    with pytest.raises(UsageError, match="is no action"):
        topic.repo.rebase(edit_todo=True, todo=lambda text: "nonsense\n")
    topic.repo.rebase(edit_todo=True, todo=lambda text: "")
    assert topic.repo.rebase(continue_=True).state in ("done", "nothing")
    assert subjects(topic, 2) == ["topic 4", "on main"]


def test_quit_leaves_head_and_the_files_where_they_are(clashing: Bot) -> None:
    with pytest.raises(Conflicted):
        clashing.repo.rebase("main")
    head, text = clashing.repo.head(), clashing.recipe.read_bytes()
    assert clashing.repo.rebase(quit_=True).state == "quit"
    assert (clashing.repo.head(), clashing.recipe.read_bytes()) == (head, text)
    assert clashing.repo.status().sequence is None
    with pytest.raises(Refused, match="no rebase is under way"):
        clashing.repo.rebase(quit_=True)


def test_edits_at_a_break_are_no_part_of_the_commit_before(topic: Bot) -> None:
    topic.repo.rebase("main", todo=lambda text: text.replace("\n", "\nbreak\n", 1))
    topic.repo.recipe.set("listening", alpha="0.9")
    with pytest.raises(Refused, match="edits that no commit holds"):
        topic.repo.rebase(continue_=True)
    topic.commit(message="between")
    topic.repo.rebase(continue_=True)
    assert subjects(topic, 4) == ["topic 2", "topic 3", "between", "topic 4"]


def test_a_rebase_with_commands_cut_anywhere_goes_on_or_back(topic: Bot) -> None:
    before, root = topic.repo.head(), topic.root
    topic.repo.close()

    def check(repo: Repository) -> None:
        if repo.status().sequence is not None:
            repo.rebase(abort=True)
            assert repo.head() == before
        elif repo.head() != before:
            assert [entry.subject for entry in repo.log(n=4)] == ["topic 2", "topic 3", "topic 4", "on main"]
        assert repo.head().branch == "topic"
        assert repo.diff().empty

    def act(repo: Repository) -> None:
        repo.rebase("main", commands="check", execute=lambda command: 0)

    assert some_cuts(root, act, check) > 100
