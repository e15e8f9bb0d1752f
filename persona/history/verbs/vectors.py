"""`vector ls --all`, `vector take` and `vector rm`: the vectors that recipe.toml may not name."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any, Unpack

from persona.errors import Blank, Call, Keyword, Refused, UnknownName, UnknownRevision, UsageError, quoted
from persona.frozen import dataclass
from persona.history.act_results import Removed
from persona.history.history import History, reason
from persona.history.names.revisions import resolve
from persona.history.options import TermOptions, complete
from persona.history.query_results import VectorInfo
from persona.history.recipes.checked import checked_keys
from persona.history.recipes.text import MIN_PREFIX, RECIPE_FILE
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result
from persona.history.vectors import kept_names, lookup, past
from persona.history.vectors.naming import put_term
from persona.history.vectors.trained_from import left_behind
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing
from persona.objects.recipe import Recipe, Term
from persona.store.refs import VECTORS, Change


@dataclass(frozen=True, repr=False)
class Taken(Result):
    """A term that was taken over into `recipe.toml`.

    `change`: "added"; "replaced" if the name had another vector; "changed" if only other keys differ;
    "unchanged". `commit`: the one that it was taken from. `subject` is that commit's.
    """

    name: str
    id: str
    change: str
    alpha: float | tuple[float, ...]
    commit: str
    subject: str = field(default="", metadata=UNPRINTED)
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def all_vectors(history: History) -> list[VectorInfo]:
    """The vectors of `recipe.toml`, those with only a kept name, and those of all branches and the past.

    Each stands once, in this order. One of a commit has the name that it has in the newest commit that holds
    it, which is its `commit`.
    """
    newest: dict[str, tuple[str, str]] = {}
    for term, _, commit in past.seen(history):
        newest.setdefault(term.vector, (term.name, commit))
    here = lookup.infos(history)
    found = [replace(info, commit=newest.get(info.id, (None, None))[1]) for info in here.values()]
    ids = {info.id for info in found}
    for id, (name, commit) in newest.items():
        if id not in ids:
            found.append(replace(lookup.info(history, name, id, None), commit=commit))
    return found


def take(history: History, name: str, *, from_: str | None = None, **options: Unpack[TermOptions]) -> Taken:
    """Puts a vector of another commit into `recipe.toml` as it is there: its α, density, filter and join.

    `name`: its name in that commit, or the start of its id. `from_`: a revision; by default the newest commit
    of all branches and tags that has it. If `recipe.toml` has the name, the term becomes that of `from_`. The
    options replace keys of the term. Raises `Refused` without `from_` if `recipe.toml` has the name,
    `UnknownName` if no commit has it, `InvalidInput` for a vector of another base.
    """
    given = complete(TermOptions, options)
    own = checked_keys(given["alpha"], given["density"], given["only"], given["except_"])
    with changing(history) as tree:
        recipe = text_files.recipe(history, to_edit=True).recipe
        term, commit = _found(history, name, from_, recipe)
        before = recipe.by_name.get(term.name)
        history.require_vector_of(recipe.base, term.vector)
        made, _, notes = put_term(tree, term.name, term.vector, {**_keys(term), **own})
        notes += left_behind(history, made, recipe, history.recipe_of(commit))
        kept_names.keep(history, term.name, term.vector)
        now = made.by_name[term.name]
        return Taken(
            name=now.name,
            id=now.vector,
            change=_change(before, now),
            alpha=shown(now.alpha),
            commit=commit,
            subject=history.commit(commit).subject,
            notes=tuple(dict.fromkeys(notes)),
        )


def _found(history: History, name: str, rev: str | None, recipe: Recipe) -> tuple[Term, str]:
    """The term that a name, or the start of a vector's id, means, and the commit that has it."""
    if rev is not None:
        commit = resolve(history, rev, history.notes)
        terms = history.recipe_of(commit).terms
        found = [term for term in terms if _is_named(term, name)]
        if not found:
            names = ", ".join(term.name for term in terms) or "none"
            raise UnknownName(f"{rev} has no vector named {quoted(name)}; it has: {names}")
        return found[0], commit
    if any(_is_named(term, name) for term in recipe.terms):
        raise Refused(
            f"{RECIPE_FILE} has the vector {name} already",
            hint=(Call("vectors.take", name, from_=Blank("REV")), " takes it as it is there"),
        )
    for seen in past.seen(history):
        if _is_named(seen.term, name):
            return seen.term, seen.commit
    try:
        resolve(history, name)
    except UnknownRevision:
        hint = (Call("vectors.all"), " lists the vectors of all branches")
        raise UnknownName(f"no commit has a vector named {quoted(name)}", hint=hint) from None
    raise UsageError(
        f"{name} is a revision, not a vector", hint=("name the vector, and give ", Keyword(from_=name))
    )


def _is_named(term: Term, name: str) -> bool:
    """Whether a word is the name of a term, or the start of its vector's id."""
    start = name.lower().removesuffix("…")
    return term.name == name or (len(start) >= MIN_PREFIX and term.vector.startswith(start))


def _keys(term: Term) -> dict[str, Any]:
    """The keys of a term beside its vector, as an edit of recipe.toml takes them."""
    from persona.history.recipes.edit import UNSET

    return {
        "alpha": term.alpha,
        "density": UNSET if term.density is None else term.density,
        "only": list(term.only) or UNSET,
        "except": list(term.except_) or UNSET,
        "join": UNSET if term.join == "vote" else term.join,
    }


def _change(before: Term | None, now: Term) -> str:
    if before is None:
        return "added"
    if before.vector != now.vector:
        return "replaced"
    return "unchanged" if before == now else "changed"


def forget(history: History, *names: str) -> Removed:
    """Forgets the kept names of vectors that no recipe names, all or none.

    Raises `Refused` while `recipe.toml` names one.
    """
    if not names:
        raise UsageError("name at least one vector to delete")
    recipe = text_files.recipe(history).recipe
    kept = history.store.refs.list(VECTORS)
    changes: list[Change] = []
    for name in dict.fromkeys(names):
        if name in recipe.by_name:
            raise Refused(
                f"{RECIPE_FILE} uses the vector {name}",
                hint=(Call("recipe.remove", name), " drops it from there"),
            )
        id = kept.get(VECTORS + name)
        if id is None:
            raise UnknownName(
                f"no vector is kept under the name {name}", hint=(Call("vectors.values"), " lists them")
            )
        changes.append(Change(VECTORS + name, None, id, reason(history.committer(), f"vector: rm {name}")))
    history.store.refs.update_all(changes)
    return Removed(names)
