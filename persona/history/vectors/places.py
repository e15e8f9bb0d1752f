"""Where a fine-tune comes from: the place that its vector is named after, and by which it is known again."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from persona.errors import Blank, InvalidInput, Keyword, Refused, UsageError
from persona.history.history import History
from persona.history.recipes.text import RECIPE_FILE
from persona.history.vectors.cache import known_origin
from persona.objects.names import check_vector_name
from persona.objects.recipe import Recipe
from persona.store.files import resolved
from persona.weights.index import ADAPTER_FILES


def origin(path: Path) -> Path:
    """The origin of a fine-tune.

    It is PATH, for a weights file `model…` or a file of an adapter its directory, for `checkpoint-N` the
    directory of the run, and for a snapshot in the hub's cache the directory of the model.
    """
    from persona.weights.hub import repository_of

    place = Path(os.path.abspath(path))
    if place.name in ADAPTER_FILES or re.fullmatch(r"model(-\d+-of-\d+)?", _weights_name(place) or ""):
        place = place.parent
    if re.fullmatch(r"checkpoint-\d+", _weights_name(place) or place.name):
        place = place.parent
    return repository_of(place)


def _weights_name(place: Path) -> str | None:
    """The name of a weights file without its endings; None for anything else."""
    if not place.name.endswith((".safetensors", ".safetensors.index.json")) or place.is_dir():
        return None
    return place.name.removesuffix(".index.json").removesuffix(".safetensors")


def default_name(path: Path) -> str:
    """The name of PATH's `origin`, without the endings of a weights file; of the hub's ORG/NAME, NAME."""
    from persona.weights.hub import cached_name

    place = origin(path)
    name = _weights_name(place) or cached_name(place) or place.name
    part = unicodedata.normalize("NFC", name)  # macOS gives form D
    try:
        return check_vector_name(part)
    except InvalidInput:
        raise UsageError(
            f"{path} gives no name for the vector",
            hint=("give one with ", Keyword(name=Blank("NAME"))),
        ) from None


def refuse_another(history: History, path: Path, name: str, id: str) -> None:
    """`Refused` if the vector of that name is known to come from another place than PATH."""
    from persona.weights.hub import shown

    known = known_origin(history, id)
    if known is not None and resolved(known) != resolved(origin(path)):
        raise Refused(
            f"{shown(path)}: {RECIPE_FILE} has a vector named {name} already, which comes from"
            f" {shown(known)}",
            hint=(
                "give the new vector a name of its own with ",
                Keyword(name=Blank("NAME")),
                ", or replace the old vector with ",
                Keyword(replace=True),
            ),
        )


def refuse_again(history: History, path: Path, name: str, recipe: Recipe) -> None:
    """`Refused` if a vector of another name is known to come from PATH, which may have been trained again."""
    from persona.weights.hub import shown

    place = resolved(origin(path))
    for term in recipe.terms:
        known = known_origin(history, term.vector)
        if known is not None and resolved(known) == place:
            raise Refused(
                f"{shown(path)}: the vector {term.name} comes from there too, and {RECIPE_FILE} has no vector"
                f" named {name}",
                hint=(
                    Keyword(name=term.name),
                    " replaces it, ",
                    Keyword(name=name),
                    " adds another vector to it",
                ),
            )
