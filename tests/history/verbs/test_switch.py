"""HEAD, branches, tags, resets, reflogs: as in git."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from persona.errors import (
    IntegrityError,
    InvalidInput,
    NotARepository,
    Refused,
    UnknownName,
    UnknownRevision,
    UsageError,
)
from persona.history import identity
from persona.objects.commit import Commit, Person
from persona.objects.ids import object_id
from persona.repository import Repository
from tests.checkpoints import same
from tests.history.bots import Bot, at, read_weights


def test_a_branch_name_attaches_and_anything_else_detaches(grown: Bot) -> None:
    grown.repo.branches.create("warm", "HEAD~1")
    grown.repo.checkout("warm", weights=False)
    assert grown.repo.head().branch == "warm"
    grown.repo.checkout("main~1", weights=False)
    assert (grown.repo.head().branch, grown.repo.head().id) == (None, grown.repo.resolve("warm"))


def test_a_dash_goes_back(grown: Bot) -> None:
    grown.repo.checkout("HEAD~1", weights=False)
    detached = grown.repo.head()
    grown.repo.checkout("-", weights=False)
    assert grown.repo.head().branch == "main"
    grown.repo.checkout("-", weights=False)
    assert grown.repo.head() == detached


def test_a_commit_on_a_detached_head_moves_head_alone_and_leaving_it_names_the_id(grown: Bot) -> None:
    main = grown.repo.resolve("main")
    grown.repo.checkout("HEAD~1", weights=False)
    grown.edit(lambda text: text + "# astray\n")
    result = grown.commit(message="astray")
    assert (result.branch, grown.repo.resolve("main")) == (None, main)
    assert result.id is not None
    made = grown.repo.switch("main")
    assert any(result.id[:8] in note and "astray" in note for note in made.notes)
    assert grown.repo.resolve("HEAD@{1}") == result.id


def test_leaving_a_detached_head_that_a_branch_reaches_says_nothing(grown: Bot) -> None:
    grown.repo.checkout("HEAD~1", weights=False)
    assert grown.repo.switch("main").notes == ()


def test_switch_moves_files_and_says_at_which_revision_the_weights_are(grown: Bot) -> None:
    weights = grown.checkout()
    here = grown.repo.resolve("HEAD")
    grown.repo.branches.create("old", "HEAD~2")
    made = grown.repo.switch("old")
    assert (made.branch, made.weights.state, made.weights.revision) == ("old", "stale", here)
    assert "suggesting" not in grown.recipe.read_text()
    assert same(read_weights(grown.root), weights)


def test_switch_to_what_is_no_branch_says_how_to(grown: Bot) -> None:
    with pytest.raises(UsageError, match="detach=True"):
        grown.repo.switch("HEAD~1")
    assert grown.repo.switch("HEAD~1", detach=True).branch is None
    with pytest.raises(UnknownRevision):
        grown.repo.switch("nowhere")


def test_switch_can_make_its_branch(grown: Bot) -> None:
    made = grown.repo.switch("HEAD~1", create="warm")
    assert (made.branch, made.id) == ("warm", grown.repo.resolve("main~1"))
    with pytest.raises(Refused, match="warm"):
        grown.repo.switch(create="warm")


def test_checkout_can_make_its_branch(grown: Bot) -> None:
    made = grown.repo.checkout("HEAD~1", branch="warm", weights=False)
    assert made.head is not None
    assert made.head.branch == "warm"
    with pytest.raises(Refused, match="warm"):
        grown.repo.checkout(branch="warm", weights=False)


def test_a_branch_that_was_made_on_its_own_is_not_made_again(grown: Bot) -> None:
    grown.repo.branches.create("warm", "main")
    with pytest.raises(Refused, match=r"repo\.switch\('warm'\)"):
        grown.repo.switch(create="warm")
    grown.repo.switch(create="hot")
    grown.repo.switch("main")
    with pytest.raises(Refused, match=r"repo\.switch\('hot'\)"):
        grown.repo.checkout(branch="hot", weights=False)


@pytest.mark.parametrize("way", ["checkout", "switch"])
def test_edits_that_would_be_overwritten_stop_the_move_by_name(grown: Bot, way: str) -> None:
    grown.repo.branches.create("old", "HEAD~1")
    grown.edit(lambda text: text + "# mine\n")
    edited, head = grown.recipe.read_text(), grown.repo.head()

    def go(force: bool) -> None:
        if way == "switch":
            grown.repo.switch("old", force=force)
        else:
            grown.repo.checkout("old", force=force, weights=False)

    with pytest.raises(
        Refused, match=r"uncommitted edits would be overwritten: recipe\.toml(.|\n)*force=True"
    ):
        go(force=False)
    assert (grown.recipe.read_text(), grown.repo.head()) == (edited, head)
    go(force=True)
    assert "# mine" not in grown.recipe.read_text()


def test_edits_of_files_that_do_not_differ_are_carried_along(grown: Bot) -> None:
    grown.repo.branches.create("old", "HEAD~1")
    (grown.root / "chat_template.jinja").write_text("mine\n")
    grown.repo.switch("old")
    assert (grown.root / "chat_template.jinja").read_text() == "mine\n"
    assert grown.repo.status().files_changed == ("chat_template.jinja",)


@pytest.mark.parametrize("mode", ["soft", "mixed", "hard"])
def test_reset_moves_the_branch_and_hard_alone_touches_files(grown: Bot, mode: str) -> None:
    before, text = grown.repo.resolve("HEAD"), grown.recipe.read_text()
    (grown.root / "chat_template.jinja").write_text("mine\n")
    grown.repo.reset("HEAD~2", mode)  # type: ignore[arg-type]
    assert grown.repo.resolve("main") == grown.repo.resolve(f"{before}~2")
    assert grown.repo.resolve("main@{1}") == before
    assert (grown.recipe.read_text() == text) is (mode != "hard")
    assert ((grown.root / "chat_template.jinja").read_text() == "mine\n") is (mode != "hard")


def test_a_hard_reset_to_head_drops_every_edit(grown: Bot) -> None:
    text = grown.recipe.read_text()
    grown.edit(lambda text: text + "what is this")
    (grown.root / "config.json").unlink()
    grown.repo.reset("HEAD", "hard")
    assert grown.recipe.read_text() == text
    assert (grown.root / "config.json").exists()


def test_restore_puts_single_files_back(grown: Bot) -> None:
    (grown.root / "chat_template.jinja").write_text("mine\n")
    grown.edit(lambda text: text + "# mine\n")
    assert grown.repo.restore(["chat_template.jinja"]) == ("chat_template.jinja",)
    assert "# mine" in grown.recipe.read_text()
    grown.repo.restore(["recipe.toml"], "HEAD~2")
    assert "suggesting" not in grown.recipe.read_text()
    with pytest.raises(UnknownName, match="nothing"):
        grown.repo.restore(["nothing"])
    with pytest.raises(UsageError):
        grown.repo.restore([])


def test_status_names_each_state_of_the_weights(grown: Bot) -> None:
    states = [grown.repo.status().weights.state]
    grown.checkout()
    states.append(grown.repo.status().weights.state)
    grown.repo.recipe.set("listening", alpha=0.2)
    grown.checkout()
    states.append(grown.repo.status().weights.state)
    grown.commit()
    states.append(grown.repo.status().weights.state)
    grown.repo.switch("HEAD~1", detach=True)
    stale = grown.repo.status().weights
    assert stale.revision == grown.repo.resolve("main")
    states.append(stale.state)
    path = grown.root / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    states.append(grown.repo.status().weights.state)
    (grown.root / ".persona" / "state" / "weights.json").unlink()
    states.append(grown.repo.status().weights.state)
    assert states == ["absent", "clean", "uncommitted", "clean", "stale", "edited", "unknown"]


def test_branches_are_listed_moved_renamed_and_deleted(grown: Bot) -> None:
    grown.repo.branches.create("b", "HEAD~1")
    grown.repo.branches.create("a")
    assert [(info.name, info.current) for info in grown.repo.branches.values()] == [
        ("a", False),
        ("b", False),
        ("main", True),
    ]
    grown.repo.branches.create("a", "HEAD~2", force=True)
    assert grown.repo.resolve("a") == grown.repo.resolve("HEAD~2")
    grown.repo.branches.rename(None, "trunk")
    assert grown.repo.head().branch == "trunk"
    grown.repo.branches.delete("a")
    with pytest.raises(UnknownName):
        grown.repo.branches.delete("a")
    with pytest.raises(Refused, match="current"):
        grown.repo.branches.delete("trunk")


def test_a_branch_with_commits_of_its_own_is_deleted_by_force_alone(grown: Bot) -> None:
    grown.repo.switch(create="own")
    grown.repo.recipe.set("listening", alpha=0.3)
    grown.commit()
    grown.repo.switch("main")
    with pytest.raises(Refused, match="force=True"):
        grown.repo.branches.delete("own")
    grown.repo.branches.delete("own", force=True)


@pytest.mark.parametrize("name", ["-x", "a..b", "a b", "../x", "f" * 64, "a.lock", "a@{1}", "e\u0301"])
def test_names_that_no_ref_may_have_are_refused(grown: Bot, name: str) -> None:
    with pytest.raises(InvalidInput):
        grown.repo.branches.create(name)
    with pytest.raises(InvalidInput):
        grown.repo.tags.create(name)


def test_tags_name_commits_with_or_without_a_message(grown: Bot) -> None:
    grown.repo.tags.create("v1", "HEAD~1")
    grown.repo.tags.create("v2", message="the second")
    found = {info.name: (info.id, info.annotated, info.message) for info in grown.repo.tags.values()}
    assert found == {
        "v1": (grown.repo.resolve("HEAD~1"), False, "suggest less"),
        "v2": (grown.repo.resolve("HEAD"), True, "the second"),
    }
    assert grown.repo.resolve("v2~1") == grown.repo.resolve("v1")
    with pytest.raises(Refused):
        grown.repo.tags.create("v1")
    grown.repo.tags.delete("v2")
    with pytest.raises(UnknownRevision):
        grown.repo.resolve("v2")


def test_the_reflog_tells_every_move_newest_first(grown: Bot) -> None:
    grown.repo.checkout("HEAD~1", weights=False)
    entries = grown.repo.reflog()
    assert entries[0].selector == "HEAD@{0}"
    assert entries[0].message.startswith("checkout: moving from main to ")
    assert [entry.message.split(":")[0] for entry in entries][-1] == "commit (initial)"
    assert [entry.selector for entry in grown.repo.reflog("main")][:2] == ["main@{0}", "main@{1}"]
    assert grown.repo.reflog("main")[0].message == "commit: a little less"


def test_reflog_dates_find_where_a_branch_was(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    day, now = 86400, int(time.time())
    ids = [bot.repo.resolve("HEAD")]
    for days in (30, 9, 3):
        bot.edit(lambda text: text + "#\n")
        monkeypatch.setattr(identity, "now", lambda then=now - days * day: (then, 0))
        result = bot.repo.commit(message="x")
        assert result.id is not None
        ids.append(result.id)
    moment = time.strftime("%Y-%m-%d", time.localtime(now - 9 * day))
    found = {
        "main@{yesterday}": ids[3],
        "HEAD@{4 days ago}": ids[2],
        "main@{last week}": ids[2],
        "main@{1.week.ago}": ids[2],
        "@{2.weeks.ago}": ids[1],
        f"main@{{{moment}}}": ids[2],
        "main@{0}": ids[3],
        "main@{2}~1": ids[0],
    }
    assert {text: bot.repo.resolve(text) for text in found} == found


def test_a_date_before_the_reflog_is_its_first_entry_and_is_said(bot: Bot) -> None:
    with pytest.warns(UserWarning, match="only goes back"):
        assert bot.repo.resolve("main@{2001-01-01}") == bot.repo.resolve("HEAD")


def test_a_name_of_a_tag_and_a_branch_is_the_tag_but_for_going_there(grown: Bot) -> None:
    tagged, branched = grown.repo.resolve("HEAD~1"), grown.repo.resolve("HEAD~2")
    grown.repo.tags.create("both", tagged)
    grown.repo.branches.create("both", branched)
    assert grown.repo.resolve("refs/tags/both") == tagged
    assert grown.repo.resolve("refs/heads/both") == branched
    with pytest.warns() as warnings:
        assert grown.repo.resolve("both") == grown.repo.resolve("both~0") == tagged
    assert {str(warning.message) for warning in warnings} == {
        "both is a tag and a branch: the tag is taken; refs/heads/both is the branch"
    }
    with pytest.warns() as warnings:
        assert grown.repo.resolve("both@{0}") == grown.repo.reflog("both")[0].id == branched
    said = "both is a tag and a branch: the branch is taken; refs/tags/both is the tag"
    assert {str(warning.message) for warning in warnings} == {said}
    moved = grown.repo.switch("both")
    assert (moved.id, moved.notes) == (branched, (said,))
    assert grown.repo.head().branch == "both"
    grown.repo.switch("main")
    assert grown.repo.resolve("-") == branched
    back = grown.repo.checkout("-", weights=False)
    assert (back.revision, back.notes) == (branched, ())


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "HEAD~9",
        "HEAD^2",
        "HEAD@{99}",
        "HEAD@{someday}",
        "HEAD@{" + "9" * 5000 + ".days.ago}",
        "",
        "-x",
        "@{-1}",
        ":/no such message",
        "HEAD~x",
        "HEAD~" + "9" * 5000,
        "HEAD^" + "9" * 5000,
        "HEAD^{tree}",
        "HEAD@{1}~1^{tree}",
        "HEAD@{1}^{none}",
        "HEAD^{commit",
        "HEAD@{1}@{1}",
        "HEAD~1@{1}",
        "HEAD@{1}x",
        "HEAD@{^}",
        "0000",
        "abc",
        "main@{",
        "nobody@{1}",
        "~1",
    ],
)
def test_a_revision_that_names_nothing_is_unknown(grown: Bot, text: str) -> None:
    with pytest.raises(UnknownRevision):
        grown.repo.resolve(text)


def test_revisions_are_read_as_git_reads_them(grown: Bot) -> None:
    head = grown.repo.resolve("HEAD")
    ids = [entry.id for entry in grown.repo.log()]
    same_commit = ["@", "main", "refs/heads/main", head, head[:8], head[:8].upper(), "HEAD^0", "HEAD^{}"]
    assert {grown.repo.resolve(text) for text in same_commit} == {head}
    assert grown.repo.resolve("HEAD^") == grown.repo.resolve("HEAD~") == ids[1]
    assert (
        grown.repo.resolve("HEAD^^") == grown.repo.resolve("@~2") == grown.repo.resolve("HEAD~1^1") == ids[2]
    )
    assert grown.repo.resolve(":/before answering") == ids[2]


def test_an_id_of_another_kind_is_named_as_such(grown: Bot) -> None:
    vector = grown.repo.vectors["listening"].id
    with pytest.raises(UnknownRevision, match="is a vector"):
        grown.repo.resolve(vector[:10])


def test_an_ambiguous_start_of_an_id_is_listed(bot: Bot) -> None:
    history = bot.repo._history
    tree = history.commit(history.head_commit()).tree
    by_start: dict[str, bytes] = {}
    for number in range(100_000):
        payload = Commit(tree, (), at(), at(), f"no {number}\n").encode()
        start = object_id("commit", payload)[:4]
        if start in by_start:
            break
        by_start[start] = payload
    with history.store.transaction() as tx:
        tx.put("commit", payload)
        tx.put("commit", by_start[start])
    with pytest.raises(
        UnknownRevision, match=rf"{start} is ambiguous.* no \d+; .* no {number}|no {number}; .* no"
    ):
        bot.repo.resolve(start)


def test_head_on_a_branch_that_is_gone_is_damage(grown: Bot) -> None:
    (grown.root / ".persona" / "refs" / "heads" / "main").unlink()
    for act in (grown.repo.head, grown.repo.status, grown.commit):
        with pytest.raises(IntegrityError, match="main"):
            act()


def test_a_repository_is_found_from_below_and_none_is_said(grown: Bot, tmp_path: Path) -> None:
    below = grown.root / "graph" / "deep"
    below.mkdir(parents=True)
    with Repository.open(below) as repo:
        assert repo.root == grown.root
    with pytest.raises(NotARepository, match=r"persona\.init\(base=MODEL\)"):
        Repository.open(tmp_path)


def test_a_planted_link_is_never_written_through(grown: Bot, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    grown.recipe.unlink()
    grown.recipe.symlink_to(outside)
    grown.repo.reset("HEAD~1", "hard")
    assert outside.read_text() == "precious"
    assert not grown.recipe.is_symlink()
    (grown.root / "graph").symlink_to(tmp_path)
    (tmp_path / "note.md").write_text("outside")
    assert grown.repo.status().files_changed == ()


def test_a_file_behind_a_planted_link_is_never_removed(grown: Bot, tmp_path: Path) -> None:
    (grown.root / "graph").mkdir()
    (grown.root / "graph" / "listening.md").write_text("listen")
    grown.commit(message="a pattern")
    (grown.root / "graph").rename(tmp_path / "elsewhere")
    (grown.root / "graph").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="graph is not a directory"):
        grown.repo.switch("HEAD~1", detach=True)
    assert (tmp_path / "elsewhere" / "listening.md").read_text() == "listen"


def test_two_commands_on_one_work_tree_exclude_each_other(grown: Bot) -> None:
    from persona.errors import BusyError

    with Repository.open(grown.root) as other:
        with grown.repo._history.store.worktree_lock(), pytest.raises(BusyError):
            other.switch(create="x")
        assert other.status().branch == "main"


def test_config_is_read_from_both_files_and_keeps_comments(grown: Bot, tmp_path: Path) -> None:
    user = tmp_path / "user.toml"
    user.write_text("[user]\nname = 'Everywhere'\nemail = 'e@x'\n")
    (grown.root / ".persona" / "config").write_text("# mine\n")
    with Repository.open(grown.root, user_config=user) as repo:
        repo.config.set("user.name", "Here")
        assert repo.config.get("user.name") == "Here"
        assert dict(repo.config) == {"user.email": "e@x", "user.name": "Here"}
        assert (grown.root / ".persona" / "config").read_text().startswith("# mine\n")
        grown.edit(lambda text: text + "# x\n")
        result = repo.commit(message="x")
        assert repo[result.id or ""].author.name == "Here"
        repo.config.unset("user.name")
        assert repo.config.get("user.name") == "Everywhere"
        with pytest.raises(UnknownName):
            repo.config.unset("user.name")
        repo.config.set("user.name", "All", user=True)
        assert "All" in user.read_text()
    os.truncate(user, 0)


@pytest.mark.parametrize("name", ["", "a<b", "a\nb"])
def test_an_author_that_cannot_be_recorded_is_refused(bot: Bot, name: str) -> None:
    bot.edit(lambda text: text + "#\n")
    with pytest.raises(InvalidInput):
        bot.repo.commit(message="x", author=Person(name, "a@b", 0, 0))


def test_a_new_branch_alone_keeps_the_weights_that_were_tried(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=0.3)
    tried = grown.checkout()
    made = grown.repo.checkout(branch="try")
    assert (made.weights, made.files, made.tensors_computed) == (None, (), 0)
    assert [(edit.path, edit.change) for edit in made.carried] == [("recipe.toml", "changed")]
    assert grown.repo.head().branch == "try"
    assert same(read_weights(grown.root), tried)
    assert grown.repo.status().weights.state == "uncommitted"
    path = grown.root / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    grown.repo.checkout(branch="again")
    assert grown.repo.status().weights.state == "edited"


@pytest.mark.parametrize("rev", ["main", "HEAD", "other"])
def test_an_edited_recipe_that_comes_along_is_what_is_computed(grown: Bot, rev: str) -> None:
    grown.repo.branches.create("other")
    grown.repo.recipe.set("listening", alpha=0.3)
    (grown.root / "config.json").unlink()
    wanted = grown.repo.digest().weights
    made = grown.repo.checkout(rev)
    assert [(edit.path, edit.change) for edit in made.carried] == [
        ("config.json", "removed"),
        ("recipe.toml", "changed"),
    ]
    assert (made.weights, made.revision) == (wanted, None)
    assert grown.repo.status().weights.state == "uncommitted"
    made = grown.repo.checkout(rev, force=True)
    assert (made.carried, made.revision) == ((), grown.repo.resolve("HEAD"))
    assert grown.repo.status().weights.state == "clean"


def test_a_comment_that_comes_along_changes_no_weights(grown: Bot) -> None:
    grown.edit(lambda text: text + "# mine\n")
    made = grown.repo.checkout("main")
    assert made.revision == grown.repo.resolve("main")
    assert grown.repo.status().weights.state == "clean"


def test_an_edited_recipe_that_means_nothing_stops_a_checkout_before_it_moves(grown: Bot) -> None:
    grown.repo.branches.create("other")
    grown.edit(lambda text: text + "what is this\n")
    with pytest.raises(InvalidInput, match=r"recipe\.toml"):
        grown.repo.checkout("other")
    assert grown.repo.head().branch == "main"
    assert grown.repo.checkout("other", weights=False).carried[0].path == "recipe.toml"


def test_a_place_in_a_reflog_takes_steps_of_every_kind(grown: Bot) -> None:
    ids = [entry.id for entry in grown.repo.log()]
    for name in ("HEAD@{1}", "main@{1}", "@{1}", "main@{now}~1", "HEAD~1", "@^"):
        for steps, wanted in {
            "": 1,
            "^{commit}": 1,
            "^{}": 1,
            "^0": 1,
            "~0^{}": 1,
            "~1": 2,
            "^": 2,
            "~1^{}": 2,
            "^{commit}~1": 2,
            "^{}^{commit}^{object}~2": 3,
            "^^{}^": 3,
            "~1^{commit}^1^{}": 3,
        }.items():
            assert grown.repo.resolve(name + steps) == ids[wanted], name + steps
    grown.repo.switch("HEAD~1", detach=True)
    assert grown.repo.resolve("@{-1}^{}~1") == ids[1]


def test_what_is_no_commit_is_said(grown: Bot) -> None:
    with pytest.raises(UnknownRevision, match="a revision must be a commit, not a tree"):
        grown.repo.resolve("HEAD@{1}~1^{tree}")


def test_a_ref_can_be_named_below_its_kind(grown: Bot) -> None:
    grown.repo.tags.create("v", "HEAD~1")
    grown.repo.branches.create("v", "HEAD~2")
    ids = [entry.id for entry in grown.repo.log()]
    wanted = {"heads/main": ids[0], "tags/v": ids[1], "heads/v": ids[2], "heads/v~1": ids[3]}
    assert {text: grown.repo.resolve(text) for text in wanted} == wanted
    assert grown.repo.resolve("heads/main@{1}") == grown.repo.resolve("main@{1}")
