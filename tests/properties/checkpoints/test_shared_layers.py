"""Adapters and fine-tunes that change one of several layers which share a matrix."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel

from persona.intake.adapter_config import UNTIED
from tests.advice import advice, follow
from tests.checkpoints import read_weights, write_file
from tests.cli.command_line import CommandLine
from tests.families import (
    EIGHT,
    answers,
    loaded,
    moved,
    own_head,
    random_adapter,
    random_model,
    same_answers,
    train,
)

Families = Callable[[str], Path]
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]
COMMIT = ("commit", "../tuned", "-m", "x")
_SPEECH = {
    f"{part}_{key}": value
    for part in ("speech_encoder", "t2u_encoder", "t2u_decoder")
    for key, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 24, "intermediate_size": 24}.items()
}
_FSMT = {key: EIGHT[key] for key in EIGHT if key != "vocab_size"}
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "marian": ("Marian", "MTModel", {**EIGHT, "max_position_embeddings": 32, "forced_eos_token_id": 2}),
    "seamless": (
        "SeamlessM4T",
        "TextToText",
        {**EIGHT, **_SPEECH, "hidden_size": 16, "t2u_vocab_size": 48, "num_conv_pos_embedding_groups": 2},
    ),
    "fsmt": (
        "FSMT",
        "ConditionalGeneration",
        {
            **_FSMT,
            "langs": ["en", "de"],
            "src_vocab_size": 48,
            "tgt_vocab_size": 48,
            "max_position_embeddings": 32,
            "tie_word_embeddings": True,
        },
    ),
}
"""Models of which a file shows neither the head nor the embeddings of the encoder and the decoder."""


def base_of(families: Families, place: Path, family: str) -> Path:
    if family not in OTHERS:
        return families(family)
    name, head, settings = OTHERS[family]
    random_model(name, "float32", head=head, **settings).save_pretrained(place / "base")
    return place / "base"


def begun(base: Path, place: Path) -> CommandLine:
    CommandLine(place).ok("init", "bot", "--base", base)
    return CommandLine(place / "bot")


def is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 2e-2 * other.abs().max())


def untied(said: str, base: Path) -> PreTrainedModel:
    """The model of a directory after the code of a hint."""
    model = loaded(base)
    give_own_matrices(model, said)
    return model


def give_own_matrices(model: PreTrainedModel, said: str) -> None:
    """Runs the code of a hint."""
    exec(said[said.index("(for m in ") + 1 : said.index("= False)") + 7], {"model": model, "torch": torch})


def t5(**settings: Any) -> PreTrainedModel:
    small = {"vocab_size": 48, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return random_model(
        "T5", "float32", head="ConditionalGeneration", decoder_start_token_id=0, **small, **settings
    )


def merged_as_said(said: str, base: Path, place: Path) -> None:
    """Merges the adapter in `place / "adapter"` as a hint says, and saves the model in `place / "tuned"`."""
    assert "merge it with PEFT into a model whose layers share no matrix" in said
    merged = PeftModel.from_pretrained(untied(said, base), place / "adapter").merge_and_unload()
    merged.save_pretrained(place / "tuned")


def import_it(run: CommandLine, place: Path, want: torch.Tensor) -> None:
    """Commits the model in `place / "tuned"` by the advice; its answers are the wanted ones."""
    follow(run, *COMMIT)
    run.ok("checkout")
    assert same_answers(run.directory, place / "tuned")
    assert is_near(answers(run.directory), want)


@pytest.mark.situation(
    "an adapter changes a layer whose matrix the model shares, under a name that no file shows"
    " (the embeddings of BART, T5, Marian, FSMT, SeamlessM4T)"
)
@pytest.mark.parametrize("family", ["bart", "t5", *OTHERS])
@pytest.mark.parametrize("way", ["target_modules", "modules_to_save"])
def test_an_adapter_of_an_embedding_that_no_file_shows(
    families: Families, tmp_path: Path, family: str, way: str
) -> None:
    base = base_of(families, tmp_path, family)
    run = begun(base, tmp_path)
    more: dict[str, Any] = {"target_modules": ["embed_tokens"]}
    if way == "modules_to_save":
        more = {"target_modules": ["q", "q_proj"], "modules_to_save": ["embed_tokens"]}
    want = random_adapter(base, tmp_path / "adapter", **more)
    said = run.refused(4, "commit", "../adapter", "-m", "x")
    assert "encoder.embed_tokens to another layer" in said
    merged_as_said(said, base, tmp_path)
    import_it(run, tmp_path, want)
    run.ok("set", "tuned", "--alpha", "0")
    run.ok("checkout")
    assert same_answers(run.directory, base)


@pytest.mark.parametrize("way", ["target_modules", "modules_to_save"])
def test_an_adapter_of_the_tied_head_of_gpt_neox(tmp_path: Path, way: str) -> None:
    """The file ties `embed_out.weight`, and the module is `lm_head`."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = random_model("GPTNeoX", "float32", vocab_size=48, tie_word_embeddings=True, **sizes)
    model.save_pretrained(tmp_path / "base")
    run = begun(tmp_path / "base", tmp_path)
    more: dict[str, Any] = {"target_modules": ["lm_head"]}
    if way == "modules_to_save":
        more = {"target_modules": ["query_key_value"], "modules_to_save": ["lm_head"]}
    want = random_adapter(tmp_path / "base", tmp_path / "adapter", **more)
    merged_as_said(run.refused(4, "commit", "../adapter", "-m", "x"), tmp_path / "base", tmp_path)
    import_it(run, tmp_path, want)


