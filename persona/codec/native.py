"""**native kernel** — machine code of a numba kernel, kept on disk and called without importing numba.

numba compiles a kernel once for each combination of argument types, its **variant**. Importing numba and
waking it up takes as long as a small checkout, so the machine code is kept beside the sources, in
``__pycache__`` (or below the home directory, where that cannot be written): checksummed, and named after all
that it depends on: sources, processor, numba, llvmlite. llvmlite links it the next time. A variant that needs
more than machine code, such as numba's allocator or exceptions, runs through numba: the same results after a
slower start.

The calling convention is numba's own for compiled functions: (pointer to the result, pointer to an exception,
arguments), an array as (owner, parent, items, bytes of an item, data, dimensions …, strides …), status 0 for
success; the number of arguments is checked against the compiled function. Calls release the interpreter's
lock. Invariant: what is linked passed its BLAKE3 first, which tells damage, and lies in a file that only this
user, root, or who installed persona can have written (docs/threat-model.md).
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import pwd
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from blake3 import blake3

from persona.codec.floats import DefaultEnvironment
from persona.errors import PersonaError
from persona.limits import MIB
from persona.store import files

Call = Callable[..., Any]

MAX_CODE_BYTES: Final = 16 * MIB
_FORMAT: Final = b"native 1"
_CHECK_BYTES: Final = 32
_SCALARS: Final[dict[str, Any]] = {
    "B": ctypes.c_uint8,
    "H": ctypes.c_uint16,
    "I": ctypes.c_uint32,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
_SYSTEM: Final = frozenset({"memcpy", "memmove", "memset", "log2"})
"""Functions of the C library that kernels may call."""
_OWNER_FREED: Final = re.compile(r"^declare void @NRT_MemInfo_call_dtor\(.*$", re.MULTILINE)
_NEVER_FREED: Final = "define void @NRT_MemInfo_call_dtor(ptr %0) {\n  ret void\n}"
"""numba's runtime frees arrays whose owner goes; the arrays handed over here have no owner to count."""
_LOCK = threading.RLock()
_LINKED: dict[str, int] = {}
_WATCHERS: list[Callable[[], None]] = []


class Kernels:
    """The kernels of a module that imports numba, by name; the module is imported only to compile.

    `depends` names further modules whose constants are compiled in.
    """

    def __init__(self, module: str, *depends: str) -> None:
        self._module = module
        self._depends = depends

    def __getattr__(self, name: str) -> Kernel:
        kernel = Kernel(self._module, self._depends, name)
        setattr(self, name, kernel)
        return kernel


class Kernel:
    """One kernel: call it with C-contiguous arrays and numbers. Thread-safe."""

    def __init__(self, module: str, depends: tuple[str, ...], name: str) -> None:
        self._module, self._depends, self._name = module, depends, name
        self._variants: dict[tuple[str, ...], Call] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The kernel's result, an integer; arrays are read and filled in place. It computes in the default
        floating-point environment.
        """
        kinds = tuple([_kind(argument) for argument in arguments])
        with DefaultEnvironment():
            return (self._variants.get(kinds) or self.variant(kinds))(*arguments)

    def variant(self, kinds: tuple[str, ...]) -> Call:
        """The kernel for arguments of these kinds."""
        with _LOCK:
            found = self._variants.get(kinds)
            if found is None:
                found = _variant(self._module, self._depends, self._name, kinds)
                self._variants[kinds] = found
            return found


@cache
def takes_vectors() -> int:
    """1 where the processor has what `persona.codec.vectors` is for (AVX-512 VBMI2), else 0."""
    import llvmlite.binding as llvm

    return int(bool(llvm.get_host_cpu_features().get("avx512vbmi2")))


@contextmanager
def watch_compilation(tell: Callable[[], None] | None) -> Iterator[None]:
    """Calls `tell` when a kernel has to be compiled meanwhile, which only a first run has to."""
    if tell is None:
        yield
        return
    _WATCHERS.append(tell)
    try:
        yield
    finally:
        _WATCHERS.remove(tell)


def tell_of_compilation() -> None:
    """Tells who watches that a kernel is being compiled; for compilers other than this module's."""
    for tell in _WATCHERS:
        tell()


def _kind(argument: Any) -> str:
    """What numba tells apart: an array's element type and dimensions, or a number's type."""
    if type(argument) is np.ndarray:
        return f"{argument.dtype.char}{argument.ndim}"
    if type(argument) is int:
        return "l"
    return "d" if type(argument) is float else str(argument.dtype.char)


def _variant(module: str, depends: tuple[str, ...], name: str, kinds: tuple[str, ...]) -> Call:
    file, symbol = _names(module, depends, name, kinds)
    code = _read(file)
    if code is None:
        tell_of_compilation()
        code = _compile(module, name, kinds, symbol)
        _write(file, code)
    if not code:
        dispatcher: Call = _dispatcher(module, name)
        return dispatcher
    return _caller(_link(code, symbol), kinds)


# Code on disk.


