"""The state of the weights in the work tree: their recipe, and whether they changed since.

**weights record** — the recipe's key, its commit, the weights digest, and size, time and inode of every
weights file.

``now`` describes the published weights. ``next`` is written before a publication, so that one that is cut
short is recognised by its digest. Files with the same size, time and inode are taken to be unchanged; others
are hashed before anything is reported. A file is untouched if its inode was not changed either: no program
sets that time back.

Invariant: a record's fingerprints are of files that were read, taken when they were opened, or of files that
were written, taken before they got their names. A later save always looks different.

A record is trusted only in the repository that made it. In a copy of the repository the weights may be
anything: they count as those of no revision, and the next checkout computes all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from persona.errors import Call, InvalidInput, Keyword, PersonaError, Refused
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.results import WeightsState
from persona.history.worktree import text_files
from persona.objects.digest import weights_digest
from persona.objects.recipe import Recipe
from persona.progress import HASHING, Progress
from persona.weights.index import INDEX_NAME, read_index
from persona.weights.inputs import Fingerprint
from persona.weights.shards import is_published_name
from persona.weights.writer import weights_here

if TYPE_CHECKING:
    from persona.history.worktree.locked import LockedTree

STATE: Final = "weights"
_TENSORS: Final = "checkout"
_EDITED: Final = "edited"

Stats = dict[str, list[int]]


@dataclass(frozen=True)
class Record:
    """The recipe that weights were computed for. `revision` is None for a recipe that was not committed.

    `changed`: the time of the last change of each file's inode, in nanoseconds. `vector` and `name`: of the
    vector that holds weights trained here in place; `revision` is then the commit that holds the vector.
    """

    key: str
    revision: str | None
    digest: str
    files: Stats
    changed: dict[str, int] = field(default_factory=dict)
    vector: str | None = None
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The form in state/weights."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """The state of the weights: absent, unknown, intact or edited.

    It has the record of the weights, if there is one, and the fingerprints of the files.
    """

    state: str
    record: Record | None
    files: Mapping[str, Fingerprint] = field(default_factory=dict)


def untouched(root: Path, record: Record) -> set[str]:
    """The weights files in which nothing was written since they were published, not even in secret."""
    here = weights_here(root)
    return {name for name, time in record.changed.items() if name in here and here[name].changed == time}


def measure(directory: Path, progress: Progress | None = None, threads: int | None = None) -> str:
    """The weights digest of the checkpoint in a directory, computed from its files.

    `threads`: by default one for each core. Raises the errors of opening it, and `InvalidInput` if the files
    change meanwhile.
    """
    return measure_seen(directory, progress, threads)[0]


def measure_seen(
    directory: Path, progress: Progress | None = None, threads: int | None = None
) -> tuple[str, dict[str, Fingerprint]]:
    """Like `measure`, with the fingerprints of the files."""
    from persona.weights.checkpoint import Checkpoint  # `status` hardly ever needs it

    done = 0
    with Checkpoint.open(directory) as checkpoint:

        def report(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(HASHING, done, checkpoint.nbytes)

        digests = checkpoint.digests(report, threads)
        checkpoint.check_unchanged()
        specs = checkpoint.tensors.items()
        digest = weights_digest((name, spec.dtype, spec.shape, digests[name]) for name, (spec, _) in specs)
        return digest, checkpoint.weights_seen


def look(history: History, tree: LockedTree | None = None) -> Found:
    """The state of the work tree's weights. `tree`: for a caller that holds its lock."""
    now, next_ = _read(history)
    here = weights_here(history.root)
    if not here:
        return Found("absent", now)
    if now is None and next_ is None:
        return Found("unknown", None, here)
    if now is not None and now.files == _stats(here) and next_ is None:
        return Found("intact", now, here)
    return _identify(history, here, now, next_, tree)


def expect(tree: LockedTree, recipe: Recipe, revision: str | None, digest: str) -> None:
    """Records the next weights before they are published."""
    now, _ = _read(tree.history)
    _write(tree, now, Record(recipe.key, revision, digest, {}))


