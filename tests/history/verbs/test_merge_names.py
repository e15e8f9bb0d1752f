"""Vectors that were renamed, swapped or replaced on one side: merge and its like follow them by their ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from persona.errors import Conflicted, Refused
from persona.repository import Repository
from tests.checkpoints import write_model
from tests.history.bots import Bot, Edit, base_tensors, branched

Way = Callable[[Bot], object]


def terms(bot: Bot, rev: str | None = None) -> dict[str, tuple[str, object]]:
    """The vector and the strength of each term; without `rev`, of the work tree."""
    history = bot.repo._history
    recipe = history.read_recipe(bot.recipe.read_bytes()) if rev is None else history.recipe_of(rev)
    return {name: (term.vector, term.alpha) for name, term in recipe.by_name.items()}


def swap(repo: Repository) -> None:
    """Swaps the names of both vectors."""
    for old, new in (("listening", "x"), ("suggesting", "listening"), ("x", "suggesting")):
        repo.recipe.rename(old, new)


@pytest.fixture
def ids(grown: Bot) -> dict[str, str]:
    """The vectors of both terms."""
    return {name: vector for name, (vector, _) in terms(grown).items()}


WEAKER: Edit = lambda repo: repo.recipe.set("listening", alpha="0.2")  # noqa: E731
ONTO: dict[str, Way] = {
    "merge": lambda bot: bot.repo.merge("topic"),
    "merge the other way": lambda bot: (bot.repo.switch("topic"), bot.repo.merge("main")),
    "cherry-pick": lambda bot: (bot.repo.switch("topic"), bot.repo.cherry_pick("main")),
    "rebase": lambda bot: bot.repo.rebase("topic"),
    "stash": lambda bot: (
        bot.repo.reset("HEAD~1"),
        bot.repo.stash.push(),
        bot.repo.switch("topic"),
        bot.repo.stash.pop(),
    ),
}


@pytest.mark.parametrize("way", ONTO)
def test_a_strength_stays_with_its_vector_when_its_name_went_to_another(
    grown: Bot, ids: dict[str, str], way: str
) -> None:
    path = grown.tune("new", 9)

    def retrained(repo: Repository) -> None:
        repo.recipe.rename("listening", "old")
        repo.add(path, name="listening")

    branched(grown, WEAKER, retrained)
    ONTO[way](grown)
    found = terms(grown)
    assert found["old"] == (ids["listening"], "0.2")
    assert found["listening"][0] not in ids.values()
    assert found["listening"][1] == "1"
    assert found.keys() == {"old", "listening", "suggesting"}


@pytest.mark.parametrize("way", ONTO)
def test_a_strength_follows_a_swap_of_names(grown: Bot, ids: dict[str, str], way: str) -> None:
    branched(grown, WEAKER, swap)
    ONTO[way](grown)
    assert terms(grown) == {"suggesting": (ids["listening"], "0.2"), "listening": (ids["suggesting"], "-0.5")}


def test_a_revert_takes_a_value_back_from_the_vector_that_has_another_name_now(
    grown: Bot, ids: dict[str, str]
) -> None:
    WEAKER(grown.repo)
    grown.commit()
    swap(grown.repo)
    grown.commit()
    grown.repo.revert("HEAD~1")
    assert terms(grown) == {"suggesting": (ids["listening"], "0.7"), "listening": (ids["suggesting"], "-0.5")}
    assert terms(grown, grown.repo.resolve("HEAD")) == terms(grown)


def test_blame_follows_a_swap_of_names(grown: Bot) -> None:
    before = grown.repo.blame().vectors
    swap(grown.repo)
    id = grown.commit().id
    for rev in (None, "HEAD"):
        after = grown.repo.blame(rev).vectors
        for old, new in (("listening", "suggesting"), ("suggesting", "listening")):
            assert after[new]["alpha"].commit == before[old]["alpha"].commit
            assert after[new]["id"].commit == before[old]["id"].commit
            assert after[new]["name"].commit == id


# -- two vectors with one name -------------------------------------------------------------------------------


@pytest.fixture
def named_twice(grown: Bot, ids: dict[str, str]) -> Bot:
    """topic renamed `listening` to `new`; main has added another vector of this name."""
    path = grown.tune("new", 9)
    branched(grown, lambda repo: repo.add(path), lambda repo: repo.recipe.rename("listening", "new"))
    return grown


def test_two_vectors_with_one_name_are_a_conflict_that_keeps_both(
    named_twice: Bot, ids: dict[str, str]
) -> None:
    bot, added = named_twice, terms(named_twice)["new"][0]
    with pytest.raises(Conflicted) as found:
        bot.repo.merge("topic")
    told = f"two vectors are named new: {added[:8]} in HEAD, {ids['listening'][:8]} in topic"
    assert told in found.value.message
    assert f"`repo.recipe.rename('listening', NAME)` names {ids['listening'][:8]}" in str(found.value)
    assert {name: vector for name, (vector, _) in terms(bot).items()} == {**ids, "new": added}
    assert '# >>>>>>> topic: vectors.listening.name = "new"\n' in bot.recipe.read_text()
    with pytest.raises(Conflicted, match="a conflict stands"):
        bot.commit()


def without_markers(text: str) -> str:
    """The text as an editor leaves it that has decided."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))


