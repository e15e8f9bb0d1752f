"""**combination** — the change of a tensor as a plain sum of factors, if the rules make it one.

They do if nothing is trimmed and neither an election nor a divisor depends on the values at a coordinate
(docs/numerics.md). One voting term cannot lose an election, and its divisor is a constant. Several voting
terms are summed if nobody is elected, and the divisor is 1. A term with `join = add` is always summed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from persona.frozen import dataclass
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rules import MergeRules
from persona.objects.recipe import Term, to_binary32
from persona.objects.vector import LowRankFactor, Vector


@dataclass(frozen=True)
class Summand:
    """`coefficient` times the change of a vector of kind `lowrank`, which has a factor at the tensor."""

    vector: Vector
    coefficient: float
    factor: LowRankFactor

    @property
    def scale(self) -> float:
        """The magnitude of the coefficient times the factor's own scale, rounded once to binary32."""
        return float(np.float32(abs(self.coefficient) * to_binary32(self.factor.scale)))


def summands(plan: Plan, vectors: Mapping[str, Vector], tensor: TensorPlan) -> list[Summand] | None:
    """The summands of a tensor's change, in order of vector ids. `vectors`: the manifests of the plan.

    None if the change is no sum of factors, or if a factor has several blocks.
    """
    shares = _shares(plan, tensor)
    if shares is None:
        return None
    name, found = tensor.spec.name, dict[str, float]()
    for term, share in shares:
        vector = vectors[term.vector]
        parts = [(id, to_binary32(text)) for id, text in vector.expression] or [(term.vector, 1.0)]
        for id, coefficient in parts:
            if name in vectors[id].spec:
                found[id] = found.get(id, 0.0) + share * coefficient
    made: list[Summand] = []
    for id, coefficient in sorted(found.items()):
        factor = vectors[id].factor.get(name)
        if factor is None or factor.blocks > 1:
            return None
        if coefficient:
            made.append(Summand(vectors[id], coefficient, factor))
    return made


def is_dense(plan: Plan, vectors: Mapping[str, Vector], tensor: TensorPlan) -> bool:
    """Whether adapters changed a tensor, and each of them holds it whole."""
    own = [vectors[plan.recipe.terms[index].vector] for index in tensor.terms]
    return all(vector.kind == "lowrank" and tensor.spec.name not in vector.factor for vector in own)


def _shares(plan: Plan, tensor: TensorPlan) -> list[tuple[Term, float]] | None:
    """The factor that the rules give the change of each term that reaches a tensor; None if it is none."""
    recipe, rules = plan.recipe, MergeRules.of(plan.recipe.rules)
    if any(density < 1.0 for density in tensor.densities):
        return None
    terms = [(recipe.terms[index], alpha) for index, alpha in tensor.alpha_of.items()]
    added = [(term, alpha) for term, alpha in terms if term.join == "add"]
    voting = [(term, alpha) for term, alpha in terms if term.join == "vote"]
    if len(voting) == 1:
        ((term, alpha),) = voting
        return [(term, rules.lambda_ * _lone(rules, alpha)), *added]
    if voting and not _is_plain_sum(rules, [alpha for _, alpha in voting]):
        return None
    return [*((term, rules.lambda_ * alpha) for term, alpha in voting), *added]


def _lone(rules: MergeRules, alpha: float) -> float:
    """α ÷ D of a term that votes alone."""
    if rules.merge != "mean" or rules.divide in ("strength", "count") or not alpha:
        return alpha
    return alpha / (alpha if rules.divide == "weight" else abs(alpha))


def _is_plain_sum(rules: MergeRules, alphas: list[float]) -> bool:
    if rules.elect != "none" or rules.merge == "max":
        return False
    return rules.merge == "sum" or (rules.divide == "strength" and sum(map(abs, alphas)) <= 1.0)
