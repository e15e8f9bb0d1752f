"""`rebase --base`: the recipe on another base of the same tensors.

Every vector of the recipe becomes a vector of the new base with the same changes, rounded once. The recipe
keeps its names, alphas, densities, filters and rules. Files that are the old base's become the new base's;
edited ones stay.
"""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from persona.errors import Blank, InvalidInput, Keyword, Refused, listed
from persona.frozen import dataclass
from persona.history import commit_checkout, note_refs
from persona.history.arguments import AnyPath
from persona.history.base_names import default_base_name
from persona.history.commit_builder import record
from persona.history.history import History, reason
from persona.history.options import WorkOptions
from persona.history.planning import plan_of
from persona.history.recipes import edit
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.results import UNPRINTED, CommitResult, Result, as_json
from persona.history.sequencing.moving import refuse_edits
from persona.history.sequencing.state import refuse_second
from persona.history.vectors import cache, model_config, model_files, trained_from
from persona.history.vectors.counting import lone_recipe
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.objects.base import Base
from persona.objects.canonical import decimal
from persona.objects.note import Note as StoredNote
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules
from persona.objects.vector import Vector
from persona.store.refs import BASES

if TYPE_CHECKING:
    from persona.intake.rebase import RebasedVector


@dataclass(frozen=True, repr=False)
class MovedVector(Result):
    """A vector on its new base. `previous`: its id on the old one.

    `largest_rounding`: the largest difference between its fine-tune and the sum of the new base and the
    vector's changes; 0 for an adapter whose factors stay.
    """

    name: str
    id: str
    previous: str
    kind: str
    largest_rounding: float


@dataclass(frozen=True, repr=False)
class BaseMove(Result):
    """A recipe that was moved onto another base, and its commit.

    `base` and `previous_base`: the ids of the new and the old one. `largest_rounding`: of all vectors.
    """

    commit: CommitResult
    base: str
    base_name: str
    previous_base: str
    moved: tuple[MovedVector, ...]
    largest_rounding: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)

    def to_json(self) -> dict[str, Any]:
        """The keys of the commit, and those of the move."""
        found: dict[str, Any] = as_json(self.commit)
        own = ("base", "base_name", "previous_base", "moved", "largest_rounding")
        return found | {name: getattr(self, name) for name in own}


def rebase_base(
    history: History,
    base: AnyPath,
    *,
    name: str | None = None,
    message: str | None = None,
    **options: Unpack[WorkOptions],
) -> BaseMove:
    """Moves the recipe onto another base of the same tensors, in a new commit.

    `base`: a model directory, a model of the hub, or the name of a base that the repository has. `name`: the
    name of the new base, by default its directory's. For each vector with fine-tune f on base b, the new one
    has f' = round(b' + (f − b)), and b' where f is b; the factors of an adapter stay. New vectors have notes
    on the old ones. Raises `InvalidInput` for a base with other tensors, dtypes or shapes, and `Refused` for
    uncommitted edits, or if the base has the weights of the old one. The setting `commit.checkout` applies as
    for `commit`.
    """
    how = history.in_force(WorkOptions, options)
    wanted = commit_checkout.wanted(history)
    known = history.store.refs.read(BASES + str(base)) if _is_name(history, base) else None
    place = None
    if known is None:
        from persona.weights.checkpoint import Checkpoint
        from persona.weights.hub import located

        place = located(Path(base), how["progress"])
        with Checkpoint.open(place):  # a path that is not there gives no name either
            pass
    with changing(history) as tree:
        refuse_second(history, "rebase")
        refuse_edits(history, "rebase")
        if name is None:
            name = str(base) if place is None else default_base_name(place)
        moved = _move(tree, known, place, name, message, how)
    return replace(moved, commit=commit_checkout.at_once(history, moved.commit, wanted))


def _is_name(history: History, base: AnyPath) -> bool:
    """Whether a text is the name of a base that the repository has."""
    return isinstance(base, str) and BASES + base in history.store.refs.names(BASES)


def _move(
    tree: LockedTree,
    known: str | None,
    place: Path | None,
    name: str,
    message: str | None,
    how: WorkOptions,
) -> BaseMove:
    history = tree.history
    head = history.head_commit()
    data, recipe = text_files.recipe(history, to_edit=True)
    old = history.base(recipe.base)
    id = known if place is None else _import(history, place, old, name, how)
    assert id is not None
    new = history.base(id)
    _check(history, old, new, name, id)
    made = _rebased(history, recipe, id, how)
    if history.store.refs.read(BASES + name) is None:
        why = reason(history.committer(), f"rebase: {name}")
        history.store.refs.update(BASES + name, id, why, expect=None)
    for previous, vector in made.items():
        _remember(history, previous, vector, old, new)
    ids = {previous: vector.id for previous, vector in made.items()}
    after = Recipe.of(id, [replace(term, vector=ids[term.vector]) for term in recipe.terms], recipe.rules)
    text = edit.set_base(decode(data), name)
    for term in recipe.terms:
        text = edit.set_term(text, term.name, {"id": ids[term.vector]})
    edits, notes = _files(history, head, name, recipe, after)
    model_files.carry_over(history, ids, new, edits)
    trained_from.carry_over(history, ids)
    edits[RECIPE_FILE] = encode(text, like=data)
    said = message if message is not None else f"Move to the base {name}\n"
    largest = max((vector.largest_rounding for vector in made.values()), default=0.0)
    commit = record(tree, history.author(), said, verb="rebase (base)", edits=edits, notes=tuple(notes))
    return BaseMove(
        commit=commit,
        base=id,
        base_name=name,
        previous_base=recipe.base,
        moved=tuple(
            MovedVector(
                term.name,
                made[term.vector].id,
                term.vector,
                made[term.vector].kind,
                made[term.vector].largest_rounding,
            )
            for term in recipe.terms
        ),
        largest_rounding=largest,
        notes=commit.notes,
    )


