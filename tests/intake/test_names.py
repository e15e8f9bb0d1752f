"""A fine-tune under other names than the base's is the same vector, or it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from persona.errors import InvalidInput
from tests.checkpoints import bf16
from tests.merge.models import Sandbox

Tensor = tuple[str, tuple[int, ...], np.ndarray[Any, Any]]
Model = dict[str, Tensor]


def tensor(name: str, *shape: int) -> Tensor:
    """Random weights that depend on the name."""
    random = np.random.default_rng(crc32(name.encode()))
    return ("BF16", shape, bf16(random.normal(size=shape)))


def zeros(*shape: int) -> Tensor:
    return ("BF16", shape, np.zeros(shape, np.uint16))


def trained(model: Model, seed: int = 1) -> Model:
    """A fine-tune: every float moves a little; equal tensors move alike."""
    found = {}
    for name, (dtype, shape, bits) in model.items():
        random = np.random.default_rng([seed, crc32(bits.tobytes())])
        step = random.integers(1, 4, bits.shape).astype(bits.dtype)
        found[name] = (dtype, shape, bits + step if dtype == "BF16" else bits)
    return found


def renamed(model: Model, *changes: tuple[str, str]) -> Model:
    found = {}
    for name, held in model.items():
        for old, new in changes:
            name = name.replace(old, new) if old else new + name
        found[name] = held
    return found


def llama(*, head: bool = True, layers: int = 3) -> Model:
    shapes = {"model.embed_tokens.weight": (12, 8), "model.norm.weight": (8,)}
    for layer in range(layers):
        inside = {"self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8)}
        inside |= {"mlp.gate_proj": (10, 8), "mlp.up_proj": (10, 8), "mlp.down_proj": (8, 10)}
        inside |= {"input_layernorm": (8,), "post_attention_layernorm": (8,)}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
    shapes |= {"lm_head.weight": (12, 8)} if head else {}
    return {name: tensor(name, *shape) for name, shape in shapes.items()}


def bert() -> Model:
    shapes = {"bert.embeddings.word_embeddings.weight": (12, 8), "bert.embeddings.LayerNorm.weight": (8,)}
    shapes |= {"bert.embeddings.LayerNorm.bias": (8,)}
    for layer in range(2):
        for part in ("attention.output", "output"):
            for name, shape in {"dense.weight": (8, 8), "dense.bias": (8,)}.items():
                shapes[f"bert.encoder.layer.{layer}.{part}.{name}"] = shape
            shapes[f"bert.encoder.layer.{layer}.{part}.LayerNorm.weight"] = (8,)
            shapes[f"bert.encoder.layer.{layer}.{part}.LayerNorm.bias"] = (8,)
    return {name: tensor(name, *shape) for name, shape in shapes.items()}


def gpt2() -> Model:
    shapes = {
        "transformer.wte.weight": (12, 8),
        "transformer.wpe.weight": (6, 8),
        "transformer.ln_f.weight": (8,),
    }
    for layer in range(2):
        inside = {"attn.c_attn.weight": (8, 24), "attn.c_attn.bias": (24,), "mlp.c_fc.weight": (8, 32)}
        inside |= {"ln_1.weight": (8,), "ln_1.bias": (8,), "ln_2.weight": (8,), "ln_2.bias": (8,)}
        shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in inside.items()}
    return {name: tensor(name, *shape) for name, shape in shapes.items()}


def llava() -> Model:
    names = {name: held[1] for name, held in llama(layers=2).items()}
    shapes = {f"language_model.{name}": shape for name, shape in names.items()}
    for layer in range(2):
        shapes[f"vision_tower.encoder.layers.{layer}.self_attn.q_proj.weight"] = (8, 8)
        shapes[f"vision_tower.encoder.layers.{layer}.layer_norm1.weight"] = (8,)
    shapes["multi_modal_projector.linear_1.weight"] = (8, 8)
    return {name: tensor(name, *shape) for name, shape in shapes.items()}


def mixtral(*, experts: int = 3) -> Model:
    shapes = {"model.embed_tokens.weight": (12, 8)}
    for layer in range(2):
        at = f"model.layers.{layer}.block_sparse_moe"
        shapes[f"{at}.gate.weight"] = (experts, 8)
        for expert in range(experts):
            parts = {"w1": (10, 8), "w2": (8, 10), "w3": (10, 8)}
            shapes |= {f"{at}.experts.{expert}.{part}.weight": shape for part, shape in parts.items()}
    return {name: tensor(name, *shape) for name, shape in shapes.items()}


def stacked(model: Model) -> Model:
    """Experts as transformers 5 holds them in memory."""
    found = {
        name.replace("block_sparse_moe", "mlp"): held
        for name, held in model.items()
        if ".experts." not in name
    }
    for layer in range(2):
        at = f"model.layers.{layer}.block_sparse_moe.experts"
        count = len({name for name in model if name.startswith(f"{at}.") and name.endswith("w1.weight")})
        rows = [
            np.concatenate([model[f"{at}.{e}.{part}.weight"][2] for part in ("w1", "w3")])
            for e in range(count)
        ]
        down = [model[f"{at}.{e}.w2.weight"][2] for e in range(count)]
        for name, made in (("gate_up_proj", np.stack(rows)), ("down_proj", np.stack(down))):
            found[f"model.layers.{layer}.mlp.experts.{name}"] = ("BF16", made.shape, made)
    return found


def fused(model: Model) -> Model:
    """Projections as Phi-3 fuses them."""
    found = dict(model)
    for layer in range(3):
        at = f"model.layers.{layer}"
        for name, parts in (
            ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            bits = np.concatenate([found.pop(f"{at}.{part}.weight")[2] for part in parts])
            found[f"{at}.{name}.weight"] = ("BF16", bits.shape, bits)
    return found


def folder(place: Path, name: str) -> Path:
    (place / name).mkdir()
    return place / name


def refused(sandbox: Sandbox, after: Mapping[str, Tensor], **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        sandbox.vector(after, **options)
    return str(caught.value)


def note(sandbox: Sandbox, after: Mapping[str, Tensor], start: str, **options: Any) -> str:
    """The note that begins so."""
    (found,) = [said for said in sandbox.vector(after, **options).notes if said.startswith(start)]
    return found


# -- names of a wrapper


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: renamed(model, ("", "module.")),
        lambda model: renamed(model, ("", "_orig_mod.")),
        lambda model: renamed(model, ("", "module._orig_mod.")),
        lambda model: renamed(model, ("", "_forward_module.")),
        lambda model: renamed(model, ("", "_fsdp_wrapped_module.")),
        lambda model: renamed(model, ("model.layers.", "model._orig_mod.layers.")),
        lambda model: renamed(
            model, ("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
        ),
        lambda model: renamed(model, ("q_proj.weight", "q_proj.base_layer.weight")),
        lambda model: renamed(model, ("model.", "model.module.")),
        lambda model: renamed(model, ("", "pretrained_model.")),
        lambda model: renamed(model, ("", "base_model.model.")),
        lambda model: (
            renamed(model, ("q_proj.weight", "q_proj.base_layer.weight"), ("", "base_model.model."))
            | {"base_model.model.lm_head.original_module.weight": tensor("old", 12, 8)}
            | {"base_model.model.lm_head.modules_to_save.default.weight": model["lm_head.weight"]}
        ),
    ],
)
def test_names_of_a_wrapper_are_taken_off(tmp_path: Path, wrap: Callable[[Model], Model]) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama())
    wrapped = wrap(after)
    if "base_model.model.lm_head.original_module.weight" in wrapped:
        del wrapped["base_model.model.lm_head.weight"]
    made = sandbox.vector(wrapped)
    assert made.id == sandbox.vector(after).id
    assert "stripped from the name" in made.notes[0]


def test_a_base_with_the_names_of_a_wrapper_takes_a_fine_tune_without_them(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, renamed(llama(), ("", "module.")))
    made = sandbox.vector(trained(llama()))
    assert made.id == sandbox.vector(renamed(trained(llama()), ("", "module."))).id
    assert made.notes == ("added to the names of 27 tensors, as in the base: module.",)


WRAPPED = "_orig_mod.model.layers.0.mlp.up_proj.weight"


def test_a_tensor_that_is_there_wrapped_and_plain_is_taken_if_the_two_are_equal(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama())
    name = WRAPPED.removeprefix("_orig_mod.")
    twice = after | {WRAPPED: after[name], "module." + name: after[name]}
    made = sandbox.vector(twice)
    assert made.id == sandbox.vector(after).id
    assert made.notes == (f"{WRAPPED} equals {name}, and 1 more in the same way: left out",)
    del twice[name]
    assert sandbox.vector(twice).id == made.id


@pytest.mark.parametrize("stale", ["", "module."])
def test_a_tensor_that_is_there_wrapped_and_plain_is_not_guessed(tmp_path: Path, stale: str) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama())
    name = WRAPPED.removeprefix("_orig_mod.")
    moved = after.pop(name)
    twice = after | {WRAPPED: moved, stale + name: llama()[name]}
    for options in NO_FLAG_HELPS:
        said = refused(sandbox, twice, **options)
        assert "are there, and they differ" in said
        assert WRAPPED in said
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


def test_unmerged_lora_layers_are_not_left_out(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = renamed(trained(llama()), ("q_proj.weight", "q_proj.base_layer.weight"))
    after |= {"model.layers.0.self_attn.q_proj.lora_A.default.weight": tensor("a", 2, 8)}
    said = refused(sandbox, after, extra="ignore")
    assert "merge_and_unload" in said
    assert "extra=" not in said


def test_the_head_of_a_wrapped_tied_model_is_still_compared(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama(head=False))
    after = renamed(trained(llama()), ("", "_orig_mod."))
    assert "lm_head.weight differs from model.embed_tokens.weight" in refused(sandbox, after)


UP = "model.layers.0.mlp.up_proj."
V = "model.layers.0.self_attn.v_proj."
STRAYS: dict[str, tuple[tuple[str, str], Model]] = {
    "a bias": (("", ""), {UP + "bias": tensor("b", 10)}),
    "a bias under a wrapper": (("", "module."), {"module." + UP + "bias": tensor("b", 10)}),
    "a bias under a prefix": (("", "net."), {"net." + UP + "bias": tensor("b", 10)}),
    "a bias in a renamed module": (
        ("self_attn.v_proj", "attention.value"),
        {"model.layers.0.attention.value.bias": tensor("b", 4)},
    ),
    "a mask of integers": (
        (UP + "weight", UP + "weight_orig"),
        {UP + "weight_mask": ("U8", (10, 8), np.ones((10, 8), np.uint8))},
    ),
    "a spectral norm": (
        (V + "weight", V + "parametrizations.weight.original"),
        {V + "parametrizations.weight.0._u": tensor("u", 4)},
    ),
    "a weight norm": (
        (V + "weight", V + "parametrizations.weight.original1"),
        {V + "parametrizations.weight.original0": tensor("g", 4, 1)},
    ),
    "an older weight norm": ((V + "weight", V + "weight_v"), {V + "weight_g": tensor("g", 4, 1)}),
    "IA3": ((V + "weight", V + "base_layer.weight"), {V + "ia3_l.default": tensor("l", 4, 1)}),
    "LoRA of torchtune": (("", ""), {V + "lora_a.weight": tensor("a", 2, 8)}),
    "LoRA of torchtune under a prefix": (("", "net."), {"net." + V + "lora_b.weight": tensor("a", 4, 2)}),
    "trained tokens": (
        ("embed_tokens", "embed_tokens.token_adapter.base_layer"),
        {"model.embed_tokens.token_adapter.trainable_tokens_delta": tensor("t", 2, 8)},
    ),
    "an adapter in a layer": (("", ""), {"model.layers.1.mlp.adapter.down.weight": tensor("d", 2, 8)}),
    "a scale of a quantised layer": (
        ("", "module."),
        {"module." + UP + "weight_scale": tensor("s", 10)},
    ),
}


@pytest.mark.parametrize("case", STRAYS)
def test_a_part_of_a_module_of_the_base_is_not_left_out(tmp_path: Path, case: str) -> None:
    sandbox = Sandbox(tmp_path, llama())
    change, more = STRAYS[case]
    after = renamed(trained(llama()), change) | more
    for options in ({}, {"rename": True}, {"rename": True, "extra": "ignore"}):
        said = refused(sandbox, after, **options)
        assert not any(flag in said for flag in ("rename=", "missing=", "extra=", "untie=")), said
    named = {"rename": True, "extra": [f"*{name.removeprefix('module.')}" for name in more]}
    if "LoRA" not in case and "IA3" not in case and "tokens" not in case:
        assert sandbox.vector(after, **named).id == sandbox.vector(trained(llama())).id


@pytest.mark.parametrize(
    "buffer",
    [
        {"model.layers.0.self_attn.rotary_emb.inv_freq": tensor("f", 4)},
        {"model.layers.0.self_attn.masked_bias": tensor("m", 1)},
        {"model.layers.0.self_attn.bias": ("U8", (1, 1, 4, 4), np.ones((1, 1, 4, 4), np.uint8))},
        {"v_head.weight": tensor("v", 1, 8)},
        {"mtp.layers.0.mlp.up_proj.weight": tensor("v", 6, 8)},
        {"mtp.embed_tokens.weight": tensor("e", 12, 8)},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "net."])
def test_what_the_model_computes_without_is_left_out(tmp_path: Path, buffer: Model, prefix: str) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = renamed(trained(llama()) | buffer, ("", prefix))
    assert sandbox.vector(after, rename=True, extra="ignore").id == sandbox.vector(trained(llama())).id


# -- renamed tensors

RENAMED: dict[str, tuple[Model, Callable[[Model], Model]]] = {
    "gamma and beta": (
        bert(),
        lambda model: renamed(
            model, ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
        ),
    ),
    "weight and bias": (
        renamed(bert(), ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")),
        lambda model: renamed(model, ("gamma", "weight"), ("beta", "bias")),
    ),
    "gamma and beta and no prefix": (
        bert(),
        lambda model: renamed(
            model,
            ("LayerNorm.weight", "LayerNorm.gamma"),
            ("LayerNorm.bias", "LayerNorm.beta"),
            ("bert.", ""),
        ),
    ),
    "transformer. in the base": (gpt2(), lambda model: renamed(model, ("transformer.", ""))),
    "transformer. in the fine-tune": (
        renamed(gpt2(), ("transformer.", "")),
        lambda model: renamed(model, ("", "transformer.")),
    ),
    "a prefix of one's own": (llama(), lambda model: renamed(model, ("", "policy.actor."))),
    "a part in the middle": (
        llama(),
        lambda model: renamed(model, ("model.layers.", "model.decoder.layers.")),
    ),
    "moved prefixes": (
        llava(),
        lambda model: renamed(
            model,
            ("language_model.model.", "model.language_model."),
            ("language_model.lm_head", "lm_head"),
            ("vision_tower.", "model.vision_tower."),
            ("multi_modal", "model.multi_modal"),
        ),
    ),
    "stacked experts": (mixtral(), stacked),
    "experts one by one": (stacked(mixtral()), lambda model: unstacked(model)),
    "experts of other names": (
        mixtral(),
        lambda model: renamed(
            model, ("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"), ("block_sparse_moe", "mlp")
        ),
    ),
    "fused projections": (llama(), fused),
    "projections apart": (fused(llama()), lambda model: apart(model)),
    "q, k and v of one shape, told apart by their weights": (
        {name: tensor(name, 8, 8) for name in (f"h.{n}.{part}.weight" for n in range(3) for part in "qkvo")},
        lambda model: renamed(
            model, (".q.", ".query."), (".k.", ".keys."), (".v.", ".vals."), (".o.", ".out.")
        ),
    ),
    "weight normalisation": (
        {
            f"conv.{n}.{end}": tensor(f"{n}{end}", *shape)
            for n in range(2)
            for end, shape in (("weight_g", (9, 1)), ("weight_v", (9, 4)))
        },
        lambda model: renamed(
            model,
            ("weight_g", "parametrizations.weight.original0"),
            ("weight_v", "parametrizations.weight.original1"),
        ),
    ),
}


def unstacked(model: Model) -> Model:
    found = {name: held for name, held in model.items() if ".experts." not in name}
    for layer in range(2):
        at = f"model.layers.{layer}.mlp.experts"
        for expert in range(3):
            rows = model[f"{at}.gate_up_proj"][2][expert]
            for part, bits in (
                ("w1", rows[:10]),
                ("w3", rows[10:]),
                ("w2", model[f"{at}.down_proj"][2][expert]),
            ):
                found[f"{at}.{expert}.{part}.weight"] = ("BF16", bits.shape, np.ascontiguousarray(bits))
    return renamed(found, (".mlp.", ".block_sparse_moe."))


def apart(model: Model) -> Model:
    found = dict(model)
    for layer in range(3):
        at = f"model.layers.{layer}"
        q, k, v = np.split(found.pop(f"{at}.self_attn.qkv_proj.weight")[2], [8, 12])
        gate, up = np.split(found.pop(f"{at}.mlp.gate_up_proj.weight")[2], [10])
        for name, bits in (
            ("self_attn.q", q),
            ("self_attn.k", k),
            ("self_attn.v", v),
            ("mlp.gate", gate),
            ("mlp.up", up),
        ):
            found[f"{at}.{name}_proj.weight"] = ("BF16", bits.shape, bits)
    return found


@pytest.mark.parametrize("case", RENAMED)
def test_a_renamed_fine_tune_is_refused_as_renamed_and_taken_on_request(tmp_path: Path, case: str) -> None:
    base, rename = RENAMED[case]
    sandbox = Sandbox(tmp_path, base)
    after = trained(base)
    said = refused(sandbox, rename(after))
    assert "renamed" in said
    assert "is the base's" in said
    assert "rename=True" in said
    assert "missing=" not in said
    assert "extra=" not in said
    assert "renamed" in refused(sandbox, rename(after), missing="zero", extra="ignore")
    made = sandbox.vector(rename(after), rename=True)
    assert made.id == sandbox.vector(after).id
    assert made.renamed
    assert not made.left


def test_a_layout_is_shown_with_all_tensors_that_belong_together(tmp_path: Path) -> None:
    sandbox = Sandbox(folder(tmp_path, "fused"), llama())
    assert "qkv_proj.weight is the base's model.layers.0.self_attn.q_proj.weight + model" in refused(
        sandbox, fused(trained(llama()))
    )
    assert "mlp.gate_proj.weight + model.layers.*.mlp.up_proj.weight" in str(
        sandbox.vector(fused(trained(llama())), rename=True).renamed
    )
    sandbox = Sandbox(folder(tmp_path, "stacked"), stacked(mixtral()))
    said = refused(sandbox, trained(mixtral()))
    assert "experts.0.w1.weight + … (6 tensors) is the base's model.layers.0.mlp.experts.gate_up_proj" in said


WORDS = sorted({part for name in (*bert(), *llama()) for part in name.split(".") if not part.isdigit()})


@pytest.mark.parametrize("model", [bert, llama, gpt2])
@given(
    words=st.dictionaries(
        st.sampled_from(WORDS), st.sampled_from(["x", "y.z", "", "layer", "weight", "model"])
    ),
    prefix=st.sampled_from(["", "net.", "a.b.", "model."]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
def test_no_advice_on_other_names_leads_to_another_vector(
    tmp_path_factory: pytest.TempPathFactory, model: Callable[[], Model], words: dict[str, str], prefix: str
) -> None:
    def other(name: str) -> str:
        return prefix + ".".join(new for part in name.split(".") if (new := words.get(part, part)))

    after = trained(model())
    names = [other(name) for name in after]
    assume(len(set(names)) == len(names) and all(names))
    sandbox = Sandbox(tmp_path_factory.mktemp("any"), model())
    options: dict[str, Any] = {}
    for _ in range(3):
        try:
            made = sandbox.vector(dict(zip(names, after.values(), strict=True)), **options)
        except InvalidInput as error:
            advised = {"rename": True} if "rename=True" in str(error) else {}
            advised |= {"missing": "zero"} if "missing=" in str(error) else {}
            advised |= {"extra": "ignore"} if "extra=" in str(error) else {}
            if not advised:
                return
            options |= advised
        else:
            assert made.id == sandbox.vector(after).id
            return
    raise AssertionError(f"the advice leads nowhere: {options}")


def test_a_rename_is_found_beside_a_tensor_that_is_lost(tmp_path: Path) -> None:
    base = renamed(gpt2(), ("transformer.", "")) | {
        f"h.{n}.attn.bias": tensor("mask", 1, 1, 6, 6) for n in range(2)
    }
    sandbox = Sandbox(tmp_path, base)
    after = renamed(trained(gpt2()), ("", ""))
    said = refused(sandbox, after)
    assert "missing=" not in said
    assert "rename=True" in said
    assert "2 tensors of the base are missing: h.0.attn.bias and h.1.attn.bias" in refused(
        sandbox, after, rename=True
    )
    made = sandbox.vector(after, rename=True, missing="h.*.attn.bias")
    assert made.left == ("h.0.attn.bias", "h.1.attn.bias")


def test_other_tensors_of_the_same_shapes_are_not_renamed(tmp_path: Path) -> None:
    """A classifier in place of the head: its weights are not like the head's."""
    base = bert() | {"lm_head.dense.weight": tensor("head", 8, 8), "lm_head.dense.bias": tensor("bias", 8)}
    sandbox = Sandbox(tmp_path, base)
    after = trained(bert()) | {"classifier.dense.weight": tensor("score", 8, 8)}
    after |= {"classifier.dense.bias": tensor("scores", 8), "classifier.out_proj.weight": tensor("out", 3, 8)}
    said = refused(sandbox, after)
    assert "renamed" not in said
    assert "missing='zero'" in said
    assert "extra='ignore'" in said


