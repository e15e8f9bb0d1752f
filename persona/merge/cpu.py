"""The merge on the CPU: one chunk at a time, in exponent order, bit-equal to `persona.merge.reference`.

A chunk is walked in **blocks** of BLOCK elements whose scratch stays in the L1 and L2 caches. A block goes
through short loops over terms and elements without branches, so that each becomes vector code: open the base,
open each term (z → t → u → v), elect, gather the members, divide, add, round, scatter to element order. The
rules are chosen between those loops, never inside.

The loops assume that every number is finite. They also fold the exponents of all of them into one word; where
that shows a number that is not finite, the block is computed again by `_coordinate`, one element at a time,
with the page's full rules.

Invariants: binary32 only, no contraction (`fastmath` stays off), additions in the order of the terms, so no
result depends on block size, threads or vector width. numba is imported by this module and by
codec/kernels.py alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import float32, njit, uint32
from numba.extending import intrinsic

from persona.codec import elements
from persona.merge.rules import Divide, Elect, Merge, MergeRules, Weigh

Array = npt.NDArray[Any]

BLOCK: Final = 1024

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

_TOP = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_HIGH = np.uint32(0xFFFF0000)
_EXPONENT = np.uint32(0x7F800000)
_EXPONENT_STEP = np.uint32(0x00800000)
_EXPONENT_F16 = np.uint32(0x7C000000)
_NAN_F32 = np.uint32(0x7FC00000)
_NAN_BF16 = np.uint32(0x7FC0)
_NAN_F16 = np.uint32(0x7E00)
_KEEP_NOTHING_CUT = np.uint32(0xFFFFFFFF)
_TWO_112 = np.float32(2.0**112)
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


_intrinsic: Any = intrinsic


def _compiled(function: Any) -> Any:
    return njit(nogil=True, cache=True, error_model="numpy")(function)


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


# One element. Elements of 16 bits are kept in the upper half of a 32-bit word, so that their order wraps where it must.


@_compiled
def _mono(word: Any) -> Any:
    return np.uint32(word ^ np.uint32(np.uint32(np.int32(word) >> np.int32(31)) | _TOP))


@_compiled
def _moved(mono: Any, z: Any, shift: Any) -> Any:
    """The word whose order is that of `mono`, moved by unzigzag(z) steps."""
    d = np.uint32(np.uint32(z >> np.uint32(1)) ^ np.uint32(np.uint32(0) - np.uint32(z & np.uint32(1))))
    m = np.uint32(mono + np.uint32(d << shift))
    return np.uint32(m ^ np.uint32(~np.uint32(np.uint32(np.int32(m) >> np.int32(31)) & _MAGNITUDE)))


@_compiled
def _half_float(word: Any) -> Any:
    """A finite fp16 number, exact."""
    magnitude = _as_float(np.uint32(np.uint32(word & _MAGNITUDE) >> np.uint32(3))) * _TWO_112
    return _as_float(np.uint32(_as_bits(magnitude) | np.uint32(word & _TOP)))


@_compiled
def _to_bf16(y: Any) -> Any:
    bits = _as_bits(y)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint32(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd)) >> np.uint32(16))


@_compiled
def _to_f16(y: Any) -> Any:
    bits = _as_bits(y)
    a = np.uint32(bits & _MAGNITUDE)
    odd = np.uint32(np.uint32(a >> np.uint32(13)) & np.uint32(1))
    normal = np.uint32(
        np.uint32(np.uint32(a - np.uint32(0x38000000)) + np.uint32(np.uint32(0xFFF) + odd)) >> np.uint32(13)
    )
    small = np.uint32(_as_bits(np.float32(_as_float(a) + _HALF)) - np.uint32(0x3F000000))
    h = small if a < np.uint32(0x38800000) else normal
    h = np.uint32(0x7C00) if a >= np.uint32(0x47800000) else h
    return np.uint32(h | np.uint32(np.uint32(bits & _TOP) >> np.uint32(16)))


# One block. Every function below is one loop without branches; `n` is at most BLOCK.


@_compiled
def _any_change(z: Any, n: int) -> Any:
    found = np.uint32(0)
    for i in range(n):
        found = np.uint32(found | np.uint32(z[i]))
    return found != np.uint32(0)


@_compiled
def _open_base(dtype: int, base: Any, n: int, b: Any, mono: Any) -> Any:
    """b and mono of a block; elements that are not finite are opened as 0. Returns whether there are any."""
    bad = np.uint32(0)
    if dtype == BF16:
        for i in range(n):
            word = np.uint32(np.uint32(base[i]) << np.uint32(16))
            strange = np.uint32(word & _EXPONENT) == _EXPONENT
            word = np.uint32(0) if strange else word
            bad = np.uint32(bad | np.uint32(1)) if strange else bad
            b[i] = _as_float(word)
            mono[i] = _mono(word)
    elif dtype == F16:
        for i in range(n):
            word = np.uint32(np.uint32(base[i]) << np.uint32(16))
            strange = np.uint32(word & _EXPONENT_F16) == _EXPONENT_F16
            word = np.uint32(0) if strange else word
            bad = np.uint32(bad | np.uint32(1)) if strange else bad
            b[i] = _half_float(word)
            mono[i] = _mono(word)
    else:
        for i in range(n):
            word = np.uint32(base[i])
            strange = np.uint32(word & _EXPONENT) == _EXPONENT
            word = np.uint32(0) if strange else word
            bad = np.uint32(bad | np.uint32(1)) if strange else bad
            b[i] = _as_float(word)
            mono[i] = _mono(word)
    return bad


@_compiled
def _open_term(dtype: int, b: Any, mono: Any, z: Any, n: int, cut: Any, factor: Any, v: Any) -> Any:
    """v = factor · u of a block. Returns a word whose top bit is set where t or v is not finite."""
    bad = np.uint32(0)
    if dtype == BF16:
        for i in range(n):
            f = _as_float(np.uint32(_moved(mono[i], np.uint32(z[i]), np.uint32(16)) & _HIGH))
            t = np.float32(f - b[i])
            a = np.uint32(_as_bits(t) & _MAGNITUDE)
            w = np.float32(factor * (t if a >= cut else _ZERO))
            v[i] = w
            a_w = np.uint32(_as_bits(w) & _MAGNITUDE)
            bad = np.uint32(bad | np.uint32(np.uint32(a + _EXPONENT_STEP) | np.uint32(a_w + _EXPONENT_STEP)))
    elif dtype == F16:
        for i in range(n):
            word = np.uint32(_moved(mono[i], np.uint32(z[i]), np.uint32(16)) & _HIGH)
            f = _half_float(word)
            t = np.float32(f - b[i])
            a = np.uint32(_as_bits(t) & _MAGNITUDE)
            w = np.float32(factor * (t if a >= cut else _ZERO))
            v[i] = w
            a_w = np.uint32(_as_bits(w) & _MAGNITUDE)
            a_f = np.uint32(np.uint32(word & _MAGNITUDE) + np.uint32(0x04000000))
            bad = np.uint32(bad | np.uint32(a_f | np.uint32(a_w + _EXPONENT_STEP)))
    else:
        for i in range(n):
            f = _as_float(_moved(mono[i], np.uint32(z[i]), np.uint32(0)))
            t = np.float32(f - b[i])
            a = np.uint32(_as_bits(t) & _MAGNITUDE)
            w = np.float32(factor * (t if a >= cut else _ZERO))
            v[i] = w
            a_w = np.uint32(_as_bits(w) & _MAGNITUDE)
            bad = np.uint32(bad | np.uint32(np.uint32(a + _EXPONENT_STEP) | np.uint32(a_w + _EXPONENT_STEP)))
    return bad


@_compiled
def _fill(target: Any, n: int, value: Any) -> None:
    for i in range(n):
        target[i] = value


@_compiled
def _elect_mass(v: Any, n: int, e: Any) -> None:
    for i in range(n):
        e[i] = np.float32(e[i] + v[i])


@_compiled
def _elect_count(v: Any, n: int, e: Any) -> None:
    for i in range(n):
        x = v[i]
        sign = _ONE if x > _ZERO else (-_ONE if x < _ZERO else _ZERO)
        e[i] = np.float32(e[i] + sign)


@_compiled
def _sign(e: Any, n: int, tie: Any) -> Any:
    """e → s in place. Returns a word whose top bit is set where e was not finite."""
    bad = np.uint32(0)
    for i in range(n):
        x = e[i]
        bad = np.uint32(bad | np.uint32(np.uint32(_as_bits(x) & _MAGNITUDE) + _EXPONENT_STEP))
        e[i] = _ONE if x > _ZERO else (-_ONE if x < _ZERO else tie)
    return bad


@_compiled
def _gather_elected(
    v: Any, s: Any, n: int, beta: Any, share: Any, total: Any, divisor: Any, count: Any
) -> Any:
    """Adds one term to Σw, D and |A|. Returns a word whose top bit is set where w is not finite."""
    bad = np.uint32(0)
    for i in range(n):
        x = v[i]
        inside = np.float32(x * s[i]) > _ZERO
        w = np.float32(beta * x)
        total[i] = np.float32(total[i] + (w if inside else _ZERO))
        divisor[i] = np.float32(divisor[i] + (share if inside else _ZERO))
        count[i] = np.float32(count[i] + (_ONE if inside else _ZERO))
        bad = np.uint32(bad | np.uint32(np.uint32(_as_bits(w) & _MAGNITUDE) + _EXPONENT_STEP))
    return bad


@_compiled
def _gather_all(v: Any, n: int, beta: Any, share: Any, total: Any, divisor: Any, count: Any) -> Any:
    bad = np.uint32(0)
    for i in range(n):
        w = np.float32(beta * v[i])
        inside = w != _ZERO
        total[i] = np.float32(total[i] + w)
        divisor[i] = np.float32(divisor[i] + (share if inside else _ZERO))
        count[i] = np.float32(count[i] + (_ONE if inside else _ZERO))
        bad = np.uint32(bad | np.uint32(np.uint32(_as_bits(w) & _MAGNITUDE) + _EXPONENT_STEP))
    return bad


@_compiled
def _largest_elected(v: Any, s: Any, n: int, beta: Any, largest: Any, count: Any) -> Any:
    """Replaces the largest w where a member's is larger."""
    bad = np.uint32(0)
    for i in range(n):
        x = v[i]
        inside = np.float32(x * s[i]) > _ZERO
        w = np.float32(beta * x)
        a = np.uint32(_as_bits(w) & _MAGNITUDE)
        larger = a > np.uint32(_as_bits(largest[i]) & _MAGNITUDE)
        largest[i] = w if inside and larger else largest[i]
        count[i] = np.float32(count[i] + (_ONE if inside else _ZERO))
        bad = np.uint32(bad | np.uint32(a + _EXPONENT_STEP))
    return bad


