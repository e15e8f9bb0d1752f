"""The weights that lie in the work tree: which recipe they belong to, and which tensors can be reused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.errors import PersonaError
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.worktree import weights as weights_state
from persona.objects.recipe import Recipe
from persona.objects.tensors import TensorSpec
from persona.progress import Progress
from persona.weights.checkpoint import Checkpoint
from persona.weights.index import SINGLE_NAME
from persona.weights.shards import ShardLayout
from persona.weights.writer import check_output

if TYPE_CHECKING:
    from persona.merge.plan import Plan, TensorPlan


@dataclass(frozen=True)
class AlreadyThere:
    """Weights that were there already, found whole by hashing them."""

    weights: str
    reused: int
    computed: int = 0
    bytes_written: int = 0
    device: str = "cpu"


def is_there(
    history: History,
    found: weights_state.Found,
    recipe: Recipe,
    progress: Progress | None,
    threads: int | None,
) -> bool:
    """Whether the work tree's weights are those of `recipe`, found by hashing them."""
    record = found.record
    if record is None or record.key != recipe.key:
        return False
    try:
        check_output(history.root)
        digest, read = weights_state.measure_seen(history.root, progress, threads)
        return digest == record.digest and all(found.files.get(name) == seen for name, seen in read.items())
    except PersonaError:
        return False


class PresentWeights:
    """The work tree's own weights as a source of tensors whose inputs did not change."""

    def __init__(self, history: History, record: weights_state.Record) -> None:
        self._known = weights_state.tensor_digests(history, record)
        self._untouched = weights_state.untouched(history.root, record)
        self.unchanged: dict[str, str] = {}
        self._checkpoint: Checkpoint | None = None
        if self._known:
            try:
                self._checkpoint = Checkpoint.open(history.root)
            except PersonaError:
                self._known = {}

    def holds(self, tensor: TensorPlan) -> str | None:
        """The digest of a tensor that was made from the same inputs."""
        key, digest = self._known.get(tensor.spec.name, ("", ""))
        if key != tensor.key or self._checkpoint is None:
            return None
        here = self._checkpoint.tensors.get(tensor.spec.name)
        return digest if here is not None and here[0] == tensor.spec else None

    def keep_shards(self, plan: Plan, layout: list[ShardLayout]) -> dict[str, str]:
        """Planned name → existing file of each shard in which nothing changes.

        `unchanged` has the digests of the tensors in these shards.
        """
        if self._checkpoint is None:
            return {}
        held: dict[int, set[TensorSpec]] = {}
        for spec, place in self._checkpoint.tensors.values():
            held.setdefault(place, set()).add(spec)
        present = {frozenset(specs): self._checkpoint.shards[place] for place, specs in held.items()}
        kept: dict[str, str] = {}
        for planned in layout:
            shard = present.get(frozenset(planned.specs))
            if (
                shard is None
                or shard.name not in self._untouched
                or shard.metadata != planned.metadata
                or (shard.name == SINGLE_NAME) != (len(layout) == 1)
            ):
                continue
            digests = {spec.name: self.holds(plan.by_name[spec.name]) for spec in planned.specs}
            if all(digests.values()):
                kept[planned.name] = shard.name
                self.unchanged.update((name, digest) for name, digest in digests.items() if digest)
        return kept

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fills `out` with the tensor's bytes from byte `start` on."""
        if self._checkpoint is None:
            return False
        self._checkpoint.read_into(name, start, out)
        return True

    def __enter__(self) -> PresentWeights:
        return self

    def __exit__(self, *_: object) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()
