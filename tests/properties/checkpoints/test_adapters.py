"""Adapters that PEFT saved, committed as the hints say, against PEFT's own merge."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from tests.advice import advice, follow
from tests.cli.command_line import CommandLine
from tests.families import answers, loaded, random_model, train

Families = Callable[[str], Path]
COMMIT = ("commit", "../adapter", "-m", "x")
MERGED = ("commit", "../merged", "-m", "x")
LAYER = {
    "bart": "q_proj",
    "gpt2": "c_attn",
    "t5": "wi",
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]


@dataclass
class Trained:
    """A repository of a base, an adapter beside it, and the answers of PEFT's merge."""

    run: CommandLine
    answers: torch.Tensor

    def check(self) -> None:
        """The checkout answers as PEFT's merge does."""
        self.run.ok("checkout")
        found = answers(self.run.directory)
        assert found.shape == self.answers.shape
        torch.testing.assert_close(found, self.answers, atol=2e-5, rtol=1e-5)


def trained(
    place: Path, base: Path, *modules: str, onto: bool = False, tokens: int = 0, **config: Any
) -> Trained:
    """Trains an adapter of a base, or of what its repository at `place` checks out (`onto`).

    `tokens`: so many are added before the training.
    """
    if not onto:
        base = begun(place, base)
    model = loaded(base)
    if tokens:
        torch.manual_seed(1)
        model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + tokens)
        model.save_pretrained(place / "larger")
        base = place / "larger"
        model = loaded(base)
    adapted = get_peft_model(model, LoraConfig(r=3, lora_alpha=7, target_modules=list(modules), **config))
    move(adapted)
    adapted.save_pretrained(place / "adapter")
    merged = PeftModel.from_pretrained(loaded(base), str(place / "adapter")).merge_and_unload()
    merged.save_pretrained(place / "merged")
    before, after = answers(base), answers(merged)
    assert (after - before).abs().max() > 1e-3  # the adapter does something
    return Trained(CommandLine(place / "bot"), after)


def begun(place: Path, source: Path) -> Path:
    """Starts a repository of a model in float32, and returns the directory of the model."""
    loaded(source).float().save_pretrained(place / "base")
    CommandLine(place).ok("init", "bot", "--base", "base")
    return place / "base"


def move(model: torch.nn.Module) -> None:
    """Moves everything that is trained, each tensor once."""
    torch.manual_seed(2)
    for parameter in {id(one): one for one in model.parameters() if one.requires_grad}.values():
        parameter.data += 0.1 * torch.randn(parameter.shape)


def merge_first(found: Trained, *flags: str) -> None:
    """The commit is refused with the advice to merge; the merged model is committed as its hints say."""
    said = found.run.refused(4, *COMMIT, *flags)
    assert "merge_and_unload" in advice(said).hint
    if found.run(*MERGED, *flags).exit_code:
        follow(found.run, *MERGED, *flags)
    found.check()


@pytest.mark.situation("an adapter whose names have parts of a wrapper (`_orig_mod`, `module.`)")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.", "base_model.model._orig_mod."),
        ("base_model.model.", "module.base_model.model."),
        (".layers.0.", ".layers.0._fsdp_wrapped_module."),
        (".self_attn.", "._checkpoint_wrapped_module.self_attn."),
    ],
)
def test_parts_of_a_wrapper_are_taken_off_the_names(
    families: Families, tmp_path: Path, old: str, new: str
) -> None:
    found = trained(tmp_path, families("llama tied"), "q_proj", "v_proj", alpha_pattern={"v_proj": 3})
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name.replace(old, new): tensor for name, tensor in load_file(path).items()}, path)
    found.run.ok(*COMMIT)
    found.check()


def test_a_scale_that_depends_on_the_wrapper_is_refused(families: Families, tmp_path: Path) -> None:
    found = trained(tmp_path, families("llama tied"), "q_proj", alpha_pattern={"0.self_attn.q_proj": 3})
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    part = ".self_attn._fsdp_wrapped_module."
    save_file({name.replace(".self_attn.", part): tensor for name, tensor in load_file(path).items()}, path)
    assert "gives model.layers.0.self_attn.q_proj another scale than" in found.run.refused(4, *COMMIT)