def test_a_lost_layer_beside_new_modules_is_lost(tmp_path: Path) -> None:
    """Norms of ones tell nothing, so they must not make a multi-token head look like the layer."""
    ones = ("BF16", (8,), np.full(8, 0x3F80, np.uint16))
    base = {name: ones if "norm" in name else held for name, held in llama().items()}
    after = {name: held for name, held in trained(base).items() if "layers.2" not in name}
    after |= {
        f"mtp.{name}": tensor("m" + name, *held[1]) for name, held in base.items() if "layers.2" in name
    }
    after |= {name: ones for name in (*after, "mtp.norm.weight") if name.startswith("mtp") and "norm" in name}
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 3}')
    said = refused(Sandbox(tmp_path, base), after)
    assert "8 tensors of the base are missing: all of layer 2 (8)" in said
    assert "renamed" not in said


def test_a_new_norm_is_not_the_lost_one_if_other_tensors_have_no_partner(tmp_path: Path) -> None:
    ones = ("BF16", (8,), np.full(8, 0x3F80, np.uint16))
    base = {
        f"h.{n}.{part}": tensor(f"{n}", 8, 8) if part == "q" else ones
        for n in range(2)
        for part in ("q", "norm")
    }
    after = {name: held for name, held in trained(base).items() if "h.1" not in name}
    after |= {"mtp.norm": ones, "mtp.fc": tensor("fc", 8, 16)}
    assert "renamed" not in refused(Sandbox(tmp_path, base), after)


