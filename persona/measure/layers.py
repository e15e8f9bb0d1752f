"""**position** — where a tensor sits in a model: its stack of layers, its layer, and its kind of module.

It is read from the name only, so it works for every architecture. The first part of a name that is a number
is the layer. The parts before it are the stack. The parts after it are the module, without the parameter's
own name and without other numbers (the experts of a layer are one kind of module). A tensor outside all
layers, such as the embedding, the last norm or the head, is a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from persona.frozen import dataclass
from persona.objects.layers import numbered

_PARAMETERS: Final = ("weight", "bias")
_NORM: Final = re.compile(r"norm|(^|[._])ln(_|\d|$)|layer_?norm")
_EMBEDDING: Final = re.compile(r"emb|(^|\.)w[tp]e$|(^|\.)shared$")
_ATTENTION: Final = re.compile(r"attn|attention|mixer")
_PROJECTIONS: Final = (
    r"(^|[._])(qkv|query_key_value|c_attn|in_proj|w_?pack|wqkv|attn_qkv)($|_)",
    r"(^|[._])(q|query|wq)($|_)",
    r"(^|[._])(k|key|wk)($|_)",
    r"(^|[._])(v|value|wv)($|_)",
    r"(^|[._])(router|gate)$",
    r"(^|[._])(gate_up_proj|gate_proj|w1)($|_)",
    r"(^|[._])(up_proj|c_fc|dense_h_to_4h|fc1|w3)($|_)",
    r"(^|[._])(down_proj|c_proj|dense_4h_to_h|fc2|w2)($|_)",
)
_ORDER: Final = tuple(re.compile(pattern) for pattern in _PROJECTIONS)


@dataclass(frozen=True)
class Position:
    """The position of a tensor. `stack` and `layer` are None outside the layers."""

    stack: str | None
    layer: int | None
    module: str

    def order(self) -> tuple[Any, ...]:
        """The sort key of the order of reading.

        Embeddings come first, then layer after layer, with attention before the feed-forward part and the
        norms last, then the modules after the layers.
        """
        if self.layer is None:
            part = 0 if _EMBEDDING.search(self.module) and "out" not in self.module else 2
            return (part, "", 0, _NORM.search(self.module) is None, self.module)
        return (1, self.stack or "", self.layer, *module_order(self.module))


def module_order(module: str) -> tuple[Any, ...]:
    """The key of the order of the modules of one layer."""
    kind = 2 if _NORM.search(module) else 0 if _ATTENTION.search(module) else 1
    last = module.rpartition(".")[2]
    rank = next((rank for rank, pattern in enumerate(_ORDER) if pattern.search(last)), len(_ORDER))
    return (kind, rank, module)


def positions(names: Iterable[str]) -> dict[str, Position]:
    """The position of every tensor of a model, by name.

    If all layers are of one stack, its root (`model.` of `model.layers`) is left out of the names of modules
    outside.
    """
    found = {name: _position(name) for name in names}
    stacks = {position.stack for position in found.values() if position.stack is not None}
    root = stacks.pop().rpartition(".")[0] if len(stacks) == 1 else ""
    if not root:
        return found
    return {
        name: Position(None, None, at.module.removeprefix(f"{root}.")) if at.layer is None else at
        for name, at in found.items()
    }


def unchanged_kinds(names: Iterable[str], changed: Collection[str]) -> tuple[str, ...]:
    """The kinds of modules of which no tensor is in `changed`, in the order of reading.

    `names` are all tensors of the model. If a whole family of kinds is unchanged, it stands for its kinds:
    `embeddings`, `norms`, the modules of one part of a layer (`mlp`), or a stack of layers. Then follow the
    layers of which no tensor changed, though their kinds did in others: `layer 11`, `layers 0-19`; of
    several stacks `decoder.block.0-5`.
    """
    kinds: dict[Position, bool] = {}
    where = positions(names)
    for name, at in sorted(where.items(), key=lambda item: item[1].order()):
        kind = Position(at.stack, None, at.module)
        kinds[kind] = kinds.get(kind, False) or name in changed
    several = len({kind.stack for kind in kinds if kind.stack is not None}) > 1
    families: dict[str, bool] = {}
    for kind, moved in kinds.items():
        for family in _families(kind, several):
            families[family] = families.get(family, False) or moved
    found = [
        next((family for family in _families(kind, several) if not families[family]), None) for kind in kinds
    ]
    layers = _unchanged_layers(where, kinds, changed, several)
    return tuple(dict.fromkeys(label for label in [*found, *layers] if label is not None))


def _unchanged_layers(
    where: Mapping[str, Position], kinds: Mapping[Position, bool], changed: Collection[str], several: bool
) -> Iterator[str]:
    """The runs of layers of which no tensor changed, among the kinds that changed somewhere."""
    layers: dict[str, dict[int, bool]] = {}
    for name, at in where.items():
        if at.stack is not None and at.layer is not None and kinds[Position(at.stack, None, at.module)]:
            stack = layers.setdefault(at.stack, {})
            stack[at.layer] = stack.get(at.layer, False) or name in changed
    for stack_name, moved in sorted(layers.items()):
        still = sorted(layer for layer, any_moved in moved.items() if not any_moved)
        for _, run in groupby(enumerate(still), key=lambda item: item[1] - item[0]):
            numbers = [layer for _, layer in run]
            run_of = f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
            plural = "s" if len(numbers) > 1 else ""
            yield f"{stack_name}.{run_of}" if several else f"layer{plural} {run_of}"


def _families(kind: Position, several: bool) -> list[str]:
    """The families that a kind of modules belongs to, the widest first; the kind itself is the last.

    `several`: whether the model has several stacks of layers, whose names then belong to the others.
    """
    inside = f"{kind.stack} " if several and kind.stack is not None else ""
    found = [kind.stack] if inside and kind.stack is not None else []
    if _NORM.search(kind.module):
        found.append("norms")
    elif kind.stack is None and _EMBEDDING.search(kind.module) and "out" not in kind.module:
        found.append("embeddings")
    if kind.stack is not None and "." in kind.module:
        found.append(inside + kind.module.partition(".")[0])
    return [*found, inside + kind.module]


def _position(name: str) -> Position:
    parts = name.split(".")
    if len(parts) > 1 and parts[-1] in _PARAMETERS:
        parts.pop()
    found = numbered(".".join(parts))
    if found is None:
        return Position(None, None, ".".join(parts))
    stack, layer, inside = found
    inner = [part for part in inside if not part.isdigit()] or [stack.rpartition(".")[2]]
    return Position(stack, layer, ".".join(inner))
