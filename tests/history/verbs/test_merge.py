"""merge: what one side changed is in the merge; what both changed stops, and each way out of a stop works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from persona.errors import Conflicted, PersonaError, Refused, UsageError
from persona.history.results import Head
from persona.repository import Repository
from tests.history.bots import Bot, Edit, branched, each_cut


def listening(alpha: str) -> Edit:
    """An edit of one vector's strength."""
    return lambda repo: repo.recipe.set("listening", alpha=alpha)


def suggesting(alpha: str) -> Edit:
    """An edit of the other's."""
    return lambda repo: repo.recipe.set("suggesting", alpha=alpha)


@pytest.fixture
def parted(grown: Bot) -> Bot:
    """Both branches set the strength of `listening`, which was 0.7; topic that of `suggesting` too."""

    def theirs(repo: Repository) -> None:
        listening("0.3")(repo)
        suggesting("-0.25")(repo)

    branched(grown, listening("0.5"), theirs)
    return grown


def alphas(bot: Bot, rev: str = "HEAD") -> dict[str, object]:
    """The strengths in a commit."""
    return {name: term.alpha for name, term in bot.repo[rev].recipe.vectors.items()}


def stopped(bot: Bot) -> Conflicted:
    """The error of a merge that stops."""
    with pytest.raises(Conflicted) as found:
        bot.repo.merge("topic")
    return found.value


def place(bot: Bot) -> tuple[Head, list[tuple[str, str]], str]:
    """HEAD, every branch, and the text of the recipe."""
    return bot.repo.head(), [(one.name, one.id) for one in bot.repo.branches.values()], bot.recipe.read_text()


# -- clean merges --------------------------------------------------------------------------------------------


def test_different_behaviours_merge_to_the_weights_of_both_on_one_branch_in_either_order(grown: Bot) -> None:
    grown.repo.switch(create="both")
    suggesting("-0.25")(grown.repo)
    listening("0.3")(grown.repo)
    grown.commit()
    wanted = grown.repo.digest().weights
    grown.repo.switch("main")
    branched(grown, listening("0.3"), suggesting("-0.25"))
    result = grown.repo.merge("topic")
    assert (result.state, result.subject) == ("done", "Merge branch 'topic'")
    assert result.parents == (grown.repo.resolve("main@{1}"), grown.repo.resolve("topic"))
    assert grown.repo.digest().weights == wanted
    grown.repo.switch("topic")
    assert grown.repo.merge("main~1").parents == (grown.repo.resolve("topic@{1}"), result.parents[0])
    assert grown.repo.digest().weights == wanted
    assert grown.repo.status().files_changed == ()
    assert not grown.repo.status().recipe_changed


def test_text_files_and_comments_come_along(grown: Bot) -> None:
    template = grown.root / "chat_template.jinja"
    template.write_text("hello\n\n\n\nworld\n")
    grown.commit()
    branched(
        grown,
        lambda repo: (template.write_text("hello\n\n\n\nwide world\n"), listening("0.5")(repo)),
        lambda repo: (template.write_text("hi\n\n\n\nworld\n"), grown.edit(lambda text: "# warm\n" + text)),
    )
    grown.repo.merge("topic")
    assert template.read_text() == "hi\n\n\n\nwide world\n"
    assert grown.recipe.read_text().startswith("# warm\n")
    assert alphas(grown)["listening"] == 0.5


def added(bot: Bot, name: str, seed: int) -> Edit:
    """An edit that adds a vector with a comment above it."""
    path = bot.tune(name, seed)

    def edit(repo: Repository) -> None:
        repo.add(path)
        bot.edit(lambda text: text.replace(f"[vectors.{name}]", f"# {name}, by hand\n[vectors.{name}]"))

    return edit


def test_vectors_that_both_add_are_both_there_with_their_comments(grown: Bot) -> None:
    branched(grown, added(grown, "calm", 3), added(grown, "brief", 4))
    result = grown.repo.merge("topic")
    text = grown.recipe.read_text()
    assert "# calm, by hand\n[vectors.calm]\n" in text
    assert "# brief, by hand\n[vectors.brief]\n" in text
    assert set(alphas(grown)) == {"listening", "suggesting", "calm", "brief"}
    assert not any("comments" in note for note in result.notes)


