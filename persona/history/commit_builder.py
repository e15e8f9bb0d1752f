"""A commit from a tree and its parents; and recording the work tree, which also moves HEAD.

A tree holds the recipe in canonical form and as text, and the files that differ from the base's. Building a
tree or a commit changes neither the work tree nor a ref.

Order of writes of `record`: objects, then the ref through HEAD by compare-and-swap. Nothing else changes,
except for the edits of a `revert`: they are written to the work tree after the objects and before the ref. If
the ref then does not move, they are taken back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from persona.errors import (
    Blank,
    Call,
    InvalidInput,
    Keyword,
    Note,
    Refused,
    UsageError,
    WorkFile,
    listed,
    pieces,
)
from persona.history.history import History
from persona.history.recipes import filters
from persona.history.recipes.pairing import same_terms
from persona.history.recipes.text import RECIPE_FILE, decode, encode, written_ids
from persona.history.recipes.views import shown
from persona.history.results import CommitResult, KeptFraction, VectorChange
from persona.history.vectors import cache, kept_names, lookup, trained_from
from persona.history.vectors.trimmed import density_of, kept_fraction, kept_terms
from persona.history.worktree import in_place, text_files, tracking, weights
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import NO_MOVE, FileMove
from persona.history.worktree.tracking import Tracked
from persona.objects.base import Base
from persona.objects.commit import Commit, Person, subject
from persona.objects.ids import is_id
from persona.objects.names import path_clash
from persona.objects.recipe import Recipe, Term, values
from persona.objects.rules import MAX_SEED
from persona.objects.tree import Tree
from persona.store.transaction import Transaction

if TYPE_CHECKING:
    from persona.history.recipes.three_way import Side

NO_EDITS: Final[Mapping[str, bytes | None]] = {}
MAX_LISTED: Final = 5
NOTHING = "nothing to commit: recipe.toml and the text files are as in HEAD"


def record(
    tree: LockedTree,
    author: Person,
    message: str | None,
    *,
    amend: bool = False,
    reset_author: bool = False,
    allow_empty: bool = False,
    imported: Mapping[str, VectorChange] | None = None,
    notes: tuple[str, ...] = (),
    verb: str = "commit",
    edits: Mapping[str, bytes | None] = NO_EDITS,
    parents: tuple[str, ...] | None = None,
    sources: tuple[str, ...] = (),
    announce: Callable[[str], None] = lambda id: None,
) -> CommitResult:
    """Commits the work tree as it is, by `author`; the committer records it.

    An amended commit keeps its own author unless `reset_author`.

    `parents`: other ones than HEAD. `sources`: commits whose changes the new one has. `announce` is called
    with the new commit's id before HEAD moves.

    `imported`: what is known of a vector that the same command imported, by name. `edits`: new contents of
    files (None removes). The work tree must match HEAD; the edits go into it and into the commit. Raises
    `Refused` if there is nothing to commit, `InvalidInput` for a recipe that cannot be read, `UsageError`
    without a message.
    """
    history = tree.history
    head = history.head_commit()
    before = history.commit(head)
    write_whole_ids(tree)
    with history.store.transaction() as tx:
        known = tracking.tracked(history, edits)
        text = edits.get(RECIPE_FILE) or text_files.read_recipe_text(history.root)
        refuse_pairs(text)
        recipe = history.new_recipe(text)
        config = text_files.read(history.root, tracking.CONFIG)
        said_of_config = _fit_config(tree, head, recipe) if not edits else []
        base = history.base(recipe.base)
        files = _in_the_work_tree(history, known, {**edits, RECIPE_FILE: text}, base)
        unmarked = _without_markers(history, files, history.files_of(head), base)
        held = put_tree(history, tx, recipe, unmarked, durable=named_by(history.recipe_of(head)))
        if held == before.tree and not (amend or allow_empty):
            loose = tracking.untracked(history, known)
            names = listed(loose, MAX_LISTED)
            facts, hint = [NOTHING, *said_of_config], list[str | Keyword]()
            if loose:
                facts.append(f"not tracked: {names}")
                hint += [Call("add", Blank("FILE")), " tracks a file"]
            edited = in_place.edited_notes(tree)
            if edited and said_of_config:  # the config belongs to the weights that were trained here
                tree.apply({tracking.CONFIG: config}, tracking.ids(history, [tracking.CONFIG]))
                facts = [fact for fact in facts if fact not in said_of_config]
            for note in edited:
                facts.append(note)
                hint += ["; " if hint else "", *pieces(note.hint)[:-1]]
            raise Refused("; ".join(facts), hint=tuple(hint) or None)
        empties = len(before.parents) == 1 and held == history.commit(before.parents[0]).tree
        if amend and empties and not allow_empty:
            raise Refused(
                "the amended commit would change nothing",
                hint=(
                    Keyword(allow_empty=True),
                    " makes it; ",
                    Call("reset", "HEAD~1"),
                    " takes the commit out of the branch",
                ),
            )
        if parents is None:
            parents = before.parents if amend else (head,)
        said = tidy(message if message is not None or not amend else before.message)
        author = before.author if amend and not reset_author else author
        committer = history.committer()
        id = build(tx, held, parents, author=author, committer=committer, message=said)
    move = FileMove(history.files_of(id), history.files_of(head), tuple(edits), id) if edits else NO_MOVE
    announce(id)
    with tree.moving(move):
        why = f"{verb}{' (amend)' if amend and verb == 'commit' else ''}: {subject(said)}"
        branch = tree.advance(id, committer, why, expect=head)
    tree.committed()
    weights.adopt_commit(tree, recipe, id)
    kept_names.release(history, recipe)
    old = history.recipe_of(parents[0]) if parents else None
    changes = vector_changes(history, old, recipe, imported or {})
    added = [change.name for change in changes if change.change in ("added", "replaced")]
    dropped = [change.id if change.change == "removed" else change.previous for change in changes]
    if dropped := [id for id in dropped if id is not None and not edits]:
        from persona.history.vectors.model_files import given_back

        notes = (*notes, *given_back(history, dropped, recipe, keep=True, head=head).notes)
    on_recipe = [
        *advice(history.recipe_of(head), recipe),
        *filters.twice(recipe, history.base(recipe.base), added),
        *lookup.without_effect(history, recipe.terms, old),
        *trained_from.left_behind_at(history, id, head, *sources, besides=imported or {}),
    ]
    return CommitResult(
        id=id,
        branch=branch,
        parents=parents,
        vectors=tuple(changes),
        kept=other_kept(history, old, recipe, changes),
        notes=tuple(dict.fromkeys([*notes, *said_of_config, *left_out_notes(known), *on_recipe])),
        subject=subject(said),
    )


def refuse_pairs(text: bytes) -> None:
    """`Refused` while comments of a conflict stand in a recipe text: `stash pop` leaves them."""
    if b"# <<<<<<< " not in text and b"# >>>>>>> " not in text:
        return
    from persona.history.recipes.pairs import pair_lines

    if lines := pair_lines(text.decode("utf-8", "replace")):
        listed_lines = ", ".join(map(str, lines))
        raise Refused(
            f"a conflict stands in {RECIPE_FILE}, in the lines {listed_lines}",
            hint="decide for a value and delete the two comments",
        )


def _without_markers(
    history: History, files: Iterable[tuple[str, bytes]], of_head: Mapping[str, str], base: Base
) -> Iterator[tuple[str, bytes | str]]:
    """The files; `Refused` for one with markers of a conflict, unless HEAD has them or `add` has named it."""
    for path, data in files:
        old_id = of_head.get(path)
        if old_id is not None and text_files.blob_id(data) == old_id:
            yield path, old_id if base.files.get(path) == old_id else data  # which heals a damaged copy
            continue
        if path != RECIPE_FILE and b"<<<<<<< " in data and b">>>>>>> " in data:
            from persona.history.recipes.line_conflicts import whole_markers

            old = whole_markers(history.blob(old_id)) if old_id is not None else []
            found = whole_markers(data)
            if len(found) > len(old) and path not in tracking.added(history):
                raise Refused(
                    f"markers of a conflict stand in {path}, in the lines {', '.join(map(str, found))}",
                    hint=("delete them; or ", Call("add", WorkFile(path)), " takes the file as it is"),
                )
        yield path, data


def _fit_config(tree: LockedTree, head: str, recipe: Recipe) -> list[str]:
    """Makes config.json follow a recipe or a config.json that was edited by hand; the sentence on it."""
    history = tree.history
    before = history.files_of(head).get(tracking.CONFIG)
    known = named_by(history.recipe_of(head)) == named_by(recipe)
    if known and text_files.id_of(history.root, tracking.CONFIG) == before:
        return []
    from persona.history.vectors.model_config import put_right

    return put_right(tree, recipe)


def named_by(recipe: Recipe) -> set[str]:
    """The ids of the base and the vectors of a recipe."""
    return {recipe.base, *(term.vector for term in recipe.terms)}


def side_of(history: History, commit: str) -> Side:
    """A commit as a side of a merge."""
    from persona.history.recipes.three_way import Side

    tree = history.tree_of(commit)
    files = history.files_of_tree(tree)
    return Side(files, lambda path: history.blob(files[path]), lambda: history.recipe(tree.recipe))


def side_of_worktree(history: History, files: Mapping[str, str]) -> Side:
    """Files of the work tree, path → blob id, as a side of a merge."""
    from persona.history.recipes.three_way import Side

    root = history.root
    return Side(files, lambda path: text_files.read(root, path), lambda: text_files.recipe(history).recipe)


def build(
    tx: Transaction,
    tree: str,
    parents: tuple[str, ...],
    *,
    author: Person,
    committer: Person,
    message: str,
) -> str:
    """Puts a commit into `tx`, and returns its id. `message` as `tidy` leaves it."""
    return tx.put("commit", Commit(tree, parents, author, committer, message).encode())


def put_tree(
    history: History,
    tx: Transaction,
    recipe: Recipe,
    files: Iterable[tuple[str, bytes | str]],
    *,
    durable: Set[str],
) -> str:
    """Puts a recipe, files and their tree into `tx`; returns the tree's id.

    `files`: paths with their bytes, or with the id of a stored blob. They are all files of the tree, the text
    of the recipe and unchanged files of the base included. `durable`: ids that a commit names already.
    """
    for id in sorted(named_by(recipe) - durable):
        parts = () if id == recipe.base else history.vector(id).expression
        for name in (id, *(part for part, _ in parts)):
            tx.rely_on(name)  # the command that stored it may have been cut short before its name was durable
    base_files = history.base(recipe.base).files
    differing: dict[str, str | None] = {}
    held = set()
    for path, data in files:
        held.add(path)
        id = data if isinstance(data, str) else text_files.blob_id(data)
        if base_files.get(path) != id:
            differing[path] = id if isinstance(data, str) else tx.put("blob", data)
    differing |= dict.fromkeys(base_files.keys() - held)
    if clash := path_clash(held):
        raise InvalidInput(f"{clash}, so no commit can hold both; rename or delete one")
    return tx.put("tree", Tree(tx.put("recipe", recipe.encode()), differing).encode())


def _in_the_work_tree(
    history: History, known: Tracked, edits: Mapping[str, bytes | None], base: Base
) -> Iterator[tuple[str, bytes]]:
    """The tracked files as `edits` will leave them, one read at a time."""
    for path in sorted({*known.paths, *base.files}):
        data = edits.get(path)
        if path not in edits and path not in known.left_out:
            data = text_files.read(history.root, path)
        if data is not None:
            yield path, data


def left_out_notes(known: Tracked) -> list[str]:
    """NoteList on files that the commit cannot hold."""
    files = [f"{path!r} ({why})" for path, why in known.left_out.items()]
    return [f"left out: {listed(files, MAX_LISTED)}"] if files else []


def write_whole_ids(tree: LockedTree) -> None:
    """Replaces shortened ids in `recipe.toml` by whole ids."""
    history = tree.history
    data = text_files.read_recipe_text(history.root)
    text = decode(data)
    short = [name for name, id in written_ids(text).items() if not is_id(id)]
    if not short:
        return
    text_files.read_recipe_text(history.root, to_edit=True)
    recipe = history.read_recipe(data)
    from persona.history.recipes.edit import set_term

    for name in short:
        text = set_term(text, name, {"id": recipe.by_name[name].vector})
    tree.apply({RECIPE_FILE: encode(text, like=data)}, {RECIPE_FILE: text_files.blob_id(data)})


def tidy(message: str | None) -> str:
    """A message as git tidies it; raises `UsageError` if nothing is left.

    It has no space at the ends of lines, no blank line at its ends or after another one, and ends in a line
    feed.
    """
    lines = "\n".join(line.rstrip() for line in (message or "").splitlines()).strip("\n")
    lines = re.sub(r"\n{3,}", "\n\n", lines)
    if not lines:
        raise UsageError("a commit needs a message", hint=("give one with ", Keyword("message")))
    return lines + "\n"


def vector_changes(
    history: History, before: Recipe | None, after: Recipe, imported: Mapping[str, VectorChange]
) -> list[VectorChange]:
    """The vectors that a commit adds, replaces or removes, in canonical order; none that it renames."""
    old = before.by_name if before else {}
    names = same_terms(old, after.by_name)
    terms = {name: old[old_name] for old_name, name in names.items()}
    changes: list[VectorChange] = []
    for term in after.terms:
        was = terms.get(term.name)
        if term.name in imported and imported[term.name].id == term.vector:
            changes.append(imported[term.name])
        elif was is None or was.vector != term.vector:
            change = "added" if was is None else "replaced"
            changes.append(_known_change(history, after, term, change, was.vector if was else None))
    for name, term in old.items():
        if name not in names:
            alpha = shown(term.alpha)
            changes.append(VectorChange(name, term.vector, "removed", alpha, None, None, None, None, None))
    return changes


def other_kept(
    history: History, before: Recipe | None, after: Recipe, changes: Sequence[VectorChange]
) -> tuple[KeptFraction, ...]:
    """Kept fractions of vectors that are trimmed differently now, except those in `changes`."""
    names = {change.name for change in changes}
    return tuple(kept for kept in kept_terms(history, after, before) if kept.name not in names)


def _known_change(
    history: History, recipe: Recipe, term: Term, change: str, previous: str | None
) -> VectorChange:
    """A change to a vector that the store had already: the facts that need no chunk."""
    fraction = cache.known_fraction(history, term.vector)
    density, vector = density_of(recipe, term), history.vector(term.vector)
    return VectorChange(
        name=term.name,
        id=term.vector,
        change=change,
        alpha=shown(term.alpha),
        stored_bytes=lookup.stored_bytes(history, term.vector, vector),
        raw_bytes=history.base(recipe.base).merged_bytes,
        changed_fraction=fraction,
        kept_fraction=kept_fraction(history, recipe, term) if recipe.trims(term) else fraction,
        largest_rounding=None,
        new_bytes=0,
        ranks=vector.ranks,
        tensors=len(vector.tensors) if vector.ranks else None,
        previous=previous,
        density=density,
        only=term.only,
        except_=term.except_,
        unchanged=lookup.unchanged_kinds(history, term.vector, recipe.base),
        grown=lookup.grown(history, vector),
        expression=lookup.expression_of(history, term.vector),
    )


def advice(before: Recipe | None, after: Recipe) -> list[str]:
    """Sentences that go with a commit of a recipe that changed."""
    notes: list[str] = []
    if _adds_up_to_one(after) and not (before and _adds_up_to_one(before)):
        each = Call("recipe.set", Blank("NAME"), alpha="1")
        notes.append(
            Note(
                "the alphas add up to 1 or less, so changes that agree are added, not averaged",
                ("for the mean, as mergekit's normalize: true gives, try ", each, " for each vector"),
            )
        )
    if before is not None and (before.rules, len(before.terms)) == (after.rules, len(after.terms)):
        return notes
    notes += _advice_on_filters(before, after)
    negative = [term.name for term in after.terms if any(Decimal(alpha) < 0 for alpha in values(term.alpha))]
    if after.rules.divide == "weight" and after.rules.merge == "mean" and negative:
        notes.append(
            f"divide = weight with a negative alpha ({', '.join(negative)}) divides by a sum that can be"
            " close to 0, which makes weights very large; divide = strength does not"
        )
    return notes


def _advice_on_filters(before: Recipe | None, after: Recipe) -> Iterator[str]:
    """Sentences on a filter that drops nothing, and on the seed of a filter that draws."""
    rules = after.rules
    if rules.trim not in ("breadcrumbs", "dare", "della") or all(term.join != "vote" for term in after.terms):
        return
    if _keeps_all(after):
        density = "0.9" if rules.trim == "breadcrumbs" else "0.5"
        hint = ("try ", Call("recipe.set_rules", {"density": density}))
        yield Note(f"trim = {rules.trim} drops nothing at density 1", hint)
    elif rules.seed is not None and not (before and _seed(before) == rules.seed):
        other = Call("recipe.set_rules", {"seed": str((int(rules.seed) + 1) % (MAX_SEED + 1))})
        yield Note(
            f"trim = {rules.trim} drops changes at random, with seed {rules.seed}, which the recipe keeps",
            ("for another draw, try ", other),
        )


def _seed(recipe: Recipe) -> str | None:
    """The seed of the draws of a recipe; None if it draws nothing."""
    return recipe.rules.seed if recipe.rules.trim in ("dare", "della") and not _keeps_all(recipe) else None


def _adds_up_to_one(recipe: Recipe) -> bool:
    """Whether two or more vectors vote under `ties` with alphas above 0 that are never divided."""
    rules = recipe.rules
    if (rules.preset, rules.merge, rules.divide) != ("ties", "mean", "strength"):
        return False
    alphas = [
        [Decimal(alpha) for alpha in values(term.alpha)] for term in recipe.terms if term.join == "vote"
    ]
    strengths = [max(each) for each in alphas if any(each)]
    return len(strengths) >= 2 and min(map(min, alphas)) >= 0 and sum(strengths) <= 1


def _keeps_all(recipe: Recipe) -> bool:
    """Whether vectors would be trimmed if a density said so, and none does."""
    whole = all(term.density is None for term in recipe.terms if term.join == "vote")
    return whole and recipe.rules.trim != "none" and recipe.rules.density == "1"
