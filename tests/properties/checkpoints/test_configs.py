"""Fine-tunes whose config or code says something else than the base's, and configs in the work tree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import persona
from tests.advice import follow
from tests.checkpoints import read_weights
from tests.cli.command_line import CommandLine
from tests.families import answers, loaded, random_model, same_answers, train

Families = Callable[[str], Path]
COMMIT = ("commit", "../tuned", "-m", "x")
OFF = {
    "bart": {"scale_embedding": True},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "mistral with consolidated": {"sliding_window": 2},
}
"""Settings that are off in the config of a family's base, which says so, and on in a fine-tune."""


def edit(directory: Path, **settings: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def begun(base: Path, place: Path) -> CommandLine:
    CommandLine(place).ok("init", "bot", "--base", base)
    return CommandLine(place / "bot")


@pytest.mark.situation(
    "the base's `config.json` turns a setting off (`null`, `false`), and the fine-tune's on"
)
@pytest.mark.parametrize("family", OFF)
def test_a_setting_that_is_on_in_the_fine_tune_is_named(
    families: Families, tmp_path: Path, family: str
) -> None:
    """Also if another version of transformers wrote the config."""
    base = tmp_path / "base"
    shutil.copytree(families(family), base)
    edit(base, **dict.fromkeys(OFF[family], None if family.startswith("mistral") else False))
    run = begun(base, tmp_path)
    tuned = train(base, tmp_path / "tuned")
    edit(tuned, **OFF[family], transformers_version="4.40.0")
    said = run(*COMMIT).stderr
    assert "with which the model computes something else" in said
    assert next(iter(OFF[family])) in said
    run.ok("checkout")
    assert not same_answers(run.directory, tuned)
    run.ok("add", "../tuned", "--files")
    run.ok("checkout")
    assert same_answers(run.directory, tuned)


def test_a_number_of_the_padding_that_moves_positions_is_named(tmp_path: Path) -> None:
    """RoBERTa counts positions from it, and BERT does not."""
    sizes = {"vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    for name in ("Roberta", "Bert"):
        place = tmp_path / name
        model = random_model(name, "float32", head="MaskedLM", num_attention_heads=2, **sizes)
        model.save_pretrained(place / "base")
        run = begun(place / "base", place)
        tuned = train(place / "base", place / "tuned")
        edit(tuned, pad_token_id=5)
        assert ("pad_token_id" in run(*COMMIT).stderr) == (name == "Roberta")
        run.ok("checkout")
        assert same_answers(run.directory, tuned) == (name == "Bert")


@pytest.mark.situation("the fine-tune has other code of its own (`modeling_x.py`) than the base")
def test_other_code_is_named_and_comes_with_files(families: Families, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(families("llama"), base)
    edit(base, auto_map={"AutoModelForCausalLM": "modeling_x.Model"})
    for name in ("modeling_x.py", "README.md"):
        (base / name).write_text("old\n")
    run = begun(base, tmp_path)
    tuned = train(base, tmp_path / "tuned")
    for name in ("modeling_x.py", "README.md"):
        (tuned / name).write_text("new\n")
    said = run("add", "../tuned").stderr
    assert "not imported: modeling_x.py, which differs" in said
    run.ok("add", "../tuned", "--files")
    run.ok("commit", "-m", "x")
    assert (run.directory / "modeling_x.py").read_text() == "new\n"
    assert (run.directory / "README.md").read_text() == "old\n"
    run.ok("rm", "tuned")
    assert (run.directory / "modeling_x.py").read_text() == "old\n"


@pytest.mark.situation("a model with new tokens was trained in the work tree")
def test_the_config_of_a_training_in_place_stays(families: Families, tmp_path: Path) -> None:
    run = begun(families("llama"), tmp_path)
    run.ok("checkout")
    model = loaded(run.directory)
    model.resize_token_embeddings(50, mean_resizing=False)
    model.config.pad_token_id = 49
    want = answers(model)
    model.save_pretrained(run.directory)
    before = (run.directory / "config.json").read_bytes()
    said = run.refused(1, "commit", "-m", "x")
    assert "size and the ties" not in said
    assert (run.directory / "config.json").read_bytes() == before
    command = next(text for text in said.split("`") if text.startswith("persona commit"))
    words = [{"NAME": "mine"}.get(word, word) for word in command.split()[1:]]
    follow(run, *words, "-m", "x")
    run.ok("checkout")
    assert torch.allclose(answers(run.directory).float(), want.float(), atol=2e-2)
    assert json.loads((run.directory / "config.json").read_text())["pad_token_id"] == 49


@pytest.mark.situation(
    "the training wrote shards with an index, and the base's `model.safetensors` still lies there"
)
@pytest.mark.parametrize("in_place", [False, True])
def test_shards_beside_the_weights_of_the_base(families: Families, tmp_path: Path, in_place: bool) -> None:
    base = families("llama")
    run = begun(base, tmp_path)
    run.ok("checkout")
    tuned = train(base, tmp_path / "trained")
    place = run.directory if in_place else tmp_path / "tuned"
    if not in_place:
        shutil.copytree(base, place)
    loaded(tuned).save_pretrained(place, max_shard_size="4KB")
    words = ("--name", "tuned", "--onto", "HEAD") if in_place else ()
    path = "." if in_place else "../tuned"
    said = run.refused(1, "commit", path, "-m", "x", *words)
    index = next(word.rstrip(",") for word in said.split() if word.rstrip(",").endswith("index.json"))
    run.ok("commit", index, "-m", "x", *words)
    run.ok("checkout", "-f")
    assert read_weights(run.directory).keys() == read_weights(tuned).keys()
    assert same_answers(run.directory, tuned)


@pytest.mark.situation("the config has an infinite number (Mamba 2)")
def test_numbers_that_json_lacks(tmp_path: Path) -> None:
    sizes = {"vocab_size": 48, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "pad_token_id": 0}
    model = random_model("Mamba2", "float32", head="CausalLM", num_heads=4, head_dim=8, n_groups=1, **sizes)
    model.save_pretrained(tmp_path / "base")
    assert "Infinity" in (tmp_path / "base" / "config.json").read_text()
    run = begun(tmp_path / "base", tmp_path)
    train(tmp_path / "base", tmp_path / "tuned")
    run.ok(*COMMIT)
    live = persona.open(run.directory).live(rev="HEAD")
    run.ok("checkout")
    assert torch.equal(answers(live.model), answers(run.directory))
    assert same_answers(run.directory, tmp_path / "tuned")