def test_a_comment_that_does_not_fit_beside_another_is_named(grown: Bot) -> None:
    line = "[vectors.listening]"
    branched(
        grown,
        lambda repo: grown.edit(lambda text: text.replace(line, f"# ours\n{line}").replace("0.7", "0.6")),
        lambda repo: grown.edit(lambda text: text.replace("alpha = 0.7", "alpha = 0.7  # theirs")),
    )
    result = grown.repo.merge("topic")
    assert alphas(grown)["listening"] == 0.6
    assert "# ours\n" in grown.recipe.read_text()
    assert "# theirs" in grown.recipe.read_text() or any("# theirs" in note for note in result.notes)


def test_a_merge_with_an_ancestor_changes_nothing(parted: Bot) -> None:
    before = place(parted)
    for rev in ("HEAD", "HEAD~1", "main~3"):
        result = parted.repo.merge(rev)
        assert (result.state, result.commits) == ("up to date", ())
    assert place(parted) == before


def test_a_branch_that_is_only_behind_is_moved_unless_a_commit_is_asked_for(grown: Bot) -> None:
    grown.repo.switch(create="topic")
    listening("0.3")(grown.repo)
    grown.commit()
    grown.repo.switch("main")
    result = grown.repo.merge("topic", ff_only=True)
    assert (result.state, grown.repo.resolve("main")) == ("fast-forward", grown.repo.resolve("topic"))
    assert grown.repo.reflog()[0].message == "merge topic: Fast-forward"
    grown.repo.reset("ORIG_HEAD", mode="hard")
    result = grown.repo.merge("topic", no_ff=True, message="take it over")
    assert (result.subject, result.parents[1]) == ("take it over", grown.repo.resolve("topic"))
    assert grown.repo["HEAD"].recipe == grown.repo["topic"].recipe


def test_the_message_of_a_merge_is_gits(parted: Bot) -> None:
    suggesting("-0.1")(parted.repo)
    parted.commit()
    parted.repo.tags.create("v1", "topic")
    id = parted.repo.resolve("topic")
    for rev, subject in (("v1", "Merge tag 'v1'"), (id, f"Merge commit '{id}'")):
        assert parted.repo.merge(rev, strategy="ours").subject == subject
        parted.repo.reset("HEAD~1", mode="hard")
    parted.repo.switch("topic", create="side")
    assert (
        parted.repo.merge("main~1", strategy="ours").subject == "Merge branch 'main' (early part) into side"
    )
    parted.repo.switch("HEAD~1", detach=True)
    assert parted.repo.merge("main", strategy="ours").subject == "Merge branch 'main' into HEAD"


def test_only_a_fast_forward_is_refused_if_both_have_moved_on(parted: Bot) -> None:
    before = place(parted)
    with pytest.raises(Refused, match="not possible to fast-forward"):
        parted.repo.merge("topic", ff_only=True)
    with pytest.raises(UsageError):
        parted.repo.merge("topic", ff_only=True, no_ff=True)
    with pytest.raises(UsageError):
        parted.repo.merge()
    assert place(parted) == before


def test_a_merge_that_is_not_to_be_committed_waits(grown: Bot) -> None:
    branched(grown, listening("0.3"), suggesting("-0.25"))
    head = grown.repo.head()
    assert grown.repo.merge("topic", no_commit=True).state == "prepared"
    assert grown.repo.head() == head
    assert grown.repo.prepared_message() == "Merge branch 'topic'\n"
    assert grown.commit(message="both").parents == (head.id, grown.repo.resolve("topic"))
    assert alphas(grown) == {"listening": 0.3, "suggesting": -0.25}
    assert grown.repo.status().sequence is None


def test_edits_of_other_files_stay_beside_a_merge_and_are_not_swept_into_a_stop(parted: Bot) -> None:
    template = parted.root / "chat_template.jinja"
    template.write_text("mine\n")
    before = place(parted)
    with pytest.raises(Refused, match=r"uncommitted edits .*: chat_template\.jinja"):
        parted.repo.merge("topic")
    assert place(parted) == before
    assert parted.repo.status().sequence is None
    parted.repo.merge("topic", strategy="mean")
    assert alphas(parted) == {"listening": 0.4, "suggesting": -0.25}
    assert parted.repo.status().files_changed == ("chat_template.jinja",)
    assert template.read_text() == "mine\n"


def test_edits_are_not_swept_into_a_merge(parted: Bot) -> None:
    parted.edit(lambda text: text + "# mine\n")
    before = place(parted)
    with pytest.raises(Refused, match=r"uncommitted edits .*: recipe\.toml"):
        parted.repo.merge("topic")
    assert place(parted) == before