def test_a_layer_of_another_number_is_no_renamed_one(tmp_path: Path) -> None:
    base = {"h.0.a.weight": tensor("a", 2, 2), "h.1.a.weight": tensor("b", 2, 2)}
    after = {"h.1.a.weight": tensor("c", 2, 2), "h.5.a.weight": tensor("d", 2, 2)}
    assert "renamed" not in refused(Sandbox(tmp_path, base), after)


def test_modules_that_changed_places_are_renamed_without_a_flag(tmp_path: Path) -> None:
    base = {
        f"block.{n}.layer.{m}.{part}.weight": tensor(part, 8, 8 + m)
        for n in range(2)
        for m, part in enumerate("qkv")
    }
    sandbox = Sandbox(tmp_path, base)
    after = {
        re.sub(r"(?<=layer\.)\d", lambda at: str(2 - int(at[0])), name): held
        for name, held in trained(base).items()
    }
    after["more.weight"] = tensor("more", 3, 3)
    said = refused(sandbox, after)
    assert "renamed" in said
    assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


def test_what_neither_names_nor_weights_tell_apart_is_renamed_without_a_flag(tmp_path: Path) -> None:
    base = llama() | {f"model.layers.{n}.{part}.bias": zeros(8) for n in range(2) for part in ("a", "b")}
    sandbox = Sandbox(tmp_path, base)
    after = renamed(trained(base), (".a.bias", ".one.bias"), (".b.bias", ".two.bias"))
    said = refused(sandbox, after)
    assert "renamed" in said
    assert "save_pretrained" in said
    assert not any(flag in said for flag in ("rename=", "missing=", "extra="))
    assert "renamed" in refused(sandbox, after, rename=True)
    globs = {"missing": ("*.a.bias", "*.b.bias"), "extra": ("*.one.bias", "*.two.bias")}
    assert len(sandbox.vector(after, **globs).left) == 4


