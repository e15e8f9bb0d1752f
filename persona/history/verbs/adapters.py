"""`export --adapter` and `vector extract`: the change of a revision or of a vector as a PEFT adapter."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from persona.errors import (
    Blank,
    Call,
    InvalidInput,
    Keyword,
    Note,
    Refused,
    UnknownRevision,
    UsageError,
    listed,
)
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.computing import chosen_recipe
from persona.history.exporting import place_of
from persona.history.history import History
from persona.history.options import AdapterOptions
from persona.history.planning import manifests, plan_of
from persona.history.recipes.views import recipe_view
from persona.history.results import UNPRINTED, Result, as_json
from persona.history.vectors import lookup
from persona.history.vectors.counting import lone_recipe
from persona.history.worktree import text_files
from persona.objects.dtypes import merged_dtype
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules
from persona.weights.tied import may_have_aliases

if TYPE_CHECKING:
    from persona.objects.base import Base
    from persona.weights.adapter_layout import FactorEntry


@dataclass(frozen=True, repr=False)
class AdapterTensor(Result):
    """One tensor of the base that an adapter changes.

    `how`: "exact" for factors that give the change, "cut" for factors of the largest singular values, "whole"
    for a tensor that the adapter holds itself, "left out". `energy`: Σ change²; `kept_energy`: the part of it
    that the adapter has.
    """

    name: str
    how: str
    rank: int | None
    energy: float
    kept_energy: float


@dataclass(frozen=True, repr=False)
class AdapterResult(Result):
    """An adapter that was written, at `out` as it was given.

    `rank`: the largest of its matrices. `exact`: whether it gives the whole change, up to rounding.
    `kept_energy`: the part of Σ change² over all changed tensors that it has. `left_out`: changed tensors
    that it has nothing of. `bytes`: of its file of weights. `stored_bytes`: of the vector in the store, if
    it was made from one.
    """

    out: str
    files: tuple[str, ...]
    revision: str | None
    vector: str | None
    rank: int
    exact: bool
    kept_energy: float
    tensors: tuple[AdapterTensor, ...]
    left_out: tuple[str, ...]
    bytes: int
    stored_bytes: int | None
    seconds: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


_CHANGED_ON_LOAD: Final = re.compile(r"\.experts\.\d+\.|(?:^|\.)embed_out\.weight$")
"""The names of tensors for which transformers 5 has other modules than a file says."""


def export_adapter(
    history: History, rev: str | None = None, *, out: AnyPath, **options: Unpack[AdapterOptions]
) -> AdapterResult:
    """Writes the change from the base to the weights of a revision as a PEFT adapter directory at `out`.

    `rev` None: `recipe.toml` as it stands. If the rules make the weights a plain sum of adapters, the adapter
    is exact: its factors are theirs, joined. Every other matrix is decomposed, and its `rank` largest
    singular values are kept; None: 64. `rank` also limits the rank of joined factors. Norms, biases and other
    tensors that no factor can hold are saved whole, or with `lora_only` left out. `dtype` of the factors:
    "bfloat16", "float16" or "float32"; None: float32, or that of a lone adapter.

    Raises `Refused` for files in `out` that persona did not write there, unless `force`, and if the weights
    are the base's. Raises `InvalidInput` for weights that are not finite.
    """
    how = history.in_force(AdapterOptions, options)
    notes: list[str] = []
    try:
        revision, recipe = chosen_recipe(history, rev, notes)
    except UnknownRevision as error:
        if rev in text_files.recipe(history).recipe.by_name:
            hint = (Call("vectors.extract", rev, out=Blank("OUT")), " writes the vector of this name")
            raise UnknownRevision(error.message, hint=hint) from None
        raise
    return _write(history, recipe, Path(out), how, notes, revision=revision)


def extract_vector(
    history: History, name: str, *, out: AnyPath, **options: Unpack[AdapterOptions]
) -> AdapterResult:
    """Writes a vector as a PEFT adapter directory at `out`. Options as for `export_adapter`.

    `name`: a vector's name, or the start of its id. `add(out)` imports the adapter as a vector.
    """
    how = history.in_force(AdapterOptions, options)
    recipe = text_files.recipe(history).recipe
    id = lookup.id_of(history, name)
    vector = history.vector(id)
    base_id = lookup.base_of(history, vector, recipe)
    if base_id is None:
        raise InvalidInput(f"the base of the vector {name}, {history.base_words(vector.base)}, is not here")
    return _write(history, lone_recipe(id, base_id, Rules.of()), Path(out), how, [], vector=(name, id))


def _write(
    history: History,
    recipe: Recipe,
    out: Path,
    options: AdapterOptions,
    notes: list[str],
    *,
    revision: str | None = None,
    vector: tuple[str, str] | None = None,
) -> AdapterResult:
    from persona.extract import adapter
    from persona.weights.adapter_layout import config_of
    from persona.weights.adapter_output import AdapterWriter

    started = time.perf_counter()
    place = place_of(history, out)
    _refuse_growth(history, recipe, out, revision, vector is not None)
    base_config = _base_config(history, recipe.base)
    plan = plan_of(history, recipe)
    layout = adapter.layout(
        plan,
        manifests(history, recipe),
        base_config,
        options["rank"],
        _dtype(options["dtype"]),
        whole=not options["lora_only"],
    )
    if not layout.parts:
        raise _nothing(layout.whole.left_out or tuple(spec.name for spec in layout.whole.entries.values()))
    entries = [part.entry for part in layout.parts]
    base_name = history.base_name(recipe.base)
    config = config_of(entries, layout.whole, plan.base.tensors, base_name, base_config)
    view = as_json(recipe_view(recipe))
    made: list[AdapterTensor] = []
    with AdapterWriter(place, layout.specs(), config, force=options["force"]) as writer:
        for item in adapter.compute(
            plan,
            layout,
            threads=options["threads"],
            memory=options["memory"],
            progress=options["progress"],
        ):
            for key, data in item.data.items():
                writer.write(key, data.data)
            if item.how != "whole" or item.energy:  # else an unchanged tensor of a module that is saved
                share = item.kept / item.energy if item.energy else 1.0
                made.append(AdapterTensor(item.spec.name, item.how, item.rank, item.energy, share))
        written = writer.publish(
            {
                "adapter": True,
                "revision": revision,
                "base": {"name": base_name, "id": recipe.base},
                "rules": view["rules"],
                "vectors": view["vectors"],
            }
        )
        nbytes = writer.nbytes
    left_out = layout.whole.left_out
    if left_out:
        notes.append(_left_out(left_out, options["lora_only"]))
    notes += _tied_notes(entries, plan.base, base_config)
    notes += _expert_notes(entries)
    energy = sum(tensor.energy for tensor in made)
    kept = sum(tensor.energy * tensor.kept_energy for tensor in made)
    return AdapterResult(
        out=str(out),
        files=tuple(written),
        revision=revision,
        vector=vector and vector[1],
        rank=max(entry.rank for entry in entries),
        exact=not left_out and all(tensor.how != "cut" for tensor in made),
        kept_energy=kept / energy if energy else 1.0,
        tensors=tuple(sorted(made, key=lambda tensor: tensor.name.encode())),
        left_out=left_out,
        bytes=nbytes,
        stored_bytes=lookup.stored_bytes(history, vector[1], history.vector(vector[1])) if vector else None,
        seconds=round(time.perf_counter() - started, 3),
        notes=tuple(notes),
    )


def _refuse_growth(history: History, recipe: Recipe, out: Path, revision: str | None, lone: bool) -> None:
    """`InvalidInput` if vectors of a recipe grow its base. `lone`: of a recipe that is a vector alone.

    The base would have to be resized before PEFT loads the adapter.
    """
    if history.base_of(recipe).digest == history.base(recipe.base).digest:
        return
    rev = Blank("REV") if lone else None if revision is None else abbreviate(revision)
    place = os.fspath(out)
    whole = Call("checkout", out=place) if rev is None else Call("checkout", rev, out=place)
    raise InvalidInput(
        "an adapter has no place for tokens or matrices that a vector adds to the base",
        hint=(whole, " writes the whole model"),
    )


def _base_config(history: History, base: str) -> dict[str, Any]:
    """The base's config.json; empty if it has none that can be read."""
    blob = history.base(base).files.get("config.json")
    try:
        value = json.loads(history.blob(blob)) if blob else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _dtype(text: str | None) -> str | None:
    found = merged_dtype(text) if text is not None else None
    if text is not None and found is None:
        raise UsageError(f"dtype {text!r:.40} is not one of bfloat16, float16, float32")
    return found.name if found else None