@pytest.mark.situation("an adapter has factors of two layers that share a matrix")
@pytest.mark.parametrize("family", ["bart", "t5", "bart with copies"])
def test_factors_of_two_layers_that_share_a_matrix(families: Families, tmp_path: Path, family: str) -> None:
    base = families(family)
    run = begun(base, tmp_path)
    want = random_adapter(base, tmp_path / "adapter", target_modules=["shared", "lm_head"])
    said = run.refused(4, "commit", "../adapter", "-m", "x")
    assert "both change" in said
    merged_as_said(said, base, tmp_path)
    if family == "bart with copies":
        run.ok(*COMMIT, "--files")
        run.ok("checkout")
        assert is_near(answers(run.directory), want)
    else:
        import_it(run, tmp_path, want)


def test_layers_that_were_trained_as_one_are_not_merged_apart(families: Families, tmp_path: Path) -> None:
    """No merge gives their model: the head has no factors in a model that is untied."""
    run = begun(families("llama tied"), tmp_path)
    modules = ["q_proj", "embed_tokens"]
    random_adapter(
        families("llama tied"), tmp_path / "adapter", target_modules=modules, ensure_weight_tying=True
    )
    said = run.refused(4, "commit", "../adapter", "-m", "x")
    assert "adapt one of the two" in said
    assert "merge it" not in said


@pytest.mark.situation(
    "an adapter has factors of an embedding, and trained the head whole that is tied to it"
)
@pytest.mark.parametrize("family", ["llama tied", "bart", "t5"])
def test_a_trained_head_beside_factors_of_its_embedding(
    families: Families, tmp_path: Path, family: str
) -> None:
    base = families(family)
    run = begun(base, tmp_path)
    embedding = "embed_tokens" if family == "llama tied" else "shared"
    want = random_adapter(base, tmp_path / "adapter", target_modules=[embedding], modules_to_save=["lm_head"])
    said = run.refused(4, "commit", "../adapter", "-m", "x")
    (flags,) = advice(said, ["commit"]).flags
    assert flags == ("--untie",)
    made = run("commit", "../adapter", "-m", "x", *flags)
    assert made.exit_code == (0 if family == "llama tied" else 4)
    if made.exit_code:
        merged_as_said(made.stderr, base, tmp_path)
        import_it(run, tmp_path, want)
    else:
        run.ok("checkout")
        assert is_near(answers(run.directory), want)


