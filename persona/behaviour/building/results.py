"""The results of a build and of its dry run."""

from __future__ import annotations

from dataclasses import field

from persona.errors import PersonaError
from persona.frozen import dataclass
from persona.history.results import UNPRINTED, CheckoutResult, CommitResult, Result
from persona.history.scores import Damage, Effect, Scores


@dataclass(frozen=True, repr=False)
class PlannedPattern(Result):
    """What a build would do about a pattern or facet.

    `action`: "train"; "measure" a vector that is trained; "take" one that the recipe does not have; "refuse"
    one that did not pass. `why`: the reason, such as "stale: text changed".
    """

    name: str
    action: str
    why: str


@dataclass(frozen=True, repr=False)
class BuildPlan(Result):
    """What a build would do: the patterns with something to do, in the order of the graph.

    `verify`: whether the recipe as a whole is to be measured; `commit`, `checkout`: whether there is
    something to commit, and weights to compute.
    """

    patterns: tuple[PlannedPattern, ...]
    verify: bool
    commit: bool
    checkout: bool
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)

    @property
    def nothing_to_do(self) -> bool:
        """Whether all is up to date, but for patterns that are known not to pass."""
        works = any(one.action != "refuse" for one in self.patterns)
        return not (works or self.verify or self.commit or self.checkout)


@dataclass(frozen=True, repr=False)
class BuiltPattern(Result):
    """What a build did about a pattern or facet.

    `action`: "trained", "measured", "taken" (into the recipe), "unchanged", or "waiting" if the build ended
    before it. `why`: the reason. `vector`: its id. `alpha`: its strength in the recipe, None if it is not
    there. `steps`, `seconds`: of training; `seconds` also of measuring. `effect`, `damage`: of the vector
    alone. `verdict`: None if it was not measured. `left_out`: whether it was kept out of the recipe, because
    it did not pass.
    """

    name: str
    action: str
    why: str
    vector: str | None
    alpha: float | tuple[float, ...] | None
    steps: int
    seconds: float
    effect: Effect | None
    damage: Damage | None
    verdict: str | None
    left_out: bool


@dataclass(frozen=True, repr=False)
class Built(Result):
    """A build. `recipe`: the scores of the recipe as a whole, if it was measured.

    `verdict`: the worst one of what the build was about: "fail", "inconclusive", "unverified" or "pass"; None
    if nothing was measured. `refused`: nothing was committed because of it. `commit`: the new commit;
    `checkout`: the weights that were computed; both None if there was nothing to do.
    """

    patterns: tuple[BuiltPattern, ...]
    recipe: Scores | None
    verdict: str | None
    refused: bool
    commit: CommitResult | None
    checkout: CheckoutResult | None
    seconds: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)
    failure: PersonaError | None = field(default=None, metadata=UNPRINTED)
    """Why the weights could not be computed, though the commit was made."""

    @property
    def did_nothing(self) -> bool:
        """Whether all was up to date."""
        worked = any(one.action not in ("unchanged", "waiting") for one in self.patterns)
        return not (worked or self.commit or self.checkout or self.refused)
