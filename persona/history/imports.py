"""Checkpoints into the repository: the base that `init` takes, and the vector that `add` and `commit PATH`
take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persona.errors import InvalidInput, Refused, UsageError
from persona.history import worktree
from persona.history.history import BASES, History, signature
from persona.history.recipe_text import RECIPE_FILE, decode, first_text, line_of
from persona.history.results import CommitResult, VectorChange
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.objects.commit import Commit, Person
from persona.objects.names import check_ref_name, check_vector_name
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules, check_density, check_strength
from persona.objects.tree import Tree
from persona.store.files import remove_tree
from persona.store.store import Store
from persona.weights.checkpoint import Checkpoint
from persona.weights.inputs import read_input

if TYPE_CHECKING:
    from persona.history.results import Progress
    from persona.merge.intake import ImportedVector
    from persona.merge.plan import Plan


@dataclass(frozen=True)
class Options:
    """How a fine-tune is taken in; see `Repository.add`."""

    name: str | None = None
    alpha: str | float | None = None
    density: str | float | None = None
    only: Sequence[str] | None = None
    except_: Sequence[str] | None = None
    onto: str | None = None
    missing: Literal["refuse", "zero"] = "refuse"
    extra: Literal["refuse", "ignore"] = "refuse"
    cast: bool = False
    files: bool = False
    threads: int | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Added:
    """A vector that was imported and named in `recipe.toml`."""

    change: VectorChange
    notes: tuple[str, ...]


# -- a vector ----------------------------------------------------------------------------------------------


def add(history: History, path: Path, options: Options) -> Added:
    """Imports the checkpoint at `path` as a vector and names it in `recipe.toml`. The caller holds the work
    tree's lock.

    Nothing in the work tree changes unless all of it can be done.
    """
    from persona.merge.intake import import_vector

    data = worktree.read_recipe_text(history.root)
    text = decode(data)
    recipe = history.read_recipe(data)
    base = history.base(recipe.base)
    inside = path.resolve() == history.root.resolve() or path.resolve().parent == history.root.resolve()
    if inside and (options.onto is None or options.name is None):
        raise UsageError(
            f"{path} is the work tree itself: say which revision it was trained from with --onto REV,"
            " and name the vector with -n NAME"
        )
    name = options.name if options.name is not None else default_name(path)
    check_vector_name(name)
    keys = checked_keys(text, name, options)
    onto = _onto(history, recipe, options.onto)
    if onto is not None:
        keys["join"] = "add"
    with Checkpoint.open(path) as checkpoint:
        with history.store.objects.transaction() as tx:
            made = import_vector(
                history.store,
                tx,
                base,
                checkpoint,
                missing=options.missing,
                extra=options.extra,
                cast=options.cast,
                onto=onto,
                threads=options.threads,
                progress=options.progress,
            )
        differing = {} if inside else _differing_files(history, checkpoint)
    keys = {"id": made.id, **keys}
    old = recipe.by_name.get(name)
    from persona.history import recipe_edit, vectors

    if old is not None:
        text = recipe_edit.set_term(text, name, keys)
    else:
        text = recipe_edit.add_term(text, name, {**keys, "alpha": keys.get("alpha") or "1"})
    recipe = history.read_recipe(text.encode())
    vectors.remember(history, made.id, made.changed_fraction)
    change = _change(history, recipe, name, made, old.vector if old else None, options)
    if options.files:
        for file, content in differing.items():
            worktree.write(history, file, content)
    worktree.write(history, RECIPE_FILE, text.encode())
    return Added(change, (*made.notes, *_file_notes(differing, options.files)))


def refuse_without_path(options: Options) -> None:
    """`UsageError` for options of an import where nothing is imported."""
    plain = Options(threads=options.threads, progress=options.progress)
    if options != plain:
        given = [
            field.name.rstrip("_")
            for field in fields(Options)
            if getattr(options, field.name) != getattr(plain, field.name)
        ]
        raise UsageError(
            f"{', '.join(given)}: only with a PATH to import; `persona set` edits what is in {RECIPE_FILE}"
        )


def default_name(path: Path) -> str:
    """PATH's last part, its parent's for `checkpoint-N`; a weights file's own name, its directory's for
    `model…`.
    """
    place = path.absolute()
    part = place.name or place.parent.name
    if part.endswith((".safetensors", ".safetensors.index.json")) and not place.is_dir():
        part = part.removesuffix(".index.json").removesuffix(".safetensors")
        if re.fullmatch(r"model(-\d+-of-\d+)?", part):
            place = place.parent
            part = place.name
    if re.fullmatch(r"checkpoint-\d+", part):
        part = place.parent.name
    try:
        return check_vector_name(part)
    except InvalidInput:
        raise UsageError(f"{path} gives no name for the vector; name it with -n NAME") from None


def checked_keys(text: str, name: str, options: Options) -> dict[str, Any]:
    """The keys of a term that options set, as canonical decimals; `InvalidInput` names the term's line."""
    keys: dict[str, Any] = {}
    for key, value, check in (
        ("alpha", options.alpha, check_strength),
        ("density", options.density, check_density),
    ):
        if value is not None:
            keys[key] = checked(
                text, ("vectors", name, key), lambda value=value, check=check: check(value, "")
            )
    if options.only is not None:
        keys["only"] = list(options.only)
    if options.except_ is not None:
        keys["except"] = list(options.except_)
    for key in ("only", "except"):
        if any(not pattern for pattern in keys.get(key, ())):
            raise InvalidInput(f"vectors.{name}.{key}: a tensor filter cannot be empty")
    return keys