def neox(place: Path, **more: bool) -> Path:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = random_model("GPTNeoX", "float32", vocab_size=48, max_position_embeddings=32, **sizes, **more)
    model.save_pretrained(place / "neox")
    return place / "neox"


@pytest.mark.situation(
    "the model of an adapter has other names in memory than in its file (the head of GPT-NeoX)"
)
def test_names_of_the_model_in_memory_are_merged_first(tmp_path: Path) -> None:
    merge_first(trained(tmp_path, neox(tmp_path), "query_key_value", modules_to_save=["lm_head"]))


@pytest.mark.situation(
    "a GPT-NeoX that ties its head, and an adapter that trained the head or the embedding whole"
)
@pytest.mark.parametrize("modules", [["lm_head"], ["embed_in"], ["embed_in", "lm_head"]])
def test_a_head_of_gpt_neox_that_is_tied(tmp_path: Path, modules: list[str]) -> None:
    """transformers saves the merged head as `lm_head.weight`, and loads `embed_out.weight` too."""
    base = neox(tmp_path, tie_word_embeddings=True)
    found = trained(tmp_path, base, "query_key_value", modules_to_save=modules)
    assert "lm_head.weight" in load_file(tmp_path / "merged" / "model.safetensors")
    said = found.run.refused(4, *COMMIT)
    if modules == ["embed_in"]:
        follow(found.run, *COMMIT)
        found.check()
        found.run.ok("reset", "--hard", "HEAD~1")
    else:
        assert "merge" in advice(said).hint
    for more in ((), ("--extra", "ignore")):
        said = found.run.refused(4, *MERGED, *more)
        assert "The base ties embed_out.weight to gpt_neox.embed_in.weight" in said
    follow(found.run, *MERGED)
    found.check()
    found.run.ok("set", "merged", "--alpha", "0")
    found.run.ok("checkout")
    torch.testing.assert_close(answers(found.run.directory), answers(base), atol=2e-5, rtol=1e-5)


@pytest.mark.situation(
    "trained tokens of a model with more tokens than the base, of which some were not trained"
)
@pytest.mark.parametrize("family", ["llama", "llama tied"])
def test_trained_tokens_with_gaps_are_merged_first(families: Families, tmp_path: Path, family: str) -> None:
    tokens = {"trainable_token_indices": {"embed_tokens": [3, 48, 50]}}
    found = trained(tmp_path, families(family), "q_proj", tokens=3, **tokens)
    merge_first(found)
    found.run.ok("reset", "--hard", "HEAD~1")
    merge_first(found, "--extend-vocab")


@pytest.mark.parametrize(
    "config", [{"bias": "all"}, {"modules_to_save": ["decoder"]}], ids=["biases", "head"]
)
def test_a_bias_that_the_file_holds_under_another_name_is_merged_first(
    families: Families, tmp_path: Path, config: dict[str, Any]
) -> None:
    merge_first(trained(tmp_path, families("bert"), "value", **config))


@pytest.mark.situation("an adapter that trained both tied matrices whole, each as a copy")
@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("llama tied", ["embed_tokens", "lm_head"]),
        ("gpt2", ["wte", "lm_head"]),
        ("t5", ["shared", "lm_head"]),
        ("bart", ["shared", "lm_head"]),
    ],
)
def test_two_copies_are_two_matrices(
    families: Families, tmp_path: Path, family: str, modules: list[str]
) -> None:
    layer = LAYER.get(family, "q_proj")
    found = trained(tmp_path, families(family), layer, modules_to_save=modules)
    follow(found.run, *COMMIT)
    found.check()


@pytest.mark.situation("`ensure_weight_tying` for an embedding that PEFT does not tie by its name (`wte`)")
@pytest.mark.parametrize(("family", "module"), [("gpt2", "wte"), ("t5", "shared"), ("bart", "shared")])
def test_a_copy_is_a_copy_unless_the_file_shows_that_the_head_is_equal(
    families: Families, tmp_path: Path, family: str, module: str
) -> None:
    found = trained(
        tmp_path, families(family), LAYER[family], modules_to_save=[module], ensure_weight_tying=True
    )
    follow(found.run, *COMMIT)
    found.check()


