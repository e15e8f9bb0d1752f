"""Adapters that PEFT really saved, of every accepted variant (docs/adapters.md), against PEFT's own merge."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from peft.tuners.lora.config import VeloraConfig
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file
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
from persona.errors import InvalidInput
from persona.history.results import CommitResult
from persona.merge import reference
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


@dataclass(frozen=True)
class Merge:
    """A merge of an adapter in float64, and how far its changes may be off in binary32.

    `error` is γ·|s|·Σ_r |B·A| of each element: docs/numerics.md, "Low rank and expressions". It is 0 for
    tensors without a factor.
    """

    exact: Weights
    error: Weights

    @classmethod
    def of(cls, adapted: PeftModel, merge: Callable[[PeftModel], Weights]) -> Merge:
        """PEFT computes both, so that names, shapes, ranks and scales are its own."""
        ends = [merge(_magnitudes(deepcopy(adapted).double(), times)) for times in (1.0, 0.0)]
        error = {name: ends[0][name] - ends[1][name] for name in ends[0]}
        return cls(merge(deepcopy(adapted).double()), error)

    def check(self, found: Weights) -> None:
        """Each element is b + t, in binary32 and then in its dtype, for a t within the error of the exact t.

        Rounding is monotone, so b + t lies between the roundings of the two ends.
        """
        for name, tensor in found.items():
            exact = self.exact[name]
            error = self.error[name] + 2.0**-50 * exact.abs()  # of float64 itself
            low, high = ((exact + sign * error).float().to(tensor.dtype) for sign in (-1, 1))
            assert bool(((low <= tensor) & (tensor <= high)).all()), name

    def check_distance(self, one: Weights, other: Weights) -> None:
        """Two merges differ by at most twice the error, and by a unit in the last place for each rounding."""
        for name, a in one.items():
            b = other[name]
            larger = torch.maximum(a.abs(), b.abs()).double()
            ulps = sum(ulp(larger, dtype) for dtype in {torch.float32, a.dtype})
            assert bool(((a.double() - b.double()).abs() <= 2 * self.error[name] + ulps).all()), name


def _magnitudes(adapted: PeftModel, times: float) -> PeftModel:
    """The adapter with |A|, |B| and `times` γ·|s|."""
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.abs_()
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            for name, rank in layer.r.items():
                layer.scaling[name] *= times * gamma(rank + 2)
    return adapted


def gamma(roundings: int) -> float:
    """The relative error of as many roundings to binary32 (Higham, Accuracy and Stability, section 3.1)."""
    return roundings * 2.0**-24 / (1 - roundings * 2.0**-24)


def ulp(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The unit in the last place of a dtype at values of float64."""
    kind = torch.finfo(dtype)
    _, exponent = torch.frexp(values.clamp(min=kind.tiny))
    return torch.ldexp(torch.full_like(values, kind.eps), exponent - 1)


def weights(repo: Repository) -> Weights:
    repo.checkout()
    return load_file(repo.root / "model.safetensors")


def words(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32).long()


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(words(one[k]), words(other[k])) for k in one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("variant", ACCEPTED)
def test_an_adapter_at_full_strength_is_what_peft_merges_and_dropping_it_gives_the_base(
    tmp_path: Path, variant: str, dtype: torch.dtype
) -> None:
    trained = Trained(tmp_path, ACCEPTED[variant], dtype=dtype)
    with trained.open() as repo:
        made = trained.commit(repo).vectors[0]
        found, merged, base = weights(repo), trained.merged(), trained.base
        merge = Merge.of(trained.loaded(), trained.merge)
        merge.check(found)
        merge.check(merged)
        merge.check_distance(found, merged)
        reached = {name for name in base if not torch.equal(words(found[name]), words(base[name]))}
        assert reached == {name for name in base if not torch.equal(words(merged[name]), words(base[name]))}
        assert (made.tensors, bool(made.ranks)) == (len(reached), True)
        assert repo.fsck(full=True).problems == ()
        repo.recipe.remove(made.name)
        assert same(weights(repo), base)


