"""The loops of the merge on the CPU, compiled by numba and called through `cpu`.

**block** — BLOCK elements of a chunk, whose scratch memory stays in the L1 and L2 caches.

A block goes through short loops over terms and elements without branches, so that each is vectorised: open
the base, open each term (z or t → u → v), elect, gather the members, divide, add, round, scatter to element
order. The rules are chosen between those loops, never inside. The most common rules have loops of their own
that pass over a block once (`fused`).

The loops assume that every number is finite. They also fold the exponents of all numbers into one word. If
that shows a number that is not finite, `_coordinate` computes the block again, one element at a time, with
the full rules of docs/numerics.md.

Invariants: binary32 only, no contraction (`fastmath` stays off), additions in the order of the terms, so no
result depends on block size, threads or SIMD width. Nothing here allocates, raises or checks bounds, so the
machine code needs no runtime (`persona.codec.native`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import float32, njit, uint32
from numba.extending import intrinsic, overload

from persona.codec import elements
from persona.codec.simd import bit_count, bits_reaching, take_chosen
from persona.codec.width import VECTOR_BYTES
from persona.merge.arithmetic import fused
from persona.merge.arithmetic.layout import BLOCK, KEEP_NOTHING_CUT
from persona.merge.codes import Divide, Elect, Merge, Weigh

# Codes as plain integers, which the compiler folds.
BF16: Final = elements.BF16.code
F16: Final = elements.F16.code
F32: Final = elements.F32.code
_AFTER: Final = int(Weigh.AFTER)
_MASS: Final = int(Elect.MASS)
_COUNT: Final = int(Elect.COUNT)
_NONE: Final = int(Elect.NONE)
_MEAN: Final = int(Merge.MEAN)
_SUM: Final = int(Merge.SUM)
_MAX: Final = int(Merge.MAX)
_STRENGTH: Final = int(Divide.STRENGTH)
_BY_COUNT: Final = int(Divide.COUNT)
_WEIGHT: Final = int(Divide.WEIGHT)

_TOP = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_HIGH = np.uint32(0xFFFF0000)
_EXPONENT = np.uint32(0x7F800000)
_EXPONENT_STEP = np.uint32(0x00800000)
_EXPONENT_F16 = np.uint32(0x7C000000)
_QUIET_NAN = np.uint32(0x7FC00000)
_QUIET_NAN_F16 = np.uint32(0x7E000000)
_KEEP_NOTHING_CUT = np.uint32(KEEP_NOTHING_CUT)
_TWO_112 = np.float32(2.0**112)
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


_intrinsic: Any = intrinsic
_overload: Any = overload


def _compiled(function: Any) -> Any:
    return njit(nogil=True, error_model="numpy")(function)


@_intrinsic
def _as_float(_context: Any, bits: Any) -> Any:
    """The binary32 number of 32 bits."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(float32))

    return float32(uint32), codegen


