"""SIMD instructions that numba has no loop for, as LLVM's own operations.

A bit mask is a uint64 with one bit for each lane of a vector, the first lane lowest.

If the processor has these instructions (`FEATURE`), LLVM compiles each operation to one of them. On any other
processor it compiles to many, with the same results, slowly. Nothing here checks bounds.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from persona.codec.width import VECTOR_BYTES

KEYS: Final = 6
"""Keys that `place_by_keys` looks for."""

_WORD: Final = ir.IntType(64)

_intrinsic: Any = intrinsic
_cgutils: Any = cgutils


@_intrinsic
def bits_equal(_context: Any, values: Any, at: Any, shift: Any, mask: Any, key: Any) -> Any:
    """The mask of the lanes from `at` on whose (value >> shift & mask) is `key`.

    values: uint16 or uint32; the others uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held = _load(context, builder, signature.args[0], args[0], args[1])
        shift, mask, key = (_splat(builder, each, held.type) for each in args[2:])
        found = builder.icmp_unsigned("==", builder.and_(builder.lshr(held, shift), mask), key)
        return builder.zext(builder.bitcast(found, ir.IntType(held.type.count)), _WORD)

    word = types.uint64
    return word(values, word, word, word, word), codegen


@_intrinsic
def bits_reaching(_context: Any, values: Any, at: Any, least: Any) -> Any:
    """The mask of the lanes from `at` on whose value is at least `least`, a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held = _load(context, builder, signature.args[0], args[0], args[1])
        found = builder.icmp_unsigned(">=", held, _splat(builder, args[2], held.type))
        return builder.zext(builder.bitcast(found, ir.IntType(held.type.count)), _WORD)

    return types.uint64(values, types.uint64, types.uint64), codegen


@_intrinsic
def take_chosen(_context: Any, values: Any, at: Any, bits: Any, less: Any, out: Any, place: Any) -> Any:
    """out[place], out[place + 1], … = the lanes from `at` on that `bits` choose, minus `less`.

    Overwrites a whole vector of out, with undefined content behind the chosen lanes. values, out: of one
    type.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held = _load(context, builder, signature.args[0], args[0], args[1])
        held = builder.sub(held, _splat(builder, args[3], held.type))
        _store(context, builder, signature.args[4], args[4], args[5], _compress(builder, held, args[2]))
        return context.get_dummy_value()

    word = types.uint64
    return types.void(values, word, word, word, out, word), codegen


@_intrinsic
def take_indices(_context: Any, values: Any, at: Any, bits: Any, out: Any, place: Any) -> Any:
    """out[place], out[place + 1], … = at + i of every lane i of values that `bits` choose.

    Overwrites as many elements of out as a vector of values has lanes. out: uint32; at, bits and place:
    uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = VECTOR_BYTES * 8 // signature.args[0].dtype.bitwidth
        numbers = ir.Constant(ir.VectorType(ir.IntType(16), count), list(range(count)))
        lanes = ir.VectorType(ir.IntType(32), count)
        chosen = builder.zext(_compress(builder, numbers, args[2]), lanes)
        indices = builder.add(chosen, _splat(builder, args[1], lanes))
        _store(context, builder, signature.args[3], args[3], args[4], indices)
        return context.get_dummy_value()

    word = types.uint64
    return types.void(values, word, word, out, word), codegen


@_intrinsic
def add_expanded(_context: Any, values: Any, at: Any, bits: Any, tails: Any, k: Any) -> Any:
    """Adds tails[k], tails[k + 1], … in order to the lanes from `at` on that `bits` choose.

    Reads no byte of tails beyond the last one added. values: uint16 or uint32; tails: uint8 or as values.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held = _load(context, builder, signature.args[0], args[0], args[1])
        tail = context.get_value_type(signature.args[3].dtype)
        lanes = ir.VectorType(tail, held.type.count)
        source = builder.gep(_data(context, builder, signature.args[3], args[3]), [args[4]])
        mask = _mask(builder, args[2], lanes)
        more = _expand(builder, source, mask, ir.Constant(lanes, [0] * lanes.count))
        if tail.width < held.type.element.width:
            more = builder.zext(more, held.type)
        _store(context, builder, signature.args[0], args[0], args[1], builder.add(held, more))
        return context.get_dummy_value()

    word = types.uint64
    return types.void(values, word, word, tails, word), codegen


