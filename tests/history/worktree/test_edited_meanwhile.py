"""Somebody edits a text file, or a trainer saves weights, at any call of a command that touches the disk:
what they saved is on the disk afterwards, or in a commit; the command is done, or was refused.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import InvalidInput, PersonaError, Refused
from persona.history.worktree import tracking
from persona.repository import Repository
from persona.store import files
from persona.weights.inputs import InputFile
from tests.campaign import rounds
from tests.checkpoints import digest_of, same, write_model
from tests.disks import Call, Intruding, Quick
from tests.history.bots import Bot, Tensors, at, base_tensors, read_weights, save, tuned

MARK = "# mine\n"


def moments(seen: list[Call], chance: random.Random) -> list[int]:
    """Every call that changes the work tree, and some of the others, which lie in between."""
    changes = {
        number
        for number, (name, paths) in enumerate(seen, 1)
        if name != "open" and any(".persona" not in path.parts for path in paths)
    }
    others = [number for number in range(1, len(seen) + 1) if number not in changes]
    some = chance.sample(others, min(len(others), rounds(5)))
    return sorted({*some, *changes, len(seen) + 1})


def each_moment(
    root: Path,
    command: Callable[[Repository], object],
    intrude: Callable[[Path, bool], None],
    check: Callable[[Repository, PersonaError | None], None],
) -> tuple[int, int]:
    """Runs `command` on copies of a repository with `intrude` at each moment; returns how often it was done
    and refused.
    """
    done = refused = 0
    copy = root.parent / "copy"
    fresh(root, copy)
    watching = Intruding()
    with Repository.open(copy, author=at(90)) as repo, files.replaced_calls(watching):
        command(repo)
    for moment in moments(watching.seen, random.Random(7)):
        fresh(root, copy)
        failure: PersonaError | None = None
        intruder = Intruding(moment, lambda moment=moment: intrude(copy, moment % 2 == 0))  # type: ignore[misc]
        with Repository.open(copy, author=at(90)) as repo, files.replaced_calls(intruder):
            try:
                command(repo)
                done += 1
            except (Refused, InvalidInput) as error:
                failure = error
                refused += 1
            if len(intruder.seen) < moment:
                intrude(copy, moment % 2 == 0)
        with Repository.open(copy, author=at(91)) as repo, files.replaced_calls(Quick()):
            assert repo.fsck().ok, moment
            check(repo, failure)
        assert not [path for path in copy.rglob(".*.tmp-*") if ".persona" not in path.parts], moment
    return done, refused


def fresh(root: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root, copy, symlinks=True)


def marked(repo: Repository, path: str) -> bool:
    """Whether the edit of a file is on the disk or in HEAD's commit."""
    history = repo._history
    blob = history.files_of(history.head_commit()).get(path)
    committed = history.blob(blob) if blob else b""
    place = repo.root / path
    return MARK.encode() in committed or (place.exists() and MARK.encode() in place.read_bytes())


def edit(path: str) -> Callable[[Path, bool], None]:
    """An editor that adds a line to a file, which may have gone."""

    def intrude(root: Path, in_place: bool) -> None:
        place = root / path
        before = place.read_bytes() if place.exists() else b""
        save(place, before + MARK.encode(), in_place=in_place)

    return intrude


@pytest.fixture
def ready(grown: Bot) -> Bot:
    """Weights and a text file that differ between two revisions; one file that the later one lacks."""
    (grown.root / "chat_template.jinja").write_text("late\n")
    (grown.root / "generation_config.json").write_text("{}\n")
    grown.commit()
    (grown.root / "generation_config.json").unlink()
    grown.commit()
    grown.checkout()
    return grown


COMMANDS: dict[str, Callable[[Repository], object]] = {
    "set": lambda repo: repo.recipe.set("listening", alpha="0.3"),
    "rm": lambda repo: repo.recipe.remove("listening"),
    "switch": lambda repo: repo.switch("main~2", detach=True),
    "reset": lambda repo: repo.reset("main~2", "hard"),
    "restore": lambda repo: repo.restore(["recipe.toml", "chat_template.jinja"], "main~3"),
    "revert": lambda repo: repo.revert("main~2"),
    "revert -n": lambda repo: repo.revert("main~2", no_commit=True),
}


TOUCHED = [
    *itertools.product(COMMANDS, ["recipe.toml", "chat_template.jinja"]),
    *itertools.product(["switch", "reset", "restore"], ["generation_config.json"]),
]
"""Each command, and the files that lie where it works."""