@_compiled
def _largest_all(v: Any, n: int, beta: Any, largest: Any, count: Any) -> Any:
    bad = np.uint32(0)
    for i in range(n):
        w = np.float32(beta * v[i])
        a = np.uint32(_as_bits(w) & _MAGNITUDE)
        largest[i] = w if a > np.uint32(_as_bits(largest[i]) & _MAGNITUDE) else largest[i]
        count[i] = np.float32(count[i] + (_ONE if w != _ZERO else _ZERO))
        bad = np.uint32(bad | np.uint32(a + _EXPONENT_STEP))
    return bad


@_compiled
def _choose_elected(v: Any, s: Any, z: Any, n: int, lone: Any) -> None:
    """Remembers z where the term is a member: a term that is itself at full strength."""
    for i in range(n):
        inside = np.float32(v[i] * s[i]) > _ZERO
        lone[i] = np.uint32(z[i]) if inside else lone[i]


@_compiled
def _choose_nonzero(v: Any, z: Any, n: int, lone: Any) -> None:
    for i in range(n):
        lone[i] = np.uint32(z[i]) if v[i] != _ZERO else lone[i]


@_compiled
def _divide_strength(total: Any, divisor: Any, n: int, lam: Any) -> None:
    for i in range(n):
        d = divisor[i]
        total[i] = np.float32(lam * np.float32(total[i] / (d if d > _ONE else _ONE)))


