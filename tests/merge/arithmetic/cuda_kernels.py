"""The CUDA kernels: `arithmetic.cuda` read anew, to be interpreted or compiled, and what any copy of it has
to get right. Compiled kernels run where there is a GPU; their machine code can be read anywhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import MergeArguments
from persona.merge.rules import MergeRules, MergeTerm, canonical_order
from tests.merge.chunks import CODE, EXPONENT, Chunk, by_reference, cut_offs
from tests.merge.strategies import elements

Array = np.ndarray[Any, Any]

_copies = count()


def interpreting(interpreted: bool) -> Any:
    """While it is entered, triton defines functions for the interpreter, or for the compiler."""
    return mock.patch.dict(os.environ, TRITON_INTERPRET=str(int(interpreted)))


with interpreting(False):  # triton's own functions are for the compiler, whatever the environment says
    triton = pytest.importorskip("triton")
    standard = import_module("triton.language.standard")


def source() -> Path:
    spec = find_spec("persona.merge.arithmetic.cuda")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def load(path: Path, *, interpreted: bool) -> ModuleType:
    """A copy of the module whose kernels are interpreted, or not: triton decides where a function is defined.

    A process may hold both, whatever it imported before. `WHERE` is the device that its kernels run on.
    """
    spec = spec_from_file_location(f"cuda_kernels_{next(_copies)}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    with interpreting(interpreted):
        spec.loader.exec_module(module)
    module.WHERE = "cpu" if interpreted else "cuda"  # type: ignore[attr-defined]
    if interpreted:
        module._add = standard._sum_combine  # type: ignore[attr-defined]  # the sum it knows, not a loop
    return module


# Interpreted


def merge_by_kernel(
    cuda: ModuleType,
    base: Array,
    afters: Sequence[Array],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: str,
    *,
    ordered: bool = True,
) -> tuple[Array, int]:
    """(bits, count not finite) of a tensor "w" through the kernels, without the whole-tensor rule."""
    indices = canonical_order(terms, rules)
    indices.sort(key=lambda k: terms[k].join == "add")
    terms, afters = [terms[k] for k in indices], [afters[k] for k in indices]
    theta = cut_offs(base, afters, terms, rules, dtype)
    alpha = np.array([term.alpha for term in terms], np.float32)
    add = np.array([term.join == "add" for term in terms], np.bool_)
    chunk = Chunk.of(base, afters, dtype)
    if not ordered:
        chunk = chunk.in_place()
    return run(cuda, chunk, theta, alpha, add, rules, dtype, ordered=ordered)


def run(
    cuda: ModuleType,
    chunk: Chunk,
    theta: Array,
    alpha: Array,
    add: Array,
    rules: MergeRules,
    dtype: str,
    *,
    ordered: bool = True,
    majority: int | None = None,
) -> tuple[Array, int]:
    """(bits, count not finite) of one chunk; `majority` is counted there unless given. Beyond its end lies
    what would show if it were read or written: elements that become infinite.
    """

    def there(array: Array) -> torch.Tensor:
        return torch.from_numpy(array).to(cuda.WHERE)

    n, over = chunk.base.size, cuda.BLOCK
    shift, mask = EXPONENT[dtype]
    untouched = chunk.base.dtype.type(0xAAAA)
    z = np.full(
        (len(chunk.z), n + over), 2 * (mask << shift) % (1 << 8 * chunk.base.itemsize), chunk.base.dtype
    )
    z[:, :n] = chunk.z
    base = np.zeros(n + over, chunk.base.dtype)
    base[:n] = chunk.base
    numbers = row_of = None
    if chunk.numbers is not None and chunk.row_of is not None:
        longer = np.full((len(chunk.numbers), n + over), np.inf, np.float32)
        longer[:, :n] = chunk.numbers
        numbers, row_of = there(longer), there(chunk.row_of)
    order = np.arange(n + over, dtype=np.uint32)
    order[:n] = chunk.order
    out = there(np.full(n + over, untouched))
    signs, not_finite = there(np.zeros(1, np.int64)), there(np.zeros(1, np.int64))
    terms = cuda.Terms.of(theta, alpha, add, rules, cuda.WHERE)
    base_, z_ = there(base)[:n], there(z)
    order_ = there(order) if ordered else None
    with np.errstate(all="ignore"):
        if majority is None and rules.needs_majority:
            cuda.sum_of_signs(base_, z_, numbers, row_of, terms, rules, CODE[dtype], signs)
        sign = int(signs) if majority is None else majority
        cuda.merge_chunk(
            base_,
            z_,
            numbers,
            row_of,
            order_,
            out,
            terms,
            rules,
            CODE[dtype],
            not_finite,
            sign,
        )
    found = out.cpu().numpy()
    assert (found[n:] == untouched).all(), "written beyond the end"
    return found[:n], int(not_finite)


def run_on_cpu(
    chunk: Chunk,
    theta: Array,
    alpha: Array,
    add: Array,
    rules: MergeRules,
    dtype: str,
    *,
    majority: int | None = None,
) -> tuple[Array, int]:
    """The same through the CPU's kernels."""
    if majority is None and rules.needs_majority:
        majority = cpu.sum_of_signs(chunk.voting(add).decoded, theta[~add], alpha[~add], rules, CODE[dtype])
    out = np.empty_like(chunk.base)
    arguments = MergeArguments(theta, alpha, add, rules, CODE[dtype], majority or 0)
    bad = cpu.merge_chunk(chunk.decoded, arguments, out)
    return out, bad