@_intrinsic
def _as_bits(_context: Any, number: Any) -> Any:
    """The 32 bits of a binary32 number."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(uint32))

    return uint32(float32), codegen


@_intrinsic
def _up(_context: Any, word: Any, count: Any) -> Any:
    """word << count in 32 bits; numba would shift in 64."""

    def codegen(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.shl(args[0], args[1])

    return uint32(uint32, uint32), codegen


@_intrinsic
def _down(_context: Any, word: Any, count: Any) -> Any:
    """word >> count in 32 bits."""

    def codegen(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.lshr(args[0], args[1])

    return uint32(uint32, uint32), codegen


# One element. An element of 16 bits is kept in the upper half of a 32-bit word (`shift` is 16, else 0), so
# that its order wraps around correctly, and a bf16 element is the binary32 number of its word.


@_compiled
def _mono(word: Any) -> Any:
    return np.uint32(word ^ np.uint32(np.uint32(np.int32(word) >> np.int32(31)) | _TOP))


@_compiled
def _moved(mono: Any, z: Any, shift: Any) -> Any:
    """The word that lies unzigzag(z) steps from that of `mono`; for 16 bits the lower half is noise."""
    d = np.uint32(np.uint32(z >> np.uint32(1)) ^ np.uint32(np.uint32(0) - np.uint32(z & np.uint32(1))))
    m = np.uint32(mono + _up(d, shift))
    return np.uint32(m ^ np.uint32(~np.uint32(np.uint32(np.int32(m) >> np.int32(31)) & _MAGNITUDE)))


@_compiled
def _half_float(word: Any) -> Any:
    """The number of a finite fp16 word, exact."""
    magnitude = _as_float(np.uint32(np.uint32(word & _MAGNITUDE) >> np.uint32(3))) * _TWO_112
    return _as_float(np.uint32(_as_bits(magnitude) | np.uint32(word & _TOP)))


@_compiled
def _round_bf16(y: Any) -> Any:
    bits = _as_bits(y)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint32(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd)) & _HIGH)


@_compiled
def _round_f16(y: Any) -> Any:
    bits = _as_bits(y)
    a = np.uint32(bits & _MAGNITUDE)
    odd = np.uint32(np.uint32(a >> np.uint32(13)) & np.uint32(1))
    rebased = np.uint32(np.uint32(a - np.uint32(0x38000000)) + np.uint32(np.uint32(0xFFF) + odd))
    normal = np.uint32(np.uint32(rebased << np.uint32(3)) & _HIGH)
    # Below the normal numbers the addition of 0.5 rounds at the last bit of fp16.
    small = np.uint32(_as_bits(np.float32(_as_float(a) + _HALF)) - np.uint32(0x3F000000))
    h = np.uint32(small << np.uint32(16)) if a < np.uint32(0x38800000) else normal
    h = _EXPONENT_F16 if a >= np.uint32(0x47800000) else h
    return np.uint32(h | np.uint32(bits & _TOP))


@_compiled
def _overflowing(number: Any) -> Any:
    """A word whose top bit is set if the number is not finite."""
    return np.uint32(np.uint32(_as_bits(number) & _MAGNITUDE) + _EXPONENT_STEP)


# One block. Every function is loops of at most BLOCK elements without branches. Load both operands of a
# select first: a load that only one side needs becomes a branch on CPUs without masked loads.


@_compiled
def _any_change(z: Any, n: int) -> Any:
    found = np.uint32(0)
    for i in range(n):
        found = np.uint32(found | np.uint32(z[i]))
    return found != np.uint32(0)


@_compiled
def _any_number(t: Any, n: int) -> Any:
    found = np.uint32(0)
    for i in range(n):
        found = np.uint32(found | np.uint32(_as_bits(t[i]) & _MAGNITUDE))
    return found != np.uint32(0)


@_compiled
def _open_base(half: bool, shift: Any, base: Any, n: int, b: Any, mono: Any) -> Any:
    """b and mono of a block, 0 for a b that is not finite; the top bit says whether there is one."""
    exponent = _EXPONENT_F16 if half else _EXPONENT
    bad = np.uint32(0)
    for i in range(n):
        word = _up(np.uint32(base[i]), shift)
        strange = np.uint32(word & exponent) == exponent
        word = np.uint32(0) if strange else word
        bad = np.uint32(bad | (_TOP if strange else np.uint32(0)))
        mono[i] = _mono(word)
        b[i] = _as_float(word)
    if half:
        for i in range(n):
            b[i] = _half_float(_as_bits(b[i]))
    return bad


@_compiled
def _open_term(
    half: bool,
    shift: Any,
    b: Any,
    mono: Any,
    z: Any,
    n: int,
    cut: Any,
    alpha: Any,
    factor: Any,
    mass: bool,
    v: Any,
    e: Any,
) -> Any:
    """v = factor · u of a block, and e += v if `mass`.

    The top bit says whether some t or α · u is not finite.
    """
    bad = np.uint32(0)
    if half:
        for i in range(n):
            word = np.uint32(_moved(mono[i], np.uint32(z[i]), shift) & _HIGH)
            t = np.float32(_half_float(word) - b[i])
            u = t if np.uint32(_as_bits(t) & _MAGNITUDE) >= cut else _ZERO
            v[i] = np.float32(factor * u)
            beyond = np.uint32(np.uint32(word & _MAGNITUDE) + np.uint32(0x04000000))
            bad = np.uint32(bad | np.uint32(beyond | _overflowing(np.float32(alpha * u))))
        if mass:
            _elect(_MASS, v, n, e)
        return bad
    mask = _up(np.uint32(0xFFFFFFFF), shift)
    if mass:
        for i in range(n):
            t = np.float32(_as_float(np.uint32(_moved(mono[i], np.uint32(z[i]), shift) & mask)) - b[i])
            u = t if np.uint32(_as_bits(t) & _MAGNITUDE) >= cut else _ZERO
            v[i] = np.float32(factor * u)
            e[i] = np.float32(e[i] + np.float32(factor * u))
            bad = np.uint32(bad | np.uint32(_overflowing(t) | _overflowing(np.float32(alpha * u))))
    else:
        for i in range(n):
            t = np.float32(_as_float(np.uint32(_moved(mono[i], np.uint32(z[i]), shift) & mask)) - b[i])
            u = t if np.uint32(_as_bits(t) & _MAGNITUDE) >= cut else _ZERO
            v[i] = np.float32(factor * u)
            bad = np.uint32(bad | np.uint32(_overflowing(t) | _overflowing(np.float32(alpha * u))))
    return bad


@_compiled
def _open_numbers(t: Any, n: int, cut: Any, alpha: Any, factor: Any, mass: bool, v: Any, e: Any) -> Any:
    """`_open_term` for a term whose t are given."""
    bad = np.uint32(0)
    for i in range(n):
        u = t[i] if np.uint32(_as_bits(t[i]) & _MAGNITUDE) >= cut else _ZERO
        v[i] = np.float32(factor * u)
        bad = np.uint32(bad | np.uint32(_overflowing(t[i]) | _overflowing(np.float32(alpha * u))))
    if mass:
        _elect(_MASS, v, n, e)
    return bad


@_compiled
def _fill(target: Any, n: int, value: Any) -> None:
    for i in range(n):
        target[i] = value


@_compiled
def _elect(elect: int, v: Any, n: int, e: Any) -> None:
    if elect == _MASS:
        for i in range(n):
            e[i] = np.float32(e[i] + v[i])
    elif elect == _COUNT:
        for i in range(n):
            e[i] = np.float32(e[i] + _sign(v[i]))


@_compiled
def _sign(number: Any) -> Any:
    return _ONE if number > _ZERO else (-_ONE if number < _ZERO else _ZERO)


@_compiled
def _decide(e: Any, n: int, tie: Any) -> Any:
    """e → s in place. The top bit tells whether e was not finite somewhere."""
    bad = np.uint32(0)
    for i in range(n):
        x = e[i]
        bad = np.uint32(bad | _overflowing(x))
        e[i] = _ONE if x > _ZERO else (-_ONE if x < _ZERO else tie)
    return bad


@_compiled
def _gather(
    elect: int,
    v: Any,
    s: Any,
    n: int,
    beta: Any,
    share: Any,
    total: Any,
    divisor: Any,
    is_itself: bool,
    z: Any,
    lone: Any,
) -> None:
    """Adds one term to Σw and D, w = beta · v, and remembers the z of one that is itself at full strength."""
    if elect == _NONE:
        for i in range(n):
            w = np.float32(beta * v[i])
            total[i] = np.float32(total[i] + w)
            divisor[i] = np.float32(divisor[i] + (share if w != _ZERO else _ZERO))
        if is_itself:
            _choose(False, v, s, z, n, lone)
    elif is_itself:
        for i in range(n):
            inside = np.float32(v[i] * s[i]) > _ZERO
            total[i] = np.float32(total[i] + (np.float32(beta * v[i]) if inside else _ZERO))
            divisor[i] = np.float32(divisor[i] + (share if inside else _ZERO))
            own, before = np.uint32(z[i]), lone[i]
            lone[i] = own if inside else before
    else:
        for i in range(n):
            inside = np.float32(v[i] * s[i]) > _ZERO
            total[i] = np.float32(total[i] + (np.float32(beta * v[i]) if inside else _ZERO))
            divisor[i] = np.float32(divisor[i] + (share if inside else _ZERO))


@_compiled
def _count_members(elect: int, v: Any, s: Any, n: int, beta: Any, count: Any) -> None:
    """Adds one term to |A|."""
    for i in range(n):
        held = np.float32(beta * v[i]) != _ZERO if elect == _NONE else np.float32(v[i] * s[i]) > _ZERO
        count[i] = np.float32(count[i] + (_ONE if held else _ZERO))


@_compiled
def _gather_strongest(elect: int, v: Any, s: Any, n: int, beta: Any, strength: Any, strongest: Any) -> None:
    """The larger of the strongest |α| in A and this term's."""
    for i in range(n):
        held = np.float32(beta * v[i]) != _ZERO if elect == _NONE else np.float32(v[i] * s[i]) > _ZERO
        own = strength if held else _ZERO
        strongest[i] = own if own > strongest[i] else strongest[i]


