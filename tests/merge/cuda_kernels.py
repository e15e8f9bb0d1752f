"""The CUDA kernels without a GPU: `persona.merge.cuda` read anew, interpreted or to be compiled."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from persona.merge.rules import MergeRules, MergeTerm, canonical_order
from tests.merge.checkpoints import CODE, Chunk, cut_offs

_copies = count()


def source() -> Path:
    spec = find_spec("persona.merge.cuda")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def load(path: Path, *, interpreted: bool) -> ModuleType:
    """A copy of the module whose kernels are interpreted, or not: triton decides where a function is defined.

    A process may hold both, whatever it imported before.
    """
    spec = spec_from_file_location(f"cuda_kernels_{next(_copies)}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    with mock.patch.dict(os.environ, TRITON_INTERPRET="0"):
        import_module("triton")  # its own functions are for the compiler
    with mock.patch.dict(os.environ, TRITON_INTERPRET=str(int(interpreted))):
        spec.loader.exec_module(module)
    return module


def merge_by_kernel(
    cuda: ModuleType,
    base: np.ndarray[Any, Any],
    afters: Sequence[np.ndarray[Any, Any]],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: str,
    ordered: bool = True,
) -> tuple[np.ndarray[Any, Any], int]:
    """(bits, count not finite) of a tensor "w" through the kernels, without the whole-tensor rule.

    Past each row's end lies what may not be read, and past the output's end what may not be written.
    """
    indices = canonical_order(terms, rules)
    indices.sort(key=lambda k: terms[k].join == "add")
    terms, afters = [terms[k] for k in indices], [afters[k] for k in indices]
    theta = cut_offs(base, afters, terms, rules, dtype)
    alpha = np.array([term.alpha for term in terms], np.float32)
    add = np.array([term.join == "add" for term in terms], np.bool_)
    chunk = Chunk.of(base, afters, dtype)
    if not ordered:
        chunk = Chunk(base, chunk.z[:, np.argsort(chunk.order)], chunk.order)
    return run(cuda, chunk, theta, alpha, add, rules, dtype, ordered)


def run(
    cuda: ModuleType,
    chunk: Chunk,
    theta: np.ndarray[Any, Any],
    alpha: np.ndarray[Any, Any],
    add: np.ndarray[Any, Any],
    rules: MergeRules,
    dtype: str,
    ordered: bool = True,
) -> tuple[np.ndarray[Any, Any], int]:
    """(bits, count not finite) of one chunk."""
    n, over = chunk.base.size, 21
    z = np.full((alpha.size, n + over), 0x5555, chunk.base.dtype)
    z[:, :n] = chunk.z
    device = [torch.from_numpy(array.copy()) for array in (chunk.base, z)]
    order = torch.from_numpy(chunk.order.copy()) if ordered else None
    out = torch.from_numpy(np.full(n + over, 0xAAAA, chunk.base.dtype))
    not_finite, signs = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    terms = cuda.Terms.of(theta, alpha, add, rules, "cpu")
    with np.errstate(all="ignore"):
        if rules.needs_majority:
            cuda.sum_of_signs(*device, terms, rules, CODE[dtype], signs)
        cuda.merge_chunk(
            device[0], device[1], order, out, terms, rules, CODE[dtype], not_finite, int(signs)
        )
    assert (out[n:] == 0xAAAA).all()
    return out[:n].numpy(), int(not_finite)
