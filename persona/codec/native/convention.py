"""Calls of machine code that numba compiled, through ctypes.

The convention is numba's own for compiled functions: (pointer to the result, pointer to an exception,
arguments), an array as (owner, parent, items, bytes of an item, data, dimensions …, strides …), status 0 for
success. The arrays handed over have no owner. Calls release the interpreter's lock.

The kind of an argument is an array's element type and number of dimensions ("H1"), or a number's type ("l").
numba compiles a variant for each combination of kinds.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

Call = Callable[..., Any]

_SCALARS: Final[dict[str, Any]] = {
    "B": ctypes.c_uint8,
    "H": ctypes.c_uint16,
    "I": ctypes.c_uint32,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


def kinds_of(arguments: tuple[Any, ...]) -> tuple[str, ...]:
    """The kinds of these arguments."""
    return tuple([_kind(argument) for argument in arguments])


def _kind(argument: Any) -> str:
    if type(argument) is np.ndarray:
        return f"{argument.dtype.char}{argument.ndim}"
    if type(argument) is int:
        return "l"
    return "d" if type(argument) is float else str(argument.dtype.char)


def c_types(kinds: tuple[str, ...]) -> list[Any]:
    """The C types of a variant's arguments, the result and the exception first."""
    types: list[Any] = [ctypes.c_void_p, ctypes.c_void_p]
    for kind in kinds:
        if kind[1:]:
            types += [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
            types += [ctypes.c_int64] * (2 * int(kind[1:]))
        else:
            types.append(_SCALARS[kind])
    return types


def _by_structure(array: Any) -> int:
    """The address of an array's first element: the field of numpy's C structure that follows the object's."""
    return ctypes.c_void_p.from_address(id(array) + object.__basicsize__).value or 0


def _by_numpy(array: Any) -> int:
    """The same in seven times the time."""
    return int(array.ctypes.data)


def _is_known() -> bool:
    """Whether numpy's structure is where and what `_by_structure` takes it to be."""
    array = np.zeros(1)
    return sys.implementation.name == "cpython" and _by_structure(array) == _by_numpy(array)


data_pointer: Final[Callable[[Any], int]] = _by_structure if _is_known() else _by_numpy


def caller(address: int, kinds: tuple[str, ...]) -> Call:
    """Calls the machine code at an address with C-contiguous arrays and numbers of these kinds."""
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *c_types(kinds))(address)
    arrays = [bool(kind[1:]) for kind in kinds]

    def call(*arguments: Any) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        words: list[Any] = [ctypes.addressof(result), ctypes.addressof(error)]
        for argument, is_array in zip(arguments, arrays, strict=True):
            if is_array:
                if not argument.flags.c_contiguous:
                    raise ValueError("the arrays of a kernel must be C-contiguous")
                words += (None, None, argument.size, argument.itemsize, data_pointer(argument))
                words += argument.shape
                words += argument.strides
            else:
                words.append(argument if type(argument) in (int, float) else argument.item())
        if function(*words):
            raise RuntimeError("a kernel returned an error; a kernel must return none")
        return result.value

    return call