@_compiled
def _divide_strengths(divisor: Any, strongest: Any, n: int) -> None:
    """D of divide = strength in place of Σ|α|, if an |α| is above 1. It is not below 1."""
    for i in range(n):
        total = divisor[i] if divisor[i] > _ONE else _ONE
        most = strongest[i] if strongest[i] > _ONE else _ONE
        divisor[i] = np.float32(total / most)


@_compiled
def _gather_largest(elect: int, v: Any, s: Any, n: int, beta: Any, largest: Any, count: Any) -> None:
    """Replaces the largest w by this term's if that is larger, and adds to |A|."""
    if elect == _NONE:
        for i in range(n):
            w = np.float32(beta * v[i])
            largest[i] = w if abs(w) > abs(largest[i]) else largest[i]
            count[i] = np.float32(count[i] + (_ONE if w != _ZERO else _ZERO))
    else:
        for i in range(n):
            inside = np.float32(v[i] * s[i]) > _ZERO
            w = np.float32(beta * v[i]) if inside else _ZERO
            largest[i] = w if abs(w) > abs(largest[i]) else largest[i]
            count[i] = np.float32(count[i] + (_ONE if inside else _ZERO))


@_compiled
def _scale(merge: int, divide: int, total: Any, divisor: Any, n: int, lam: Any) -> None:
    """x = λ · m in place of Σw or the largest w."""
    if merge != _MEAN:
        for i in range(n):
            total[i] = np.float32(lam * total[i])
    elif divide == _STRENGTH:
        for i in range(n):
            d = divisor[i] if divisor[i] > _ONE else _ONE
            total[i] = np.float32(lam * np.float32(total[i] / d))
    else:
        for i in range(n):
            d = _ONE if divisor[i] == _ZERO else divisor[i]
            total[i] = np.float32(lam * np.float32(total[i] / d))


