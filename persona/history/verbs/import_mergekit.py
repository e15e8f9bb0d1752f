"""`import`: a mergekit recipe becomes vectors and the recipe in `recipe.toml`. It commits nothing.

All models are stored first; then one edit puts the whole recipe in place. If a model cannot be taken,
`recipe.toml` stays as it is, and the vectors that were stored keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from persona.errors import Blank, Call, InvalidInput, Keyword, Note, NothingChanged, Refused, WorkFile
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.commit_builder import advice, vector_changes
from persona.history.history import History
from persona.history.interchange import mergekit
from persona.history.interchange.architectures import is_described
from persona.history.interchange.mergekit import MergekitRecipe, Source
from persona.history.interchange.shares import shares
from persona.history.interchange.terms import Entry, entries, rules_of
from persona.history.options import ImportOptions, TakeOptions, complete
from persona.history.recipes import filters
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, CommitResult, Result
from persona.history.vectors import importing, kept_names, model_files
from persona.history.vectors.model_config import CONFIG, parsed
from persona.history.vectors.places import default_name
from persona.history.vectors.trained_from import left_behind
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.objects.base import Base
from persona.objects.digest import weights_digest
from persona.objects.dtypes import merged_dtype
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import AXES, Rules
from persona.weights import hub
from persona.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from persona.intake.encode import ImportedVector


@dataclass(frozen=True, repr=False)
class ImportPlan(Result):
    """What an import would do: the base, the merge rules, and each vector with the path it comes from."""

    base: str | None
    rules: dict[str, str]
    vectors: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def import_mergekit(
    history: History,
    path: AnyPath,
    *,
    base: AnyPath | None = None,
    dry_run: bool = False,
    **options: Unpack[TakeOptions],
) -> CommitResult | ImportPlan:
    """Imports the models of a mergekit YAML as vectors, and writes its recipe into `recipe.toml`.

    The recipe replaces the one in `recipe.toml`; `id` of the result is None. Paths in the file are relative
    to it, else to the current directory. `base`: the directory of its `base_model`, if that is elsewhere. The
    weights equal those of mergekit 0.1.5 with `dtype: float32`, except at elements that are tied at a
    cut-off, and by single roundings (docs/tutorial-mergekit.md). `dry_run`: imports and writes nothing, and
    returns an `ImportPlan`. Raises `InvalidInput` that names the key for what persona cannot express, for
    another base, and for a model that cannot be imported; `Refused` if `recipe.toml` has uncommitted edits.
    """
    file = Path(path)
    how = history.in_force(TakeOptions, options)
    recipe = mergekit.read(file)
    notes = list(recipe.notes)
    with changing(history) as tree:
        data, before = text_files.recipe(history, to_edit=True)
        if not dry_run:
            _refuse_edited(history, data)
        stored = history.base(before.base)
        _check_base(recipe, None if base is None else Path(base), stored)
        content = text_files.read(history.root, CONFIG)
        config = None if content is None else parsed(content)
        rules, terms, places = _terms(recipe, filters.tensor_names(stored), config, notes)
        notes += _dtype_note(recipe, stored)
        if dry_run:
            return _plan(recipe, rules, terms, places, notes)
        made = _take(history, before.base, recipe.models, places, how, notes)
        terms = [entry for entry in terms if entry.share.source.written in made]
        return _write(tree, data, rules, terms, made, notes)


def planned(path: AnyPath, base: AnyPath | None = None) -> tuple[Path, ImportPlan]:
    """The directory of the base of a mergekit YAML, and what its import would do; without a repository.

    `base` as for `import_mergekit`. Raises `InvalidInput` as that does, and if no base is named.
    """
    recipe = mergekit.read(Path(path))
    if base is None and recipe.base is None:
        raise mergekit.no_base(recipe)
    place = _base_place(recipe, None if base is None else Path(base))
    with Checkpoint.open(place) as checkpoint:
        names = [name for name, (spec, _) in checkpoint.tensors.items() if spec.merged]
        config = checkpoint.config
    notes = list(recipe.notes)
    rules, terms, places = _terms(recipe, names, config, notes)
    return place, _plan(recipe, rules, terms, places, notes)


# -- before anything is stored -------------------------------------------------------------------------------


def _refuse_edited(history: History, data: bytes) -> None:
    """`Refused` if `recipe.toml` differs from HEAD's, because the import replaces it."""
    if text_files.blob_id(data) != history.files_of(history.head_commit()).get(RECIPE_FILE):
        raise Refused(
            f"{RECIPE_FILE} has uncommitted edits, which the imported recipe would replace",
            hint=("commit first, or put it back with ", Call("restore", WorkFile(RECIPE_FILE))),
        )


