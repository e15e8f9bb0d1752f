"""A checkpoint into the repository as a vector, for `add` and `commit PATH`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.errors import (
    Call,
    InvalidInput,
    Note,
    NothingChanged,
    PersonaError,
    Refused,
    pieces,
)
from persona.frozen import dataclass
from persona.history import note_refs
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.recipes import filters, joining
from persona.history.recipes.checked import checked_keys
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.results import VectorChange
from persona.history.vectors import growing, model_config, places
from persona.history.vectors.changes import change_of
from persona.history.worktree import in_place, text_files, tracking, weights
from persona.history.worktree.locked import LockedTree
from persona.intake.payloads import Payloads
from persona.objects.base import Base
from persona.objects.names import check_vector_name
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from persona.store.refs import BASES, NoteList
from persona.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from persona.intake.encode import ImportedVector
    from persona.intake.parts import Held
    from persona.merge.plan import Plan
    from persona.weights.adapters import Adapter


@dataclass(frozen=True)
class Added:
    """A vector that was imported and named in `recipe.toml`."""

    change: VectorChange
    notes: tuple[str, ...]
    held: Mapping[str, Held] = field(default_factory=dict)
    """The tensors of a checkpoint by the base's names; empty for an adapter."""
    onto: Plan | None = None
    """Of the revision that it was trained from."""


def add(tree: LockedTree, path: Path, options: ImportOptions, *, keep: bool = True) -> Added:
    """Imports the checkpoint at `path` as a vector and names it in `recipe.toml`.

    The caller holds the work tree lock. The import may take minutes; the edit is made in `recipe.toml` as it
    is afterwards. Nothing in the work tree changes unless everything can be done. If a vector was imported
    but could not be named, it keeps a kept name. `keep`: the vector has a kept name until a commit holds it.
    """
    from persona.history.vectors import kept_names, lookup, model_config, model_files, patched, trained_from
    from persona.intake.remarks import of_adapter, of_fine_tune, why_nothing_changed

    history = tree.history
    recipe = text_files.recipe(history, to_edit=True).recipe
    base = history.base(recipe.base)
    inside = in_place.is_work_tree(history, path)
    if inside:
        in_place.check(tree, path, recipe.base, options["onto"], options["name"])
    with opened(path) as checkpoint:
        if options["files"] and not isinstance(checkpoint, Checkpoint):
            raise InvalidInput("an adapter brings no files of a model", parameter="files")
        name = options["name"] if options["name"] is not None else places.default_name(path)
        check_vector_name(name)
        keys = checked_keys(options["alpha"], options["density"], options["only"], options["except_"])
        _refuse_filter(keys, growing.base_of(history, recipe), base.tied if options["untie"] else ())
        old = recipe.by_name.get(name)
        if old is not None and options["name"] is None and not options["replace"]:
            places.refuse_another(history, path, name, old.vector)
        if old is None and options["name"] is None:
            places.refuse_again(history, path, name, recipe)
        onto_notes: list[str] = []
        onto, has_all = _onto(history, recipe, name, options["onto"], onto_notes)
        onto_notes += patched.of_start(history, recipe, checkpoint, onto)
        if onto is not None:
            keys["join"] = "add"
        elif old is not None:
            onto_notes += trained_from.rejoined(history, recipe, old, keys)
        options = growing.as_onto(checkpoint, onto, options)
        brought, remarks = dict[str, bytes](), list[Note]()
        if not inside and isinstance(checkpoint, Checkpoint):
            brought, remarks = model_files.of_checkpoint(checkpoint, base), of_fine_tune(checkpoint)
        elif not inside and not isinstance(checkpoint, Checkpoint):
            remarks = of_adapter(checkpoint)
        brought = growing.own_files(history, without(recipe, name), brought)
        again = model_files.unedited(history, old.vector) if old is not None else set[str]()
        differing = model_files.differing(history, brought)
        if onto is None:
            growing.refuse_other(history, recipe, name, checkpoint, options)
        texts = growing.files(differing, options, None, again)
        seen = model_files.replaceable(history, texts, asked=options["files"])
        _check_extra(checkpoint, options)
        try:
            made, new_bytes = take(history, recipe.base, checkpoint, onto, options)
        except NothingChanged as error:
            error.hint = why_nothing_changed(checkpoint) if isinstance(checkpoint, Checkpoint) else None
            raise
        trained = checkpoint.weights_seen
    try:
        remember(history, recipe.base, path, made, options, onto)
        texts = growing.files(differing, options, made.vector, again)
        if made.vector.grown and (inside or not isinstance(checkpoint, Checkpoint)):
            brought = model_files.here(history)  # its rows need them, too
        came = growing.files(brought, options, made.vector, again)
        change, after, back = _write_recipe(
            tree, name, old, made, keys, new_bytes, texts, seen, options, stay=came
        )
        if came:
            model_files.remember(history, made.id, base, came, texts)
    except PersonaError as error:
        kept = kept_names.keep(history, name, made.id)
        if kept is not None:
            error.message += f"; the vector is kept as {kept}"
            error.hint = (
                *pieces(error.hint),
                Call("vectors.values"),
                " lists it; importing it again is quick",
            )
        raise
    if keep:
        kept_names.keep(history, name, made.id)
    taken = inside and weights.take(tree, (made.id, name), trained, options["progress"], options["threads"])
    in_place_notes = (in_place.taken_note(after, name, has_all),) if taken else ()
    twice = filters.twice(after, history.base(after.base), {name})
    notes = (
        *onto_notes,
        *remarks,
        *made.notes,
        *in_place_notes,
        *trained_from.left_behind(history, after, recipe),
        *twice,
        *joining.notes(recipe, after, name),
        *growing.without_tokenizer(made.vector, came),
        *growing.other_tokens(history, after, name, texts),
        *lookup.without_effect(history, [after.by_name[name]], None),
        *model_files.notes(history, differing, texts),
        *back,
        *model_config.of_another_model(history, base, texts.get(model_config.CONFIG)),
    )
    return Added(change, notes, made.held, onto)


