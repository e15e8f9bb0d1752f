"""Fine-tunes in two situations at once: other names, and an output matrix or tokens of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tests.advice import follow
from tests.checkpoints import read_weights, write_file
from tests.cli.command_line import CommandLine
from tests.families import answers, loaded, own_head, random_model

Families = Callable[[str], Path]
SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
COMMIT = ("commit", "../tuned", "-m", "x")


def begun(base: Path, place: Path) -> CommandLine:
    CommandLine(place).ok("init", "bot", "--base", base)
    return CommandLine(place / "bot")


def trained(base: Path) -> PreTrainedModel:
    model = loaded(base)
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * torch.randn(parameter.shape).to(parameter.dtype)
    return model


def grow(model: PreTrainedModel) -> None:
    """Adds three tokens with rows of their own."""
    model.resize_token_embeddings(51, mean_resizing=False)
    torch.manual_seed(8)
    embedding: Any = model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight[48:] += torch.randn(embedding.weight[48:].shape)


def write(model: PreTrainedModel, directory: Path, prefix: str = "", *, in_memory: bool = False) -> None:
    """Saves a model, its names as on disk or in memory, each with a prefix."""
    model.save_pretrained(directory)
    path = directory / "model.safetensors"
    if in_memory:
        tensors = {f"{prefix}{name}": tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, path, {"format": "pt"})
    elif prefix:
        write_file(path, {f"{prefix}{name}": tensor for name, tensor in read_weights(directory).items()})


@pytest.mark.situation("the names are those of another library, and the fine-tune unties its head")
@pytest.mark.parametrize("new_tokens", [False, True])
def test_a_head_of_its_own_beside_other_names(families: Families, tmp_path: Path, new_tokens: bool) -> None:
    """GPT-2 of the hub lacks `transformer.` in its names, and transformers writes it."""
    run = begun(families("gpt2 of the hub"), tmp_path)
    model = trained(families("gpt2 of the hub"))
    own_head(model)
    if new_tokens:
        grow(model)
    want = answers(model)
    write(model, tmp_path / "tuned")
    follow(run, *COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


@pytest.mark.parametrize("task", ["Albert", "Electra", "XLNet"])
def test_a_head_whose_place_the_base_shows_keeps_its_name_there(tmp_path: Path, task: str) -> None:
    """No file of the base has the head, but a norm or a bias beside it."""
    sizes = SIZES | ({} if task == "XLNet" else {"embedding_size": 16})
    if task == "XLNet":
        sizes = {"vocab_size": 48, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}
    head = "LMHeadModel" if task == "XLNet" else "MaskedLM"
    random_model(task, "float32", head=head, **sizes).save_pretrained(tmp_path / "base")
    run = begun(tmp_path / "base", tmp_path)
    model = trained(tmp_path / "base")
    own_head(model)
    want = answers(model)
    write(model, tmp_path / "tuned", "net.", in_memory=True)
    follow(run, *COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


@pytest.mark.situation("the same, and neither file shows the name of the head in the base (BioGPT)")
def test_a_head_without_a_known_name_beside_other_names_is_not_left_out(tmp_path: Path) -> None:
    sizes = SIZES | {"pad_token_id": 0}
    random_model("BioGpt", "float32", head="CausalLM", **sizes).save_pretrained(tmp_path / "base")
    run = begun(tmp_path / "base", tmp_path)
    model = trained(tmp_path / "base")
    own_head(model)
    want = answers(model)
    write(model, tmp_path / "tuned", "net.", in_memory=True)
    for more in (("--rename",), ("--rename", "--extra", "ignore"), ("--rename", "--untie")):
        said = run.refused(4, *COMMIT, *more)
        assert "leaving it out changes the model" in said
        assert "save both with save_pretrained" in said
    write(model, tmp_path / "tuned")
    follow(run, *COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


@pytest.mark.situation("the output matrix has new tokens, and a name that no rule of the other names gives")
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_larger_head_under_another_name_than_the_rest(
    families: Families, tmp_path: Path, wrapper: str
) -> None:
    """In memory, LLaVA has `lm_head` and `model.language_model`, on disk both in `language_model`."""
    run = begun(families("llava"), tmp_path)
    model = trained(families("llava"))
    grow(model)
    want = answers(model)
    write(model, tmp_path / "tuned", wrapper, in_memory=True)
    follow(run, *COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


def test_biases_of_one_row_grow_under_other_names(families: Families, tmp_path: Path) -> None:
    """BART's `final_logits_bias` is [1, tokens]."""
    run = begun(families("bart"), tmp_path)
    model = trained(families("bart"))
    grow(model)
    want = answers(model)
    write(model, tmp_path / "tuned", "net.")
    follow(run, *COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


@pytest.mark.situation("the names have parts of a wrapper, and are those of another library too")
@pytest.mark.parametrize("family", ["llava", "mixtral"])
def test_a_wrapper_around_other_names(families: Families, tmp_path: Path, family: str) -> None:
    run = begun(families(family), tmp_path)
    model = trained(families(family))
    want = answers(model)
    write(model, tmp_path / "tuned", "module.", in_memory=True)
    said = follow(run, *COMMIT).stderr
    assert "stripped from the names" in said
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_head_that_was_lost_with_its_bias_is_not_the_base_s(
    families: Families, tmp_path: Path, prefix: str
) -> None:
    """Phi's head has a bias. Only a glob that names both says that training froze them."""
    run = begun(families("phi"), tmp_path)
    model = trained(families("phi"))
    want = answers(model)
    write(model, tmp_path / "tuned", prefix)
    path = tmp_path / "tuned" / "model.safetensors"
    weights = read_weights(tmp_path / "tuned")
    write_file(path, {name: tensor for name, tensor in weights.items() if "lm_head" not in name})
    rename = ("--rename",) if prefix else ()
    said = run.refused(4, *COMMIT, "--missing", "zero", *rename)
    assert "lm_head.weight is missing with its bias" in said
    assert "save the whole model, by save_pretrained" in said
    write(model, tmp_path / "tuned")
    run.ok(*COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


def test_complex_numbers_are_not_called_quantised(families: Families, tmp_path: Path) -> None:
    run = begun(families("llama"), tmp_path)
    model = trained(families("llama"))
    model.save_pretrained(tmp_path / "tuned")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.complex64)
    save_file(tensors, tmp_path / "tuned" / "model.safetensors", {"format": "pt"})
    said = run.refused(4, *COMMIT)
    assert f"tensor {name} has the dtype C64" in said
    assert "no vector can hold complex numbers" in said
    assert "quantised" not in said