def check_bits(cuda: ModuleType) -> None:
    """A few mixtures, small enough for every mutant, against the reference; raises `AssertionError`."""
    presets = [
        MergeRules(density=0.3),
        MergeRules(density=0.5, rank="plus1", on_tie="majority", divide="count"),
        MergeRules(on_tie="positive", divide="weight", lambda_=0.75),
        MergeRules(weigh="after", elect="count", merge="max", density=0.5),
        MergeRules(trim="none", elect="none", merge="sum"),
    ]
    alphas = [[0.75, -0.5, 1.0, 1.5, 0.3], [0.6, 0.7, 0.8, 0.9, 0.7]]
    joins = ["vote"] * 4 + ["add"]
    for seed, rules in enumerate(presets):
        for dtype, style in (("BF16", "weights"), ("F16", "integers"), ("F32", "weights"), ("F32", "steps")):
            strengths = alphas[(seed + (style == "integers")) % 2]
            terms = [MergeTerm("abcde"[k] * 64, strengths[k], join=joins[k]) for k in range(5)]
            base, afters = elements(seed, dtype, 5, style, 600)
            if style != "steps":  # which changes what is not finite, where its base is not
                base[::7] = 1 << (8 * base.itemsize - 1)  # −0.0 stays itself where a change is trimmed
            check_mixture(cuda, base, afters, terms, rules, dtype, ordered=seed % 2 == 0)
            if style == "weights":
                numbers = np.random.default_rng(seed).normal(size=(5, 600)).astype(np.float32)
                numbers[(np.arange(600) + np.arange(5)[:, None]) % 3 == 0] = 0
                mixed = [afters[0], numbers[1], numbers[2], afters[3], numbers[4]]
                check_mixture(cuda, base, mixed, terms, rules, dtype)


def check_mixture(
    cuda: ModuleType,
    base: Array,
    changes: Sequence[Array],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: str,
    *,
    ordered: bool = True,
) -> None:
    """One mixture against the reference."""
    want, strange = by_reference(base, changes, terms, rules, dtype)
    out, bad = merge_by_kernel(cuda, base, changes, terms, rules, dtype, ordered=ordered)
    np.testing.assert_array_equal(out, want)
    assert bad == strange


# Compiled

NO_NUMBERS = ("row_of_ptr", "numbers_ptr", "numbers_stride")
"""Arguments that are None if all rows are steps."""
DIVISION = "__cuda_sm3x_div_rn_noftz_f32_slowpath"


