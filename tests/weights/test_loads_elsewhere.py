"""What a writer wrote is read by the safetensors package and by transformers like any other checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import torch
from blake3 import blake3

from persona.weights.checkpoint import Checkpoint
from persona.weights.shards import plan_shards
from persona.weights.writer import ModelWriter

pytestmark = pytest.mark.filterwarnings("ignore")


def rewrite(source: Path, target: Path, max_shard_size: int | None) -> list[str]:
    """Copy a model directory's weights with a writer, its text files beside."""
    with Checkpoint.open(source) as checkpoint:
        held = checkpoint.tensors.values()
        plan = plan_shards(
            [spec for spec, _ in held],
            max_shard_size,
            shards=checkpoint.shards,
            shard_of=[place for _, place in held],
        )
        digests = {}
        with ModelWriter(target, plan) as writer:
            for name, (spec, _) in checkpoint.tensors.items():
                data = bytearray(spec.nbytes)
                checkpoint.read_into(name, 0, data)
                writer.write(name, 0, data)
                digests[name] = blake3(data).hexdigest()
            names = writer.publish(digests)
        for name, path in checkpoint.text_files.items():
            (target / name).write_bytes(path.read_bytes())
    return names


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with tied embeddings in bf16, saved by transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, dtype=torch.bfloat16,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("size", [None, 3000])
def test_transformers_loads_what_was_written(model: Path, size: int | None, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    names = rewrite(model, tmp_path, size)
    assert (len(names) > 2) == (size is not None)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_one_file_is_byte_for_byte_the_one_that_transformers_wrote(model: Path, tmp_path: Path) -> None:
    rewrite(model, tmp_path, None)
    assert (tmp_path / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_shards_that_transformers_wrote_are_read(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(
        tmp_path, max_shard_size="3KB"
    )
    with Checkpoint.open(tmp_path) as sharded, Checkpoint.open(model) as single:
        assert len(sharded.shards) > 1
        assert {name: spec for name, (spec, _) in sharded.tensors.items()} == {
            name: spec for name, (spec, _) in single.tensors.items()
        }


def test_a_tied_output_matrix_is_known(model: Path) -> None:
    with Checkpoint.open(model) as checkpoint:
        assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}


def test_safe_open_reads_every_shard(model: Path, tmp_path: Path) -> None:
    names = rewrite(model, tmp_path, 3000)
    with safetensors.safe_open(model / "model.safetensors", "pt") as whole:
        seen = set()
        for name in names:
            if name.endswith(".safetensors"):
                with safetensors.safe_open(tmp_path / name, "pt") as shard:
                    assert shard.metadata() == {"format": "pt"}
                    for key in shard.keys():  # noqa: SIM118
                        assert torch.equal(shard.get_tensor(key), whole.get_tensor(key))
                        seen.add(key)
        assert seen == set(whole.keys())