def test_fused_projections_of_another_module_are_renamed_too(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama())
    other = renamed(fused(after), (".self_attn.", ".attention."))
    assert sandbox.vector(other, rename=True).id == sandbox.vector(after).id


def test_an_interleaved_projection_is_renamed_without_a_flag(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = fused(trained(llama()))
    after = renamed(
        after, ("self_attn.qkv_proj", "attention.query_key_value"), ("mlp.gate_up_proj", "mlp.Wi")
    )
    said = refused(sandbox, after)
    assert "renamed" in said
    assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


NO_FLAG_HELPS: tuple[dict[str, Any], ...] = (
    {},
    {"rename": True},
    {"missing": "zero", "extra": "ignore"},
    {"rename": True, "missing": "*", "extra": "*"},
)


def regrouped(model: Model, groups: int, order: tuple[int, ...] = (0, 1, 2)) -> Model:
    """Fused projections whose parts are split in groups, which follow one another: heads, or devices."""
    found = dict(model)
    for layer in range(3):
        at = f"model.layers.{layer}"
        for name, parts in (
            ("self_attn.qkv_proj", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
            ("mlp.gate_up_proj", ["mlp.gate_proj", "mlp.up_proj"]),
        ):
            split = [np.split(found.pop(f"{at}.{part}.weight")[2], groups) for part in parts]
            chosen = [split[n] for n in order if n < len(split)]
            bits = np.concatenate([part[group] for group in range(groups) for part in chosen])
            found[f"{at}.{name}.weight"] = ("BF16", bits.shape, bits)
    return found


@pytest.mark.parametrize(
    ("groups", "order", "only"),
    [(2, (0, 1, 2), ""), (2, (0, 1, 2), "qkv"), (2, (0, 1, 2), "gate_up"), (1, (1, 0, 2), "qkv")],
)
@pytest.mark.parametrize("prefix", ["model.", "transformer."])
def test_a_fused_projection_of_another_order_is_never_taken(
    tmp_path: Path, groups: int, order: tuple[int, ...], only: str, prefix: str
) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama())
    other = fused(after) | {
        name: held for name, held in regrouped(after, groups, order).items() if only in name
    }
    for options in NO_FLAG_HELPS:
        said = refused(sandbox, renamed(other, ("model.", prefix)), **options)
        assert "renamed" in said
        assert "save both with save_pretrained" in said
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))
    assert not sandbox.vector(after).left