def settle(
    tree: LockedTree,
    recipe: Recipe,
    revision: str | None,
    digest: str,
    files: Mapping[str, Fingerprint],
    tensors: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Records the weights that are there now.

    `files`: the fingerprints of the weights files, taken when they were read or written. `tensors`: name →
    (key of its inputs, tensor digest in hex).
    """
    _write(tree, _record_of(recipe.key, revision, digest, files), None)
    if tensors is not None:
        value = {"digest": digest, "tensors": tensors}
        tree.history.store.cache(_TENSORS).write(json.dumps(value).encode())


def take(
    tree: LockedTree,
    vector: tuple[str, str],
    files: Mapping[str, Fingerprint],
    progress: Progress | None,
    threads: int | None,
) -> bool:
    """Records that a vector (its id, its name) holds weights trained in place; returns whether it does.

    `files`: the fingerprints of the files that were read for it. If a file was saved since, or other files
    are the work tree's weights, the record does not change.
    """
    try:
        digest, here = measure_seen(tree.history.root, progress, threads)
    except InvalidInput:
        return False
    if here != files:
        return False
    record = _record_of("", None, digest, files)
    _write(tree, replace(record, vector=vector[0], name=vector[1]), None)
    return True


def refuse_losing(found: Found, recipe: Recipe, where: str, overwriting: Keyword) -> None:
    """`Refused` if weights that cannot be computed again would be overwritten.

    These are edited weights, weights from no checkout, and weights trained in place whose vector neither a
    commit nor `recipe` holds. `overwriting`: what to type to lose them, for the hint.
    """
    record = found.record
    names = ", ".join(found.files)
    if found.state in ("edited", "unknown"):
        why = "edited since they were checked out" if found.state == "edited" else "not from a checkout"
        raise Refused(
            f"{names}: {why}, and would be overwritten",
            hint=("move them away, or ", overwriting, " overwrites them"),
        )
    if found.state == "intact" and record is not None and _is_only_here(record, recipe):
        raise Refused(
            f"{names}: as trained for the vector {record.name}, which neither a commit nor {where} holds, and"
            " would be overwritten",
            hint=("commit it, move them away, or ", overwriting, " overwrites them"),
        )


def adopt_commit(tree: LockedTree, recipe: Recipe, revision: str) -> None:
    """Records that weights of this recipe now belong to its new commit.

    The commit also holds the vector of weights that were trained here.
    """
    now, next_ = _read(tree.history)
    if now is None or now.revision is not None:
        return
    if now.key == recipe.key or any(term.vector == now.vector for term in recipe.terms):
        _write(tree, replace(now, revision=revision), next_)


def tensor_digests(history: History, record: Record) -> dict[str, tuple[str, str]]:
    """name → (key of its inputs, tensor digest in hex) of recorded weights; empty if not known."""
    data = history.store.cache(_TENSORS).read()
    try:
        value = json.loads(data) if data else {}
        if value.get("digest") != record.digest:
            return {}
        return {name: (str(key), str(digest)) for name, (key, digest) in value["tensors"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def describe(
    found: Found, head: str | None, head_recipe: Recipe | None, recipe: Recipe | None
) -> WeightsState:
    """The state as `status` names it; `recipe` is the work tree's, None when it cannot be read."""
    record = found.record
    if found.state != "intact" or record is None:
        if record is None or found.state != "edited" or record.vector is not None:
            return WeightsState(found.state, None)
        return WeightsState("edited", record.revision)
    if head_recipe is not None and record.key == head_recipe.key:
        return WeightsState("clean", head)
    if recipe is not None and record.key == recipe.key:
        return WeightsState("uncommitted", None)
    if record.vector is not None:
        known = [term.name for term in recipe.terms if term.vector == record.vector] if recipe else []
        alone = recipe is None or _is_only_here(record, recipe)
        return WeightsState("stale", None, known[0] if known else record.name, alone)
    return WeightsState("stale", record.revision)


def standing(history: History, tree: LockedTree) -> WeightsState:
    """The state of the weights beside HEAD and `recipe.toml` as they are now."""
    head = history.head().id
    committed = recipe = history.recipe_of(head) if head else None
    with suppress(PersonaError):  # edits that are carried along
        recipe = text_files.recipe(history).recipe
    return describe(look(history, tree), head, committed, recipe)


def _is_only_here(record: Record, recipe: Recipe) -> bool:
    """Whether weights were trained in place whose vector neither a commit nor the recipe holds."""
    if record.vector is None or record.revision is not None:
        return False
    return all(term.vector != record.vector for term in recipe.terms)


def _identify(
    history: History,
    here: Mapping[str, Fingerprint],
    now: Record | None,
    next_: Record | None,
    tree: LockedTree | None,
) -> Found:
    """Hashes weights that do not look as they were left, and finds out whose they are."""
    cache = history.store.cache(_EDITED)
    known = json.dumps([_stats(here), now.digest if now else None, next_.digest if next_ else None]).encode()
    if cache.read() == known:
        return Found("edited", now, here)
    try:
        digest, read = measure_seen(history.root, threads=history.threads())
    except PersonaError:
        digest, read = None, {}
    ours = [record.files for record in (now, next_) if record is not None]
    strange = [
        name
        for name, seen in here.items()
        if (read[name] != seen if name in read else not _left_over(history.root, name, seen, ours))
    ]
    for record in (now, next_):
        if record is not None and record.digest == digest and not strange:
            record = replace(record, files=_stats(here))
            _adopt(history, record, (now, next_), tree)
            return Found("intact", record, here)
    if digest is not None:
        cache.write(known)
    return Found("edited", now, here)


def _left_over(root: Path, name: str, seen: Fingerprint, ours: Sequence[Stats]) -> bool:
    """Whether a weights file that no reader reads is persona's own.

    It is if an earlier publication wrote it, or one that was cut short, which leaves shards and their index.
    Any other file was saved by somebody else.
    """
    if name == INDEX_NAME:
        with suppress(InvalidInput):
            if all(map(is_published_name, read_index(root / name).shard_names())):
                return True
    return is_published_name(name) or any(files.get(name, [])[:2] == list(seen[:2]) for files in ours)


def _adopt(
    history: History, record: Record, seen: tuple[Record | None, Record | None], tree: LockedTree | None
) -> None:
    """Records the result of hashing, unless another command works on the work tree or did meanwhile."""
    if tree is not None:
        _write(tree, record, None)
        return
    from persona.history.worktree.locked import locked

    try:
        with locked(history) as tree:
            if _read(history) == seen and _stats(weights_here(history.root)) == record.files:
                _write(tree, record, None)
    except PersonaError:
        return


def _stats(files: Mapping[str, Fingerprint]) -> Stats:
    """Size, modification time in nanoseconds and inode of each file, as a record has them."""
    return {name: list(seen[:3]) for name, seen in files.items()}


def _record_of(key: str, revision: str | None, digest: str, files: Mapping[str, Fingerprint]) -> Record:
    changed = {name: seen.changed for name, seen in files.items()}
    return Record(key, revision, digest, _stats(files), changed)


def recipe_of(history: History, found: Found) -> Recipe | None:
    """The recipe that the work tree's weights are recorded for, or None."""
    record = found.record
    if found.state != "intact" or record is None:
        return None
    commits = [id for id in (record.revision, history.last_commit()) if id is not None]
    recipes = [history.recipe_of(id) for id in commits]
    with suppress(PersonaError):
        recipes.append(text_files.recipe(history).recipe)
    return next((recipe for recipe in recipes if recipe.key == record.key), None)


def check(history: History) -> None:
    """`IntegrityError` if the record is damaged or of another form."""
    _read(history)


def _read(history: History) -> tuple[Record | None, Record | None]:
    cost = ("the weights then count as unknown, and ", Call("checkout", force=True), " computes them again")
    found = history.store.state(STATE).decoded(_decoded, *cost)
    if found is None:
        return None, None
    now, next_, place = found
    if place != history.store.place:
        return now and _of_a_copy(now), next_ and _of_a_copy(next_)
    return now, next_


def _decoded(value: Any) -> tuple[Record | None, Record | None, Any]:
    return _record(value.get("now")), _record(value.get("next")), value.get("place")


def _of_a_copy(record: Record) -> Record:
    """The trusted part of a record from another place.

    It is which bytes persona wrote there, and that weights were trained in place and are in no commit yet.
    """
    if record.vector is not None and record.revision is None:
        return replace(record, key="", changed={})
    return replace(record, key="", revision=None, changed={}, vector=None, name=None)


def _record(value: Any) -> Record | None:
    """The record in a JSON value, which may hold more than is known here."""
    if not value:
        return None
    known = {one.name: value[one.name] for one in fields(Record) if one.name in value}
    found = Record(**known)
    texts = (found.key, found.digest, *found.files, *found.changed)
    texts += tuple(text for text in (found.revision, found.vector, found.name) if text is not None)
    numbers = (*found.changed.values(), *(number for stat in found.files.values() for number in stat))
    if any(type(text) is not str for text in texts) or any(type(number) is not int for number in numbers):
        raise TypeError
    return found


def _write(tree: LockedTree, now: Record | None, next_: Record | None) -> None:
    value = {
        "now": now.to_json() if now else None,
        "next": next_.to_json() if next_ else None,
        "place": tree.history.store.place,
    }
    tree.history.store.state(STATE).write(value)