@_intrinsic
def place_by_keys(
    _context: Any, base: Any, at: Any, shift: Any, mask: Any, keys: Any, starts: Any, values: Any, out: Any
) -> Any:
    """out = the next of the values of its key, for the lanes from `at` on with a key that is looked for.

    The key of a lane is base >> shift & mask. The first `KEYS` of keys, uint32, are looked for; they may be
    equal. starts: uint32, where the next value of each key is; advanced. base, values, out: of one type; the
    others uint64. Returns the mask of the other lanes, whose out is undefined. Reads no value that it does
    not place.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        held = _load(context, builder, signature.args[0], args[0], args[1])
        lanes, count = held.type, held.type.count
        shift, mask = (_splat(builder, each, lanes) for each in args[2:4])
        found = builder.and_(builder.lshr(held, shift), mask)
        keys, starts, values = (_data(context, builder, signature.args[n], args[n]) for n in (4, 5, 6))
        placed = ir.Constant(lanes, [0] * count)
        rest = ir.Constant(ir.VectorType(ir.IntType(1), count), [1] * count)
        for number in range(KEYS):
            key = builder.zext(builder.load(builder.gep(keys, [_WORD(number)])), _WORD)
            start = builder.gep(starts, [key])
            place = builder.load(start)
            chosen = builder.and_(builder.icmp_unsigned("==", found, _splat(builder, key, lanes)), rest)
            rest = builder.xor(rest, chosen)
            source = builder.gep(values, [builder.zext(place, _WORD)])
            placed = _expand(builder, source, chosen, placed)
            many = builder.ctpop(builder.zext(builder.bitcast(chosen, ir.IntType(count)), _WORD))
            builder.store(builder.add(place, builder.trunc(many, place.type)), start)
        _store(context, builder, signature.args[7], args[7], args[1], placed)
        return builder.zext(builder.bitcast(rest, ir.IntType(count)), _WORD)

    word = types.uint64
    return word(base, word, word, word, keys, starts, values, out), codegen


def sums_of_products(rows: int, columns: int) -> Any:
    """The operation that computes some rows and columns of a product of matrices of binary32.

    All sums stay in registers, which numba's loops do not do. columns: a multiple of the lanes of a vector.
    """
    lanes = ir.VectorType(ir.FloatType(), VECTOR_BYTES // 4)
    places = [(i, j) for i in range(rows) for j in range(0, columns, lanes.count)]

    @_intrinsic
    def operation(
        _context: Any, a: Any, left: Any, b: Any, row: Any, scale: Any, out: Any, at: Any, step: Any
    ) -> Any:
        """out[at + i · step + j] = scale · Σ b[row + i, r] · a[r, left + j], beginning with r = 0.

        a: float32[rank, n]; b: float32[m, rank]; out: float32.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            shape = context.make_array(signature.args[0])(context, builder, args[0]).shape
            rank, width = (builder.extract_value(shape, n) for n in (0, 1))
            _, left, _, row, scale, _, at, step = args
            a, b, out = (_data(context, builder, signature.args[n], args[n]) for n in (0, 2, 5))
            sums = {place: _cgutils.alloca_once(builder, lanes) for place in places}
            begins = [builder.gep(b, [builder.mul(builder.add(row, _WORD(i)), rank)]) for i in range(rows)]

            def line(data: Any, at: Any, j: int) -> Any:
                return builder.bitcast(builder.gep(data, [builder.add(at, _WORD(j))]), lanes.as_pointer())

            def products(r: Any) -> dict[tuple[int, int], Any]:
                at = builder.add(builder.mul(r, width), left)
                held = {j: builder.load(line(a, at, j), align=4) for j in range(0, columns, lanes.count)}
                factors = [_fill(builder, builder.load(builder.gep(begin, [r])), lanes) for begin in begins]
                return {(i, j): builder.fmul(factors[i], held[j]) for i, j in places}

            for place, product in products(_WORD(0)).items():
                builder.store(product, sums[place])
            with _cgutils.for_range_slice(builder, _WORD(1), rank, _WORD(1)) as (r, _):
                for place, product in products(r).items():
                    builder.store(builder.fadd(builder.load(sums[place]), product), sums[place])
            factor = _fill(builder, scale, lanes)
            for i, j in places:
                total = builder.fmul(builder.load(sums[i, j]), factor)
                builder.store(total, line(out, builder.add(at, builder.mul(_WORD(i), step)), j), align=4)
            return context.get_dummy_value()

        word = types.int64
        return types.void(a, word, b, word, types.float32, out, word, word), codegen

    return operation


@_intrinsic
def bit_count(_context: Any, bits: Any) -> Any:
    """How many bits are set."""

    def codegen(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@_intrinsic
def lowest_bit(_context: Any, bits: Any) -> Any:
    """The place of the lowest bit set; bits is not 0."""

    def codegen(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


def _data(context: Any, builder: Any, array: Any, value: Any) -> Any:
    return context.make_array(array)(context, builder, value).data


def _place(context: Any, builder: Any, array: Any, value: Any, at: Any, lanes: Any) -> Any:
    return builder.bitcast(builder.gep(_data(context, builder, array, value), [at]), lanes.as_pointer())


def _load(context: Any, builder: Any, array: Any, value: Any, at: Any) -> Any:
    count = VECTOR_BYTES * 8 // array.dtype.bitwidth
    lanes = ir.VectorType(context.get_value_type(array.dtype), count)
    held = builder.load(_place(context, builder, array, value, at, lanes))
    held.align = array.dtype.bitwidth // 8
    return held


def _store(context: Any, builder: Any, array: Any, value: Any, at: Any, vector: Any) -> None:
    place = _place(context, builder, array, value, at, vector.type)
    builder.store(vector, place).align = array.dtype.bitwidth // 8


def _splat(builder: Any, word: Any, lanes: Any) -> Any:
    return _fill(builder, builder.trunc(word, lanes.element), lanes)


def _fill(builder: Any, value: Any, lanes: Any) -> Any:
    """The value in every lane."""
    undefined = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), [0] * lanes.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _mask(builder: Any, bits: Any, lanes: Any) -> Any:
    narrow = builder.trunc(bits, ir.IntType(lanes.count))
    return builder.bitcast(narrow, ir.VectorType(ir.IntType(1), lanes.count))


def _compress(builder: Any, vector: Any, bits: Any) -> Any:
    kind, mask = vector.type, _mask(builder, bits, vector.type)
    name = f"llvm.experimental.vector.compress.v{kind.count}i{kind.element.width}"
    compress = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(kind, [kind, mask.type, kind]))
    return builder.call(compress, [vector, mask, ir.Constant(kind, ir.Undefined)])


def _expand(builder: Any, source: Any, mask: Any, others: Any) -> Any:
    """The lanes that the mask chooses = the elements from a pointer on, in order; the others as given."""
    lanes = others.type
    name = f"llvm.masked.expandload.v{lanes.count}i{lanes.element.width}"
    shape = ir.FunctionType(lanes, [source.type, mask.type, lanes])
    expand = builder.module.declare_intrinsic(name, fnty=shape)
    return builder.call(expand, [source, mask, others])
