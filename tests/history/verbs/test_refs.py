"""Branches, tags and HEAD as a user moves them: all or none, and a way out where HEAD leads nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from persona.errors import (
    BusyError,
    Call,
    IntegrityError,
    Note,
    PersonaError,
    Refused,
    UnknownName,
    UnknownRevision,
    UsageError,
)
from persona.history.act_results import Renamed
from persona.history.results import Head
from persona.repository import Repository
from persona.store.refs import Reason
from tests.history.bots import Bot, advised, at


def names(repo: Repository) -> list[str]:
    return [branch.name for branch in repo.branches.values()]


def refs_of(repo: Repository) -> dict[str, str]:
    return {
        f"{kind} {name}": ref.id for kind in ("branches", "tags") for name, ref in getattr(repo, kind).items()
    }


@pytest.fixture
def topic(grown: Bot) -> Bot:
    """Besides `main` a branch `topic`, two commits behind, with other text files."""
    grown.repo.branches.create("topic", "HEAD~2")
    return grown


# -- several names


@pytest.mark.parametrize("bad", ["nope", "main", "ahead"])
def test_branches_are_deleted_all_or_none(topic: Bot, bad: str) -> None:
    repo = topic.repo
    repo.switch(create="ahead")
    topic.commit(message="ahead", allow_empty=True)
    repo.switch("main")
    before = refs_of(repo)
    for order in (["topic", bad], [bad, "topic"]):
        with pytest.raises((Refused, UnknownName), match=bad):
            repo.branches.delete(*order)
    assert refs_of(repo) == before
    ids = repo.branches.delete("topic", "ahead", "topic", force=True)
    assert ids == {name: before[f"branches {name}"] for name in ("topic", "ahead")}
    assert names(repo) == ["main"]


def test_tags_terms_and_kept_vectors_go_all_or_none(grown: Bot) -> None:
    repo = grown.repo
    for tag in ("v1", "v2"):
        repo.tags.create(tag)
    before, text = refs_of(repo), grown.recipe.read_text()
    with pytest.raises(UnknownName, match="nope"):
        repo.tags.delete("v1", "nope")
    with pytest.raises(PersonaError, match="nope"):
        repo.recipe.remove("listening", "nope")
    assert (refs_of(repo), grown.recipe.read_text()) == (before, text)
    assert set(repo.tags.delete("v1", "v2")) == {"v1", "v2"}
    repo.recipe.remove("listening", "suggesting")
    vectors = repo["HEAD"].recipe.vectors
    store = repo._history.store  # "kept" vectors are kept by a command that is still to come
    for name in ("one", "two"):
        id = vectors["listening"].id
        store.refs.update(f"refs/vectors/{name}", id, Reason("", (0, 0), ""), expect=None)
    with pytest.raises(UnknownName, match="nope"):
        repo.vectors.delete("one", "nope")
    assert len(store.refs.list("refs/vectors/")) == 2
    repo.vectors.delete("one", "two")
    assert store.refs.list("refs/vectors/") == {}


def test_branches_and_tags_are_listed_in_order_of_names(grown: Bot) -> None:
    for name in ("b", "a/x", "ab", "a-b"):
        grown.repo.branches.create(name)
        grown.repo.tags.create(name)
    assert names(grown.repo) == sorted(["b", "a/x", "ab", "a-b", "main"])
    assert [tag.name for tag in grown.repo.tags.values()] == sorted(["b", "a/x", "ab", "a-b"])


# -- renames


@pytest.mark.parametrize("new", ["trunk", "main/line", "Main"])
def test_a_renamed_branch_keeps_where_it_has_been(grown: Bot, new: str) -> None:
    repo = grown.repo
    before = [repo.resolve(f"main@{{{number}}}") for number in range(4)]
    assert repo.branches.rename(None, new) == Renamed("main", new)
    assert repo.head() == Head(new, before[0])
    assert [repo.resolve(f"{new}@{{{number}}}") for number in range(1, 5)] == before
    assert names(repo) == [new]
    assert repo.fsck().ok
    repo.branches.rename(new, "main")
    assert [repo.resolve(f"main@{{{number}}}") for number in range(2, 6)] == before


def test_a_rename_over_a_branch_leaves_nothing_of_that_one(topic: Bot) -> None:
    repo = topic.repo
    with pytest.raises(Refused, match="force=True"):
        repo.branches.rename("main", "topic")
    with pytest.raises(Refused, match="current"):
        repo.branches.rename("topic", "main", force=True)
    moves = [move.id for move in repo.reflog("main")]
    repo.branches.rename("main", "topic", force=True)
    assert [move.id for move in repo.reflog("topic")] == [moves[0], *moves]


# -- HEAD


@pytest.mark.parametrize("word", ["HEAD", "@"])
def test_a_checkout_of_head_stays_on_the_branch(grown: Bot, word: str) -> None:
    grown.checkout(word)
    assert grown.repo.head().branch == "main"
    grown.repo.switch(detach=True)
    grown.checkout(word)
    assert grown.repo.head() == Head(None, grown.repo.resolve("main"))


def test_the_branch_before_is_not_one_that_a_cut_command_only_announced(topic: Bot) -> None:
    repo = topic.repo
    id = repo.resolve("main")
    repo.branches.create("here")
    repo.switch("topic")
    repo.switch("main")
    from persona.store import reflog

    line = reflog.Entry(id, id, "Ada <a@b>", 1, 0, "checkout: moving from main to here")
    reflog.append(topic.root / ".persona", "HEAD", id, line)
    assert repo.switch("-").branch == "topic"


def test_a_new_branch_and_no_branch_at_once_make_no_sense(grown: Bot) -> None:
    with pytest.raises(UsageError, match="detach"):
        grown.repo.switch(create="x", detach=True)
    with pytest.raises(UsageError, match="empty"):
        grown.repo.tags.create("v1", message=" \n")
    assert refs_of(grown.repo).keys() == {"branches main"}


def test_a_time_when_a_branch_did_not_exist_is_told(grown: Bot) -> None:
    repo = grown.repo
    repo.branches.create("own")
    repo.branches.delete("own")
    repo.branches.create("own")
    with pytest.raises(PersonaError, match="did not exist then"):
        repo.resolve("own@{1}")


# -- beside another command


@contextmanager
def before_the_lock(repo: Repository, act: Callable[[Repository], object]) -> Iterator[None]:
    """Lets another command run once between a command's first look and its lock."""
    store = repo._history.store
    lock, todo = store.worktree_lock, [act]

    @contextmanager
    def waiting() -> Iterator[None]:
        if todo:
            with Repository.open(repo.root, author=at(50)) as other:
                todo.pop()(other)
        with lock():
            yield

    store.worktree_lock = waiting  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        store.worktree_lock = lock  # type: ignore[method-assign]