def _names(module: str, depends: tuple[str, ...], name: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    """The file that keeps a variant, and the symbol that it goes by."""
    parts = (_FORMAT, _sources(module, depends), _machine()[1], name.encode(), ",".join(kinds).encode())
    digest = blake3(b"\0".join(parts)).hexdigest()[:20]
    return f"{module}.{name}-{digest}.o", f"persona_{name}_{digest}"


@cache
def _sources(module: str, depends: tuple[str, ...]) -> bytes:
    """A digest of the sources of a module and of those that it depends on."""
    hasher = blake3()
    for each in (__name__, module, *depends):
        spec = importlib.util.find_spec(each)
        if spec is None or spec.origin is None:
            raise ImportError(f"{each} has no source")
        hasher.update(Path(spec.origin).read_bytes())
    return hasher.digest()


def kept_in() -> Path:
    """Where code is kept, for advice."""
    return next((folder for folder in _folders() if folder.is_dir()), _folders()[0])


def _folders() -> list[Path]:
    """Where code may be kept, the usual place first."""
    folders = [Path(__file__).parent / "__pycache__"]
    with suppress(KeyError):
        folders.append(Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "persona" / "kernels")
    return folders


def _read(file: str) -> bytes | None:
    for folder in _folders():
        try:
            data = files.read_file(folder / file, limit=MAX_CODE_BYTES) if _trusted(folder / file) else None
        except PersonaError:
            continue
        if data and data[:_CHECK_BYTES] == blake3(data[_CHECK_BYTES:]).digest():
            return data[_CHECK_BYTES:]
    return None


def _trusted(path: Path) -> bool:
    """Whether nobody else can have written a file: its code is going to be run."""
    try:
        status, source = os.stat(path), os.stat(__file__)
    except OSError:
        return False
    return status.st_uid in (os.getuid(), 0, source.st_uid) and not status.st_mode & stat.S_IWOTH


def _write(file: str, code: bytes) -> None:
    for folder in _folders():
        try:
            files.mkdirs(folder)
            files.write_file(folder / file, [blake3(code).digest(), code], durable=False)
        except PersonaError:
            continue
        return


# Compiling and linking.


@cache
def _machine() -> tuple[Any, bytes]:
    """A target machine for this processor, and what tells it from others."""
    import llvmlite
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )
    names = (llvmlite.__version__, _numba(), llvm.get_process_triple(), cpu, features)
    return machine, "\n".join(names).encode()


def _numba() -> str:
    """numba's version, without importing it; it decides what arrays look like to a kernel."""
    spec = importlib.util.find_spec("numba")
    version = None if spec is None or spec.origin is None else Path(spec.origin).parent / "_version.py"
    return "" if version is None or not version.is_file() else version.read_text()


@cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine()[0])


def _link(code: bytes, symbol: str) -> int:
    """The address of a kernel in this process."""
    import llvmlite.binding as llvm

    if symbol not in _LINKED:
        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _LINKED[symbol] = int(engine.get_function_address(symbol))
    return _LINKED[symbol]


def _compile(module: str, name: str, kinds: tuple[str, ...], symbol: str) -> bytes:
    """The machine code of a variant; nothing where it needs more than that."""
    from numba import types
    from numba.np.numpy_support import from_dtype

    dispatcher: Any = _dispatcher(module, name)
    signature = []
    for kind in kinds:
        element = from_dtype(np.dtype(kind[0]))
        signature.append(types.Array(element, int(kind[1:]), "C") if kind[1:] else element)
    with _compiling():
        dispatcher.compile(tuple(signature))
    overload = dispatcher.overloads[tuple(signature)]
    text = dispatcher.inspect_llvm(tuple(signature))
    return _machine_code(text, overload.fndesc.llvm_func_name, len(_types(kinds)), symbol)


def _dispatcher(module: str, name: str) -> Any:
    """A kernel as numba has it."""
    with _compiling():
        return getattr(importlib.import_module(module), name)


@contextmanager
def _compiling() -> Iterator[None]:
    """numba compiles, also where it is told not to: that is meant for debugging other code, and kernels that
    Python runs would take hours.
    """
    import numba.core.config

    config: Any = numba.core.config
    disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
    try:
        yield
    finally:
        config.DISABLE_JIT = disabled


def _machine_code(text: str, function: str, arguments: int, symbol: str) -> bytes:
    """The code of one function of an LLVM module and of all that it calls, under another name."""
    import llvmlite.binding as llvm

    machine, _ = _machine()
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


def _types(kinds: tuple[str, ...]) -> list[Any]:
    """The C types of a variant's arguments, the result and the exception first."""
    types: list[Any] = [ctypes.c_void_p, ctypes.c_void_p]
    for kind in kinds:
        if kind[1:]:
            words = [ctypes.c_int64] * (2 * int(kind[1:]))
            types += [
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_void_p,
                *words,
            ]
        else:
            types.append(_SCALARS[kind])
    return types


def _caller(address: int, kinds: tuple[str, ...]) -> Call:
    """Calls machine code with numba's calling convention."""
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *_types(kinds))(address)
    arrays = [bool(kind[1:]) for kind in kinds]

    def call(*arguments: Any) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        words: list[Any] = [ctypes.addressof(result), ctypes.addressof(error)]
        for argument, is_array in zip(arguments, arrays, strict=True):
            if is_array:
                if not argument.flags.c_contiguous:
                    raise ValueError("a kernel takes C-contiguous arrays alone")
                words += (None, None, argument.size, argument.itemsize, argument.ctypes.data)
                words += argument.shape
                words += argument.strides
            else:
                words.append(argument if type(argument) in (int, float) else argument.item())
        if function(*words):
            raise RuntimeError("a kernel failed, which none does")
        return result.value

    return call
