"""The architectures that mergekit 0.1.5 describes, and where it merges a tensor outside the layers.

It merges such a tensor with the first slice if it comes before the layers, else with the last. Of an
architecture that it does not describe, it takes all of them to come before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DESCRIBED: Final = frozenset(
    """
    AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM BaichuanForCausalLM BertForMaskedLM
    BertForMultipleChoice BertForSequenceClassification BertForTokenClassification BertModel ChatGLMModel
    Cohere2ForCausalLM CohereForCausalLM DistilBertForMaskedLM DistilBertForSequenceClassification
    DistilBertForTokenClassification DistilBertModel ExaoneForCausalLM FalconForCausalLM GPT2LMHeadModel
    GPT2ForSequenceClassification GPTBigCodeForCausalLM GPTNeoXForCausalLM Gemma2ForCausalLM
    Gemma3ForCausalLM Gemma3ForConditionalGeneration GemmaForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM
    GraniteForCausalLM GraniteMoeHybridForCausalLM InternLM2ForCausalLM JAISLMHeadModel LLaMaForCausalLM
    Lfm2ForCausalLM Llama4ForConditionalGeneration LlamaForCausalLM LlamaForSequenceClassification
    MambaForCausalLM Mistral3ForConditionalGeneration MistralForCausalLM MixFormerSequentialForCausalLM
    MixtralForCausalLM Olmo2ForCausalLM Phi3ForCausalLM Phi3SmallForCausalLM PhiForCausalLM QWenLMHeadModel
    Qwen2ForCausalLM Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration Qwen3ForCausalLM
    Qwen3MoeForCausalLM Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration
    RobertaForMaskedLM RobertaForSequenceClassification RobertaForTokenClassification RobertaModel
    SolarForCausalLM StableLMEpochForCausalLM StableLmForCausalLM Starcoder2ForCausalLM
    T5ForConditionalGeneration WhisperForConditionalGeneration
    """.split()
)
_BEFORE: Final = ("embed", "wte", "wpe")
"""Texts in the names of tensors that come before the layers."""
_AFTER: Final = ("embed_out",)
"""Texts in names that have one of these, and come after the layers."""


def is_described(config: Mapping[str, Any] | None) -> bool:
    """Whether mergekit describes the architecture that a config.json names. True if it names none."""
    names = None if config is None else config.get("architectures")
    return not isinstance(names, list) or all(name in _DESCRIBED for name in names)


def comes_first(name: str, *, described: bool) -> bool:
    """Whether mergekit merges a tensor outside the layers before them. `described`: see `is_described`."""
    if not described:
        return True
    return any(word in name for word in _BEFORE) and not any(word in name for word in _AFTER)
