"""An import that grows the base: the files that come with it, and the vectors that it cannot stand beside."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from persona.errors import IntegrityError, Keyword, Note, listed
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.vectors.model_config import CONFIG, following, with_dtype_of
from persona.history.worktree import text_files
from persona.objects import growth
from persona.objects.base import Base
from persona.objects.recipe import Recipe
from persona.objects.tensors import TensorSpec
from persona.objects.vector import Vector
from persona.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from persona.merge.plan import Plan
    from persona.weights.adapters import Adapter

_TOKENIZER: Final = ("tokenizer", "vocab", "added_tokens", "special_tokens", "merges", "spiece")
"""How the names of the files of a tokenizer begin."""


def files(
    texts: Mapping[str, bytes],
    options: ImportOptions,
    made: Vector | None = None,
    again: Collection[str] = (),
) -> dict[str, bytes]:
    """The files of a fine-tune that come with its vector.

    New tokens bring all of them, an output matrix brings the config. `made`: the vector, once it is known.
    `again`: files that came with the vector that it replaces.
    """
    tokens, head = options["extend_vocab"], options["untie"]
    if made is not None:
        tokens = any(origin is None for _, origin in made.grown)
        head = len(made.grown) > 0
    if options["files"] or tokens:
        return dict(texts)
    return {name: text for name, text in texts.items() if name in again or (head and name == CONFIG)}


def own_files(history: History, recipe: Recipe, texts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The model files of a fine-tune, as they would stand beside a recipe.

    If the recipe has grown, files that are the base's own are left out: they lack its tokens.
    """
    base, extended = history.base(recipe.base), base_of(history, recipe)
    if CONFIG in texts:
        texts = {**texts, CONFIG: with_dtype_of(history, base, texts[CONFIG])}
    if extended.digest == base.digest:
        return dict(texts)
    own = {path: text for path, text in texts.items() if base.files.get(path) != text_files.blob_id(text)}
    return {
        path: following(history, text, base, extended) if path == CONFIG else text
        for path, text in own.items()
    }


def as_onto(checkpoint: Checkpoint | Adapter, onto: Plan | None, options: ImportOptions) -> ImportOptions:
    """The options for a fine-tune of a revision that has grown: its rows need no flag."""
    if onto is None or not isinstance(checkpoint, Checkpoint):
        return options
    origins = onto.origins.values()
    return {
        **options,
        "extend_vocab": options["extend_vocab"] or None in origins,
        "untie": options["untie"] or any(origin is not None for origin in origins),
    }


def as_trained(origins: Mapping[str, str | None]) -> ImportOptions:
    """The options for weights that were trained here, and have the grown tensors `origins`."""
    kinds = {origin is None for origin in origins.values()}
    return {"extend_vocab": True in kinds, "untie": False in kinds}


def base_of(history: History, recipe: Recipe) -> Base:
    """The base of a recipe with its growth, or without if a vector is damaged: an import stores it again."""
    try:
        return history.base_of(recipe)
    except IntegrityError:
        return history.base(recipe.base)


def without_tokenizer(made: Vector, came: Collection[str]) -> list[str]:
    """The sentence on a vector with new tokens, if no tokenizer is among the files that came with it."""
    if None not in dict(made.grown).values() or any(path.startswith(_TOKENIZER) for path in came):
        return []
    return ["no tokenizer came with the new tokens; copy theirs into the work tree"]


def other_tokens(history: History, recipe: Recipe, name: str, texts: Collection[str]) -> list[str]:
    """The sentence on the vector `name`, if its new tokens may be other ones than those of the recipe.

    `texts`: the files that came with the vector and differed from those of the work tree.
    """
    vectors = _readable(history, recipe)
    growing = {term for term, vector in vectors for _, origin in vector.grown if origin is None}
    files = [path for path in texts if path.startswith(_TOKENIZER)]
    if name not in growing or len(growing) < 2 or not files:
        return []
    return [
        f"the recipe had as many tokens already, and another {listed(files)}: a row of both vectors may stand"
        " for two tokens"
    ]


def refuse_other(
    history: History, recipe: Recipe, name: str, checkpoint: Checkpoint | Adapter, options: ImportOptions
) -> None:
    """`InvalidInput` if a fine-tune has more tokens than the base, and another number than the recipe.

    It is found here before the minutes that an import may take. `name`: of its vector, which takes the place
    of one of that name.
    """
    if not options["extend_vocab"] or not isinstance(checkpoint, Checkpoint):
        return
    base = history.base(recipe.base)
    grown: dict[TensorSpec, str | None] = {}
    for spec in base.tensors:
        source = checkpoint.tensors.get(spec.name, (spec, 0))[0]
        if growth.extends(spec.shape, source.shape):
            grown[replace(spec, shape=source.shape)] = None
    vectors = [one for one in _readable(history, recipe) if one[0] != name]
    try:
        growth.extended(base, [*vectors, (name, growth.growing(base, grown))])
    except growth.TwoSizes as error:
        raise error.with_new(name) from None


def without_ties(history: History, recipe: Recipe) -> list[Note]:
    """The sentences on vectors that untie an output matrix, and not all that models untie with it.

    Earlier versions imported such vectors. Without the other tensors, transformers makes them at random.
    """
    vectors = growth.vectors_of(recipe, history.vector)
    grown = {name: origin for _, vector in vectors for name, origin in vector.grown if origin is not None}
    if not grown:
        return []
    from persona.intake.heads import tied_with

    lost = tied_with(history.base(recipe.base), grown).keys() - grown.keys()
    if not lost:
        return []
    names = dict.fromkeys(name for name, vector in vectors if grown.keys() & dict(vector.grown).keys())
    said = (
        f"{listed(list(names))} has no {listed(sorted(lost))}, which its model unties too, so transformers"
        " makes it at random: an earlier version imported it"
    )
    return [Note(said, ("import it again, with ", Keyword(untie=True)))]


def grew(history: History, id: str) -> bool:
    """Whether a vector has rows of its own; not if it is damaged, so that another can take its place."""
    try:
        return bool(history.vector(id).grown)
    except IntegrityError:
        return False


def _readable(history: History, recipe: Recipe) -> list[tuple[str, Vector]]:
    """The vectors of a recipe by the names of their terms; none if one of them is damaged."""
    try:
        return growth.vectors_of(recipe, history.vector)
    except IntegrityError:
        return []