def test_parts_of_one_shape_that_changed_places_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama())
    swapped = regrouped(after, 1, (1, 0, 2))
    other = fused(after) | {name: held for name, held in swapped.items() if "gate_up" in name}
    assert sandbox.vector(other, rename=True).id == sandbox.vector(after).id


def test_projections_apart_are_not_fused_in_another_order(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, regrouped(llama(), 2))
    for options in NO_FLAG_HELPS:
        said = refused(sandbox, trained(llama()), **options)
        assert "renamed" in said
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


def test_experts_whose_rows_alternate_are_not_taken_apart(tmp_path: Path) -> None:
    """gate and up row by row in one stack, as gpt-oss has them."""
    sandbox = Sandbox(tmp_path, mixtral())
    after = stacked(trained(mixtral()))
    for name in [name for name in after if name.endswith("gate_up_proj")]:
        dtype, shape, bits = after[name]
        mixed = bits.reshape(shape[0], 2, -1, shape[2]).swapaxes(1, 2).reshape(shape)
        after[name] = (dtype, shape, np.ascontiguousarray(mixed))
    for options in NO_FLAG_HELPS:
        assert "renamed" in refused(sandbox, after, **options)


def test_a_fused_projection_that_moved_far_is_not_taken(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, llama())
    far = {name: tensor(f"another {name}", *held[1]) for name, held in llama().items()}
    for options in NO_FLAG_HELPS:
        assert "renamed" in refused(sandbox, fused(far), **options)


