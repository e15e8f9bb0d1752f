"""**progress** — the messages of a long call to its caller: how far each phase of the work is."""

from __future__ import annotations

from typing import Final, Protocol


class Phase(str):
    """The label of a phase of the work.

    `unit`: the thing that is counted, such as "bytes" or "commits". `detail`: what else there is to tell now,
    such as "loss 1.234".
    """

    unit: str
    detail: str = ""

    def __new__(cls, label: str, unit: str = "bytes") -> Phase:  # noqa: D102
        phase = super().__new__(cls, label)
        phase.unit = unit
        return phase


class Compiling(Phase):
    """Kernels are being compiled, because no compiled ones fit this machine; nothing is counted."""


class Progress(Protocol):
    """Called, from one thread at a time, with how far a phase of the work is."""

    def __call__(self, phase: Phase, done: int, total: int, /) -> None:
        """`done` of `total` units of the phase are finished; `total` is 0 if it is not known."""


CHECKING: Final = Phase("checking")
COMPARING: Final = Phase("comparing")
COUNTING_SIGNS: Final = Phase("counting signs")
DOWNLOADING: Final = Phase("downloading")
EXTRACTING: Final = Phase("finding factors")
FINDING_CUTOFFS: Final = Phase("finding cut-offs")
HASHING: Final = Phase("hashing the weights")
MERGING: Final = Phase("merging")
STORING_BASE: Final = Phase("storing the base")
STORING_VECTOR: Final = Phase("storing the vector")
