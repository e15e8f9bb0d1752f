"""`export_adapter` of recipes of adapters: exact where the rules make a plain sum of them, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import InvalidInput
from persona.history.verbs.adapters import AdapterResult
from tests.checkpoints import Tensor, read_file, write_file
from tests.history.bots import Bot, read_weights, seeded

FIRST, SECOND = "model.layers.0.mlp", "model.layers.1.mlp"
KEY = "base_model.model."


def write_adapter(
    place: Path, seed: int, rank: int = 2, modules: tuple[str, ...] = (FIRST, SECOND), size: float = 0.05
) -> Path:
    """A PEFT adapter of scale 0.5 that changes some modules of a bot."""
    random = seeded(seed)
    place.mkdir()
    tensors = {}
    for module in modules:
        for letter, shape in (("A", (rank, 15)), ("B", (9, rank))):
            values = random.normal(0, size, shape).astype(np.float32)
            tensors[f"{KEY}{module}.lora_{letter}.weight"] = Tensor("F32", values.view(np.uint32))
    write_file(place / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank / 2, "target_modules": list(modules)}
    (place / "adapter_config.json").write_text(json.dumps(config))
    return place


def change(place: Path, module: str) -> np.ndarray:
    """s·B·A of a module of an adapter, in binary64; zeros if the adapter does not have it."""
    held, config = (
        read_file(place / "adapter_model.safetensors"),
        json.loads((place / "adapter_config.json").read_text()),
    )
    if f"{KEY}{module}.lora_A.weight" not in held:
        return np.zeros((9, 15))
    a, b = (
        held[f"{KEY}{module}.lora_{letter}.weight"].bits.view(np.float32).astype(np.float64)
        for letter in "AB"
    )
    rank = config.get("rank_pattern", {}).get(module, config["r"])
    alpha = config.get("alpha_pattern", {}).get(module, config["lora_alpha"])
    found: np.ndarray = alpha / rank * (b @ a)
    return found


@pytest.fixture
def two(bot: Bot) -> Bot:
    """Two adapters, the second of which reaches only the second layer."""
    bot.commit(write_adapter(bot.models / "one", 1))
    bot.commit(write_adapter(bot.models / "two", 2, 3, (SECOND,)))
    return bot


def exported(bot: Bot, rules: dict[str, Any] | None = None, **options: Any) -> AdapterResult:
    if rules:
        bot.repo.recipe.set_rules(rules)
    return bot.repo.export_adapter(out=bot.models / "out", force=True, **options)


def ways(result: AdapterResult) -> dict[str, tuple[str, int | None]]:
    return {tensor.name.removesuffix(".weight"): (tensor.how, tensor.rank) for tensor in result.tensors}


@pytest.mark.parametrize("alpha", ["1", "0.3", "-2"])
@pytest.mark.parametrize("preset", ["ties", "linear", "peft"])
def test_one_adapter_is_exact_at_any_strength(bot: Bot, preset: str, alpha: str) -> None:
    place = write_adapter(bot.models / "one", 1)
    bot.commit(place, alpha=alpha)
    result = exported(bot, {"preset": preset, **({} if preset == "linear" else {"density": 1})})
    assert result.exact
    for module in (FIRST, SECOND):
        wanted = float(alpha) * change(place, module)
        assert np.allclose(change(bot.models / "out", module), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", ["0.3", "-2"])
@pytest.mark.parametrize(
    "rules",
    [
        *({"preset": preset, "density": 1} for preset in ("ties", "paper", "mergekit", "peft", "joint")),
        {"preset": "linear", "lambda": 0.5},
        {"preset": "ties", "divide": "mass", "lambda": -1},
        {"preset": "peft", "merge": "max", "density": 1},
    ],
    ids=lambda rules: "-".join(map(str, rules.values())),
)
def test_an_exact_adapter_gives_the_weights_of_the_checkout(
    bot: Bot, rules: dict[str, Any], alpha: str
) -> None:
    bot.commit(write_adapter(bot.models / "one", 1, size=0.3), alpha=alpha)
    assert exported(bot, rules).exact
    bot.repo.checkout(out=bot.models / "whole")
    for module in (FIRST, SECOND):
        before = numbers(bot.base[f"{module}.weight"])
        wanted = numbers(read_weights(bot.models / "whole")[f"{module}.weight"])
        assert (
            np.abs(before + change(bot.models / "out", module) - wanted).max() <= 2**-8 * np.abs(wanted).max()
        )


def numbers(bits: np.ndarray) -> np.ndarray:
    """bf16 bits as numbers."""
    found: np.ndarray = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return found


def test_adapters_under_linear_are_joined(two: Bot) -> None:
    two.repo.recipe.set("one", alpha="0.7")
    two.repo.recipe.set("two", alpha="-1.3")
    result = exported(two, {"preset": "linear", "lambda": 2})
    assert result.exact
    assert ways(result) == {FIRST: ("exact", 2), SECOND: ("exact", 5)}
    for module in (FIRST, SECOND):
        wanted = 2 * (0.7 * change(two.models / "one", module) - 1.3 * change(two.models / "two", module))
        assert np.allclose(change(two.models / "out", module), wanted, rtol=1e-6, atol=1e-8)
    energy = {tensor.name: tensor.energy for tensor in result.tensors}
    assert energy[f"{SECOND}.weight"] == pytest.approx((wanted**2).sum(), rel=1e-6)


def test_an_election_is_not_a_sum_but_a_tensor_that_one_adapter_reaches_is_exact(two: Bot) -> None:
    result = exported(two)
    assert ways(result) == {FIRST: ("exact", 2), SECOND: ("cut", 9)}
    assert not result.exact


@pytest.mark.parametrize(
    ("rules", "alphas", "exact"),
    [
        ({"preset": "ties", "elect": "none"}, ("0.5", "0.5"), True),  # Σ|α| ≤ 1: nothing is divided
        ({"preset": "ties", "elect": "none"}, ("1", "1"), False),
        ({"preset": "ties", "elect": "none", "merge": "sum"}, ("1", "2"), True),
        ({"preset": "ties", "elect": "none", "merge": "max"}, ("1", "1"), False),
        ({"preset": "ties", "elect": "none", "divide": "count"}, ("0.5", "0.5"), False),
        ({"preset": "ties", "merge": "sum"}, ("1", "1"), False),
        ({"preset": "ties", "density": 0.5}, ("1", "0"), False),
    ],
)
def test_the_rules_decide_whether_the_weights_are_a_sum(
    two: Bot, rules: dict[str, Any], alphas: tuple[str, str], exact: bool
) -> None:
    for name, alpha in zip(("one", "two"), alphas, strict=True):
        two.repo.recipe.set(name, alpha=alpha)
    assert (ways(exported(two, rules))[SECOND][0] == "exact") is exact


def test_a_term_that_is_added_is_part_of_the_sum(two: Bot) -> None:
    two.repo.recipe.set("two", join="add", alpha="-0.5")
    result = exported(two)
    assert result.exact
    wanted = change(two.models / "one", SECOND) - 0.5 * change(two.models / "two", SECOND)
    assert np.allclose(change(two.models / "out", SECOND), wanted, rtol=1e-6, atol=1e-9)


def test_a_fine_tune_beside_an_adapter_is_cut(two: Bot) -> None:
    two.commit(two.tune("calm", 3, only="layers.1"))
    assert ways(exported(two, {"preset": "linear"})) == {FIRST: ("exact", 2), SECOND: ("cut", 9)}


def test_a_rank_below_that_of_the_sum_cuts_it_best(two: Bot) -> None:
    result = exported(two, {"preset": "linear"}, rank=3)
    assert ways(result) == {FIRST: ("exact", 2), SECOND: ("cut", 3)}
    whole = change(two.models / "one", SECOND) + change(two.models / "two", SECOND)
    squares = np.linalg.svd(whole, compute_uv=False) ** 2
    (tensor,) = (tensor for tensor in result.tensors if tensor.how == "cut")
    assert tensor.kept_energy == pytest.approx(squares[:3].sum() / squares.sum(), rel=1e-5)
    missing = whole - change(two.models / "out", SECOND)
    assert 1 - (missing**2).sum() / squares.sum() == pytest.approx(tensor.kept_energy, rel=1e-5)


def test_an_expression_of_adapters_is_their_sum(two: Bot) -> None:
    two.repo.vectors.derive("both", "one - 0.5 * two")
    result = two.repo.vectors.extract("both", out=two.models / "out")
    assert result.exact
    wanted = change(two.models / "one", SECOND) - 0.5 * change(two.models / "two", SECOND)
    assert np.allclose(change(two.models / "out", SECOND), wanted, rtol=1e-6, atol=1e-9)


def test_a_strength_of_zero_leaves_no_factor(two: Bot) -> None:
    two.repo.recipe.set("one", alpha="0")
    assert ways(exported(two, {"preset": "linear"})) == {SECOND: ("exact", 3)}


def test_the_adapter_of_a_vector_is_that_vector_again(two: Bot) -> None:
    two.repo.vectors.extract("two", out=two.models / "again")
    assert two.repo.add(two.models / "again").vectors[0].id == two.repo.vectors["two"].id


def test_factors_that_a_dtype_cannot_hold_are_refused(bot: Bot) -> None:
    bot.commit(write_adapter(bot.models / "one", 1, size=1e6))
    with pytest.raises(InvalidInput, match="not finite in float16") as refused:
        exported(bot, dtype="float16")
    assert "dtype" in str(refused.value)
    assert exported(bot, dtype="bfloat16").exact