def test_a_reset_by_one_takes_one_commit_whatever_is_committed_before_it_begins(grown: Bot) -> None:
    late: list[str] = []

    def commit(other: Repository) -> None:
        late.append(other.commit(message="late", allow_empty=True).id or "")

    before = grown.repo.resolve("HEAD")
    with before_the_lock(grown.repo, commit):
        grown.repo.reset("HEAD~1")
    assert late
    assert grown.repo.resolve("HEAD") == before


def test_a_switch_goes_to_where_the_branch_is_when_it_begins(topic: Bot) -> None:
    repo = topic.repo
    with before_the_lock(repo, lambda other: other.branches.create("topic", "main~1", force=True)):
        repo.switch("topic")
    assert repo.head() == Head("topic", repo.resolve("main~1"))
    assert not repo.status().recipe_changed
    gone = before_the_lock(repo, lambda other: other.branches.delete("main", force=True))
    with gone, pytest.raises(PersonaError, match="main"):
        repo.switch("main")
    assert repo.head().branch == "topic"


def test_a_restore_takes_the_files_of_the_revision_when_it_begins(topic: Bot) -> None:
    with before_the_lock(topic.repo, lambda other: other.commit(message="late", allow_empty=True)):
        topic.repo.restore(["recipe.toml"], "HEAD~1")
    assert topic.repo.diff().empty


