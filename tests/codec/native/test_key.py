"""The key of machine code: derived from the sources, so that nobody has to remember a list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import persona
from persona.codec.native import key, processor

PACKAGE = Path(persona.__file__).parent
CODEC, MERGE = "persona.codec.kernels", "persona.merge.arithmetic.loops"
KERNEL: tuple[str, tuple[str, ...]] = ("scatter", ("H1", "I1", "l", "H1"))


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    key.sources.cache_clear()
    key._version.cache_clear()
    yield
    key.sources.cache_clear()
    key._version.cache_clear()


def by_whole_tree(path: Path) -> set[str]:
    """The modules of persona that a file imports, from its whole syntax tree."""
    package = ("persona", *path.parent.relative_to(PACKAGE).parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "persona"}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            for alias in node.names if module.split(".")[0] == "persona" else ():
                submodule = f"{module}.{alias.name}"
                found.add(submodule if key._file(submodule) else module)
    return found


def test_imports_are_found_as_in_the_whole_syntax_tree_of_every_module() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    for path in files:
        missed = by_whole_tree(path) - key.imports(path.read_text())
        assert not missed, f"{path} imports {missed}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import persona.codec.floats", {"persona.codec.floats"}),
        (
            "from persona.codec import floats as f, elements",
            {"persona.codec.floats", "persona.codec.elements"},
        ),
        ("from persona.limits import (\n    MIB,\n    KIB,\n)", {"persona.limits"}),
        ("def f():\n    from persona.errors import PersonaError", {"persona.errors"}),
        ("from persona import errors", {"persona.errors"}),
        ("import numpy as np\nfrom personality import x", set()),
        ('"""\nfrom persona on it is called persona.\n"""', set()),
    ],
)
def test_every_way_to_import_is_found(source: str, expected: set[str]) -> None:
    assert key.imports(source) == expected


def test_a_kernel_depends_on_what_its_module_imports_directly_or_through_others() -> None:
    assert set(key.modules(CODEC)) == {CODEC, "persona.codec.simd", "persona.codec.width"}
    assert {MERGE, "persona.codec.simd", "persona.codec.elements", "persona.errors"} <= set(
        key.modules(MERGE)
    )
    far = [name for name in key.modules(MERGE) if name.startswith(("persona.objects", "persona.store"))]
    assert far == ["persona.objects.dtypes"]


@pytest.mark.parametrize("changed", [*key.modules(MERGE), "persona.codec.native.compiler"])
def test_another_source_of_anything_it_depends_on_is_another_key(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key.names(MERGE, *KERNEL, processor.host())
    real = key._source
    monkeypatch.setattr(key, "_source", lambda name: real(name) + (b"\n" if name == changed else b""))
    key.sources.cache_clear()
    assert not set(key.names(MERGE, *KERNEL, processor.host())) & set(before)


def test_another_source_of_something_else_is_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key.names(CODEC, *KERNEL, processor.host())
    real = key._source
    monkeypatch.setattr(key, "_source", lambda name: real(name) + (b"\n" if name == MERGE else b""))
    key.sources.cache_clear()
    assert key.names(CODEC, *KERNEL, processor.host()) == before


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
def test_another_compiler_is_another_key_of_what_this_machine_compiled_but_not_of_what_was_shipped(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = processor.Target("level", "x86-64-v3", "", frozenset())
    host, shipped = (key.names(CODEC, *KERNEL, target) for target in (processor.host(), level))
    real = key._version
    monkeypatch.setattr(key, "_version", lambda name: b"another" if name == package else real(name))
    assert key.names(CODEC, *KERNEL, processor.host()) != host
    assert key.names(CODEC, *KERNEL, level) == shipped


def test_the_versions_of_the_compiler_are_known_without_importing_it() -> None:
    import llvmlite
    import numba

    assert numba.__version__.encode() in key._version("numba")
    assert llvmlite.__version__.encode() in key._version("llvmlite")
    assert key._version("no_such_package") == b""


def different() -> Iterator[tuple[str, str, tuple[str, ...], Any]]:
    """Pairwise different variants."""
    name, kinds = KERNEL
    host = processor.host()
    yield CODEC, name, kinds, host
    yield MERGE, name, kinds, host
    yield CODEC, "another", kinds, host
    yield CODEC, name, kinds[1:], host
    yield CODEC, name, kinds, processor.Target("v3", "x86-64-v3", "", frozenset())
    yield CODEC, name, kinds, processor.Target("v3", "x86-64-v3", "-avx", frozenset())


def test_every_variant_has_a_key_of_its_own() -> None:
    named = [key.names(*variant) for variant in different()]
    assert len({file for file, _ in named}) == len({symbol for _, symbol in named}) == len(named)
