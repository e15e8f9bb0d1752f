"""SIGKILL at any call that changes the disk, in commit and checkout: the oracle of docs/invariants.md holds.

(a) each acknowledged commit reads back bit for bit; (b) each ref holds its old or its new value; (c)
`fsck --full` finds nothing wrong; (d) the next command works with no cleanup; the old weights are whole.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import persona
from tests.checkpoints import Model, Tensor, read_weights, same, write_model
from tests.disks import count_calls, kill_at

KILLS = 25
"""Places of each command at which it is killed: 50 in all."""


def model(seed: int) -> Model:
    random_ = np.random.default_rng(seed)
    names = [f"model.layers.{i}.weight" for i in range(4)]
    numbers = {name: random_.normal(size=(30, 10)).astype(np.float32) for name in names}
    return {name: Tensor("F32", values.view(np.uint32)) for name, values in numbers.items()}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_model(tmp_path / name, model(seed)) for seed, name in enumerate(("base", "one", "two"))
    }


def repository(path: Path, models: dict[str, Path]) -> Path:
    with persona.Repository.init(path, base=models["base"], chunk=64) and persona.open(path) as repo:
        repo.commit(models["one"], message="one")
        repo.checkout()
    return path


def places(count: int, seed: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(1, count + 1), min(KILLS, count)))


def check_whole(path: Path) -> None:
    with persona.open(path) as repo:
        found = repo.fsck(full=True)
        assert found.ok, found.problems


def test_commit_killed_anywhere_loses_nothing(tmp_path: Path, models: dict[str, Path]) -> None:
    def commit(path: Path) -> None:
        with persona.open(path) as repo:
            repo.commit(models["two"], message="two")

    rehearsal = repository(tmp_path / "rehearsal", models)
    for at in places(count_calls(lambda: commit(rehearsal)), seed=1):
        path = repository(tmp_path / f"repository{at}", models)
        with persona.open(path) as repo:
            old = repo.resolve("HEAD")
        kill_at(at, lambda path=path: commit(path))  # type: ignore[misc]
        check_whole(path)
        assert same(read_weights(path), model(1))
        with persona.open(path) as repo:
            now = repo["HEAD"]
            assert old in (now.id, *now.parents)
            repo.checkout(old, force=True)
            assert same(read_weights(path), model(1))
            repo.checkout("main", force=True)
            if repo.resolve("HEAD") == old:
                repo.commit(models["two"], message="two")
            assert set(repo["HEAD"].recipe.vectors) == {"one", "two"}
        check_whole(path)


@pytest.mark.parametrize("size", [None, 2000])
def test_checkout_killed_anywhere_leaves_whole_weights(
    tmp_path: Path, models: dict[str, Path], size: int | None
) -> None:
    def checkout(path: Path) -> None:
        with persona.open(path) as repo:
            repo.checkout("HEAD~1", max_shard_size=size)

    rehearsal = repository(tmp_path / "rehearsal", models)
    for at in places(count_calls(lambda: checkout(rehearsal)), seed=2)[:: 1 if size is None else 2]:
        path = repository(tmp_path / f"repository{at}", models)
        kill_at(at, lambda path=path: checkout(path))  # type: ignore[misc]
        check_whole(path)
        assert same(found := read_weights(path), model(1)) or same(found, model(0))
        with persona.open(path) as repo:
            repo.checkout("main", force=True)
        assert same(read_weights(path), model(1))