def _nothing(others: tuple[str, ...]) -> Refused:
    """The error for a change without a matrix that factors can give."""
    if not others:
        return Refused("the weights are the base's, so there is no change to write")
    return Refused(
        f"no factor can hold a part of this change: it changes only {listed(others, 5)}",
        hint=(Call("checkout", Blank("REV"), out=Blank("OUT")), " writes the whole model"),
    )


def _left_out(names: tuple[str, ...], asked: bool) -> Note:
    tensors = "changed tensor is" if len(names) == 1 else "changed tensors are"
    text = f"{len(names)} {tensors} not in the adapter: {listed(names, 5)}"
    return Note(text, ("leave out ", Keyword(lora_only=True), " to save norms and biases") if asked else None)


def _tied_notes(entries: list[FactorEntry], base: Base, config: Mapping[str, Any]) -> list[str]:
    """Says that an adapter of a tied embedding has to be merged before the model is used."""
    only = "PEFT applies the change of the embedding to both only after merge_and_unload()"
    changed = {entry.spec.name for entry in entries}
    said = [f"{alias} is tied to {name}: {only}" for alias, name in base.tied.items() if name in changed]
    return said + [
        f"the base may tie its output matrix to {entry.spec.name}: {only}"
        for entry in entries
        if entry.spec.name not in base.tied.values()
        and may_have_aliases(entry.spec, base.spec, base.tied, config)
    ]


def _expert_notes(entries: list[FactorEntry]) -> list[Note]:
    """Says that PEFT may leave out factors of modules that transformers has in another way than the file."""
    names = [entry.spec.name for entry in entries if _CHANGED_ON_LOAD.search(entry.spec.name)]
    if not names:
        return []
    text = (
        f"transformers 5 stacks or renames {listed(names, 3)} when it loads the model: PEFT may leave factors"
        " of these out, also without a warning"
    )
    return [Note(text, (Call("checkout", Blank("REV"), out=Blank("OUT")), " writes the whole model"))]
