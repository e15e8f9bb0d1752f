"""Brings machine code into this process."""

from __future__ import annotations

from typing import Any, Final

from persona.codec.native import processor

_ENGINES: Final[list[Any]] = []
"""One for each object: they hold the code in memory."""


def address_of(code: bytes, symbol: str) -> int | None:
    """The address of a function in an object file, or None if it cannot be linked."""
    import llvmlite.binding as llvm

    try:
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), processor.machine(processor.host()))
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
    except (RuntimeError, ValueError):
        return None
    _ENGINES.append(engine)
    return int(engine.get_function_address(symbol)) or None
