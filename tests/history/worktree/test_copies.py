"""A repository that was copied, moved, linked, or handed on by a stranger: what it says of itself is not
believed, and nothing of it is lost.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from persona.errors import IntegrityError, NotARepository
from persona.repository import Repository
from persona.store.birth import birth_time
from persona.store.store import Store
from tests.checkpoints import digest_of, same, tensor_digest, write_model
from tests.history.bots import Bot, at, read_weights


def place_of(root: Path) -> str:
    return Repository.open(root)._history.store.place


def forge_state(root: Path, change: dict[str, object]) -> None:
    """Rewrites state/weights with a check that holds."""
    path = root / ".persona" / "state" / "weights.json"
    value = json.loads(path.read_bytes().partition(b"\n")[2])
    value["now"] |= change
    text = json.dumps(value).encode()
    check = blake3(b"state\0weights\0" + text).hexdigest()
    path.write_bytes(f"blake3:{check}\n".encode() + text)


def forge_cache(root: Path, tensors: dict[str, str]) -> None:
    """Rewrites cache/checkout with other digests and a check that holds."""
    path = root / ".persona" / "cache" / "checkout"
    value = json.loads(path.read_bytes()[32:])
    value["digest"] = tensors.pop("")
    for name, digest in tensors.items():
        value["tensors"][name][1] = digest
    data = json.dumps(value).encode()
    path.write_bytes(blake3(b"cache\0checkout\0" + data).digest() + data)


def test_a_strangers_repository_does_not_pass_other_weights_off_as_its_commits(
    grown: Bot, tmp_path: Path
) -> None:
    right = grown.checkout()
    other = {name: bits + 1 for name, bits in right.items()}
    write_model(grown.root, other)
    stats = (grown.root / "model.safetensors").stat()
    forge_state(
        grown.root,
        {
            "digest": digest_of(other),
            "files": {"model.safetensors": [stats.st_size, stats.st_mtime_ns, stats.st_ino]},
        },
    )
    forge_cache(
        grown.root,
        {"": digest_of(other)} | {name: tensor_digest(bits.tobytes()).hex() for name, bits in other.items()},
    )
    shutil.copytree(grown.root, tmp_path / "given", symlinks=True)
    with Repository.open(tmp_path / "given", author=at(99)) as repo:
        assert repo.status().weights.state == "stale"
        made = repo.checkout()
        assert made.tensors_reused == 0
        assert same(read_weights(repo.root), right)
        assert repo.status().weights.state == "clean"


@pytest.mark.parametrize("how", ["copied", "with times", "restored over itself"])
def test_a_copy_works_without_force_and_ends_in_the_same_weights(
    grown: Bot, tmp_path: Path, how: str
) -> None:
    right = grown.checkout()
    root = tmp_path / "copy"
    shutil.copytree(grown.root, root, copy_function=shutil.copy if how == "copied" else shutil.copy2)
    if how == "restored over itself":
        shutil.rmtree(grown.root)
        root = shutil.copytree(root, grown.root)
    with Repository.open(root, author=at(99)) as repo:
        assert repo.status().weights.state == "stale"
        repo.checkout("HEAD~1")
        repo.checkout("main")
        assert same(read_weights(root), right)
        assert repo.status().weights.state == "clean"


def test_a_repository_that_is_moved_stays_what_it_was(grown: Bot, tmp_path: Path) -> None:
    grown.checkout()
    cache = grown.root / ".persona" / "cache"
    known = {path.relative_to(cache) for path in cache.rglob("*")}
    grown.root.rename(tmp_path / "moved")
    with Repository.open(tmp_path / "moved", author=at(99)) as repo:
        assert repo.status().weights.state == "clean"
        assert repo.checkout("main").tensors_computed == 0
        kept = {
            path.relative_to(repo.root / ".persona" / "cache")
            for path in repo.root.rglob(".persona/cache/**/*")
        }
    assert known <= kept


def change_modes(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.chmod(path, path.stat().st_mode & 0o7777 | 0o200)


def change_owner(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.chown(path, os.getuid(), os.getgid())


def link_everything_elsewhere(root: Path) -> None:
    shutil.copytree(root, root.parent / "linked", copy_function=os.link)


def back_up(root: Path) -> None:
    """Reads everything and sets the times of access back, as `tar --atime-preserve` does."""
    for path in root.rglob("*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("life", [change_modes, change_owner, link_everything_elsewhere, back_up])
def test_what_changes_every_inode_makes_no_copy_of_a_repository(
    grown: Bot, life: Callable[[Path], None]
) -> None:
    grown.checkout()
    store = grown.repo._history.store
    if birth_time(store.root / "lock") is None:
        pytest.skip("the system does not tell when an inode was made")
    life(grown.root)
    with Repository.open(grown.root, author=at(99)) as repo:
        assert repo.status().weights.state == "clean"
        assert repo._history.store.cache("checkout").read()
        assert repo.checkout("main").tensors_computed == 0
        repo.checkout("HEAD~1")
        assert repo.fsck(full=True).ok


def test_a_store_without_a_lock_believes_no_other_without_one(grown: Bot, tmp_path: Path) -> None:
    (grown.root / ".persona" / "lock").unlink()
    assert Store.open(grown.root).place != Store.open(grown.root).place


def test_weights_edited_in_a_copy_are_the_users_and_are_not_overwritten(grown: Bot, tmp_path: Path) -> None:
    grown.checkout()
    root = shutil.copytree(grown.root, tmp_path / "copy")
    write_model(root, {name: bits + 1 for name, bits in read_weights(root).items()})
    with Repository.open(root, author=at(99)) as repo:
        assert repo.status().weights.state == "edited"
        with pytest.raises(Exception, match="edited since"):
            repo.checkout()


def test_caches_of_a_copy_are_dropped_and_filled_anew(grown: Bot, tmp_path: Path) -> None:
    grown.checkout()
    root = shutil.copytree(grown.root, tmp_path / "copy")
    with Repository.open(root, author=at(99)) as repo:
        store = repo._history.store
        assert grown.repo._history.store.cache("checkout").read()
        assert store.cache("checkout").read() is None
        store.cache("new").write(b"computed here")
        assert not store.cache("checkout").path.exists()
        assert store.cache("new").read() == b"computed here"
    assert place_of(root) != place_of(grown.root)


# -- a .persona that is a link


def test_a_linked_store_works_and_nothing_else_is_followed(grown: Bot, tmp_path: Path) -> None:
    right = grown.checkout()
    elsewhere = tmp_path / "large disk" / "bot"
    elsewhere.parent.mkdir()
    (grown.root / ".persona").rename(elsewhere)
    (grown.root / ".persona").symlink_to(os.path.relpath(elsewhere, grown.root))
    with Repository.open(grown.root, author=at(99)) as repo:
        assert repo.root == grown.root
        assert repo.status().weights.state == "clean"
        repo.recipe.set("listening", alpha="0.2")
        repo.commit(message="through the link")
        repo.checkout()
        repo.checkout("HEAD~1")
        assert same(read_weights(grown.root), right)
        assert repo.fsck(full=True).ok
    (elsewhere / "objects").rename(tmp_path / "objects")
    (elsewhere / "objects").symlink_to(tmp_path / "objects")
    with pytest.raises(IntegrityError):
        Repository.open(grown.root)


def test_a_link_that_leads_nowhere_says_where_it_led(grown: Bot, tmp_path: Path) -> None:
    (grown.root / ".persona").rename(tmp_path / "away")
    (grown.root / ".persona").symlink_to(tmp_path / "gone")
    with pytest.raises(NotARepository, match="gone"):
        Repository.open(grown.root)


# -- state of another shape

SHAPES = [
    "[]",
    '"text"',
    "1",
    '{"now": 1}',
    '{"now": []}',
    '{"now": {"key": "", "revision": null}}',
    '{"now": {"key": "", "revision": null, "digest": "", "files": []}}',
    '{"now": {"key": "", "revision": null, "digest": "", "files": {"a": null}}}',
    '{"now": {"key": 1, "revision": null, "digest": "", "files": {}}}',
    '{"now": {"key": "", "revision": 1, "digest": "", "files": {}}}',
    '{"now": {"key": "", "revision": null, "digest": "", "files": {}, "changed": {"a": "b"}}}',
    '{"from": "x", "to": "y"}',
    '{"from": "' + "1" * 64 + '"}',
    '["../../etc/passwd"]',
    "[1]",
    "{",
    "[" * 100_000,
    "\xff",
]


@pytest.mark.parametrize("name", ["weights", "move", "added"])
def test_state_of_another_shape_is_named_with_a_way_out(grown: Bot, name: str) -> None:
    grown.checkout()
    path = grown.root / ".persona" / "state" / f"{name}.json"
    refused = 0
    for number, text in enumerate(SHAPES):
        data = text.encode("latin-1")
        check = blake3(f"state\0{name}\0".encode() + data).hexdigest()
        path.write_bytes(f"blake3:{check}\n".encode() + data)
        alpha = f"0.{number + 1}"
        try:
            grown.repo.status()
            grown.repo.recipe.set("listening", alpha=alpha)
        except IntegrityError as error:
            assert str(path) in error.message, text  # noqa: PT017
            assert any(str(path) in problem.problem for problem in grown.repo.fsck().problems)
            refused += 1
            path.unlink()  # what the message advises
        grown.repo.status()
        grown.repo.recipe.set("listening", alpha=alpha)
        path.unlink(missing_ok=True)
    assert refused >= len(SHAPES) - 3  # a few are a state in which nothing is written down


def test_state_of_a_later_persona_is_read_for_what_is_known_of_it(grown: Bot) -> None:
    grown.checkout()
    forge_state(grown.root, {"schema": 2, "sizes": {"a": 1}})
    assert grown.repo.status().weights.state == "clean"


@pytest.mark.parametrize("way", ["reset", "switch", "checkout"])
def test_a_move_that_names_a_lost_commit_is_given_up_by_force(grown: Bot, way: str) -> None:
    head = grown.repo.resolve("HEAD")
    state = grown.repo._history.store.state("move")
    state.write({"from": head, "to": "1" * 64})
    with pytest.raises(IntegrityError, match="mode='hard'"):
        grown.repo.recipe.set("listening", alpha="0.3")
    assert not grown.repo.fsck().ok
    {
        "reset": lambda: grown.repo.reset("HEAD", "hard"),
        "switch": lambda: grown.repo.switch("main", force=True),
        "checkout": lambda: grown.repo.checkout("main", force=True),
    }[way]()
    assert state.read() is None
    grown.repo.recipe.set("listening", alpha="0.3")
    assert grown.repo.fsck().ok
