"""The variants of the CUDA kernel that `cuda.py` compares, and the digests that their results must have.

A variant is an element type, what the kernel is compiled for (`plain`; `lone`: some α is 1; `careful`:
unusual rules, α of 0 and 3e38), how its arrays lie, and a number of terms. Inputs come from a BLAKE3 stream
and integers, so that they are the same everywhere; the digests were computed by the CPU's kernel and are kept
in tests/golden/cuda-variants.json. So a machine with a GPU needs neither numba nor the CPU's kernel for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from persona.codec.elements import of
from persona.merge.arithmetic import trial
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.rules import NO_TRIM, MergeRules, MergeTerm

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "cuda-variants.json"
DTYPES = ("BF16", "F16", "F32")
KINDS = ("plain", "lone", "careful")
LAYOUTS = ("in place", "scattered", "odd length", "misaligned")
TERMS = (1, 3, 4, 5, 9)
ELEMENTS = 4096
ALPHAS = {
    "plain": (0.75, -0.5, 1.5, 0.1, 0.8, -1.25, 0.3, 2.0, 0.6),
    "lone": (1.0, 0.5, -0.7, 1.0, 0.25, 1.0, -1.0, 0.9, 1.0),
    "careful": (3e38, 0.0, 1.0, -0.5, 0.0, 1e-44, -3e38, 0.7, 1.0),
}
RULES = {
    "plain": MergeRules(density=0.5, lambda_=0.75),
    "lone": MergeRules(density=0.5, on_tie="positive", divide="weight"),
    "careful": MergeRules(density=0.5, weigh="after", elect="count", on_tie="majority", divide="count"),
}


@dataclass(frozen=True)
class Variant:
    """One of them; the last of several terms is added instead of voting."""

    dtype: str
    kind: str
    layout: str
    terms: int

    @property
    def name(self) -> str:
        """As the golden file has it."""
        return f"{self.dtype} {self.kind} {self.layout} K={self.terms}"

    @property
    def rules(self) -> MergeRules:
        """The rules of its kind."""
        return RULES[self.kind]


@dataclass(frozen=True)
class Inputs:
    """base: uint[n]; after, z: uint[K, n]; order: uint32[n]; theta, alpha: float32[K]; add: bool[K]."""

    base: Any
    after: Any
    z: Any
    order: Any
    theta: Any
    alpha: Any
    add: Any


def variants() -> Iterator[Variant]:
    """Every type, kind and layout, with a number of terms that goes round."""
    for place, (dtype, kind, layout) in enumerate(product(DTYPES, KINDS, LAYOUTS)):
        yield Variant(dtype, kind, layout, TERMS[place % len(TERMS)])


def inputs(variant: Variant, elements: int = ELEMENTS) -> Inputs:
    """What a variant is run on: hard elements, and changes as fine-tunes have them, three of four unchanged
    terms in places.
    """
    n, element = elements + (3 if variant.layout == "odd length" else 0), of(variant.dtype)
    hard = trial._hard(element)

    def drawn(label: str, most: int) -> Any:
        stream = np.frombuffer(blake3(f"{variant.name} {label}".encode()).digest(4 * n), "<u4")
        return stream % np.uint32(most)

    exponent = np.uint32((1 << element.exponent - 1) - 8) + drawn("exponent", 8)
    usual = (exponent << element.mantissa) | drawn("mantissa", 1 << element.mantissa)
    usual |= drawn("sign", 2) << np.uint32(element.width - 1)
    base = np.where(drawn("which", 2) == 0, hard[drawn("hard", hard.size)], usual).astype(element.uint)
    rows = []
    for k in range(variant.terms):
        near = base + (drawn(f"steps {k}", 9).astype(element.uint) - element.uint.type(4))
        far = hard[drawn(f"far {k}", hard.size)]
        row = np.where(drawn(f"how {k}", 3) == 0, far, np.where(drawn(f"if {k}", 2) == 0, near, base))
        strange = trial._strange(base, element) | trial._strange(row.astype(element.uint), element)
        rows.append(np.where(strange, base, row).astype(element.uint))
    after = np.stack(rows)
    return Inputs(
        base=base,
        after=after,
        z=np.stack([trial._steps(base, row) for row in after]),
        order=np.argsort(drawn("order", 1 << 31), kind="stable").astype(np.uint32),
        theta=np.array([NO_TRIM if k % 2 == 0 else 0.0078125 for k in range(variant.terms)], np.float32),
        alpha=np.array(ALPHAS[variant.kind][: variant.terms], np.float32),
        add=np.arange(variant.terms) >= max(1, variant.terms - 1) + (variant.terms < 3),
    )


def digest(out: Any, not_finite: int) -> str:
    """Of the merged elements, and how many of them are not finite."""
    return blake3(out.tobytes() + not_finite.to_bytes(8, "little")).hexdigest()


def by_cpu(variant: Variant, given: Inputs) -> tuple[Any, int]:
    """(elements, count not finite) by the CPU's kernel, which numba compiles first."""
    from persona.merge.arithmetic import cpu

    places = given.order if variant.layout == "scattered" else np.arange(given.base.size, dtype=np.uint32)
    out = np.empty_like(given.base)
    arguments = MergeArguments(given.theta, given.alpha, given.add, variant.rules, of(variant.dtype).code)
    chunk = DecodedChunk(list(range(len(given.z))), given.base, given.z, places)
    return out, cpu.merge_chunk(chunk, arguments, out)


def by_reference(variant: Variant, given: Inputs) -> Any:
    """The elements by the reference, in plain torch."""
    import torch

    from persona.merge import reference

    def tensor(bits: Any) -> Any:
        kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[variant.dtype]
        return torch.from_numpy(bits.view(f"i{bits.itemsize}").copy()).view(kind)

    terms = [
        MergeTerm(f"{k:064d}", float(alpha), join="add" if add else "vote")
        for k, (alpha, add) in enumerate(zip(given.alpha, given.add, strict=True))
    ]
    after, theta = [tensor(row) for row in given.after], [float(one) for one in given.theta]
    merged = reference.merge_tensor(
        tensor(given.base), after, theta, terms, variant.rules, variant.rules.tie()
    )
    signed = merged.view(torch.int16 if merged.element_size() == 2 else torch.int32).numpy()
    found = signed.view(given.base.dtype)
    if variant.layout != "scattered":
        return found
    out = np.empty_like(found)
    out[given.order] = found
    return out


def golden() -> dict[str, str]:
    """name → digest."""
    found: dict[str, str] = json.loads(GOLDEN.read_text())
    return found


def write_golden() -> None:
    """Computes the digests anew, by the CPU's kernel."""
    found = {variant.name: digest(*by_cpu(variant, inputs(variant))) for variant in variants()}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