def test_a_criss_cross_is_merged_from_a_base_of_both_bases(grown: Bot) -> None:
    branched(grown, listening("0.5"), suggesting("-0.25"))
    grown.repo.branches.create("other", "topic")
    grown.repo.merge("topic")
    grown.repo.switch("other")
    grown.repo.merge("main~1")
    listening("0.4")(grown.repo)
    grown.commit()
    grown.repo.switch("main")
    suggesting("-0.1")(grown.repo)
    grown.commit()
    grown.repo.merge("other")
    assert alphas(grown) == {"listening": 0.4, "suggesting": -0.1}


def test_a_criss_cross_whose_bases_do_not_agree_takes_neither_side_silently(grown: Bot) -> None:
    branched(grown, listening("0.5"), listening("0.3"))
    grown.repo.branches.create("other", "topic")
    grown.repo.merge("topic", strategy="ours")
    grown.repo.switch("other")
    grown.repo.merge("main~1", strategy="ours")
    grown.repo.switch("main")
    with pytest.raises(Conflicted, match=r"vectors.listening.alpha: 0.5 in HEAD, 0.3 in other, 0.7 before"):
        grown.repo.merge("other")


# -- a stop --------------------------------------------------------------------------------------------------


def test_the_same_strength_on_both_sides_stops_with_both_values_and_nothing_moved(parted: Bot) -> None:
    head, branches, _ = place(parted)
    reflogs = [parted.repo.reflog(ref) for ref in ("HEAD", "main", "topic")]
    error = stopped(parted)
    assert (error.exit_code, error.kind) == (1, "conflict")
    assert "vectors.listening.alpha: 0.5 in HEAD, 0.3 in topic, 0.7 before" in error.message
    assert [(one.key, one.ours, one.theirs) for one in error.conflicts] == [
        ("vectors.listening.alpha", "0.5", "0.3")
    ]
    assert place(parted)[:2] == (head, branches)
    assert [parted.repo.reflog(ref) for ref in ("HEAD", "main", "topic")] == reflogs
    text = parted.recipe.read_text()
    assert (
        "# <<<<<<< HEAD: vectors.listening.alpha = 0.5\n"
        "# >>>>>>> topic: vectors.listening.alpha = 0.3\n"
        "alpha = 0.5\n"
    ) in text
    assert "alpha = -0.25" in text
    under_way = parted.repo.status().sequence
    assert under_way is not None
    assert (under_way.verb, under_way.why, len(under_way.conflicts)) == ("merge", "conflict", 1)
    assert parted.repo.resolve("MERGE_HEAD") == parted.repo.resolve("topic")


