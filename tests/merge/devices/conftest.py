"""A model of all dtypes with five vectors, and devices that merge it slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from persona.merge.arithmetic import layout
from persona.merge.plan import Plan
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import elements

CHUNK = 256
SIZE = 1000
VECTORS = 5


@pytest.fixture
def short_slices() -> Iterator[None]:
    """Slices of a few elements, so that a small model has many."""
    with mock.patch.object(layout, "SHORTEST_SLICE", 64):
        yield


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Model, Any]:
    """Five vectors over bf16, fp16 and fp32, two of which add, one of which leaves tensors alone; and what
    the CPU makes of them.
    """
    model: dict[str, Any] = {}
    tuned: list[dict[str, Any]] = [{} for _ in range(VECTORS)]
    for seed, (name, dtype) in enumerate((("a", "BF16"), ("b", "F16"), ("c", "F32"), ("d", "BF16"))):
        bits, afters = elements(seed, dtype, VECTORS, "weights", SIZE + seed)
        model[name] = (dtype, bits.shape, bits)
        for k, after in enumerate(afters):
            changed = bits if (k == 1 and name == "a") or (k > 0 and name == "d") else after
            tuned[k][name] = (dtype, bits.shape, changed)
    sandbox = Sandbox(tmp_path_factory.mktemp("mixed"), model, chunk=CHUNK)
    terms = [
        Term(str(k), sandbox.vector(tuned[k]).id, alpha=alpha, join="add" if k in (0, 3) else "vote")
        for k, alpha in enumerate(("1", "0.5", "-0.75", "1.5", "0.3"))
    ]
    plan = sandbox.plan(terms, Rules.of("ties", density="0.4"))
    return plan, model, run(plan, model)