def test_biases_follow_the_order_of_the_matrix_beside_them(tmp_path: Path) -> None:
    rows = {"q": 8, "k": 4, "v": 4}
    biases = {
        f"model.layers.{n}.self_attn.{part}_proj.bias": zeros(count)
        for n in range(3)
        for part, count in rows.items()
    }
    sandbox = Sandbox(tmp_path, llama() | biases)
    after = trained(llama() | biases)
    other = fused({name: held for name, held in after.items() if name not in biases})
    for n in range(3):
        bits = np.concatenate([after[f"model.layers.{n}.self_attn.{part}_proj.bias"][2] for part in "qkv"])
        other[f"model.layers.{n}.self_attn.qkv_proj.bias"] = ("BF16", bits.shape, bits)
    assert sandbox.vector(other, rename=True).id == sandbox.vector(after).id


def test_a_rename_carries_no_tensor_that_is_unlike_the_bases(tmp_path: Path) -> None:
    """The rows of q in another order, as another rotary embedding has them, beside a renamed prefix."""
    sandbox = Sandbox(tmp_path, llama())
    after = {
        name: (held[0], held[1], np.ascontiguousarray(held[2][::-1])) if "q_proj" in name else held
        for name, held in renamed(trained(llama()), ("model.", "transformer.")).items()
    }
    for options in NO_FLAG_HELPS:
        said = refused(sandbox, after, **options)
        assert "renamed" in said
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


