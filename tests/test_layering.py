"""The layer rules of docs/architecture.md, read from the source and from running processes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import persona
from tests.checkpoints import write_model

PACKAGE = Path(persona.__file__).parent
PUBLIC = "__init__"  # persona/__init__.py: over the library, under the command line
LAYERS = (
    ("cores", "errors", "frozen", "limits", "progress", "version"),
    ("objects",),
    ("store",),
    ("codec", "weights"),
    ("merge",),
    ("intake", "measure", "extract"),
    ("history",),
    ("live", "remote"),
    ("behaviour",),
    ("face",),
    ("repository",),
    (PUBLIC,),
    ("cli", "web"),
    ("__main__",),
)
"""A module imports from the layers before its own, and from its own folder."""
INNER_LAYERS = {
    "history": (
        ("brief",),
        ("results", "settings"),
        ("score_results", "sequence_views"),
        ("query_results", "store_results", "act_results", "options"),
        ("arguments",),
        ("recipes",),
        ("config",),
        ("identity", "examples", "base_names"),
        ("history",),
        ("note_refs", "stashes"),
        ("scores",),
        ("names", "planning"),
        ("reach", "origins"),
        ("worktree",),
        ("vectors", "computing", "bisecting"),
        ("commit_builder", "exporting", "placing", "interchange"),
        ("commit_checkout",),
        ("sequencing",),
        ("verbs",),
    ),
    "behaviour": (
        ("json_lines", "options"),
        ("dialogues",),
        ("probes", "chat"),
        ("graph", "models", "generating", "streaming"),
        ("measuring", "talking"),
        ("training",),
        ("states", "assessing"),
        ("building", "tuning"),
        ("verbs",),
    ),
    "merge": (
        ("codes",),
        ("rules", "workers"),
        ("reference_trims",),
        ("reference", "arithmetic"),
        ("rows",),
        ("plan",),
        ("memory",),
        ("trim", "devices"),
        ("run",),
    ),
}
"""The same inside a folder."""
LONGEST = 450
LONG = (
    "store/files.py",
    "merge/arithmetic/loops.py",
    "merge/arithmetic/cuda.py",
    "codec/kernels.py",
)
"""The writer of the disk and the kernels: one reader and one specification each."""

HEAVY = {
    "numba": (
        "codec/kernels.py",
        "codec/simd.py",
        "merge/arithmetic/loops.py",
        "merge/arithmetic/draws.py",
        "merge/arithmetic/lowrank_loops.py",
        "codec/native/compiler.py",
    ),
    "llvmlite": ("codec/native/", "codec/simd.py"),
    "huggingface_hub": ("weights/hub.py",),
    "matplotlib": ("cli/heatmap.py", "cli/graph_drawing.py", "cli/sweep_drawing.py"),
    "triton": ("merge/arithmetic/cuda.py",),
    "torch": (
        "merge/reference.py",
        "merge/reference_trims.py",
        "merge/arithmetic/cuda.py",
        "merge/devices/cuda.py",
        "live/",
        "behaviour/",
    ),
    "transformers": ("live/", "behaviour/"),
}
IMPORTERS = {"importlib", "import_module", "__import__"}
BY_NAME = (
    "__init__.py",
    "behaviour/measuring/tasks.py",
    "behaviour/verbs/__init__.py",
    "cli/main.py",
    "cli/rendering.py",
    "codec/native/compiler.py",
    "codec/native/golden.py",
    "codec/native/key.py",
    "history/verbs/__init__.py",
    "live/__init__.py",
    "merge/__init__.py",
)
"""The modules that import by a name that is a value."""
TERMINAL = ("click", "rich", "getpass", "readline", "subprocess")  # only the command line may
DISK = (
    "os",
    "io",
    "pathlib",
    "shutil",
    "tempfile",
    "mmap",
    "socket",
    "subprocess",
    "urllib",
    "fcntl",
    "glob",
)


@dataclass(frozen=True)
class Module:
    """One source file: its path inside the package, and its tree."""

    path: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, source: str) -> Module:
        """A module from its text."""
        return cls(path, ast.parse(source, filename=path))

    @property
    def name(self) -> tuple[str, ...]:
        """Its dotted name, as ("persona", …)."""
        parts = Path(self.path).with_suffix("").parts
        return ("persona", *(parts[:-1] if parts[-1] == "__init__" else parts))

    @property
    def layer(self) -> str:
        """The folder or the file of the package that it is, or lies in."""
        return self.name[1] if len(self.name) > 1 else PUBLIC

    @property
    def dotted(self) -> tuple[str, ...]:
        """The package that relative imports start from, as ("persona", …)."""
        return ("persona", *Path(self.path).parent.parts)


def modules() -> list[Module]:
    """Every source file of the package."""
    return [
        Module.of(file.relative_to(PACKAGE).as_posix(), file.read_text())
        for file in sorted(PACKAGE.rglob("*.py"))
    ]


MODULES = modules()


def modules_of(*layers: str) -> list[Module]:
    """The modules of some layers."""
    return [module for module in MODULES if module.layer in layers]


def imports(module: Module, *, where: ast.stmt | None = None) -> Iterator[tuple[str, int]]:
    """Every (dotted name, line) that a module imports, inside functions too; `from a import b` gives a.b.

    `persona.a.b` in an expression counts as well: after `import persona` it reaches any module.
    """
    for node in ast.walk(where or module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = module.dotted[: len(module.dotted) - node.level + 1] if node.level else ()
            source = ".".join((*start, *([node.module] if node.module else [])))
            yield from ((f"{source}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Attribute) and (name := dotted(node)).startswith("persona."):
            yield name, node.lineno


def imports_by_name(all_modules: Sequence[Module]) -> list[str]:
    """Imports by a name that is a value, outside the modules that may: no other rule here sees them."""
    return [
        f"{module.path}:{node.lineno} names {found}"
        for module in all_modules
        if module.path not in BY_NAME
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.Attribute | ast.Import | ast.ImportFrom)
        and (found := IMPORTERS.intersection(names_in(node)))
    ]


def names_in(node: ast.AST) -> set[str]:
    """The names that one node of a tree says itself."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        words = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        return {part for word in words for part in word.split(".")}
    return {node.id} if isinstance(node, ast.Name) else {getattr(node, "attr", "")}


