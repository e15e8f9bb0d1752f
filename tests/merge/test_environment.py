"""No floating-point environment of the caller's reaches the arithmetic."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persona.codec import floats
from persona.merge import reference
from persona.merge.arithmetic import casts
from persona.merge.rules import MergeRules, MergeTerm
from persona.merge.workers import in_order
from persona.objects.commit import Person
from persona.objects.recipe import to_binary32
from persona.objects.rules import PRESETS
from persona.repository import Repository
from tests.checkpoints import Bits, write_file
from tests.merge.chunks import bits, tensor
from tests.merge.models import Model

SHAPE = (40, 25)
DTYPES: dict[str, tuple[str, Any, int]] = {
    "sixteen": ("F16", np.uint16, 0x0FFF),
    "brain": ("BF16", np.uint16, 0x01FF),
    "single": ("F32", np.uint32, 0x01FFFFFF),
}
"""name → (dtype, uint, the largest magnitude as bits): many of them subnormal."""
UPWARD = {"x86_64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}
"""FE_UPWARD by machine."""
LIBRARY = ctypes.PyDLL(None)


@contextmanager
def flushing() -> Iterator[None]:
    """Subnormal numbers are zero on this thread, and on those that it makes."""
    assert torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def rounding_up() -> Iterator[None]:
    """Sums, products and quotients are rounded up on this thread, and on those that it makes."""
    assert LIBRARY.fesetround(UPWARD[platform.machine()]) == 0
    try:
        yield
    finally:
        LIBRARY.fesetround(0)


pytestmark = pytest.mark.skipif(platform.machine() not in UPWARD, reason="how it rounds up is not known here")
HOSTILE = pytest.mark.parametrize("hostile", [flushing, rounding_up])


def model(seed: int) -> Model:
    """The base (seed 0), or a fine-tune of it."""
    made = {}
    for name, (dtype, uint, most) in DTYPES.items():
        random = np.random.default_rng(7)
        bits: Bits = random.integers(0, most, SHAPE, dtype=uint)
        bits |= (random.integers(0, 2, SHAPE, dtype=uint) << (8 * bits.itemsize - 1)).astype(uint)
        if seed:
            random = np.random.default_rng(seed)
            bits = np.where(random.random(SHAPE) < 0.7, random.integers(0, most, SHAPE, dtype=uint), bits)
        made[name] = (dtype, SHAPE, bits)
    return made


class Parameters(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, (dtype, _, _) in DTYPES.items():
            kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[dtype]
            setattr(self, name, torch.nn.Parameter(torch.zeros(SHAPE, dtype=kind), requires_grad=False))


def everything(folder: Path) -> dict[str, Any]:
    """What a repository answers after an import, a merge, a measurement and a live change; all weights are
    small, and every α and λ asks for rounding.
    """
    folder.mkdir()
    for seed in range(3):
        (folder / str(seed)).mkdir()
        write_file(folder / str(seed) / "model.safetensors", model(seed))
        (folder / str(seed) / "config.json").write_text("{}")
    found: dict[str, Any] = {}
    person = Person("A. Tester", "tester@example.org", 1_763_000_000, 0)
    Repository.init(folder / "work", base=folder / "0", author=person, chunk=256)
    with Repository.open(folder / "work", author=person) as repo:
        for seed, alpha in ((1, "0.7"), (2, "0.3")):
            repo.add(folder / str(seed), name=f"v{seed}", alpha=alpha)
        repo.commit(message="two")
        found["vectors"] = [(one.id, one.changed_fraction, one.l2) for one in repo.vectors.values()]
        caches = (folder / "work" / ".persona" / "cache").rglob("*-grid")
        found["grids"] = sorted(path.read_bytes() for path in caches)
        for preset in PRESETS:
            repo.recipe.set_rules({"preset": preset, "lambda": 0.9})
            if PRESETS[preset]["density"] is not None:
                repo.recipe.set_rules({"density": 0.37})
            found[preset] = repo.digest(device="cpu").weights
        found["weights"] = repo.diff_weights().to_json()
        with repo.live(Parameters(), "HEAD", threads=1) as live:
            live.set("v1", alpha=0.45)
            found["live"] = live.digest()
    return found


@HOSTILE
def test_a_repository_answers_the_same_in_every_environment(
    hostile: Callable[[], Any], tmp_path: Path
) -> None:
    want = everything(tmp_path / "default")
    with hostile():
        found = everything(tmp_path / "hostile")
    assert found == want


def test_threads_compute_in_the_default_environment_and_the_caller_keeps_its_own() -> None:
    tiny, third = np.float32(1e-44), np.float32(3)

    def compute(_: int) -> tuple[float, float]:
        return float(tiny * np.float32(1)), float(np.float32(1) / third)

    want = compute(0)
    with flushing(), rounding_up():
        here = compute(0)
        assert here != want
        assert list(in_order(compute, range(4), threads=2)) == [want] * 4
        assert compute(0) == here


def test_an_environment_is_restored_after_an_error() -> None:
    with flushing():
        with suppress(KeyError), floats.DefaultEnvironment():
            assert np.float32(1e-44) * np.float32(1) != 0
            raise KeyError
        assert np.float32(1e-44) * np.float32(1) == 0


@HOSTILE
def test_casts_and_decimals_do_not_depend_on_it(hostile: Callable[[], Any]) -> None:
    values = np.array([1e-45, -1e-40, 0.1, 1 / 3, 65519.9], np.float64)
    singles = values.astype(np.float32)

    def all_casts() -> list[Any]:
        narrowed = [casts.narrow(values, dtype).tolist() for dtype in ("BF16", "F16", "F32")]
        halved = [casts.narrow32(singles, dtype).tolist() for dtype in ("BF16", "F16")]
        return [*narrowed, *halved, casts.widen(singles.view(np.uint32), "F32").view(np.uint64).tolist()]

    numbers = ("0.1", "-0", "0.0000000000000000000000000000000000000000000014")
    want = all_casts(), [to_binary32(number).hex() for number in numbers]
    with hostile():
        found = all_casts(), [to_binary32(number).hex() for number in numbers]
    assert found == want


def test_without_the_functions_of_the_c_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floats, "_library", lambda: None)
    with flushing(), floats.DefaultEnvironment():
        assert np.float32(1e-44) * np.float32(1) == 0


@HOSTILE
def test_the_reference_does_not_depend_on_it(hostile: Callable[[], Any]) -> None:
    base, *tuned = [
        {name: tensor(bits, dtype) for name, (dtype, _, bits) in model(k).items()} for k in range(3)
    ]
    terms = [MergeTerm("a" * 64, 0.7), MergeTerm("b" * 64, 0.3)]

    def merged() -> dict[str, list[int]]:
        made = reference.merge(base, tuned, terms, MergeRules(density=0.37, lambda_=0.75))
        return {name: bits(one).tolist() for name, one in made.items()}

    want = merged()
    with hostile():
        assert merged() == want
