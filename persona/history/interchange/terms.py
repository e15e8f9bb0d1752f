"""The merge rules and the terms of a mergekit recipe, before any model is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.interchange import settings
from persona.history.interchange.mergekit import MergekitRecipe
from persona.history.interchange.shares import Share
from persona.history.vectors.places import default_name
from persona.objects.canonical import decimal
from persona.objects.names import check_vector_name
from persona.objects.recipe import Value
from persona.objects.rules import Rules

_SEED: Final = "0"
_DEFAULTS: Final = {"gamma": 0.01, "epsilon": 0.15}
"""Of mergekit 0.1.5."""


@dataclass(frozen=True)
class Entry:
    """A term to be: its name, its share of a model, and its own density, if that is not the recipe's."""

    name: str
    share: Share
    density: Value | None


def rules_of(recipe: MergekitRecipe, parts: Sequence[Share], notes: list[str]) -> Rules:
    """The merge rules. The density is that of all terms, or 1 if they differ."""
    method = recipe.method
    density = _common(parts) if method.trim != "none" else None
    return method.rules(recipe.normalize, decimal(recipe.lambda_), density, _axes(recipe, notes))


def entries(recipe: MergekitRecipe, parts: Sequence[Share], places: Mapping[str, Path]) -> list[Entry]:
    """The terms with their names. `places`: the directory of each model."""
    common = _common(parts) if recipe.method.trim != "none" else None
    names = _names(parts, places)
    return [
        Entry(name, part, part.density if common is not None and part.density != common else None)
        for name, part in zip(names, parts, strict=True)
    ]


def _common(parts: Sequence[Share]) -> str:
    """The density of all terms, or 1 if they differ."""
    densities = {part.density for part in parts}
    common = densities.pop() if len(densities) == 1 else "1"
    return common if isinstance(common, str) else "1"


def _axes(recipe: MergekitRecipe, notes: list[str]) -> dict[str, str]:
    """gamma, epsilon, rescale and seed, as far as the method has them."""
    method = recipe.method
    axes: dict[str, str] = {}
    for key in _DEFAULTS:
        if key in method.parameters:
            found = {
                settings.number(value)
                for source in recipe.models
                for value in settings.possible(source.scopes, key, _DEFAULTS[key])
            }
            if len(found) > 1:
                raise InvalidInput(
                    f"{recipe.path}: {key}: must be the same for all models, layers and tensors; a recipe of"
                    f" persona has one {key}"
                )
            axes[key] = decimal(found.pop() or 0.0)
    if method.random:
        axes |= {"rescale": "norm" if recipe.rescale else "false", "seed": _SEED}
        notes.append(f"{method.name}: mergekit's own random choice cannot be repeated; this one can")
    return axes


def _names(parts: Sequence[Share], places: Mapping[str, Path]) -> list[str]:
    """A name of its own for each term: its directory's, then the word of its filter, or a number."""
    found: list[str] = []
    for part in parts:
        name = default_name(places[part.source.written])
        first = not any(other.source == part.source for other in parts[: len(found)])
        if not first:
            words = re.findall(r"[A-Za-z0-9_]+", part.only[0]) if len(part.only) == 1 else []
            name = f"{name}-{words[0]}" if len(words) == 1 else name
        number, plain = 1, name
        while name in found:
            number += 1
            name = f"{plain}-{number}"
        found.append(check_vector_name(name))
    return found
