"""`expire_reflog` drops old moves and nothing that a command needs."""

from __future__ import annotations

import time

import pytest

from persona.errors import UnknownName, UnknownRevision
from persona.repository import Repository
from tests.history.bots import Bot

DAY = 86400


def kept(repo: Repository, ref: str = "main") -> list[str]:
    return [entry.message for entry in repo.reflog(ref)]


@pytest.fixture
def aged(grown: Bot, monkeypatch: pytest.MonkeyPatch) -> Bot:
    """A repository whose first moves are from today, then one of 100 days later, and one of 10 more days."""
    now = int(time.time())
    for days in (100, 110):
        monkeypatch.setattr("persona.history.identity.now", lambda at=now + days * DAY: (at, 0))
        monkeypatch.setattr(time, "time", lambda at=now + days * DAY: at)
        grown.commit(message=f"after {days} days", allow_empty=True)
    return grown


def test_moves_older_than_ninety_days_go(aged: Bot) -> None:
    repo = aged.repo
    counted = repo.expire_reflog("main", dry_run=True)
    assert len(kept(repo)) == 6
    assert repo.expire_reflog("main") == counted
    assert (counted[0].ref, counted[0].removed, counted[0].kept) == ("main", 4, 2)
    assert kept(repo) == ["commit: after 110 days", "commit: after 100 days"]
    assert len(kept(repo, "HEAD")) == 6
    assert repo.fsck().ok
    aged.commit(message="goes on", allow_empty=True)
    assert kept(repo)[0] == "commit: goes on"
    assert repo.resolve("main@{1}") == repo.resolve("main~1")


def test_lost_commits_go_after_thirty_days(aged: Bot) -> None:
    repo = aged.repo
    lost = repo.resolve()
    repo.reset("HEAD~1", "hard")
    repo.expire_reflog("main", expire="never", expire_unreachable="never")
    assert lost in {entry.id for entry in repo.reflog("main")}
    repo.expire_reflog("main", expire="never")
    assert lost in {entry.id for entry in repo.reflog("main")}  # it is of today
    found = repo.expire_reflog("main", expire="never", expire_unreachable="now")
    assert found[0].removed == 1
    assert lost not in {entry.id for entry in repo.reflog("main")}
    assert len(kept(repo)) == 6
    assert repo.fsck().ok


def test_the_newest_move_always_stays_also_of_a_branch_that_is_gone(aged: Bot) -> None:
    repo = aged.repo
    repo.branches.create("topic")
    repo.branches.delete("topic")
    found = {one.ref: one for one in repo.expire_reflog(all=True, expire="now", expire_unreachable="now")}
    assert {one.kept for one in found.values()} == {1}
    assert set(found) == {"HEAD", "main", "topic"}
    assert kept(repo) == ["commit: after 110 days"]
    assert repo.fsck().ok
    again = repo.expire_reflog(all=True, expire="now")
    assert [one.removed for one in again] == [0, 0, 0]


def test_a_wrong_date_or_name_is_told(aged: Bot) -> None:
    with pytest.raises(UnknownRevision, match="'soonish' is not a date"):
        aged.repo.expire_reflog(expire="soonish")
    with pytest.raises(UnknownName, match="no branch or tag is named nope"):
        aged.repo.expire_reflog("nope")