MEANWHILE: dict[str, Callable[[Repository], object]] = {
    "moved": lambda other: other.branches.create("topic", "main~1", force=True),
    "deleted": lambda other: other.branches.delete("topic", force=True),
    "renamed": lambda other: other.branches.rename("topic", "else"),
    "renamed over": lambda other: other.branches.rename("ahead", "topic", force=True),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_a_checkout_attaches_head_only_to_a_branch_that_is_where_it_was(topic: Bot, what: str) -> None:
    repo, todo = topic.repo, [MEANWHILE[what]]
    repo.branches.create("ahead", "main~1")
    topic.checkout()
    id = repo.resolve("main")

    def progress(*_: object) -> None:
        if todo:
            with Repository.open(repo.root, author=at(60)) as other:
                todo.pop()(other)

    with pytest.raises(BusyError, match="again"):
        repo.checkout("topic", progress=progress)
    assert not todo
    with Repository.open(repo.root, author=at(61)) as other:
        assert other.head() == Head("main", id)
        other.switch(create="x")  # takes back the text files that were placed
        assert not other.status().recipe_changed
        assert other.status().files_changed == ()
        assert other.fsck().ok


# -- a HEAD that leads nowhere


@pytest.fixture(params=["lost", "damaged", "missing"])
def nowhere(topic: Bot, request: pytest.FixtureRequest) -> Bot:
    """HEAD's branch is gone, or HEAD itself is damaged or gone."""
    place = topic.root / ".persona"
    if request.param == "lost":
        (place / "refs" / "heads" / "main").unlink()
    elif request.param == "damaged":
        (place / "HEAD").write_text("ref: refs/heads/main\n")
    else:
        (place / "HEAD").unlink()
    return topic


def calls_of(said: PersonaError | str) -> list[Call]:
    """The calls that the hint of an error or of a note advises."""
    assert isinstance(said, (PersonaError, Note))
    hint = said.hint if isinstance(said.hint, tuple) else (said.hint,)
    return [piece for piece in hint if isinstance(piece, Call)]


def made(repo: Repository, call: Call) -> Any:
    """What an advised call does."""
    return attrgetter(call.method)(repo)(*call.arguments, **call.values)


def test_what_needs_head_says_what_to_type_and_that_works(nowhere: Bot, tmp_path: Path) -> None:
    import shutil

    repo = nowhere.repo
    said: dict[str, list[Call]] = {}
    here = (repo.status, repo.head, lambda: repo["HEAD"], lambda: repo.commit(message="x"), repo.reset)
    for ask in here:
        with pytest.raises(IntegrityError) as caught:
            ask()
        said[str(caught.value)] = calls_of(caught.value)
    advice = [call for calls in said.values() for call in calls]
    assert advice
    for number, call in enumerate(advice):
        shutil.copytree(nowhere.root, tmp_path / str(number))
        with Repository.open(tmp_path / str(number), author=at(70)) as other:
            made(other, call)
            assert other.head().branch == call.arguments[0]
            if call.method != "switch":
                assert other.fsck().ok
            assert not other.status().recipe_changed


def test_branches_reflogs_and_named_revisions_are_there_meanwhile(nowhere: Bot) -> None:
    repo = nowhere.repo
    assert "topic" in names(repo)
    assert len(repo.reflog("main")) == 4
    assert repo.reflog()[0].id == repo.reflog("main")[0].id
    assert next(iter(repo.log("topic"))).id == repo.resolve("topic")
    repo.branches.create("rescued", repo.reflog("main")[0].id)
    assert names(repo).count("rescued") == 1


@pytest.mark.parametrize("force", [False, True])
def test_leaving_it_keeps_edits_unless_forced(nowhere: Bot, force: bool) -> None:
    (nowhere.root / "chat_template.jinja").write_text("mine\n")
    with Repository.open(nowhere.root, author=at(70)) as repo:
        repo.switch("topic", force=force)
        assert repo.status().files_changed == (() if force else ("chat_template.jinja",))
        assert not repo.status().recipe_changed


def test_an_edit_in_the_way_is_not_overwritten(nowhere: Bot) -> None:
    nowhere.edit(lambda text: text + "# mine\n")
    for go in (nowhere.repo.switch, nowhere.repo.checkout):
        with pytest.raises(Refused, match=r"recipe\.toml"):
            go("topic")
    nowhere.repo.checkout("topic", force=True)
    assert not nowhere.repo.status().recipe_changed
    assert nowhere.repo.head().branch == "topic"


def test_no_command_leaves_head_on_a_branch_that_goes(topic: Bot) -> None:
    repo = topic.repo
    for force in (False, True):
        with pytest.raises(Refused, match="current"):
            repo.branches.delete("main", force=force)
        with pytest.raises(Refused, match="current"):
            repo.branches.create("main", "topic", force=True)
    assert repo.head() == Head("main", repo.resolve("main"))


def test_a_branch_that_is_gone_is_told_with_the_way_back(topic: Bot) -> None:
    id = topic.repo.branches.delete("topic", force=True)["topic"]
    with pytest.raises(UnknownRevision, match=rf"branches\.create\('topic', '{id[:8]}'\)"):
        topic.repo.switch("topic")
    assert topic.repo.branches.create("topic", id[:8]).id == id


@pytest.mark.parametrize("name", ["main", "topic"])
def test_a_damaged_branch_is_told_with_the_way_back(topic: Bot, name: str) -> None:
    repo, id = topic.repo, topic.repo.resolve(name)
    path = topic.root / ".persona" / "refs" / "heads" / name
    path.write_text("?\n")
    with pytest.raises(IntegrityError, match="remove the file") as caught:
        repo.resolve(name)
    path.unlink()
    (call,) = calls_of(caught.value)
    assert made(repo, call).id == id
    assert repo.fsck().ok


def test_a_branch_that_was_made_again_and_is_lost_is_told_as_it_was_last(topic: Bot) -> None:
    repo = topic.repo
    repo.branches.delete("topic", force=True)
    id = repo.branches.create("topic", "main~1").id
    (topic.root / ".persona" / "refs" / "heads" / "topic").unlink()
    with pytest.raises(UnknownRevision, match=rf"branches\.create\('topic', '{id[:8]}'\)"):
        repo.resolve("topic")


@pytest.mark.parametrize("ref", ["heads/aside", "tags/v1"])
def test_a_damaged_name_hides_no_other(topic: Bot, ref: str) -> None:
    repo, path = topic.repo, topic.root / ".persona" / "refs" / ref
    id = repo.branches.create("aside", "HEAD~1").id
    repo.tags.create("v1", "HEAD~1")
    path.write_text("?\n")
    with pytest.warns() as warnings:
        seen = [[*repo.branches], [*repo.tags], [*repo.log(all=True)], [*repo.log(["main", "topic"])]]
    branches, tags, everything, both = seen
    assert set(branches) == {"main", "topic", "aside"} - {path.name}
    assert set(tags) == {"v1"} - {path.name}
    assert len(everything) == len(both)
    repo.switch("HEAD~1", detach=True)
    topic.commit(allow_empty=True)
    left, note = repo.switch("topic").notes
    assert "which is on no branch" in left
    assert {str(warning.message) for warning in warnings} == {f"{note}\nhint: {advised(note)}"}
    path.unlink()
    (call,) = calls_of(note)
    found = made(repo, call)
    assert (found.name, found.id) == (path.name, id)
    assert repo.fsck().ok


def test_the_way_out_leads_to_a_branch_that_can_be_read(topic: Bot) -> None:
    repo = topic.repo
    repo.branches.create("aside", "HEAD")
    (topic.root / ".persona" / "refs" / "heads" / "aside").write_text("?\n")
    (topic.root / ".persona" / "HEAD").unlink()
    with pytest.raises(IntegrityError) as caught:
        repo.head()
    (call,) = calls_of(caught.value)
    assert (call.method, made(repo, call).branch) == ("switch", "main")
