"""Every writing of a coordinate gives the bits of the reference, under every combination of the rules.

One registry of rules drives all writings (`writings`). The profiles of hypothesis decide how many random
mixtures are tried: `--hypothesis-profile=exhaustive` tries 10,000.
"""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.merge.arithmetic.writings import ALPHAS, LAMBDAS, RULES, TERMS, check, mixture, mixtures


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_every_combination_of_the_rules_has_one_meaning(cuda: ModuleType, dtype: str) -> None:
    for one in mixtures(1, dtype, 150):
        check(cuda, one)


@given(st.data())
def test_every_writing_equals_the_reference(cuda: ModuleType, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, TERMS))
    strengths = st.one_of(st.sampled_from(ALPHAS), st.floats(-4, 4, width=32))

    def each(strategy: st.SearchStrategy) -> list:
        return data.draw(st.lists(strategy, min_size=count, max_size=count))

    given = mixture(
        data.draw(st.integers(0, 1 << 32)),
        data.draw(st.sampled_from(["BF16", "F16", "F32"])),
        data.draw(st.sampled_from([1, 7, 100, 300])),
        data.draw(st.sampled_from(RULES)),
        each(strengths),
        each(st.sampled_from([False, False, False, True])),
        each(st.booleans()),
        data.draw(st.sampled_from(LAMBDAS)),
    )
    check(cuda, given)
