"""What a mergekit file means, and the names of what persona cannot express."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from persona.errors import InvalidInput, worded
from persona.history.interchange import mergekit, settings
from persona.history.interchange.architectures import is_described
from persona.history.interchange.methods import ABSENT
from persona.history.interchange.shares import shares
from persona.objects.layers import places
from persona.objects.recipe import Term
from persona.objects.rules import Rules

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{n}.{part}.weight" for n in range(4) for part in ("mlp.up", "mlp.down", "attn.q")),
    "model.norm.weight",
]
MERGEKIT = "run mergekit, and import its output: `repo.add(OUTPUT)`"
ONE = "models: [{model: pirate, parameters: {weight: 1}}]"


def read(place: Path, text: str) -> mergekit.MergekitRecipe:
    (place / "recipe.yml").write_text(text)
    return mergekit.read(place / "recipe.yml")


def values(
    place: Path, text: str, names: list[str] = NAMES, *, described: bool = True
) -> dict[str, dict[str, tuple[float, float]]]:
    """model → tensor → weight and density, from the filters of its terms."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for share in shares(read(place, text), names, described=described):
        own = found.setdefault(share.source.written, {})
        term = Term("t", "", share.alpha, share.density, share.only, share.except_)
        for name in filter(term.admits, names):
            assert name not in own, "two terms of one model reach one tensor"
            place = places(names).get(name)
            own[name] = term.alpha_at(place), term.density_at(Rules.of(), place)
    return found