def without_markers(text: str) -> str:
    """The text as an editor leaves it that has decided."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))


WAYS: dict[str, tuple[Callable[[Bot], object], float]] = {
    "edit and go on": (
        lambda bot: (
            bot.edit(lambda text: without_markers(text).replace("0.5", "0.45")),
            bot.repo.merge(continue_=True),
        ),
        0.45,
    ),
    "edit and commit": (lambda bot: (bot.edit(without_markers), bot.commit()), 0.5),
    "set and go on": (lambda bot: (listening("0.6")(bot.repo), bot.repo.merge(continue_=True)), 0.6),
    "ours": (lambda bot: bot.repo.merge(continue_=True, strategy="ours"), 0.5),
    "theirs": (lambda bot: bot.repo.merge(continue_=True, strategy="theirs"), 0.3),
    "mean": (lambda bot: bot.repo.merge(continue_=True, strategy="mean"), 0.4),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_resolving_a_conflict_ends_in_a_merge(parted: Bot, way: str) -> None:
    act, alpha = WAYS[way]
    head = parted.repo.resolve("HEAD")
    stopped(parted)
    act(parted)
    assert parted.repo["HEAD"].parents == (head, parted.repo.resolve("topic"))
    assert alphas(parted) == {"listening": alpha, "suggesting": -0.25}
    assert parted.repo.status().sequence is None
    assert not parted.repo.status().recipe_changed
    assert "<<<" not in parted.recipe.read_text()
    assert parted.repo.reflog()[0].message.startswith("commit (merge): ")
    assert parted.repo.fsck(full=True).ok


@pytest.mark.parametrize(("strategy", "alpha"), [("ours", 0.5), ("theirs", 0.3), ("mean", 0.4)])
def test_a_strategy_decides_before_anything_stops(parted: Bot, strategy: str, alpha: float) -> None:
    assert parted.repo.merge("topic", strategy=strategy).state == "done"  # type: ignore[arg-type]
    assert alphas(parted) == {"listening": alpha, "suggesting": -0.25}


@pytest.mark.parametrize("way", ["abort", "reset"])
def test_the_way_back_leaves_everything_as_it_was(parted: Bot, way: str) -> None:
    before = place(parted)
    stopped(parted)
    parted.edit(lambda text: text.replace("0.5", "0.9"))
    if way == "abort":
        assert parted.repo.merge(abort=True).state == "aborted"
    else:
        parted.repo.reset(mode="hard")
    assert place(parted) == before
    assert parted.repo.status().sequence is None
    with pytest.raises(Refused, match="no merge is under way"):
        parted.repo.merge(abort=True)
    with pytest.raises(Refused, match="no merge is under way"):
        parted.repo.merge(continue_=True)


def test_a_conflict_that_stands_lets_nothing_be_committed(parted: Bot) -> None:
    stopped(parted)
    lines = parted.recipe.read_text().splitlines(keepends=True)
    half = [line for line in lines if not line.startswith("# <<<")]
    for text in (lines, half):
        parted.recipe.write_text("".join(text))
        for act in (lambda: parted.repo.merge(continue_=True), parted.commit):
            with pytest.raises(Conflicted, match=r"a conflict stands in recipe\.toml"):
                act()


REFUSED: dict[str, Callable[[Bot], object]] = {
    "merge": lambda bot: bot.repo.merge("topic"),
    "revert": lambda bot: bot.repo.revert("HEAD"),
    "cherry-pick": lambda bot: bot.repo.cherry_pick("topic"),
    "rebase": lambda bot: bot.repo.rebase("topic"),
    "switch": lambda bot: bot.repo.switch("topic"),
    "checkout": lambda bot: bot.repo.checkout("topic"),
    "bisect": lambda bot: bot.repo.bisect.start("HEAD", "HEAD~1"),
    "amend": lambda bot: bot.commit(amend=True),
    "soft": lambda bot: bot.repo.reset(mode="soft"),
    "rebase --continue": lambda bot: bot.repo.rebase(continue_=True),
}


@pytest.mark.parametrize("act", REFUSED)
def test_what_would_lose_a_merge_is_refused_and_says_how_to_go_on(parted: Bot, act: str) -> None:
    stopped(parted)
    before = place(parted)
    with pytest.raises(PersonaError, match=r"merg"):
        REFUSED[act](parted)
    assert place(parted) == before
    assert parted.repo.status().sequence is not None


def test_a_vector_that_one_side_removed_and_the_other_changed_is_one_conflict(grown: Bot) -> None:
    branched(grown, lambda repo: repo.recipe.remove("listening"), listening("0.3"))
    with pytest.raises(
        Conflicted, match=r"vectors.listening.alpha: removed in HEAD, 0.3 in topic, 0.7 before"
    ):
        grown.repo.merge("topic")
    text = grown.recipe.read_text()
    assert "# <<<<<<< HEAD: no vectors.listening\n" in text
    assert "# >>>>>>> topic: vectors.listening = { id = " in text
    grown.repo.merge(continue_=True, strategy="theirs")
    assert alphas(grown) == {"listening": 0.3, "suggesting": -0.5}


def test_values_that_do_not_go_together_are_shown_as_the_changes_of_theirs(grown: Bot) -> None:
    branched(
        grown,
        lambda repo: repo.recipe.set_rules({"preset": "linear"}),
        lambda repo: repo.recipe.set("listening", density="0.5", alpha="0.3"),
    )
    with pytest.raises(Conflicted, match="trims nothing"):
        grown.repo.merge("topic")
    text = grown.recipe.read_text()
    assert "# >>>>>>> topic: vectors.listening.density = 0.5\n" in text
    assert "# >>>>>>> topic: vectors.listening.alpha = 0.3\n" in text
    grown.edit(without_markers)
    listening("0.3")(grown.repo)
    grown.repo.merge(continue_=True)
    assert alphas(grown)["listening"] == 0.3


@pytest.mark.parametrize("strategy", ["ours", "theirs", None])
def test_lines_that_both_changed_stand_between_gits_markers(grown: Bot, strategy: str | None) -> None:
    template = grown.root / "chat_template.jinja"
    branched(
        grown,
        lambda repo: template.write_text("hello you\n"),
        lambda repo: template.write_text("hello they\n"),
    )
    with pytest.raises(Conflicted, match=r"chat_template\.jinja: the same lines"):
        grown.repo.merge("topic")
    marked = "<<<<<<< HEAD\nhello you\n=======\nhello they\n>>>>>>> topic\n"
    assert template.read_text() == marked
    with pytest.raises(Conflicted):
        grown.repo.merge(continue_=True)
    if strategy is None:
        template.write_text("hello both\n")
    grown.repo.merge(continue_=True, strategy=strategy)  # type: ignore[arg-type]
    wanted = {"ours": "hello you\n", "theirs": "hello they\n", None: "hello both\n"}[strategy]
    assert template.read_text() == wanted


@pytest.mark.parametrize("way", ["keep", "remove", "theirs"])
def test_a_file_that_one_side_removed_waits_for_a_decision(grown: Bot, way: str) -> None:
    template = grown.root / "chat_template.jinja"
    branched(grown, lambda repo: template.write_text("hello you\n"), lambda repo: template.unlink())
    with pytest.raises(Conflicted, match=r"chat_template\.jinja: changed in HEAD, removed in topic"):
        grown.repo.merge("topic")
    assert template.read_text() == "hello you\n"
    with pytest.raises(Conflicted, match="stands"):
        grown.repo.merge(continue_=True)
    if way == "keep":
        grown.repo.add(template)
    elif way == "remove":
        template.unlink()
    grown.repo.merge(continue_=True, strategy="theirs" if way == "theirs" else None)
    assert template.exists() is (way == "keep")
    assert grown.repo.status().files_changed == ()


def test_a_file_of_theirs_does_not_overwrite_an_untracked_one(grown: Bot) -> None:
    note = grown.root / "notes.md"

    def theirs(repo: Repository) -> None:
        note.write_text("theirs\n")
        repo.add(note)

    branched(grown, listening("0.5"), theirs)
    note.write_text("mine\n")
    before = place(grown)
    with pytest.raises(Refused, match=r"notes\.md"):
        grown.repo.merge("topic")
    assert (place(grown), note.read_text()) == (before, "mine\n")
    note.unlink()
    grown.repo.merge("topic")
    assert note.read_text() == "theirs\n"
    assert grown.repo.status().files_changed == ()


@pytest.mark.parametrize("way", ["go on", "commit", "abort", "reset"])
def test_a_merge_that_stops_cut_anywhere_goes_on_or_back(parted: Bot, way: str) -> None:
    head, _, text = place(parted)
    topic = parted.repo.resolve("topic")

    def act(repo: Repository) -> None:
        with pytest.raises(Conflicted):
            repo.merge("topic")
        if way == "abort":
            repo.merge(abort=True)
        elif way == "reset":
            repo.reset(mode="hard")
        else:
            repo.recipe.set("listening", alpha="0.4")
            repo.merge(continue_=True) if way == "go on" else repo.commit(message="x")

    seen: list[str] = []

    def check(repo: Repository) -> None:
        under_way = repo.status().sequence
        if under_way is not None and len(seen) % 2 and way in ("go on", "commit"):
            repo.merge(continue_=True, strategy="mean")
        elif under_way is not None:
            repo.merge(abort=True)
        seen.append("")
        if repo.head() == head:
            assert (repo.root / "recipe.toml").read_text() == text
        else:
            assert way in ("go on", "commit")
            assert repo["HEAD"].parents == (head.id, topic)
            assert repo["HEAD"].recipe.vectors["listening"].alpha == 0.4
        assert not repo.status().recipe_changed

    each_cut(parted.root, act, check)


# -- squash --------------------------------------------------------------------------------------------------


def test_a_squashed_conflict_waits_and_its_commit_has_one_parent(parted: Bot) -> None:
    before = parted.repo.head().id
    with pytest.raises(Conflicted):
        parted.repo.merge("topic", squash=True)
    result = parted.repo.merge(continue_=True, strategy="theirs")
    assert result.parents == (before,)
    assert result.subject == "Squashed commit of the following:"
    assert alphas(parted) == alphas(parted, "topic")


def test_a_squashed_merge_is_in_the_work_tree_and_head_stays(parted: Bot) -> None:
    before = place(parted)[:2]
    result = parted.repo.merge("topic", squash=True, strategy="mean")
    assert (result.state, result.id, place(parted)[:2]) == ("prepared", None, before)
    assert str(parted.repo.recipe["listening"].alpha) == "0.4"
    assert parted.repo.status().sequence is None
    message = parted.repo.prepared_message()
    assert message is not None
    assert f"commit {parted.repo.resolve('topic')}\n" in message
    assert message.endswith("\n    theirs\n")
    with pytest.raises(UsageError, match="makes no commit"):
        parted.repo.merge("topic", squash=True, message="mine")