@dataclass(frozen=True)
class Compiled:
    """One kernel as machine code."""

    ptx: str
    cubin: bytes

    def _tool(self, name: str, *options: str) -> str:
        nvidia = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            command = [nvidia / name, *options, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    @cached_property
    def resources(self) -> dict[str, int]:
        """REG, STACK, SHARED, LOCAL, … as the assembler reports them; what spills goes to the STACK."""
        report = self._tool("cuobjdump", "-res-usage")
        return {name: int(number) for name, number in re.findall(r"(\w+)(?:\[\d+\])?:(\d+)", report)}

    @cached_property
    def sass(self) -> tuple[list[str], list[str]]:
        """(the kernel's own instructions, those of the routine that it calls for unusual divisions)."""
        own, _, routine = self._tool("nvdisasm", "-c").partition(f"{DIVISION}:")
        return tuple(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", part) for part in (own, routine))  # type: ignore[return-value]

    def moved(self) -> dict[str, list[int]]:
        """kind → bytes of every predicated access to global memory: "ld" and "st". Numbers of terms, which
        every lane reads alike, are not predicated.
        """
        found: dict[str, list[int]] = {"ld": [], "st": []}
        for kind, many, bits in re.findall(r"@%p\d+ (ld|st)\.global(?:\.v(\d))?\.b(\d+)", self.ptx):
            found[kind].append(int(many or 1) * int(bits) // 8)
        return found


def compiled(
    function: Any, capability: int, pointers: dict[str, str], constants: dict[str, Any], **options: Any
) -> Compiled:
    """A kernel for a device of this capability, with aligned rows and n that 16 divides."""
    compiler = import_module("triton.compiler")
    target = import_module("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    numbers = {name: "fp32" if name == "lam" else "i32" for name in function.arg_names}
    signature = numbers | pointers | dict.fromkeys(constants, "constexpr")
    aligned = [name for name in signature if name != "lam" and name not in constants]
    attributes = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    signature = {name: signature[name] for name in function.arg_names}
    ast = compiler.ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    with interpreting(False):
        kernel = triton.compile(ast, target=target, options=options)
    return Compiled(kernel.asm["ptx"], kernel.asm["cubin"])


def merge_kernel(
    cuda: ModuleType,
    capability: int,
    dtype: str,
    alpha: Sequence[float],
    rules: MergeRules,
    *,
    adds: int = 0,
    ordered: bool = True,
    **constants: Any,
) -> Compiled:
    """The kernel as the launcher would have it compiled, but for constants of the caller's."""
    strengths = np.array(alpha, np.float32)
    add = np.arange(strengths.size) >= strengths.size - adds
    terms = cuda.Terms.of(np.zeros_like(strengths), strengths, add, rules, "cpu")
    uint = "*u32" if dtype == "F32" else "*u16"
    pointers = {
        "base_ptr": uint,
        "z_ptr": uint,
        "out_ptr": uint,
        "order_ptr": "*u32",
        "not_finite_ptr": "*i64",
    }
    pointers |= {"alpha_ptr": "*fp32", "cut_ptr": "*fp32"}
    constants = cuda._constants(terms, rules, 0, CODE[dtype]) | constants
    constants |= dict.fromkeys(NO_NUMBERS)
    if not ordered:
        constants["order_ptr"] = None
    return compiled(cuda._merge_kernel, capability, pointers, constants, **cuda.OPTIONS)


def signs_kernel(cuda: ModuleType, capability: int, dtype: str, votes: int) -> Compiled:
    uint = "*u32" if dtype == "F32" else "*u16"
    pointers = {
        "base_ptr": uint,
        "z_ptr": uint,
        "signs_ptr": "*i64",
        "alpha_ptr": "*fp32",
        "cut_ptr": "*fp32",
    }
    constants = {"VOTES": votes, "WEIGH": 0, "ELECT": 0, "DTYPE": CODE[dtype], "UNROLL": votes}
    constants |= {"BLOCK": cuda.BLOCK} | dict.fromkeys(NO_NUMBERS)
    return compiled(cuda._signs_kernel, capability, pointers, constants, **cuda.OPTIONS)


def check_code(
    kernel: Compiled, dtype: str, terms: int, *, ordered: bool, stores: bool = True, mean: bool = True
) -> None:
    """What the machine code of a kernel without a loop has to be like; raises `AssertionError`."""
    own, _ = kernel.sass
    assert "fma" not in kernel.ptx
    assert ".ftz" not in kernel.ptx
    assert set(re.findall(r"\bdiv\.\S+", kernel.ptx)) == ({"div.rn.f32"} if mean else set())
    divisions = sum("FCHK" in line for line in own)
    assert divisions == (4 if mean else 0)
    # A division begins as five fused steps after a reciprocal; there is no other in the kernel.
    assert sum(is_fused(line) for line in own) == 5 * divisions
    assert not [line for line in own if ".FTZ" in line]
    assert kernel.resources["STACK"] == kernel.resources["LOCAL"] == 0
    size = 4 if dtype == "F32" else 2
    row = 4 * size  # four elements a thread
    loads = [row] * (1 + terms) + ([16] if ordered else [])
    assert sorted(kernel.moved()["ld"]) == sorted(loads)
    if stores:
        assert kernel.moved()["st"] == ([size] * 4 if ordered else [row])


def is_fused(line: str) -> bool:
    """Whether an instruction multiplies and adds, rather than moves a constant by way of the multiplier."""
    fused = re.search(r"\b[FDH]FMA2?\b", line)
    return fused is not None and "-RZ, RZ" not in line
