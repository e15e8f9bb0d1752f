"""Pairs of a tensor of the base and the one of a checkpoint that it is compared with.

Most fine-tunes have the names, dtypes and shapes of their base. Those are paired here. `intake.match` pairs
all others. It is imported only for them, and so are the modules that know other names and refuse.
"""

from __future__ import annotations

from persona.frozen import dataclass
from persona.intake.choices import Choices
from persona.intake.parts import Held, View
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from persona.weights.tied import says_untied


@dataclass(frozen=True)
class Match:
    """`source` is the checkpoint's spec to read for `spec`, or None if the tensor counts as unchanged.

    `grown`: whether `spec` is a grown tensor, and `origin` its origin (`objects.growth`).
    """

    spec: TensorSpec
    source: TensorSpec | None
    grown: bool = False
    origin: str | None = None

    @property
    def rounded(self) -> bool:
        """Whether elements are rounded to the base's dtype on the way."""
        return self.source is not None and self.source.dtype != self.spec.dtype

    @property
    def narrowed(self) -> bool:
        """Whether the checkpoint's dtype cannot hold the base's numbers."""
        if self.source is None or not self.rounded:
            return False
        return not DTYPES[self.source.dtype].holds(DTYPES[self.spec.dtype])


@dataclass(frozen=True)
class Matched:
    """One match for each tensor of the base and each that it gets, and sentences worth telling.

    `view`: the checkpoint under the names of the sources. `left`: the tensors of the base that stay as they
    are although the checkpoint may have changed them. `renamed`: names in the checkpoint → the base's,
    without numbers.
    """

    matches: list[Match]
    view: View
    notes: list[str]
    left: tuple[str, ...]
    renamed: dict[str, str]


def match_same(base: Base, checkpoint: Checkpoint, choices: Choices) -> Matched | None:
    """The matches of a checkpoint that has the names, dtypes and shapes of the base; None for any other.

    They are those of `intake.match`, which has nothing to find, to refuse or to tell then. Also None if there
    may be something to tell: for a choice, and for a doubt about the ties (`intake.heads`).
    """
    specs = {name: spec for name, (spec, _) in checkpoint.tensors.items()}
    if checkpoint.partial or choices != Choices() or specs != base.spec:
        return None
    if checkpoint.tied.keys() != base.tied.keys() or (base.tied and says_untied(checkpoint.config)):
        return None
    view = View(checkpoint, {name: Held.whole(spec) for name, spec in specs.items()})
    return Matched([Match(spec, specs[spec.name]) for spec in base.tensors], view, [], (), {})