def take(
    history: History, base: str, checkpoint: Checkpoint | Adapter, onto: Plan | None, options: ImportOptions
) -> tuple[ImportedVector, int]:
    """Stores a fine-tune as a vector of the base of that id; also returns the growth of the store in bytes.

    No name leads to the vector yet. The factors of an adapter are stored as they are, whatever it is onto.
    """
    from persona.intake.remarks import explain_quantised, refuse_quantised

    refs = history.store.refs
    if isinstance(checkpoint, Checkpoint):
        from persona.history.vectors.patched import whole

        checkpoint = whole(history, base, checkpoint, onto, options)
        if not checkpoint.partial:
            refuse_quantised(checkpoint, history.base(base))
    with history.store.transaction(Payloads(history.store.objects).of) as tx:
        if isinstance(checkpoint, Checkpoint):
            from persona.intake.encode import import_vector

            made = import_vector(
                history.store,
                tx,
                history.base(base),
                checkpoint,
                missing=options["missing"],
                extra=options["extra"],
                leave=options["leave"],
                rename=options["rename"],
                cast=options["cast"],
                extend_vocab=options["extend_vocab"],
                untie=options["untie"],
                onto=onto,
                threads=options["threads"],
                memory=history.memory(),
                progress=options["progress"],
            )
        else:
            from persona.intake.adapter import import_adapter

            names = [ref.removeprefix(BASES) for ref, id in refs.list(BASES).items() if id == base]
            try:
                made = import_adapter(
                    history.store,
                    tx,
                    history.base(base),
                    checkpoint,
                    extend_vocab=options["extend_vocab"],
                    untie=options["untie"],
                    leave=options["leave"],
                    base_names=names,
                    cast=options["cast"],
                    onto=onto,
                    threads=options["threads"],
                    memory=history.memory(),
                    progress=options["progress"],
                )
            except InvalidInput as error:
                explain_quantised(error, history.base(base))
                raise
        checkpoint.check_unchanged()
        return made, tx.new_bytes


def opened(path: Path) -> Checkpoint | Adapter:
    """Opens a fine-tune: an adapter, or else a checkpoint."""
    from persona.weights.adapters import Adapter, is_adapter

    return Adapter.open(path) if is_adapter(path) else Checkpoint.open(path)


def remember(
    history: History,
    base: str,
    path: Path,
    made: ImportedVector,
    options: ImportOptions,
    onto: Plan | None,
) -> None:
    """Keeps what an import found: the changed fraction, where the vector comes from, and the cut-offs."""
    from persona.history.vectors import cache, trained_from

    cache.remember_origin(history, made.id, places.origin(path))
    if onto is not None:
        trained_from.remember(history, made.id, onto)
    if made.renamed:
        from persona.objects.note import Note as StoredNote

        about = StoredNote(made.id, "vector", "provenance", {"renamed": dict(made.renamed)})
        note_refs.keep(history, about)
    if made.changed_fraction is not None:
        cache.remember(history, made.id, made.changed_fraction)
    if made.vector.kind == "delta":  # those of an adapter are found when they are first needed
        _find_cutoffs(history, base, made, options)