@pytest.mark.parametrize("more", [{}, {"v_head.summary.weight": tensor("value", 1, 8)}])
@pytest.mark.parametrize(
    ("old", "new"), [("self_attn.q_proj", "self_attn.query"), ("lm_head.weight", "output.weight")]
)
def test_tensors_that_stand_where_others_are_missing_are_renamed_though_unlike(
    tmp_path: Path, old: str, new: str, more: Model
) -> None:
    sandbox = Sandbox(tmp_path, llama())
    after = trained(llama()) | more
    far = {
        name.replace(old, new): tensor(f"far {name}", *held[1]) if old in name else held
        for name, held in after.items()
    }
    for options in NO_FLAG_HELPS:
        said = refused(sandbox, far, **options)
        assert "renamed" in said
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))
    assert not sandbox.vector(after, extra="ignore").left
    globs = {"missing": [f"*{old}*"], "extra": [f"*{new}*", "v_head.*"]}
    assert all(old in name for name in sandbox.vector(far, **globs).left)


def test_experts_in_another_order_are_called_experts(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, mixtral())
    after = {
        re.sub(r"(?<=experts\.)\d", lambda at: str(2 - int(at[0])), name): held
        for name, held in renamed(trained(mixtral()), ("block_sparse_moe", "mlp")).items()
    }
    assert "the experts are counted in another way" in refused(sandbox, after)


@pytest.mark.parametrize("names", [(), (("model.", "transformer."),)])
@pytest.mark.parametrize("order", [(1, 2, 3), (2, 1, 0), (0, 2), (1, 2)])
def test_layers_in_another_order_are_neither_paired_nor_left(
    tmp_path: Path, order: tuple[int, ...], names: tuple[tuple[str, str], ...]
) -> None:
    """`order`: the number that the fine-tune gives to each layer, or the layers that are left of it."""
    sandbox = Sandbox(tmp_path, llama())
    after = {}
    for name, held in trained(llama()).items():
        _, at, rest = name.partition("model.layers.")
        if not at:
            after[name] = held
        elif len(order) == 3:
            after[f"{at}{order[int(rest[0])]}{rest[1:]}"] = held
        elif int(rest[0]) in order:
            after[f"{at}{order.index(int(rest[0]))}{rest[1:]}"] = held
    if order == (2, 1, 0):
        del after["lm_head.weight"]
    for options in ({}, {"rename": True}, {"missing": "zero", "extra": "ignore"}):
        said = refused(sandbox, renamed(after, *names), **options)
        assert "counted in another way" in said
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