REFUSED = {
    "merge_method": [
        *(f"merge_method: {method}\nbase_model: base\n{ONE}" for method in ABSENT),
        f"merge_method: tiez\nbase_model: base\n{ONE}",
        f"base_model: base\n{ONE}",
    ],
    "base_model": [
        f"merge_method: ties\n{ONE}",
        f"merge_method: ties\nbase_model: base+lora\n{ONE}",
    ],
    "models": [
        "merge_method: ties\nbase_model: base",
        "merge_method: ties\nbase_model: base\nmodels: []",
        f"merge_method: ties\nbase_model: base\n{ONE}\nslices: [1]",
        "merge_method: ties\nbase_model: base\nmodels: [{model: a}, {model: a}]",
        "merge_method: ties\nbase_model: base\nmodels: [{model: other+lora}]",
        "merge_method: ties\nbase_model: base\nmodels: [pirate]",
    ],
    "modules": ["merge_method: ties\nbase_model: base\nmodules: {text: {}}"],
    "slices": [
        "merge_method: ties\nbase_model: base\nslices:\n- sources: [{model: a, layer_range: [1, 4]}]",
        "merge_method: ties\nbase_model: base\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
        "- sources: [{model: a, layer_range: [1, 4]}]",
        "merge_method: ties\nbase_model: base\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [2, 4]}]",
        "merge_method: ties\nbase_model: base\nslices:\n- sources: [{model: a}]",
        "merge_method: ties\nbase_model: base\nslices:\n- base_model: other\n"
        "  sources: [{model: a, layer_range: [0, 4]}]",
        "merge_method: ties\nbase_model: base\nslices:\n- residual_weight: 0.1\n"
        "  sources: [{model: a, layer_range: [0, 4]}]",
    ],
    "tokenizer_source": [
        f"merge_method: ties\nbase_model: base\n{ONE}\ntokenizer_source: {source}"
        for source in ("union", "3", "[base]")
    ],
    "dtype": [
        f"merge_method: ties\nbase_model: base\n{ONE}\ndtype: {name}" for name in ("int3", "[float32]")
    ],
    "out_dtype": [f"merge_method: ties\nbase_model: base\n{ONE}\nout_dtype: 16"],
    "tokenizer": [
        f"merge_method: ties\nbase_model: base\n{ONE}\ntokenizer: {{source: union}}",
        f"merge_method: ties\nbase_model: base\n{ONE}\ntokenizer: {{}}",
        f"merge_method: ties\nbase_model: base\n{ONE}\ntokenizer: [base]",
        f"merge_method: ties\nbase_model: base\n{ONE}\ntokenizer: {{source: base, tokens: {{a: {{}}}}}}",
        f"merge_method: ties\nbase_model: base\n{ONE}\ntokenizer: {{source: base, pad_to_multiple_of: 64}}",
    ],
    "weight": [
        "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: heavy}}]",
        "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: .nan}}]",
        "merge_method: ties\nbase_model: base\n"
        "models: [{model: a, parameters: {weight: [1, {filter: mlp, value: 2}]}}]",
        *(
            f"merge_method: ties\nbase_model: base\nmodels: [{{model: a, parameters: {{weight: {weight}}}}}]"
            for weight in (
                "1e300",
                "[[0], [1]]",
                "[{filter: [mlp], value: 2}, {value: 1}]",
                "[{filter: 1, value: 2}, {value: 1}]",
                "[{filter: mlp, value: [{filter: up, value: 2}]}, {value: 1}]",
                "[{filter: mlp, valeu: 2}, {value: 1}]",
            )
        ),
    ],
    "normalize": [
        f"merge_method: ties\nbase_model: base\n{ONE}\nparameters: {{normalize: [true, false]}}",
        f"merge_method: ties\nbase_model: base\n{ONE}\nparameters: {{normalize: sometimes}}",
    ],
    "lambda": [
        f"merge_method: ties\nbase_model: base\n{ONE}\nparameters: {{lambda: {value}}}"
        for value in ("[0, 1]", "1e300", "many")
    ],
    "rescale": [f"merge_method: ties\nbase_model: base\n{ONE}\nparameters: {{rescale: true}}"],
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in REFUSED.items() for text in texts])
def test_what_persona_cannot_express_is_refused_by_the_name_of_its_key(
    tmp_path: Path, key: str, text: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        read(tmp_path, text)
    assert error.value.message.startswith(f"{tmp_path / 'recipe.yml'}: {key}"), error.value.message


@pytest.mark.parametrize(
    ("method", "hint"),
    [
        ("tiez", "did you mean ties?"),
        ("dare-ties", "did you mean dare_ties?"),
        *((method, MERGEKIT) for method in ("slerp", "ranked_ties", "encoder_decoder_weighted", "cabs")),
    ],
)
def test_a_method_that_persona_lacks_is_left_to_mergekit(tmp_path: Path, method: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as error:
        read(tmp_path, f"merge_method: {method}\nbase_model: base\n{ONE}")
    assert worded(error.value.hint or "") == hint


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\n---\na: 2", "", "\x00", "? {a: [}"])
def test_a_file_that_is_no_mapping_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"recipe\.yml"):
        read(tmp_path, text)


def test_a_directory_is_refused_as_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a directory; give the YAML file"):
        mergekit.read(tmp_path)


def test_aliases_are_refused_by_their_line_because_they_can_stand_for_any_number_of_values(
    tmp_path: Path,
) -> None:
    bomb = "a: &a [0, 0]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz")
    )
    with pytest.raises(InvalidInput, match=r"recipe\.yml:2: aliases \(\*a\) are not read"):
        read(tmp_path, bomb + f"merge_method: ties\nbase_model: base\n{ONE}\nparameters: {{lambda: *z}}")


