"""Files with a conflict: no commit takes one by mistake, and each way to resolve one does what it says."""

from __future__ import annotations

import pytest

from persona.errors import Conflicted, Refused
from tests.history.bots import Bot, advised

LINES = "".join(f"line {number}\n" for number in range(1, 13))


def put(bot: Bot, name: str, text: str | bytes) -> None:
    """Writes a file of the work tree, which is tracked."""
    place = bot.root / name
    place.write_bytes(text.encode() if isinstance(text, str) else text)
    bot.repo.add(place)


def text(bot: Bot, name: str = "NOTES.md") -> str:
    return (bot.root / name).read_text()


@pytest.fixture
def split(grown: Bot) -> Bot:
    """Main and topic have changed the same line of NOTES.md and the same strength, and topic more."""
    put(grown, "NOTES.md", LINES)
    put(grown, "PLAN.md", LINES)
    grown.commit(message="files")
    grown.repo.switch(create="topic")
    put(grown, "NOTES.md", LINES.replace("line 3\n", "three\n").replace("line 12", "twelve"))
    put(grown, "PLAN.md", LINES.replace("line 3\n", "three\n"))
    grown.repo.recipe.set("listening", alpha="0.3")
    grown.repo.recipe.set("suggesting", alpha="0.9")
    grown.commit(message="theirs")
    grown.repo.switch("main")
    put(grown, "NOTES.md", LINES.replace("line 3\n", "drei\n"))
    grown.repo.recipe.set("listening", alpha="0.5")
    grown.commit(message="ours")
    return grown


@pytest.fixture
def merging(split: Bot) -> Bot:
    """The same, with a merge that has stopped."""
    with pytest.raises(Conflicted):
        split.repo.merge("topic")
    return split


def unmerged(bot: Bot) -> list[str]:
    """The files that `status` lists with a conflict."""
    waiting = bot.repo.status().sequence
    return sorted({conflict.path for conflict in waiting.conflicts}) if waiting else []


# -- restore -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paths", [["recipe.toml"], ["NOTES.md"], ["."], ["PLAN.md", "NOTES.md"]])
def test_a_file_with_a_conflict_is_not_put_back_without_a_side(merging: Bot, paths: list[str]) -> None:
    before = {name: text(merging, name) for name in ("recipe.toml", "NOTES.md", "PLAN.md")}
    with pytest.raises(Refused, match="unmerged"):
        merging.repo.restore(paths)
    assert before == {name: text(merging, name) for name in before}
    assert unmerged(merging) == ["NOTES.md", "recipe.toml"]


def test_a_conflict_that_is_resolved_is_not_put_back_either(merging: Bot) -> None:
    merging.repo.recipe.set("listening", alpha="0.4")
    (merging.root / "NOTES.md").write_text(LINES)
    assert unmerged(merging) == []
    with pytest.raises(Refused, match="unmerged"):
        merging.repo.restore("recipe.toml")


@pytest.mark.parametrize(("side", "rev"), [("ours", "main"), ("theirs", "topic")])
def test_a_side_is_taken_as_a_whole_and_the_result_says_so(merging: Bot, side: str, rev: str) -> None:
    done = merging.repo.restore(["recipe.toml", "NOTES.md"], **{side: True})
    assert set(done) == {"recipe.toml", "NOTES.md"}
    assert text(merging) == merging.repo[rev].read("NOTES.md").decode()
    assert text(merging, "recipe.toml") == merging.repo[rev].read("recipe.toml").decode()
    assert [note.split(" is that of ")[0] for note in done.notes] == ["NOTES.md", "recipe.toml"]
    assert unmerged(merging) == []
    merging.repo.merge(continue_=True)
    assert text(merging, "PLAN.md") == LINES.replace("line 3\n", "three\n")


def test_a_conflict_is_written_again(merging: Bot) -> None:
    before = text(merging, "recipe.toml"), text(merging)
    merging.repo.restore(["recipe.toml", "NOTES.md"], theirs=True)
    merging.repo.restore(["recipe.toml", "NOTES.md"], merge=True)
    assert (text(merging, "recipe.toml"), text(merging)) == before
    assert unmerged(merging) == ["NOTES.md", "recipe.toml"]


def test_a_file_that_merged_cleanly_is_put_back_as_the_merge_has_it(merging: Bot) -> None:
    put(merging, "PLAN.md", "an edit\n")
    merging.repo.restore("PLAN.md")
    assert text(merging, "PLAN.md") == LINES.replace("line 3\n", "three\n")
    merging.repo.restore("PLAN.md", "HEAD")
    assert text(merging, "PLAN.md") == LINES


def test_the_text_of_a_revision_resolves_a_conflict_with_a_note(merging: Bot) -> None:
    done = merging.repo.restore("recipe.toml", "HEAD")
    assert done.notes == ("recipe.toml is that of HEAD as a whole, also where it had no conflict",)


# -- markers -------------------------------------------------------------------------------------------------


def popped(bot: Bot, name: str = "NOTES.md") -> None:
    """Pops a stash that conflicts in a file."""
    put(bot, name, LINES)
    bot.commit(message="lines")
    put(bot, name, LINES.replace("line 3\n", "three\n"))
    bot.repo.stash.push()
    put(bot, name, LINES.replace("line 3\n", "drei\n"))
    bot.commit(message="drei")
    with pytest.raises(Conflicted):
        bot.repo.stash.pop()