@_compiled
def _join(v: Any, n: int, x: Any, count: Any) -> None:
    """Adds one term with join = add."""
    for i in range(n):
        x[i] = np.float32(x[i] + v[i])
        count[i] = np.float32(count[i] + (_ONE if v[i] != _ZERO else _ZERO))


@_compiled
def _close(half: bool, shift: Any, base: Any, b: Any, x: Any, n: int, result: Any) -> Any:
    """The rounded sums, or the base's bits where x = 0; the top bit says whether a sum is not finite."""
    bad = np.uint32(0)
    if half:
        for i in range(n):
            word = _round_f16(np.float32(b[i] + x[i]))
            bad = np.uint32(bad | np.uint32(np.uint32(word & _MAGNITUDE) + np.uint32(0x04000000)))
            same = np.uint32(base[i])
            result[i] = same if x[i] == _ZERO else np.uint32(word >> np.uint32(16))
    elif shift == np.uint32(16):
        for i in range(n):
            word = _round_bf16(np.float32(b[i] + x[i]))
            bad = np.uint32(bad | _overflowing(_as_float(word)))
            same = np.uint32(base[i])
            result[i] = same if x[i] == _ZERO else np.uint32(word >> np.uint32(16))
    else:
        for i in range(n):
            y = np.float32(b[i] + x[i])
            bad = np.uint32(bad | _overflowing(y))
            same = np.uint32(base[i])
            result[i] = same if x[i] == _ZERO else _as_bits(y)
    return bad


@_compiled
def _choose(signed: bool, v: Any, s: Any, z: Any, n: int, lone: Any) -> None:
    """Remembers the z of a term that may come out as itself, at coordinates that it contributes to."""
    if signed:
        for i in range(n):
            own, before = np.uint32(z[i]), lone[i]
            lone[i] = own if np.float32(v[i] * s[i]) > _ZERO else before
    else:
        for i in range(n):
            own, before = np.uint32(z[i]), lone[i]
            lone[i] = own if v[i] != _ZERO else before


@_compiled
def _close_lone(shift: Any, mono: Any, lone: Any, count: Any, n: int, result: Any) -> None:
    """The fine-tune's own bits, if only one term contributes and that one may come out as itself."""
    for i in range(n):
        own, merged = _down(_moved(mono[i], lone[i], shift), shift), result[i]
        result[i] = own if (count[i] == _ONE) & (lone[i] != np.uint32(0)) else merged


@_compiled
def scatter(result: Any, order: Any, n: int, out: Any) -> None:
    """out[order[i]] = result[i] for n elements."""
    for i in range(n):
        out[order[i]] = result[i]


@_compiled
def _put(result: Any, order: Any, start: int, n: int, out: Any) -> None:
    """The results of a block at their places; without an order these are the elements from `start` on."""
    if order.size:
        scatter(result, order, n, out)
    else:
        target = out[start : start + n]  # an index start + i could be negative, so it would not vectorise
        for i in range(n):
            target[i] = result[i]


# One block in one pass.

_TOP16 = np.uint16(0x8000)
_LOW = np.uint32(0xFFFF)
_MARK = np.uint32(0x10000)


@_compiled
def _mono16(element: Any) -> Any:
    """The order-preserving map of 16 bits."""
    sign = np.uint16(np.uint16(0) - np.uint16(element >> np.uint16(15)))
    return np.uint16(element ^ np.uint16(sign | _TOP16))


@_compiled
def _element(mono: Any) -> Any:
    """The 16 bits of which `mono` is that map."""
    return np.uint16(mono ^ np.uint16(np.uint16(np.uint16(mono >> np.uint16(15)) - np.uint16(1)) | _TOP16))


@_compiled
def _opened(base: Any, z: Any, numbers: Any, row: int, start: int, n: int, f: Any, t: Any) -> Any:
    """t of a row of bf16: its numbers, or those of its steps, into t. Then f gets the elements, as bits."""
    if row < 0:
        return numbers[-1 - row, start : start + n]
    one, half, z_n = np.uint16(1), np.uint32(16), z[row, start : start + n]
    for i in range(n):
        d = np.uint16(np.uint16(z_n[i] >> one) ^ np.uint16(np.uint16(0) - np.uint16(z_n[i] & one)))
        after = np.uint32(_element(np.uint16(_mono16(base[i]) + d)))
        f[i] = _as_float(after)
        t[i] = np.float32(_as_float(_up(after, half)) - _as_float(_up(np.uint32(base[i]), half)))
    return t[:n]


exec(fused.source(), globals())
_merge_at_once: Any = globals()["merge_at_once"]


# One coordinate by the full rules of docs/numerics.md: slow, for numbers that are not finite.