def test_a_note_says_how_only_one_of_two_tied_layers_changes(families: Families, tmp_path: Path) -> None:
    base = families("llama tied")
    run = begun(base, tmp_path)
    want = random_adapter(base, tmp_path / "adapter", target_modules=["embed_tokens"])
    said = run("commit", "../adapter", "-m", "x").stderr
    assert "so the adapter changes both" in said
    run.ok("checkout")
    assert not is_near(answers(run.directory), want)
    merged_as_said(said, base, tmp_path)
    run.ok("reset", "--hard", "HEAD~1")
    import_it(run, tmp_path, want)


@pytest.mark.situation("an embedding of the encoder or the decoder differs from the head, which all share")
@pytest.mark.parametrize("family", ["bart", "t5", *OTHERS])
def test_a_fine_tune_whose_encoder_has_an_embedding_of_its_own(
    families: Families, tmp_path: Path, family: str
) -> None:
    base = base_of(families, tmp_path, family)
    run = begun(base, tmp_path)
    model = untied(f"({UNTIED})", base)
    (embedding,) = (m for name, m in model.named_modules() if name.endswith("encoder.embed_tokens"))
    with torch.no_grad():
        embedding.weight += 0.1 * torch.randn(embedding.weight.shape)
    want = answers(model)
    model.save_pretrained(tmp_path / "tuned")
    for more in ((), ("--extra", "ignore")):
        assert "leaving it out changes the model" in run.refused(4, *COMMIT, *more)
    import_it(run, tmp_path, want)
    assert torch.equal(answers(run.directory), want)


@pytest.mark.situation("a merged model holds some of the layers that share a matrix apart, and lacks others")
@pytest.mark.parametrize("family", ["bart", "marian", "seamless"])
@pytest.mark.parametrize("part", ["shared", "embed_tokens"])
def test_a_merged_model_that_lost_some_of_its_embeddings(
    families: Families, tmp_path: Path, family: str, part: str
) -> None:
    base = base_of(families, tmp_path, family)
    run = begun(base, tmp_path)
    want = random_adapter(base, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=[part])
    merged = PeftModel.from_pretrained(loaded(base), tmp_path / "adapter").merge_and_unload()
    assert is_near(answers(merged), want)
    merged.save_pretrained(tmp_path / "tuned")
    assert not any(name.endswith("lm_head.weight") for name in read_weights(tmp_path / "tuned"))
    run.refused(4, *COMMIT)
    said = run.refused(4, *COMMIT, "--untie")
    assert "is not known" in said
    model = untied(said, base)
    PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().save_pretrained(
        tmp_path / "tuned"
    )
    import_it(run, tmp_path, want)


@pytest.mark.situation("a merged T5 holds its head and `shared` apart, and lacks the other embeddings")
@pytest.mark.parametrize("modules", [["shared"], ["shared", "lm_head"]])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("onto", [False, True])
def test_a_merged_t5_that_lost_some_of_its_embeddings(
    tmp_path: Path, modules: list[str], ties: bool, onto: bool
) -> None:
    """transformers gives the encoder and the decoder `shared`; the model in memory had the old matrix."""
    base = tmp_path / "base"
    t5(tie_word_embeddings=ties).save_pretrained(base)
    run = begun(base, tmp_path)
    start, commit = base, COMMIT
    if onto:
        start, commit = train(base, tmp_path / "first"), (*COMMIT, "--onto", "HEAD")
        run.ok("commit", "../first", "-m", "first")
    want = random_adapter(start, tmp_path / "adapter", target_modules=["q"], modules_to_save=modules)
    merged = PeftModel.from_pretrained(loaded(start), tmp_path / "adapter").merge_and_unload()
    assert is_near(answers(merged), want)
    merged.save_pretrained(tmp_path / "tuned")
    assert not is_near(answers(tmp_path / "tuned"), want)
    assert advice(run.refused(4, *commit), ["commit"]).flags == (("--untie",),)
    said = run.refused(4, *commit, "--untie")
    assert "is not known" in said
    for model in (merged, PeftModel.from_pretrained(untied(said, start), tmp_path / "adapter")):
        if model is merged:
            give_own_matrices(model, said)
        else:
            model = model.merge_and_unload()
        model.save_pretrained(tmp_path / "tuned")
        run.ok(*commit, "--untie")
        run.ok("checkout")
        assert is_near(answers(run.directory), want)
        run.ok("reset", "--hard", "HEAD~1")


