"""Tied names: tensors that a model shares, so that a checkpoint holds them once.

The usual pair is the output matrix (`lm_head.weight`) and the input embedding. No file holds the alias. It is
known from the safetensors metadata (`save_model` writes alias → name there) or from the config.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from persona.errors import InvalidInput
from persona.objects.names import check_tensor_name

_OUTPUTS = {
    "model.embed_tokens.weight": "lm_head.weight",
    "transformer.wte.weight": "lm_head.weight",
    "wte.weight": "lm_head.weight",
    "transformer.word_embeddings.weight": "lm_head.weight",
    "gpt_neox.embed_in.weight": "embed_out.weight",
    "model.decoder.embed_tokens.weight": "lm_head.weight",
    "backbone.embeddings.weight": "lm_head.weight",
    "backbone.embedding.weight": "lm_head.weight",
    "shared.weight": "lm_head.weight",
    "model.shared.weight": "lm_head.weight",
    "bert.embeddings.word_embeddings.weight": "cls.predictions.decoder.weight",
    "roberta.embeddings.word_embeddings.weight": "lm_head.decoder.weight",
    "distilbert.embeddings.word_embeddings.weight": "vocab_projector.weight",
}
"""The end of an input embedding's name → the name of the output matrix that may be tied to it.

Both have the same prefix.
"""

_WITH_HEAD: Final = (
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
    "ForMaskedLM",
    "ForPreTraining",
)
_WHISPER: Final = {"model.decoder.embed_tokens.weight": "proj_out.weight"}
_HEAD: Final = re.compile(
    r"(?:^|\.)(?:\w*lm_head|embed_out|proj_out|vocab_projector|(?:predictions|lm_head)\.decoder)\.weight$"
)
_EMBEDDING: Final = re.compile(
    r"(?:^|\.)(?:shared|embed_tokens|wte|\w*word_embeddings?|embed_in|tok_embeddings|embeddings?|token_embedding)"
    r"\.weight$"
)
_HEAD_BIAS: Final = re.compile(r"(?:^|\.)(?:predictions|lm_head)(?:\.decoder)?\.bias$")


def is_head(name: str) -> bool:
    """Whether a tensor of this name is an output matrix."""
    return _HEAD.search(name) is not None


def is_shared(name: str) -> bool:
    """Whether a model may share the tensor of this name: an output matrix, or an input embedding."""
    return is_head(name) or _EMBEDDING.search(name) is not None


def says_untied(config: Mapping[str, Any] | None) -> bool:
    """Whether a config says that the output matrix is not tied to the input embedding."""
    said = [] if config is None else _said(config)
    return bool(said) and not any(value is True for value in said)


def may_share(one: str, other: str) -> bool:
    """Whether a model may hold one tensor under both names."""
    if is_shared(one) and is_shared(other):
        return True
    return all(_HEAD_BIAS.search(name) is not None for name in (one, other))


def find_tied(
    names: Collection[str], metadata: Iterable[Mapping[str, str]], config: Mapping[str, Any] | None
) -> dict[str, str]:
    """Alias → stored name, for every known tied name.

    An output matrix is taken as tied if `names` lacks it but has its embedding, and the config does not deny
    it.
    """
    tied = {
        alias: name
        for text in metadata
        for alias, name in text.items()
        if name in names and alias not in names and alias.endswith((".weight", ".bias"))
    }
    if config is not None and _may_tie(config):
        known = _OUTPUTS | (_WHISPER if _is_whisper(config) else {})
        outputs = set(known.values())
        present = {output for output in outputs if any(name.endswith(output) for name in names)}
        for name in names:
            if embedding := max(
                (end for end in known if ("." + name).endswith("." + end)), key=len, default=""
            ):
                output = known[embedding]
                if output not in present:
                    tied.setdefault(name.removesuffix(embedding) + output, name)
    return {alias: name for alias, name in sorted(tied.items()) if _can_name_a_tensor(alias)}


def _can_name_a_tensor(text: str) -> bool:
    try:
        check_tensor_name(text)
    except InvalidInput:
        return False
    return True


def _may_tie(config: Mapping[str, Any]) -> bool:
    """Whether output and input embeddings are tied, or may be.

    Configs leave out the default of their class.
    """
    said = _said(config)
    architectures = config.get("architectures")
    if said:
        return all(value is True for value in said)
    return isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith(_WITH_HEAD) for name in architectures
    )


def _said(config: Mapping[str, Any]) -> list[Any]:
    """What a config says of ties, for the model and for its part that reads text."""
    return [
        part["tie_word_embeddings"]
        for part in (config, config.get("text_config"))
        if isinstance(part, dict) and "tie_word_embeddings" in part
    ]


def _is_whisper(config: Mapping[str, Any]) -> bool:
    return str(config.get("model_type")) == "whisper"