@_compiled
def _is_finite(number: Any) -> Any:
    return np.uint32(_as_bits(number) & _MAGNITUDE) < _EXPONENT


@_compiled
def _tau(half: bool, shift: Any, word: Any, z: Any) -> Any:
    """(f's word, t) of one element."""
    if z == np.uint32(0):
        return word, _ZERO
    after = np.uint32(_moved(_mono(word), z, shift) & _up(np.uint32(0xFFFFFFFF), shift))
    if not half:
        return after, np.float32(_as_float(after) - _as_float(word))
    if np.uint32(after & _EXPONENT_F16) == _EXPONENT_F16:
        return after, _as_float(_QUIET_NAN)
    return after, np.float32(_half_float(after) - _half_float(word))


@_compiled
def _change(half: bool, shift: Any, word: Any, z: Any, numbers: Any, row: int) -> Any:
    """(f's word, t) of one element for the row of a term; without an f, the base's word."""
    if row >= 0:
        return _tau(half, shift, word, np.uint32(z[row]))
    return word, numbers[-1 - row]


@_compiled
def _vote(t: Any, cut: Any, alpha: Any, weigh: int) -> Any:
    """(w, v) of one element."""
    u = t if np.uint32(_as_bits(t) & _MAGNITUDE) >= cut else _ZERO
    w = np.float32(alpha * u) if alpha != _ZERO else _ZERO
    return w, u if weigh == _AFTER else w


@_compiled
def _coordinate(
    half: bool,
    shift: Any,
    word: Any,
    z: Any,
    numbers: Any,
    row_of: Any,
    cuts: Any,
    alpha: Any,
    add: Any,
    lam: Any,
    tie: Any,
    axes: Any,
) -> Any:
    """(the word, whether it is not finite) for the base's word, z: uint[Kz] and numbers: float32[Kt] of one
    element.
    """
    weigh, elect, merge, divide = axes
    nan, exponent = (_QUIET_NAN_F16, _EXPONENT_F16) if half else (_QUIET_NAN, _EXPONENT)
    strange = np.uint32(word & exponent) == exponent
    e, finite = _ZERO, True
    for k in range(alpha.size):
        if strange and row_of[k] >= 0 and z[row_of[k]] != 0:
            return nan, True
        _, t = _change(half, shift, word, z, numbers, row_of[k])
        finite = finite and _is_finite(t)
        if not add[k]:
            w, v = _vote(t, cuts[k], alpha[k], weigh)
            finite = finite and _is_finite(w)
            e = np.float32(e + (v if elect == _MASS else _sign(v) if elect == _COUNT else _ZERO))
    if np.isnan(e):
        return nan, word != nan
    finite = finite and _is_finite(e)
    s = _sign(e) if e != _ZERO else tie
    total, divisor, strongest, largest, count = _ZERO, _ZERO, _ZERO, _ZERO, 0
    own, is_itself = word, False
    for k in range(alpha.size):
        if not add[k]:
            f, t = _change(half, shift, word, z, numbers, row_of[k])
            w, v = _vote(t, cuts[k], alpha[k], weigh)
            if (w != _ZERO) if elect == _NONE else (np.float32(v * s) > _ZERO):
                count += 1
                total = np.float32(total + w)
                divisor = np.float32(divisor + _share(alpha[k], divide))
                strongest = max(strongest, np.float32(abs(alpha[k])))
                if np.uint32(_as_bits(w) & _MAGNITUDE) > np.uint32(_as_bits(largest) & _MAGNITUDE):
                    largest = w
                own, is_itself = f, alpha[k] == _ONE and lam == _ONE and row_of[k] >= 0
    if merge == _MEAN:
        if divide == _STRENGTH:
            divisor = np.float32(max(_ONE, divisor) / max(_ONE, strongest))
        divisor = _ONE if divisor == _ZERO else divisor
        m = np.float32(total / divisor)
    else:
        divisor = _ONE
        m = total if merge == _SUM else largest
    x = np.float32(lam * m)
    finite = finite and (merge == _MAX or _is_finite(total)) and _is_finite(divisor) and _is_finite(m)
    for k in range(alpha.size):
        if add[k]:
            f, t = _change(half, shift, word, z, numbers, row_of[k])
            at = np.float32(alpha[k] * t) if alpha[k] != _ZERO else _ZERO
            x = np.float32(x + at)
            if at != _ZERO:
                count += 1
                own, is_itself = f, alpha[k] == _ONE and row_of[k] >= 0
    if count == 1 and is_itself:
        return own, np.uint32(own & exponent) == exponent
    if count == 0 or (x == _ZERO and _is_finite(divisor)):
        return word, False
    y = np.float32((_half_float(word) if half else _as_float(word)) + x)
    rounded = _round_f16(y) if half else _round_bf16(y) if shift == np.uint32(16) else _as_bits(y)
    if strange or not (finite and _is_finite(x)) or np.uint32(rounded & exponent) == exponent:
        return nan, word != nan  # a base that is this NaN already is not counted
    return rounded, False


