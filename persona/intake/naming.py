"""Names of tensors in a sentence: whole layers and modules as such, the others without their numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from persona.objects.layers import numbered
from persona.weights.tied import is_head

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)")
_MOST = 8
_FEW = 3


def pattern(name: str) -> str:
    """A name with a `*` for each number in it."""
    return _NUMBER.sub("*", name)


def described(names: Collection[str], every: Iterable[str]) -> str:
    """Some names of a model in a sentence. `every`: all names of that model."""
    return _listed(_parts(dict.fromkeys(names), list(every)))


def _parts(names: Iterable[str], every: list[str]) -> list[str]:
    left = dict.fromkeys(names)
    found: list[str] = []

    def take(members: Iterable[str], said: str) -> None:
        for member in members:
            left.pop(member)
        found.append(said)

    for name in [name for name in left if is_head(name)]:
        take([name], f"the head ({name})")
    for parts in (1, 2):
        modules: defaultdict[str, list[str]] = defaultdict(list)
        for name in every:
            modules[".".join(name.split(".")[:parts])].append(name)
        for module, members in modules.items():
            is_stack = any((split := numbered(name)) is not None and split[0] == module for name in members)
            if parts < len(members) < len(every) and not is_stack and all(map(left.__contains__, members)):
                take(members, f"{module}.* ({len(members)})")
    layers: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    kinds: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name in every:
        if (split := numbered(name)) is not None and len(split[2]) > 1:
            layers[split[0]][split[1]].append(name)
            kinds[split[0], split[2][0]].append(name)
    for stack, numbers in layers.items():
        of = f" of {stack}" if len(layers) > 1 else ""
        whole = [
            number
            for number in sorted(numbers)
            if len(numbers[number]) > 1 and all(map(left.__contains__, numbers[number]))
        ]
        if not whole:
            continue
        members = [name for number in whole for name in numbers[number]]
        if len(whole) == len(numbers):
            take(members, f"all of {stack} ({len(members)})")
        else:
            plural = "s" if len(whole) > 1 else ""
            take(members, f"all of layer{plural} {_numbers(whole)}{of} ({len(members)})")
    for (stack, kind), members in kinds.items():
        if len(layers[stack]) > 1 and all(map(left.__contains__, members)):
            of = f" of {stack}" if len(layers) > 1 else ""
            take(members, f"all {kind}{of} ({len(members)})")
    if len(left) <= _FEW:
        return [*found, *left]
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in left:
        groups[pattern(name)].append(name)
    for group, members in groups.items():
        found.append(f"{group} ({len(members)})" if len(members) > 1 else members[0])
    return found


def _numbers(numbers: list[int]) -> str:
    """Ascending numbers, runs of them as `8 to 11`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return joined([f"{run[0]} to {run[-1]}" if len(run) > 2 else joined(list(map(str, run))) for run in runs])


def joined(parts: Sequence[str]) -> str:
    """Parts of a sentence as a list of it."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted_in(one: str, other: str) -> str:
    """What two names number differently: "experts" or "layers"."""
    parts = one.split(".")
    place = next((at for at, (a, b) in enumerate(zip(parts, other.split("."), strict=False)) if a != b), 0)
    return "experts" if place and "expert" in parts[place - 1] else "layers"


def _listed(parts: list[str]) -> str:
    shown = [*parts[:_MOST], f"{len(parts) - _MOST} more"] if len(parts) > _MOST + 1 else parts
    return joined(shown).replace("\n", "?")