@_compiled
def _divide_plain(total: Any, divisor: Any, n: int, lam: Any) -> None:
    for i in range(n):
        d = divisor[i]
        total[i] = np.float32(lam * np.float32(total[i] / (_ONE if d == _ZERO else d)))


@_compiled
def _scale(total: Any, n: int, lam: Any) -> None:
    for i in range(n):
        total[i] = np.float32(lam * total[i])


@_compiled
def _join_add(v: Any, n: int, x: Any, count: Any) -> None:
    for i in range(n):
        at = v[i]
        x[i] = np.float32(x[i] + at)
        count[i] = np.float32(count[i] + (_ONE if at != _ZERO else _ZERO))


@_compiled
def _close(dtype: int, base: Any, b: Any, x: Any, n: int, result: Any) -> Any:
    """The rounded sums; the base's own bits where x = 0. Returns a word whose top bit is set where a sum is not finite."""
    bad = np.uint32(0)
    if dtype == BF16:
        for i in range(n):
            h = _to_bf16(np.float32(b[i] + x[i]))
            bad = np.uint32(bad | np.uint32(np.uint32(h & np.uint32(0x7FFF)) + np.uint32(0x80)))
            result[i] = np.uint32(base[i]) if x[i] == _ZERO else h
        return np.uint32(bad << np.uint32(16))
    if dtype == F16:
        for i in range(n):
            h = _to_f16(np.float32(b[i] + x[i]))
            bad = np.uint32(bad | np.uint32(np.uint32(h & np.uint32(0x7FFF)) + np.uint32(0x400)))
            result[i] = np.uint32(base[i]) if x[i] == _ZERO else h
        return np.uint32(bad << np.uint32(16))
    for i in range(n):
        h = _as_bits(np.float32(b[i] + x[i]))
        bad = np.uint32(bad | np.uint32(np.uint32(h & _MAGNITUDE) + _EXPONENT_STEP))
        result[i] = np.uint32(base[i]) if x[i] == _ZERO else h
    return bad


