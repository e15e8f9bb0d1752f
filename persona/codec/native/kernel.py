"""Kernels by name, and where the machine code of a variant comes from."""

from __future__ import annotations

import threading
from typing import Any

from persona.codec.floats import DefaultEnvironment
from persona.codec.native import code_files, golden, key, link, processor, watch
from persona.codec.native.convention import Call, caller, kinds_of
from persona.codec.native.processor import Target
from persona.errors import SystemFault

_LOCK = threading.RLock()


class Kernels:
    """The kernels of a module that imports numba, by name; the module is imported only to compile.

    golden: the module that has their golden cases.
    """

    def __init__(self, module: str, *, golden: str) -> None:
        self.module, self.golden = module, golden

    def __getattr__(self, name: str) -> Kernel:
        if name.startswith("__"):
            raise AttributeError(name)
        kernel = Kernel(self.module, self.golden, name)
        setattr(self, name, kernel)
        return kernel


class Kernel:
    """One kernel: call it with C-contiguous arrays and numbers. Thread-safe."""

    def __init__(self, module: str, golden: str, name: str) -> None:
        self._module, self._golden, self._name = module, golden, name
        self._variants: dict[tuple[str, ...], Call] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The kernel's result, an integer; arrays are read and filled in place.

        It computes in the default floating-point environment.
        """
        kinds = kinds_of(arguments)
        with DefaultEnvironment():
            return (self._variants.get(kinds) or self.variant(kinds))(*arguments)

    def variant(self, kinds: tuple[str, ...]) -> Call:
        """The kernel for arguments of these kinds."""
        with _LOCK, DefaultEnvironment():
            found = self._variants.get(kinds)
            if found is None:
                found = self._variants[kinds] = self._kept(kinds) or self._compiled(kinds)
            return found

    def warm_up(self, kinds: tuple[str, ...]) -> bool:
        """Makes sure that the user's cache has code of a variant for exactly this processor.

        Returns whether it had to be compiled.
        """
        with _LOCK, DefaultEnvironment():
            found = self._proven(processor.host(), kinds)
            compiled = found is None
            self._variants[kinds] = found or self._compiled(kinds)
            return compiled

    def _kept(self, kinds: tuple[str, ...]) -> Call | None:
        """From the cache, or shipped with persona."""
        level = processor.level()
        return self._proven(processor.host(), kinds) or (self._proven(level, kinds) if level else None)

    def _proven(self, target: Target, kinds: tuple[str, ...]) -> Call | None:
        """A variant whose code for this target is kept, if it can be linked and passes its golden cases."""
        file, symbol = key.names(self._module, self._name, kinds, target)
        host = target == processor.host()
        code = code_files.read(file, code_files.cached_in() if host else code_files.shipped_in(target))
        try:
            return linked(self._golden, self._name, kinds, target, code, symbol) if code else None
        except SystemFault:
            return None

    def _compiled(self, kinds: tuple[str, ...]) -> Call:
        """Compiles a variant for this processor, unless another process did so meanwhile."""
        from persona.codec.native import compiler

        watch.tell_of_compilation()
        host = processor.host()
        file, symbol = key.names(self._module, self._name, kinds, host)
        with code_files.compiling():
            if found := self._proven(host, kinds):
                return found
            code = compiler.compile_for(host, self._module, self._name, kinds, symbol)
            if code:
                call = linked(self._golden, self._name, kinds, host, code, symbol)
                code_files.keep(file, code)
                return call
        found = compiler.dispatcher(self._module, self._name)  # the same results after a slower start
        golden.require(self._golden, self._name, kinds, host.compress, found)
        return found


def linked(of: str, kernel: str, kinds: tuple[str, ...], target: Target, code: bytes, symbol: str) -> Call:
    """Links the code of a variant and tests it.

    Raises `SystemFault` if it cannot be linked, or fails its golden cases in the module `of`.
    """
    address = link.address_of(code, symbol)
    if address is None:
        raise SystemFault(f"the machine code of {kernel} cannot be linked")
    call = caller(address, kinds)
    golden.require(of, kernel, kinds, target.compress, call)
    return call
