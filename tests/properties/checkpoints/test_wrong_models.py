"""Fine-tunes that are nearly the base's: no advice leads to weights that are not the fine-tune's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import Model, read_weights, write_file, write_weights
from tests.cli.command_line import CommandLine
from tests.families import same_answers, train

Families = Callable[[str], Path]
FLAGS = ("--missing", "--extra", "--rename", "--untie")


class Pair:
    """A repository `bot` of a base, and the directory `tuned` of its fine-tune."""

    def __init__(self, place: Path, base: Path) -> None:
        self.tuned = place / "tuned"
        train(base, self.tuned)
        CommandLine(place).ok("init", "bot", "--base", base)
        self.run = CommandLine(place / "bot")

    def rewrite(self, change: Callable[[Model], Model]) -> None:
        write_file(self.tuned / "model.safetensors", change(read_weights(self.tuned)))

    def configure(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.tuned / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    def refused(self, *more: str) -> str:
        """What `commit` says, which refuses and names no flag."""
        said = self.run.refused(4, "commit", "../tuned", "-m", "x", *more)
        assert not any(flag in said for flag in FLAGS), said
        return said


@pytest.fixture
def pair(families: Families, tmp_path: Path) -> Callable[[str], Pair]:
    return lambda name: Pair(tmp_path, families(name))


def without(part: str) -> Callable[[Model], Model]:
    def change(model: Model) -> Model:
        assert any(part in name for name in model)
        return {name: held for name, held in model.items() if part not in name}

    return change


@pytest.mark.parametrize(
    ("family", "part", "keys"),
    [
        ("llama", ".layers.1.", ("num_hidden_layers",)),
        ("llava", "language_model.model.layers.1.", ("text_config", "num_hidden_layers")),
        ("t5", "decoder.block.0.", ("num_decoder_layers",)),
        ("mixtral", "experts.1.", ("num_local_experts",)),
    ],
)
def test_a_pruned_model_is_named_by_its_depth(
    pair: Callable[[str], Pair], family: str, part: str, keys: Iterable[str]
) -> None:
    found = pair(family)
    found.rewrite(without(part))

    def prune(config: dict[str, Any]) -> None:
        *outer, last = keys
        for key in outer:
            config = config[key]
        config[last] = config.get(last, 2) - 1

    found.configure(prune)
    said = found.refused()
    assert f"its config.json says {'.'.join(keys)} = " in said
    assert "no fine-tune of this base" in said


@pytest.mark.situation("the file is one shard of a model (`model-00001-of-00002.safetensors`)")
@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "first.safetensors"])
def test_one_shard_is_no_model(pair: Callable[[str], Pair], name: str) -> None:
    found = pair("llama")
    model = read_weights(found.tuned)
    (found.tuned / "model.safetensors").unlink()
    write_weights(found.tuned, model, 2)
    (found.tuned / "model-00001-of-00002.safetensors").rename(found.tuned / name)
    index = found.tuned / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001-of-00002.safetensors", name))
    said = found.run.refused(4, "commit", f"../tuned/{name}", "-m", "x")
    assert "one of 2 shards, and holds only a part of the model" in said
    assert not any(flag in said for flag in FLAGS)
    found.run.ok("commit", "../tuned", "-m", "x")
    found.run.ok("checkout")
    assert same_answers(found.run.directory, found.tuned)