def renamed_by_hand(text: str) -> str:
    """Both vectors with other names, and no markers."""
    text = without_markers(text).replace("[vectors.new]", "[vectors.fresh]")
    return text.replace("[vectors.listening]", "[vectors.new]")


ANSWERS: dict[str, tuple[Way, dict[str, str]]] = {
    "the editor keeps our names": (lambda bot: bot.edit(without_markers), {}),
    "the editor gives names": (lambda bot: bot.edit(renamed_by_hand), {"listening": "new", "new": "fresh"}),
    "mv": (lambda bot: bot.repo.recipe.rename("listening", "heard"), {"listening": "heard"}),
    "mv both": (
        lambda bot: (bot.repo.recipe.rename("new", "fresh"), bot.repo.recipe.rename("listening", "new")),
        {"listening": "new", "new": "fresh"},
    ),
    "ours": (lambda bot: bot.repo.merge(continue_=True, strategy="ours"), {}),
    "theirs": (
        lambda bot: bot.repo.merge(continue_=True, strategy="theirs"),
        {"listening": "new", "new": "new-2"},
    ),
    "ours from the start": (
        lambda bot: (bot.repo.merge(abort=True), bot.repo.merge("topic", strategy="ours")),
        {},
    ),
    "theirs from the start": (
        lambda bot: (bot.repo.merge(abort=True), bot.repo.merge("topic", strategy="theirs")),
        {"listening": "new", "new": "new-2"},
    ),
}


@pytest.mark.parametrize("way", ANSWERS)
def test_each_answer_keeps_both_vectors(named_twice: Bot, way: str) -> None:
    bot, (act, names) = named_twice, ANSWERS[way]
    with pytest.raises(Conflicted):
        bot.repo.merge("topic")
    before = terms(bot)
    act(bot)
    if bot.repo.status().sequence is not None:
        bot.repo.merge(continue_=True)
    assert terms(bot) == {names.get(name, name): term for name, term in before.items()}
    assert terms(bot, bot.repo.resolve("HEAD")) == terms(bot)
    assert len(bot.repo["HEAD"].parents) == 2
    assert "<<<" not in bot.recipe.read_text()


def test_the_mean_decides_no_name(named_twice: Bot) -> None:
    with pytest.raises(Conflicted):
        named_twice.repo.merge("topic", strategy="mean")
    with pytest.raises(Conflicted):
        named_twice.repo.merge(continue_=True, strategy="mean")


def test_a_stash_with_a_name_that_is_taken_now_keeps_both_vectors(grown: Bot, ids: dict[str, str]) -> None:
    path = grown.tune("new", 9)
    grown.repo.recipe.rename("listening", "new")
    grown.repo.stash.push()
    grown.repo.add(path)
    grown.commit()
    added = terms(grown)["new"]
    with pytest.raises(Conflicted, match="two vectors are named new"):
        grown.repo.stash.pop()
    assert terms(grown)["new"] == added
    assert terms(grown)["listening"][0] == ids["listening"]
    assert len(grown.repo.stash.list()) == 1


# -- a vector that is renamed while a conflict stands --------------------------------------------------------


@pytest.mark.parametrize("way", ["mv", "editor"])
@pytest.mark.parametrize(("strategy", "alpha"), [("ours", "0.5"), ("theirs", "0.2"), ("mean", "0.35")])
def test_a_strategy_finds_a_vector_that_was_renamed_at_the_stop(
    grown: Bot, way: str, strategy: str, alpha: str
) -> None:
    branched(grown, lambda repo: repo.recipe.set("listening", alpha="0.5"), WEAKER)
    with pytest.raises(Conflicted):
        grown.repo.merge("topic")
    if way == "mv":
        grown.repo.recipe.rename("listening", "heard")
        assert "# >>>>>>> topic: vectors.heard.alpha = 0.2\n" in grown.recipe.read_text()
        with pytest.raises(Conflicted, match=r"vectors\.heard\.alpha"):
            grown.repo.merge(continue_=True)
    else:
        grown.edit(lambda text: text.replace("[vectors.listening]", "[vectors.heard]"))
    grown.repo.merge(continue_=True, strategy=strategy)  # type: ignore[arg-type]
    assert terms(grown)["heard"][1] == alpha
    assert "listening" not in terms(grown)