@_compiled
def _close_lone(dtype: int, mono: Any, lone: Any, count: Any, n: int, result: Any) -> None:
    """The fine-tune's own bits where one term alone contributes and is itself at full strength."""
    if dtype == F32:
        for i in range(n):
            own = _moved(mono[i], lone[i], np.uint32(0))
            alone = (count[i] == _ONE) & (lone[i] != np.uint32(0))
            result[i] = own if alone else result[i]
    else:
        for i in range(n):
            own = np.uint32(_moved(mono[i], lone[i], np.uint32(16)) >> np.uint32(16))
            alone = (count[i] == _ONE) & (lone[i] != np.uint32(0))
            result[i] = own if alone else result[i]


@_compiled
def _scatter(result: Any, order: Any, n: int, out: Any) -> None:
    for i in range(n):
        out[order[i]] = result[i]


@_compiled
def _cuts(theta: Any) -> Any:
    """θ → the smallest kept |t|, as bits: NaN keeps every change, a negative θ nothing."""
    cuts = np.empty(theta.size, np.uint32)
    for k in range(theta.size):
        if np.isnan(theta[k]):
            cuts[k] = np.uint32(1)
        elif theta[k] < _ZERO:
            cuts[k] = _KEEP_NOTHING_CUT
        else:
            cuts[k] = max(np.uint32(1), _as_bits(theta[k]))
    return cuts


@_compiled
def _share(alpha: Any, divide: int) -> Any:
    if divide == _STRENGTH:
        return np.float32(abs(alpha))
    return _ONE if divide == _BY_COUNT else np.float32(alpha)


@_compiled
def _is_finite(number: Any) -> Any:
    return np.uint32(_as_bits(number) & _MAGNITUDE) < _EXPONENT


@_compiled
def _tau(dtype: int, base: Any, z: Any) -> Any:
    """(f's bits, t) of one element."""
    if z == np.uint32(0):
        return base, _ZERO
    if dtype == F32:
        own = _moved(_mono(base), z, np.uint32(0))
        return own, np.float32(_as_float(own) - _as_float(base))
    word = np.uint32(base << np.uint32(16))
    after = np.uint32(_moved(_mono(word), z, np.uint32(16)) & _HIGH)
    own = np.uint32(after >> np.uint32(16))
    if dtype == BF16:
        return own, np.float32(_as_float(after) - _as_float(word))
    if np.uint32(after & _EXPONENT_F16) == _EXPONENT_F16:
        return own, _as_float(_NAN_F32)
    return own, np.float32(_half_float(after) - _half_float(word))


