"""Tied names: tensors that a model shares, so that a checkpoint holds them once.

The usual pair is the output matrix (`lm_head.weight`) and the input embedding. No file holds the alias. It is
known from the safetensors metadata (`save_model` writes alias → name there) or from the config.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

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
}
"""The end of an input embedding's name → the name of the output matrix that may be tied to it.

Both have the same prefix.
"""


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
        outputs = set(_OUTPUTS.values())
        present = {output for output in outputs if any(name.endswith(output) for name in names)}
        for name in names:
            if embedding := max(
                (end for end in _OUTPUTS if ("." + name).endswith("." + end)), key=len, default=""
            ):
                output = _OUTPUTS[embedding]
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
    inner = config.get("text_config")
    said = [
        part["tie_word_embeddings"]
        for part in (config, inner)
        if isinstance(part, dict) and "tie_word_embeddings" in part
    ]
    architectures = config.get("architectures")
    if said:
        return all(value is True for value in said)
    return isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
        for name in architectures
    )
