"""What the kernel promises beside its equality with the reference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import MergeArguments
from persona.merge.rules import MergeRules
from tests.merge.chunks import CODE, Chunk, ulp_delta
from tests.merge.strategies import elements

RULES = MergeRules()


def arguments(chunk: Chunk, **changed: Any) -> dict[str, Any]:
    terms = chunk.z.shape[0]
    given = {
        "base": chunk.base,
        "z": chunk.z,
        "order": chunk.order,
        "out": np.empty_like(chunk.base),
        "theta": np.full(terms, np.nan, np.float32),
        "alpha": np.full(terms, 0.5, np.float32),
        "add": np.zeros(terms, np.bool_),
        "rules": RULES,
        "dtype": CODE["BF16"],
    }
    return given | changed


def merge(given: dict[str, Any]) -> int:
    """`cpu.merge_chunk` with what `arguments` gives."""
    rest = dict(given)
    chunk = Chunk(rest.pop("base"), rest.pop("z"), rest.pop("order")).decoded
    out = rest.pop("out")
    return cpu.merge_chunk(chunk, MergeArguments(**rest), out)


def chunk_of(n: int, terms: int = 3) -> Chunk:
    base, afters = elements(5, "BF16", terms, "weights", n)
    return Chunk.of(base, afters, "BF16")


def test_an_empty_chunk_and_a_chunk_without_terms_are_the_base() -> None:
    assert merge(arguments(chunk_of(0))) == 0
    given = arguments(chunk_of(50, 0))
    assert merge(given) == 0
    np.testing.assert_array_equal(given["out"][given["order"]], given["base"])


def test_terms_without_a_change_may_be_left_out() -> None:
    chunk = chunk_of(3000)
    chunk.z[1] = 0
    whole, part = arguments(chunk), arguments(Chunk(chunk.base, chunk.z[::2].copy(), chunk.order))
    merge(whole)
    merge(part)
    np.testing.assert_array_equal(whole["out"], part["out"])


def test_buffers_may_be_longer_than_the_chunk() -> None:
    chunk = chunk_of(1500)
    want = arguments(chunk)
    merge(want)
    z = np.full((3, 2000), 7, np.uint16)
    z[:, :1500] = chunk.z
    order = np.zeros(2000, np.uint32)
    order[:1500] = chunk.order
    given = arguments(chunk, z=z, order=order, out=np.full(2000, 9, np.uint16))
    merge(given)
    np.testing.assert_array_equal(given["out"][:1500], want["out"])
    assert (given["out"][1500:] == 9).all()


def test_threads_share_nothing() -> None:
    chunk = chunk_of(20_000)
    alone = arguments(chunk)
    merge(alone)
    together = [arguments(chunk) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(merge, together))
    for given in together:
        np.testing.assert_array_equal(given["out"], alone["out"])


def test_the_place_of_an_element_changes_no_bit() -> None:
    """Blocks, vector lanes and the careful path meet other neighbours; the element does not notice."""
    base, afters = elements(6, "F32", 2, "huge", 3000)
    turned = np.random.default_rng(0).permutation(3000)
    outputs = []
    for places in (np.arange(3000), turned):
        chunk = Chunk.of(base[places], [after[places] for after in afters], "F32")
        given = arguments(chunk, dtype=CODE["F32"], alpha=np.array([1.5, -1], np.float32))
        assert merge(given) > 0
        outputs.append(given["out"])
    np.testing.assert_array_equal(outputs[0][turned], outputs[1])


def test_an_element_that_is_not_finite_in_the_base_and_changed_is_counted() -> None:
    base = np.array([0x7F80, 0x3F80], np.uint16)
    after = np.array([0x3F80, 0x4000], np.uint16)
    given = arguments(Chunk.of(base, [after], "BF16"))
    assert merge(given) == 1
    assert given["out"].tolist() == [0x7FC0, 0x3FC0]


def test_every_16_bit_number_moves_to_its_neighbour() -> None:
    """One term moves every element one step; at full strength each becomes what it was given."""
    for dtype, top in (("BF16", 0x7F80), ("F16", 0x7C00)):
        bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
        finite = bits[(bits & 0x7FFF) < top - 1]
        after = (finite + 1).astype(np.uint16)
        chunk = Chunk.of(finite, [after], dtype)
        assert (ulp_delta(finite[:5], after[:5]) == 2).all()
        given = arguments(chunk, alpha=np.ones(1, np.float32), dtype=CODE[dtype])
        assert merge(given) == 0
        np.testing.assert_array_equal(given["out"], after)


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha": np.ones(3)},
        {"theta": np.ones(3)},
        {"theta": np.ones(2, np.float32)},
        {"add": np.zeros(2, np.bool_)},
        {"dtype": CODE["F32"]},
        {"out": np.empty(49, np.uint16)},
        {"order": np.empty(49, np.uint32)},
        {"z": np.empty((3, 49), np.uint16)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"K|term|chunk|float32|unsigned"):
        merge(arguments(chunk_of(50), **changed))


def test_scratch_is_that_of_the_largest_number_of_terms_not_of_each() -> None:
    def merge_all() -> int:
        for terms in (1, 7, 2, 30, 30, 3, 29):
            merge(arguments(chunk_of(100, terms)))
        return sum(array.nbytes for array in cpu._local.held)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(merge_all).result()
    assert held == pytest.approx(cpu.scratch_bytes(30), rel=0.01)