def checked(text: str, path: tuple[str, ...], check: Any) -> Any:
    """The result of `check`; its `InvalidInput` gets the line of `path` in the recipe text, where the text
    has it.
    """
    try:
        return check()
    except InvalidInput as error:
        shown = ".".join(path)
        raise InvalidInput(
            f"{RECIPE_FILE}:{line_of(text, path)}: {shown}: {error.message.removeprefix(': ')}"
        ) from None


def _onto(history: History, recipe: Recipe, rev: str | None) -> Plan | None:
    """The plan of the revision that a checkpoint was trained from; None for the base."""
    if rev is None or rev == "base":
        return None
    from persona.history.materials import plan_of
    from persona.history.revisions import resolve

    onto = history.recipe_of(resolve(history, rev))
    if history.base(onto.base).digest != history.base(recipe.base).digest:
        raise InvalidInput(f"--onto {rev}: that revision has another base than {RECIPE_FILE}")
    return plan_of(history, onto)


def _change(
    history: History, recipe: Recipe, name: str, made: ImportedVector, previous: str | None, options: Options
) -> VectorChange:
    term = recipe.by_name[name]
    density = float(term.density or recipe.rules.density or "1")
    kept: float | None = made.changed_fraction
    if recipe.rules.trim == "joint":
        kept = None
    elif density != 1 and recipe.rules.trim != "none" and term.join == "vote":
        kept = _kept_fraction(history, recipe, made.id, density, options)
    return VectorChange(
        name=name,
        id=made.id,
        change="added" if previous is None else "replaced",
        alpha=float(term.alpha),
        stored_bytes=made.stored_bytes,
        raw_bytes=made.raw_bytes,
        changed_fraction=made.changed_fraction,
        kept_fraction=kept,
        largest_rounding=made.largest_rounding,
        previous=previous,
        density=density,
    )


def _kept_fraction(history: History, recipe: Recipe, id: str, density: float, options: Options) -> float:
    from persona.history.materials import plan_of
    from persona.merge.cutoffs import kept_fraction
    from persona.merge.pipeline import thread_count

    plan = plan_of(history, recipe)
    return kept_fraction(plan, id, density, threads=thread_count(options.threads), progress=options.progress)


def _differing_files(history: History, checkpoint: Checkpoint) -> dict[str, bytes]:
    """The model files of a checkpoint that differ from the work tree's."""
    found: dict[str, bytes] = {}
    for name, place in checkpoint.text_files.items():
        if worktree.is_model_file(name):
            content = read_input(place, limit=MAX_TEXT_FILE_BYTES)
            if worktree.read(history.root, name) != content:
                found[name] = content
    return found


def _file_notes(differing: dict[str, bytes], taken: bool) -> tuple[str, ...]:
    if not differing:
        return ()
    names = ", ".join(differing)
    return (
        (f"taken along: {names}",)
        if taken
        else (f"left behind, though they differ: {names} (--files takes them)",)
    )


