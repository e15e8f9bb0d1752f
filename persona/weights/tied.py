"""Tied names: tensors that a model shares, so that a checkpoint holds them once.

The usual pair is the output matrix (`lm_head.weight`) and the input embedding. No file holds the alias. It is
known from the safetensors metadata (`save_model` writes alias → name there) or from the config.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from persona.errors import InvalidInput
from persona.objects.layers import numbered
from persona.objects.names import check_tensor_name
from persona.objects.tensors import TensorSpec

_OUTPUTS: Final = {
    "model.embed_tokens.weight": "lm_head.weight",
    "model.language_model.embed_tokens.weight": "lm_head.weight",
    "model.text_model.embed_tokens.weight": "lm_head.weight",
    "transformer.wte.weight": "lm_head.weight",
    "wte.weight": "lm_head.weight",
    "transformer.word_embeddings.weight": "lm_head.weight",
    "gpt_neox.embed_in.weight": "embed_out.weight",
    "model.decoder.embed_tokens.weight": "lm_head.weight",
    "backbone.embeddings.weight": "lm_head.weight",
    "backbone.embedding.weight": "lm_head.weight",
    "shared.weight": "lm_head.weight",
    "model.shared.weight": "lm_head.weight",
    "led.shared.weight": "lm_head.weight",
    "bert.embeddings.word_embeddings.weight": "cls.predictions.decoder.weight",
    "roberta.embeddings.word_embeddings.weight": "lm_head.decoder.weight",
    "distilbert.embeddings.word_embeddings.weight": "vocab_projector.weight",
}
"""The name of an input embedding → the name of the output matrix that may be tied to it.

Both may have one of the prefixes of a model within another.
"""
_PREFIX: Final = r"(?:.*\.)?(?:language_model|decoder|text_decoder)\.$"
_OTHER_OUTPUTS: Final = {
    "whisper": "proj_out.weight",
    "moonshine": "proj_out.weight",
    "trocr": "output_projection.weight",
    "fsmt": "model.decoder.output_projection.weight",
    "bert-generation": "lm_head.decoder.weight",
}
"""A model type → the name of its output matrix, if its embedding has a name of the table above."""

_WITH_HEAD: Final = (
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
    "ForMaskedLM",
    "ForPreTraining",
    "MTModel",
)
_WITHOUT_HEAD: Final = (
    r"For(?:\w*Classification|QuestionAnswering\w*|MultipleChoice|NextSentencePrediction)$"
    r"|(?<!LMHead)(?<!MT)(?<!EncoderDecoder)Model$"
)
"""Architectures that compute no logits of tokens."""
_HEAD: Final = re.compile(
    r"(?:^|\.)(?:\w*lm_head|embed_out|proj_out|vocab_projector|(?:predictions|lm_head)\.decoder"
    r"|decoder\.output_projection)\.weight$"
)
_EMBEDDING: Final = re.compile(
    r"(?:^|\.)(?:shared|embed_tokens|wte|\w*word_embeddings?|embed_in|tok_embeddings|embeddings?|token_embedding)"
    r"\.weight$"
)
_TEXT: Final = re.compile(r"decoder|^(?!.*encoder).*(?:text|llm|language|thinker)")
"""In the key of a config's part: the part is a model that reads or writes text."""
_HEAD_BIAS: Final = r"(?:^|\.)(?:predictions|lm_head)(?:\.decoder)?\.bias$"


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


def says_tied(config: Mapping[str, Any] | None) -> bool:
    """Whether a config says, in so many words, that the output matrix is tied to the input embedding."""
    said = [] if config is None else _said(config)
    return bool(said) and all(value is True for value in said)


def may_tie(config: Mapping[str, Any] | None) -> bool:
    """Whether a model may tie its output matrix to an embedding, under a name that no file shows.

    Only a config that denies it, or an architecture without an output matrix, says that it does not.
    """
    if config is None:
        return True
    kinds = _architectures(config)
    headless = bool(kinds) and all(re.search(_WITHOUT_HEAD, name) for name in kinds)
    return not says_untied(config) and not headless


def is_embedding(spec: TensorSpec, config: Mapping[str, Any] | None) -> bool:
    """Whether a tensor may be an embedding of tokens: by its name, or by the size of the vocabulary."""
    if len(spec.shape) != 2 or numbered(spec.name) is not None or is_head(spec.name):
        return False
    sizes = [part.get("vocab_size") for part in _text_parts(config or {})]
    return is_shared(spec.name) or spec.shape[0] in sizes


def may_have_aliases(
    spec: TensorSpec, names: Collection[str], tied: Mapping[str, str], config: Mapping[str, Any] | None
) -> bool:
    """Whether a model may hold a tensor of a checkpoint under other names too, as its output matrix.

    `names`: of the checkpoint. `tied`: the ties that are known.
    """
    if spec.name in tied.values():
        return True
    return may_tie(config) and is_embedding(spec, config) and not any(map(is_head, names))


def may_share(one: str, other: str) -> bool:
    """Whether a model may hold one tensor under both names."""
    if is_shared(one) and is_shared(other):
        return True
    return all(re.search(_HEAD_BIAS, name) is not None for name in (one, other))


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
    if config is not None and _ties(config):
        other = next((_OTHER_OUTPUTS[kind] for kind in _kinds(config) if kind in _OTHER_OUTPUTS), None)
        outputs = (*_OUTPUTS.values(), *_OTHER_OUTPUTS.values())
        heads = [name for name in names if name.endswith(outputs)]
        for name in names:
            if not name.endswith(tuple(_OUTPUTS)):
                continue
            embedding = max(
                (end for end in _OUTPUTS if ("." + name).endswith("." + end)), key=len, default=""
            )
            prefix, output = name.removesuffix(embedding), other or _OUTPUTS.get(embedding)
            if not embedding or not output or any(head.endswith(output) for head in heads):
                continue
            if not prefix or re.match(_PREFIX, prefix):
                tied.setdefault(prefix + output, name)
    return {alias: name for alias, name in sorted(tied.items()) if _can_name_a_tensor(alias)}


def _can_name_a_tensor(text: str) -> bool:
    try:
        check_tensor_name(text)
    except InvalidInput:
        return False
    return True


def _ties(config: Mapping[str, Any]) -> bool:
    """Whether output and input embeddings are tied, by the config or the architecture that it names.

    Configs leave out the default of their class.
    """
    said = _said(config)
    if said:
        return all(value is True for value in said)
    return any(name.endswith(_WITH_HEAD) for name in _architectures(config))


def _said(config: Mapping[str, Any]) -> list[Any]:
    """What a config says of ties, for the model and for its parts that read or write text."""
    return [part["tie_word_embeddings"] for part in _text_parts(config) if "tie_word_embeddings" in part]


def _text_parts(config: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """A config, and the configs in it of models that read or write text."""
    yield config
    for key, part in config.items():
        if depth and isinstance(part, dict) and _TEXT.search(key):
            yield from _text_parts(part, depth - 1)


def _architectures(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """The types of the models of a config, inner ones first."""
    return [str(part.get("model_type")) for part in _text_parts(config)][::-1]
