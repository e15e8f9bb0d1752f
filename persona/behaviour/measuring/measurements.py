"""Measurements: which ones are needed, which ones are kept already, and the rest measured.

A measurement is of weights on one probe set, item by item, on neutral text, or on a task. The kinds:

- ``margins``: the margin of each probe that has a pair of answers, in 1e-4 nats;
- ``answers``: the answer to each probe that has a check;
- ``damage``: five numbers for each window of the neutral text (`persona.behaviour.measuring.damage`);
- ``task``: the metrics of a task of another program (`persona.behaviour.measuring.tasks`).

Only `Bench` loads a model. Weights are a recipe's, or the base's with a random vector of the recipe's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour.measuring.damage import (
    Window,
    batches,
    chances,
    compared,
    neutral_text,
    text_digest,
    windows,
)
from persona.behaviour.measuring.items import Item, asked, encoded
from persona.behaviour.measuring.readers import Reader, Readers
from persona.behaviour.measuring.tasks import Harness, Task
from persona.behaviour.models import context_of
from persona.behaviour.probes import ProbeSet
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.scores import keep_measured, measured
from persona.objects import canonical
from persona.objects.recipe import Recipe
from persona.progress import Phase, Progress

if TYPE_CHECKING:
    import torch

    from persona.behaviour.measuring.subjects import ScoringModel

SCORER: Final = "1"
"""Counts up if a change of the code may change a measurement."""
DTYPE: Final = "float32"
TOGETHER: Final = 8
"""Weights whose damage is measured together; if that is cut off, all of it is measured again."""


@dataclass(frozen=True)
class Weights:
    """Weights to measure. `label`: as messages name them. `digest`: the weights digest of the recipe.

    `seed`: of a random vector, which replaces the recipe's change; None for the recipe's own weights.
    """

    label: str
    recipe: Recipe
    digest: str
    seed: int | None = None

    @property
    def shapes(self) -> Recipe | None:
        """The recipe whose shapes the weights have; None for those of the base."""
        return self.recipe if self.seed is None else None


@dataclass(frozen=True)
class Need:
    """One measurement that is wanted. `probes`: None for damage and a task."""

    weights: Weights
    kind: str
    probes: ProbeSet | None
    task: Task | None = None

    @property
    def items(self) -> int:
        """How many items are measured, for progress; neutral text and a task count as many."""
        if self.probes is None:
            return 20
        return len(asked(self.probes, self.kind))


class Bench:
    """Measures what is not known yet. `rev`: the revision that tokenizer and config are of, None for the work
    tree. `base`: the base alone, as a recipe. `device`: cpu or cuda.
    """

    def __init__(
        self,
        history: History,
        rev: str | None,
        base: Weights,
        device: str,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self._history = history
        self._rev = rev
        self.base = base
        self.device = device
        self._threads = threads
        self._progress = progress
        self._known: dict[bytes, Any] = {}
        self._items: dict[tuple[str, str, int | None], tuple[Item, ...]] = {}
        self.text = neutral_text()
        self.readers = Readers(history, rev, base.recipe.base)
        self._scoring: ScoringModel | None = None
        self._of_base: list[torch.Tensor] = []
        """The base's log-probabilities of the whole neutral text, held for the next weights if they fit."""
        self.worked = False
        """Whether something had to be measured."""

    @cached_property
    def _context(self) -> int | None:
        """The most tokens that the model takes, None if config.json does not say."""
        return context_of(self._history, self._rev)

    def scoring_of(self, recipe: Recipe) -> ScoringModel:
        """The model for the weights of a recipe.

        It is loaded when something has to be measured first, and held until weights of other shapes are.
        """
        from persona.behaviour.measuring.subjects import ScoringModel

        if self._scoring is None or not self._scoring.takes(recipe):
            self._scoring, self._of_base = None, []
            self._scoring = ScoringModel(self._history, self._rev, recipe, self.device, self._threads)
        return self._scoring

    def items(self, probes: ProbeSet, shapes: Recipe | None = None) -> tuple[Item, ...]:
        """The probes of a set as tokens of weights. `shapes`: see `Weights`.

        Raises `InvalidInput` for a probe that cannot be scored.
        """
        reader, vocabulary = self.readers.of(shapes), self.readers.vocabulary(shapes)
        key = probes.digest, reader.digest, vocabulary
        if key not in self._items:
            self._items[key] = encoded(reader.tokenizer, probes, self._context, vocabulary, reader.hint)
        return self._items[key]

    def windows(self) -> list[Window]:
        """The neutral text as tokens of the base."""
        return windows(self.readers.of_base.tokenizer, self.text, self._context)

    def key(self, need: Need) -> dict[str, Any]:
        """All that decides a measurement."""
        weights = need.weights
        found: dict[str, Any] = {
            "device": self.device,
            "dtype": DTYPE,
            "files": self._reader(need).digest,
            "kind": need.kind,
            "scorer": SCORER,
            "weights": weights.digest,
        }
        if weights.seed is not None:
            found |= {"base": self.base.digest, "seed": weights.seed}
        if need.task is not None:
            return found | need.task.key
        if need.probes is None:
            return found | {"base": self.base.digest, "text": text_digest(self.text)}
        return found | {"probes": need.probes.digest}

    def _reader(self, need: Need) -> Reader:
        """By which the weights of a measurement take its texts."""
        return self.readers.of_base if need.kind == "damage" else self.readers.of(need.weights.shapes)

    def found(self, need: Need) -> Any:
        """The numbers or texts of a measurement that `measure` was asked for."""
        return self._known[canonical.encode(self.key(need))]

    def measure(self, needs: Iterable[Need]) -> None:
        """Measures all that is not kept, and keeps it at once. Raises `InvalidInput` before the first one for
        a probe that cannot be scored.
        """
        missing: list[Need] = []
        for need in needs:
            name = canonical.encode(key := self.key(need))
            if name in self._known or any(need == other for other in missing):
                continue
            data = measured(self._history, key)
            if data is None:
                missing.append(need)
            else:
                self._known[name] = data["items"]
        if missing:
            self.worked = True
            self._work(missing)

    def _work(self, missing: Sequence[Need]) -> None:
        from persona.behaviour.measuring.scoring import settled

        total = sum(need.items for need in missing)
        if self._scoring is None:
            self._tell("loading the model", 0, total)
        for need in missing:
            if need.probes is not None:
                self.items(need.probes, need.weights.shapes)
        harness = Harness([need.task for need in missing if need.task is not None])
        ordered = sorted(missing, key=self._order)
        done = 0
        with settled(self._threads):
            for group in _together(ordered, self._shapes_of):
                need, before = group[0], done
                scoring = self.scoring_of(need.weights.recipe)
                end = before + sum(one.items for one in group)

                def report(count: int, label: str = _label(need), end: int = end) -> None:
                    nonlocal done
                    done = min(done + count, end)
                    self._tell(label, done, total)

                report(0)
                found: list[Any]
                if need.task is not None:
                    scoring.hold(need.weights.recipe)
                    found = [harness.run(need.task, scoring.model, self._reader(need).tokenizer)]
                elif need.probes is None:
                    found = self._damages(scoring, group, report)
                else:
                    found = [self._probed(scoring, need, need.probes, report)]
                done = end
                for one, data in zip(group, found, strict=True):
                    self._keep(one, data)

    def _order(self, need: Need) -> tuple[Any, ...]:
        """Weights of the same shapes one after the other, so that few models are loaded.

        Of these the same weights one after the other, those of the base first, damage last.
        """
        weights = need.weights
        of_base = weights.digest == self.base.digest and weights.seed is None
        return (
            self._shapes_of(need),
            need.kind == "damage",
            need.probes is None,
            not of_base,
            weights.digest,
            -1 if weights.seed is None else weights.seed,
        )

    def _shapes_of(self, need: Need) -> str:
        """Equal for weights of the same shapes."""
        return self._history.base_of(need.weights.recipe).digest

    def _probed(
        self, scoring: ScoringModel, need: Need, probes: ProbeSet, report: Callable[[int], None]
    ) -> list[Any]:
        from persona.behaviour.measuring.answers import answers
        from persona.behaviour.measuring.scoring import margin

        weights, items = need.weights, self.items(probes, need.weights.shapes)
        if weights.seed is None:
            scoring.hold(weights.recipe)
        else:
            scoring.hold_random(weights.recipe, weights.seed)
        chosen = [items[place] for place in asked(probes, need.kind)]
        if need.kind == "answers":
            prompts = [item.prompt for item in chosen]
            return answers(scoring.model, self._reader(need).tokenizer, prompts, self._context, report)
        found = []
        for item in chosen:
            found.append(margin(scoring.model, item))
            report(1)
        return found

    def _damages(
        self, scoring: ScoringModel, needs: Sequence[Need], report: Callable[..., None]
    ) -> list[list[list[int]]]:
        """The damage of several weights, with one computation of the base's log-probabilities."""
        found: list[list[list[int]]] = [[] for _ in needs]
        cut = self.windows()
        parts = list(batches(cut, scoring.model.config.get_text_config().vocab_size))
        for batch in parts:
            before = self._of_base
            if not before:
                scoring.hold(self.base.recipe)
                before = [chances(scoring.model, window) for window in batch]
            if len(parts) == 1:
                self._of_base = before
            for need, numbers in zip(needs, found, strict=True):
                scoring.hold(need.weights.recipe)
                for window, base in zip(batch, before, strict=True):
                    numbers.append(compared(window, base, chances(scoring.model, window)))
                report(round(need.items * len(batch) / len(cut)), _label(need))
        return found

    def _keep(self, need: Need, found: Any) -> None:
        key = self.key(need)
        keep_measured(self._history, key, {"items": found})
        self._known[canonical.encode(key)] = found

    def _tell(self, label: str, done: int, total: int) -> None:
        if self._progress is not None:
            phase = Phase("measuring", "items")
            phase.detail = label
            self._progress(phase, done, total)


def _together(needs: Sequence[Need], shapes_of: Callable[[Need], str]) -> Iterator[list[Need]]:
    """Runs of needs that are measured together: damage of up to `TOGETHER` weights of the same shapes.

    All else is measured one by one.
    """
    group: list[Need] = []
    for need in needs:
        together = group and need.kind == group[0].kind == "damage" and len(group) < TOGETHER
        if group and not (together and shapes_of(need) == shapes_of(group[0])):
            yield group
            group = []
        group.append(need)
    if group:
        yield group


def _label(need: Need) -> str:
    weights = need.weights
    who = weights.label if weights.seed is None else f"random vector {weights.seed + 1} like {weights.label}"
    if need.task is not None:
        return f"{who} on the task {need.task.name}"
    if need.probes is None:
        return f"{who} on neutral text"
    return f"{who} on {need.probes.key}" + (", answers" if need.kind == "answers" else "")
