"""The merge on CUDA: one fused Triton kernel, bit-equal to `persona.merge.reference` and to the CPU loops.

A word is an element's bits in 32 bits. A 16-bit element lies in the upper half: there its order wraps around
correctly, and a bf16 element is the binary32 number of its word. A side is a sign that a coordinate can
elect. The kernel keeps every sum over members for both sides at once, and the elected sign chooses at the
end. So each difference is read once for any number of terms, and nothing waits in registers for the election.

Invariants: binary32 only, no contraction (`enable_fp_fusion=False`), no flush to zero, true division,
additions in the order of the terms. No result depends on the block or the number of warps. The reasons and
the bytes moved: docs/decisions/016-terms-on-a-gpu.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
import triton
import triton.language as tl

from persona.frozen import dataclass
from persona.merge.arithmetic.cpu import F16, F32, Array, cuts
from persona.merge.codes import Divide, Elect, Merge, Weigh
from persona.merge.rules import MergeRules

_F16 = tl.constexpr(F16)
_F32 = tl.constexpr(F32)
_AFTER = tl.constexpr(int(Weigh.AFTER))
_MASS = tl.constexpr(int(Elect.MASS))
_COUNT = tl.constexpr(int(Elect.COUNT))
_NONE = tl.constexpr(int(Elect.NONE))
_MEAN = tl.constexpr(int(Merge.MEAN))
_MAX = tl.constexpr(int(Merge.MAX))
_STRENGTH = tl.constexpr(int(Divide.STRENGTH))
_BY_COUNT = tl.constexpr(int(Divide.COUNT))
_WEIGHT = tl.constexpr(int(Divide.WEIGHT))
_MAGNITUDE = tl.constexpr(0x7FFFFFFF)
_INFINITE = tl.constexpr(0x7F800000)

OPTIONS: Final = {"num_warps": 4, "enable_fp_fusion": False, "maxnreg": 168}
"""168 registers let three blocks be resident; without a limit of its own the assembler spills a few."""
BLOCK: Final = 512
"""Elements of a block, four a thread (docs/decisions/016-terms-on-a-gpu.md)."""
_APART: Final = 4
"""Numbers of terms begin at multiples of so many, 16 bytes: a pointer of other alignment needs other code."""
UNROLLED: Final = 4
"""Terms that are loaded and merged as one run of instructions; more go four at a time."""


@triton.jit
def _word(bits: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Stored bits → word, int32."""
    word = bits.to(tl.uint32)
    if DTYPE != _F32:
        word = word << 16
    return word.to(tl.int32, bitcast=True)


