"""A repository over a model of a few hundred bf16 elements, and hands to change and read it with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from persona.errors import worded
from persona.history.results import CommitResult
from persona.objects.commit import Person
from persona.repository import Repository
from persona.store.files import replaced_calls
from tests import checkpoints
from tests.checkpoints import bf16, write_model
from tests.disks import Cut, Dying, Quick, count_calls, cut_at_each_call

SHAPES = {
    "model.embed.weight": (20, 10),
    "model.layers.0.mlp.weight": (9, 15),
    "model.layers.1.mlp.weight": (9, 15),
    "model.norm.weight": (10,),
}
START = 1_763_000_000
Tensors = dict[str, np.ndarray]  # uint16 bits of bf16


def seeded(seed: int) -> np.random.Generator:
    """A generator that is the same everywhere."""
    return np.random.default_rng(seed)


def base_tensors(seed: int = 0) -> Tensors:
    """The tensors of a base."""
    rng = seeded(seed)
    return {name: bf16(rng.normal(0, 0.02, shape)) for name, shape in SHAPES.items()}


def tuned(base: Tensors, seed: int, *, only: str | None = None) -> Tensors:
    """A fine-tune: about a third of the elements a few ulps away."""
    rng = seeded(seed)
    found = {}
    for name, bits in base.items():
        step = rng.integers(1, 5, bits.shape).astype(np.uint16) * (rng.random(bits.shape) < 0.34)
        found[name] = bits if only is not None and only not in name else bits + step.astype(np.uint16)
    return found


def read_weights(directory: Path) -> Tensors:
    """The bits of every tensor of a model directory."""
    return {name: tensor.bits for name, tensor in checkpoints.read_weights(directory).items()}


def at(minutes: float = 0, name: str = "Ada") -> Person:
    """A person that many minutes after the start."""
    return Person(name, "ada@example.org", START + int(minutes * 60), 60)


@dataclass
class Bot:
    """A repository with its models beside it."""

    repo: Repository
    models: Path
    base: Tensors
    tunes: dict[str, Tensors] = field(default_factory=dict)
    minute: int = 0

    @property
    def root(self) -> Path:
        return self.repo.root

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    def tune(self, name: str, seed: int, *, only: str | None = None, **files: str) -> Path:
        """Writes a fine-tune and returns its directory."""
        self.tunes[name] = tuned(self.base, seed, only=only)
        return write_model(self.models / name, self.tunes[name], **files)

    def now(self) -> Person:
        """A minute later each time."""
        self.minute += 1
        return at(self.minute)

    def commit(self, path: Path | None = None, message: str = "a change", **options: object) -> CommitResult:
        return self.repo.commit(path, message=message, author=self.now(), **options)  # type: ignore[arg-type]

    def edit(self, change: Callable[[str], str]) -> None:
        """Edits recipe.toml by hand."""
        self.recipe.write_text(change(self.recipe.read_text()))

    def checkout(self, rev: str | None = None, **options: object) -> Tensors:
        """Checks out and returns the weights that lie there then."""
        self.repo.checkout(rev, **options)  # type: ignore[arg-type]
        return read_weights(self.root)


def advised(note: str) -> str:
    """The hint of a note, as Python reads it; empty if it has none."""
    hint = getattr(note, "hint", None)
    return "" if hint is None else worded(hint)


def save(path: Path, data: bytes, *, in_place: bool) -> None:
    """Saves as an editor does: into the file itself, or by a rename."""
    if in_place:
        path.write_bytes(data)
    else:
        beside = path.with_name("their-new-file")
        beside.write_bytes(data)
        os.replace(beside, path)


def each_cut(root: Path, act: Callable[[Repository], object], check: Callable[[Repository], None]) -> int:
    """Runs `act` on copies of a repository, cut after 0, 1, 2, … calls that change the disk, and checks each
    time what is left. Returns how many calls there are.
    """
    copy = root.parent / "copy"

    def start() -> Repository:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy, symlinks=True)
        return Repository.open(copy, author=at(90))

    left = -1
    for left, (cut, _) in enumerate(cut_at_each_call(start, act)):
        cut.close()
        _check_cut(copy, left, check)
    return left


def some_cuts(root: Path, act: Callable[[Repository], object], check: Callable[[Repository], None]) -> int:
    """Like `each_cut`, for a command of many calls: cut at every call near its end, and at a few before."""
    copy = root.parent / "copy"

    def start() -> Repository:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy, symlinks=True)
        return Repository.open(copy, author=at(90))

    with start() as repo:
        count = count_calls(lambda: act(repo))
    step = max(1, count // 12)
    for left in sorted({*range(0, count, step), *range(max(0, count - 50), count + 1)}):
        with start() as repo, suppress(Cut), replaced_calls(Dying(left)):
            act(repo)
        _check_cut(copy, left, check)
    return count


def _check_cut(copy: Path, left: int, check: Callable[[Repository], None]) -> None:
    """Checks what a command has left that was cut after so many calls."""
    with replaced_calls(Quick()), Repository.open(copy, author=at(91)) as repo:
        found = repo.fsck(full=True)
        assert found.ok, (left, found.problems)
        check(repo)


Edit = Callable[[Repository], object]
"""What a side of a merge does."""


def branched(bot: Bot, ours: Edit, theirs: Edit) -> None:
    """Commits on `main` and on `topic`, which part at HEAD; HEAD is on main."""
    bot.repo.switch(create="topic")
    theirs(bot.repo)
    bot.commit(message="theirs")
    bot.repo.switch("main")
    ours(bot.repo)
    bot.commit(message="ours")
