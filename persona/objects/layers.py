"""**layer** — a block of a model that its name counts: `model.layers.7.mlp.up_proj.weight` is in layer 7.

**stack** — the layers that are counted together, here `model.layers`.
**list over layers** — values of α or a density that are spread over the layers of each stack.

docs/numerics.md, "Lists over layers", defines them. They depend only on the names of the base's tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

Place = tuple[int, int]
"""The layer of a tensor, and the number of layers of its stack. A tensor outside all layers has None."""


def numbered(name: str) -> tuple[str, int, tuple[str, ...]] | None:
    """A tensor's name, split at its first part that is a number: stack, number, the parts after it.

    None for a name without a number after its first part.
    """
    parts = name.split(".")
    for at, part in enumerate(parts):
        if at and part.isascii() and part.isdigit():
            return None if len(part) > 9 else (".".join(parts[:at]), int(part), tuple(parts[at + 1 :]))
    return None


def places(names: Iterable[str]) -> dict[str, Place]:
    """The place of each tensor that is in a layer, by name. `names` are all tensors of the base."""
    found: dict[str, tuple[str, int]] = {}
    numbers: dict[str, set[int]] = {}
    modular: set[str] = set()
    for name in names:
        split = numbered(name)
        if split is not None:
            stack, number, inside = split
            found[name] = stack, number
            numbers.setdefault(stack, set()).add(number)
            if len(inside) > 1:
                modular.add(stack)
    sizes = {stack: max(counted) + 1 for stack, counted in numbers.items()}
    # A stack without modules may be a list of parameters inside one module, such as `projector.0` and `.2`.
    layered = {
        stack: size for stack, size in sizes.items() if stack in modular or 1 < size == len(numbers[stack])
    }
    return {name: (number, layered[stack]) for name, (stack, number) in found.items() if stack in layered}


def at_place(values: Sequence[str], place: Place | None) -> Fraction:
    """The exact value of a list over layers at a place.

    `values` are canonical decimals. The first value is that of the first layer and of tensors outside all
    layers, the last that of the last layer, and also that of a stack's only layer. Between them the value is
    interpolated.
    """
    from fractions import Fraction  # few recipes have lists

    layer, layers = place or (0, 1)
    if place is None or len(values) == 1:
        return Fraction(values[0])
    if layers == 1:
        return Fraction(values[-1])
    at, rest = divmod(Fraction(layer * (len(values) - 1), layers - 1), 1)
    near = Fraction(values[at])
    return near + rest * (Fraction(values[at + 1]) - near) if rest else near