def top_level_imports(module: Module) -> Iterator[tuple[str, int]]:
    """What importing the module imports at once: not inside functions, not under TYPE_CHECKING."""
    waiting: list[ast.stmt] = list(module.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(module, where=node)
        else:
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def calls(module: Module) -> Iterator[ast.Call]:
    """Every call in a module."""
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text; a part that is no plain name is "?"."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


# The import rule


def known_names(all_modules: Sequence[Module]) -> set[tuple[str, ...]]:
    """The dotted names of modules and packages."""
    return {module.name for module in all_modules}


def imported_modules(module: Module, known: set[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The modules of the package that a module imports, inside functions too; itself left out."""
    for name, line in imports(module):
        parts = tuple(name.split("."))
        target = parts if parts in known else parts[:-1]
        if target in known and target != module.name:
            yield target, line


def rank(name: str, layers: Sequence[Sequence[str]]) -> int:
    """The number of the layer of a name; the tests fail for a name without one."""
    return next(place for place, layer in enumerate(layers) if name in layer)


def upward(all_modules: Sequence[Module]) -> list[str]:
    """Imports that do not go down, from layer to layer and inside a folder."""
    known = known_names(all_modules)
    found = []
    for module in all_modules:
        for target, line in imported_modules(module, known):
            layers: Sequence[Sequence[str]] = LAYERS
            here, there = module.layer, target[1] if len(target) > 1 else PUBLIC
            if here == there and here in INNER_LAYERS and len(module.name) > 2 and len(target) > 2:
                layers, here, there = INNER_LAYERS[here], module.name[2], target[2]
            if here != there and rank(there, layers) >= rank(here, layers):
                found.append(f"{module.path}:{line} imports {'.'.join(target)}")
    return found


def verbs_that_know_verbs(all_modules: Sequence[Module]) -> list[str]:
    """Imports of one verb by another, and imports of a package through which a verb reaches the others."""
    known = known_names(all_modules)
    above = {name[:length] for name in known if name[2:3] == ("verbs",) for length in (1, 2)}
    return [
        f"{module.path}:{line} imports {'.'.join(target)}"
        for module in all_modules
        if module.name[2:3] == ("verbs",) and len(module.name) > 3
        for target, line in imported_modules(module, known)
        if target[2:3] == ("verbs",) or target in above
    ]


def circles(all_modules: Sequence[Module]) -> list[list[str]]:
    """The strongly connected groups of modules: those that import one another, by whatever way."""
    known = known_names(all_modules)
    after = {module.name: {name for name, _ in imported_modules(module, known)} for module in all_modules}
    reached: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for start in after:
        found: set[tuple[str, ...]] = set()
        waiting = list(after[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += after[name]
        reached[start] = found
    groups = {
        tuple(sorted(other for other in found if start in reached[other]))
        for start, found in reached.items()
        if start in found
    }
    return [[".".join(name) for name in group] for group in sorted(groups)]


def strays(all_modules: Sequence[Module]) -> list[str]:
    """Imports of heavy libraries outside the modules that may."""
    return [
        f"{module.path}:{line} imports {name}"
        for module in all_modules
        for name, line in imports(module)
        if (places := HEAVY.get(name.split(".")[0])) is not None and not module.path.startswith(places)
    ]


def test_every_module_has_a_layer() -> None:
    layers = {name for layer in LAYERS for name in layer}
    assert {module.layer for module in MODULES} <= layers
    for folder, inner in INNER_LAYERS.items():
        inside = {module.name[2] for module in modules_of(folder) if len(module.name) > 2}
        assert inside == {name for layer in inner for name in layer}


def test_imports_go_downward_only() -> None:
    assert not upward(MODULES)


def test_a_verb_imports_no_verb() -> None:
    assert not verbs_that_know_verbs(MODULES)


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert not circles(MODULES)


def test_heavy_libraries_are_imported_only_where_they_belong() -> None:
    assert not strays(MODULES)


def test_only_few_modules_import_by_a_name_that_is_a_value() -> None:
    assert not imports_by_name(MODULES)
    assert all(
        imports_by_name([replace(module, path="x.py")]) for module in MODULES if module.path in BY_NAME
    )


@pytest.mark.parametrize(
    ("package", "layers"), [("persona", LAYERS), *INNER_LAYERS.items()], ids=["persona", *INNER_LAYERS]
)
def test_the_page_has_the_import_rule(package: str, layers: Sequence[Sequence[str]]) -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    rule = re.search(rf"^{package}: +(\w|\{{)[^:]*?(?=\n\n|\n```)", page, re.MULTILINE)
    assert rule
    said = [set(re.findall(r"\w+", layer)) for layer in rule[0].partition(":")[2].split("<")]
    present = {module.layer for module in MODULES} - {PUBLIC}
    there = [set(layer) & present if package == "persona" else set(layer) for layer in layers]
    assert said == [layer for layer in there if layer]


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (upward, "objects/planted.py", "from persona.store import files"),
        (upward, "weights/planted.py", "from persona.codec import delta"),
        (upward, "intake/planted.py", "def f():\n    from persona.measure import compare"),
        (upward, "live/planted.py", "import persona.repository"),
        (upward, "face/planted.py", "from persona.repository import Repository"),
        (upward, "history/recipes/planted.py", "from ..history import History"),
        (upward, "history/recipes/planted.py", "from persona import repository"),
        (upward, "store/planted.py", "import persona.errors\npersona.merge.plan"),
        (upward, "history/computing.py", "from persona.history.vectors import lookup"),
        (upward, "merge/rows/reader.py", "def f():\n    from persona.merge.run import merger"),
        (upward, "merge/devices/planted.py", "from persona.merge.trim.cutoffs import cutoffs"),
        (verbs_that_know_verbs, "history/verbs/planted.py", "from persona.history.verbs.log import log"),
        (
            verbs_that_know_verbs,
            "history/verbs/planted.py",
            "def f():\n    import persona.history.verbs.log",
        ),
        (verbs_that_know_verbs, "history/verbs/planted.py", "from . import log"),
        (verbs_that_know_verbs, "behaviour/verbs/planted.py", "from persona.behaviour.verbs import graph"),
        (verbs_that_know_verbs, "behaviour/verbs/planted.py", "from persona.history.verbs import log"),
        (verbs_that_know_verbs, "behaviour/verbs/planted.py", "from persona import history"),
        (verbs_that_know_verbs, "history/verbs/planted.py", "from persona.history import verbs"),
        (verbs_that_know_verbs, "history/verbs/planted.py", "from persona import history"),
        (verbs_that_know_verbs, "history/verbs/planted.py", "import persona\npersona.history.verbs.log"),
        (circles, "store/objects.py", "def f():\n    from persona.store import check"),
        (circles, "store/files.py", "if TYPE_CHECKING:\n    from persona.store.store import Store"),
        (circles, "history/worktree/text_files.py", "from persona.history.worktree.move import FileMove"),
        (circles, "cli/dashes.py", "from persona.cli.command import Command"),
        (circles, "codec/native/kernel.py", "from persona.codec.native import has_compress"),
        (strays, "history/recipes/planted.py", "import torch"),
        (strays, "history/recipes/planted.py", "def f():\n    from torch import nn"),
        (strays, "history/verbs/planted.py", "from transformers import AutoModel"),
        (strays, "merge/run/planted.py", "import numba"),
        (imports_by_name, "history/recipes/planted.py", "import importlib\nimportlib.import_module('torch')"),
        (imports_by_name, "history/recipes/planted.py", "from importlib import import_module as load"),
        (imports_by_name, "history/recipes/planted.py", "def f():\n    __import__('torch')"),
    ],
)
def test_a_planted_import_is_found(
    rule: Callable[[Sequence[Module]], Sequence[object]], path: str, source: str
) -> None:
    others = [module for module in MODULES if module.path != path]
    assert rule([*others, Module.of(path, source)])


def test_no_module_is_too_long() -> None:
    long = {
        module.path: lines
        for module in MODULES
        if module.path not in LONG
        and (lines := len((PACKAGE / module.path).read_text().splitlines())) > LONGEST
    }
    assert not long


def test_codec_and_weights_know_neither_each_other_nor_the_layout_of_the_store() -> None:
    known = []
    for layer, strangers, allowed in [
        ("codec", ("persona.weights", "persona.store"), ("persona.store.files",)),
        ("weights", ("persona.codec", "persona.store"), ("persona.store.files",)),
    ]:
        for module in modules_of(layer):
            for name, line in imports(module):
                if name.startswith(strangers) and not name.startswith(allowed):
                    known.append(f"{module.path}:{line} imports {name}")
    assert not known


def test_numpy_and_zstandard_come_in_with_the_call_that_needs_them() -> None:
    early = [
        f"{module.path}:{line} imports {name}"
        for module in modules_of(PUBLIC, "errors", "limits", "objects", "store", "cli")
        for name, line in top_level_imports(module)
        if name.split(".")[0] in ("numpy", "zstandard", *HEAVY)
    ]
    assert not early


def test_objects_and_codec_are_pure_but_for_the_code_of_kernels() -> None:
    for module in modules_of("objects", "codec"):
        if module.path.startswith("codec/native/"):
            continue
        impure = [
            f"{module.path}:{line} imports {name}"
            for name, line in imports(module)
            if name.split(".")[0] in DISK
        ]
        impure += [
            f"{module.path}:{call.lineno} opens" for call in calls(module) if dotted(call.func) == "open"
        ]
        assert not impure


OS_CHANGES = set(
    """
    chmod chown copy_file_range fallocate fchmod fdatasync fdopen fsync ftruncate link makedirs mkdir mkfifo
    mknod posix_fallocate pwrite pwritev remove removedirs rename renames replace rmdir sendfile symlink sync
    truncate unlink utime write writev
    """.split()
)
PATH_CHANGES = set(
    "chmod hardlink_to lchmod mkdir rmdir symlink_to touch unlink write_bytes write_text".split()
)
WRITE_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_EXCL"}


def names_of_the_writer(module: Module) -> set[str]:
    """What a module calls `persona.store.files`."""
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                full = alias.name if isinstance(node, ast.Import) else f"{node.module or ''}.{alias.name}"
                if full.endswith("store.files") or full == ".files":
                    found.add(alias.asname or alias.name)
    return found


def mode_of(call: ast.Call, position: int) -> str:
    """The mode given to an `open`: "r" where there is none, "?" where it cannot be read off."""
    given = call.args[position] if len(call.args) > position else None
    given = next((word.value for word in call.keywords if word.arg == "mode"), given)
    if given is None:
        return "r"
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else "?"


def change_of_disk(call: ast.Call, writers: set[str]) -> str | None:
    """What a call changes on disk, as far as its text tells, or None."""
    name = dotted(call.func)
    owner, _, method = name.rpartition(".")
    if name == "open":
        return name if set(mode_of(call, 1)) & set("wax+?") else None
    if name == "os.open" and dotted(call.args[0]) != "os.devnull":
        flags = {
            node.attr
            for argument in call.args[1:]
            for node in ast.walk(argument)
            if isinstance(node, ast.Attribute)
        }
        return name if flags & WRITE_FLAGS else None
    if owner == "os":
        return name if method in OS_CHANGES else None
    if owner == "shutil":
        return name if method not in ("which", "get_terminal_size", "disk_usage") else None
    if owner in writers or not isinstance(call.func, ast.Attribute):
        return None
    if method == "open" and owner.split(".")[0][:1].islower():
        mode = mode_of(call, 0)
        return f"{name}({mode!r})" if set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") else None
    if method in ("replace", "rename"):  # a path's take one path; those of strings and of refs take two words
        return name if len(call.args) == 1 and not call.keywords else None
    return name if method in PATH_CHANGES else None


def test_only_store_files_changes_the_disk() -> None:
    changes = []
    for module in MODULES:
        if module.path != "store/files.py":
            writers = names_of_the_writer(module)
            changes += [
                f"{module.path}:{call.lineno} calls {change}"
                for call in calls(module)
                if (change := change_of_disk(call, writers))
            ]
            changes += [
                f"{module.path}:{line} imports {name}"
                for name, line in imports(module)
                if name.split(".")[0] == "tempfile"
            ]
    assert not changes


FILES_CHANGES = {
    f"files.{name}"
    for name in """
    append_line clear_leftovers make_directories mkdirs relied_on_directories remove remove_empty_directories
    remove_known remove_seen remove_tree rename replace_file replace_seen sync_directories sync_directory
    write_file
    """.split()
}
"""The functions of `persona.store.files` that change the disk."""


def test_only_the_work_tree_and_the_config_are_changed_from_history() -> None:
    changes = [
        f"{module.path}:{call.lineno} calls {dotted(call.func)}"
        for module in modules_of("history", "live", "measure", "intake", "face", "repository")
        if module.path not in (LOCKED, "history/worktree/changing.py", "history/config.py")
        for call in calls(module)
        if dotted(call.func).removeprefix("files.") in FILES_CHANGES
        and dotted(call.func).startswith("files.")
    ]
    assert not changes


LOCKED = "history/worktree/locked.py"
"""The one module that takes the lock of the work tree and hands it out as a value."""


def ways_around_the_lock(all_modules: Sequence[Module]) -> list[str]:
    """Calls outside of `LOCKED` that make a locked tree, take the lock, move HEAD, or change a file of
    `state/`; the record of weights is written by its own module, which takes a locked tree.
    """
    return [
        f"{module.path}:{call.lineno} calls {what}"
        for module in all_modules
        if module.layer != "store" and module.path != LOCKED
        for call in calls(module)
        if (what := ast.unparse(call.func))
        and (
            what.endswith(("LockedTree", ".worktree_lock", "refs.set_head", "refs.advance"))
            or (
                what.endswith((").write", ").remove"))
                and ".state(" in what
                and module.path != "history/worktree/weights.py"
            )
        )
    ]


def test_the_work_tree_head_and_state_change_only_under_the_lock() -> None:
    assert not ways_around_the_lock(MODULES)


@pytest.mark.parametrize(
    "source",
    [
        "LockedTree(history)",
        "locked.LockedTree(history)",
        "history.store.worktree_lock()",
        "history.store.refs.set_head(target, reason)",
        "self.history.store.refs.advance(id, reason, expect=None)",
        "history.store.state(MOVE).write({})",
        "tree.history.store.state('message').remove()",
    ],
)
def test_a_way_around_the_lock_is_found(source: str) -> None:
    assert ways_around_the_lock([Module.of("history/verbs/planted.py", source)])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("open(p, 'wb')", True),
        ("open(p)", False),
        ("open(p, mode)", True),
        ("p.open('a')", True),
        ("p.open('rb')", False),
        ("os.open(p, os.O_RDONLY | os.O_NOFOLLOW)", False),
        ("os.open(p, os.O_RDWR | os.O_CREAT)", True),
        ("os.open(os.devnull, os.O_WRONLY)", False),
        ("os.replace(a, b)", True),
        ("os.pread(f, 1, 0)", False),
        ("p.write_text('x')", True),
        ("p.unlink()", True),
        ("p.replace(q)", True),
        ("p.rename(q)", True),
        ("refs.rename(old, new)", False),
        ("s.replace('a', 'b')", False),
        ("dataclasses.replace(x, y=1)", False),
        ("shutil.rmtree(p)", True),
        ("files.rename(a, b)", False),
        ("sys.stdout.write('x')", False),
    ],
)
def test_a_change_of_the_disk_is_recognised(source: str, expected: bool) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert bool(change_of_disk(call, {"files"})) is expected


SPEECH = {"print", "input", "breakpoint", "exit", "quit", "SystemExit", "KeyboardInterrupt"}
WORLD = {
    f"{owner}.{name}"
    for owner, names in {
        "os": ("environ", "getenv", "putenv", "_exit", "getcwd"),
        "sys": ("exit", "argv", "stdin", "stdout", "stderr"),
        "Path": ("home", "cwd"),
        "pathlib.Path": ("home", "cwd"),
    }.items()
    for name in names
}


def test_the_library_never_prints_prompts_exits_or_reads_the_environment() -> None:
    said = []
    for module in MODULES:
        if module.layer in ("cli", "__main__"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name) and node.id in SPEECH:
                said.append(f"{module.path}:{node.lineno} says {node.id}")
            elif isinstance(node, ast.Attribute) and (dotted(node) in WORLD or node.attr == "expanduser"):
                said.append(f"{module.path}:{node.lineno} reads {dotted(node)}")
        for name, line in imports(module):
            if name.split(".")[0] in TERMINAL or name in WORLD:
                said.append(f"{module.path}:{line} imports {name}")
    assert not said


# Running processes

RUN = """
import json, sys
from persona.cli.main import cli
sys.argv = ["persona", *sys.argv[1:]]
code = 0
try:
    cli.main()
except SystemExit as stop:
    code = stop.code or 0
sys.stdout.flush()
print()
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def imported_by(*arguments: str | Path, cwd: Path) -> set[str]:
    """The modules that one successful command has imported when it ends, by their whole names."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.rstrip().splitlines()[-1])
    assert report["code"] == 0, done.stdout + done.stderr
    return set(report["modules"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two commits of one vector, made by the command line."""
    root = tmp_path_factory.mktemp("layering")
    weights = {"a": [0.5, -1.25, 3.0], "b": [1.0] * 8}
    base = write_model(root / "base", weights)
    tuned = write_model(root / "tuned", {**weights, "b": [1.0625] * 8})
    imported_by("init", root / "repo", "--base", base, cwd=root)
    imported_by("commit", tuned, "-m", "change b", cwd=root / "repo")
    imported_by("set", "tuned", "--alpha", "0.5", cwd=root / "repo")
    return root / "repo"


EVERYDAY = {
    "log": ["log", "-n", "20"],
    "log --oneline --graph": ["log", "--oneline", "--graph"],
    "status": ["status"],
    "diff": ["diff"],
    "diff of two revisions": ["diff", "HEAD~1", "HEAD"],
}


@pytest.mark.parametrize("arguments", EVERYDAY.values(), ids=EVERYDAY.keys())
def test_everyday_commands_import_no_number_crunching(repository: Path, arguments: list[str]) -> None:
    seen = imported_by(*arguments, cwd=repository)
    assert not seen & {"numba", "llvmlite", "torch", "transformers", "triton", "numpy", "safetensors"}


@pytest.mark.parametrize("name", ["log", "diff", "diff of two revisions"])
def test_log_and_diff_load_no_c_library_and_no_shell_quoting(repository: Path, name: str) -> None:
    assert not imported_by(*EVERYDAY[name], cwd=repository) & {"ctypes", "shlex"}


def test_a_recipe_only_commit_imports_no_number_crunching(repository: Path) -> None:
    seen = imported_by("commit", "--allow-empty", "-m", "a little less", cwd=repository)
    assert not seen & {"numba", "llvmlite", "torch", "transformers", "triton", "numpy", "safetensors"}


def test_a_checkout_on_the_cpu_imports_no_torch(repository: Path, tmp_path: Path) -> None:
    seen = imported_by("checkout", "-o", tmp_path / "out", cwd=repository)
    assert "numpy" in seen
    assert not seen & {"torch", "transformers", "triton"}


def test_a_commit_of_a_checkpoint_imports_no_torch(repository: Path) -> None:
    tuned = repository.parent / "tuned"
    seen = imported_by("commit", tuned, "-n", "again", "-m", "the same under another name", cwd=repository)
    assert "numpy" in seen
    assert not seen & {"torch", "transformers", "triton"}


def test_a_fine_tune_with_the_base_s_tensors_imports_nothing_that_matches_others(repository: Path) -> None:
    tuned = repository.parent / "tuned"
    seen = imported_by("commit", tuned, "-n", "third", "-m", "the same once more", cwd=repository)
    of_others = {"match", "copies", "factors", "heads", "refusals", "renames", "strays", "wrappers"}
    assert "persona.intake.pairs" in seen
    assert not seen & {f"persona.intake.{name}" for name in of_others}


@pytest.mark.parametrize("arguments", EVERYDAY.values(), ids=EVERYDAY.keys())
def test_everyday_commands_import_nothing_that_opens_a_checkpoint(
    repository: Path, arguments: list[str]
) -> None:
    seen = imported_by(*arguments, cwd=repository)
    assert not seen & {"persona.weights.checkpoint", "persona.weights.safetensors", "fractions"}


def test_importing_persona_imports_nothing_heavy() -> None:
    code = (
        "import persona, sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert not set(json.loads(done.stdout)) & {*HEAVY, "numpy", "zstandard", "click", "rich"}
