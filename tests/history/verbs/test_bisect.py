"""`bisect` through the Python interface: the search, the moves, the state on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persona.errors import (
    IntegrityError,
    InvalidInput,
    Keyword,
    PersonaError,
    Refused,
    UnknownRevision,
    UsageError,
)
from persona.history import placing
from persona.repository import Repository
from tests.checkpoints import same, write_model
from tests.history import planted
from tests.history.bots import Bot, base_tensors, each_cut, read_weights
from tests.history.planted import is_sound, line, merged

FIRST = 19


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """Thirty commits with merges, the fault in one of them; main is at the last one."""
    with planted.repository(tmp_path) as made:
        planted.grow(made, merged(30), FIRST)
        yield made


def subject(repo: Repository, id: str | None) -> str:
    assert id is not None
    return repo[id].subject


def test_answers_by_hand_lead_to_the_commit_that_brought_the_fault(repo: Repository) -> None:
    found = repo.bisect.start()
    assert (found.state, found.begin) == ("waiting", repo.head())
    assert repo.bisect.bad().state == "waiting"
    found = repo.bisect.good("v1")
    while found.state == "testing":
        assert repo.head() == found.head
        assert (repo.head().branch, repo.head().id) == (None, found.commit)
        assert repo.status().files_changed == ()
        found = repo.bisect.good() if is_sound(repo) else repo.bisect.bad()
    assert (found.state, subject(repo, found.commit)) == ("found", f"step {FIRST}")
    assert repo.bisect.status() == found
    repo.bisect.reset()
    assert repo.head().branch == "main"
    assert repo.status().bisect is None


def test_a_thousand_commits_need_ten_tests(tmp_path: Path) -> None:
    with planted.repository(tmp_path) as repo:
        for parents in (line(1000), merged(1000)):
            planted.grow(repo, parents, 777)
            repo.bisect.start("main", "v1")
            found = repo.bisect.run(lambda step: is_sound(repo))
            assert subject(repo, found.commit) == "step 777"
            assert len(found.tests) <= 11
            repo.bisect.reset()


def test_weights_are_computed_only_if_start_is_told_to(repo: Repository) -> None:
    repo.checkout()
    late = read_weights(repo.root)
    repo.bisect.start("main", "v1")
    assert same(read_weights(repo.root), late)
    repo.bisect.start("main", "v1", checkout=True)
    for mark in (repo.bisect.bad, repo.bisect.good):
        mark()
        assert repo.status().weights.state == "clean"
    repo.bisect.reset()
    assert (repo.head().branch, repo.status().weights.state) == ("main", "clean")
    assert same(read_weights(repo.root), late)


def test_weights_that_cannot_be_computed_again_are_not_overwritten(repo: Repository) -> None:
    repo.checkout()
    write_model(repo.root, base_tensors(7))
    with pytest.raises(Refused, match="edited since they were checked out") as refused:
        repo.bisect.start("main", "v1", checkout=True)
    assert "`repo.checkout(force=True)` overwrites them" in str(refused.value)
    assert repo.bisect.status().state == "none"
    repo.checkout(force=True)
    assert repo.bisect.start("main", "v1", checkout=True).state == "testing"


def test_a_commit_whose_weights_cannot_be_written_can_be_skipped(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Refused("the weights are not finite", hint=(Keyword(allow_nonfinite=True), " writes them"))

    with monkeypatch.context() as patch:
        patch.setattr(placing, "place", fail)
        with pytest.raises(Refused, match="not finite") as refused:
            repo.bisect.start("main", "v1", checkout=True)
    commit = repo.bisect.status().commit
    assert commit is not None
    assert f"`repo.bisect.skip('{commit[:8]}')` goes to another commit" in str(refused.value)
    assert repo.bisect.skip(commit[:8]).skipped == (commit,)


# -- what is refused, and leaves everything as it was


def test_an_edit_that_would_be_overwritten_is_refused_and_no_mark_is_recorded(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    before = repo.bisect.log()
    assert is_sound(repo)  # the next commit to test has another recipe
    repo.recipe.set("listening", alpha=0.25)
    with pytest.raises(Refused, match=r"uncommitted edits would be overwritten: recipe\.toml") as refused:
        repo.bisect.good()
    assert "`repo.reset(mode='hard')` discards them" in str(refused.value)
    assert repo.bisect.log() == before
    repo.reset(mode="hard")
    assert repo.bisect.good().state == "testing"


def test_a_start_that_is_refused_begins_nothing(repo: Repository) -> None:
    with pytest.raises(Refused, match="is an ancestor of a commit that is good"):
        repo.bisect.start("v1", "main")
    with pytest.raises(Refused, match="was marked bad already; no commit is both good and bad"):
        repo.bisect.start("main", "main")
    with pytest.raises(UnknownRevision):
        repo.bisect.start("main", "nowhere")
    assert repo.bisect.status().state == "none"


@pytest.mark.parametrize("call", ["good", "bad", "skip", "next", "log"])
def test_without_a_bisect_there_is_nothing_to_mark(repo: Repository, call: str) -> None:
    with pytest.raises(Refused, match="no bisect is under way"):
        getattr(repo.bisect, call)()


def test_reset_without_a_bisect_changes_nothing(repo: Repository) -> None:
    assert repo.bisect.reset().state == "none"
    assert repo.head().branch == "main"


# -- where it begins and ends


def test_reset_goes_back_to_a_detached_head(repo: Repository) -> None:
    repo.switch("main~2", detach=True)
    begin = repo.head()
    repo.bisect.start("main", "v1")
    repo.bisect.reset()
    assert repo.head() == begin


def test_reset_to_a_revision_or_to_head_stays_there(repo: Repository) -> None:
    here = repo.bisect.start("main", "v1").commit
    assert repo.bisect.reset("HEAD").head == repo.head()
    assert repo.head().id == here
    repo.bisect.start("main", "v1")
    repo.bisect.reset("v1")
    assert repo.head().id == repo.resolve("v1")


def test_a_second_start_keeps_the_place_where_the_first_began(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    assert repo.bisect.start().head == repo.head()
    assert repo.head().branch == "main"
    repo.bisect.start("main", "v1")
    repo.bisect.start("main~1", "v1")
    repo.bisect.reset()
    assert repo.head().branch == "main"


def test_reset_names_the_way_out_if_the_branch_is_gone(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    repo.branches.rename("main", "other")
    with pytest.raises(Refused, match="began on branch main, which is gone"):
        repo.bisect.reset()
    repo.bisect.reset("other")
    assert repo.head().branch == "other"


def test_next_goes_back_to_the_commit_to_test(repo: Repository) -> None:
    commit = repo.bisect.start("main", "v1").commit
    repo.switch("main")
    assert repo.bisect.next().commit == commit == repo.head().id


def test_the_branch_before_a_bisect_is_still_the_one_before_it(repo: Repository) -> None:
    repo.switch(create="other")
    repo.switch("main")
    repo.bisect.start("main", "v1")
    repo.bisect.reset()
    assert repo.switch("-").branch == "other"


def test_commits_of_a_test_are_named_when_they_are_left(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    repo.recipe.set("listening", alpha=0.25)
    lost = repo.commit(message="an attempt").id
    assert lost is not None
    found = repo.bisect.good("HEAD~1")
    assert any("an attempt" in note for note in found.notes)
    assert not repo.bisect.skip().notes


def test_commits_on_no_branch_that_bisect_itself_visits_are_not_said_to_be_left(repo: Repository) -> None:
    repo.switch(detach=True)
    repo.branches.rename("main", "elsewhere")
    repo.branches.create("other", "v1")
    repo.branches.delete("elsewhere", force=True)
    begin = repo.head().id
    assert begin is not None
    found = repo.bisect.start("HEAD", "v1")
    while found.state == "testing":
        assert not found.notes
        found = repo.bisect.good() if is_sound(repo) else repo.bisect.bad()
    assert not repo.bisect.reset().notes
    assert repo.head().id == begin


# -- skips, terms, logs


def test_of_several_bad_commits_the_oldest_counts_and_a_later_mark_replaces_it(repo: Repository) -> None:
    repo.bisect.start(good="v1")
    for order in (["main", "main~1", "main~3"], ["main~3", "main", "main~1"]):
        assert repo.bisect.bad(order).bad == repo.resolve("main~3")
    assert repo.bisect.bad("main").bad == repo.resolve("main")


def test_a_range_is_skipped_and_the_commits_that_are_left_are_listed(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    found = repo.bisect.skip("v1..main")
    assert found.state == "undecided"
    assert found.commit is None
    assert found.candidates == tuple(entry.id for entry in repo.log("v1..main"))
    assert repo.bisect.good("main~1").state == "found"


def test_other_words_for_good_and_bad(repo: Repository) -> None:
    repo.bisect.start("main", "v1", term_old="calm", term_new="rushed")
    assert repo.bisect.mark("calm", "v1").terms == ("rushed", "calm")
    with pytest.raises(Refused, match="uses the terms calm and rushed, not 'good'"):
        repo.bisect.good()
    repo.bisect.start()
    repo.bisect.mark("new")
    with pytest.raises(Refused, match="uses the terms old and new, not 'bad'"):
        repo.bisect.bad()


@pytest.mark.parametrize(
    ("old", "new"),
    [("skip", None), (None, "run"), ("a b", None), ("same", "same"), ("bad", "good"), ("--x", None)],
)
def test_a_term_that_would_be_ambiguous_is_refused(
    repo: Repository, old: str | None, new: str | None
) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        repo.bisect.start(term_old=old, term_new=new)


@pytest.mark.parametrize("options", [{}, {"first_parent": True}, {"term_old": "calm", "term_new": "rushed"}])
def test_a_log_is_replayed_to_the_same_step(repo: Repository, options: dict[str, object]) -> None:
    repo.bisect.start("main", ["v1", "main~20"], **options)  # type: ignore[arg-type]
    repo.bisect.skip()
    left = repo.bisect.status()
    text = repo.bisect.log()
    repo.bisect.reset()
    repo.bisect.replay(text)
    assert repo.bisect.status() == left


def test_a_log_of_git_is_read(repo: Repository) -> None:
    found = repo.bisect.replay(
        "git bisect start 'main' 'v1'\n# good: [1] a comment\ngit bisect good main~20\n"
    )
    assert (found.bad, found.good) == (repo.resolve("main"), (repo.resolve("v1"), repo.resolve("main~20")))


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("", InvalidInput, "no line that begins with"),
        ("persona bisect good v1\n", InvalidInput, "line 1 of the log is no command of bisect"),
        ("persona bisect start\nrm -rf /\n", InvalidInput, "line 2"),
        ("persona bisect start 'main\n", InvalidInput, "line 1"),
        (
            "persona bisect start\npersona bisect good nowhere\n",
            UnknownRevision,
            "line 2 of the log: unknown",
        ),
        ("persona bisect start --colour\n", UsageError, "line 1 of the log: .*--colour"),
    ],
)
def test_a_log_that_cannot_be_read_names_its_line(
    repo: Repository, text: str, error: type[PersonaError], match: str
) -> None:
    with pytest.raises(error, match=match):
        repo.bisect.replay(text)
    assert repo.bisect.status().state == "none"


# -- tests by a function or an exit code


def test_a_function_may_answer_with_truth_none_or_an_exit_code(repo: Repository) -> None:
    for sound, faulty in ((True, False), (0, 1), (0, 127)):
        repo.bisect.start("main", "v1")
        found = repo.bisect.run(lambda step, yes=sound, no=faulty: yes if is_sound(repo) else no)  # type: ignore[misc]
        assert subject(repo, found.commit) == f"step {FIRST}"
        codes = {test.exit_code for test in found.tests}
        assert codes == ({None} if sound is True else {sound, faulty})
        repo.bisect.reset()


@pytest.mark.parametrize("answer", [125, 8, None])
def test_an_answer_that_skips_leaves_the_search_undecided(repo: Repository, answer: int | None) -> None:
    repo.bisect.start("main", "v1")
    found = repo.bisect.run(lambda step: answer)
    assert found.state == "undecided"
    assert {test.mark for test in found.tests} == {"skip"}
    assert len(found.tests) == len(found.candidates) - 1


@pytest.mark.parametrize("answer", [128, 255, -9])
def test_an_exit_code_of_a_crash_ends_the_run_and_marks_nothing(repo: Repository, answer: int) -> None:
    repo.bisect.start("main", "v1")
    before = repo.bisect.log()
    with pytest.raises(Refused, match="which is no answer; it was not recorded"):
        repo.bisect.run(lambda step: answer)
    assert repo.bisect.log() == before
    assert repo.bisect.run(lambda step: is_sound(repo)).state == "found"


@pytest.mark.parametrize("answer", [126, 127])
def test_a_command_that_cannot_be_run_on_a_good_commit_either_ends_the_run(
    repo: Repository, answer: int
) -> None:
    commit = repo.bisect.start("main", "v1").commit
    tested: list[str | None] = []
    with pytest.raises(Refused, match="it cannot be run, so its exit code says nothing"):
        repo.bisect.run(lambda step: tested.append(repo.head().id) or answer)  # type: ignore[func-returns-value]
    assert tested == [commit, repo.resolve("v1")]
    assert repo.head().id == commit == repo.bisect.status().commit


def test_an_answer_of_another_kind_is_a_usage_error(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    with pytest.raises(UsageError, match="must return True, False, None or an exit code"):
        repo.bisect.run(lambda step: "good")  # type: ignore[arg-type, return-value]


def test_run_without_marks_is_refused(repo: Repository) -> None:
    repo.bisect.start("main")
    with pytest.raises(Refused, match=r"waiting for good commit\(s\), bad commit known"):
        repo.bisect.run(lambda step: True)


# -- the state on disk


def test_a_mark_that_is_cut_short_anywhere_can_be_given_again(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="0.9")
    grown.commit(message="more again")
    grown.repo.bisect.start("HEAD", "HEAD~4")
    tested = grown.repo.head().id

    def check(repo: Repository) -> None:
        assert repo.status().files_changed == ()
        status = repo.bisect.status()
        assert tested in (status.commit, *status.good)
        assert repo.head().id == tested or tested in status.good  # the mark is there before HEAD moves
        if status.commit == tested:
            status = repo.bisect.good(tested)
        assert repo.bisect.next().commit == status.commit == repo.head().id
        repo.bisect.reset()
        assert (repo.head().branch, repo.bisect.status().state) == ("main", "none")

    assert each_cut(grown.root, lambda repo: repo.bisect.good(), check) > 5


def test_a_reset_that_is_cut_short_anywhere_can_be_done_again(grown: Bot) -> None:
    grown.repo.bisect.start("HEAD", "HEAD~3")

    def check(repo: Repository) -> None:
        repo.bisect.reset()
        assert (repo.head().branch, repo.bisect.status().state) == ("main", "none")
        assert repo.status().files_changed == ()

    assert each_cut(grown.root, lambda repo: repo.bisect.reset(), check) > 3


def test_fsck_counts_the_commits_of_a_bisect_as_roots(repo: Repository) -> None:
    lost = repo._history.commit(repo.resolve("main"))
    from dataclasses import replace

    with repo._history.store.transaction() as tx:
        id = tx.put("commit", replace(lost, message="on no branch\n").encode())
    assert id in {found.id for found in repo.fsck().dangling}
    repo.bisect.start(id, "v1")
    assert id not in {found.id for found in repo.fsck().dangling}
    assert repo.fsck().ok


def test_a_damaged_state_is_named_and_a_reset_to_a_revision_ends_it(repo: Repository) -> None:
    repo.bisect.start("main", "v1")
    path = repo.root / ".persona" / "state" / "bisect.json"
    path.write_bytes(path.read_bytes().replace(b"good", b"goat"))
    assert any("bisect.json is damaged" in found.problem for found in repo.fsck().problems)
    for call in (repo.status, repo.bisect.status, repo.bisect.good, repo.bisect.reset):
        with pytest.raises(IntegrityError, match=r"bisect\.json is damaged"):
            call()
    repo.bisect.reset("main")
    assert (repo.head().branch, repo.status().bisect) == ("main", None)
