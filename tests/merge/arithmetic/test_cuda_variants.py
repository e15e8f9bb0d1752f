"""`scripts/bench/cuda.py` compares with the right digests, lists what differs, and no step ends its run."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[3] / "scripts" / "bench"


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import cuda_variants

    return cuda_variants


@pytest.fixture
def bench(variants: ModuleType) -> ModuleType:
    import cuda

    return cuda


def test_the_digests_are_those_of_the_cpu_and_the_bits_those_of_the_reference(variants: ModuleType) -> None:
    golden = variants.golden()
    found = {}
    for variant in variants.variants():
        given = variants.inputs(variant)
        out, bad = variants.by_cpu(variant, given)
        np.testing.assert_array_equal(out, variants.by_reference(variant, given))
        found[variant.name] = variants.digest(out, bad)
    assert found == golden
    assert len(golden) == 36


def test_what_differs_is_listed_with_its_index_and_bits(variants: ModuleType, bench: ModuleType) -> None:
    for layout in ("in place", "scattered"):
        variant = variants.Variant("BF16", "plain", layout, 3)
        given = variants.inputs(variant)
        found, _ = variants.by_cpu(variant, given)
        want = found.copy()
        found[[7, 4000]] ^= 1
        listed = bench.differences(variant, given, found)
        assert listed["elements"] == 2
        one = listed["differences"][1]
        assert (one["at"], one["want"], one["found"]) == (4000, f"{want[4000]:x}", f"{found[4000]:x}")
        base = given.base[4000] if layout == "in place" else given.base[given.order.tolist().index(4000)]
        assert one["base"] == f"{base:x}"


def test_a_step_that_fails_or_takes_too_long_is_a_line_and_the_next_one_runs(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.Run(60, dry=True)

    def broken(_: object) -> dict[str, object]:
        raise ValueError("no")

    def endless(_: object) -> dict[str, object]:
        while True:
            pass

    run.do("broken", 0, 10, broken)
    run.do("endless", 0, 0.05, endless)
    run.do("too late", 1000, 2000, broken)
    run.do("fine", 0, 10, lambda _: {"found": 1})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["step"], line["ok"]) for line in lines] == [
        ("broken", False),
        ("endless", False),
        ("too late", False),
        ("fine", True),
    ]
    assert "ValueError: no" in lines[0]["error"]
    assert run.failed
    run.work.rmdir()
