"""`export --mergekit`: a recipe and its models as a directory that mergekit runs.

Everything is written beside the directory and gets its name at the end, so a cut leaves no half directory.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Unpack

from persona.errors import Blank, Call, InvalidInput, Refused
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.computing import chosen_recipe
from persona.history.exporting import place_of, texts_of
from persona.history.history import History
from persona.history.interchange import writing
from persona.history.options import MemoryOptions
from persona.history.planning import grown_base, plan_of
from persona.history.recipes.filters import tensor_names
from persona.history.results import UNPRINTED, Result
from persona.history.vectors.model_config import CONFIG, following
from persona.objects.dtypes import DTYPES
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from persona.store import files

RECIPE: str = "mergekit.yml"
_BASE = "base"


@dataclass(frozen=True, repr=False)
class MergekitResult(Result):
    """A directory for mergekit that was written: its recipe, and the directory of each model.

    `models` are the base and the fine-tunes, each by its name in the directory.
    """

    out: str
    revision: str | None
    method: str
    models: tuple[str, ...]
    bytes: int
    seconds: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def export_mergekit(
    history: History, rev: str | None = None, *, out: AnyPath, **options: Unpack[MemoryOptions]
) -> MergekitResult:
    """Writes a revision as a mergekit recipe with its models, into a new or empty directory `out`.

    `out` has `mergekit.yml`, the base, and the fine-tune of each vector as a checkpoint. `mergekit-yaml
    OUT/mergekit.yml` gives the weights of `rev` (None: `recipe.toml` as it stands), except at elements that
    are tied at a cut-off, and by single roundings. If vectors grow the base, all models have the shapes of
    these weights. Raises `InvalidInput` that names a rule which mergekit does not have, and `Refused` if
    `out` holds files.
    """
    import yaml

    started = time.perf_counter()
    how = history.in_force(MemoryOptions, options)
    place = place_of(history, Path(out))
    notes: list[str] = []
    revision, recipe = chosen_recipe(history, rev, notes)
    document, models = _document(history, recipe, place, notes, editable=rev is None)
    _check_place(place)
    texts = texts_of(history, revision)
    if CONFIG in texts:
        texts[CONFIG] = following(history, texts[CONFIG], history.base(recipe.base), history.base_of(recipe))
    files.mkdirs(place.parent)
    beside = place.parent / f".{place.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
    nbytes = 0
    try:
        for name, lone in models.items():
            nbytes += _write_model(history, lone, beside / name, texts, how)
        text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)
        files.write_file(beside / RECIPE, text.encode())
        _check_place(place)  # somebody may have written there meanwhile
        files.rename(beside, place)
        files.sync_directory(place.parent)
    except BaseException:
        if os.path.lexists(beside):
            files.remove_tree(beside)
        raise
    seconds = round(time.perf_counter() - started, 3)
    return MergekitResult(
        str(place), revision, document["merge_method"], tuple(models), nbytes, seconds, tuple(notes)
    )


def _document(
    history: History, recipe: Recipe, place: Path, notes: list[str], *, editable: bool
) -> tuple[dict[str, Any], dict[str, Recipe]]:
    """The YAML's mapping, and the recipe of the weights of each model by the name of its directory."""
    if not recipe.terms:
        raise Refused(
            "the recipe has no vector, so there is nothing to merge",
            hint=(Call("checkout", Blank("REV"), out=Blank("OUT")), " writes the base"),
        )
    if "+" in str(place) or "@" in str(place):
        raise InvalidInput(f"{place}: mergekit reads + and @ in a path as marks; write elsewhere")
    base = history.base(recipe.base)
    names = tensor_names(history.base_of(recipe))
    method, parameters = writing.method_of(recipe, editable=editable)
    plan = plan_of(history, recipe)
    vectors: dict[str, list[Term]] = {}
    for term in recipe.terms:
        vectors.setdefault(term.vector, []).append(term)
    alone, whole = Rules.of("linear"), grown_base(history, recipe)
    models = {_BASE: whole}
    listed: list[dict[str, Any]] = []
    for id, terms in vectors.items():
        name = _directory(min(term.name for term in terms), models)
        shapes = (Term(f"shapes {place}", term.vector, "0") for place, term in enumerate(whole.terms))
        models[name] = Recipe.of(recipe.base, [Term("vector", id), *shapes], alone)
        source = plan.source_of(id)
        own = writing.model_parameters(recipe, terms, names, {name for name in names if source.reaches(name)})
        listed.append({"model": str(place / name), "parameters": own})
        if history.vector(id).kind != "delta":
            notes.append(
                f"{terms[0].name}: its model is rounded to the base's dtype, and the recipe itself is not, so"
                " weights differ by roundings"
            )
    document: dict[str, Any] = {
        "merge_method": method,
        "base_model": str(place / _BASE),
        "models": listed,
        **({"parameters": parameters} if parameters else {}),
        "dtype": "float32",
    }
    dtypes = {DTYPES[spec.dtype].torch for spec in base.tensors if spec.merged}
    if len(dtypes) == 1:
        document["out_dtype"] = dtypes.pop()
    else:
        notes.append("the base has float tensors of several dtypes; mergekit writes all of them as float32")
    return document, models


def _directory(name: str, taken: Mapping[str, object]) -> str:
    """A directory for a vector: its name, with a dash for each character that is special to mergekit."""
    plain = re.sub(r"[+@\\/\s]", "-", name)
    number, found = 1, plain
    while found.casefold() in {RECIPE, *(other.casefold() for other in taken)}:
        number += 1
        found = f"{plain}-{number}"
    return found


def _check_place(place: Path) -> None:
    if os.path.lexists(place) and any(place.iterdir()):
        raise Refused(f"{place} holds files; write into a new directory")


def _write_model(
    history: History, recipe: Recipe, place: Path, texts: Mapping[str, bytes], options: MemoryOptions
) -> int:
    """Writes the weights of a recipe as a model directory; returns the bytes of its weights."""
    from persona.merge.run.materialise import materialise
    from persona.weights.shards import plan_shards
    from persona.weights.writer import ModelWriter

    plan = plan_of(history, recipe)
    base = plan.base
    layout = plan_shards(base.tensors, None, shards=base.shards, shard_of=base.shard_of)
    with ModelWriter(place, layout) as writer:
        made = materialise(
            plan,
            writer,
            threads=options["threads"],
            memory=options["memory"],
            progress=options["progress"],
            allow_nonfinite=True,
        )
        writer.publish(made.tensor_digests)
    for path, data in texts.items():
        target = place / path
        files.mkdirs(target.parent, below=place)
        files.write_file(target, data)
    return made.bytes_written