def test_no_commit_takes_the_markers_that_a_stash_has_left(grown: Bot) -> None:
    popped(grown)
    assert unmerged(grown) == ["NOTES.md"]
    for amend in (False, True):
        with pytest.raises(Conflicted, match=r"a conflict stands in NOTES\.md"):
            grown.commit(message="markers", amend=amend)
    (grown.root / "NOTES.md").write_text(LINES.replace("line 3\n", "tres\n"))
    assert grown.repo.status().sequence is None
    grown.commit(message="resolved")
    assert not (grown.root / ".persona" / "state" / "unmerged.json").exists()


def test_no_commit_takes_markers_wherever_they_come_from(grown: Bot) -> None:
    put(grown, "NOTES.md", LINES)
    grown.commit(message="lines")
    (grown.root / "NOTES.md").write_text("<<<<<<< here\na\n=======\nb\n>>>>>>> there\n")
    with pytest.raises(Refused, match=r"stand in NOTES\.md, in the lines 1, 5"):
        grown.commit(message="markers")
    added = grown.repo.add(grown.root / "NOTES.md")
    assert added.notes == ("markers of a conflict stand in NOTES.md, and the next commit takes them",)
    grown.commit(message="a page about markers")
    with (grown.root / "NOTES.md").open("a") as file:
        file.write("more\n")
    grown.commit(message="the markers were there before")


def test_the_line_between_both_sides_alone_is_a_conflict_that_stands(merging: Bot) -> None:
    merging.repo.restore("recipe.toml", ours=True)
    half = [line for line in text(merging).splitlines(keepends=True) if not line.startswith(("<<<", ">>>"))]
    (merging.root / "NOTES.md").write_text("".join(half))
    with pytest.raises(Conflicted, match=r"NOTES\.md"):
        merging.repo.merge(continue_=True)
    (merging.root / "NOTES.md").write_text("".join(half).replace("=======\n", ""))
    merging.repo.merge(continue_=True)


def test_add_resolves_a_text_file_as_it_is_and_no_recipe(merging: Bot) -> None:
    with pytest.raises(Refused, match=r"a conflict stands in recipe\.toml"):
        merging.repo.add(merging.root / "recipe.toml")
    merging.repo.add(merging.root / "NOTES.md")
    assert unmerged(merging) == ["recipe.toml"]
    merging.repo.recipe.set("listening", alpha="0.4")
    merging.repo.merge(continue_=True)
    assert "<<<<<<< HEAD" in merging.repo["HEAD"].read("NOTES.md").decode()


# -- files that both sides have added ------------------------------------------------------------------------


def test_two_texts_of_one_name_are_both_in_the_file_with_what_they_share_once(grown: Bot) -> None:
    grown.repo.switch(create="topic")
    put(grown, "NOTES.md", "title\n\ntheirs\n")
    grown.commit(message="theirs")
    grown.repo.switch("main")
    put(grown, "NOTES.md", "title\n\nours\n")
    grown.commit(message="ours")
    with pytest.raises(Conflicted, match=r"NOTES\.md: added in HEAD, added in topic, with different lines"):
        grown.repo.merge("topic")
    assert text(grown) == "title\n\n<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> topic\n"
    grown.repo.merge(continue_=True, strategy="theirs")
    assert text(grown) == "title\n\ntheirs\n"


@pytest.mark.parametrize("binary", [False, True])
def test_a_stashed_file_is_not_lost_to_one_that_a_commit_brought(grown: Bot, binary: bool) -> None:
    stashed, theirs = (b"\xff mine", b"\xff other") if binary else (b"mine\n", b"other\n")
    (grown.root / "NOTES.md").write_bytes(stashed)
    grown.repo.stash.push(include_untracked=True)
    put(grown, "NOTES.md", theirs)
    grown.commit(message="theirs")
    with pytest.raises(Conflicted) as caught:
        grown.repo.stash.pop()
    said = advised(caught.value)
    assert ("markers" in said, "restore" in said) == (not binary, binary)
    grown.repo.restore("NOTES.md", theirs=True)
    assert (grown.root / "NOTES.md").read_bytes() == stashed
    assert len(grown.repo.stash.list()) == 1


# -- vectors that one side has removed -----------------------------------------------------------------------


@pytest.fixture(params=["ours", "theirs"])
def removed(grown: Bot, request: pytest.FixtureRequest) -> Bot:
    """A merge has stopped: one side has removed a vector, and the other changed it."""
    remover = request.param
    grown.repo.switch(create="topic")
    sides = {"theirs": "topic", "ours": "main"}
    for side, branch in sides.items():
        grown.repo.switch(branch)
        if side == remover:
            grown.repo.recipe.remove("listening")
        else:
            grown.repo.recipe.set("listening", alpha="0.3")
        grown.commit(message=side)
    with pytest.raises(Conflicted):
        grown.repo.merge("topic")
    return grown


def test_rm_resolves_the_conflict_of_a_vector_that_one_side_removed(removed: Bot) -> None:
    removed.repo.recipe.remove("listening")
    assert unmerged(removed) == []
    removed.repo.merge(continue_=True)
    assert "listening" not in removed.repo["HEAD"].recipe.vectors


def test_set_brings_the_vector_back_that_one_side_removed(removed: Bot) -> None:
    removed.repo.recipe.set("listening", alpha="0.45")
    assert unmerged(removed) == []
    removed.repo.merge(continue_=True)
    assert removed.repo["HEAD"].recipe.vectors["listening"].alpha == 0.45


def test_a_vector_that_is_reverted_by_name_leaves_stale_weights(grown: Bot) -> None:
    grown.checkout()
    done = grown.repo.revert("listening")
    assert done.weights is not None
    assert done.weights.state == "stale"
