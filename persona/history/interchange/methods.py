"""The merge methods of mergekit 0.1.5 that are recipes, and the merge rules that each of them means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from persona.frozen import dataclass
from persona.objects.rules import PRESETS, Rules

_OWN: Final = {"breadcrumbs": "gamma", "della": "epsilon"}
"""The parameter that only one trim takes."""


@dataclass(frozen=True)
class Method:
    """A merge method. `normalize` and `rescale` are the defaults of these parameters.

    `preset`: the preset that means it. `trim`: the value of the axis. `consensus`: whether a sign is elected
    for each coordinate.
    """

    name: str
    preset: str
    trim: str
    consensus: bool = False
    normalize: bool = False
    rescale: bool = False

    @property
    def random(self) -> bool:
        """Whether elements are dropped at random."""
        return self.trim in ("dare", "della")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters of a model that the method reads."""
        if self.name in ("linear", "task_arithmetic"):
            return ("weight",)
        own = _OWN.get(self.trim)
        return ("weight", "density") if own is None else ("weight", "density", own)

    def rules(self, normalize: bool, lambda_: str, density: str | None, axes: Mapping[str, str]) -> Rules:
        """The merge rules. `density`: of all models, None if the method keeps everything.

        `axes`: gamma, epsilon, rescale and seed, if the trim has them. The strengths of a method without an
        election are normalized already.
        """
        wanted: dict[str, str | None] = {"lambda": lambda_, **axes}
        if self.consensus:
            wanted |= {"weigh": "before", "elect": "mass", "on_tie": "positive"}
            wanted |= {"merge": "mean", "divide": "weight"} if normalize else {"merge": "sum"}
        else:
            wanted |= {"elect": "none", "merge": "sum"}
        if density is not None:
            wanted["density"] = density
        row = PRESETS[self.preset]
        given = {
            axis: value for axis, value in wanted.items() if value is not None and row.get(axis) != value
        }
        return Rules.of(self.preset, **given)


METHODS: Final = {
    method.name: method
    for method in (
        Method("linear", "task_arithmetic", "none", normalize=True),
        Method("task_arithmetic", "task_arithmetic", "none"),
        Method("ties", "mergekit", "tensor", consensus=True, normalize=True),
        Method("breadcrumbs", "breadcrumbs", "breadcrumbs"),
        Method("breadcrumbs_ties", "breadcrumbs_ties", "breadcrumbs", consensus=True),
        Method("dare_linear", "dare_linear", "dare", rescale=True),
        Method("dare_ties", "dare_ties", "dare", consensus=True, rescale=True),
        Method("della_linear", "della_linear", "della", rescale=True),
        Method("della", "della", "della", consensus=True, normalize=True, rescale=True),
    )
}
"""By name. The defaults are those of mergekit 0.1.5."""

ABSENT: Final = {
    "arcee_fusion": "it selects elements by their importance",
    "karcher": "it averages on a sphere",
    "model_stock": "it computes its own weights from the angles between models",
    "multislerp": "it averages on a sphere",
    "nearswap": "it interpolates each element by its distance from the base",
    "nuslerp": "it rotates one model towards another",
    "passthrough": "it stacks layers",
    "ram": "it averages by regions of change",
    "ramplus_tl": "it averages by regions of change",
    "sce": "it computes its own weights from the variance of the changes",
    "slerp": "it rotates one model towards another",
}
"""Methods that are no sum of changes to one base, and why."""