def _place(recipe: MergekitRecipe, source: Source) -> Path:
    """The directory of a model, or of its adapter; also in the hub's cache.

    Raises `InvalidInput` if there is none. Downloads nothing.
    """
    written = source.adapter or source.model
    for place in mergekit.places_of(recipe.path, written):
        if place.exists():
            return place
    id = hub.id_of(Path(written))
    if id is not None and (cached := hub.cached(id)) is not None:
        return cached
    hint = "paths are relative to the file"
    if id is not None:
        hint += f"; if it is a model of the Hugging Face hub, `{hub.command(id)}` fetches it"
    raise InvalidInput(f"{recipe.path}: model: {written} is not here", hint=hint)


def _base_place(recipe: MergekitRecipe, given: Path | None) -> Path:
    """The directory of the base: the given one, else that of the recipe."""
    try:
        return hub.located(given) if given else _place(recipe, Source(recipe.base or "", None, ()))
    except InvalidInput as error:
        error.message = error.message.replace(": model: ", ": base_model: ", 1)
        error.hint = ("say where it is: ", Keyword(base=Blank("PATH")))
        raise


def _check_base(recipe: MergekitRecipe, given: Path | None, base: Base) -> None:
    """Raises `InvalidInput` if the recipe's base has other weights than the repository's."""
    if given is None and recipe.base is None:
        return
    place = _base_place(recipe, given)
    with Checkpoint.open(place) as checkpoint:
        digests = checkpoint.digests()
        specs = [spec for spec, _ in checkpoint.tensors.values()]
        digest = weights_digest((spec.name, spec.dtype, spec.shape, digests[spec.name]) for spec in specs)
    if digest != base.digest:
        raise InvalidInput(
            f"{recipe.path}: base_model: {place} has the weights {digest}, but the base of this repository"
            f" has {base.digest}; import the recipe into a repository of its own, in an empty directory"
        )


def _dtype_note(recipe: MergekitRecipe, base: Base) -> list[str]:
    """The note for a recipe whose output mergekit writes in another dtype than the base's."""
    if recipe.out_dtype is None:
        return []
    wanted = merged_dtype(recipe.out_dtype)
    if wanted and all(spec.dtype == wanted.name for spec in base.tensors if spec.merged):
        return []
    hint = wanted and (Call("checkout", out=Blank("OUT"), dtype=wanted.torch), f" writes {wanted.torch}")
    return [Note("weights have the base's dtype", hint)]


def _terms(
    recipe: MergekitRecipe, names: Sequence[str], config: Mapping[str, Any] | None, notes: list[str]
) -> tuple[Rules, list[Entry], dict[str, Path]]:
    """The merge rules, the terms, and the directory of each model.

    `names`: the tensors that are merged. `config`: the base's config.json. Raises `InvalidInput` for a
    recipe that cannot be, before the minutes that an import may take.
    """
    parts = shares(recipe, names, described=is_described(config))
    places = {source.written: _place(recipe, source) for source in recipe.models}
    for place in places.values():
        importing.opened(place).close()
    try:
        rules, terms = rules_of(recipe, parts, notes), entries(recipe, parts, places)
        Recipe.of("0" * 64, [_term(entry, "0" * 64) for entry in terms], rules)
    except InvalidInput as error:
        error.message = f"{recipe.path}: {error.message.removeprefix(f'{recipe.path}: ')}"
        raise
    return rules, terms, places


def _term(entry: Entry, id: str) -> Term:
    share = entry.share
    return Term(entry.name, id, share.alpha, entry.density, share.only, share.except_)


# -- the models ----------------------------------------------------------------------------------------------


