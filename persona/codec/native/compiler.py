"""The compiler: a variant of a kernel → machine code that needs nothing else.

numba is imported only here and in the modules that hold kernels.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from persona.codec.native import processor
from persona.codec.native.convention import Call, c_types
from persona.codec.native.processor import Target

_SYSTEM: Final = frozenset({"memcpy", "memmove", "memset", "log2"})
"""Functions of the C library that kernels may call."""
_OWNER_FREED: Final = re.compile(r"^declare void @NRT_MemInfo_call_dtor\(.*$", re.MULTILINE)
_NEVER_FREED: Final = "define void @NRT_MemInfo_call_dtor(ptr %0) {\n  ret void\n}"
"""numba's runtime frees arrays whose owner goes; the arrays handed over here have no owner to count."""


def compile_for(target: Target, module: str, kernel: str, kinds: tuple[str, ...], symbol: str) -> bytes:
    """The machine code of a variant, whose function is named `symbol`.

    Empty if the variant needs more than machine code, such as numba's allocator or exceptions. A process
    compiles for one target only: numba takes it from its configuration once.
    """
    from numba import types
    from numba.np.numpy_support import from_dtype

    _aim_at(target)
    numba_kernel: Any = dispatcher(module, kernel)
    signature = []
    for kind in kinds:
        element = from_dtype(np.dtype(kind[0]))
        signature.append(types.Array(element, int(kind[1:]), "C") if kind[1:] else element)
    with _compiling():
        numba_kernel.compile(tuple(signature))
    function = numba_kernel.overloads[tuple(signature)].fndesc.llvm_func_name
    text = numba_kernel.inspect_llvm(tuple(signature))
    return _machine_code(target, text, function, len(c_types(kinds)), symbol)


def dispatcher(module: str, kernel: str) -> Call:
    """A kernel as numba has it."""
    with _compiling():
        found: Call = getattr(importlib.import_module(module), kernel)
    return found


def _aim_at(target: Target) -> None:
    import numba.core.config

    if target != processor.host():
        config: Any = numba.core.config
        config.CPU_NAME, config.CPU_FEATURES = target.cpu, target.features


@contextmanager
def _compiling() -> Iterator[None]:
    """Makes numba compile even if it is told not to.

    That switch is for debugging other code, and kernels that Python runs would take hours.
    """
    import numba.core.config

    config: Any = numba.core.config
    disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
    try:
        yield
    finally:
        config.DISABLE_JIT = disabled


def _machine_code(target: Target, text: str, function: str, arguments: int, symbol: str) -> bytes:
    """The code of one function of an LLVM module and of all that it calls, under another name."""
    import llvmlite.binding as llvm

    machine = processor.machine(target)
    module = llvm.parse_assembly(_OWNER_FREED.sub(_NEVER_FREED, text))
    entry = module.get_function(function)
    if len(list(entry.arguments)) != arguments:
        return b""
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != function:
            value.linkage = "internal"
    entry.linkage = "external"
    entry.name = symbol
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_strip_dead_prototype_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    needed = {value.name for value in (*module.functions, *module.global_variables) if value.is_declaration}
    if any(name not in _SYSTEM and not name.startswith("llvm.") for name in needed):
        return b""
    return bytes(machine.emit_object(module))