@pytest.mark.parametrize(("command", "path"), TOUCHED)
def test_an_edit_made_while_a_command_runs_is_never_overwritten(
    ready: Bot, command: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = ready.repo.resolve("HEAD")
    looks, saved = looking(monkeypatch), list[bool]()
    discards = command in ("reset", "restore")  # edits that are there when it looks: it is asked to

    def intrude(root: Path, in_place: bool) -> None:
        if looks or not discards:
            edit(path)(root, in_place)
            saved.append(True)

    def act(repo: Repository) -> None:
        looks.clear()
        saved.clear()
        COMMANDS[command](repo)

    def check(repo: Repository, failure: PersonaError | None) -> None:
        assert marked(repo, path) or not saved
        if failure is not None:
            assert path in failure.message
            assert repo.resolve("HEAD") == head
            assert set(repo.status().files_changed) <= {path}

    done, _ = each_moment(ready.root, act, intrude, check)
    assert done > 0


def looking(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fills a list when a command has looked at the files of the work tree."""
    looks: list[bool] = []
    look = tracking.ids

    def ids(*arguments: Any) -> dict[str, str]:
        found = look(*arguments)
        looks.append(True)
        return found

    monkeypatch.setattr(tracking, "ids", ids)
    return looks


@pytest.mark.parametrize("command", ["add", "commit"])
def test_an_edit_made_while_a_fine_tune_is_imported_stands_beside_the_new_vector(
    ready: Bot, command: str
) -> None:
    path = ready.tune("late", 7)

    def act(repo: Repository) -> None:
        repo.add(path) if command == "add" else repo.commit(path, message="late")

    def check(repo: Repository, failure: PersonaError | None) -> None:
        assert marked(repo, "recipe.toml")
        named = [vector.name for vector in repo.vectors.values()]
        assert "late" in named  # in the recipe, or kept under its name
        repo.add(path, name="late")
        assert marked(repo, "recipe.toml")

    done, _ = each_moment(ready.root, act, edit("recipe.toml"), check)
    assert done > 0


def test_text_files_that_come_with_a_fine_tune_never_overwrite_an_edit(ready: Bot) -> None:
    path = ready.tune(
        "late", 7, **{"chat_template.jinja": "late\n", "config.json": '{"model_type": "new"}\n'}
    )
    (path / "chat_template.jinja").write_text("of the fine-tune\n")

    def check(repo: Repository, failure: PersonaError | None) -> None:
        assert marked(repo, "chat_template.jinja")
        if failure is not None:
            assert "chat_template.jinja" in failure.message
            assert (repo.root / "config.json").read_text() == (ready.root / "config.json").read_text()

    done, refused = each_moment(
        ready.root, lambda repo: repo.add(path, files=True), edit("chat_template.jinja"), check
    )
    assert done > 0
    assert refused > 0


@pytest.mark.parametrize("path", ["recipe.toml", "chat_template.jinja"])
def test_an_edit_made_while_weights_are_computed_is_never_overwritten(ready: Bot, path: str) -> None:
    before, head = read_weights(ready.root), ready.repo.resolve("HEAD")

    def check(repo: Repository, failure: PersonaError | None) -> None:
        assert marked(repo, path)
        if failure is not None:
            assert path in failure.message
            assert same(read_weights(repo.root), before)
            assert repo.resolve("HEAD") == head
            assert set(repo.status().files_changed) <= {path}

    done, refused = each_moment(
        ready.root, lambda repo: repo.checkout("main~3", threads=1), edit(path), check
    )
    assert done > 0
    assert refused > 0


THEIRS = tuned(base_tensors(), 99)


def save_weights(root: Path, in_place: bool) -> None:
    """A trainer that saves."""
    made = write_model(root.parent / "theirs", THEIRS)
    save(root / "model.safetensors", (made / "model.safetensors").read_bytes(), in_place=in_place)


def distance(one: Tensors, other: Tensors) -> float:
    """The mean |difference| of bf16 weights."""
    floats = [
        ((a.astype(np.uint32) << 16).view(np.float32), (b.astype(np.uint32) << 16).view(np.float32))
        for a, b in ((one[name], other[name]) for name in one)
    ]
    return float(np.mean(np.concatenate([np.abs(a - b).ravel() for a, b in floats])))


def holds_theirs(repo: Repository) -> bool:
    return same(read_weights(repo.root), THEIRS)


def not_lost_by_the_next_checkout(repo: Repository) -> None:
    """Without -f the next command does not overwrite what a trainer saved, unless it has the same bytes."""
    assert holds_theirs(repo)
    for rev in (None, "HEAD"):
        with suppress(Refused):
            repo.checkout(rev)
        assert holds_theirs(repo)


@pytest.mark.parametrize("shards", [None, 300])
def test_weights_saved_while_others_are_computed_are_never_overwritten(
    ready: Bot, shards: int | None
) -> None:
    head = ready.repo.resolve("HEAD")

    def check(repo: Repository, failure: PersonaError | None) -> None:
        not_lost_by_the_next_checkout(repo)
        if failure is not None:
            assert "model.safetensors" in failure.message
            assert repo.resolve("HEAD") == head
            assert not repo.status().recipe_changed

    done, refused = each_moment(
        ready.root,
        lambda repo: repo.checkout("main~3", threads=1, max_shard_size=shards),
        save_weights,
        check,
    )
    assert done > 0
    assert refused > 0


def test_weights_saved_while_a_model_becomes_a_base_are_the_base_or_an_edit(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", base_tensors())
    place = tmp_path / "bot"

    def begin() -> None:
        Repository.init(place, author=at(), chunk=64, threads=1)

    fresh(source, place)
    watching = Intruding()
    with files.replaced_calls(watching):
        begin()
    for moment in moments(watching.seen, random.Random(7)):
        fresh(source, place)
        intruder = Intruding(moment, lambda moment=moment: save_weights(place, moment % 2 == 0))  # type: ignore[misc]
        try:
            with files.replaced_calls(intruder):
                begin()
        except InvalidInput:
            assert not (place / ".persona").exists()
            begin()
        with Repository.open(place, author=at(5)) as repo, files.replaced_calls(Quick()):
            if moment > len(watching.seen):
                save_weights(place, True)
            assert repo.fsck(full=True).ok
            assert repo.digest("HEAD").weights in (digest_of(base_tensors()), digest_of(THEIRS))
            not_lost_by_the_next_checkout(repo)


def test_weights_saved_while_those_before_are_taken_in_are_never_overwritten(ready: Bot) -> None:
    trained = tuned(read_weights(ready.root), 5)
    write_model(ready.root, trained)

    def act(repo: Repository) -> None:
        repo.commit(repo.root, name="night", onto="HEAD", message="night", threads=1)

    def check(repo: Repository, failure: PersonaError | None) -> None:
        if failure is not None:
            assert "changed while it was read" in failure.message
        assert holds_theirs(repo)
        if repo.status().weights.vector == "night":  # theirs is what the commit's vector holds
            repo.checkout()
            now = read_weights(repo.root)
            assert distance(now, THEIRS) < 0.1 * distance(now, trained)
            return
        with pytest.raises(Refused, match=r"model\.safetensors"):
            repo.checkout()
        assert holds_theirs(repo)

    each_moment(ready.root, act, save_weights, check)


@pytest.mark.parametrize("command", ["init", "commit", "commit ."])
def test_a_checkpoint_that_is_saved_between_any_two_reads_is_never_taken_as_a_mixture(
    ready: Bot, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ready.root if command == "commit ." else ready.models / "late"
    first = tuned(read_weights(ready.root), 5)
    read, left = InputFile.read_into, [0]

    def saved_at(self: InputFile, offset: int, out: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            made = write_model(ready.models / "theirs", THEIRS)
            save(path / "model.safetensors", (made / "model.safetensors").read_bytes(), in_place=True)
        read(self, offset, out)

    def act(place: Path) -> str | None:
        """The weights that were taken in, from the checkpoint as it was or as it is."""
        if command == "init":
            Repository.init(place, base=path, author=at(), chunk=64, threads=1)
            with Repository.open(place) as repo:
                return repo.digest("HEAD").weights
        onto = "HEAD" if command == "commit ." else None
        made = ready.commit(path, name=f"n{moment}", onto=onto, threads=1)
        vector = made.vectors[0].id
        ready.repo.reset("HEAD~1", "hard")
        return vector

    taken: dict[str, str | None] = {}
    for name, tensors in (("before", first), ("after", THEIRS)):
        moment = name  # type: ignore[assignment]
        write_model(path, tensors)
        taken[name] = act(ready.models / name)
    refused = 0
    monkeypatch.setattr(InputFile, "read_into", saved_at)
    for moment in range(1, 1000):
        write_model(path, first)
        left[0] = moment
        try:
            assert act(ready.models / str(moment)) in taken.values(), moment
        except InvalidInput:
            refused += 1
        if left[0] > 0:
            break
    assert refused > 10


def test_a_checkpoint_that_is_saved_while_it_is_imported_is_never_taken_as_a_mixture(ready: Bot) -> None:
    path = ready.tune("late", 7)
    versions = [digest_of(ready.tunes["late"]), digest_of(THEIRS)]

    def save_late(_: Path, in_place: bool) -> None:
        data = (write_model(path.parent / "theirs", THEIRS) / "model.safetensors").read_bytes()
        save(path / "model.safetensors", data, in_place=in_place)

    def act(repo: Repository) -> None:
        write_model(path, ready.tunes["late"])
        repo.commit(path, message="late", threads=1)

    def check(repo: Repository, failure: PersonaError | None) -> None:
        if failure is not None:
            assert "was changed while it was read" in failure.message
            return
        for name in ("listening", "suggesting"):
            repo.recipe.remove(name)
        assert repo.digest().weights in versions

    done, _ = each_moment(ready.root, act, save_late, check)
    assert done > 0