@pytest.mark.parametrize("change", ["head", "both"])
def test_a_t5_whose_head_was_trained_is_what_transformers_loads(tmp_path: Path, change: str) -> None:
    base = tmp_path / "base"
    t5().save_pretrained(base)
    run = begun(base, tmp_path)
    model = loaded(base)
    own_head(model)
    if change == "both":
        with torch.no_grad():
            model.shared.weight += 0.1 * torch.randn(model.shared.weight.shape)
    model.save_pretrained(tmp_path / "tuned")
    import_it(run, tmp_path, answers(model))


@pytest.mark.situation("a sparse patch names one of several equal matrices that its revision unties")
@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("part", ["shared", "encoder.embed_tokens"])
def test_a_patch_of_one_of_several_equal_matrices(
    families: Families, tmp_path: Path, family: str, part: str
) -> None:
    base = families(family)
    run = begun(base, tmp_path)
    model = loaded(base)
    own_head(model)
    model.save_pretrained(tmp_path / "tuned")
    run.ok(*COMMIT, "--untie")
    run.ok("checkout")
    model = loaded(run.directory)
    changed = {}
    for name, parameter in model.named_parameters():
        if name.endswith(("shared.weight", f"{part}.weight") if family == "t5" else f"{part}.weight"):
            with torch.no_grad():
                parameter[3:9] += torch.randn(parameter[3:9].shape)
            changed[f"{name}.indices"] = torch.arange(3 * 16, 9 * 16, dtype=torch.int32)
            changed[f"{name}.values"] = parameter.detach()[3:9].flatten().clone()
    save_file(changed, tmp_path / "patch.safetensors")
    said = run.refused(4, "commit", "../patch.safetensors", "-m", "p", "--onto", "HEAD")
    assert "save_pretrained of the trained model writes" in advice(said).hint
    model.save_pretrained(tmp_path / "trained")
    run.ok("commit", "../trained", "-m", "x", "--onto", "HEAD")
    run.ok("checkout")
    assert is_near(answers(run.directory), answers(model))


@pytest.mark.situation(
    "an adapter trained tokens of an embedding that its config ties to a head which differs"
)
@pytest.mark.parametrize("copied", [True, False])
def test_trained_tokens_beside_a_head_that_differs(families: Families, tmp_path: Path, copied: bool) -> None:
    """PEFT asks the config only, and changes the rows of both matrices."""
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    base, first = tmp_path / "base", tmp_path / "first"
    shutil.copytree(families("llama tied"), base)
    model = read_weights(base)
    write_file(base / "model.safetensors", model | ({head: model[embedding]} if copied else {}))
    train(families("llama tied"), first)
    trained = read_weights(first)
    write_file(first / "model.safetensors", trained | moved({head: model[embedding]}, 9))
    run = begun(base, tmp_path)
    run.ok("commit", "../first", "-m", "first", *(() if copied else ("--untie",)))
    tokens = {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 5]}}
    want = random_adapter(first, tmp_path / "adapter", **tokens)
    said = run.refused(4, "commit", "../adapter", "-m", "x", "--onto", "HEAD")
    assert "PEFT changes these rows of lm_head.weight too" in said
    merged = PeftModel.from_pretrained(loaded(first), tmp_path / "adapter").merge_and_unload()
    merged.save_pretrained(tmp_path / "tuned")
    run.ok(*COMMIT, "--onto", "HEAD")
    run.ok("checkout")
    assert is_near(answers(run.directory), want)
