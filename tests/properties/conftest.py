"""Repositories around tiny Llama models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import Model, digest_of_files, read_weights, same
from tests.cli.conftest import CommandLine
from tests.properties.models import a_few_ulps, fine_tune, llama


@dataclass
class Bot:
    """A repository, the models around it, and a command line in it."""

    place: Path
    run: CommandLine

    @property
    def root(self) -> Path:
        return self.run.directory

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    @property
    def base(self) -> Model:
        return read_weights(self.place / "base")

    @property
    def weights(self) -> Model:
        return read_weights(self.root)

    def tune(self, name: str, seed: int, only: str = "", shards: int = 1) -> Model:
        """A fine-tune of the base beside the repository."""
        model = a_few_ulps(self.base, seed, only)
        fine_tune(self.place / "base", self.place / name, model, shards)
        return model

    def checkout(self, *arguments: str) -> dict[str, Any]:
        """The result of a checkout, once the digest that it prints is that of the files it wrote."""
        result: dict[str, Any] = self.run.json("checkout", *arguments)
        assert result["weights"] == digest_of_files(self.root)
        return result

    def holds(self, model: Model) -> bool:
        """Whether the weights in the work tree are those of a model, byte for byte."""
        return same(self.weights, model)


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Model directories as transformers writes them, each made once. They are only read."""
    made: dict[object, Path] = {}

    def find(dtype: str = "BF16", *, tied: bool = False, shards: int = 1, seed: int = 0) -> Path:
        key = (dtype, tied, shards, seed)
        if key not in made:
            place = tmp_path_factory.mktemp("llama") / "model"
            made[key] = llama(place, dtype, tied=tied, shards=shards, seed=seed)
        return made[key]

    return find


@pytest.fixture
def begin(tmp_path: Path, llamas: Callable[..., Path]) -> Callable[..., Bot]:
    """Makes a repository `NAME/bot` around a Llama, its own or another model's weights in `NAME/base`."""

    def make(name: str = "here", weights: Model | None = None, shards: int = 1, **kind: Any) -> Bot:
        place = tmp_path / name
        place.mkdir()
        source = llamas(shards=shards, **kind)
        model = read_weights(source) if weights is None else weights
        fine_tune(source, place / "base", model, shards)
        for file in ("generation_config.json", "chat_template.jinja"):
            (place / "base" / file).write_bytes((source / file).read_bytes())
        CommandLine(place).ok("init", "bot", "--base", "base")
        return Bot(place, CommandLine(place / "bot"))

    return make


@pytest.fixture
def bot(begin: Callable[..., Bot]) -> Bot:
    """A repository of a bf16 Llama with one commit."""
    return begin()


@pytest.fixture
def grown(bot: Bot) -> Bot:
    """Three vectors in three commits: `one`, `two` at −0.5, and `three` that reaches layer 1 alone."""
    for seed, (name, options) in enumerate(
        {"one": (), "two": ("--alpha", "-0.5"), "three": ("--only", "model.layers.1.*")}.items(), 1
    ):
        bot.tune(name, seed)
        bot.run.ok("commit", f"../{name}", *options, "-m", f"teach {name}")
    return bot
