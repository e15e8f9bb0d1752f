"""A history of many commits, made in one transaction, in which one commit brought a fault."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from persona.objects.commit import Commit
from persona.repository import Repository
from persona.store.files import replaced_calls
from tests.checkpoints import write_model
from tests.disks import Quick
from tests.history.bots import at, base_tensors, tuned

SOUND = 0.5
FAULTY = 1.5
"""The α of listening before and after the fault."""


def repository(place: Path) -> Repository:
    """A repository with two commits: listening at `SOUND`, which the tag v1 names, and at `FAULTY`."""
    base = base_tensors()
    write_model(place / "tiny", base)
    write_model(place / "listening", tuned(base, 1))
    Repository.init(place / "bot", base=place / "tiny", author=at(), committer=at(), chunk=64).close()
    repo = Repository.open(place / "bot", author=at(), committer=at())
    repo.commit(place / "listening", alpha=SOUND, message="listen")
    repo.tags.create("v1")
    repo.recipe.set("listening", alpha=FAULTY)
    repo.commit(message="listen too much")
    return repo


def grow(repo: Repository, parents: Mapping[int, Sequence[int]], first: int) -> dict[int, str]:
    """Commits on the tag v1, by number: parents first, number 0 is v1 itself. `main` goes to the last one.

    The fault is in commit `first` and in all that come from it. Returns the ids.
    """
    history = repo._history
    sound, faulty = (history.commit(repo.resolve(rev)).tree for rev in ("v1", "main"))
    ids = {0: repo.resolve("v1")}
    bad: set[int] = set()
    with replaced_calls(Quick()), history.store.transaction() as tx:
        for number, above in parents.items():
            if number == first or bad.intersection(above):
                bad.add(number)
            tree = faulty if number in bad else sound
            who = at(number)
            commit = Commit(tree, tuple(ids[one] for one in above), who, who, f"step {number}\n")
            ids[number] = tx.put("commit", commit.encode())
    repo.reset(ids[max(ids)], "hard")
    return ids


def line(length: int) -> dict[int, tuple[int, ...]]:
    """A history without forks."""
    return {number: (number - 1,) for number in range(1, length + 1)}


def merged(length: int) -> dict[int, tuple[int, ...]]:
    """Three commits on the side and a merge, again and again."""
    found: dict[int, tuple[int, ...]] = {}
    for number in range(1, length + 1):
        last = number - 1
        found[number] = {2: (last - 1,), 0: (last, number - 3)}.get(number % 5, (last,)) if last else (0,)
    return found


def is_sound(repo: Repository) -> bool:
    """Whether `recipe.toml`, as it stands, is without the fault."""
    return tomllib.loads((repo.root / "recipe.toml").read_text())["vectors"]["listening"]["alpha"] == SOUND
