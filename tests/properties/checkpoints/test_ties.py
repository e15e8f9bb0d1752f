"""Models that tie their output matrix, or more than it, under names that persona may not know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from persona.intake import heads
from tests.advice import follow
from tests.checkpoints import Model, Tensor, read_weights, write_file
from tests.cli.command_line import CommandLine
from tests.families import answers, loaded, moved, own_head, random_adapter, random_model, same_answers, train

Families = Callable[[str], Path]
SIZES = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
UNKNOWN = {
    "ALBERT": ("Albert", "MaskedLM", {"embedding_size": 16}, "predictions.decoder.weight"),
    "BioGPT": ("BioGpt", "CausalLM", {}, "output_projection.weight"),
    "ELECTRA": ("Electra", "MaskedLM", {"embedding_size": 16}, "generator_lm_head.weight"),
}
"""Tied models whose head has a name that only a fine-tune shows."""
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]
COMMIT = ("commit", "../tuned", "-m", "x")


def begun(base: Path, place: Path) -> CommandLine:
    CommandLine(place).ok("init", "bot", "--base", base)
    return CommandLine(place / "bot")


def unknown(place: Path, name: str) -> tuple[Path, str]:
    kind, task, more, head = UNKNOWN[name]
    random_model(kind, "float32", head=task, **SIZES, **more).save_pretrained(place / "base")
    assert head not in read_weights(place / "base")
    return place / "base", head


def near(run: CommandLine, want: torch.Tensor) -> bool:
    run.ok("checkout")
    return bool((answers(run.directory) - want).abs().max() <= 2e-2 * want.abs().max())


@pytest.mark.situation("only the fine-tune shows the name of an output matrix that the base ties (ALBERT)")
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_head_whose_name_only_the_fine_tune_shows(tmp_path: Path, name: str) -> None:
    base, head = unknown(tmp_path, name)
    run = begun(base, tmp_path)
    model = loaded(base)
    own_head(model)
    want = answers(model)
    model.save_pretrained(tmp_path / "tuned")
    for more in ((), ("--extra", "ignore")):
        assert "leaving it out changes the model" in run.refused(4, *COMMIT, *more)
    follow(run, *COMMIT)
    run.ok("checkout")
    assert head in read_weights(run.directory)
    assert torch.equal(answers(run.directory), want)
    run.ok("set", "tuned", "--alpha", "0")
    run.ok("checkout")
    assert same_answers(run.directory, base)


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_embedding_that_was_trained_whole_beside_an_unknown_head(tmp_path: Path, name: str) -> None:
    """The advice is to merge first; the merged model has a head of its own."""
    base, _ = unknown(tmp_path, name)
    run = begun(base, tmp_path)
    embedding = next(
        name.split(".")[-1]
        for name, module in loaded(base).named_modules()
        if module is loaded(base).get_input_embeddings()
        or "word_embeddings" in name
        or "embed_tokens" in name
    )
    want = random_adapter(
        base,
        tmp_path / "adapter",
        target_modules=".*(query|q_proj)",
        modules_to_save=[embedding],
    )
    for more in ((), ("--untie",)):
        said = run.refused(4, "commit", "../adapter", "-m", "x", *more)
        assert "was trained apart from the output matrix, if the base ties" in said
        assert "merge_and_unload" in said
    merged = PeftModel.from_pretrained(loaded(base), tmp_path / "adapter").merge_and_unload()
    merged.save_pretrained(tmp_path / "tuned")
    follow(run, *COMMIT)
    assert near(run, want)


def test_an_embedding_of_a_model_without_an_output_matrix_is_taken(tmp_path: Path) -> None:
    random_model("Bert", "float32", head="Model", **SIZES).save_pretrained(tmp_path / "base")
    run = begun(tmp_path / "base", tmp_path)
    want = random_adapter(
        tmp_path / "base",
        tmp_path / "adapter",
        target_modules=["query"],
        modules_to_save=["word_embeddings"],
    )
    run.ok("commit", "../adapter", "-m", "x")
    assert near(run, want)


@pytest.mark.situation(
    "the model unties more than its output matrix (the embeddings of BART, a bias of BERT)"
)
@pytest.mark.parametrize("family", ["bart", "t5", "bert", "llama tied"])
def test_what_a_model_unties_with_its_head(families: Families, tmp_path: Path, family: str) -> None:
    base = families(family)
    run = begun(base, tmp_path)
    model = loaded(base)
    own_head(model)
    want = answers(model)
    model.save_pretrained(tmp_path / "tuned")
    follow(run, *COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)
    run.ok("set", "tuned", "--alpha", "0")
    run.ok("checkout")
    assert same_answers(run.directory, base)


@pytest.mark.parametrize("part", ["lm_head", "shared"])
def test_an_adapter_that_unties_bart(families: Families, tmp_path: Path, part: str) -> None:
    run = begun(families("bart"), tmp_path)
    want = random_adapter(
        families("bart"), tmp_path / "tuned", target_modules=["q_proj"], modules_to_save=[part]
    )
    follow(run, *COMMIT)
    assert near(run, want)
    run.ok("set", "tuned", "--alpha", "0")
    run.ok("checkout")
    assert same_answers(run.directory, families("bart"))


@pytest.mark.situation(
    "a vector that an earlier version imported lacks tensors that models untie with a head"
)
def test_a_vector_without_what_its_model_unties(
    families: Families, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(families("bart"), tmp_path)
    model = loaded(families("bart"))
    own_head(model)
    model.save_pretrained(tmp_path / "tuned")
    with monkeypatch.context() as earlier:
        earlier.setattr(heads, "tied_with", lambda base, taken: {})
        run.ok(*COMMIT, "--untie")
    for command in (("checkout",), ("checkout", "HEAD", "-o", "../out")):
        said = run(*command).stderr
        assert "tuned has no model.decoder.embed_tokens.weight, model.encoder.embed_tokens.weight" in said
        assert "import it again, with --untie" in said
    run.ok(*COMMIT, "--untie")
    assert "import it again" not in run("checkout").stderr
    assert torch.equal(answers(run.directory), answers(model))


def test_a_head_on_a_base_without_one(tmp_path: Path) -> None:
    """The base is a LlamaModel, whose names have no `model.`, and the fine-tune a LlamaForCausalLM."""
    sizes = SIZES | {"num_key_value_heads": 1, "tie_word_embeddings": False}
    random_model("Llama", head="Model", **sizes).save_pretrained(tmp_path / "headless")
    LlamaForCausalLM.from_pretrained(tmp_path / "headless", dtype="auto").save_pretrained(tmp_path / "whole")
    train(tmp_path / "whole", tmp_path / "tuned")
    run = begun(tmp_path / "headless", tmp_path)
    said = run.refused(4, *COMMIT, "--rename", "--untie")
    assert "tie_word_embeddings=True" in said
    base = LlamaForCausalLM.from_pretrained(tmp_path / "headless", dtype="auto", tie_word_embeddings=True)
    base.save_pretrained(tmp_path / "base")
    CommandLine(tmp_path).ok("init", "again", "--base", "base")
    follow(CommandLine(tmp_path / "again"), *COMMIT)
    CommandLine(tmp_path / "again").ok("checkout")
    assert same_answers(tmp_path / "again", tmp_path / "tuned")


def test_an_adapter_that_unties_t5_leaves_the_scale_of_its_head(families: Families, tmp_path: Path) -> None:
    """The config.json of the hub has neither of the two keys."""
    shutil.copytree(families("t5"), tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {k: config[k] for k in config if k not in ("tie_word_embeddings", "scale_decoder_outputs")}
        )
    )
    run = begun(tmp_path / "base", tmp_path)
    want = random_adapter(
        tmp_path / "base", tmp_path / "tuned", target_modules=["q"], modules_to_save=["lm_head"]
    )
    follow(run, *COMMIT)
    assert near(run, want)


# -- copies


@pytest.fixture
def copied(families: Families, tmp_path: Path) -> Path:
    """A tied Llama whose file holds its embedding twice."""
    shutil.copytree(families("llama tied"), tmp_path / "base")
    model = read_weights(tmp_path / "base")
    write_file(tmp_path / "base" / "model.safetensors", model | {HEAD: model[EMBEDDING]})
    return tmp_path / "base"


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize("family", ["bart with copies", "t5 with copies", "llama"])
def test_trained_tokens_change_all_copies(
    families: Families, copied: Path, tmp_path: Path, family: str
) -> None:
    base = copied if family == "llama" else families(family)
    run = begun(base, tmp_path)
    part, query = ("embed_tokens", "q_proj") if family == "llama" else ("shared", "q|q_proj")
    want = random_adapter(
        base, tmp_path / "tuned", target_modules=f".*({query})", trainable_token_indices={part: [3, 5]}
    )
    assert "changes all of them" in run(*COMMIT).stderr
    assert near(run, want)


def test_factors_change_all_copies(copied: Path, tmp_path: Path) -> None:
    run = begun(copied, tmp_path)
    random_adapter(copied, tmp_path / "tuned", target_modules=["embed_tokens"])
    run.ok(*COMMIT)
    merged = PeftModel.from_pretrained(loaded(copied), tmp_path / "tuned").merge_and_unload()
    assert near(run, answers(merged))


def test_copies_that_the_revision_trained_apart_stay_apart(copied: Path, tmp_path: Path) -> None:
    train(copied, tmp_path / "first")
    model = read_weights(tmp_path / "first")
    write_file(tmp_path / "first" / "model.safetensors", model | {HEAD: moved({HEAD: model[HEAD]}, 9)[HEAD]})
    (tmp_path / "first" / "config.json").write_text(
        json.dumps(json.loads((copied / "config.json").read_text()) | {"tie_word_embeddings": False})
    )
    run = begun(copied, tmp_path)
    run.ok("commit", "../first", "-m", "x", "--files")
    run.ok("checkout")
    before = read_weights(run.directory)
    random_adapter(tmp_path / "first", tmp_path / "tuned", target_modules=["embed_tokens"])
    run.ok(*COMMIT, "--onto", "HEAD")
    run.ok("checkout")
    after = read_weights(run.directory)
    assert np.array_equal(before[HEAD].bits, after[HEAD].bits)
    assert not np.array_equal(before[EMBEDDING].bits, after[EMBEDDING].bits)


def patch(place: Path, name: str, held: Tensor) -> Model:
    """Writes a sparse patch that negates every third element; the tensor as it leaves it."""
    places = np.arange(0, held.bits.size, 3, dtype=np.int32)
    bits = held.bits.reshape(-1).copy()
    bits[places] ^= np.uint16(1 << 15)
    parts = {
        f"{name}.indices": Tensor("I32", places.view(np.uint32)),
        f"{name}.values": Tensor(held.dtype, bits[places]),
    }
    write_file(place, parts)
    return {name: Tensor(held.dtype, bits.reshape(held.bits.shape))}


@pytest.mark.situation("a sparse patch names a shared matrix once, or by the name that the base ties to it")
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("name", [EMBEDDING, HEAD])
def test_a_sparse_patch_changes_all_names_of_a_shared_matrix(
    families: Families, copied: Path, tmp_path: Path, copies: bool, name: str
) -> None:
    base = copied if copies else families("llama tied")
    run = begun(base, tmp_path)
    (want,) = patch(tmp_path / "p.safetensors", name, read_weights(base)[EMBEDDING]).values()
    run.ok("commit", "../p.safetensors", "-m", "x")
    run.ok("checkout")
    found = read_weights(run.directory)
    assert (HEAD in found) is copies
    for each in (EMBEDDING, HEAD)[: 1 + copies]:
        assert np.array_equal(found[each].bits, want.bits)


def test_a_patch_of_persona_names_all_copies_that_changed(copied: Path, tmp_path: Path) -> None:
    run = begun(copied, tmp_path)
    shutil.copytree(copied, tmp_path / "tuned")
    model = read_weights(copied)
    write_file(tmp_path / "tuned" / "model.safetensors", model | moved({EMBEDDING: model[EMBEDDING]}, 5))
    run.ok(*COMMIT)
    run.ok("export", "--patch", "HEAD~1..HEAD", "-o", "../p.safetensors")
    run.ok("switch", "-c", "again", "HEAD~1")
    run.ok("commit", "../p.safetensors", "-m", "x")
    run.ok("checkout")
    assert np.array_equal(read_weights(run.directory)[HEAD].bits, model[HEAD].bits)
    assert not np.array_equal(read_weights(run.directory)[EMBEDDING].bits, model[EMBEDDING].bits)


# -- configs


@pytest.mark.situation(
    "the fine-tune lacks its embedding, has a head, and no config.json says that they are tied"
)
def test_a_lost_embedding_beside_a_head_without_a_config(families: Families, tmp_path: Path) -> None:
    run = begun(families("llama tied"), tmp_path)
    train(families("llama tied"), tmp_path / "tuned")
    whole = read_weights(tmp_path / "tuned")
    lost = {HEAD if name == EMBEDDING else name: held for name, held in whole.items()}
    write_file(tmp_path / "tuned" / "model.safetensors", lost)
    config = (tmp_path / "tuned" / "config.json").read_bytes()
    (tmp_path / "tuned" / "config.json").unlink()
    for more in ((), ("--rename",), ("--missing", "zero", "--extra", "ignore")):
        assert f"{EMBEDDING} is missing, and {HEAD} is not known to be the same" in run.refused(
            4, *COMMIT, *more
        )
    (tmp_path / "tuned" / "config.json").write_bytes(config)
    run.ok(*COMMIT)
    run.ok("checkout")
    assert np.array_equal(read_weights(run.directory)[EMBEDDING].bits, whole[EMBEDDING].bits)


@pytest.mark.situation("the config of the fine-tune unties the output matrix, and no file holds one")
def test_a_head_that_a_save_lost(families: Families, tmp_path: Path) -> None:
    run = begun(families("llama tied"), tmp_path)
    train(families("llama tied"), tmp_path / "tuned")
    path = tmp_path / "tuned" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    assert "it is lost" in run(*COMMIT).stderr


def test_the_advice_on_an_output_matrix_of_its_own_works(families: Families, tmp_path: Path) -> None:
    """The base has a head of its own, and the fine-tune was tied."""
    run = begun(families("llama"), tmp_path)
    train(families("llama"), tmp_path / "tuned")
    model = read_weights(tmp_path / "tuned")
    write_file(
        tmp_path / "tuned" / "model.safetensors", {name: model[name] for name in model if name != HEAD}
    )
    path = tmp_path / "tuned" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    said = run.refused(4, *COMMIT)
    tied = loaded(tmp_path / "tuned")
    want = answers(tied)
    lines = said[said.index("(out = ") + 1 : said.index("), then")]
    exec(lines, {"model": tied, "torch": torch})
    tied.save_pretrained(tmp_path / "tuned")
    run.ok(*COMMIT)
    run.ok("checkout")
    assert torch.equal(answers(run.directory), want)


def test_copies_of_a_matrix_that_is_left_stay_as_they_are(copied: Path, tmp_path: Path) -> None:
    run = begun(copied, tmp_path)
    random_adapter(copied, tmp_path / "tuned", target_modules=["embed_tokens", "q_proj"])
    run.ok(*COMMIT, "--leave", EMBEDDING)
    run.ok("checkout")
    base, found = read_weights(copied), read_weights(run.directory)
    assert all(np.array_equal(found[name].bits, base[name].bits) for name in (EMBEDDING, HEAD))