# One chunk.


@_compiled
def _share(alpha: Any, divide: int) -> Any:
    """One member's part of D."""
    if divide == _BY_COUNT:
        return _ONE
    return np.float32(alpha) if divide == _WEIGHT else np.float32(abs(alpha))


@_compiled
def merge_chunk(
    base: Any,
    z: Any,
    numbers: Any,
    row_of: Any,
    order: Any,
    out: Any,
    cuts: Any,
    alpha: Any,
    add: Any,
    lam: Any,
    tie: Any,
    weigh: int,
    elect: int,
    merge: int,
    divide: int,
    dtype: int,
    scratch: Any,
    words: Any,
    acting: Any,
    is_itself: Any,
    shares: Any,
    own: Any,
) -> int:
    """Merges one chunk; returns how many elements are not finite.

    order: uint32[n], or uint32[0] if the elements stand in their own order. Scratch: float32[K + 6, BLOCK],
    uint32[3, BLOCK], int64[K], bool[K], float32[K], uint32[K].
    """
    axes = (weigh, elect, merge, divide)
    terms, size = alpha.size, base.size
    half, shift = dtype == F16, np.uint32(0 if dtype == F32 else 16)
    b, e, total, divisor, count = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    strongest, v = scratch[5], scratch[6:]
    mono, lone, result = words[0], words[1], words[2]
    strength, any_itself, alike, strong = _ZERO, False, merge != _MAX, False
    at_once = dtype == BF16 and weigh != _AFTER and elect == _MASS and merge == _MEAN
    for k in range(terms):
        strength = np.float32(strength + abs(alpha[k]))
        strong = strong or (merge == _MEAN and divide == _STRENGTH and abs(alpha[k]) > _ONE and not add[k])
        is_itself[k] = alpha[k] == _ONE and (add[k] or lam == _ONE) and row_of[k] >= 0
        any_itself = any_itself or is_itself[k]
        alike = alike and (add[k] or _share(alpha[k], divide) == _ONE)
        # A number that is not finite could go unnoticed if it is not kept.
        at_once = at_once and not strong and not add[k] and cuts[k] != _KEEP_NOTHING_CUT
        shares[k] = _share(alpha[k], divide)
        own[k] = np.uint32(0xFFFFFFFF) if is_itself[k] else np.uint32(0)
    members = divisor if alike else count  # |A|, which is D if every share is 1
    # A divisor beyond the finite numbers leaves no trace in the sums.
    always = _TOP if merge == _MEAN and not _is_finite(strength) else np.uint32(0)
    not_finite = 0
    for start in range(0, size, BLOCK):
        n = min(BLOCK, size - start)
        base_n, order_n = base[start : start + n], order[start : start + n]
        actors, mixed = 0, False
        for k in range(terms):
            row = row_of[k]
            if row >= 0 and _any_change(z[row, start : start + n], n):
                acting[actors] = k
                actors += 1
            elif row < 0 and _any_number(numbers[-1 - row, start : start + n], n):
                acting[actors] = k
                actors += 1
                mixed = True
        if actors == 0:
            _put(base_n, order_n, start, n, out)
            continue
        if at_once and actors <= fused.MOST_TERMS:
            bad = _merge_at_once(
                base_n,
                z,
                numbers,
                row_of,
                acting,
                actors,
                any_itself,
                mixed,
                start,
                n,
                cuts,
                alpha,
                shares,
                own,
                lam,
                tie,
                divide == _STRENGTH,
                scratch,
                result,
            )
            if np.uint32(np.uint32(bad | always) & _TOP) == np.uint32(0):
                _put(result, order_n, start, n, out)
                continue
        bad = np.uint32(always | _open_base(half, shift, base_n, n, b, mono))
        for row in range(1, 6):
            if row < 4 or (row == 4 and not alike) or (row == 5 and strong):
                _fill(scratch[row], n, _ZERO)
        for j in range(actors):
            k = acting[j]
            cut = np.uint32(1) if add[k] else cuts[k]
            factor = _ONE if weigh == _AFTER and not add[k] else alpha[k]
            mass = elect == _MASS and not add[k]
            if row_of[k] >= 0:
                z_k = z[row_of[k], start : start + n]
                term = _open_term(half, shift, b, mono, z_k, n, cut, alpha[k], factor, mass, v[j], e)
            else:
                t_k = numbers[-1 - row_of[k], start : start + n]
                term = _open_numbers(t_k, n, cut, alpha[k], factor, mass, v[j], e)
            bad = np.uint32(bad | term)
            if elect == _COUNT and not add[k]:
                _elect(elect, v[j], n, e)
        if elect != _NONE:
            bad = np.uint32(bad | _decide(e, n, tie))
        if any_itself:
            _fill(lone, n, np.uint32(0))
        for j in range(actors):
            k = acting[j]
            beta = alpha[k] if weigh == _AFTER else _ONE
            z_k = z[max(0, row_of[k]), start : start + n]  # read if the term may be itself
            if not add[k] and merge == _MAX:
                _gather_largest(elect, v[j], e, n, beta, total, members)
                if is_itself[k]:
                    _choose(elect != _NONE, v[j], e, z_k, n, lone)
            elif not add[k]:
                share = _share(alpha[k], divide)
                _gather(elect, v[j], e, n, beta, share, total, divisor, is_itself[k], z_k, lone)
                if any_itself and not alike:
                    _count_members(elect, v[j], e, n, beta, members)
                if strong:
                    _gather_strongest(elect, v[j], e, n, beta, share, strongest)
        if strong:
            _divide_strengths(divisor, strongest, n)
        _scale(merge, divide, total, divisor, n, lam)
        for j in range(actors):
            k = acting[j]
            if add[k]:
                _join(v[j], n, total, members)
                if is_itself[k]:
                    _choose(False, v[j], e, z[row_of[k], start : start + n], n, lone)
        bad = np.uint32(bad | _close(half, shift, base_n, b, total, n, result))
        if any_itself:
            _close_lone(shift, mono, lone, members, n, result)
        if np.uint32(bad & _TOP) != np.uint32(0):
            for i in range(n):
                word = _up(np.uint32(base_n[i]), shift)
                z_i, t_i = z[:, start + i], numbers[:, start + i]
                word, strange = _coordinate(
                    half, shift, word, z_i, t_i, row_of, cuts, alpha, add, lam, tie, axes
                )
                result[i] = _down(word, shift)
                not_finite += 1 if strange else 0
        _put(result, order_n, start, n, out)
    return not_finite


