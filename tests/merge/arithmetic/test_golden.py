"""The outputs of the peers' own code, exactly, from reference and kernel, in every order of adding."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import to_binary32
from persona.objects.rules import Rules
from tests.merge import chunks

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "golden-ties.json").read_text())
ORDERS = list(permutations(range(3)))


def rules_of(case: dict[str, Any]) -> MergeRules:
    axes = {axis: case[axis] for axis in ("density", "merge", "elect", "lambda") if axis in case}
    return MergeRules.of(Rules.of(case["preset"], **axes))


def terms_of(case: dict[str, Any], order: tuple[int, ...]) -> list[MergeTerm]:
    """Ids stand in the order of adding, so that the canonical order is that order."""
    return [MergeTerm(f"{n:064x}", to_binary32(str(case["alpha"][k]))) for n, k in enumerate(order)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["preset"])
def test_the_reference_gives_the_peers_outputs(case: dict[str, Any], order: tuple[int, ...]) -> None:
    base = {"w": torch.zeros(8)}
    fine_tuned = [{"w": torch.tensor(GOLDEN["ABC"[k]], dtype=torch.float32)} for k in order]
    merged = reference.merge(base, fine_tuned, terms_of(case, order), rules_of(case))
    assert merged["w"].tolist() == case["out"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["preset"])
def test_the_kernel_gives_the_peers_outputs(case: dict[str, Any], order: tuple[int, ...]) -> None:
    base = np.zeros(8, np.uint32)
    afters = [np.array(GOLDEN["ABC"[k]], np.float32).view(np.uint32) for k in order]
    out, bad = chunks.merge_by_kernel(base, afters, terms_of(case, order), rules_of(case), "F32")
    assert out.view(np.float32).tolist() == case["out"]
    assert bad == 0


def test_the_golden_file_holds_every_preset() -> None:
    assert {case["preset"] for case in GOLDEN["cases"]} == {
        "ties",
        "paper",
        "mergekit",
        "peft",
        "joint",
        "linear",
    }
