"""Files of a recipe that moves onto another base: own changes stay, all others follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import Refused
from persona.repository import Repository
from tests.checkpoints import Bits, bf16, read_weights, write_model
from tests.cli.command_line import CommandLine
from tests.history.bots import at

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 20,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-05,
    "rope": {"theta": 10, "kind": "plain"},
}
OTHER = CONFIG | {"rms_norm_eps": 0.5, "rope": {"theta": 77, "kind": "plain"}, "more": 1}


def changed(bits: Bits, seed: int, rows: int = 0) -> Bits:
    random = np.random.default_rng(seed)
    values = (bits.astype(np.uint32) << 16).view(np.float32) + random.normal(0, 0.002, bits.shape)
    return bf16(np.concatenate([values, random.normal(0, 0.02, (rows, bits.shape[1]))]))


def tune(place: Path, seed: int, config: dict[str, Any], rows: int = 0, **files: str) -> Path:
    """Writes a fine-tune of the base, with new rows, and with a head of its own if the config unties it."""
    base = {name: tensor.bits for name, tensor in read_weights(place.parent / "base").items()}
    found = {name: changed(bits, seed, rows) for name, bits in base.items()}
    if not config["tie_word_embeddings"]:
        found[HEAD] = changed(found[EMBEDDING], seed + 1)
    return write_model(place, found, **{"config.json": json.dumps(config)}, **files)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """A repository of a tied base. Beside it lies another base, with another config and chat template."""
    base = {EMBEDDING: bf16(np.random.default_rng(0).normal(0, 0.02, (20, 10)))}
    text = json.dumps(CONFIG, indent=1)
    write_model(tmp_path / "base", base, **{"config.json": text, "chat_template.jinja": "base"})
    other = {EMBEDDING: changed(base[EMBEDDING], 9)}
    text = json.dumps(OTHER, indent=3)
    write_model(tmp_path / "other", other, **{"config.json": text, "chat_template.jinja": "other"})
    with Repository.init(tmp_path / "bot", base=tmp_path / "base", author=at(), chunk=64) as opened:
        yield opened


def config_of(repo: Repository) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo.root / "config.json").read_text())
    return found


def test_a_config_that_only_follows_the_recipe_follows_the_base_too(repo: Repository, tmp_path: Path) -> None:
    grown = {"vocab_size": 22, "tie_word_embeddings": False}
    place = tune(tmp_path / "f", 1, CONFIG | grown, 2, **{"tokenizer.json": "[22]"})
    repo.commit(place, message="f", extend_vocab=True, untie=True)
    moved = repo.rebase_base(tmp_path / "other")
    assert config_of(repo) == OTHER | grown
    assert moved.notes == ()
    repo.revert("f")
    for name in ("config.json", "chat_template.jinja"):
        assert (repo.root / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not (repo.root / "tokenizer.json").exists()
    assert repo.status().files_changed == ()


def test_edited_keys_stay_and_all_others_follow(repo: Repository, tmp_path: Path) -> None:
    mine = CONFIG | {"rope": {"theta": 10, "kind": "mine"}, "own": [1]}
    del mine["architectures"]
    (repo.root / "config.json").write_text(json.dumps(mine))
    repo.commit(message="mine")
    moved = repo.rebase_base(tmp_path / "other")
    expected = OTHER | {"rope": {"theta": 77, "kind": "mine"}, "own": [1]}
    del expected["architectures"]
    assert config_of(repo) == expected
    assert moved.notes == ()


def test_keys_that_both_sides_changed_are_kept_and_named(repo: Repository, tmp_path: Path) -> None:
    mine = CONFIG | {"rms_norm_eps": 3, "rope": {"theta": 11, "kind": "plain"}}
    (repo.root / "config.json").write_text(json.dumps(mine))
    repo.commit(message="mine")
    moved = repo.rebase_base(tmp_path / "other")
    assert config_of(repo) == mine | {"more": 1}
    (note,) = moved.notes
    assert note.endswith("kept as edited: rms_norm_eps of config.json, rope.theta of config.json")


def test_files_that_came_with_a_vector_stay_as_long_as_it_does(repo: Repository, tmp_path: Path) -> None:
    mine = CONFIG | {"scaling": 4}
    place = tune(tmp_path / "f", 1, mine, **{"chat_template.jinja": "mine"})
    repo.commit(place, message="f", files=True)
    moved = repo.rebase_base(tmp_path / "other")
    assert moved.notes == ("came with a vector, and another file in other; kept: chat_template.jinja",)
    assert config_of(repo) == OTHER | {"scaling": 4}
    repo.revert("f")
    for name in ("config.json", "chat_template.jinja"):
        assert (repo.root / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("text", ["[]", "not JSON", "{"])
def test_a_config_that_is_no_object_is_kept_as_any_other_file(
    repo: Repository, tmp_path: Path, text: str
) -> None:
    (repo.root / "config.json").write_text(text)
    repo.commit(message="mine")
    moved = repo.rebase_base(tmp_path / "other")
    assert (repo.root / "config.json").read_text() == text
    assert moved.notes[0].endswith("kept as edited: config.json")


def test_the_origins_of_vectors_are_known_on_the_new_base(repo: Repository, tmp_path: Path) -> None:
    repo.commit(tune(tmp_path / "f", 1, CONFIG), message="f")
    repo.checkout()
    weights = {name: changed(tensor.bits, 3) for name, tensor in read_weights(repo.root).items()}
    repo.commit(write_model(tmp_path / "g", weights), message="g", onto="HEAD")
    repo.rebase_base(tmp_path / "other")
    repo.recipe.rename("f", "mine")
    repo.commit(message="mv")
    with pytest.raises(Refused, match="the vector mine comes from there too"):
        repo.commit(tmp_path / "f", message="again")
    assert any("g was trained from mine" in note for note in repo.recipe.remove("mine").notes)


def test_a_sentence_is_printed_once(repo: Repository, tmp_path: Path) -> None:
    (repo.root / "chat_template.jinja").write_text("mine")
    repo.commit(message="mine")
    said = CommandLine(repo.root)("rebase", "--base", "../other").output
    assert said.count("kept as edited: chat_template.jinja") == 1
