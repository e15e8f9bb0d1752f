"""The loops over elements, compiled by numba, without the GIL; `native` keeps their code and calls it.

Nothing here checks bounds: the callers have checked every length and count first. Nothing here allocates or
raises, so the machine code needs no runtime; scratch memory comes from the caller. Every step casts back to
the element's own width, so that the loops stay vectorisable: numba would widen uint16 arithmetic to 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from persona.codec.simd import (
    KEYS,
    add_expanded,
    bit_count,
    bits_equal,
    bits_reaching,
    lowest_bit,
    place_by_keys,
    take_chosen,
    take_indices,
)
from persona.codec.width import VECTOR_BYTES

_F = TypeVar("_F", bound=Callable[..., Any])

_COMMON = 4
"""Keys that are looked for in every vector."""
_ENOUGH = 4096
"""Elements from which on that pays."""

HIST, WEIGHTS, NODES, COST, JOINED = range(5)
"""Rows of the scratch of `choose_groups`."""


def _kernel(function: _F) -> _F:
    return cast(_F, numba.njit(nogil=True, error_model="numpy")(function))


def _inline(function: _F) -> _F:
    return cast(_F, numba.njit(nogil=True, inline="always")(function))


@_kernel
def count_keys(base: Any, shift: Any, mask: Any, counts: Any, starts: Any) -> None:
    """starts[k] = the place of the first element with key (base >> shift & mask) k in key order.
    uint32[keys].

    counts: scratch, uint32[4, keys]. A quarter of the elements is counted in each row, side by side: equal
    keys in a row, which are the rule, would otherwise wait for each other's counter.
    """
    n = base.size
    quarter = n // 4
    a, b, c, d = counts[0], counts[1], counts[2], counts[3]
    for k in range(starts.size):
        a[k] = b[k] = c[k] = d[k] = np.uint32(0)
    for i in range(quarter):
        a[np.uint64((base[i] >> shift) & mask)] += np.uint32(1)
        b[np.uint64((base[quarter + i] >> shift) & mask)] += np.uint32(1)
        c[np.uint64((base[2 * quarter + i] >> shift) & mask)] += np.uint32(1)
        d[np.uint64((base[3 * quarter + i] >> shift) & mask)] += np.uint32(1)
    for i in range(4 * quarter, n):
        d[np.uint64((base[i] >> shift) & mask)] += np.uint32(1)
    place = np.uint32(0)
    for k in range(starts.size):
        starts[k] = place
        place = np.uint32(place + np.uint32(np.uint32(a[k] + b[k]) + np.uint32(c[k] + d[k])))


@_kernel
def _common_keys(starts: Any, counts: Any, n: int, limit: int) -> int:
    """How many keys, `limit` at most, are so common that looking for each in every vector pays.

    0 for few elements. counts[0] is filled with the end of each key's places, counts[1] with the common keys.
    """
    ends, common = counts[0], counts[1]
    for k in range(starts.size - 1):
        ends[k] = starts[k + 1]
    ends[starts.size - 1] = np.uint32(n)
    many = 0
    while many < limit and n >= _ENOUGH:
        best, most = 0, np.uint32(n // 64)
        for k in range(starts.size):
            known = False
            for h in range(many):
                known = known or common[h] == k
            if not known and ends[k] - starts[k] > most:
                best, most = k, np.uint32(ends[k] - starts[k])
        if most == np.uint32(n // 64):
            break
        common[many] = np.uint32(best)
        many += 1
    return many


@_kernel
def exponent_order(
    base: Any, shift: Any, mask: Any, counts: Any, starts: Any, wide: int, order: Any, sorted_base: Any
) -> None:
    """Stable counting sort by key: order[place] = index, sorted_base[place] = element.

    Scratch as for `count_keys`. With `wide`, the elements of each common key are taken out of a SIMD vector
    together. The surplus that a vector writes is overwritten by that key's next elements.
    """
    count_keys(base, shift, mask, counts, starts)
    many = _common_keys(starts, counts, base.size, _COMMON) if wide else 0
    ends, common = counts[0], counts[1]
    lanes = VECTOR_BYTES // base.itemsize
    whole = base.size - base.size % lanes if many else 0
    for start in range(0, whole, lanes):
        at, rest = np.uint64(start), np.uint64((1 << lanes) - 1)
        for h in range(many):
            key = np.uint64(common[h])
            place = np.uint64(starts[key])
            if place + np.uint64(lanes) <= np.uint64(ends[key]):
                bits = bits_equal(base, at, np.uint64(shift), np.uint64(mask), key)
                take_chosen(base, at, bits, np.uint64(0), sorted_base, place)
                take_indices(base, at, bits, order, place)
                starts[key] = np.uint32(place + bit_count(bits))
                rest &= ~bits
        while rest:
            i = at + lowest_bit(rest)
            rest &= rest - np.uint64(1)
            x = base[i]
            key = np.uint64((x >> shift) & mask)
            place = np.uint64(starts[key])
            starts[key] = np.uint32(place + np.uint64(1))
            order[place] = np.uint32(i)
            sorted_base[place] = x
    for i in range(whole, base.size):
        x = base[i]
        key = np.uint64((x >> shift) & mask)
        place = np.uint64(starts[key])
        starts[key] = np.uint32(place + np.uint64(1))
        order[place] = np.uint32(i)
        sorted_base[place] = x


@_kernel
def place_values(
    base: Any, shift: Any, mask: Any, counts: Any, starts: Any, wide: int, values: Any, placed: Any
) -> None:
    """placed[place of element i in key order] = values[i], as `exponent_order` places it.

    starts: uint32[keys], as `count_keys` fills it; advanced. counts: scratch, uint32[2 or more, keys].
    """
    many = _common_keys(starts, counts, base.size, _COMMON) if wide else 0
    ends, common = counts[0], counts[1]
    lanes = VECTOR_BYTES // base.itemsize
    whole = base.size - base.size % lanes if many else 0
    for start in range(0, whole, lanes):
        at, rest = np.uint64(start), np.uint64((1 << lanes) - 1)
        for h in range(many):
            key = np.uint64(common[h])
            place = np.uint64(starts[key])
            if place + np.uint64(lanes) <= np.uint64(ends[key]):
                bits = bits_equal(base, at, np.uint64(shift), np.uint64(mask), key)
                take_chosen(values, at, bits, np.uint64(0), placed, place)
                starts[key] = np.uint32(place + bit_count(bits))
                rest &= ~bits
        while rest:
            i = at + lowest_bit(rest)
            rest &= rest - np.uint64(1)
            key = np.uint64((base[i] >> shift) & mask)
            place = np.uint64(starts[key])
            starts[key] = np.uint32(place + np.uint64(1))
            placed[place] = values[i]
    for i in range(whole, base.size):
        key = np.uint64((base[i] >> shift) & mask)
        place = np.uint64(starts[key])
        starts[key] = np.uint32(place + np.uint64(1))
        placed[place] = values[i]


@_kernel
def unplace_values(
    base: Any, shift: Any, mask: Any, counts: Any, starts: Any, wide: int, placed: Any, values: Any
) -> None:
    """The reverse of `place_values`: values[i] = placed[place of element i in key order]."""
    many = _common_keys(starts, counts, base.size, KEYS) if wide else 0
    common = counts[1]
    for h in range(many, KEYS):
        common[h] = common[0]
    lanes = VECTOR_BYTES // base.itemsize
    whole = base.size - base.size % lanes if many else 0
    for start in range(0, whole, lanes):
        at = np.uint64(start)
        rest = place_by_keys(base, at, np.uint64(shift), np.uint64(mask), common, starts, placed, values)
        while rest:
            i = at + lowest_bit(rest)
            rest &= rest - np.uint64(1)
            key = np.uint64((base[i] >> shift) & mask)
            place = np.uint64(starts[key])
            starts[key] = np.uint32(place + np.uint64(1))
            values[i] = placed[place]
    for i in range(whole, base.size):
        key = np.uint64((base[i] >> shift) & mask)
        place = np.uint64(starts[key])
        starts[key] = np.uint32(place + np.uint64(1))
        values[i] = placed[place]


@_kernel
def ulp_zigzag_16(base: Any, after: Any, z: Any) -> int:
    """z = zigzag(mono(after) - mono(base)), 16 bits wide; the number of z that are not 0."""
    one, top, low = np.uint16(1), np.uint16(0x8000), np.uint16(15)
    changed = 0
    for i in range(base.size):
        x, y = base[i], after[i]
        x = np.uint16(x ^ np.uint16(np.uint16(np.uint16(0) - np.uint16(x >> low)) | top))
        y = np.uint16(y ^ np.uint16(np.uint16(np.uint16(0) - np.uint16(y >> low)) | top))
        d = np.uint16(y - x)
        v = np.uint16(np.uint16(d << one) ^ np.uint16(np.uint16(0) - np.uint16(d >> low)))
        z[i] = v
        changed += v != np.uint16(0)
    return changed


@_kernel
def ulp_zigzag_32(base: Any, after: Any, z: Any) -> int:
    """z = zigzag(mono(after) - mono(base)), 32 bits wide; the number of z that are not 0."""
    one, top, low = np.uint32(1), np.uint32(0x80000000), np.uint32(31)
    changed = 0
    for i in range(base.size):
        x, y = base[i], after[i]
        x = np.uint32(x ^ np.uint32(np.uint32(np.uint32(0) - np.uint32(x >> low)) | top))
        y = np.uint32(y ^ np.uint32(np.uint32(np.uint32(0) - np.uint32(y >> low)) | top))
        d = np.uint32(y - x)
        v = np.uint32(np.uint32(d << one) ^ np.uint32(np.uint32(0) - np.uint32(d >> low)))
        z[i] = v
        changed += v != np.uint32(0)
    return changed


@_kernel
def restore_16(sorted_base: Any, z: Any, order: Any, out: Any) -> None:
    """out[order[j]] = the element whose distance from sorted_base[j] is z[j], 16 bits wide."""
    one, top, low = np.uint16(1), np.uint16(0x8000), np.uint16(15)
    for j in range(sorted_base.size):
        x, v = sorted_base[j], z[j]
        x = np.uint16(x ^ np.uint16(np.uint16(np.uint16(0) - np.uint16(x >> low)) | top))
        d = np.uint16(np.uint16(v >> one) ^ np.uint16(np.uint16(0) - np.uint16(v & one)))
        y = np.uint16(x + d)
        y = np.uint16(y ^ np.uint16(np.uint16(np.uint16(y >> low) - one) | top))
        out[np.uint64(order[j])] = y


@_kernel
def restore_32(sorted_base: Any, z: Any, order: Any, out: Any) -> None:
    """out[order[j]] = the element whose distance from sorted_base[j] is z[j], 32 bits wide."""
    one, top, low = np.uint32(1), np.uint32(0x80000000), np.uint32(31)
    for j in range(sorted_base.size):
        x, v = sorted_base[j], z[j]
        x = np.uint32(x ^ np.uint32(np.uint32(np.uint32(0) - np.uint32(x >> low)) | top))
        d = np.uint32(np.uint32(v >> one) ^ np.uint32(np.uint32(0) - np.uint32(v & one)))
        y = np.uint32(x + d)
        y = np.uint32(y ^ np.uint32(np.uint32(np.uint32(y >> low) - one) | top))
        out[np.uint64(order[j])] = y


@_kernel
def pack_digits(z: Any, escape: Any, bits: int, digits: Any) -> None:
    """min(z, escape) of each value in `bits` bits, 8 / bits to a byte, the first lowest, zero padded.

    escape: 2^bits - 1, of the type of z.
    """
    n, full = z.size, z.size * bits // 8
    if bits == 8:
        for j in range(n):
            digits[j] = np.uint8(min(z[j], escape))
    elif bits == 4:
        for j in range(full):
            a, b = np.uint8(min(z[2 * j], escape)), np.uint8(min(z[2 * j + 1], escape))
            digits[j] = np.uint8(a | np.uint8(b << np.uint8(4)))
    elif bits == 2:
        for j in range(full):
            a, b = np.uint8(min(z[4 * j], escape)), np.uint8(min(z[4 * j + 1], escape))
            c, d = np.uint8(min(z[4 * j + 2], escape)), np.uint8(min(z[4 * j + 3], escape))
            high = np.uint8(np.uint8(c << np.uint8(4)) | np.uint8(d << np.uint8(6)))
            digits[j] = np.uint8(np.uint8(a | np.uint8(b << np.uint8(2))) | high)
    else:
        for j in range(full):
            v = np.uint8(0)
            for k in range(8):
                v |= np.uint8(np.uint8(z[8 * j + k] >= escape) << np.uint8(k))
            digits[j] = v
    if full < digits.size:
        first, v = full * (8 // bits), np.uint8(0)
        for k in range(n - first):
            v |= np.uint8(np.uint8(min(z[first + k], escape)) << np.uint8(k * bits))
        digits[full] = v


@_kernel
def _expand_digits(digits: Any, bits: int, z: Any) -> Any:
    """The reverse of `pack_digits`; the number of digits that equal the escape 2^bits - 1."""
    n, full = z.size, z.size * bits // 8
    if bits == 8:
        for j in range(n):
            z[j] = digits[j]
    elif bits == 4:
        for j in range(full):
            z[2 * j] = np.uint8(digits[j] & np.uint8(15))
            z[2 * j + 1] = np.uint8(digits[j] >> np.uint8(4))
    elif bits == 2:
        for j in range(full):
            v = digits[j]
            z[4 * j] = np.uint8(v & np.uint8(3))
            z[4 * j + 1] = np.uint8(np.uint8(v >> np.uint8(2)) & np.uint8(3))
            z[4 * j + 2] = np.uint8(np.uint8(v >> np.uint8(4)) & np.uint8(3))
            z[4 * j + 3] = np.uint8(v >> np.uint8(6))
    else:
        for j in range(full):
            v = digits[j]
            for k in range(8):
                z[8 * j + k] = np.uint8(np.uint8(v >> np.uint8(k)) & np.uint8(1))
    first, escape = full * (8 // bits), np.uint8((1 << bits) - 1)
    for k in range(first, n):
        z[k] = np.uint8(np.uint8(digits[full] >> np.uint8((k - first) * bits)) & escape)
    return _count_equal(z, escape)


@_kernel
def _count_equal(z: Any, value: Any) -> Any:
    """How many of z are `value`; in runs so short that a counter of 16 bits suffices."""
    count: Any = 0
    for start in range(0, z.size, 4096):
        part, here = z[start : start + 4096], np.uint16(0)
        for j in range(part.size):
            here += np.uint16(1) if part[j] == value else np.uint16(0)
        count += np.int64(here)
    return count


@_kernel
def take_tails(z: Any, escape: Any, wide: int, tails: Any) -> Any:
    """tails[k] = z - escape of the k-th value that is at least escape; returns their number.

    tails: a vector longer than z.
    """
    k = np.uint64(0)
    lanes = VECTOR_BYTES // z.itemsize
    whole = z.size - z.size % lanes if wide else 0
    for start in range(0, whole, lanes):
        chosen = bits_reaching(z, np.uint64(start), np.uint64(escape))
        take_chosen(z, np.uint64(start), chosen, np.uint64(escape), tails, k)
        k += bit_count(chosen)
    for i in range(whole, z.size):
        tails[k] = z[i] - escape
        k += np.uint64(z[i] >= escape)
    return k


@_kernel
def _add_tails(tails: Any, escapes: int, bits: int, wide: int, z: Any) -> None:
    """z += the next tail wherever the digit z, of `bits` bits, is the escape 2^bits - 1, which `escapes` are.

    tails: one longer than `escapes`. Without `wide`, few escapes are looked for block by block and many are
    met without a branch.
    """
    escape, shift = np.uint64((1 << bits) - 1), np.uint64(bits)
    k = np.uint64(0)
    lanes = VECTOR_BYTES // z.itemsize
    whole = z.size - z.size % lanes if wide else 0
    for start in range(0, whole, lanes):
        chosen = bits_reaching(z, np.uint64(start), escape)
        add_expanded(z, np.uint64(start), chosen, tails, k)
        k += bit_count(chosen)
    few = escapes * 64 < z.size
    block = 32 if few else z.size
    for start in range(whole, z.size, block):
        stop = min(start + block, z.size)
        hits = np.uint8(1)
        if few:
            hits = np.uint8(0)
            for i in range(start, stop):
                hits |= np.uint8(z[i] == escape)
        if hits:
            for i in range(start, stop):
                digit = np.uint64(z[i])
                hit = (digit + np.uint64(1)) >> shift
                z[i] = digit + (np.uint64(tails[k]) & (np.uint64(0) - hit))
                k += hit


@_kernel
def take_plane(values: Any, shift: Any, plane: Any) -> Any:
    """plane = values >> shift, the low 8 bits; the OR of them all. shift: of the type of values."""
    seen = np.uint8(0)
    for i in range(values.size):
        v = np.uint8(values[i] >> shift)
        plane[i] = v
        seen |= v
    return seen


@_kernel
def _join_planes(data: Any, planes: int, values: Any) -> None:
    """values = the byte planes that follow each other in data, the lowest first; 0 without any."""
    n = values.size
    for i in range(n):
        values[i] = data[i] if planes else np.uint8(0)
    for p in range(1, planes):
        plane = data[p * n : (p + 1) * n]
        for i in range(n):
            values[i] |= np.uint64(plane[i]) << np.uint64(8 * p)


@_kernel
def decode_groups(data: Any, sizes: Any, groups: Any, tails: Any, wide: int, z: Any) -> int:
    """Fills z from the segments of its groups; returns 0 or the number of a fault.

    1: digits of another size, 2: digits not padded with zeros, 3: tails of another size. data: uint8, the
    segments one after the other, and one byte more. sizes: int64, theirs. groups: int64[g, 3] of (elements,
    digit bits, tail planes), checked against z and the number of segments. tails: scratch, of z's type and
    one longer than the largest group with two planes or more. wide: whether the processor has the expand
    instruction.
    """
    at, part, start = 0, 0, 0
    for g in range(groups.shape[0]):
        elements, bits, planes = groups[g, 0], groups[g, 1], groups[g, 2]
        group = z[start : start + elements]
        start += elements
        going_on = elements
        if bits:
            size = (elements * bits + 7) // 8
            if sizes[part] != size:
                return 1
            used = elements * bits % 8
            if used and data[at + size - 1] >> np.uint8(used):
                return 2
            going_on = _expand_digits(data[at : at + size], bits, group)
            at += size
            part += 1
        for p in range(planes):
            if sizes[part + p] != going_on:
                return 3
        if bits == 0:
            _join_planes(data[at : at + planes * elements], planes, group)
        elif planes == 1:
            _add_tails(data[at : at + going_on + 1], going_on, bits, wide, group)
        elif planes:
            _join_planes(data[at : at + planes * going_on], planes, tails[:going_on])
            tails[going_on] = 0
            _add_tails(tails, going_on, bits, wide, group)
        at += planes * going_on
        part += planes
    return 0


@_kernel
def count_values(z: Any, bounds: Any, every: int, counts: Any) -> None:
    """Statistics of each run [bounds[r], bounds[r + 1]) of z, from one block of 64 values in `every`.

    counts: uint32[runs, 1 + bytes of a value, 256], zeroed. counts[r, 0, v] are the values v < 256,
    counts[r, 1 + p, b] the bytes b at place p of all others.
    """
    planes = counts.shape[1] - 1
    for r in range(bounds.size - 1):
        small = counts[r, 0]
        for start in range(bounds[r], bounds[r + 1], 64 * every):
            for i in range(start, min(start + 64, bounds[r + 1])):
                v = np.uint64(z[i])
                if v < np.uint64(256):
                    small[v] += np.uint32(1)
                else:
                    for p in range(planes):
                        counts[r, 1 + p, v & np.uint64(255)] += np.uint32(1)
                        v >>= np.uint64(8)


@_inline
def _xlogx(x: float) -> float:
    return x * np.log2(x) if x > 0.0 else 0.0


@_kernel
def _huffman_bits(weights: Any, n: int, nodes: Any) -> Any:
    """Bits of a Huffman code for n symbols of these weights, ascending: two queues; nodes is scratch."""
    symbol, node, bits = 0, 0, 0.0
    for made in range(n - 1):
        pair = 0.0
        for _ in range(2):
            if symbol < n and (node >= made or weights[symbol] <= nodes[node]):
                pair += weights[symbol]
                symbol += 1
            else:
                pair += nodes[node]
                node += 1
        nodes[made] = pair
        bits += pair
    return bits


@_kernel
def _stored_bits(hist: Any, per: Any, scale: float, work: Any) -> Any:
    """An estimate of the bits that zstd needs for symbols with these counts, `per` symbols to a byte.

    hist: float64, counts of one in `scale` symbols. The bytes are Huffman coded, which takes at least one bit
    each. If one byte dominates, matches between the others are cheaper. Bytes can also stay as they are.
    """
    weights = work[WEIGHTS]
    total, log, symbols = 0.0, 0.0, 0
    for v in range(hist.size - 1, -1, -1):  # the rarer first, mostly: next to nothing is left to sort
        c = hist[v]
        if c > 0.0:
            total += c
            log += _xlogx(c)
            at = symbols
            while at and weights[at - 1] > c:
                weights[at] = weights[at - 1]
                at -= 1
            weights[at] = c
            symbols += 1
    nbytes = total / per * scale
    raw = nbytes * 8.0 + 100.0
    if symbols < 2:
        return min(raw, 250.0) if symbols else 0.0
    common = (weights[symbols - 1] / total) ** per
    if per == 1:
        code = _huffman_bits(weights, symbols, work[NODES]) / total
    else:
        code = (np.log2(total) - log / total) * per
        if common > 0.5:
            code = 1.0 + code + _xlogx(common) + _xlogx(1.0 - common) + 0.03 * (1.0 - common)
        else:
            code += 0.03
    code = min(code, (1.0 - common) * 20.0)
    table = 200.0 + 5.0 * min(256.0, float(symbols) ** per)
    return min(nbytes * code + table, raw)


@_kernel
def _group_bits(counts: Any, scale: float, work: Any) -> tuple[float, int]:
    """(bits, digit bits) of the cheapest way to store a group with these counts, as of one run."""
    planes = counts.shape[0] - 1
    small, hist = counts[0], work[HIST]
    total, large, end = 0.0, 0.0, 0
    for v in range(256):
        large += counts[1, v]
        total += small[v]
        if small[v]:
            end = v + 1
    total += large
    if total == small[0]:
        return 64.0, 0
    best, choice = np.inf, 0
    for bits in (4, 2, 0, 1, 8):
        escape = (1 << bits) - 1
        low = 0.0
        for v in range(min(escape, end)):
            hist[v] = small[v]
            low += hist[v]
        escaped = total - low
        if bits and (2.0 * escaped > total or (bits == 8 and large == 0.0)):
            continue
        cost = 64.0
        if bits:
            hist[min(escape, end)] = escaped
            cost += _stored_bits(hist[: min(escape, end) + 1], 8 // bits, scale, work)
        if escaped > 0.0 and cost < best:
            rest = max(0, end - escape)
            for v in range(rest):
                hist[v] = small[v + escape]
            if large:
                for v in range(256):
                    hist[v] = counts[1, v] + (hist[v] if v < rest else 0.0)
            cost += _stored_bits(hist[:256] if large else hist[:rest], np.int64(1), scale, work)
            for p in range(1, planes if large else 0):
                for v in range(256):
                    hist[v] = counts[1 + p, v]
                hist[0] += escaped - large
                if hist[0] == escaped:
                    break
                cost += _stored_bits(hist[:256], np.int64(1), scale, work)
        if cost < best:
            best, choice = cost, bits
    return best, choice


@_kernel
def _sum(a: Any, b: Any, out: Any) -> None:
    """out = a + b, or a if b is None. A loop, because array expressions take numba seconds to compile."""
    for p in range(a.shape[0]):
        for v in range(a.shape[1]):
            out[p, v] = a[p, v] if b is None else a[p, v] + b[p, v]


@_kernel
def choose_groups(
    bounds: Any,
    counts: Any,
    scale: float,
    limit: int,
    digit_bits: Any,
    work: Any,
    joined_bits: Any,
    pair: Any,
) -> Any:
    """Joins neighbouring runs while that saves bits, or while more than `limit` are left; how many are left.

    counts: as `count_values` fills it, one value in `scale`. In place: bounds, counts and digit_bits (int64,
    one for each run) hold the groups afterwards. Scratch: work, float64[5, at least 256 and the runs],
    joined_bits like digit_bits, pair like one row of counts.
    """
    groups = bounds.size - 1
    cost, joined = work[COST], work[JOINED]
    for g in range(groups):
        cost[g], digit_bits[g] = _group_bits(counts[g], scale, work)
    for g in range(groups - 1):
        _sum(counts[g], counts[g + 1], pair)
        joined[g], joined_bits[g] = _group_bits(pair, scale, work)
    while groups > 1:
        best, at = -np.inf, 0
        for g in range(groups - 1):
            if cost[g] + cost[g + 1] - joined[g] > best:
                best, at = cost[g] + cost[g + 1] - joined[g], g
        if best < 0.0 and groups <= limit:
            break
        cost[at], digit_bits[at] = joined[at], joined_bits[at]
        _sum(counts[at], counts[at + 1], counts[at])
        groups -= 1
        for g in range(at + 1, groups):
            bounds[g], cost[g], digit_bits[g] = bounds[g + 1], cost[g + 1], digit_bits[g + 1]
            joined[g], joined_bits[g] = joined[g + 1], joined_bits[g + 1]
            _sum(counts[g + 1], None, counts[g])
        bounds[groups] = bounds[groups + 1]
        for g in range(max(at - 1, 0), min(at + 1, groups - 1)):
            _sum(counts[g], counts[g + 1], pair)
            joined[g], joined_bits[g] = _group_bits(pair, scale, work)
    return groups


@_kernel
def rotate_split_16(raw: Any, high: Any, low: Any) -> None:
    """The sign bit moved to the bottom, then the two bytes of each element, the high one apart."""
    for i in range(raw.size):
        r = np.uint16(np.uint16(raw[i] << np.uint16(1)) | np.uint16(raw[i] >> np.uint16(15)))
        high[i] = np.uint8(r >> np.uint16(8))
        low[i] = np.uint8(r)


@_kernel
def rotate_join_16(high: Any, low: Any, out: Any) -> None:
    """The reverse of `rotate_split_16`."""
    for i in range(out.size):
        r = np.uint16(np.uint16(np.uint16(high[i]) << np.uint16(8)) | np.uint16(low[i]))
        out[i] = np.uint16(np.uint16(r >> np.uint16(1)) | np.uint16(r << np.uint16(15)))


@_kernel
def rotate_split_32(raw: Any, p3: Any, p2: Any, p1: Any, p0: Any) -> None:
    """The sign bit moved to the bottom, then the four bytes of each element, the highest first."""
    for i in range(raw.size):
        r = np.uint32(np.uint32(raw[i] << np.uint32(1)) | np.uint32(raw[i] >> np.uint32(31)))
        p3[i] = np.uint8(r >> np.uint32(24))
        p2[i] = np.uint8(r >> np.uint32(16))
        p1[i] = np.uint8(r >> np.uint32(8))
        p0[i] = np.uint8(r)


@_kernel
def rotate_join_32(p3: Any, p2: Any, p1: Any, p0: Any, out: Any) -> None:
    """The reverse of `rotate_split_32`."""
    for i in range(out.size):
        r = np.uint32(
            np.uint32(np.uint32(p3[i]) << np.uint32(24))
            | np.uint32(np.uint32(p2[i]) << np.uint32(16))
            | np.uint32(np.uint32(p1[i]) << np.uint32(8))
            | np.uint32(p0[i])
        )
        out[i] = np.uint32(np.uint32(r >> np.uint32(1)) | np.uint32(r << np.uint32(31)))
