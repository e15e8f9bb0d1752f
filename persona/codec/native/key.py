"""The key of machine code: a digest of everything that it depends on.

A kernel depends on its module, and on every module of persona that this module imports, directly or through
others, inside functions too. The imports are read from the source (`ast`), so no list has to be kept up to
date. The compiler's version is part of the key of code that this machine compiled. It is not part of the key
of shipped code, which the numba of the build compiled, and which needs no numba to run.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Final

from blake3 import blake3

from persona.codec.native import processor
from persona.codec.native.processor import Target

_FORMAT: Final = b"native 2"
_COMPILERS: Final = ("persona.codec.native.compiler", "persona.codec.native.convention")
"""Every kernel depends on how it is compiled and called."""
_STATEMENT: Final = re.compile(r"^[ \t]*(?:from|import)[ \t]+persona\b[^\n(]*(?:\([^)]*\))?", re.MULTILINE)
"""An import of persona. Parsing only these takes 2 ms, parsing whole modules 50."""


def names(module: str, kernel: str, kinds: tuple[str, ...], target: Target) -> tuple[str, str]:
    """The file of a variant's machine code for a target, and the symbol of its function."""
    parts = [_FORMAT, sources(module), sys.platform.encode(), target.cpu.encode(), target.features.encode()]
    if target == processor.host():
        parts += (_version("numba"), _version("llvmlite"))
    parts += (kernel.encode(), ",".join(kinds).encode())
    digest = blake3(b"\0".join(parts)).hexdigest()[:20]
    return f"{module}.{kernel}-{digest}.o", f"persona_{kernel}_{digest}"


@cache
def sources(module: str) -> bytes:
    """A digest of the source of a module and of all that it depends on."""
    hasher = blake3()
    for each in (*_COMPILERS, *modules(module)):
        text = _source(each)
        hasher.update(f"{each} {len(text)}\n".encode() + text)
    return hasher.digest()


def modules(module: str) -> list[str]:
    """A module and every module of persona that it imports, directly or through others; sorted."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += imports(_source(each).decode())
    return sorted(found)


def imports(source: str) -> set[str]:
    """The modules of persona that a source imports.

    A package that is imported from for its submodule is left out: importing it runs its `__init__`, which has
    no constant of a kernel.
    """
    found: set[str] = set()
    for statement in _STATEMENT.findall(source):
        try:
            (node,) = ast.parse(dedent(statement)).body
        except (SyntaxError, ValueError):  # a sentence that begins as an import does
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "persona"}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if _file(submodule) else node.module)
    return found


def _source(module: str) -> bytes:
    path = _file(module)
    if path is None:
        raise ImportError(f"{module} has no source")
    return path.read_bytes()


def _file(module: str) -> Path | None:
    """The source of a module of persona, found without importing it."""
    path = Path(__file__).parents[2].joinpath(*module.split(".")[1:])
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


@cache
def _version(package: str) -> bytes:
    """The version of numba or llvmlite, without importing it."""
    spec = importlib.util.find_spec(package)
    version = None if spec is None or spec.origin is None else Path(spec.origin).parent / "_version.py"
    return b"" if version is None or not version.is_file() else version.read_bytes()