@_compiled
def _coordinate(
    dtype: int,
    base: Any,
    z: Any,
    i: int,
    cuts: Any,
    alpha: Any,
    add: Any,
    lam: Any,
    tie: Any,
    weigh: int,
    elect: int,
    merge: int,
    divide: int,
) -> Any:
    """One coordinate by the page's full rules: (bits, whether it is not finite). Slow, for what is not finite."""
    nan = _NAN_F32 if dtype == F32 else (_NAN_BF16 if dtype == BF16 else _NAN_F16)
    exponent = _EXPONENT if dtype == F32 else np.uint32(0x7F80 if dtype == BF16 else 0x7C00)
    strange_base = np.uint32(base & exponent) == exponent
    e = _ZERO
    finite = True
    for k in range(alpha.size):
        zk = np.uint32(z[k, i])
        if strange_base and zk != np.uint32(0):
            return nan, True
        _, t = _tau(dtype, base, zk)
        finite = finite and _is_finite(t)
        if add[k]:
            continue
        u = t if np.uint32(_as_bits(t) & _MAGNITUDE) >= cuts[k] else _ZERO
        w = np.float32(alpha[k] * u)
        finite = finite and _is_finite(w)
        v = u if weigh == _AFTER else w
        if elect == _MASS:
            e = np.float32(e + v)
        elif elect == _COUNT:
            e = np.float32(e + (_ONE if v > _ZERO else (-_ONE if v < _ZERO else _ZERO)))
    if np.isnan(e):
        return nan, True
    finite = finite and _is_finite(e)
    s = _ONE if e > _ZERO else (-_ONE if e < _ZERO else tie)
    total, divisor, largest, count = _ZERO, _ZERO, _ZERO, 0
    own, own_alone = base, False
    for k in range(alpha.size):
        if add[k]:
            continue
        f, t = _tau(dtype, base, np.uint32(z[k, i]))
        u = t if np.uint32(_as_bits(t) & _MAGNITUDE) >= cuts[k] else _ZERO
        w = np.float32(alpha[k] * u)
        v = u if weigh == _AFTER else w
        if (w != _ZERO) if elect == _NONE else (np.float32(v * s) > _ZERO):
            count += 1
            total = np.float32(total + w)
            divisor = np.float32(divisor + _share(alpha[k], divide))
            if np.uint32(_as_bits(w) & _MAGNITUDE) > np.uint32(_as_bits(largest) & _MAGNITUDE):
                largest = w
            own, own_alone = f, alpha[k] == _ONE and lam == _ONE
    if merge == _MEAN:
        if divide == _STRENGTH:
            divisor = divisor if divisor > _ONE else _ONE
        divisor = _ONE if divisor == _ZERO else divisor
        m = np.float32(total / divisor)
    else:
        divisor = _ONE
        m = total if merge == _SUM else largest
    x = np.float32(lam * m)
    finite = finite and _is_finite(total) and _is_finite(divisor) and _is_finite(m)
    for k in range(alpha.size):
        if add[k]:
            f, t = _tau(dtype, base, np.uint32(z[k, i]))
            at = np.float32(alpha[k] * t)
            x = np.float32(x + at)
            if at != _ZERO:
                count += 1
                own, own_alone = f, alpha[k] == _ONE
    if count == 1 and own_alone:
        return own, np.uint32(own & exponent) == exponent
    if count == 0 or (x == _ZERO and _is_finite(divisor)):
        return base, False
    if dtype == F32:
        bits = _as_bits(np.float32(_as_float(base) + x))
    elif dtype == BF16:
        bits = _to_bf16(np.float32(_as_float(np.uint32(base << np.uint32(16))) + x))
    else:
        bits = _to_f16(np.float32(_half_float(np.uint32(base << np.uint32(16))) + x))
    if not (finite and _is_finite(x)) or np.uint32(bits & exponent) == exponent:
        return nan, True
    return bits, False


