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
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
)

import persona
from persona.errors import InvalidInput
from persona.merge import reference
from tests.intake.peft_adapters import (
    ACCEPTED,
    ME,
    Made,
    Trained,
    Weights,
    llama,
    lora,
    same,
    tied,
    weights,
    with_biases,
    words,
)


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