@pytest.mark.parametrize("family", ["llama tied", "gpt2", "t5", "bart"])
def test_a_tensor_that_is_saved_under_all_its_names_changes_all(
    families: Families, tmp_path: Path, family: str
) -> None:
    layer = LAYER.get(family, "q_proj")
    found = trained(tmp_path, families(family), layer, modules_to_save=["lm_head"], ensure_weight_tying=True)
    found.run.ok(*COMMIT)
    found.check()


@pytest.mark.parametrize("modules", [["lm_head"], []])
def test_a_factor_or_rows_of_a_head_and_rows_of_its_embedding_are_refused(
    families: Families, tmp_path: Path, modules: list[str]
) -> None:
    base = begun(tmp_path, families("llama tied"))
    tokens = {"embed_tokens": [3, 7], **({} if modules else {"lm_head": [1, 2]})}
    config = LoraConfig(r=3, target_modules=["q_proj", *modules], trainable_token_indices=tokens)
    adapted = get_peft_model(loaded(base), config)
    move(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    said = CommandLine(tmp_path / "bot").refused(4, *COMMIT)
    assert "model.embed_tokens.weight, to which the base ties lm_head.weight" in said
    assert "fault" not in said


@pytest.mark.situation("an adapter that trained a tied output matrix with new tokens, and not its embedding")
@pytest.mark.parametrize("family", ["llama tied", "gpt2"])
def test_new_rows_of_a_head_need_those_of_the_embedding(
    families: Families, tmp_path: Path, family: str
) -> None:
    layer = LAYER.get(family, "q_proj")
    found = trained(tmp_path, families(family), layer, tokens=3, modules_to_save=["lm_head"])
    said = found.run.refused(4, *COMMIT, "--extend-vocab", "--untie")
    assert "its new rows are not in the adapter" in said
    assert "resize_token_embeddings(51)" in said
    merge_first(found, "--extend-vocab", "--untie")


@pytest.mark.situation("an adapter with factors of a matrix to which its training added tokens")
@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_factors_of_a_longer_matrix_are_merged_first(families: Families, tmp_path: Path, module: str) -> None:
    found = trained(tmp_path, families("llama"), "q_proj", module, tokens=3)
    assert "resize_token_embeddings(51)" in advice(found.run.refused(4, *COMMIT)).hint
    merge_first(found)


@pytest.mark.situation("an adapter that trained the new rows of one of two untied matrices")
def test_new_rows_of_one_matrix_are_merged_first(families: Families, tmp_path: Path) -> None:
    found = trained(tmp_path, families("llama"), "q_proj", tokens=3, modules_to_save=["embed_tokens"])
    merge_first(found, "--extend-vocab")


def test_a_head_onto_a_revision_with_new_tokens_has_their_rows(families: Families, tmp_path: Path) -> None:
    base = begun(tmp_path, families("llama tied"))
    run = CommandLine(tmp_path / "bot")
    model = loaded(base)
    torch.manual_seed(1)
    model.resize_token_embeddings(51)
    move(model)
    model.save_pretrained(tmp_path / "first")
    run.ok("commit", "../first", "-m", "first", "--extend-vocab")
    run.ok("checkout", "-o", "../start")
    found = trained(tmp_path, tmp_path / "start", "q_proj", onto=True, modules_to_save=["lm_head"])
    said = follow(run, *COMMIT, "--onto", "HEAD").output
    assert "trained on" not in said  # the name of the base says nothing of a revision
    found.check()


@pytest.mark.situation(
    "an adapter of a shared matrix, onto a revision that unties it from matrices which are still equal (BART)"
)
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_equal_matrices_of_an_untied_revision_may_be_one_or_several(
    families: Families, tmp_path: Path, family: str
) -> None:
    base = begun(tmp_path, families(family))
    run = CommandLine(tmp_path / "bot")
    tuned = loaded(train(base, tmp_path / "whole"))
    output: Any = tuned.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight + 0.1)
    tuned.config.tie_word_embeddings = False
    tuned.save_pretrained(tmp_path / "first")
    follow(run, "commit", "../first", "-m", "first")
    run.ok("checkout", "-o", "../start")
    found = trained(
        tmp_path,
        tmp_path / "start",
        LAYER[family],
        onto=True,
        trainable_token_indices={"shared": [3, 7]},
    )
    assert "merge_and_unload" in advice(run.refused(4, *COMMIT, "--onto", "HEAD")).hint
    run.ok(*MERGED, "--onto", "HEAD")
    found.check()


