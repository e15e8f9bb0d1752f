"""The same recipe gives the same weights digest as in the first version, whatever became faster since.

`tests/golden/weights-digests.json` was written once and is never written again. The models are made of a
BLAKE3 stream and integers alone, so that they are the same everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from persona.objects.recipe import Term
from persona.objects.rules import PRESETS, Rules
from tests.merge.chunks import EXPONENT, UINT
from tests.merge.models import Model, Sandbox, run

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "weights-digests.json").read_text())
SHAPES = {"embed.weight": (50, 23), "layers.0.up.weight": (64, 64), "layers.1.norm.weight": (129,)}
ALPHAS = ("0.7", "-0.5", "1", "0.25")
AXES: dict[str, list[dict[str, Any]]] = {
    "ties": [
        {"density": "1"},
        {"density": "0.2"},
        {"density": "0.137", "elect": "count"},
        {"density": "0.5", "merge": "max", "lambda": "0.5"},
        {"density": "0.3", "trim": "global"},
    ],
    "paper": [{}, {"merge": "sum"}, {"merge": "max"}],
    "mergekit": [{"density": "0.2"}, {"density": "0.29", "merge": "sum"}],
    "peft": [{"density": "0.2"}, {"density": "0.05", "on_tie": "drop"}],
    "joint": [{}, {"density": "0.4", "lambda": "1.5"}],
    "linear": [{}, {"lambda": "-1"}],
}


CASES = [(dtype, preset, axes) for dtype in UINT for preset, choices in AXES.items() for axes in choices]


def name_of(dtype: str, preset: str, axes: dict[str, Any]) -> str:
    return " ".join([dtype, preset, *(f"{axis}={value}" for axis, value in sorted(axes.items()))])


def numbers(label: str, count: int) -> np.ndarray[Any, Any]:
    """uint32[count] out of a BLAKE3 stream."""
    return np.frombuffer(blake3(label.encode()).digest(4 * count), "<u4")


def model(dtype: str, tuned: int) -> Model:
    """The base (tuned 0), or a fine-tune of it: half of the elements some ulps away."""
    made = {}
    shift, mask = EXPONENT[dtype]
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        drawn = numbers(f"{dtype} {name}", size)
        exponent = mask // 2 - 12 + (drawn >> 16) % 12
        sign_and_mantissa = drawn & ((1 << shift) - 1) | (drawn >> 31) << (UINT[dtype](0).nbytes * 8 - 1)
        bits = (sign_and_mantissa | exponent << shift).astype(UINT[dtype])
        if tuned:
            step = numbers(f"{dtype} {name} {tuned}", size)
            width = 7 if dtype != "F32" else 7 << 14
            bits = bits + ((step >> 1) % width - width // 2).astype(UINT[dtype]) * (step & 1).astype(
                UINT[dtype]
            )
        made[name] = (dtype, shape, bits)
    return made


def digest(dtype: str, preset: str, axes: dict[str, Any], folder: Path) -> str:
    """The weights digest of four vectors at α ± under these rules, the last one of them added to the rest."""
    sandbox = Sandbox(folder, model(dtype, 0), chunk=1024)
    ids = [sandbox.vector(model(dtype, tuned)).id for tuned in (1, 2, 3, 4)]
    joins = ("vote", "vote", "vote", "add")
    terms = [
        Term(name=str(k), vector=id, alpha=alpha, join=join, except_=("*norm*",) if k == 1 else ())
        for k, (id, alpha, join) in enumerate(zip(ids, ALPHAS, joins, strict=True))
    ]
    _, made = run(sandbox.plan(terms, Rules.of(preset, **axes)), model(dtype, 0))
    return made.weights


@pytest.mark.parametrize(("dtype", "preset", "axes"), CASES)
def test_a_recipe_has_the_digest_that_it_had(
    dtype: str, preset: str, axes: dict[str, Any], tmp_path: Path
) -> None:
    assert digest(dtype, preset, axes, tmp_path) == GOLDEN[name_of(dtype, preset, axes)]


def test_every_preset_of_the_first_version_is_among_them() -> None:
    assert set(AXES) <= set(PRESETS)
    assert set(GOLDEN) == {name_of(*case) for case in CASES}
