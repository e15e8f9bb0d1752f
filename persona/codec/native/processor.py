"""The processors that machine code is compiled for.

**target** — a processor or a level, in LLVM's words.
**level** — a set of instructions that many processors have in common.

Kernels are compiled for each level when persona is built. The levels of x86-64 are those of its psABI, and
one more for AVX-512 VBMI2, which the kernels use (docs/decisions/014).
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Final

from persona.frozen import dataclass

_V3: Final = frozenset({"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"})
_V4: Final = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VBMI2: Final = frozenset({"avx512vbmi", "avx512vbmi2"})


@dataclass(frozen=True)
class Target:
    """cpu, features: LLVM's words. needs: the features that a processor must have to run the code. compress:
    whether the code takes elements out of vectors (`persona.codec.simd`) with single instructions.
    """

    name: str
    cpu: str
    features: str
    needs: frozenset[str]
    compress: bool = False


# LLVM would use half of the vector registers of x86-64-v4, as the first processors of that level slow down
# for whole ones. Those with VBMI2 do not: the merge takes 1.1 ns an element instead of 2.0.
_LEVELS: Final = {
    "x86_64": (
        Target(
            "x86-64-v4-vbmi2",
            "x86-64-v4",
            "+avx512vbmi,+avx512vbmi2,-prefer-256-bit",
            _V4 | _VBMI2,
            compress=True,
        ),
        Target("x86-64-v4", "x86-64-v4", "", _V4),
        Target("x86-64-v3", "x86-64-v3", "", _V3),
    ),
    "aarch64": (Target("aarch64", "generic", "+neon", frozenset()),),
}


def levels() -> tuple[Target, ...]:
    """The levels of this processor's architecture, the highest first; empty if persona knows none."""
    architecture = os.uname().machine.lower()
    return _LEVELS.get({"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture), ())


@cache
def host() -> Target:
    """This processor."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    have = frozenset(name for name, there in features.items() if there)
    return Target("host", llvm.get_host_cpu_name(), features.flatten(), have, "avx512vbmi2" in have)


@cache
def level() -> Target | None:
    """The highest level that this processor has, or None."""
    return next((each for each in levels() if runs(each)), None)


def runs(target: Target) -> bool:
    """Whether this processor runs code for a target."""
    return target.needs <= host().needs


def has_compress() -> int:
    """1 if the processor has the instructions of `persona.codec.simd` (AVX-512 VBMI2), else 0."""
    return int(host().compress)


def machine(target: Target) -> Any:
    """A new LLVM target machine; an engine that is made with it owns it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="default",
        codemodel="jitdefault",
        jit=True,
    )