def test_the_advice_of_a_refused_adapter_is_one_sentence_each(families: Families, tmp_path: Path) -> None:
    found = trained(tmp_path, families("bert"), "value", bias="all")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    said = found.run.refused(4, *COMMIT)
    assert config["base_model_name_or_path"] in said
    assert "If PEFT warns of missing keys, it is another base" in said


@pytest.mark.parametrize("family", ["llama tied", "gpt2", "t5", "bart", "bert", "whisper"])
def test_trained_rows_of_a_tied_embedding_are_exported_as_a_factor(
    families: Families, tmp_path: Path, family: str
) -> None:
    module = {"gpt2": "wte", "t5": "shared", "bart": "shared", "bert": "word_embeddings"}.get(
        family, "embed_tokens"
    )
    layer = LAYER.get(family, "value" if family == "bert" else "q_proj")
    rows = {module: [3, 4, 7]}
    found = trained(tmp_path, families(family), layer, trainable_token_indices=rows)
    found.run.ok(*COMMIT)
    assert "both only after merge_and_unload()" in found.run("export", "--adapter", "-o", "../out").stderr
    check_export(found, tmp_path)


def check_export(found: Trained, place: Path) -> None:
    """PEFT loads the exported adapter without a warning, and its merge answers as the checkout does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        adapted = PeftModel.from_pretrained(loaded(place / "base"), str(place / "out"))
    found.run.ok("checkout")
    torch.testing.assert_close(
        answers(adapted.merge_and_unload()), answers(found.run.directory), atol=1e-4, rtol=1e-4
    )


SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def other(name: str) -> Any:
    """A model of a family that `tests.families` does not have."""
    if name == "distilbert":
        sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
        return random_model("DistilBert", "float32", head="MaskedLM", vocab_size=48, **sizes)
    if name == "electra":
        more = {"vocab_size": 48, "embedding_size": 16}
        return random_model("Electra", "float32", head="MaskedLM", **more, **SIZES)
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8}
    return random_model("ResNet", "float32", head="ImageClassification", layer_type="basic", **sizes)


def tuned(place: Path, base: Path) -> CommandLine:
    """A repository of a base with a training of it."""
    model = loaded(base)
    move(model)
    model.save_pretrained(place / "tuned")
    run = CommandLine(place / "bot")
    run.ok("commit", "../tuned", "-m", "x")
    return run


@pytest.mark.parametrize("family", ["bart", "whisper", "bert", "distilbert", "electra"])
def test_positions_and_biases_of_heads_of_an_export_load_in_peft(
    families: Families, tmp_path: Path, family: str
) -> None:
    source = tmp_path / "source"
    if family in ("distilbert", "electra"):
        other(family).save_pretrained(source)
    else:
        source = families(family)
    run = tuned(tmp_path, begun(tmp_path, source))
    run.ok("export", "--adapter", "-o", "../out")
    check_export(Trained(run, torch.zeros(1)), tmp_path)


def test_integers_of_a_norm_are_exported_with_it(tmp_path: Path) -> None:
    other("resnet").save_pretrained(tmp_path / "source")
    base = begun(tmp_path, tmp_path / "source")
    run = tuned(tmp_path, base)
    run.ok("export", "--adapter", "-o", "../out")
    adapted = PeftModel.from_pretrained(loaded(base), str(tmp_path / "out")).merge_and_unload()
    run.ok("checkout")
    wanted = loaded(run.directory).state_dict()
    for name, tensor in adapted.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-4, rtol=1e-4, msg=name)


def test_an_export_says_what_transformers_has_in_another_way(tmp_path: Path) -> None:
    run = tuned(tmp_path, begun(tmp_path, neox(tmp_path)))
    said = run("export", "--adapter", "-o", "../out").stderr
    assert "embed_out.weight when it loads the model: PEFT may leave" in said
    assert "`persona checkout -o OUT REV` writes the whole model" in said
