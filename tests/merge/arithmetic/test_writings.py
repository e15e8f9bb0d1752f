"""Every writing of a coordinate gives the bits of the reference, under every combination of the rules.

One registry of rules drives all writings (`writings`). The profiles of hypothesis decide how many random
mixtures are tried: `--hypothesis-profile=exhaustive` tries 10,000.
"""

from __future__ import annotations

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

from tests.merge.arithmetic.writings import (
    ALPHAS,
    DTYPES,
    LAMBDAS,
    LIMITS,
    RULES,
    TERMS,
    WRITTEN_OUT,
    check,
    few_terms,
    mixture,
    mixtures,
    two_blocks,
)


def test_every_combination_of_the_rules_has_one_meaning(cuda: ModuleType) -> None:
    for one in mixtures(1, 300):
        check(cuda, one)


def test_every_loop_written_out_equals_the_reference() -> None:
    for seed in range(3):
        for one in few_terms(seed, 300):
            check(None, one)


def test_every_block_is_merged_from_its_own_elements() -> None:
    for one in two_blocks(1):
        check(None, one)


@given(st.data())
def test_every_writing_equals_the_reference(cuda: ModuleType, data: st.DataObject) -> None:
    few = data.draw(st.sampled_from([False, False, True]))
    mixed = not few or data.draw(st.booleans())
    calm = few or data.draw(st.booleans())
    count = data.draw(st.integers(1, 4 if few else TERMS))
    most = data.draw(st.sampled_from([1.0, 4.0] if few else LIMITS[:3] if calm else LIMITS))
    strengths = st.one_of(
        st.sampled_from([one for one in ALPHAS if abs(one) <= most]),
        st.floats(-min(most, 4), min(most, 4), width=32),
    )

    def each(strategy: st.SearchStrategy) -> list:
        return data.draw(st.lists(strategy, min_size=count, max_size=count))

    given = mixture(
        data.draw(st.integers(0, 1 << 32)),
        data.draw(st.sampled_from(["BF16"] if few else DTYPES)),
        data.draw(st.sampled_from([1, 7, 100, 300, 300, 2100])),
        data.draw(st.sampled_from(WRITTEN_OUT if few else RULES)),
        each(strengths),
        each(st.just(False) if few else st.sampled_from([False, False, False, True])),
        each(st.booleans() if mixed else st.just(False)),
        data.draw(st.sampled_from(LAMBDAS[:-1] if calm else LAMBDAS)),
        calm=calm,
    )
    check(cuda, given)
