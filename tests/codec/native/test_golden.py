"""Golden cases: every variant that persona calls has some, and they tell a wrong kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from persona.codec import base as base_codec
from persona.codec import delta as delta_codec
from persona.codec.elements import of
from persona.codec.native import Kernel, Kernels, golden, has_compress, kernel
from persona.errors import SystemFault
from persona.merge.arithmetic import cpu, filters, lowrank
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.arithmetic.filters import ElementFilter, MagnitudeSum
from persona.merge.arithmetic.warm_up import KERNELS
from persona.merge.rules import MergeRules

VARIANTS = [(each, name, kinds) for each in KERNELS for name, kinds in sorted(golden.variants(each.golden))]
IDS = [f"{name}({kinds[0]})" for _, name, kinds in VARIANTS]


@pytest.mark.parametrize(("kernels", "name", "kinds"), VARIANTS, ids=IDS)
def test_a_kernel_passes_its_golden_cases_and_any_other_result_does_not(
    kernels: Kernels, name: str, kinds: tuple[str, ...]
) -> None:
    call = getattr(kernels, name).variant(kinds)
    golden.require(kernels.golden, name, kinds, bool(has_compress()), call)
    for found, case in golden.cases(kernels.golden, name, bool(has_compress())):
        if found == kinds:
            returned = int(call(*case.arguments))
            results = case.results(returned)
            assert golden.digest_of(returned, results) == case.digest
            assert golden.digest_of(returned + 1, results) != case.digest
            for array in results:
                if array.size:
                    array.reshape(-1).view(np.uint8)[-1] ^= 1
                    assert golden.digest_of(returned, results) != case.digest
    with pytest.raises(SystemFault, match=f"the compiled kernel {name} computes other bits"):
        golden.require(kernels.golden, name, kinds, bool(has_compress()), lambda *_: 12345)


def round_trip(dtype: str, code: int) -> None:
    """Calls every kernel for a dtype, as the library does."""
    random = np.random.default_rng(5)
    uint = of(dtype).uint
    base = random.integers(0, 1 << 15, 5000).astype(uint)
    after = base + (random.geometric(0.02, 5000) * random.integers(0, 2, 5000)).astype(uint)
    encoded = delta_codec.encode_delta(base, after, dtype, delta_codec.Scratch())
    z, order, ordered = np.empty_like(base), np.empty(5000, np.uint32), np.empty_like(base)
    delta_codec.exponent_order(base, dtype, order, ordered)
    delta_codec.decode_delta(encoded.form, [segment.tobytes() for segment in encoded.segments], z)
    delta_codec.restore(ordered, z, order, base.copy())
    delta_codec.element_order(base, dtype, delta_codec.exponent_starts(base, dtype), z, base.copy())
    form, segments = base_codec.encode_base(base, dtype)
    base_codec.decode_base(form, segments, np.empty_like(base))
    both = np.stack([z, z])
    theta, alpha, add = np.full(2, np.nan, np.float32), np.ones(2, np.float32), np.zeros(2, np.bool_)
    chunk = DecodedChunk([0, 1], ordered, both, order)
    cpu.merge_chunk(chunk, MergeArguments(theta, alpha, add, MergeRules(), code), base.copy())
    cpu.sum_of_signs(chunk, theta, alpha, MergeRules(), code)
    cpu.scatter(ordered, order, base.copy())
    cpu.count_high(ordered, z, code, np.zeros(1 << 16, np.int64))
    for counter in (np.uint32, np.int64):
        cpu.count_low(ordered, z, code, np.zeros(1 << 16, np.int32), np.zeros((1, 1 << 16), counter))
        numbers = np.ones(5, np.float32)
        cpu.count_numbers_low(numbers, np.zeros(1 << 16, np.int32), np.zeros((1, 1 << 16), counter))
    cpu.count_numbers_high(numbers, np.zeros(1 << 16, np.int64))
    cpu.count_values(ordered, z, code)
    cpu.add_differences(ordered, z, 1.0, code, np.empty(5000, np.float32), first=True)
    some = ElementFilter("", key=(1, 2), below=np.array([1 << 31], np.int64))
    for places in (order, None):
        some.steps(ordered, z, 0, places, dtype)
    some.numbers(numbers, 0)
    MagnitudeSum().add(numbers)


def test_every_variant_that_persona_calls_stands_alone_and_has_golden_cases_and_no_other_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: set[tuple[str, str, tuple[str, ...]]] = set()
    real = Kernel.variant

    def variant(self: Kernel, kinds: tuple[str, ...]) -> Any:
        called.add((self._module, self._name, kinds))
        found = real(self, kinds)
        assert found.__module__ == "persona.codec.native.convention", "through numba"
        return found

    monkeypatch.setattr(kernel.Kernel, "variant", variant)
    for module in (base_codec, delta_codec, cpu, filters, lowrank):
        held = module.kernels
        monkeypatch.setattr(module, "kernels", Kernels(held.module, golden=held.golden))
    round_trip("BF16", cpu.BF16)
    round_trip("F32", cpu.F32)
    lowrank.low_rank(
        np.ones((2, 3), np.float32), np.ones((4, 2), np.float32), 0.5, 0, numbers := np.empty(12, np.float32)
    )
    assert numbers.tolist() == [1.0] * 12
    assert called == {(kernels.module, name, kinds) for kernels, name, kinds in VARIANTS}
