"""Several processes on one repository: no lasting error, nothing damaged, no reported commit lost."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.campaign import rounds
from tests.history.bots import Bot, at
from tests.history.commands_at_random import run


@pytest.mark.parametrize(("processes", "count"), [(3, 60), (8, 20)])
def test_processes_that_run_commands_at_random_lose_no_commit_and_leave_no_damage(
    grown: Bot, processes: int, count: int
) -> None:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    workers = [
        context.Process(target=run, args=(grown.root, seed, rounds(count), told)) for seed in range(processes)
    ]
    for worker in workers:
        worker.start()
    answers = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert [fault for _, fault in answers if fault is not None] == []
    repo, reported = grown.repo, {id for ids, _ in answers for id in ids}
    assert reported
    assert reported <= {move.id for move in repo.reflog("HEAD")}
    found = repo.fsck(full=True)
    assert found.ok, found.problems
    repo.reset("HEAD", "hard")
    if repo.status().sequence is not None:
        repo.rebase(abort=True)
    repo.switch(create="afterwards")
    assert repo.commit(message="goes on", allow_empty=True, author=at(92)).branch == "afterwards"
    repo.checkout("HEAD~1")
    assert repo.status().files_changed == ()