@_compiled
def sum_of_signs(
    base: Any,
    z: Any,
    numbers: Any,
    row_of: Any,
    cuts: Any,
    alpha: Any,
    weigh: int,
    elect: int,
    dtype: int,
    scratch: Any,
    words: Any,
) -> int:
    """Σ sign(e) over one chunk; scratch as for `merge_chunk`."""
    half, shift = dtype == F16, np.uint32(0 if dtype == F32 else 16)
    b, e, v, mono = scratch[0], scratch[1], scratch[2], words[0]
    signs = 0
    for start in range(0, base.size, BLOCK):
        n = min(BLOCK, base.size - start)
        _open_base(half, shift, base[start : start + n], n, b, mono)
        _fill(e, n, _ZERO)
        for k in range(alpha.size):
            factor = _ONE if weigh == _AFTER else alpha[k]
            if row_of[k] >= 0:
                z_k = z[row_of[k], start : start + n]
                _open_term(half, shift, b, mono, z_k, n, cuts[k], alpha[k], factor, elect == _MASS, v, e)
            else:
                t_k = numbers[-1 - row_of[k], start : start + n]
                _open_numbers(t_k, n, cuts[k], alpha[k], factor, elect == _MASS, v, e)
            if elect == _COUNT:
                _elect(elect, v, n, e)
        for i in range(n):
            signs += (1 if e[i] > _ZERO else 0) - (1 if e[i] < _ZERO else 0)
    return signs


@_compiled
def add_differences(base: Any, z: Any, coefficient: Any, first: int, dtype: int, out: Any) -> None:
    """out = coefficient · t if `first`, else out + coefficient · t; t = f − b, and 0 where z is 0.

    t is not finite if f or b is not.
    """
    shift = np.uint32(0 if dtype == F32 else 16)
    mask = _up(np.uint32(0xFFFFFFFF), shift)
    if dtype == F16:
        for i in range(base.size):
            word, steps, before = _up(np.uint32(base[i]), shift), np.uint32(z[i]), out[i]
            after = np.uint32(_moved(_mono(word), steps, shift) & mask)
            t = np.float32(_half_float(after) - _half_float(word))
            strange = np.uint32(after & _EXPONENT_F16) == _EXPONENT_F16
            strange |= np.uint32(word & _EXPONENT_F16) == _EXPONENT_F16
            t = _as_float(_QUIET_NAN) if strange else t
            product = np.float32(coefficient * (t if steps else _ZERO))
            out[i] = product if first else np.float32(before + product)
    else:
        for i in range(base.size):
            word, steps, before = _up(np.uint32(base[i]), shift), np.uint32(z[i]), out[i]
            after = np.uint32(_moved(_mono(word), steps, shift) & mask)
            t = np.float32(_as_float(after) - _as_float(word))
            product = np.float32(coefficient * (t if steps else _ZERO))
            out[i] = product if first else np.float32(before + product)


@_compiled
def count_high(base: Any, z: Any, dtype: int, histogram: Any) -> None:
    """Adds the upper 16 bits of every |t| ≠ 0 to histogram: int64[65536]."""
    half, shift = dtype == F16, np.uint32(0 if dtype == F32 else 16)
    for i in range(base.size):
        if z[i] != 0:
            _, t = _tau(half, shift, _up(np.uint32(base[i]), shift), np.uint32(z[i]))
            bits = np.uint32(_as_bits(t) & _MAGNITUDE)
            histogram[bits >> np.uint32(16)] += 1 if bits else 0


