"""Rules, terms, tensors and whole models for the tests of the merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from persona.errors import InvalidInput
from persona.merge.rules import MergeRules
from persona.objects.recipe import Term
from persona.objects.rules import PRESETS, Rules
from tests.merge.chunks import EXPONENT, UINT, rounded
from tests.merge.models import Model

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=25
)

# -- one tensor

ALPHAS = st.one_of(
    st.sampled_from([1.0, 1.0, 0.5, -1.0, -0.5, 0.0, 0.25, 2.0, 1e-30, 1e-44, 3e38, -3e38, 1e20]),
    st.floats(-2, 2, width=32),
)
"""Both signs, zero, tiny and huge."""


@st.composite
def rules(draw: st.DrawFn) -> MergeRules:
    """Every combination of axes."""
    return MergeRules(
        trim=draw(st.sampled_from(["tensor", "global", "joint", "none"])),
        rank=draw(st.sampled_from(["floor1", "plus1", "floor"])),
        weigh=draw(st.sampled_from(["before", "after"])),
        elect=draw(st.sampled_from(["mass", "count", "none"])),
        on_tie=draw(st.sampled_from(["drop", "positive", "majority"])),
        merge=draw(st.sampled_from(["mean", "mean", "sum", "max"])),
        divide=draw(st.sampled_from(["strength", "count", "weight", "mass"])),
        density=draw(st.sampled_from([1.0, 0.5, 0.2, 0.01])),
        lambda_=draw(st.sampled_from([1.0, 1.0, 0.5, -1.5, 0.0, 3e38])),
    )


def elements(seed: int, dtype: str, count: int, style: str, n: int) -> tuple[Any, list[Any]]:
    """A base and fine-tunes as bits, in one of the styles."""
    random = np.random.default_rng(seed)
    uint = UINT[dtype]
    top = np.iinfo(uint).max
    if style == "bits":
        base = random.integers(0, top, n, endpoint=True, dtype=uint)
        afters = [random.integers(0, top, n, endpoint=True, dtype=uint) for _ in range(count)]
    elif style == "steps":
        base = random.integers(0, top, n, endpoint=True, dtype=uint)
        afters = [base + random.integers(-3, 4, n).astype(uint) for _ in range(count)]
    elif style == "subnormal":
        sign = uint(top - top // 2)
        tiny = 1 << EXPONENT[dtype][0]
        values = lambda: random.integers(0, 2 * tiny, n).astype(uint) | random.choice([uint(0), sign], n)  # noqa: E731
        base = values()
        afters = [values() for _ in range(count)]
    else:
        scale, values = {
            "integers": (1.0, lambda: random.integers(-3, 4, n)),
            "weights": (0.02, lambda: random.normal(size=n)),
            "huge": (2e4 if dtype == "F16" else 1.2e38, lambda: random.normal(size=n)),
        }[style]
        with np.errstate(over="ignore"):
            numbers = [np.float32(scale) * values().astype(np.float32) for _ in range(count + 1)]
        base, *afters = [rounded(number, dtype) for number in numbers]
    for after in afters:
        same = random.random(n) < 0.4
        after[same] = base[same]
    shift, mask = EXPONENT[dtype]
    for after in afters:
        strange = ((after >> shift) & mask) == mask
        after[strange] = base[strange]
        fixed = ((base >> shift) & mask) == mask
        after[fixed] = base[fixed]
    return base, afters


# -- whole models

FILTERED = ("breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della_linear", "della")

SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed.weight": (13, 11),
    "model.layers.0.mlp.up.weight": (8, 16),
    "model.layers.1.mlp.up.weight": (7, 19),
    "model.layers.1.norm.weight": (64,),
    "model.scale": (),
    "model.nothing": (0, 4),
}
"""Longer than a chunk of 64, exactly two, odd, exactly one, a scalar, empty."""

STYLES = ["bits", "steps", "subnormal", "integers", "weights", "huge"]
FILTERS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    ((), ()),
    ((), ()),
    (("model.layers.1.*",), ()),
    ((), ("*.norm.*", "model.embed*")),
    (("nothing at all",), ()),
]


def draw_model(
    draw: Any, count: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES
) -> tuple[Model, list[dict[str, Any]]]:
    base: dict[str, Any] = {}
    afters: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, shape in shapes.items():
        dtype = draw(st.sampled_from(["BF16", "BF16", "F16", "F32"]))
        style = draw(st.sampled_from(STYLES))
        size = int(np.prod(shape, dtype=int))
        bits, tuned = elements(draw(st.integers(0, 1 << 32)), dtype, count, style, size)
        base[name] = (dtype, shape, bits)
        untouched = draw(st.integers(0, 1 << count))
        for k in range(count):
            afters[k][name] = (dtype, shape, bits if untouched >> k & 1 else tuned[k])
    base["model.positions"] = ("I64", (5,), np.arange(5, dtype=np.int64))
    for after in afters:
        after["model.positions"] = base["model.positions"]
    return base, afters


@st.composite
def draw_rules(draw: st.DrawFn) -> Rules:
    """Every preset, and most combinations of axes."""
    preset = draw(st.sampled_from(list(PRESETS)))
    choices = {
        "rank": ["floor1", "plus1", "floor"],
        "weigh": ["before", "after"],
        "elect": ["mass", "count", "none"],
        "on_tie": ["drop", "positive", "majority"],
        "merge": ["mean", "sum", "max"],
        "divide": ["strength", "count", "weight", "mass"],
        "density": ["1", "0.5", "0.2", "0.137"],
        "gamma": ["0", "0.1"],
        "epsilon": ["0", "0.1"],
        "rescale": ["true", "false", "norm"],
        "seed": ["0", "7"],
    }
    axes = {axis: draw(st.sampled_from(words)) for axis, words in choices.items() if draw(st.booleans())}
    axes = {axis: word for axis, word in axes.items() if PRESETS[preset][axis] is not None}
    axes["lambda"] = draw(st.sampled_from(["1", "1", "0.5", "-1.5"]))
    try:
        return Rules.of(preset, **axes)
    except InvalidInput:
        return Rules.of(preset)


def draw_terms(draw: Any, ids: list[str], rules: Rules) -> list[Term]:
    terms = []
    for k, id in enumerate(ids):
        own = rules.trim not in ("joint", "none")
        only, except_ = draw(st.sampled_from(FILTERS))
        terms.append(
            Term(
                name=f"v{k}",
                vector=id,
                alpha=draw(st.sampled_from(["1", "1", "0.7", "-0.5", "0", "-1", "2", "0.0000001"])),
                density=draw(st.sampled_from([None, None, "1", "0.3"])) if own else None,
                only=only,
                except_=except_,
                join=draw(st.sampled_from(["vote", "vote", "vote", "add"])),
            )
        )
    return terms


def one_model(seed: int = 1, dtype: str = "BF16") -> tuple[Model, Model, Model]:
    base: dict[str, Any] = {}
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        bits, (one, two) = elements(seed + i, dtype, 2, "weights", int(np.prod(shape, dtype=int)))
        base[name], first[name], second[name] = (dtype, shape, bits), (dtype, shape, one), (dtype, shape, two)
    return base, first, second
