"""`fsck`: checks every record, ref, reflog and state, and that everything a ref names is complete and agrees.

Roots are refs, HEAD, every line of every reflog, a move that was cut short, a bisect, and the recipe in the
work tree.
**dangling object** — an object that no root reaches; an interrupted command leaves some, and they are no
problem. `full` also computes every id again, including ids of decoded elements, and checks the weights in the
work tree. Walks are iterative.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from persona.errors import Call, Note, PersonaError
from persona.history import note_refs, scores
from persona.history.bisecting import search
from persona.history.history import History
from persona.history.reach import Reach
from persona.history.sequencing.state import read_sequence, unmerged
from persona.history.stashes import STASH, stashes
from persona.history.store_results import Dangling, FsckResult, Leftover, Problem
from persona.history.worktree import move, sequence, text_files, tracking, weights
from persona.history.worktree.changing import leftovers
from persona.intake.payloads import Payloads
from persona.progress import CHECKING, Progress
from persona.store.check_refs import survey
from persona.store.refs import NOTES

if TYPE_CHECKING:
    from persona.store.records import Record

_KINDS: Final = {
    "HEAD": "commit",
    "refs/heads/": "commit",
    "refs/bases/": "base",
    "refs/vectors/": "vector",
    NOTES: "note",
}
"""The kind of object that a ref names, by the start of its name."""
_STATES: Final[dict[str, Callable[[History], object]]] = {
    weights.STATE: weights.check,
    move.MOVE: move.read_move,
    tracking.ADDED: tracking.added,
    sequence.PREPARED: sequence.prepared_message,
    sequence.BISECT: search.read_search,
    sequence.SEQUENCE: read_sequence,
    sequence.UNMERGED: unmerged,
    sequence.ORIGIN: sequence.original_head,
    STASH: stashes,
}


def fsck(history: History, *, full: bool = False, progress: Progress | None = None) -> FsckResult:
    """Checks every record, ref, reflog and everything reachable; `full` recomputes every id too."""
    progress = progress or history.open_options.get("progress")
    store = history.store
    # Names are read before objects: an object is stored before anything names it.
    refs = survey(store.refs)
    others = list(_other_roots(history))
    problems: list[Problem] = []
    present = {id: kind for id, kind, _ in store.objects.iterate()}
    total, done = store.objects.counts()[2], 0
    payloads = Payloads(store.objects)
    one_at_a_time = threading.Lock()

    def payload_of(record: Record) -> list[Any] | None:
        nonlocal done
        with one_at_a_time:
            done += sum(memoryview(segment).nbytes for segment in record.segments)
            if progress:
                progress(CHECKING, min(done, total), total)
        return payloads.of(record)

    for found in store.problems(full, payload_of if full else None, threads=history.threads()):
        if not found.healed:
            problems.append(Problem(found.kind or None, found.id or None, found.problem))
    damaged = {problem.id for problem in problems if problem.id}
    said = dict.fromkeys(
        (kind, text) for kind, _, text in refs.problems
    )  # HEAD and its branch have the same line
    problems += [Problem(kind, None, text) for kind, text in said]
    problems += _state_problems(history)
    reach = Reach(history, present, damaged, full)
    for id, what, name in refs.named:
        kind = next((kind for prefix, kind in _KINDS.items() if name.startswith(prefix)), None)
        reach.need(id, kind, what)
    for what, id, kind in others:
        reach.need(id, kind, what)
    reach.follow()
    problems += reach.problems
    whole = {id for id, kind in present.items() if kind == "note" and id not in damaged}
    noted = {name: id for id, _, name in refs.named if name.startswith(NOTES) and id in whole}
    problems += _note_problems(history, noted)
    if full and not problems:
        problems += _weights_problems(history, progress)
    dangling = tuple(Dangling(kind, id) for id, kind in reach.dangling())
    return FsckResult(
        ok=not problems,
        objects=len(present),
        problems=tuple(problems),
        unreachable=len(present.keys() - reach.seen),
        dangling=dangling,
        leftovers=tuple(Leftover(str(path), size) for path, size in leftovers(history)),
    )


def _note_problems(history: History, named: Mapping[str, str]) -> Iterator[Problem]:
    """Problems of the notes with these refs and ids."""
    for ref, id in named.items():
        try:
            scores.check(history, note_refs.read(history, ref, id))
        except PersonaError as error:
            yield Problem("note", id, error.note)


def _state_problems(history: History) -> Iterator[Problem]:
    store = history.store
    try:
        history.config.check()
    except PersonaError as error:
        yield Problem("config", None, error.note)
    said = [error.note for error in store.misplaced()]
    for name in store.states():
        try:
            _STATES.get(name, lambda _, name=name: store.state(name).read())(history)
        except PersonaError as error:
            said.append(error.note)
    for text in dict.fromkeys(said):
        yield Problem("state", None, text)


def _other_roots(history: History) -> Iterator[tuple[str, str, str]]:
    """(source, id, kind) of objects that are needed besides refs and reflogs."""
    try:
        for id in (move.read_move(history) or {}).values():
            yield str(history.store.state(move.MOVE).path), id, "commit"
    except PersonaError:
        pass  # another problem names it
    try:
        bisect = search.read_search(history)
        for id in bisect.commits() if bisect is not None else ():
            yield str(history.store.state(sequence.BISECT).path), id, "commit"
    except PersonaError:
        pass  # another problem names it
    try:
        under_way = read_sequence(history)
        for id in under_way.commits() if under_way is not None else ():
            yield str(history.store.state(sequence.SEQUENCE).path), id, "commit"
        if under_way is not None and under_way.stop is not None:
            for blob in filter(None, under_way.stop.left.values()):
                yield str(history.store.state(sequence.SEQUENCE).path), blob, "blob"
        if (left := unmerged(history)) is not None:
            for blob in filter(None, left.left.values()):
                yield str(history.store.state(sequence.UNMERGED).path), blob, "blob"
        if (origin := sequence.original_head(history)) is not None:
            yield str(history.store.state(sequence.ORIGIN).path), origin, "commit"
    except PersonaError:
        pass  # another problem names it
    try:
        for one in stashes(history):
            yield str(history.store.state(STASH).path), one.id, "commit"
    except PersonaError:
        pass  # another problem names it
    try:
        recipe = text_files.recipe(history).recipe
    except PersonaError:
        return  # the user's own text, or a base or vector that another problem names
    yield "recipe.toml", recipe.base, "base"
    for term in recipe.terms:
        yield "recipe.toml", term.vector, "vector"


def _weights_problems(history: History, progress: Progress | None) -> Iterator[Problem]:
    """Problems of weights in the work tree that are not those of their recipe."""
    from persona.history.planning import plan_of
    from persona.merge.run.materialise import materialise

    found = weights.look(history)
    recipe = weights.recipe_of(history, found)
    if recipe is None:
        return
    right = materialise(
        plan_of(history, recipe), threads=history.threads(), progress=progress, allow_nonfinite=True
    ).weights
    try:
        held = weights.measure(history.root, progress, history.threads())
    except PersonaError as error:
        yield Problem("weights", None, error.note)
        return
    if held != right:
        yield Problem(
            "weights",
            None,
            Note(
                "the weights in the work tree are not those of the recipe that they are recorded for",
                (
                    f"delete {history.store.state(weights.STATE).path}, then ",
                    Call("checkout", force=True),
                    " computes them again",
                ),
            ),
        )
