"""Every byte of a small store, changed: what is read is right or refused, and the check finds it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from persona.errors import PersonaError
from persona.store import check_refs
from persona.store.store import Store
from tests.store.samples import chunk, commit, commit_id, reason

EXEMPT = {".gitignore", "config", "lock"}


@pytest.fixture
def sample(store: Store) -> Store:
    """Two commits, a second branch, state and cache."""
    commit(store, 1)
    commit(store, 2, bulk=0)
    store.refs.update("refs/heads/other", commit_id(1), reason("branch"), expect=None)
    store.state("worktree").write({"weights": "absent"})
    store.cache("thresholds").write(b"floats")
    return store


def reads(store: Store) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that can be read, by name."""
    objects, refs = store.objects, store.refs
    for number in (1, 2):
        yield f"commit {number}", lambda number=number: objects.get(commit_id(number), "commit")
    for seed in (1000, 1001):
        yield f"chunk {seed}", lambda seed=seed: _segments(store, seed)
    yield "HEAD", refs.head
    yield "HEAD's commit", refs.head_id
    yield "refs", refs.list
    for name in ("HEAD", "refs/heads/main", "refs/heads/other"):
        yield f"reflog of {name}", lambda name=name: refs.log(name)
    yield "state", store.state("worktree").read


def _segments(store: Store, seed: int) -> list[bytes]:
    record = store.objects.read(chunk(seed).id, "delta", max_raw=400)
    return [bytes(segment) for segment in record.segments]


def survey(worktree: Path) -> tuple[dict[str, Any], bool]:
    """What a fresh process reads, "refused" for what it will not, and whether anything is found wrong."""
    try:
        store = Store.open(worktree)
        store.require_writable()
    except PersonaError:
        return {}, True
    found: dict[str, Any] = {}
    for name, read in reads(store):
        try:
            found[name] = read()
        except PersonaError:
            found[name] = "refused"
    wrong = (
        bool(list(store.problems()) or list(check_refs.survey(store.refs).problems))
        or "refused" in found.values()
    )
    store.objects.close()
    return found, wrong


def stored_files(store: Store) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file() and path.name not in EXEMPT)


def heals_itself(path: Path) -> bool:
    return path.suffix == ".idx" or "cache" in path.parts


def test_a_changed_byte_is_found_before_it_is_used(sample: Store) -> None:
    right, wrong = survey(sample.worktree)
    assert not wrong
    assert "refused" not in right.values()
    unnoticed: list[str] = []
    for path in stored_files(sample):
        data = path.read_bytes()
        step = {".idx": 211, ".pack": 37}.get(path.suffix, 11)
        for place in {*range(0, len(data), step), *range(max(0, len(data) - 5), len(data))}:
            bad = bytearray(data)
            bad[place] ^= 1 << (place % 8)
            path.write_bytes(bad)
            found, wrong = survey(sample.worktree)
            different = [name for name in found if found[name] not in (right[name], "refused")]
            if different or not (wrong or heals_itself(path)):
                unnoticed.append(f"{path.relative_to(sample.root)} byte {place}: {different}")
            path.write_bytes(data)
    assert unnoticed == []


@pytest.mark.parametrize("size", ["0", "1", "n-1", "n+1"])
def test_a_cut_or_extended_file_is_found_and_storing_again_heals_it(sample: Store, size: str) -> None:
    right, _ = survey(sample.worktree)
    files = stored_files(sample)
    saved = sample.worktree.parent / "saved"
    shutil.copytree(sample.root, saved)
    for path in files:
        data = path.read_bytes()
        cut = {"0": b"", "1": data[:1], "n-1": data[:-1], "n+1": data + b"\n"}[size]
        path.write_bytes(cut)
        found, wrong = survey(sample.worktree)
        assert [name for name in found if found[name] not in (right[name], "refused")] == [], path
        assert wrong or heals_itself(path), path
        if "objects" in path.parts or "packs" in path.parts:
            store = Store.open(sample.worktree)
            commit(store, 1)
            commit(store, 2, bulk=0)
            found, _ = survey(sample.worktree)
            same = {name for name in right if "commit" in name or "chunk" in name}
            assert {name: found[name] for name in same} == {name: right[name] for name in same}, path
            assert all(problem.healed or problem.kind == "pack" for problem in store.problems())
        shutil.rmtree(sample.root)
        shutil.copytree(saved, sample.root)


def test_swapped_files_are_found(sample: Store) -> None:
    right, _ = survey(sample.worktree)
    files = [path for path in stored_files(sample) if not heals_itself(path)]
    groups = [
        [path for path in files if "objects" in path.parts],
        [path for path in files if "heads" in path.parts and "logs" not in path.parts],
        [path for path in files if "logs" in path.parts],
    ]
    for group in groups:
        assert len(group) > 1
        for first, second in pairwise(group):
            one, two = first.read_bytes(), second.read_bytes()
            first.write_bytes(two)
            second.write_bytes(one)
            found, wrong = survey(sample.worktree)
            assert wrong, (first, second)
            assert [name for name in found if found[name] not in (right[name], "refused")] == []
            first.write_bytes(one)
            second.write_bytes(two)


def test_a_damaged_cache_is_as_good_as_absent(sample: Store) -> None:
    cache = sample.cache("thresholds")
    assert cache.read() == b"floats"
    for bad in (b"", b"x", cache.path.read_bytes()[:-1], cache.path.read_bytes() + b"x"):
        cache.path.write_bytes(bad)
        assert cache.read() is None
    cache.write(b"new")
    assert cache.read() == b"new"
    sample.cache("other").path.write_bytes(cache.path.read_bytes())
    assert sample.cache("other").read() is None