# One chunk.


@_compiled
def _merge_chunk(
    base: Any,
    z: Any,
    order: Any,
    out: Any,
    theta: Any,
    alpha: Any,
    add: Any,
    lam: Any,
    tie: Any,
    weigh: int,
    elect: int,
    merge: int,
    divide: int,
    dtype: int,
) -> int:
    terms, size = alpha.size, base.size
    cuts = _cuts(theta)
    b, e = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    total, divisor, count = (
        np.empty(BLOCK, np.float32),
        np.empty(BLOCK, np.float32),
        np.empty(BLOCK, np.float32),
    )
    mono, lone, result = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    v = np.empty((max(1, terms), BLOCK), np.float32)
    active = np.empty(max(1, terms), np.int64)
    strength = _ZERO
    can_be_lone = False
    for k in range(terms):
        strength = np.float32(strength + abs(alpha[k]))
        can_be_lone = can_be_lone or (alpha[k] == _ONE and (add[k] or lam == _ONE))
    always_careful = merge == _MEAN and not _is_finite(strength)
    not_finite = 0
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        n = stop - start
        base_n, order_n = base[start:stop], order[start:stop]
        acting = 0
        for k in range(terms):
            if _any_change(z[k, start:stop], n):
                active[acting] = k
                acting += 1
        if acting == 0:
            _scatter(base_n, order_n, n, out)
            continue
        bad = _TOP if always_careful else np.uint32(0)
        if _open_base(dtype, base_n, n, b, mono) != np.uint32(0):
            bad = _TOP
        _fill(e, n, _ZERO)
        for j in range(acting):
            k = active[j]
            if add[k]:
                bad |= _open_term(dtype, b, mono, z[k, start:stop], n, np.uint32(1), alpha[k], v[j])
                continue
            factor = _ONE if weigh == _AFTER else alpha[k]
            bad |= _open_term(dtype, b, mono, z[k, start:stop], n, cuts[k], factor, v[j])
            if elect == _MASS:
                _elect_mass(v[j], n, e)
            elif elect == _COUNT:
                _elect_count(v[j], n, e)
        if elect != _NONE:
            bad |= _sign(e, n, tie)
        _fill(total, n, _ZERO)
        _fill(divisor, n, _ZERO)
        _fill(count, n, _ZERO)
        for j in range(acting):
            k = active[j]
            if add[k]:
                continue
            beta = alpha[k] if weigh == _AFTER else _ONE
            if merge == _MAX:
                if elect == _NONE:
                    bad |= _largest_all(v[j], n, beta, total, count)
                else:
                    bad |= _largest_elected(v[j], e, n, beta, total, count)
            elif elect == _NONE:
                bad |= _gather_all(v[j], n, beta, _share(alpha[k], divide), total, divisor, count)
            else:
                bad |= _gather_elected(v[j], e, n, beta, _share(alpha[k], divide), total, divisor, count)
        if merge != _MEAN:
            _scale(total, n, lam)
        elif divide == _STRENGTH:
            _divide_strength(total, divisor, n, lam)
        else:
            _divide_plain(total, divisor, n, lam)
        for j in range(acting):
            if add[active[j]]:
                _join_add(v[j], n, total, count)
        bad |= _close(dtype, base_n, b, total, n, result)
        if can_be_lone:
            _fill(lone, n, np.uint32(0))
            for j in range(acting):
                k = active[j]
                if alpha[k] == _ONE and (add[k] or lam == _ONE):
                    if add[k] or elect == _NONE:
                        _choose_nonzero(v[j], z[k, start:stop], n, lone)
                    else:
                        _choose_elected(v[j], e, z[k, start:stop], n, lone)
            _close_lone(dtype, mono, lone, count, n, result)
        if np.uint32(bad & _TOP) != np.uint32(0):
            for i in range(n):
                bits, strange = _coordinate(
                    dtype,
                    np.uint32(base_n[i]),
                    z,
                    start + i,
                    cuts,
                    alpha,
                    add,
                    lam,
                    tie,
                    weigh,
                    elect,
                    merge,
                    divide,
                )
                result[i] = bits
                not_finite += 1 if strange else 0
        _scatter(result, order_n, n, out)
    return not_finite