@pytest.mark.parametrize("text", ["[" * 2000, "- " * 2000 + "1", "{a: " * 2000])
def test_values_nested_too_deep_are_refused_before_they_are_read_to_the_end(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(InvalidInput, match=r"recipe\.yml:2: values are nested more than 32 deep"):
        read(tmp_path, f"merge_method:\n  {text}")


@pytest.mark.parametrize("text", ["true", "yes", "1", "'on'"])
def test_normalize_is_read_as_yaml_and_pydantic_read_it(tmp_path: Path, text: str) -> None:
    recipe = f"merge_method: task_arithmetic\nbase_model: base\n{ONE}\nparameters: {{normalize: {text}}}"
    assert read(tmp_path, recipe).normalize
    assert not read(tmp_path, recipe.replace(text + "}", "false}")).normalize


def test_a_normalize_of_one_model_has_no_effect_as_in_mergekit(tmp_path: Path) -> None:
    text = "merge_method: task_arithmetic\nbase_model: base\n"
    text += "models: [{model: a, parameters: {weight: 1, normalize: true}}]"
    assert not read(tmp_path, text).normalize


@pytest.mark.parametrize(
    ("gradient", "t", "value"),
    [((2.0,), 0.7, 2.0), ((0.0, 1.0), 0.25, 0.25), ((0.0, 1.0, 0.0), 0.75, 0.5), ((1.0, 3.0), 1.0, 3.0)],
)
def test_a_gradient_is_interpolated(gradient: tuple[float, ...], t: float, value: float) -> None:
    assert settings.at(gradient, t) == value


def test_the_first_layer_has_the_first_value_the_last_one_the_last() -> None:
    assert [settings.place(layer, 2, 5) for layer in (2, 3, 4, None)] == [0, 0.5, 1, 0]
    assert settings.place(2, 2, 3) == 1  # a slice of one layer


@pytest.mark.parametrize(
    "setting",
    [
        "0.5",
        "[0, 1]",
        "[{filter: mlp, value: 0.25}, {value: 1}]",
        "[{filter: mlp, value: [1, 0]}, {value: 2}]",
        "[{filter: mlp.up, value: 1}, {filter: layers.1, value: 2}, {filter: '*', value: 3}]",
        "[{filter: norm, value: 1}, {value: [1, 2, 0]}]",
        "{filter: embed, value: 0.5}",
        "1e-3",
    ],
)
def test_the_terms_of_a_model_have_its_weight_at_each_tensor(tmp_path: Path, setting: str) -> None:
    text = (
        "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n  parameters:\n"
        f"    weight: {setting}\n    density: [{{filter: attn, value: 0.5}}, {{value: 0.75}}]\n"
        "parameters: {weight: 4}"
    )
    recipe = read(tmp_path, text)
    wanted: dict[str, Any] = {}
    for name in NAMES:
        layer, _ = places(NAMES).get(name, (None, 0))
        chosen = settings.chosen(recipe.models[0].scopes, "weight", name)
        assert chosen is not None
        weight = settings.at(chosen, settings.place(layer, 0, 4))
        if weight:
            wanted[name] = pytest.approx((weight, 0.5 if "attn" in name else 0.75), rel=1e-7)
    found = values(tmp_path, text)["a"]
    assert {name: value for name, value in found.items() if value[0]} == wanted


def test_a_gradient_becomes_the_list_that_was_written(tmp_path: Path) -> None:
    text = (
        "merge_method: ties\nbase_model: base\nmodels:\n"
        "- {model: a, parameters: {weight: [0, 0.3, 1], density: [0.5, 1]}}\n"
        "- {model: b, parameters: {weight: [{filter: mlp, value: [1, 0.5]}, {value: 2}]}}"
    )
    parts = shares(read(tmp_path, text), NAMES)
    assert [(part.alpha, part.density, part.only, part.except_) for part in parts] == [
        (("0", "0.3", "1"), ("0.5", "1"), (), ()),
        (("1", "0.5"), "1", ("*mlp*",), ()),
        ("2", "1", (), ("*mlp*",)),
    ]


def test_filters_of_the_file_become_globs_not_lists_of_names(tmp_path: Path) -> None:
    text = (
        "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
        "- {model: a, parameters: {weight: [{filter: mlp, value: 0.25}, {value: 1}]}}"
    )
    parts = shares(read(tmp_path, text), NAMES)
    assert {(part.alpha, part.only, part.except_) for part in parts} == {
        ("0.25", ("*mlp*",), ()),
        ("1", (), ("*mlp*",)),
    }


@pytest.mark.parametrize("density", ["0", "[0, 0]", "-1"])
def test_a_density_of_0_keeps_nothing(tmp_path: Path, density: str) -> None:
    text = (
        "merge_method: ties\nbase_model: base\nmodels:\n"
        f"- {{model: a, parameters: {{weight: 1, density: {density}}}}}"
    )
    assert {value for value, _ in values(tmp_path, text)["a"].values()} == {0}


def test_a_weight_counts_in_the_divisor_also_where_its_density_keeps_nothing(tmp_path: Path) -> None:
    text = (
        "merge_method: dare_linear\nbase_model: base\nmodels:\n"
        "- {model: a, parameters: {weight: 1, density: 0}}\n"
        "- {model: b, parameters: {weight: 3, density: 1}}\n"
        "parameters: {normalize: true}"
    )
    found = values(tmp_path, text)
    assert {model: {value for value, _ in own.values()} for model, own in found.items()} == {
        "a": {0},
        "b": {0.75},
    }


def slices(method: str, *each: str) -> str:
    """A recipe of two slices of two layers, with the weights of each: "a 0.5, b 0.5"."""
    text = f"merge_method: {method}\nbase_model: base\nslices:\n"
    for start, models in zip((0, 2), each, strict=True):
        text += "- sources:\n"
        for item in models.split(", "):
            model, weight = item.split()
            own = f"layer_range: [{start}, {start + 2}], parameters: {{weight: {weight}}}"
            text += f"  - {{model: {model}, {own}}}\n"
    return text


def test_to_the_models_of_a_slice_no_base_is_added(tmp_path: Path) -> None:
    found = values(tmp_path, slices("linear", "a 1, b 1", "a 1, base 3"))
    assert [found["a"][f"model.layers.{layer}.attn.q.weight"][0] for layer in (0, 3)] == [0.5, 0.25]


def test_after_the_layers_the_first_slice_says_how_many_models_are_merged(tmp_path: Path) -> None:
    text = slices("task_arithmetic", "base 1, a 1", "base 1, a 2, b 3, c 4")
    found = values(tmp_path, text)
    assert found["a"]["model.norm.weight"] == (2, 1)
    assert found["b"]["model.layers.2.attn.q.weight"] == (3, 1)
    assert found["b"].get("model.norm.weight", (0, 1))[0] == 0
    assert read(tmp_path, text).notes[0] == (
        "after the layers, mergekit merges as many models as the first slice has; so b, c change nothing"
        " there"
    )


@pytest.mark.parametrize(
    ("name", "described", "weight"),
    [
        ("gpt_neox.embed_in.weight", True, 1),
        ("embed_out.weight", True, 2),
        ("lm_head.weight", True, 2),
        ("lm_head.weight", False, 1),
        ("model.norm.weight", False, 1),
    ],
)
def test_a_tensor_outside_the_layers_has_the_weight_that_mergekit_takes(
    tmp_path: Path, name: str, described: bool, weight: float
) -> None:
    text = slices("task_arithmetic", "base 1, a 1", "base 1, a 2")
    names = list(dict.fromkeys([*NAMES, name]))
    assert values(tmp_path, text, names, described=described)["a"][name][0] == weight


def test_mergekit_describes_some_architectures() -> None:
    described = [{"architectures": [name]} for name in ("LlamaForCausalLM", "GPTNeoXForCausalLM")]
    assert all(is_described(config) for config in [*described, {}, None])
    assert not is_described({"architectures": ["SmolLM3ForCausalLM"]})


def test_a_gradient_is_spread_over_each_stack(tmp_path: Path) -> None:
    names = [
        *(f"encoder.block.{layer}.layer.0.SelfAttention.q.weight" for layer in range(2)),
        *(f"decoder.block.{layer}.layer.0.SelfAttention.q.weight" for layer in range(4)),
    ]
    text = (
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a, parameters: {weight: [0, 1]}}]"
    )
    found = values(tmp_path, text, names)["a"]
    assert [found[name][0] for name in names] == pytest.approx([0, 1, 0, 1 / 3, 2 / 3, 1], abs=1e-7)


def test_the_strengths_of_a_mean_of_models_add_up_to_1_with_the_bases(tmp_path: Path) -> None:
    models = "models: [{model: base, parameters: {weight: 1}}, {model: a, parameters: {weight: 3}}]"
    assert set(values(tmp_path, f"merge_method: linear\nbase_model: base\n{models}")["a"].values()) == {
        (0.75, 1)
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n"
            "- {model: b, parameters: {weight: -1}}",
            "add up to 0",
        ),
        (
            "merge_method: linear\nmodels: [{model: a, parameters: {weight: 2}}]\n"
            "parameters: {normalize: false}",
            "scales the base",
        ),
        (
            "merge_method: linear\nbase_model: base\nmodels: [{model: a, parameters: {weight: 2}}]",
            "base has none",
        ),
        ("merge_method: ties\nbase_model: base\nmodels: [{model: a}]", "a has none"),
        (
            "merge_method: ties\nbase_model: base\nparameters: {weight: 1}\n"
            "slices:\n- sources: [{model: a, layer_range: [0, 3]}]",
            "the base has 4 layers",
        ),
    ],
)
def test_weights_that_are_no_change_to_the_base_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        values(tmp_path, text)