def _take(
    history: History,
    base: str,
    models: Sequence[Source],
    places: Mapping[str, Path],
    options: TakeOptions,
    notes: list[str],
) -> dict[str, tuple[ImportedVector, int]]:
    """Stores each model as a vector: model → the vector, and the growth of the store in bytes.

    A model with the base's own weights has none.
    """
    from persona.intake.remarks import of_adapter, of_fine_tune

    given = complete(ImportOptions, cast(ImportOptions, options))
    made: dict[str, tuple[ImportedVector, int]] = {}
    for source in models:
        place = places[source.written]
        try:
            with importing.opened(place) as tuned:
                remarks = of_fine_tune(tuned) if isinstance(tuned, Checkpoint) else of_adapter(tuned)
                notes += [Note(f"{source.written}: {one}", one.hint) for one in remarks]
                vector, new_bytes = importing.take(history, base, tuned, None, given)
        except NothingChanged:
            notes.append(f"{source.written} has the base's own weights, so it adds no vector")
            continue
        importing.remember(history, base, place, vector, given, None)
        kept_names.keep(history, default_name(place), vector.id)
        notes += [f"{source.written}: {note}" for note in vector.notes]
        if isinstance(tuned, Checkpoint) and None in dict(vector.vector.grown).values():
            notes.append(f"{source.written}: no files are imported; copy its tokenizer into the work tree")
        made[source.written] = vector, new_bytes
    return made


def _write(
    tree: LockedTree,
    data: bytes,
    rules: Rules,
    terms: Sequence[Entry],
    made: Mapping[str, tuple[ImportedVector, int]],
    notes: list[str],
) -> CommitResult:
    """Puts the recipe into `recipe.toml`."""
    history = tree.history
    before = history.read_recipe(data)
    text = _text(
        decode(data), before, rules, [(entry, made[entry.share.source.written][0].id) for entry in terms]
    )
    after = history.new_recipe(text.encode(), where=None)
    back = model_files.given_back(history, [term.vector for term in before.terms], after)
    notes += back.notes
    edits: dict[str, bytes | None] = {**back.edits, RECIPE_FILE: encode(text, like=data)}
    tree.apply(edits, {**tracking.ids(history, edits), RECIPE_FILE: text_files.blob_id(data)})
    stored = {vector.id: (vector, new_bytes) for vector, new_bytes in made.values()}
    changes = [
        replace(
            change, new_bytes=stored[change.id][1], largest_rounding=stored[change.id][0].largest_rounding
        )
        if change.id in stored
        else change
        for change in vector_changes(history, before, after, {})
    ]
    head = history.head()
    parents = (head.id,) if head.id else ()
    notes += [*advice(before, after), *left_behind(history, after, before)]
    return CommitResult(None, head.branch, parents, tuple(changes), tuple(dict.fromkeys(notes)))


def _text(text: str, before: Recipe, rules: Rules, terms: Sequence[tuple[Entry, str]]) -> str:
    """The text of a recipe with other rules and terms; its comments stay."""
    from persona.history.recipes import edit

    for term in before.terms:
        text = edit.remove_term(text, term.name)
    axes: dict[str, Any] = {**dict.fromkeys(AXES, edit.UNSET), "preset": rules.preset}
    if rules.density is not None:
        axes["density"] = rules.density
    text = edit.set_rules(text, axes | rules.changed_axes())
    for entry, id in terms:
        share = entry.share
        keys: dict[str, Any] = {"id": id, "alpha": share.alpha, "density": entry.density}
        keys |= {
            key: list(value) for key, value in (("only", share.only), ("except", share.except_)) if value
        }
        text = edit.add_term(text, entry.name, keys)
    return text


def _plan(
    recipe: MergekitRecipe,
    rules: Rules,
    terms: Sequence[Entry],
    places: Mapping[str, Path],
    notes: Sequence[str],
) -> ImportPlan:
    vectors = {
        entry.name: {
            "path": str(places[entry.share.source.written]),
            "alpha": shown(entry.share.alpha),
            "density": None if entry.density is None else shown(entry.density),
            "only": entry.share.only,
            "except": entry.share.except_,
        }
        for entry in terms
    }
    axes = {axis: value for axis, value in rules.axes().items() if value is not None}
    return ImportPlan(recipe.base, {"preset": rules.preset, **axes}, vectors, tuple(notes))