@triton.jit
def _number(word: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Word → binary32, exact."""
    if DTYPE == _F16:
        return (word >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return word.to(tl.float32, bitcast=True)


@triton.jit
def _magnitude(number: tl.tensor) -> tl.tensor:
    """|number| as int32 that orders like it; NaN is the largest."""
    return number.to(tl.int32, bitcast=True) & _MAGNITUDE


@triton.jit
def _strange(word: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Whether a word is not finite."""
    exponent: tl.constexpr = 0x7C000000 if DTYPE == _F16 else 0x7F800000
    return (word & exponent) == exponent


@triton.jit
def _ranked(word: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """mono(word), its top bit turned: a signed integer that orders like the number. Its own inverse."""
    magnitude: tl.constexpr = 0x7FFFFFFF if DTYPE == _F32 else 0x7FFF0000
    return word ^ ((word >> 31) & magnitude)


@triton.jit
def _moved(word: tl.tensor, z: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """The word unzigzag(z) steps from another in the order of the numbers."""
    if DTYPE == _F32:
        d = (z >> 1).to(tl.int32, bitcast=True) ^ -((z & 1).to(tl.int32))
        return _ranked(_ranked(word, DTYPE) + d, DTYPE)
    # Two at once: the upper half of a pair has remains of the lower half below it, until they are masked.
    lower, upper = tl.split(tl.reshape(z, [z.shape[0] // 2, 2]))
    pair = (upper.to(tl.uint32) << 16) | lower.to(tl.uint32)
    d = ((pair >> 1) & 0x7FFF7FFF) ^ ((pair & 0x00010001) * 0xFFFF)
    d = tl.reshape(tl.join(d << 16, d & 0xFFFF0000), z.shape).to(tl.int32, bitcast=True)
    return _ranked(_ranked(word, DTYPE) + d, DTYPE)


@triton.jit
def _change(f: tl.tensor, b: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """t = f − b for a word f and a number b."""
    t = _number(f, DTYPE) - b
    if DTYPE == _F16:
        t = tl.where(_strange(f, DTYPE), float("nan"), t)
    return t


@triton.jit
def _loaded(
    row_of_ptr: tl.tensor,
    z_ptr: tl.tensor,
    z_stride: tl.tensor,
    numbers_ptr: tl.tensor,
    numbers_stride: tl.tensor,
    lane: tl.tensor,
    inside: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """(z, number, whether it is a row of steps) of a term's row; of z and number the other one is 0.

    The row that a term does not have is not read: every lane of that load is masked.
    """
    row = tl.load(row_of_ptr).to(tl.int64)
    steps = tl.broadcast_to(row, lane.shape) >= 0
    z = tl.load(z_ptr + tl.maximum(row, 0) * z_stride + lane, mask=inside & steps, other=0)
    numbers = numbers_ptr + tl.maximum(-1 - row, 0) * numbers_stride
    return z, tl.load(numbers + lane, mask=inside & ~steps, other=0.0), steps


@triton.jit
def _vote(
    t: tl.tensor, cut: tl.tensor, alpha: tl.tensor, WEIGH: tl.constexpr, CAREFUL: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """(w, v) = (α·u, the vote), with u = t trimmed. If α = 0, nothing of an infinite t remains."""
    u = tl.where(tl.abs(t) < cut, 0.0, t)
    if CAREFUL:
        u = tl.where(cut == cut, u, 0.0)
    w = alpha * u
    if CAREFUL:
        w = tl.where(alpha != 0.0, w, 0.0)
    if WEIGH == _AFTER:
        return w, u
    return w, w


@triton.jit
def _elected(e: tl.tensor, v: tl.tensor, ELECT: tl.constexpr) -> tl.tensor:
    """e with one vote more."""
    if ELECT == _MASS:
        return e + v
    if ELECT == _COUNT:
        return tl.where(v > 0.0, e + 1.0, tl.where(v < 0.0, e - 1.0, e))
    return e


@triton.jit
def _rounded(y: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Binary32 that does not overflow → word, to nearest even."""
    if DTYPE == _F32:
        return y.to(tl.int32, bitcast=True)
    if DTYPE == _F16:
        return y.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) << 16
    bits = y.to(tl.int32, bitcast=True)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000


@triton.jit
def _add(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return a + b


@triton.jit
def _merge_kernel(
    base_ptr: tl.tensor,
    z_ptr: tl.tensor,
    order_ptr: tl.tensor,
    out_ptr: tl.tensor,
    alpha_ptr: tl.tensor,
    cut_ptr: tl.tensor,
    not_finite_ptr: tl.tensor,
    row_of_ptr: tl.tensor,
    numbers_ptr: tl.tensor,
    n: tl.tensor,
    z_stride: tl.tensor,
    numbers_stride: tl.tensor,
    lam: tl.tensor,
    VOTES: tl.constexpr,
    ADDS: tl.constexpr,
    WEIGH: tl.constexpr,
    ELECT: tl.constexpr,
    MERGE: tl.constexpr,
    DIVIDE: tl.constexpr,
    TIE: tl.constexpr,
    DTYPE: tl.constexpr,
    CAREFUL: tl.constexpr,
    LONE: tl.constexpr,
    STRONG: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """out = round(b + x) for BLOCK elements, by docs/numerics.md:

        f_k = mono⁻¹(mono(b) + unzigzag(z_k))    t_k = f_k − b
        u_k = t_k if |t_k| ≥ cut_k else 0        w_k = α_k · u_k
        v_k = w_k or u_k                         e = Σ v_k or Σ sign(v_k)    s = sign(e), for e = 0 TIE
        A = {k : v_k ≠ 0, sign(v_k) = s}         elect = none: {k : w_k ≠ 0}
        m = Σ_A w_k ÷ D, Σ_A w_k or the largest  x = λ·m, then + α_k · t_k of the terms that add

    The VOTES terms come first, then the ADDS that add. base, out: uint[n] at `base_ptr`, `out_ptr`; z:
    uint[VOTES + ADDS, ≥ n], rows `z_stride` elements apart; order: uint32[n] or None: element j goes
    to out[order[j]]. alpha, cut: float32, cut NaN to keep nothing. not_finite: int64[1], added to. row_of:
    int32[VOTES + ADDS] or None, and numbers: float32[Kt, ≥ n], as for `merge_chunk`: without row_of, term k
    has row k of z, and this is the whole code of the kernel.

    What is not finite shows in e or in b + x, unless CAREFUL: then t and w of every term and D are watched
    too. LONE: whether a term that contributes alone may be itself (α = 1, and λ = 1 or it adds). STRONG:
    whether DIVIDE is by strength and some |α| is above 1.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = lane < n - start
    bits = tl.load(base_ptr + start + lane, mask=inside, other=0)
    word = _word(bits, DTYPE)
    b = _number(word, DTYPE)

    zero = tl.full([BLOCK], 0.0, tl.float32)
    nothing = tl.full([BLOCK], 0, tl.int32)
    e, peak, changed = zero, nothing, nothing
    total_p, total_n, divisor_p, divisor_n = zero, zero, zero, zero
    count_p, count_n, own_p, own_n = zero, zero, nothing, nothing
    strongest_p, strongest_n = zero, zero

    row = z_ptr + start
    if row_of_ptr is not None:
        numbers = numbers_ptr + start
    for k in tl.range(0, VOTES, loop_unroll_factor=UNROLL):
        if row_of_ptr is None:
            z = tl.load(row + lane, mask=inside, other=0)
            row += z_stride
        else:
            z, number, steps = _loaded(row_of_ptr + k, row, z_stride, numbers, numbers_stride, lane, inside)
        alpha = tl.load(alpha_ptr + k)
        cut = tl.load(cut_ptr + k)
        f = _moved(word, z, DTYPE)
        t = _change(f, b, DTYPE)
        if row_of_ptr is not None:
            t = tl.where(z != 0, t, number)  # 0 if z is 0, even if b is not finite
        w, v = _vote(t, cut, alpha, WEIGH, CAREFUL)
        e = _elected(e, v, ELECT)
        changed |= z.to(tl.int32)
        if CAREFUL:
            peak = tl.maximum(peak, tl.maximum(_magnitude(t), _magnitude(w)))
        if ELECT == _NONE:
            p = w != 0.0
            q = p
        else:
            p, q = v > 0.0, v < 0.0
        if MERGE == _MAX:
            total_p = tl.where(p & (_magnitude(w) > _magnitude(total_p)), w, total_p)
            total_n = tl.where(q & (_magnitude(w) > _magnitude(total_n)), w, total_n)
        else:
            total_p = tl.where(p, total_p + w, total_p)
            total_n = tl.where(q, total_n + w, total_n)
        if MERGE == _MEAN:
            if DIVIDE == _BY_COUNT:
                share = 1.0
            elif DIVIDE == _WEIGHT:
                share = alpha
            else:
                share = tl.abs(alpha)
            divisor_p = tl.where(p, divisor_p + share, divisor_p)
            divisor_n = tl.where(q, divisor_n + share, divisor_n)
        if STRONG:
            strongest_p = tl.where(p, tl.maximum(strongest_p, tl.abs(alpha)), strongest_p)
            strongest_n = tl.where(q, tl.maximum(strongest_n, tl.abs(alpha)), strongest_n)
        if LONE:
            # One contribution counts 1 if it may be itself and 2 if not: a sum of 1 is a lone one that is.
            one = tl.where((alpha == 1.0) & (lam == 1.0), 1.0, 2.0)
            if row_of_ptr is not None:
                one = tl.where(steps, one, 2.0)
            count_p = tl.where(p, count_p + one, count_p)
            count_n = tl.where(q, count_n + one, count_n)
            own_p = tl.where(p, f, own_p)
            own_n = tl.where(q, f, own_n)

    # If nobody is elected, m is e: 0, or NaN for infinite changes against each other.
    if ELECT == _NONE:
        positive = zero == 0.0
        negative = positive
    elif TIE == 0:
        positive, negative = e > 0.0, e < 0.0
    elif TIE > 0:
        positive, negative = e >= 0.0, e < 0.0
    else:
        positive, negative = e > 0.0, e <= 0.0
    total = tl.where(positive, total_p, tl.where(negative, total_n, e))
    count = tl.where(positive, count_p, tl.where(negative, count_n, 0.0))
    own = tl.where(positive, own_p, own_n)
    if CAREFUL:
        peak = tl.maximum(peak, _magnitude(e))
    if MERGE == _MEAN:
        divisor = tl.where(positive, divisor_p, divisor_n)
        if CAREFUL:
            divisor = tl.where(positive | negative, divisor, 0.0)
        if DIVIDE == _STRENGTH:
            divisor = tl.maximum(divisor, 1.0)
            if STRONG:
                strongest = tl.where(positive, strongest_p, strongest_n)
                divisor = tl.math.div_rn(divisor, tl.maximum(strongest, 1.0))
        else:
            divisor = tl.where(divisor == 0.0, 1.0, divisor)
        # A dividend of 0 would send its warp to the slow path of the division.
        m = tl.math.div_rn(tl.where(total.to(tl.int32, bitcast=True) == 0, 1.0, total), divisor)
        if CAREFUL:
            peak = tl.maximum(peak, _magnitude(divisor))
        x = tl.where(total == 0.0, 0.0, lam * m)
    else:
        x = lam * total

    for k in tl.range(VOTES, VOTES + ADDS, loop_unroll_factor=UNROLL):
        if row_of_ptr is None:
            z = tl.load(row + lane, mask=inside, other=0)
            row += z_stride
        else:
            z, number, steps = _loaded(row_of_ptr + k, row, z_stride, numbers, numbers_stride, lane, inside)
        alpha = tl.load(alpha_ptr + k)
        f = _moved(word, z, DTYPE)
        t = _change(f, b, DTYPE)
        if row_of_ptr is not None:
            t = tl.where(z != 0, t, number)  # 0 if z is 0, even if b is not finite
        at, _ = _vote(t, 0.0, alpha, 0, CAREFUL)
        x += at
        changed |= z.to(tl.int32)
        if CAREFUL:
            peak = tl.maximum(peak, _magnitude(t))
        if LONE:
            one = tl.where(alpha == 1.0, 1.0, 2.0)
            if row_of_ptr is not None:
                one = tl.where(steps, one, 2.0)
            count = tl.where(at != 0.0, count + one, count)
            own = tl.where(at != 0.0, f, own)

    nan: tl.constexpr = 0x7E000000 if DTYPE == _F16 else 0x7FC00000
    limit: tl.constexpr = 0x477FF000 if DTYPE == _F16 else (0x7F800000 if DTYPE == _F32 else 0x7F7F8000)
    y = b + x
    untouched = x == 0.0
    bad = _magnitude(y) >= limit
    if CAREFUL or LONE:
        undecided = (e != e) | _strange(word, DTYPE)
        if row_of_ptr is not None:
            undecided = (e != e) | (_strange(word, DTYPE) & (changed != 0))
    if CAREFUL:
        if MERGE == _MEAN:
            untouched &= _magnitude(divisor) < _INFINITE
        bad = tl.where(untouched, undecided, bad | undecided | (peak >= _INFINITE))
    if row_of_ptr is None:
        # A base that is not finite makes t NaN even if nothing changes.
        bad &= changed != 0
        untouched |= changed == 0
    elif not CAREFUL:
        bad &= (x != 0.0) | (changed != 0)
    result = tl.where(bad, nan, tl.where(untouched, word, _rounded(y, DTYPE)))
    if row_of_ptr is not None:
        bad &= (word != nan) | (changed != 0)  # a base that is this NaN already is not counted
    if LONE:
        alone = tl.where(undecided, False, count == 1.0)
        result = tl.where(alone, own, result)
        bad = tl.where(alone, _strange(own, DTYPE), bad)

    if DTYPE != _F32:
        result = result >> 16
    if order_ptr is not None:
        out = out_ptr + tl.load(order_ptr + start + lane, mask=inside, other=0)
    else:
        out = out_ptr + start + lane
    tl.store(out, result.to(bits.dtype), mask=inside)
    many = tl.reduce(bad.to(tl.int32), 0, _add)
    tl.atomic_add(not_finite_ptr, many.to(tl.int64), mask=many > 0, sem="relaxed")


@triton.jit
def _signs_kernel(
    base_ptr: tl.tensor,
    z_ptr: tl.tensor,
    alpha_ptr: tl.tensor,
    cut_ptr: tl.tensor,
    signs_ptr: tl.tensor,
    row_of_ptr: tl.tensor,
    numbers_ptr: tl.tensor,
    n: tl.tensor,
    z_stride: tl.tensor,
    numbers_stride: tl.tensor,
    VOTES: tl.constexpr,
    WEIGH: tl.constexpr,
    ELECT: tl.constexpr,
    DTYPE: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """signs: int64[1] += Σ sign(e) over BLOCK elements; e and the arguments as for `_merge_kernel`."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = lane < n - start
    stored = _word(tl.load(base_ptr + start + lane, mask=inside, other=0), DTYPE)
    word = tl.where(_strange(stored, DTYPE), 0, stored)
    b = _number(word, DTYPE)
    e = tl.full([BLOCK], 0.0, tl.float32)
    row = z_ptr + start
    if row_of_ptr is not None:
        numbers = numbers_ptr + start
    for k in tl.range(0, VOTES, loop_unroll_factor=UNROLL):
        if row_of_ptr is None:
            z = tl.load(row + lane, mask=inside, other=0)
            row += z_stride
        else:
            z, number, _ = _loaded(row_of_ptr + k, row, z_stride, numbers, numbers_stride, lane, inside)
        t = _change(_moved(word, z, DTYPE), b, DTYPE)
        if row_of_ptr is not None:
            t = tl.where(z != 0, t, number)
        _, v = _vote(t, tl.load(cut_ptr + k), tl.load(alpha_ptr + k), WEIGH, True)
        e = _elected(e, v, ELECT)
    signs = tl.reduce((e > 0.0).to(tl.int32) - (e < 0.0).to(tl.int32), 0, _add)
    tl.atomic_add(signs_ptr, signs.to(tl.int64), mask=signs != 0, sem="relaxed")


@dataclass(frozen=True)
class Terms:
    """The terms that reach a tensor, on a device: the first `votes` vote, the others join by adding.

    alpha: float32[K]; cut: float32[K], the smallest kept |t|, NaN if none is kept. `careful`, `lone` and
    `strong` are those of `_merge_kernel`: they depend on the rules too.
    """

    alpha: torch.Tensor
    cut: torch.Tensor
    votes: int
    careful: bool
    lone: bool
    strong: bool

    @classmethod
    def of(cls, theta: Array, alpha: Array, add: Array, rules: MergeRules, device: Any = "cuda") -> Terms:
        """The terms of theta, alpha: float32[K] and add: bool[K], as in `cpu.merge_chunk`.

        All voting terms stand first, each kind in canonical order. Raises `ValueError` if the arrays do not
        fit.
        """
        return cls.all([(theta, alpha, add)], rules, device)[0]

    @classmethod
    def all(
        cls, given: Sequence[tuple[Array, Array, Array]], rules: MergeRules, device: Any = "cuda"
    ) -> list[Terms]:
        """The terms of several (theta, alpha, add) as `of` takes them, copied to the device at once."""
        kinds: dict[tuple[bytes, bytes, bytes], tuple[int, bool, bool, bool]] = {}
        length = -(-max((alpha.size for _, alpha, _ in given), default=0) // _APART) * _APART
        numbers = np.zeros((len(given), 2, length), np.float32)
        found = []
        for (theta, alpha, add), row in zip(given, numbers, strict=True):
            key = alpha.tobytes(), add.tobytes(), (theta < 0).tobytes()
            if key not in kinds:
                kinds[key] = cls._kind(theta, alpha, add, rules)
            row[0, : alpha.size] = alpha
            row[1, : alpha.size] = cuts(theta).view(np.float32)
            found.append((alpha.size, kinds[key]))
        there = torch.from_numpy(numbers).to(torch.device(device))
        return [
            cls(row[0, :size], row[1, :size], *kind) for row, (size, kind) in zip(there, found, strict=True)
        ]

    @staticmethod
    def _kind(theta: Array, alpha: Array, add: Array, rules: MergeRules) -> tuple[int, bool, bool, bool]:
        """votes, careful, lone and strong of terms. Raises `ValueError`."""
        if theta.dtype != np.float32 or alpha.dtype != np.float32 or add.dtype != np.bool_:
            raise ValueError("theta and alpha must be float32, and add bool")
        if not theta.shape == alpha.shape == add.shape == (alpha.size,):
            raise ValueError("theta, alpha and add must have one element for each term")
        votes = int(np.count_nonzero(~add))
        if add[:votes].any():
            raise ValueError("terms that join by adding must come after the terms that vote")
        weigh, elect, merge, divide = rules.codes()
        silent = (alpha == 0) | (~add & (theta < 0))
        with np.errstate(over="ignore"):
            bounded = np.isfinite(np.abs(alpha[:votes]).cumsum(dtype=np.float32)).all()
        plain = (
            (weigh, elect) == (Weigh.BEFORE, Elect.MASS)
            and merge != Merge.MAX
            and bounded
            and not silent.any()
        )
        lone = bool(((alpha == 1) & (add | (rules.lambda_ == 1))).any())
        by_strength = (merge, divide) == (Merge.MEAN, Divide.STRENGTH)
        strong = by_strength and bool((np.abs(alpha[:votes]) > 1).any())
        return votes, not plain, lone, strong


def _constants(terms: Terms, rules: MergeRules, majority: int, dtype: int) -> dict[str, Any]:
    """The constants that `_merge_kernel` is compiled for."""
    adds = terms.alpha.numel() - terms.votes
    kind = terms.careful, terms.lone, terms.strong
    return {**_chosen(rules, terms.votes, adds, kind, majority, dtype), **_shape(terms)}


@lru_cache(256)
def _chosen(
    rules: MergeRules, votes: int, adds: int, kind: tuple[bool, bool, bool], majority: int, dtype: int
) -> dict[str, Any]:
    weigh, elect, merge, divide = rules.codes()
    careful, lone, strong = kind
    return {
        "VOTES": votes,
        "ADDS": adds,
        "WEIGH": weigh,
        "ELECT": elect,
        "MERGE": merge,
        "DIVIDE": divide if merge == Merge.MEAN else 0,
        "TIE": rules.tie(majority),
        "DTYPE": dtype,
        "CAREFUL": careful,
        "LONE": lone,
        "STRONG": strong,
    }


def _shape(terms: Terms) -> dict[str, int]:
    """How many terms a loop takes at once, and the elements of a block."""
    return {"UNROLL": max(1, min(terms.votes, UNROLLED)), "BLOCK": BLOCK}


def _launch(kernel: Any, base: torch.Tensor, *arguments: Any, **constants: Any) -> None:
    """Runs a kernel over the elements of base, on the current stream of its device."""
    if base.numel():
        with torch.cuda.device_of(base):  # type: ignore[no-untyped-call]
            kernel[(-(-base.numel() // BLOCK),)](base, *arguments, **constants, **OPTIONS)


def _check(
    base: torch.Tensor,
    z: torch.Tensor,
    numbers: torch.Tensor | None,
    row_of: torch.Tensor | None,
    terms: Terms,
    counter: torch.Tensor,
    dtype: int,
) -> None:
    """Checks the arguments, which the kernels do not."""
    uint, count = torch.uint32 if dtype == F32 else torch.uint16, terms.alpha.numel()
    if base.dtype != uint or z.dtype != uint or counter.dtype != torch.int64 or counter.numel() != 1:
        raise ValueError("base and z must be of the dtype's unsigned integers, and not_finite int64[1]")
    if base.ndim != 1 or z.ndim != 2 or (row_of is None and len(z) != count) or z.shape[1] < base.numel():
        raise ValueError("z must have one row for each term, as long as the chunk")
    if not base.is_contiguous() or (z.numel() and z.stride(1) != 1):
        raise ValueError("base and the rows of z must be contiguous")
    if not base.device == z.device == terms.alpha.device == counter.device:
        raise ValueError("the chunk, its terms and not_finite must be on one device")
    if (numbers is None) != (row_of is None):
        raise ValueError("numbers and row_of must be given together")
    if numbers is not None and row_of is not None:
        if numbers.dtype != torch.float32 or row_of.dtype != torch.int32 or row_of.shape != (count,):
            raise ValueError("numbers must be float32, and row_of int32, one for each term")
        if (
            numbers.ndim != 2
            or numbers.shape[1] < base.numel()
            or (numbers.numel() and numbers.stride(1) != 1)
        ):
            raise ValueError("the rows of numbers must be as long as the chunk, and contiguous")
        if not base.device == numbers.device == row_of.device:
            raise ValueError("the chunk, numbers and row_of must be on one device")


def merge_chunk(
    base: torch.Tensor,
    z: torch.Tensor,
    numbers: torch.Tensor | None,
    row_of: torch.Tensor | None,
    order: torch.Tensor | None,
    out: torch.Tensor,
    terms: Terms,
    rules: MergeRules,
    dtype: int,
    not_finite: torch.Tensor,
    majority: int = 0,
) -> None:
    """Merges one chunk of n elements on its device, in stream order.

    Adds the number of results that are not finite to `not_finite`. See docs/numerics.md.

    base: uint[n]; uint is uint16 for BF16 and F16, uint32 for F32. z: uint[Kz, ≥ n] and numbers: float32[Kt,
    ≥ n], the rows of steps and of numbers, in the order of the base's elements. row_of: int32[K], in the
    order of `terms`: r ≥ 0 is row r of z, r < 0 is row −1 − r of numbers. If numbers and row_of are None, z
    has the rows of the terms in their order. order: uint32[≥ n], so that out[order[j]]
    is element j, or None, so that out[j] is. out: uint[≥ n]. not_finite: int64[1]. dtype: BF16, F16 or F32.
    majority: Σ sign(e) over the model, if the rules ask for it. The widest loads need pointers and strides of
    16 bytes, and an n that 16 divides. Raises `ValueError` if the arguments do not fit.
    """
    _check(base, z, numbers, row_of, terms, not_finite, dtype)
    if out.dtype != base.dtype or out.device != base.device or out.numel() < base.numel():
        raise ValueError("out must have the length of the chunk, and the type and device of base")
    if not out.is_contiguous():
        raise ValueError("out must be contiguous")
    if order is not None:
        if order.dtype != torch.uint32 or order.device != base.device or order.numel() < base.numel():
            raise ValueError("order must be uint32, with the length and the device of the chunk")
        if not order.is_contiguous():
            raise ValueError("order must be contiguous")
    constants = _constants(terms, rules, majority, dtype)
    rows = not_finite, row_of, numbers, base.numel(), z.stride(0), _stride(numbers)
    _launch(
        _merge_kernel, base, z, order, out, terms.alpha, terms.cut, *rows, float(rules.lambda_), **constants
    )


def _stride(numbers: torch.Tensor | None) -> int | None:
    return None if numbers is None else numbers.stride(0)


def sum_of_signs(
    base: torch.Tensor,
    z: torch.Tensor,
    numbers: torch.Tensor | None,
    row_of: torch.Tensor | None,
    terms: Terms,
    rules: MergeRules,
    dtype: int,
    signs: torch.Tensor,
) -> None:
    """Adds Σ sign(e) over one chunk to signs: int64[1], an exact integer; arguments as for `merge_chunk`."""
    _check(base, z, numbers, row_of, terms, signs, dtype)
    weigh, elect, _, _ = rules.codes()
    constants = {"VOTES": terms.votes, "WEIGH": weigh, "ELECT": elect, "DTYPE": dtype, **_shape(terms)}
    rows = row_of, numbers, base.numel(), z.stride(0), _stride(numbers)
    _launch(_signs_kernel, base, z, terms.alpha, terms.cut, signs, *rows, **constants)