def values(held: Tensor) -> np.ndarray[Any, Any]:
    return (held[2].astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def noisy(model: Model, size: float) -> Model:
    """A fine-tune that moved each tensor by a part of its spread."""
    found = {}
    for name, held in model.items():
        random = np.random.default_rng([5, crc32(name.encode())])
        before = values(held)
        found[name] = (held[0], held[1], bf16(before + size * before.std() * random.normal(size=held[1])))
    return found


def wide() -> Model:
    """A llama with matrices of 64 columns, and norms of about 1."""
    found = {}
    for name, (_, shape, _) in llama(layers=2).items():
        made = tensor(name, *(8 * size for size in shape))
        found[name] = (*made[:2], bf16(1 + 0.1 * values(made))) if "norm" in name else made
    return found


def swapped(model: Model, one: str, other: str) -> Model:
    names = {name: name.replace(one, "?").replace(other, one).replace("?", other) for name in model}
    return {names[name]: held for name, held in model.items()}


def changed(model: Model, part: str, change: Callable[[np.ndarray[Any, Any]], Any]) -> Model:
    return {
        name: (held[0], held[1], bf16(np.asarray(change(values(held))))) if part in name else held
        for name, held in model.items()
    }


def half_interleaved(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Half of the rows of each head of 16 in the order of another rotary embedding."""
    heads = rows.reshape(-1, 16, rows.shape[-1])
    order = [0, 4, 1, 5, 2, 6, 3, 7, *range(8, 16)]
    return heads[:, order].reshape(rows.shape)


ODD: dict[str, Callable[[Model], Model]] = {
    "rows in another order": lambda model: changed(model, "q_proj", lambda rows: rows[::-1]),
    "some rows in another order": lambda model: changed(model, "q_proj", half_interleaved),
    "some columns in another order": lambda model: changed(
        model,
        "o_proj" if any("o_proj" in name for name in model) else "down_proj",
        lambda rows: half_interleaved(rows.T).T,
    ),
    "matrices of one shape swapped": lambda model: swapped(model, "gate_proj", "up_proj"),
    "a matrix scaled": lambda model: changed(model, "q_proj", lambda rows: rows / 4),
    "norms minus 1": lambda model: changed(model, "norm", lambda norm: norm - 1),
    "norms times a root": lambda model: changed(model, "norm", lambda norm: norm * 8),
}


@pytest.mark.parametrize("far", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("odd", ODD)
def test_no_rename_takes_a_tensor_in_another_order_or_size(tmp_path: Path, odd: str, far: float) -> None:
    sandbox = Sandbox(tmp_path, wide(), chunk=1 << 12)
    after = renamed(noisy(wide(), far), ("model.", "transformer."), ("lm_head.", "output."))
    assert not sandbox.vector(after, rename=True).left
    for options in ({}, {"rename": True}):
        said = refused(sandbox, ODD[odd](after), **options)
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))


@pytest.mark.parametrize("far", [0.05, 0.3])
def test_no_rename_takes_two_norms_for_each_other(tmp_path: Path, far: float) -> None:
    sandbox = Sandbox(tmp_path, wide(), chunk=1 << 12)
    after = renamed(noisy(wide(), far), ("model.", "transformer."))
    other = swapped(after, "input_layernorm", "post_attention_layernorm")
    for options in ({}, {"rename": True}):
        assert "rename=" not in refused(sandbox, other, **options)


@pytest.mark.parametrize("more", [0, 2])
def test_of_two_models_under_prefixes_none_is_taken(tmp_path: Path, more: int) -> None:
    """A policy with `more` new tokens, and the model that it is compared with."""
    sandbox = Sandbox(tmp_path, llama())
    policy = {
        name: (held[0], (12 + more, 8), np.concatenate([held[2], held[2][:more]]))
        if held[1] == (12, 8)
        else held
        for name, held in trained(llama()).items()
    }
    both = renamed(policy, ("", "policy.")) | renamed(trained(llama(), 2), ("", "ref_model."))
    for options in (*NO_FLAG_HELPS[:2], {"rename": True, "extra": "ignore"}, {"extend_vocab": True}):
        said = refused(sandbox, both, **options)
        assert not any(flag in said for flag in ("rename=", "missing=", "extra="))
    named = {"rename": True, "extend_vocab": bool(more)}
    assert not sandbox.vector(renamed(policy, ("", "policy.")), **named).left


def test_a_fine_tune_that_moved_far_is_renamed_all_the_same(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, bert())
    far = {name: tensor(f"another {name}", *held[1]) for name, held in bert().items()}
    rename = RENAMED["gamma and beta"][1]
    assert "rename=True" in refused(sandbox, rename(far))
    assert sandbox.vector(rename(far), rename=True).id == sandbox.vector(far).id