# -- a base ------------------------------------------------------------------------------------------------


def init(
    root: Path,
    base: Path | None,
    name: str | None,
    person: Person,
    *,
    chunk: int,
    threads: int | None,
    progress: Progress | None,
) -> CommitResult:
    """See `Repository.init`."""
    in_place = base is None
    source = root if base is None else base
    if in_place and not source.is_dir():
        raise InvalidInput(f"{source} is no model directory; say which model to begin with: --base PATH")
    base_name = check_ref_name(name) if name is not None else default_base_name(source)
    with Checkpoint.open(source) as checkpoint:
        store, made_now = _fresh_store(root)
        from persona.history.config import Config

        history = History(store, Config(store.config_path))
        try:
            with store.shared(), store.worktree_lock():
                return _first_commit(
                    history,
                    checkpoint,
                    base_name,
                    person,
                    in_place,
                    chunk=chunk,
                    threads=threads,
                    progress=progress,
                )
        except BaseException:
            if made_now and store.refs.head_id() is None:
                remove_tree(store.root)
            raise


def default_base_name(path: Path) -> str:
    """The base's name from its directory's (a file's parent's), with what no ref may hold made a dash."""
    place = path.absolute()
    if not place.is_dir():
        place = place.parent
    name = re.sub(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{", "-", place.name).strip(".-")
    try:
        return check_ref_name(name)
    except InvalidInput:
        raise UsageError(f"{path} gives no name for the base; name it with --name NAME") from None


def _fresh_store(root: Path) -> tuple[Store, bool]:
    """A new store, or one whose init was cut short before its first commit."""
    try:
        return Store.create(root), True
    except Refused:
        store = Store.open(root)
        if store.refs.head_id() is not None or store.refs.list():
            raise Refused(f"{root} is a persona repository already") from None
        return store, False


def _first_commit(
    history: History,
    checkpoint: Checkpoint,
    name: str,
    person: Person,
    in_place: bool,
    *,
    chunk: int,
    threads: int | None,
    progress: Progress | None,
) -> CommitResult:
    from persona.history import weights_state
    from persona.merge.intake import import_base

    contents = {
        path: read_input(place, limit=MAX_TEXT_FILE_BYTES)
        for path, place in checkpoint.text_files.items()
        if path != RECIPE_FILE
    }
    if not in_place:
        _refuse_overwriting(history.root, {**contents, RECIPE_FILE: b""})
    text = first_text(name).encode()
    with history.store.objects.transaction() as tx:
        blobs = {path: tx.put("blob", content) for path, content in contents.items()}
        base, base_id = import_base(tx, checkpoint, blobs, chunk=chunk, threads=threads, progress=progress)
        recipe = Recipe.of(base_id, (), Rules.of("ties", density="1"))
        tree = Tree(tx.put("recipe", recipe.encode()), {RECIPE_FILE: tx.put("blob", text)})
        message = f"Begin with {name}\n"
        id = tx.put("commit", Commit(tx.put("tree", tree.encode()), (), person, person, message).encode())
    for path, content in {} if in_place else contents.items():
        worktree.write(history, path, content)
    worktree.write(history, RECIPE_FILE, text)
    who, when = signature(person)
    history.store.refs.update(BASES + name, base_id, expect=None, who=who, when=when, why=f"init: {name}")
    history.store.refs.advance(
        id, expect=None, who=who, when=when, why=f"commit (initial): Begin with {name}"
    )
    if in_place:
        weights_state.settle(history, recipe, id, base.digest)
    notes = tuple(f"left behind: {path} ({why})" for path, why in sorted(checkpoint.ignored.items()))
    return CommitResult(
        id=id, branch=history.head().branch, parents=(), vectors=(), notes=notes, subject=f"Begin with {name}"
    )


def _refuse_overwriting(root: Path, contents: dict[str, bytes]) -> None:
    """`Refused` where the new work tree holds other files under the names of the base's."""
    for path, content in contents.items():
        place = root / path
        if (place.exists() or place.is_symlink()) and worktree.read(root, path) != content:
            raise Refused(f"{place} is in the way; move it, or make the repository in an empty directory")