@_compiled
def count_low(base: Any, z: Any, dtype: int, row_of: Any, histograms: Any) -> None:
    """Adds the lower 16 bits of every |t| whose upper ones have a row."""
    half, shift = dtype == F16, np.uint32(0 if dtype == F32 else 16)
    for i in range(base.size):
        if z[i] != 0:
            _, t = _tau(half, shift, _up(np.uint32(base[i]), shift), np.uint32(z[i]))
            bits = np.uint32(_as_bits(t) & _MAGNITUDE)
            row = row_of[bits >> np.uint32(16)]
            if row >= 0:
                histograms[row, bits & np.uint32(0xFFFF)] += 1 if bits else 0


@_compiled
def count_numbers_high(t: Any, histogram: Any) -> None:
    """`count_high` of numbers, t: float32[n]."""
    for i in range(t.size):
        bits = np.uint32(_as_bits(t[i]) & _MAGNITUDE)
        histogram[bits >> np.uint32(16)] += 1 if bits else 0


@_compiled
def count_numbers_low(t: Any, row_of: Any, histograms: Any) -> None:
    """`count_low` of numbers, t: float32[n]."""
    for i in range(t.size):
        bits = np.uint32(_as_bits(t[i]) & _MAGNITUDE)
        row = row_of[bits >> np.uint32(16)]
        if row >= 0:
            histograms[row, bits & np.uint32(0xFFFF)] += 1 if bits else 0


@_compiled
def magnitudes(half: bool, shift: Any, base: Any, z: Any, n: int, bits: Any) -> None:
    """The bits of |t| of a block."""
    mask = _up(np.uint32(0xFFFFFFFF), shift)
    if half:
        for i in range(n):
            word = _up(np.uint32(base[i]), shift)
            after = np.uint32(_moved(_mono(word), np.uint32(z[i]), shift) & mask)
            t = _as_bits(np.float32(_half_float(after) - _half_float(word)))
            t = _QUIET_NAN if np.uint32(after & _EXPONENT_F16) == _EXPONENT_F16 else t
            bits[i] = np.uint32(t & _MAGNITUDE) if z[i] != 0 else np.uint32(0)
    else:
        for i in range(n):
            word = _up(np.uint32(base[i]), shift)
            after = np.uint32(_moved(_mono(word), np.uint32(z[i]), shift) & mask)
            t = _as_bits(np.float32(_as_float(after) - _as_float(word)))
            bits[i] = np.uint32(t & _MAGNITUDE) if z[i] != 0 else np.uint32(0)


@_compiled
def _take_nonzero(bits: Any, n: int, wide: int, chosen: Any) -> Any:
    """The bits that are not 0, in order; how many they are."""
    many = np.uint64(0)
    lanes = VECTOR_BYTES // 4
    whole = n - n % lanes if wide else 0
    for i in range(0, whole, lanes):
        at = np.uint64(i)
        found = bits_reaching(bits, at, np.uint64(1))
        take_chosen(bits, at, found, np.uint64(0), chosen, many)
        many += bit_count(found)
    for i in range(whole, n):
        chosen[many] = bits[i]
        many += np.uint64(bits[i] != np.uint32(0))
    return many


@_compiled
def count_values(base: Any, z: Any, dtype: int, wide: int, keys: Any, counts: Any, scratch: Any) -> int:
    """Counts distinct |t| ≠ 0 in a hash table; returns their number, or −1 if there are too many.

    scratch: uint32[2, BLOCK and a SIMD vector]: the |t| of a block, and those that are not 0, which are found
    first so that no branch is mispredicted. wide: whether the processor has the compress instruction.
    """
    half, shift = dtype == F16, np.uint32(0 if dtype == F32 else 16)
    mask = np.uint32(keys.size - 1)
    room = keys.size - keys.size // 4
    bits, chosen = scratch[0], scratch[1]
    found = 0
    for start in range(0, base.size, BLOCK):
        n = min(BLOCK, base.size - start)
        magnitudes(half, shift, base[start : start + n], z[start : start + n], n, bits)
        many = _take_nonzero(bits, n, wide, chosen)
        for place in range(many):
            value = chosen[place]
            slot = np.uint32(_down(_times(value), np.uint32(12)) & mask)
            while keys[slot] != value and keys[slot] != np.uint32(0):
                slot = np.uint32(np.uint32(slot + np.uint32(1)) & mask)
            if keys[slot] == np.uint32(0):
                if found == room:
                    return -1
                keys[slot] = value
                found += 1
            counts[slot] += 1
    return found


@_compiled
def _times(value: Any) -> Any:
    """A product whose upper bits depend on all of the value's (Knuth, 6.4)."""
    return np.uint32(value * np.uint32(2654435761))
