"""Experts in one tensor or one by one, and projections fused or apart: the same numbers in other tensors.

One layout is tried: a stack has its experts along the first axis, and a fused projection has the rows of its
parts one after the other. Names do not show it: heads may be grouped, or the parts of two devices may follow
one another. So `renames` asks the weights. Others need code of their model, such as the interleaved
`query_key_value` of GPT-NeoX.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from persona.intake.experts import STACKED
from persona.intake.parts import Held
from persona.objects.tensors import TensorSpec

_FUSED: Final = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "W_pack": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""A fused projection → its parts, whose rows follow one another in it."""
_EXPERT: Final = re.compile(r"(.*\.experts)\.(\d+)\.([^.]+)(\.weight)?")
_STACK: Final = re.compile(r"(.*\.experts)\.([^.]+?)(\.weight)?")
_PROJECTION: Final = re.compile(r"(.*)\.([^.]+)\.(weight|bias)")


def relaid(absent: Mapping[str, TensorSpec], unknown: Mapping[str, Held]) -> dict[str, Held]:
    """Tensors of a checkpoint in the layout of the base, as far as they are known in another one.

    `absent`: the tensors of the base without a counterpart. The new tensors have the names of the parts in
    the base, but may still stand in modules that the base calls otherwise.
    """
    found = dict(unknown)
    for change in (_cut_stacks, _stacked, _cut_fused, _fused):
        for sources, made in list(change(absent, found)):
            for name in sources:
                found.pop(name, None)
            found |= {one.spec.name: one for one in made}
    return found


Change = tuple[list[str], list[Held]]
"""The tensors that go, and those that stand for them."""


def _cut_stacks(absent: Mapping[str, TensorSpec], given: Mapping[str, Held]) -> Iterator[Change]:
    """Stacks of experts cut into the experts' tensors."""
    own = {match[3]: match[4] or "" for name in absent if (match := _EXPERT.fullmatch(name))}
    if not own:
        return
    for name, held in given.items():
        match = _STACK.fullmatch(name)
        if match is None or len(held.spec.shape) != 3 or match[2].isdigit():
            continue
        experts, rows, columns = held.spec.shape
        for parts in _ways(match[2], own):
            if rows % len(parts) or held.spec.nbytes % max(1, experts * len(parts)):
                continue
            step = held.spec.nbytes // (experts * len(parts))
            yield (
                [name],
                [
                    held.cut(
                        f"{match[1]}.{expert}.{part}{own[part]}",
                        (rows // len(parts), columns),
                        (expert * len(parts) + place) * step,
                    )
                    for expert in range(experts)
                    for place, part in enumerate(parts)
                ],
            )
            break


def _stacked(absent: Mapping[str, TensorSpec], given: Mapping[str, Held]) -> Iterator[Change]:
    """The experts' tensors put together into stacks."""
    own = {
        match[2]: match[3] or ""
        for name, spec in absent.items()
        if len(spec.shape) == 3 and (match := _STACK.fullmatch(name))
    }
    experts: dict[str, dict[str, dict[int, str]]] = {}
    for name in given if own else ():
        if match := _EXPERT.fullmatch(name):
            experts.setdefault(match[1], {}).setdefault(match[3], {})[int(match[2])] = name
    for module, parts in experts.items():
        for stack, suffix in own.items():
            names = next(_ways(stack, parts), None)
            if names is None or any(sorted(parts[part]) != [*range(len(parts[part]))] for part in names):
                continue
            count = len(parts[names[0]])
            if any(len(parts[part]) != count for part in names):
                continue
            order = [parts[part][expert] for expert in range(count) for part in names]
            made = _joined(f"{module}.{stack}{suffix}", [given[name] for name in order], count)
            if made is not None:
                yield order, [made]


def _cut_fused(absent: Mapping[str, TensorSpec], given: Mapping[str, Held]) -> Iterator[Change]:
    """Fused projections cut into their parts."""
    rows = {
        _end(name, parts): spec.shape[0] for parts in (2, 3) for name, spec in absent.items() if spec.shape
    }
    for name, held in given.items():
        match = _PROJECTION.fullmatch(name)
        if match is None or not held.spec.shape:
            continue
        for parts in [_FUSED[match[2]]] if match[2] in _FUSED else []:
            ends = [f"{match[1]}.{part}.{match[3]}" for part in parts]
            sizes = [rows.get(_end(end, 3), rows.get(_end(end, 2), 0)) for end in ends]
            if not all(sizes) or sum(sizes) != held.spec.shape[0]:
                continue
            step = held.spec.nbytes // held.spec.shape[0]
            starts = [sum(sizes[:place]) * step for place in range(len(parts))]
            yield (
                [name],
                [
                    held.cut(f"{match[1]}.{part}.{match[3]}", (size, *held.spec.shape[1:]), start)
                    for part, size, start in zip(parts, sizes, starts, strict=True)
                ],
            )


def _fused(absent: Mapping[str, TensorSpec], given: Mapping[str, Held]) -> Iterator[Change]:
    """Projections put together into fused ones."""
    fused = {match[2] for name in absent if (match := _PROJECTION.fullmatch(name))} & _FUSED.keys()
    for stack in sorted(fused):
        first, *others = _FUSED[stack]
        for name in given:
            match = _PROJECTION.fullmatch(name)
            if match is None or match[2] != first:
                continue
            names = [name, *(f"{match[1]}.{part}.{match[3]}" for part in others)]
            if all(each in given for each in names):
                made = _joined(f"{match[1]}.{stack}.{match[3]}", [given[each] for each in names], None)
                if made is not None:
                    yield names, [made]


def _joined(name: str, parts: list[Held], experts: int | None) -> Held | None:
    """Tensors one after the other; None if they do not make one. `experts`: how many a stack has."""
    kinds = {(one.spec.dtype, one.spec.shape[1:], len(one.spec.shape)) for one in parts}
    if len(kinds) != 1 or not parts[0].spec.shape:
        return None
    dtype, inner, _ = kinds.pop()
    rows = sum(one.spec.shape[0] for one in parts)
    shape = (rows, *inner) if experts is None else (experts, rows // experts, *inner)
    runs = tuple(run for one in parts for run in one.runs)
    return Held(TensorSpec(name, dtype, shape), runs)


def _ways(stack: str, own: Collection[str]) -> Iterator[tuple[str, ...]]:
    """The ways to name the parts of a stack that are in `own`."""
    for parts in (*STACKED.get(stack, ()), (stack,)):
        if all(part in own for part in parts):
            yield parts


def _end(name: str, parts: int) -> str:
    """The last parts of a tensor's name."""
    return ".".join(name.split(".")[-parts:])
