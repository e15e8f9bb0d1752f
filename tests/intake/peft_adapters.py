"""Adapters that PEFT really saves, of every accepted variant (docs/adapters.md), and PEFT's own merge."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import VeloraConfig
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import persona
from persona.history.results import CommitResult
from persona.repository import Repository

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
Weights = dict[str, torch.Tensor]
ME = persona.Person("A. Tester", "tester@example.org", 1_700_000_000, 0)


def llama(**more: Any) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **more))


def tied() -> PreTrainedModel:
    return llama(tie_word_embeddings=True)


def with_biases() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SIZES))


def gpt2() -> PreTrainedModel:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4, **ends))


def mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4))


def qwen_experts() -> PreTrainedModel:
    more = {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **more))


def lora(*modules: str, **more: Any) -> LoraConfig:
    given = {"r": 4, "target_modules": list(modules), "task_type": "CAUSAL_LM", **more}
    return LoraConfig(**given)


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
Made = tuple[Callable[[], PreTrainedModel], Callable[[], Any]]
ACCEPTED: dict[str, Made] = {
    "plain": (
        llama,
        lambda: LoraConfig(r=4, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM"),
    ),
    "rank-stabilised": (llama, lambda: lora("q_proj", "v_proj", r=5, lora_alpha=7, use_rslora=True)),
    "patterns": (
        llama,
        lambda: lora(
            "q_proj",
            "v_proj",
            "down_proj",
            rank_pattern={
                "q_proj": 3,
                r"layers\.1\.mlp\.down_proj": 9,
                "^model.layers.0.self_attn.v_proj": 2,
            },
            alpha_pattern={"down_proj": 5, "layers.0.self_attn.q_proj": 16},
        ),
    ),
    "patterns, rank-stabilised": (
        llama,
        lambda: lora(
            "q_proj", "v_proj", use_rslora=True, rank_pattern={"q_proj": 3}, alpha_pattern={"v_proj": 5}
        ),
    ),
    "some layers": (llama, lambda: lora("q_proj", layers_to_transform=[1], layers_pattern="layers")),
    "Conv1D": (gpt2, lambda: lora("c_attn", "c_proj", "c_fc", fan_in_fan_out=True)),
    "square Conv1D alone": (gpt2, lambda: lora("attn.c_proj", fan_in_fan_out=True)),
    "Conv1D and Linear": (gpt2, lambda: lora("c_attn", "c_proj", "lm_head")),
    "bias all": (with_biases, lambda: lora("q_proj", "o_proj", bias="all")),
    "bias all and a saved module with a bias": (
        with_biases,
        lambda: lora("q_proj", bias="all", modules_to_save=["v_proj"]),
    ),
    "bias lora_only": (with_biases, lambda: lora("q_proj", bias="lora_only")),
    "lora_bias": (with_biases, lambda: lora("q_proj", "k_proj", lora_bias=True)),
    "modules_to_save": (llama, lambda: lora("q_proj", modules_to_save=["lm_head", "embed_tokens"])),
    "embedding": (llama, lambda: lora("q_proj", "embed_tokens")),
    "embedding and head": (llama, lambda: lora("q_proj", "embed_tokens", "lm_head")),
    "tied embedding": (tied, lambda: lora("q_proj", "embed_tokens")),
    "tied head": (tied, lambda: lora("q_proj", "lm_head")),
    "tied embedding, saved": (
        tied,
        lambda: lora("q_proj", modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    ),
    "tokens": (llama, lambda: lora("q_proj", trainable_token_indices=[3, 60, 5])),
    "tokens of two modules": (
        llama,
        lambda: lora("q_proj", trainable_token_indices={"embed_tokens": [3], "lm_head": [1, 2]}),
    ),
    "tokens, tied": (tied, lambda: lora("q_proj", trainable_token_indices=[3, 60])),
    "gaussian": (llama, lambda: lora("q_proj", init_lora_weights="gaussian")),
    "orthogonal": (llama, lambda: lora("q_proj", init_lora_weights="orthogonal")),
    "eva": (llama, lambda: lora("q_proj", init_lora_weights="eva")),
    "mica": (llama, lambda: lora("q_proj", init_lora_weights="mica")),
    "velora": (llama, lambda: lora("q_proj", velora_config=VeloraConfig())),
    "one parameter": (llama, lambda: lora(target_parameters=["q_proj.weight"])),
    "experts": (mixtral, lambda: lora(target_parameters=EXPERTS)),
    "saved experts": (qwen_experts, lambda: lora("q_proj", modules_to_save=["mlp.experts"])),
    "experts of one parameter": (mixtral, lambda: lora(target_parameters=EXPERTS[1:])),
    "all linear layers and experts": (qwen_experts, lambda: lora(target_modules="all-linear")),
    "experts and their router": (
        qwen_experts,
        lambda: lora("q_proj", target_parameters=[*EXPERTS, "mlp.gate.weight"]),
    ),
}


class Trained:
    """A base, an adapter that was trained on it, and a repository of the base that holds the adapter."""

    def __init__(
        self,
        place: Path,
        made: Made,
        *,
        dtype: torch.dtype = torch.bfloat16,
        saved: dict[str, Any] | None = None,
    ) -> None:
        """`saved`: options of PEFT's `save_pretrained`; `dtype` among them is that of the saved tensors."""
        options = dict(saved or {})
        self.place = place
        model, config = made
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns about what the configs ask for
            base = model().to(dtype)
            base.save_pretrained(place / "base")
            adapted = get_peft_model(base, config())
            for _, parameter in adapted.named_parameters():
                if parameter.requires_grad:
                    parameter.data += torch.randn_like(parameter) * 0.03
            adapted.to(options.pop("dtype", None))
            adapted.save_pretrained(place / "adapter", **options)

    @property
    def base(self) -> Weights:
        return load_file(self.place / "base" / "model.safetensors")

    def loaded(self) -> PeftModel:
        """The base in float32 with the adapter, as PEFT loads them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_pretrained(self.place / "base", dtype=torch.float32)
            return PeftModel.from_pretrained(model, str(self.place / "adapter"))

    def merge(self, adapted: PeftModel) -> Weights:
        """PEFT's own merge, in the dtype of the model, by the names of the base's file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted.merge_and_unload().save_pretrained(self.place / "merged")
        found = load_file(self.place / "merged" / "model.safetensors")
        return {name: found[name] for name in self.base}

    def merged(self) -> Weights:
        """PEFT's own merge: in float32, then rounded once to the base's dtype."""
        base = self.base
        return {name: found.to(base[name].dtype) for name, found in self.merge(self.loaded()).items()}

    def open(self) -> Repository:
        return persona.init(self.place / "bot", base=self.place / "base", author=ME)

    def commit(self, repo: Repository, **options: Any) -> CommitResult:
        return repo.commit(self.place / "adapter", message="adapt", **options)


def weights(repo: Repository) -> Weights:
    repo.checkout()
    return load_file(repo.root / "model.safetensors")


def words(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).long()


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(words(one[k]), words(other[k])) for k in one)