def _import(history: History, place: Path, old: Base, name: str, how: WorkOptions) -> str:
    """Stores a model directory as a base in chunks as long as the old one's; returns its id."""
    from persona.intake.encode import import_base
    from persona.intake.payloads import Payloads
    from persona.intake.rebase import check_same_specs
    from persona.weights.checkpoint import Checkpoint

    with Checkpoint.open(place) as checkpoint:
        specs = {tensor: spec for tensor, (spec, _) in checkpoint.tensors.items()}
        check_same_specs(old.spec, specs, str(place))  # before minutes of work
        contents = {path: checkpoint.read_text(path) for path in checkpoint.text_files if path != RECIPE_FILE}
        with history.store.transaction(Payloads(history.store.objects).of) as tx:
            blobs = {path: tx.put("blob", content) for path, content in contents.items()}
            _, id = import_base(
                tx, checkpoint, blobs, chunk=old.chunk, threads=how["threads"], progress=how["progress"]
            )
            checkpoint.check_unchanged()
    return id


def _check(history: History, old: Base, new: Base, name: str, id: str) -> None:
    """Raises an error unless the recipe can move from one base to the other."""
    from persona.intake.rebase import check_same_specs

    check_same_specs(old.spec, new.spec, name)
    if old.digest == new.digest:
        raise Refused(f"{name} has the weights of this recipe's base already")
    if old.chunk != new.chunk:
        raise InvalidInput(f"{name} is stored in chunks of another length; give the directory of the model")
    held = history.store.refs.read(BASES + name)
    if held not in (None, id):
        raise Refused(
            f"another base is named {name}",
            hint=("give the new one a name of its own with ", Keyword(name=Blank("NAME"))),
        )


def _rebased(history: History, recipe: Recipe, base: str, how: WorkOptions) -> dict[str, RebasedVector]:
    """The vectors of a recipe on another base, by their old ids; those of its expressions too."""
    from persona.intake.payloads import Payloads
    from persona.intake.rebase import RebasedVector, rebase_vector

    names = {term.vector: term.name for term in recipe.terms}
    found: dict[str, RebasedVector] = {}
    new, rules = history.base(base), Rules.of("ties")
    before = plan_of(history, Recipe.of(recipe.base, (), rules))
    vectors = {id: history.vector(id) for id in names}
    parts = {part: names[id] for id, vector in vectors.items() for part, _ in vector.expression}
    with history.store.transaction(Payloads(history.store.objects).of) as tx:
        for id, name in {**parts, **names}.items():
            vector = history.vector(id)
            if vector.kind != "expression":
                found[id] = rebase_vector(
                    history.store,
                    tx,
                    vector,
                    name,
                    plan_of(history, lone_recipe(id, recipe.base, rules)),
                    before,
                    new,
                    threads=how["threads"],
                    memory=history.memory(),
                    progress=how["progress"],
                )
        for id, vector in vectors.items():
            if vector.kind == "expression":
                terms = sorted((found[part].id, coefficient) for part, coefficient in vector.expression)
                made = tx.put("vector", Vector(new.digest, "expression", expression=tuple(terms)).encode())
                rounding = max(found[part].largest_rounding for part, _ in vector.expression)
                found[id] = RebasedVector(made, "expression", rounding, None)
    return found


def _remember(history: History, previous: str, vector: RebasedVector, old: Base, new: Base) -> None:
    """Keeps a note on a vector's origin, the path that it came from, and its counts."""
    if (place := cache.known_origin(history, previous)) is not None:
        cache.remember_origin(history, vector.id, place)
    if vector.changed_fraction is not None:
        cache.remember(history, vector.id, vector.changed_fraction)
    facts = {
        "rebased": previous,
        "from_base": old.digest,
        "to_base": new.digest,
        "largest_rounding": decimal(vector.largest_rounding),
    }
    note_refs.keep(history, StoredNote(vector.id, "vector", "provenance", facts))


def _files(
    history: History, head: str, name: str, recipe: Recipe, after: Recipe
) -> tuple[dict[str, bytes | None], list[str]]:
    """The new contents of files that are the old base's, and sentences on other files of the new base.

    `after`: the recipe on the new base, which is called `name`. Of config.json, the keys are the old base's.
    """
    old, new = (history.base(each.base) for each in (recipe, after))
    files, origins = history.files_of(head), model_files.Origins(history)
    edits: dict[str, bytes | None] = {}
    edited: list[str] = []
    brought: list[str] = []
    for path in sorted({*old.files, *new.files}):
        before, there, here = old.files.get(path), new.files.get(path), files.get(path)
        if before == there or here == there:
            continue
        moved = None
        if path == model_config.CONFIG and here is not None:
            content = history.blob(here)
            moved = model_config.on_another_base(history, content, (old, new), history.base_of(after))
        if moved is not None:
            edits[path] = moved[0]
            edited += [f"{key} of {path}" for key in moved[1]]
        elif here == before:
            edits[path] = None if there is None else history.blob(there)
        elif here is not None and origins.brought(path, here, [term.vector for term in recipe.terms]):
            brought.append(path)
        else:
            edited.append(path)
    notes = []
    if edited:
        notes.append(f"edited here, and different in {name}; kept as edited: {listed(edited)}")
    if brought:
        notes.append(f"came with a vector, and another file in {name}; kept: {listed(brought)}")
    return edits, notes
