"""Changes of commits, made again on another commit. Only objects are written: no file and no ref moves.

**pick** — the change from one commit to another, made to a third. A cherry-pick is the change from the parent
to a commit, a revert the change back, and a merge the change from the merge base to the other branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from persona.errors import Call, InvalidInput, Keyword, Refused, UsageError
from persona.frozen import dataclass
from persona.history.commit_builder import build, named_by, put_tree, side_of
from persona.history.history import History
from persona.history.names.walk import merge_bases
from persona.history.recipes.conflicts import Conflict, Strategy
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.three_way import Merged, Names, Side, merge_files
from persona.history.worktree import text_files
from persona.objects.commit import Person
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe
from persona.store.transaction import Transaction


@dataclass(frozen=True)
class Change:
    """A change to make: its two sides, and how both sides of a conflict are called.

    `both`: as for `merge_files`.
    """

    base: Side
    theirs: Side
    labels: tuple[str, str]
    both: bool = True


class Picked(NamedTuple):
    """A change made to a commit. `tree`: the new tree, None for a conflict.

    `edits`: the new contents of files, None for a file that goes; with a conflict, its pairs and markers.
    `conflicts`: as they are written there; `told`: as a sentence says them. `rewritten`: lines that the
    change is about were written again since, and stay. `lost`: comments that the change adds and that are not
    there.
    """

    tree: str | None
    edits: Mapping[str, bytes | None]
    conflicts: tuple[Conflict, ...]
    told: tuple[Conflict, ...]
    rewritten: bool
    lost: tuple[str, ...] = ()


def pick(
    history: History, tx: Transaction, change: Change, ours: str, strategy: Strategy | None = None
) -> Picked:
    """Makes a change to the commit `ours`, and puts the new tree, or the files of a conflict, into `tx`.

    `Refused` for a file on one side that is a directory on the other, and as `refuse_other_base`.
    """
    side = side_of(history, ours)
    names = Names(history.read_recipe, history.base_name, history.require_vector_of)
    sides = change.base, change.theirs, side
    merged = _checked(history, merge_files(*sides, names, strategy=strategy, both=change.both))
    if not merged.conflicts:
        return Picked(
            _put(history, tx, merged, side, ours), merged.edits, (), (), merged.rewritten, merged.lost
        )
    for conflict in merged.conflicts:
        if conflict.problem == "directory":
            raise Refused(
                f"{conflict.path}: a file on one side, and on the other a directory that holds"
                f" {conflict.detail}; rename one of them in a commit of its own first"
            )
        refuse_other_base(conflict)
    written = merge_files(*sides, names, labels=change.labels, strategy=strategy, both=change.both)
    for data in written.edits.values():
        if data is not None:
            tx.put("blob", data)
    conflicts = written.conflicts or merged.conflicts
    return Picked(None, written.edits, conflicts, merged.conflicts, merged.rewritten, written.lost)


def refuse_other_base(conflict: Conflict) -> None:
    """`Refused` if only one side has moved to another base, and the other side has added a vector.

    No text can hold both: the added vector has to move to the other base first.
    """
    if conflict.problem == "base":
        hint = (
            "move the branch of that vector there with ",
            Call("rebase_base", conflict.base),
            ", then merge",
        )
        raise Refused(conflict.detail, hint=hint)


def _checked(history: History, merged: Merged) -> Merged:
    """A merge; with a conflict if its recipe cannot be taken, as when two vectors do not fit together."""
    data = merged.edits.get(RECIPE_FILE)
    if merged.conflicts or data is None:
        return merged
    try:
        history.new_recipe(data)
    except InvalidInput as error:
        style = Conflict(RECIPE_FILE, problem="style", detail=error.message)
        return Merged(merged.edits, (style,), merged.rewritten, merged.lost)
    return merged


def _put(history: History, tx: Transaction, merged: Merged, ours: Side, commit: str) -> str:
    files: dict[str, bytes | str] = {**ours.files}
    for path, data in merged.edits.items():
        if data is None:
            files.pop(path, None)
        else:
            files[path] = data
    text = merged.edits.get(RECIPE_FILE)
    recipe = ours.recipe() if text is None else history.read_recipe(text)
    durable = named_by(history.recipe_of(commit))
    return put_tree(history, tx, recipe, sorted(files.items()), durable=durable)


def of_commit(history: History, id: str, mainline: int | None, labels: tuple[str, str]) -> Change:
    """The change of a commit against its parent."""
    parent = parent_of(history, id, mainline, "pick")
    before = side_of(history, parent) if parent is not None else _nothing(history, id)
    return Change(before, side_of(history, id), labels)


def back_from(history: History, id: str, mainline: int | None, labels: tuple[str, str]) -> Change:
    """The change that undoes a commit."""
    parent = parent_of(history, id, mainline, "go back to")
    if parent is None:
        raise Refused(f"{abbreviate(id)} is the first commit; there is nothing before it to go back to")
    return Change(side_of(history, id), side_of(history, parent), labels, both=False)


def _nothing(history: History, id: str) -> Side:
    raise Refused(
        f"{abbreviate(id)} is the first commit: it has no parent, so it is no change that can be picked"
    )


def parent_of(history: History, id: str, mainline: int | None, does: str) -> str | None:
    """The parent that the change of a commit is against; None for the first commit.

    `UsageError` for a merge without `mainline`, and for a parent that there is not.
    """
    parents = history.commit(id).parents
    if mainline is None:
        if len(parents) > 1:
            raise UsageError(
                f"{abbreviate(id)} is a merge of {len(parents)} commits",
                hint=(f"say which parent to {does}: ", Keyword(mainline=1), ", or another number"),
            )
        return parents[0] if parents else None
    if parents and not 1 <= mainline <= len(parents):
        count = "one parent" if len(parents) == 1 else f"{len(parents)} parents"
        raise UsageError(f"{abbreviate(id)} has {count}, none of number {mainline}")
    return parents[mainline - 1] if parents else None


def of_merge(history: History, ours: str, theirs: str, labels: tuple[str, str]) -> Change:
    """The change from where two branches parted to the other branch. `Refused` if they never met."""
    bases = merge_bases(history, ours, theirs)
    if not bases:
        raise Refused(
            f"{abbreviate(ours)} and {abbreviate(theirs)} have no ancestor in common and cannot be merged"
        )
    return Change(_joined(history, bases), side_of(history, theirs), labels)


def _joined(history: History, bases: list[str]) -> Side:
    """The base of a merge. Several merge bases, of a criss-cross, are merged into one that no commit holds.

    If two of them do not fit together, the value before both counts, so that each side has changed it.
    """
    joined = side_of(history, bases[0])
    names = Names(history.read_recipe, history.base_name, history.require_vector_of)
    for number, other in enumerate(bases[1:], 1):
        above = [base for base in merge_bases(history, bases[number - 1], other) if base not in bases]
        if not above:
            continue
        merged = merge_files(_joined(history, above), side_of(history, other), joined, names, strategy="base")
        if not merged.conflicts:
            joined = with_edits(history, joined, merged.edits)
    return joined


def with_edits(history: History, side: Side, edits: Mapping[str, bytes | None]) -> Side:
    """A side with other contents of some files."""
    files = {
        **side.files,
        **{path: text_files.blob_id(data) for path, data in edits.items() if data is not None},
    }
    files = {path: blob for path, blob in files.items() if path not in edits or edits[path] is not None}

    def read(path: str) -> bytes | None:
        return edits[path] if path in edits else side.read(path)

    def recipe() -> Recipe:
        text = edits.get(RECIPE_FILE)
        return side.recipe() if text is None else history.read_recipe(text)

    return Side(files, read, recipe)


def commit_of(
    history: History,
    tx: Transaction,
    tree: str,
    parents: tuple[str, ...],
    author: Person,
    message: str,
) -> str:
    """Puts a commit into `tx`, committed now; returns its id."""
    return build(tx, tree, parents, author=author, committer=history.committer(), message=message)
