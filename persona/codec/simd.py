"""SIMD instructions that numba has no loop for, as LLVM's own operations.

A bit mask is a uint64 with one bit for each lane of a vector, the first lane lowest.

If the processor has these instructions (`FEATURE`), LLVM compiles each operation to one of them. On any other
processor it compiles to many, with the same results, slowly. Nothing here checks bounds.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from persona.codec.width import VECTOR_BYTES

_WORD: Final = ir.IntType(64)

_intrinsic: Any = intrinsic


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
        source = builder.gep(context.make_array(signature.args[3])(context, builder, args[3]).data, [args[4]])
        mask = _mask(builder, args[2], lanes)
        name = f"llvm.masked.expandload.v{lanes.count}i{tail.width}"
        shape = ir.FunctionType(lanes, [source.type, mask.type, lanes])
        expand = builder.module.declare_intrinsic(name, fnty=shape)
        more = builder.call(expand, [source, mask, ir.Constant(lanes, [0] * lanes.count)])
        if tail.width < held.type.element.width:
            more = builder.zext(more, held.type)
        _store(context, builder, signature.args[0], args[0], args[1], builder.add(held, more))
        return context.get_dummy_value()

    word = types.uint64
    return types.void(values, word, word, tails, word), codegen


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


def _place(context: Any, builder: Any, array: Any, value: Any, at: Any, lanes: Any) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), lanes.as_pointer())


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
    value = builder.trunc(word, lanes.element)
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
