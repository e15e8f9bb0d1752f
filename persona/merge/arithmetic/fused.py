"""The source of loops that merge a block of bf16 elements in one pass, one for each small number of terms.

numba does not vectorise a loop over terms inside a loop over elements, so it cannot keep the numbers of
several terms in registers from the election to the sum. Written out, it can. So the loops are written out
here as source, and `loops` compiles them. They handle terms that vote, with `weigh = before`, `elect = mass`
and `merge = mean`, as most recipes have. All other merges use the loops over terms, with the same results.

If all rows hold steps, a loop computes f and t in passing. If some rows hold numbers, the block is *mixed*.
There are 2^K kinds of mixed blocks, too many for a loop each. So the loops for mixed blocks read t and f of
every term. For a row of steps, a pass of its own computes them before.

    t = f − b   u = t if |t| ≥ θ else 0   v = α · u   e = Σ v   s = sign(e), or the tie's
    A = { v · s > 0 }   m = Σ_A v ÷ D   x = λ · m   out = b where x = 0, f of a lone term at full strength,
    else round(b + x)

If a number is not finite, e or the rounded sum is not finite either, and the result says so.
"""

from __future__ import annotations

from typing import Final

MOST_TERMS: Final = 4
"""Each number more is three loops more to compile in a first run, and gains less."""


_ARGUMENTS: Final = (
    "base, z, numbers, row_of, acting, actors, itself, mixed, start, n, cuts, alpha, shares, own, lam, tie,"
    " strength, opened, result"
)

_ROW: Final = """\
    z{j} = z[row_of[acting[{j}]], start : start + n]
"""
_MIXED_ROW: Final = """\
    all_f{j}, row{j} = opened[2 * {j}], row_of[acting[{j}]]
    all_t{j} = _opened(base, z, numbers, row{j}, start, n, all_f{j}, opened[2 * {j} + 1])
"""
_STEPS: Final = """
        d{j} = np.uint16(np.uint16(z{j}[i] >> one) ^ np.uint16(np.uint16(0) - np.uint16(z{j}[i] & one)))
        f{j} = _element(np.uint16(mono + d{j}))
        t{j} = np.float32(_as_float(_up(np.uint32(f{j}), half)) - b)"""
_OPENED: Final = """
        f{j}, t{j} = _as_bits(all_f{j}[i]), all_t{j}[i]"""
_REMEMBER: Final = """
        count = np.float32(count + (_ONE if inside{j} else _ZERO))
        lone = np.uint32(np.uint32(f{j} | _MARK) & own{j}) if inside{j} else lone"""
_FOUND: Final = """
        result[i] = found"""
_ITSELF: Final = """
        result[i] = np.uint32(lone & _LOW) if (count == _ONE) & (lone != np.uint32(0)) else found"""


def source() -> str:
    """All loops, and `merge_at_once`, which chooses one by the number of terms.

    There is a loop for `actors` terms, with and without terms at full strength that may come out as
    themselves (`itself`), and one if some rows hold numbers (`mixed`). base: uint16[n]; z: uint16[Kz, m],
    numbers: float32[Kt, m], of which the rows `row_of` of the terms in the first `actors` of `acting` are
    used, from element `start` on; row_of: int32[K]; cuts: uint32[K]; alpha, shares: float32[K]; own:
    uint32[K], all ones for a term that may come out as itself, else 0; opened: scratch, float32[2 · actors,
    n]. The loops fill result: uint32[n], and return a word whose top bit is set if a number was not finite.
    """
    kinds = [(terms, itself, False) for itself in (False, True) for terms in range(1, MOST_TERMS + 1)]
    kinds += [(terms, True, True) for terms in range(1, MOST_TERMS + 1)]
    loops = "".join(_loop(*kind) for kind in kinds)
    chosen = "".join(
        f"""
    if actors == {terms} and mixed == {mixed}{"" if mixed else f" and itself == {itself}"}:
        return {_name(terms, itself, mixed)}({_ARGUMENTS})"""
        for terms, itself, mixed in kinds
    )
    return f"""{loops}

@_compiled
def _one_of_them({_ARGUMENTS}):{chosen}
    return _TOP


def merge_at_once({_ARGUMENTS}):
    raise NotImplementedError


@_overload(merge_at_once)
def _where_elements_have_16_bits({_ARGUMENTS}):
    if base.dtype.bitwidth == 16:
        return lambda {_ARGUMENTS}: _one_of_them({_ARGUMENTS})
    return lambda {_ARGUMENTS}: _TOP
"""


def _name(terms: int, itself: bool, mixed: bool) -> str:
    return f"_fused_{terms}{'_mixed' if mixed else '_itself' if itself else ''}"


def _loop(terms: int, itself: bool, mixed: bool) -> str:
    every = range(terms)
    rows = "".join((_MIXED_ROW if mixed else _ROW).format(j=j) for j in every)
    rows += "".join(
        f"    cut{j}, alpha{j}, share{j} = cuts[acting[{j}]], alpha[acting[{j}]], shares[acting[{j}]]\n"
        for j in every
    )
    rows += "".join(f"    own{j} = own[acting[{j}]]\n" for j in every if itself)
    vote = "".join(
        (_OPENED if mixed else _STEPS).format(j=j)
        + f"""
        v{j} = np.float32(alpha{j} * (t{j} if np.uint32(_as_bits(t{j}) & _MAGNITUDE) >= cut{j} else _ZERO))
        e = np.float32(e + v{j})"""
        for j in every
    )
    add = "".join(
        f"""
        inside{j} = np.float32(v{j} * s) > _ZERO
        total = np.float32(total + (v{j} if inside{j} else _ZERO))
        divisor = np.float32(divisor + (share{j} if inside{j} else _ZERO))"""
        + (_REMEMBER.format(j=j) if itself else "")
        for j in every
    )
    return f"""
@_compiled
def {_name(terms, itself, mixed)}({_ARGUMENTS}):
    one, half, bad = np.uint16(1), np.uint32(16), np.uint32(0)
{rows}    for i in range(n):
        word = np.uint16(base[i])
        b = _as_float(_up(np.uint32(word), half))
        mono = _mono16(word)
        e = _ZERO{vote}
        s = _ONE if e > _ZERO else (-_ONE if e < _ZERO else tie)
        bad = np.uint32(bad | _overflowing(e))
        total, divisor, count, lone = _ZERO, _ZERO, _ZERO, np.uint32(0){add}
        floored = divisor if divisor > _ONE else _ONE
        nonzero = _ONE if divisor == _ZERO else divisor
        x = np.float32(lam * np.float32(total / (floored if strength else nonzero)))
        rounded = _round_bf16(np.float32(b + x))
        bad = np.uint32(bad | _overflowing(_as_float(rounded)))
        found = np.uint32(word) if x == _ZERO else _down(rounded, half){_ITSELF if itself else _FOUND}
    return bad
"""
