"""**floating-point environment** — how a thread rounds, and whether it flushes subnormal numbers to zero.

It belongs to a thread, and new threads inherit it. Other libraries change it: `torch.set_flush_denormal`, C
code that calls `fesetround`, a shared library linked with -ffast-math as soon as it is loaded. The arithmetic
of docs/numerics.md needs the default environment. So every kernel, every work item of a thread pool and every
function that computes with floats on the caller's thread enters it, and restores the caller's afterwards.

This works on Linux and macOS, on x86-64 and ARM. On any other system the environment stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_MINUS_ONE: Final = ("x86_64", "amd64", "aarch64", "arm64", "riscv64")
"""Machines on which C libraries for Linux define FE_DFL_ENV as the pointer −1."""
_BYTES: Final = 256
"""More than any C library's fenv_t."""


class DefaultEnvironment:
    """A context in which this thread computes in the default environment.

    At exit it gets its own environment back.
    """

    __slots__ = ("_found",)

    def __enter__(self) -> None:
        self._found = None
        if (library := _library()) is not None:
            get, set_, default, buffer = library
            found = buffer()
            if get(found) == 0 and set_(default) == 0:
                self._found = found

    def __exit__(self, *_: object) -> None:
        if self._found is not None:
            _library()[1](self._found)  # type: ignore[index]


def in_default_environment(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run in the default environment.

    Not for generators: they would leave it at a yield.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with DefaultEnvironment():
            return function(*args, **kwargs)

    return run


@cache
def _library() -> tuple[Any, Any, Any, Any] | None:
    """(fegetenv, fesetenv, FE_DFL_ENV, a type for an environment) of the C library; None if it lacks them."""
    import ctypes

    for name in (None, "libm.so.6"):  # None: what the process has linked already
        try:
            library = ctypes.PyDLL(name)  # calls keep the interpreter's lock: they take nanoseconds
            get, set_ = library.fegetenv, library.fesetenv
            if sys.platform == "darwin":
                default = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, "_FE_DFL_ENV")))
            elif _machine() in _MINUS_ONE:
                default = ctypes.c_void_p(-1)
            else:
                return None
        except (OSError, AttributeError, ValueError):
            continue
        get.argtypes = set_.argtypes = [ctypes.c_void_p]
        return get, set_, default, ctypes.c_uint64 * (_BYTES // 8)
    return None


def _machine() -> str:
    """The architecture that this interpreter is built for, as "x86_64"."""
    built_for = str(getattr(sys.implementation, "_multiarch", ""))
    if built_for:
        return built_for.partition("-")[0]
    import platform  # takes milliseconds to import

    return platform.machine().lower()
