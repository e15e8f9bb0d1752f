"""Author and committer are two people with two times; a reflog has the committer and the real time."""

from __future__ import annotations

import time

import pytest

from persona.objects.commit import Person
from persona.repository import Repository
from tests.history.bots import Bot

ADA = Person("Ada", "ada@example.org", 1_000_000_000, 120)


def test_a_given_author_is_not_the_committer(bot: Bot) -> None:
    with Repository.open(bot.root) as repo:
        repo.config.set("user.name", "Grace")
        repo.config.set("user.email", "grace@example.org")
        begun = int(time.time())
        repo.commit(message="backdated", allow_empty=True, author=ADA)
        made = repo["HEAD"].commit
        assert made.author == ADA
        assert (made.committer.name, made.committer.email) == ("Grace", "grace@example.org")
        assert begun <= made.committer.time <= time.time()
        entry = repo._history.store.refs.log("refs/heads/main")[0]
        assert entry.who == "Grace <grace@example.org>"
        assert begun <= entry.time <= time.time()


def test_where_a_branch_was_is_right_after_a_backdated_commit(bot: Bot) -> None:
    before = bot.repo.resolve("HEAD")
    bot.commit(message="backdated", allow_empty=True)  # by a clock that is years behind, committer included
    with pytest.warns(UserWarning, match="the reflog of main only goes back to"):
        assert bot.repo.resolve("main@{5 minutes ago}") == before
    assert bot.repo.resolve("main@{now}") != before


def test_who_amends_is_the_committer_and_the_author_stays(bot: Bot) -> None:
    bot.repo.commit(message="x", allow_empty=True, author=ADA)
    with Repository.open(bot.root, committer=lambda: Person("Bob", "b@c", 7, 0)) as repo:
        repo.commit(message="y", amend=True, allow_empty=True)
        made = repo["HEAD"].commit
        assert (made.author, made.committer) == (ADA, Person("Bob", "b@c", 7, 0))


def test_a_move_is_signed_by_who_is_named_at_the_real_time(bot: Bot) -> None:
    begun = int(time.time())
    bot.repo.branches.create("topic")
    entry = bot.repo._history.store.refs.log("refs/heads/topic")[0]
    assert entry.who == "Ada <ada@example.org>"
    assert entry.time >= begun
