"""**pattern** — what a model should be like in one respect: a file `graph/KEY.md` of front matter and prose.

**facet** — one of several sides of a pattern, each with a vector of its own, `KEY#FACET`.
**trainable** — a pattern or a facet as something to train: it owns one vector.
"""

from __future__ import annotations

from dataclasses import field
from typing import Final

from persona.frozen import dataclass

KINDS: Final = ("pattern", "trait", "core")
METHODS: Final = ("full", "lora")
OPTIMIZERS: Final = ("apollo", "apollo-mini", "adamw")
SCHEDULES: Final = ("linear", "cosine", "constant")
COLD: Final = "none"
WARM: Final = (COLD, "moments", "distil")
"""Ways to start a training (`persona.behaviour.training.warming`)."""


@dataclass(frozen=True)
class Link:
    """An edge to another pattern. `line`: where it stands in the file."""

    to: str
    relation: str
    strength: float
    line: int


@dataclass(frozen=True)
class DataFiles:
    """The data of a trainable: paths from the directory of the pattern's file, with `/`.

    One of `train` and `prompt` is there if it can be trained. `turns` belongs to `prompt`, `opposite`
    to `train`.
    """

    train: str | None = None
    prompt: str | None = None
    turns: str | None = None
    opposite: str | None = None
    demos: str | None = None
    probes: str | None = None


@dataclass(frozen=True)
class TrainSettings:
    """How a vector is trained; the keys of `[train]`.

    `modules`: globs of parameter names that are trained (none: all of them but embeddings). `rank`,
    `lora_alpha`: of LoRA. `optimizer_rank`: of APOLLO's projections. `warmup`: the fraction of the steps in
    which the learning rate rises. `max_length`: in tokens; longer dialogues are refused. `warm`: how the
    training starts; `warm_steps`: the steps of a warm start, which come before `steps`.
    """

    method: str = "full"
    modules: tuple[str, ...] = ()
    embeddings: bool = False
    optimizer: str = "apollo"
    optimizer_rank: int = 16
    rank: int = 16
    lora_alpha: float = 32.0
    steps: int = 60
    batch: int = 4
    accumulate: int = 1
    lr: float | None = None
    warmup: float = 0.1
    schedule: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 1024
    seed: int = 0
    warm: str = COLD
    warm_steps: int = 10


@dataclass(frozen=True)
class Trainable:
    """What `train` makes one vector of. `name`: the vector's, KEY or KEY#FACET."""

    name: str
    key: str
    facet: str | None
    sign: int
    data: DataFiles
    settings: TrainSettings


@dataclass(frozen=True)
class Pattern:
    """One node of the graph, as its file has it.

    `file`: the path of its file in the work tree. `text`: the blob id of its bytes. `extra`: the fields of
    the front matter that persona does not use, as they are.
    """

    file: str
    key: str
    kind: str
    text: str
    prose: str
    trainables: tuple[Trainable, ...]
    links: tuple[Link, ...] = ()
    extra: dict[str, object] = field(default_factory=dict)
