"""Names that a model shares are known from the metadata or the config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from persona.weights.tied import find_tied, may_tie

LLAMA = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
TIED = {"lm_head.weight": "model.embed_tokens.weight"}


def test_an_absent_output_matrix_is_tied_to_the_embedding() -> None:
    assert find_tied({"model.embed_tokens.weight", "model.norm.weight"}, [], LLAMA) == TIED


def test_a_config_that_leaves_out_its_classs_default_still_ties() -> None:
    config = {"architectures": ["GPT2LMHeadModel"]}
    assert find_tied({"transformer.wte.weight"}, [], config) == {"lm_head.weight": "transformer.wte.weight"}


@pytest.mark.parametrize(
    ("config", "embedding", "output"),
    [
        ({"architectures": ["BartForConditionalGeneration"]}, "model.shared.weight", "lm_head.weight"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "shared.weight", "lm_head.weight"),
        (
            {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"},
            "model.decoder.embed_tokens.weight",
            "proj_out.weight",
        ),
        ({"architectures": ["LEDForConditionalGeneration"]}, "led.shared.weight", "lm_head.weight"),
        (
            {"architectures": ["Qwen3VLForConditionalGeneration"]},
            "model.language_model.embed_tokens.weight",
            "lm_head.weight",
        ),
        (
            {"architectures": ["MoonshineForConditionalGeneration"], "model_type": "moonshine"},
            "model.decoder.embed_tokens.weight",
            "proj_out.weight",
        ),
        (
            {"decoder": {"model_type": "trocr", "tie_word_embeddings": True}},
            "decoder.model.decoder.embed_tokens.weight",
            "decoder.output_projection.weight",
        ),
        (
            {"tie_word_embeddings": True, "model_type": "bert-generation"},
            "bert.embeddings.word_embeddings.weight",
            "lm_head.decoder.weight",
        ),
        ({"architectures": ["OPTForCausalLM"]}, "model.decoder.embed_tokens.weight", "lm_head.weight"),
        (
            {"architectures": ["BertForMaskedLM"]},
            "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.weight",
        ),
        (
            {"architectures": ["RobertaForMaskedLM"]},
            "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.weight",
        ),
    ],
)
def test_each_family_calls_its_output_matrix_so(config: dict[str, Any], embedding: str, output: str) -> None:
    assert find_tied({embedding, "model.norm.weight"}, [], config) == {output: embedding}
    assert find_tied({embedding, output}, [], config) == {}


def test_a_vision_models_inner_language_model_is_tied_under_its_prefix() -> None:
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"tie_word_embeddings": True},
    }
    names = {"language_model.model.embed_tokens.weight"}
    assert find_tied(names, [], config) == {
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight"
    }


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        LLAMA | {"tie_word_embeddings": False},
        LLAMA | {"text_config": {"tie_word_embeddings": False}},
        {"architectures": ["BertModel"]},
        {"architectures": "x"},
        {"architectures": [3], "text_config": []},
    ],
)
def test_nothing_is_tied_without_a_reason(config: dict[str, Any] | None) -> None:
    assert find_tied({"model.embed_tokens.weight"}, [], config) == {}


@pytest.mark.parametrize(
    "name", ["other.shared.weight", "biogpt.embed_tokens.weight", "bart.model.shared.weight"]
)
def test_the_head_of_a_model_with_another_prefix_is_not_guessed(name: str) -> None:
    assert find_tied({name}, [], LLAMA) == {}


@pytest.mark.parametrize(
    ("config", "ties"),
    [
        (None, True),
        ({}, True),
        ({"architectures": ["AlbertForMaskedLM"]}, True),
        ({"architectures": ["MarianMTModel"]}, True),
        ({"architectures": ["BertModel"]}, False),
        ({"architectures": ["LlamaForSequenceClassification"]}, False),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, True),
        ({"thinker_config": {"text_config": {"tie_word_embeddings": False}}}, False),
        ({"vision_config": {"tie_word_embeddings": False}}, True),
    ],
)
def test_only_a_config_denies_a_tie(config: dict[str, Any] | None, ties: bool) -> None:
    assert may_tie(config) is ties


def test_a_stored_output_matrix_is_not_tied() -> None:
    assert find_tied({"model.embed_tokens.weight", "lm_head.weight"}, [], LLAMA) == {}


def test_the_metadata_of_save_model_names_what_it_dropped() -> None:
    metadata = [
        {"format": "pt", "head.weight": "emb.weight", "x.weight": "absent.weight", "emb.weight": "emb.weight"}
    ]
    assert find_tied({"emb.weight"}, metadata, None) == {"head.weight": "emb.weight"}


@pytest.mark.parametrize("alias", ["../x.weight", "/x.weight", "x\ny.weight", "x" * 5000 + ".weight"])
def test_an_alias_that_cannot_name_a_tensor_is_no_alias(alias: str) -> None:
    assert find_tied({"emb.weight"}, [{alias: "emb.weight"}], None) == {}


def test_many_embeddings_are_looked_through_once() -> None:
    names = [f"parts.{number}.decoder.model.embed_tokens.weight" for number in range(20_000)]

    class Counting(list[str]):
        passes = 0

        def __iter__(self) -> Iterator[str]:
            Counting.passes += 1
            return super().__iter__()

    tied = find_tied(Counting(names), [], {"tie_word_embeddings": True})
    assert len(tied) == len(names)
    assert Counting.passes < 10
