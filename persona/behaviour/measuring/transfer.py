"""**transfer** — what example dialogues in the context of a model do to its margins, item by item.

A warm start has nothing to give to a training if they do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from persona.behaviour.dialogues import Dialogue, in_context
from persona.behaviour.measuring.items import PLACES, Item, asked, encoded
from persona.behaviour.measuring.scoring import margin, settled
from persona.behaviour.measuring.statistics import FEWEST_GROUPS, interval
from persona.behaviour.probes import ProbeSet
from persona.frozen import dataclass
from persona.history.scores import Interval
from persona.progress import Phase, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True)
class Transfer:
    """The change of the margins by the demos, in nats, over `groups` groups of probes.

    `change` is None if no probe has a pair of answers.
    """

    change: Interval | None
    groups: int

    @property
    def found(self) -> bool:
        """Whether the demos move the margins as the behaviour should: the interval lies above 0.

        Too few groups tell nothing, as in a verdict.
        """
        return self.change is not None and self.groups >= FEWEST_GROUPS and self.change.low > 0

    def as_data(self) -> dict[str, Any]:
        """In canonical JSON, with decimals for numbers that are no counts."""
        return {
            "change": None if self.change is None else _decimals(self.change),
            "found": self.found,
            "groups": self.groups,
        }

    @classmethod
    def of(cls, data: dict[str, Any]) -> Transfer:
        """As `as_data` gave it."""
        change = data["change"]
        if change is not None:
            change = Interval(float(change[0]), float(change[1]), float(change[2]), change[3])
        return cls(change, data["groups"])


Pairs = tuple[tuple[Item, Item], ...]
"""Probes without and with the demos before them, as tokens."""


def encode(
    tokenizer: Tokenizer, probes: ProbeSet | None, demos: Sequence[Dialogue], context: int | None
) -> tuple[Pairs, tuple[str, ...]]:
    """The probes that have a pair of answers, and the group of each. Raises `InvalidInput` as `encoded`."""
    if probes is None:
        return (), ()
    items = tuple(probes.items[place] for place in asked(probes, "margins"))
    after = tuple(replace(item, messages=in_context(demos, item.messages)) for item in items)
    both = (encoded(tokenizer, replace(probes, items=each), context) for each in (items, after))
    return tuple(zip(*both, strict=True)), tuple(item.group for item in items)


def measure(
    model: PreTrainedModel,
    pairs: Pairs,
    groups: Sequence[str],
    *,
    threads: int,
    progress: Progress | None,
) -> Transfer:
    """Scores the probes without and with the demos."""
    phase = Phase("asking with the demos", "probes")
    changes = []
    with settled(threads):
        for done, (alone, after) in enumerate(pairs, 1):
            changes.append((margin(model, after) - margin(model, alone)) / PLACES)
            if progress:
                progress(phase, done, len(pairs))
    return Transfer(interval(changes, groups) if changes else None, len(set(groups)))


def _decimals(found: Interval) -> list[Any]:
    return [*(f"{value:.4f}" for value in (found.mean, found.low, found.high)), found.items]