@pytest.mark.parametrize("model", [llama, tied])
def test_trained_tokens_alone_are_a_delta_and_come_back_bit_for_bit(
    tmp_path: Path, model: Callable[[], PreTrainedModel]
) -> None:
    config = lambda: TrainableTokensConfig(token_indices=[1, 9], task_type="CAUSAL_LM")  # noqa: E731
    trained = Trained(tmp_path, (model, config))
    with trained.open() as repo:
        vector = repo.vectors[trained.commit(repo).vectors[0].name]
        assert (vector.kind, vector.tensors) == ("delta", 1)
        assert same(weights(repo), trained.merged())


@pytest.mark.parametrize(
    "more",
    [{}, {"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [3, 60]}],
    ids=["an embedding", "a saved embedding", "tokens"],
)
def test_unchanged_embeddings_that_were_saved_as_well_change_nothing(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    trained = Trained(
        tmp_path, (llama, lambda: lora("q_proj", **more)), saved={"save_embedding_layers": True}
    )
    with trained.open() as repo:
        trained.commit(repo)
        assert same(weights(repo), trained.merged())


def test_a_frozen_embedding_may_be_saved_in_the_dtype_of_the_training(tmp_path: Path) -> None:
    trained = Trained(tmp_path, ACCEPTED["embedding"], saved={"dtype": torch.float16})
    with trained.open() as repo:
        assert trained.commit(repo).vectors[0].tensors == 3
        found = weights(repo)
    Merge.of(trained.loaded(), trained.merge).check(found)


@pytest.mark.parametrize("variant", ["plain", "embedding", "Conv1D", "experts", "bias all"])
def test_the_opposite_strength_is_the_opposite_change(tmp_path: Path, variant: str) -> None:
    """In float32, b + t and b − t are as far from b, but for one rounding each."""
    trained = Trained(tmp_path, ACCEPTED[variant], dtype=torch.float32)
    with trained.open() as repo:
        name = trained.commit(repo).vectors[0].name
        plus = weights(repo)
        repo.recipe.set(name, alpha="-1")
        minus = weights(repo)
    for key, b in trained.base.items():
        up, down = plus[key].double() - b.double(), b.double() - minus[key].double()
        largest = torch.max(plus[key].abs(), minus[key].abs()).double()
        assert bool(((up - down).abs() <= largest * 2.0**-23).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_an_adapter_is_merged_as_the_reference_says(tmp_path: Path, dtype: torch.dtype) -> None:
    trained = Trained(tmp_path, ACCEPTED["plain"], dtype=dtype)
    with trained.open() as repo:
        trained.commit(repo)
        found = weights(repo)
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, b in trained.base.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in factors:
            low_a, low_b = (factors[f"{module}.lora_{letter}.weight"].float() for letter in "AB")
            t = reference.low_rank(low_a, low_b, 7 / 4)
            expected = torch.where(t == 0, b, (b.float() + t).to(dtype))
            assert torch.equal(words(found[name]), words(expected)), name


def test_a_converted_pissa_adapter_is_a_plain_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = llama()
        base.save_pretrained(tmp_path / "base")
        adapted = get_peft_model(base, lora("q_proj", init_lora_weights="pissa"))
        adapted.peft_config["default"].init_lora_weights = True
        adapted.save_pretrained(tmp_path / "start")
        adapted.peft_config["default"].init_lora_weights = "pissa"
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data += torch.randn_like(parameter) * 0.01
        start = {"path_initial_model_for_weight_conversion": str(tmp_path / "start")}
        adapted.save_pretrained(tmp_path / "adapter", **start)
        want = adapted.merge_and_unload().state_dict()
    with persona.init(tmp_path / "bot", base=tmp_path / "base", author=ME) as repo:
        assert repo.commit(tmp_path / "adapter", message="adapt").vectors[0].ranks == (8,)
        for name, tensor in weights(repo).items():
            assert torch.allclose(tensor, want[name], rtol=0, atol=1e-6)


REFUSED: dict[str, tuple[Made, str]] = {
    "DoRA": ((llama, lambda: lora("q_proj", use_dora=True)), "use_dora: this is DoRA"),
    "PiSSA": ((llama, lambda: lora("q_proj", init_lora_weights="pissa")), "PiSSA changes the base's weights"),
    "OLoRA": ((llama, lambda: lora("q_proj", init_lora_weights="olora")), "OLoRA changes the base's weights"),
    "tied both": (
        (tied, lambda: lora("lm_head", "embed_tokens")),
        "both change the tensor model.embed_tokens",
    ),
    "tied head, saved": (
        (tied, lambda: lora("q_proj", modules_to_save=["lm_head"])),
        "lm_head.weight was trained apart from model.embed_tokens.weight",
    ),
    "bias all and lora_bias": (
        (with_biases, lambda: lora("q_proj", lora_bias=True, bias="all")),
        "trains the bias model.layers.0.self_attn.q_proj.bias whole and also by a factor",
    ),
    "aLoRA": ((llama, lambda: lora("q_proj", alora_invocation_tokens=[1, 2])), "alora_invocation_tokens"),
}


@pytest.mark.parametrize("variant", REFUSED)
def test_a_variant_that_is_not_linear_or_not_safe_is_refused_by_name(tmp_path: Path, variant: str) -> None:
    made, said = REFUSED[variant]
    trained = Trained(tmp_path, made)
    with trained.open() as repo:
        before = repo.count_objects()
        with pytest.raises(InvalidInput, match=said):
            trained.commit(repo)
        assert repo.count_objects() == before


class Layers(torch.nn.Module):
    """Layers that no language model of transformers has."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = torch.nn.Conv1d(4, 6, 3)
        self.wide = torch.nn.Conv2d(4, 6, 3)
        self.point = torch.nn.Conv2d(4, 6, 1)
        self.grouped = torch.nn.Conv2d(4, 6, 3, groups=2)
        self.attention = torch.nn.MultiheadAttention(8, 2)


def adapted_layers(place: Path, *names: str) -> Any:
    """Saves a base and an adapter of some layers; returns PEFT's model."""
    torch.manual_seed(0)
    base = Layers()
    (place / "base").mkdir()
    save_file(base.state_dict(), place / "base" / "model.safetensors", metadata={"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(base, LoraConfig(r=2, target_modules=list(names)))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data += torch.randn_like(parameter) * 0.1
        adapted.save_pretrained(place / "adapter")
    return adapted


@pytest.mark.parametrize("layer", ["flat", "wide", "point"])
def test_layers_whose_change_is_a_product_are_taken(tmp_path: Path, layer: str) -> None:
    adapted = adapted_layers(tmp_path, layer)
    merge = Merge.of(adapted, lambda model: model.merge_and_unload().state_dict())
    merged = adapted.merge_and_unload().state_dict()
    with persona.init(tmp_path / "bot", base=tmp_path / "base", author=ME) as repo:
        repo.commit(tmp_path / "adapter", message="adapt")
        found = weights(repo)
    base = load_file(tmp_path / "base" / "model.safetensors")
    changed = {name for name in base if not torch.equal(found[name], base[name])}
    assert changed == {name for name in base if not torch.equal(merged[name], base[name])} != set()
    merge.check(found)
    merge.check_distance(found, merged)


def refused_layer(place: Path, layer: str) -> tuple[Any, str]:
    adapted = adapted_layers(place, layer)
    with persona.init(place / "bot", base=place / "base", author=ME) as repo:
        with pytest.raises(InvalidInput) as caught:
            repo.commit(place / "adapter", message="adapt")
        return adapted, str(caught.value)


def test_a_convolution_with_groups_is_refused_as_by_peft(tmp_path: Path) -> None:
    adapted, said = refused_layer(tmp_path, "grouped")
    assert "convolutions with groups" in said
    with pytest.raises(NotImplementedError):
        adapted.merge_and_unload()


def test_an_attention_that_peft_adapts_twice_is_refused(tmp_path: Path) -> None:
    adapted, said = refused_layer(tmp_path, "attention")
    assert "attention is a MultiheadAttention" in said
    name = "attention.out_proj.weight"
    before = load_file(tmp_path / "base" / "model.safetensors")[name]
    once = adapted.base_model.model.attention.base_layer.out_proj.get_delta_weight("default").detach()
    merged = adapted.merge_and_unload().state_dict()[name]
    assert torch.allclose(merged - before, 2 * once, atol=1e-6)
