"""**cut-off table** — the cut-offs of a vector for the densities 0.01, 0.02, …, 1.00.

It is made when the vector is committed. It has them for each rank rule, by tensor and over the whole model.
So a checkout at one of these densities reads no chunk to find a cut-off. It is kept in `CACHE`, with a
checksum, and may be deleted at any time: `cutoffs` finds missing values again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.codec.floats import DefaultEnvironment
from persona.frozen import dataclass
from persona.merge.trim.selection import Magnitudes
from persona.objects.rules import NUMERICS
from persona.objects.tensors import TensorSpec
from persona.store.store import Store

with DefaultEnvironment():
    DENSITIES: Final = np.arange(1, 101) / 100
RANKS: Final = ("floor1", "plus1", "floor")
CACHE: Final = f"thresholds-{NUMERICS}"
"""The folder of `cache/` for cut-offs and counts of magnitudes."""

Thetas = NDArray[np.float32]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class CutoffTable:
    """theta: float32[ranks, densities, tensors + 1], the whole model last.

    kept: int64[ranks, densities, 2], the elements kept by the tensors' own cut-offs together, and by the
    model's.
    """

    theta: Thetas
    kept: Counts

    @classmethod
    def of(cls, magnitudes: Sequence[Magnitudes], elements: int) -> CutoffTable:
        """The grid of a vector: `magnitudes` of its tensors in order, `elements` all that its base merges."""
        model = Magnitudes.join(elements, [(one.bits, one.counts) for one in magnitudes])
        return cls.of_cuts([one.cut(grid_ranks(one.elements)) for one in (*magnitudes, model)])

    @classmethod
    def of_cuts(cls, cuts: Sequence[tuple[Thetas, Counts]]) -> CutoffTable:
        """The grid of (θ, kept) for `grid_ranks` of each tensor in order, then of the whole model."""
        shape = (len(RANKS), DENSITIES.size)
        theta = np.stack([theta.reshape(shape) for theta, _ in cuts], axis=-1)
        kept = np.zeros((*shape, 2), np.int64)
        for column, (_, counts) in enumerate(cuts):
            kept[:, :, int(column == len(cuts) - 1)] += counts.reshape(shape)
        return cls(theta, kept)

    def write(self, store: Store, id: str) -> None:
        """Keeps the grid of vector `id`."""
        store.cache(_name(id)).write(self.theta.astype("<f4").tobytes() + self.kept.astype("<i8").tobytes())

    @classmethod
    def read(cls, store: Store, id: str, tensors: int) -> CutoffTable | None:
        """The table of a vector of this many tensors, or None if it is not in the cache."""
        data = store.cache(_name(id)).read()
        shape = (len(RANKS), DENSITIES.size, tensors + 1)
        cells = shape[0] * shape[1]
        split = 4 * cells * shape[2]
        if data is None or len(data) != split + 16 * cells:
            return None
        theta: Any = np.frombuffer(data[:split], "<f4").reshape(shape)
        kept: Any = np.frombuffer(data[split:], "<i8").reshape(*shape[:2], 2)
        return cls(theta, kept)

    def tensors(self, specs: Sequence[TensorSpec], rank: str, density: float) -> Mapping[str, float]:
        """θ by tensor name."""
        row = self.theta[RANKS.index(rank), on_grid(density)]
        return {spec.name: float(theta) for spec, theta in zip(specs, row, strict=False)}

    def model(self, rank: str, density: float) -> float:
        """θ of the whole model."""
        return float(self.theta[RANKS.index(rank), on_grid(density), -1])

    def kept_elements(self, scope: str, rank: str, density: float) -> int:
        """How many elements a density keeps under trim = `scope`, ties included."""
        return int(self.kept[RANKS.index(rank), on_grid(density), int(scope == "global")])


def grid_ranks(elements: int) -> Counts:
    """The rank of every rule and density in a scope of `elements`: int64[ranks · densities]."""
    floors = np.floor(DENSITIES * elements).astype(np.int64)
    return np.concatenate([np.maximum(1, floors), floors + 1, floors])


def on_grid(density: float) -> int | None:
    """The index of a density of the grid; None for any other."""
    index = round(density * 100) - 1
    return index if 0 <= index < DENSITIES.size and float(DENSITIES[index]) == density else None


def _name(id: str) -> str:
    return f"{CACHE}/{id[:32]}-grid"