def _write_recipe(
    tree: LockedTree,
    name: str,
    replaced: Term | None,
    made: ImportedVector,
    keys: dict[str, Any],
    new_bytes: int,
    texts: Mapping[str, bytes],
    seen: Mapping[str, str],
    options: ImportOptions,
    *,
    stay: Collection[str],
) -> tuple[VectorChange, Recipe, list[str]]:
    """Names a vector in `recipe.toml` and writes its text files; returns the new recipe.

    The vector takes the place of the term `replaced`, whose files go, but for those named in `stay`. Also
    returns sentences on them.
    """
    from persona.history.recipes import edit
    from persona.history.vectors.model_files import GivenBack, given_back

    history = tree.history
    keys = {"id": made.id, **keys}
    while True:
        data, before = text_files.recipe(history, to_edit=True)  # the import took its time
        text = decode(data)
        old = before.by_name.get(name)
        if old is None:
            text = edit.add_term(text, name, joining.new_term(before.rules, keys))
        elif replaced is not None and old.vector == replaced.vector:
            text = edit.set_term(text, name, keys)
        else:
            raise Refused(
                f"{RECIPE_FILE} was edited meanwhile and has another vector {name}; run the command again"
            )
        recipe = history.new_recipe(text.encode(), where=None)
        change = change_of(history, recipe, name, made, new_bytes, old.vector if old else None, options)
        if text_files.read_recipe_text(history.root) == data:  # counting kept elements takes time, too
            break
    back = GivenBack({}, [])
    if old is not None:
        back = given_back(history, [old.vector], recipe, taken=stay)
    edits: dict[str, bytes | None] = {**back.edits, **texts, RECIPE_FILE: encode(text, like=data)}
    tree.track([path for path in texts if not tracking.is_model_file(path)])  # those of subdirectories
    seen = {**seen, RECIPE_FILE: text_files.blob_id(data)}
    grows = bool(made.vector.grown) or (old is not None and growing.grew(history, old.vector))
    more = model_config.edit_of(history, edits, recipe, grows=grows)
    here = tracking.ids(history, [path for path in (*back.edits, *more) if path not in seen])
    tree.apply(edits | more, {**here, **seen})
    return change, recipe, back.notes


def without(recipe: Recipe, name: str) -> Recipe:
    """A recipe without the term of that name."""
    return Recipe.of(recipe.base, [term for term in recipe.terms if term.name != name], recipe.rules)


def _refuse_filter(keys: Mapping[str, Any], base: Base, more: Iterable[str]) -> None:
    """`InvalidInput` for a filter that reaches nothing, before the minutes that an import may take.

    Also for a list over layers if the base has no layers. `more`: tensors that the import may add.
    """
    only, except_ = (keys[key] if isinstance(keys.get(key), list) else () for key in ("only", "except"))
    alpha, density = (keys[key] if isinstance(keys.get(key), tuple) else "1" for key in ("alpha", "density"))
    term = Term("", "", alpha, density, tuple(only), tuple(except_))
    found = filters.problem(term, [*filters.tensor_names(base), *more]) if only or except_ else None
    if found is None and term.in_layers:
        found = filters.without_layers(term, base)
    if found is not None:
        raise InvalidInput(found[1], parameter="except_" if found[0] == "except" else found[0])


def _check_extra(checkpoint: Checkpoint | Adapter, options: ImportOptions) -> None:
    """`InvalidInput` for a glob of extra tensors that the checkpoint does not have."""
    if options["extra"] != "refuse" and isinstance(checkpoint, Checkpoint):
        from persona.intake.choices import check_globs

        whole = (name.removesuffix(".indices").removesuffix(".values") for name in checkpoint.tensors)
        check_globs(options["extra"], dict.fromkeys(whole), "extra")  # a sparse patch has parts of tensors


def _onto(
    history: History, recipe: Recipe, name: str, rev: str | None, notes: NoteList
) -> tuple[Plan | None, bool]:
    """The plan of the revision that the vector `name` was trained from; None for the base.

    Also returns whether the recipe gives the weights of the revision.
    """
    if rev is None or rev == "base":
        return None, True
    from persona.history.vectors import onto, trained_from

    before = onto.plan_before(history, recipe, rev, notes)
    onto.refuse_replacing(recipe, name, before.recipe, rev)
    said = trained_from.unlike(history, recipe, before, rev)
    for each in said:
        notes.append(each)
    return before, not said


def _find_cutoffs(history: History, base: str, made: ImportedVector, options: ImportOptions) -> None:
    """Finds the cut-offs of a new vector once, for every density that checkouts usually ask for."""
    from persona.cores import thread_count
    from persona.history.planning import plan_of
    from persona.merge.trim.cutoffs import prepare

    alone = Recipe.of(base, [Term("vector", made.id)], Rules.of())
    threads = thread_count(options["threads"])
    prepare(plan_of(history, alone), made.id, made.magnitudes, threads=threads, progress=options["progress"])
