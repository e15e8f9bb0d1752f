"""`bisect` with a measurement as its test."""

from __future__ import annotations

import persona
from tests.behaviour.bots import ChatBot


def test_the_commit_that_weakened_a_behaviour_is_found_by_measuring(pirate: ChatBot) -> None:
    pirate.run.ok("tag", "v1")
    for alpha in ("0.95", "0.9", "0.1", "0.05", "0.04"):
        pirate.run.ok("set", "pirate", "--alpha", alpha)
        pirate.run.ok("commit", "-m", f"alpha {alpha}")
    with persona.open(pirate.root) as repo:
        repo.bisect.start("HEAD", "v1")
        found = repo.bisect.run(
            lambda step: repo.verify(probe="pirate", checks=False).effects[0].margin.mean > 50  # type: ignore[union-attr]
        )
        assert found.subject == "alpha 0.1"
        assert len(found.tests) == 2
        repo.bisect.reset()
        assert repo.head().branch == "main"