@_compiled
def _sum_of_signs(base: Any, z: Any, theta: Any, alpha: Any, weigh: int, elect: int, dtype: int) -> int:
    terms, size = alpha.size, base.size
    cuts = _cuts(theta)
    b, e, v = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    mono = np.empty(BLOCK, np.uint32)
    signs = 0
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        n = stop - start
        _open_base(dtype, base[start:stop], n, b, mono)
        _fill(e, n, _ZERO)
        for k in range(terms):
            z_k = z[k, start:stop]
            if _any_change(z_k, n):
                _open_term(dtype, b, mono, z_k, n, cuts[k], _ONE if weigh == _AFTER else alpha[k], v)
                if elect == _MASS:
                    _elect_mass(v, n, e)
                else:
                    _elect_count(v, n, e)
        for i in range(n):
            signs += (1 if e[i] > _ZERO else 0) - (1 if e[i] < _ZERO else 0)
    return signs


@_compiled
def _count_high(base: Any, z: Any, dtype: int, histogram: Any) -> None:
    for i in range(base.size):
        if z[i] != 0:
            _, t = _tau(dtype, np.uint32(base[i]), np.uint32(z[i]))
            histogram[np.uint32(_as_bits(t) & _MAGNITUDE) >> np.uint32(16)] += 1


@_compiled
def _count_low(base: Any, z: Any, dtype: int, row_of: Any, histograms: Any) -> None:
    for i in range(base.size):
        if z[i] != 0:
            _, t = _tau(dtype, np.uint32(base[i]), np.uint32(z[i]))
            bits = np.uint32(_as_bits(t) & _MAGNITUDE)
            row = row_of[bits >> np.uint32(16)]
            if row >= 0:
                histograms[row, bits & np.uint32(0xFFFF)] += 1


def merge_chunk(
    base: Array,
    z: Array,
    order: Array,
    out: Array,
    theta: Array,
    alpha: Array,
    add: Array,
    rules: MergeRules,
    dtype: int,
    majority: int = 0,
) -> int:
    """Merges one chunk of n elements; returns how many came out not finite. Releases the interpreter's lock;
    thread-safe.

    base: uint[n], the base's elements in exponent order; uint is uint16 for BF16 and F16, uint32 for F32. z:
    uint[K, ≥ n], the ulp deltas of the terms in canonical order, each in exponent order; a term without a
    change in the chunk may be left out. order: uint32[≥ n]; out: uint[≥ n], filled so that out[order[j]] is
    element j. theta: float32[K], `NO_TRIM`, `KEEP_NOTHING` or the smallest |t| kept; not used for terms that
    join by adding. alpha: float32[K]; add: bool[K]. dtype: BF16, F16 or F32. majority: Σ sign(e) over the
    model, where the rules ask for it. All arrays are C-contiguous. See docs/numerics.md.
    """
    weigh, elect, merge, divide = rules.codes()
    tie = np.float32(rules.tie(majority))
    lam = np.float32(rules.lambda_)
    return int(
        _merge_chunk(base, z, order, out, theta, alpha, add, lam, tie, weigh, elect, merge, divide, dtype)
    )


def sum_of_signs(base: Array, z: Array, theta: Array, alpha: Array, rules: MergeRules, dtype: int) -> int:
    """Σ sign(e) over one chunk, an exact integer, of the terms that vote alone; arguments as for `merge_chunk`."""
    weigh, elect, _, _ = rules.codes()
    return int(_sum_of_signs(base, z, theta, alpha, weigh, elect, dtype))


def count_high(base: Array, z: Array, dtype: int, histogram: Array) -> None:
    """Adds the upper 16 bits of every |t| ≠ 0 of one vector's chunk to histogram: int64[65536]. base, z: uint[n]."""
    _count_high(base, z, dtype, histogram)


def count_low(base: Array, z: Array, dtype: int, row_of: Array, histograms: Array) -> None:
    """Adds the lower 16 bits of every |t| whose upper ones have a row to histograms: int64[rows, 65536].

    row_of: int32[65536], the row of each value of the upper 16 bits, −1 for none.
    """
    _count_low(base, z, dtype, row_of, histograms)
