"""A process that runs ordinary commands at random on a repository that others use, too."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path

from persona.errors import BusyError, InvalidInput, NotFound, Refused, UsageError
from persona.repository import Repository
from persona.store import files
from tests.disks import Quick
from tests.history.bots import at

NAMES = ("main", "a", "a/b", "a/b/c", "d", "D")
REVISIONS = ("HEAD", "@", "HEAD~1", "HEAD~2", "main", "-", "HEAD@{1}", "HEAD@{3}", *NAMES)
WAYS = ({"abort": True}, {"skip": True}, {"continue_": True}, {"continue_": True, "strategy": "theirs"})
ANSWERS = (BusyError, Refused, NotFound, InvalidInput, UsageError)
"""What a command may say where others move the same things; damage and faults of the system it may not."""


def run(root: Path, seed: int, count: int, told: Queue[tuple[list[str], str | None]]) -> None:
    """Runs `count` commands; tells the ids of the commits that they reported, and what went wrong."""
    chance, commits = random.Random(seed), []
    try:
        with files.replaced_calls(Quick()):
            for _ in range(count):
                try:
                    with Repository.open(root, author=at(seed)) as repo:
                        commits += _command(repo, chance, weights=seed == 0)
                except ANSWERS:
                    pass
        told.put((commits, None))
    except BaseException as fault:
        told.put((commits, "".join(traceback.format_exception(fault))))


def _command(repo: Repository, chance: random.Random, weights: bool) -> list[str]:
    """Runs one command; returns the id of the commit that it made."""
    name, other, rev = chance.choice(NAMES), chance.choice(NAMES), chance.choice(REVISIONS)
    force = chance.random() < 0.5

    def commit() -> str | None:
        with suppress(InvalidInput, NotFound, BusyError):  # not all commits have that vector
            repo.recipe.set("listening", alpha=f"{chance.uniform(-1, 1):.4f}")
        for _ in range(100):
            with suppress(BusyError):
                return repo.commit(message=f"alpha {chance.random()}", allow_empty=True).id
        return None

    def look() -> None:
        repo.status()
        repo.branches.values()
        repo.reflog()
        next(iter(repo.log(rev)))

    def go_on() -> str | None:
        verb = chance.choice((repo.merge, repo.cherry_pick, repo.rebase, repo.revert))
        return verb(**chance.choice(WAYS)).id  # type: ignore[operator, no-any-return]

    commands: list[Callable[[], object]] = [
        commit,
        commit,
        look,
        lambda: repo.revert(rev).id,
        lambda: repo.switch(rev if force else name, detach=force, force=chance.random() < 0.3),
        lambda: repo.switch(create=name),
        lambda: repo.checkout(rev, weights=weights, force=chance.random() < 0.3),
        lambda: repo.checkout(rev, branch=name, weights=False),
        lambda: repo.branches.create(name, rev, force=force),
        lambda: repo.branches.rename(name, other, force=force),
        lambda: repo.branches.rename(None, other, force=force),
        lambda: repo.branches.delete(name, *([other] if force else []), force=chance.random() < 0.7),
        lambda: repo.reset(rev, chance.choice(("soft", "mixed", "hard"))),
        lambda: repo.restore(["recipe.toml"], rev),
        lambda: repo.bisect.start(rev, "HEAD~4"),
        lambda: chance.choice((repo.bisect.good, repo.bisect.bad, repo.bisect.skip))(),
        repo.bisect.reset,
        lambda: repo.merge(name, strategy=chance.choice((None, "ours", "mean"))).id,  # type: ignore[arg-type]
        lambda: repo.cherry_pick(rev).id,
        lambda: repo.rebase(rev).id,
        go_on,
        go_on,
    ]
    found = chance.choice(commands)()
    return [found] if isinstance(found, str) and len(found) == 64 else []
