"""An adapter that was written, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from persona.cli.render import bytes_text, columns, counted, percent, shown_path

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.adapters import AdapterResult, AdapterTensor
    from persona.repository import Repository


def adapter(result: AdapterResult, call: Invocation, repo: Repository | None) -> Iterator[str]:
    """What an adapter keeps of the change, in all and by kind of module."""
    from persona.measure.layers import positions

    kept = "exact" if result.exact else f"{percent(result.kept_energy)} of the change's energy kept"
    stored = "" if result.stored_bytes is None else f" (the vector: {bytes_text(result.stored_bytes)})"
    yield f"wrote {shown_path(result.out)}: rank {result.rank}, {kept}, {bytes_text(result.bytes)}{stored}"
    if result.exact:
        return
    places = positions(tensor.name for tensor in result.tensors)
    ordered = sorted(result.tensors, key=lambda tensor: places[tensor.name].order())
    kinds: dict[str, list[AdapterTensor]] = {}
    for tensor in ordered:
        kinds.setdefault(places[tensor.name].module, []).append(tensor)
    yield from columns([[f"  {kind}", *_row(tensors)] for kind, tensors in kinds.items()])


def _row(tensors: Sequence[AdapterTensor]) -> list[str]:
    energy = sum(tensor.energy for tensor in tensors)
    kept = sum(tensor.energy * tensor.kept_energy for tensor in tensors)
    ways = ", ".join(dict.fromkeys(tensor.how for tensor in tensors))
    return [counted(len(tensors), "tensor"), ways, percent(kept / energy) if energy else "-"]