def test_set_removes_the_pair_of_a_vector_that_was_renamed_at_the_stop(grown: Bot) -> None:
    branched(grown, lambda repo: repo.recipe.set("listening", alpha="0.5"), WEAKER)
    with pytest.raises(Conflicted):
        grown.repo.merge("topic")
    grown.repo.recipe.rename("listening", "heard")
    grown.repo.recipe.set("heard", alpha="0.4")
    grown.repo.merge(continue_=True)
    assert terms(grown)["heard"][1] == "0.4"


# -- another base --------------------------------------------------------------------------------------------


@pytest.fixture
def moved(grown: Bot, tmp_path: Path) -> Bot:
    """topic has moved to another base; main has added a vector of the old one."""
    write_model(tmp_path / "base2", base_tensors(5))
    added = grown.tune("new", 9)
    grown.repo.switch(create="topic")
    grown.repo.rebase_base(tmp_path / "base2")
    grown.repo.switch("main")
    grown.repo.add(added)
    grown.commit()
    return grown


@pytest.mark.parametrize("strategy", [None, "theirs"])
@pytest.mark.parametrize("here", ["main", "topic"])
def test_a_vector_of_the_old_base_is_dropped_by_no_strategy(
    moved: Bot, strategy: str | None, here: str
) -> None:
    moved.repo.switch(here)
    head, text = moved.repo.head(), moved.recipe.read_text()
    with pytest.raises(Refused, match=r"new belongs to the base .*, and the other side is on base2"):
        moved.repo.merge("topic" if here == "main" else "main", strategy=strategy)  # type: ignore[arg-type]
    assert (moved.repo.head(), moved.recipe.read_text()) == (head, text)
    assert moved.repo.status().sequence is None


def test_a_branch_that_has_followed_to_the_other_base_merges(moved: Bot) -> None:
    moved.repo.rebase_base("base2")
    moved.repo.merge("topic")
    assert terms(moved).keys() == {"listening", "suggesting", "new"}


def test_a_rebase_makes_the_change_of_a_vector_again_though_another_of_its_name_got_the_same(
    grown: Bot, ids: dict[str, str]
) -> None:
    grown.repo.recipe.set("suggesting", alpha="0.7")
    grown.commit()
    grown.repo.switch(create="topic")
    WEAKER(grown.repo)
    grown.commit()
    grown.repo.switch("main")
    swap(grown.repo)
    grown.commit()
    WEAKER(grown.repo)
    grown.commit()
    grown.repo.rebase("main", "topic")
    assert terms(grown) == {"suggesting": (ids["listening"], "0.2"), "listening": (ids["suggesting"], "0.2")}


# -- comments ------------------------------------------------------------------------------------------------


def commented(bot: Bot, alpha: str, comment: str) -> Edit:
    """An edit of `listening` with a comment in its line, which was `# first`."""
    return lambda repo: bot.edit(
        lambda text: text.replace("alpha = 0.7  # first", f"alpha = {alpha}  # {comment}")
    )


@pytest.fixture
def remarked(grown: Bot) -> Bot:
    """A comment beside the strength of `listening`."""
    grown.edit(lambda text: text.replace("alpha = 0.7", "alpha = 0.7  # first"))
    grown.commit()
    return grown


def test_a_strategy_takes_the_comment_beside_the_value_that_it_takes(remarked: Bot) -> None:
    branched(remarked, commented(remarked, "0.5", "ours"), commented(remarked, "0.3", "theirs"))
    remarked.repo.merge("topic", strategy="theirs")
    assert "alpha = 0.3  # theirs\n" in remarked.recipe.read_text()
    remarked.repo.reset("HEAD~1", mode="hard")
    remarked.repo.merge("topic", strategy="ours")
    assert "alpha = 0.5  # ours\n" in remarked.recipe.read_text()


def test_a_stop_names_the_comments_that_are_left_out(remarked: Bot) -> None:
    branched(remarked, commented(remarked, "0.5", "ours"), commented(remarked, "0.3", "theirs"))
    with pytest.raises(Conflicted, match="did not fit beside those of HEAD: # theirs"):
        remarked.repo.merge("topic")


def test_a_stash_whose_comment_does_not_fit_is_kept(remarked: Bot) -> None:
    commented(remarked, "0.7", "stashed")(remarked.repo)
    remarked.repo.stash.push()
    commented(remarked, "0.5", "ours")(remarked.repo)
    remarked.commit()
    found = remarked.repo.stash.pop()
    assert (found.state, found.dropped) == ("applied", False)
    assert any("# stashed" in note for note in found.notes)
    assert len(remarked.repo.stash.list()) == 1
