"""Moving HEAD and the text files: what `checkout`, `switch`, `reset` and `restore` share.

A tracked file that was edited and that a move would overwrite stops the move, by name, unless it is forced;
an edited file that is the same on both sides is carried along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from persona.errors import PersonaError, Refused, UnknownName, UsageError
from persona.history import tracking, weights_state, worktree
from persona.history.history import HEADS, TAGS, History, signature
from persona.history.results import Head, SwitchResult
from persona.history.revisions import MOVED, branch_named, resolve
from persona.history.walk import walk
from persona.objects.commit import Person
from persona.objects.ids import abbreviate, is_id
from persona.objects.names import check_ref_name
from persona.store.refs import HEAD
from persona.weights.foreign import is_weight_name

MOVE: Final = "move"
"""state/move: the commits that text files are on their way from and to, while they are."""


@dataclass(frozen=True)
class Target:
    """Where HEAD is to go: a commit, and the full ref of the branch to attach to, or None to detach."""

    id: str
    branch: str | None


@dataclass(frozen=True)
class FileMove:
    """Text files to put in place: what they shall be, what they are, and which of them change."""

    target: Mapping[str, str]
    current: Mapping[str, str]
    paths: tuple[str, ...]

    to: str | None = None
    forced: bool = False
    """Whether edits are thrown away, and with them files that no commit holds."""
    dropped: tuple[str, ...] = ()
    """Those files. Their content stays in the store as long as nothing collects it."""

    @property
    def notes(self) -> list[str]:
        """Where the content of dropped files is found."""
        return [
            f"removed {path}, which no commit holds; its text: persona cat-file -p"
            f" {abbreviate(self.current[path])}"
            for path in self.dropped
        ]

    def apply(self, history: History) -> list[str]:
        """Writes and removes the files; returns their paths. `done` has to follow once HEAD has moved."""
        edits = worktree.edits_of(history, self.target, self.current, self.paths)
        self.check(history)
        if self.dropped:
            with history.store.objects.transaction() as tx:
                for path in self.dropped:
                    tx.put("blob", worktree.read(history.root, path) or b"")
        if self.paths and self.to is not None:
            history.store.state(MOVE).write({"from": history.head_commit(), "to": self.to})
        worktree.apply(history, edits)
        return list(edits)

    def check(self, history: History) -> None:
        """`Refused` where something stands in the way of the files, before any of them changes."""
        changed = [path for path in self.paths if self.target.get(path) != self.current.get(path)]
        removed = [path for path in changed if path not in self.target]
        worktree.check_room(history.root, [path for path in changed if path in self.target], removed)

    def done(self, history: History) -> None:
        """HEAD has moved: the files belong to it now."""
        if self.paths and self.to is not None:
            history.store.state(MOVE).remove()
        tracking.forget(history, None if self.forced else self.target)


def target_of(history: History, text: str) -> Target:
    """What a revision means to `checkout`: a branch attaches, anything else detaches."""
    branch = branch_named(history, text)
    return Target(resolve(history, branch or text), branch)


def plan_files(history: History, to: str, *, force: bool) -> FileMove:
    """What moving the work tree from HEAD to commit `to` changes. Raises `Refused` naming edits that would be
    lost, or files that stand in the way.
    """
    before = history.files_of(history.head_commit())
    after = history.files_of(to)
    known = tracking.tracked(history).paths
    here = tracking.ids(history, {*known, *before, *after})
    if force:  # a new file that no blob can hold is not dropped: nothing would be left of it
        here = {path: id for path, id in here.items() if is_id(id) or path in before or path in after}
    known_now = here if force else before
    moving = [path for path in sorted({*known_now, *after}) if known_now.get(path) != after.get(path)]
    lost = [path for path in moving if here.get(path) not in (before.get(path), after.get(path))]
    if lost and not force:
        foreign = [path for path in lost if path not in known]
        if foreign:
            raise Refused(
                f"{', '.join(foreign)}: not tracked, and would be overwritten; move it away, or -f"
                " overwrites it"
            )
        raise Refused(
            f"{', '.join(lost)}: edited and not committed, and would be overwritten; commit first, or"
            " -f throws the edits away"
        )
    dropped = [path for path in moving if path in here and path not in before and path not in after]
    move = FileMove(after, here, tuple(moving), to, force, tuple(dropped))
    move.check(history)
    return move


def take_back(history: History) -> None:
    """Puts back the files that a move placed before it was cut short: HEAD had not followed. Edits stay."""
    state = history.store.state(MOVE)
    move = state.read()
    if move is None:
        return
    head = history.head_commit()
    if move["from"] == head:
        before, after = history.files_of(head), history.files_of(move["to"])
        here = tracking.snapshot(history, {*before, *after})
        placed = [path for path in sorted({*before, *after}) if here.get(path) == after.get(path)]
        worktree.put(history, before, here, placed)
    state.remove()


def new_branch(history: History, name: str, id: str) -> Target:
    """The branch that a command is to make at `id`, and HEAD's way there; `Refused` when it exists.

    One that the same command made before it was cut short, with HEAD still where it was, is taken up.
    """
    ref = HEADS + check_ref_name(name)
    if history.store.refs.read(ref) is not None and not _half_made(history, ref, id):
        raise Refused(f"a branch named {name} exists already; `persona switch {name}` goes there")
    return Target(id, ref)


def _half_made(history: History, ref: str, id: str) -> bool:
    """Whether a branch was made at `id` by a command that was cut before HEAD went there."""
    refs, head = history.store.refs, history.head()
    name, made = ref.removeprefix(HEADS), refs.log(ref)
    reasons = {_created(verb, head) for verb in ("checkout", "switch")}
    if refs.read(ref) != id or head.branch == name or not made:
        return False
    if made[0].old is not None or made[0].why not in reasons:
        return False
    for entry in refs.log(HEAD):
        if entry.time < made[0].time:
            break
        moved = MOVED.match(entry.why)
        if moved is not None and name in moved.groups():
            return moved[2] == name  # a line whose move never happened: HEAD is not there
    return True


def _created(verb: str, head: Head) -> str:
    """Why a branch was made, as its reflog says."""
    return f"{verb}: Created from {head.branch or head.id or 'nothing'}"


def move_head(
    history: History, target: Target, person: Person, verb: str, *, create: bool = False
) -> list[str]:
    """Moves HEAD, making the branch first where asked (unless it is half made); returns notes about what it
    leaves.
    """
    refs = history.store.refs
    head = history.head()
    held = refs.head()
    who, when = signature(person)
    old = head.branch or head.id or "nothing"
    if create and target.branch is not None and refs.read(target.branch) is None:
        why = _created(verb, head)
        refs.update(target.branch, target.id, expect=None, who=who, when=when, why=why)
    new = target.branch.removeprefix(HEADS) if target.branch else target.id
    notes = left_behind(history, head, target)
    where = ("ref", target.branch) if target.branch else ("id", target.id)
    if where != held:
        why = f"{verb}: moving from {old} to {new}"
        refs.set_head(where, expect=held, who=who, when=when, why=why)  # type: ignore[arg-type]
    return notes


def left_behind(history: History, head: Head, target: Target) -> list[str]:
    """The sentence about commits that no branch or tag reaches once a detached HEAD leaves them."""
    if head.branch is not None or head.id is None or head.id == target.id:
        return []
    reachable = [target.id, *history.store.refs.list(HEADS).values()]
    reachable += [resolve(history, name) for name in history.store.refs.list(TAGS)]
    first = next(walk(history, [head.id], reachable), None)
    if first is None:
        return []
    short = abbreviate(head.id)
    subject = history.commit(head.id).message.split("\n", 1)[0]
    return [f"left {short} ({subject}), which no branch names; keep it with: persona branch NAME {short}"]


def switch(
    history: History,
    target: str | None,
    person: Person,
    *,
    create: str | None,
    detach: bool,
    force: bool,
) -> SwitchResult:
    """See `Repository.switch`."""
    if create is not None:
        goal = new_branch(history, create, resolve(history, target or "HEAD"))
    elif target is None:
        if not detach:
            raise UsageError("switch where? Name a branch, or make one with -c NEW")
        goal = Target(history.head_commit(), None)
    elif detach:
        goal = Target(resolve(history, target), None)
    else:
        goal = target_of(history, target)
        if goal.branch is None and target != "-":
            raise UsageError(
                f"{target} is no branch; `persona switch --detach {target}` goes there without one,"
                f" `persona switch -c NEW {target}` makes one there"
            )
    with history.changing():
        move = plan_files(history, goal.id, force=force)
        move.apply(history)
        notes = move_head(history, goal, person, "switch", create=create is not None)
        move.done(history)
        return _where(history, [*move.notes, *notes])


def reset(history: History, rev: str, mode: Literal["soft", "mixed", "hard"], person: Person) -> SwitchResult:
    """See `Repository.reset`."""
    if mode not in ("soft", "mixed", "hard"):
        raise UsageError(f"reset knows soft, mixed and hard, not {mode!r:.40}")
    to = resolve(history, rev)
    with history.changing():
        head = history.head_commit()
        move = plan_files(history, to, force=True) if mode == "hard" else None
        if move:
            move.apply(history)
        elif mode == "soft":
            tracking.add(history, set(history.files_of(head)) - set(history.files_of(to)))
        notes = left_behind(history, history.head(), Target(to, None))
        who, when = signature(person)
        history.store.refs.advance(to, expect=head, who=who, when=when, why=f"reset: moving to {rev}")
        if move:
            move.done(history)
        elif mode == "mixed":
            tracking.forget(history)
        return _where(history, [*(move.notes if move else ()), *notes])


def restore(history: History, paths: Sequence[str], rev: str) -> tuple[str, ...]:
    """See `Repository.restore`."""
    if not paths:
        raise UsageError("restore which file? Name one or more; `persona status` lists those that changed")
    id = resolve(history, rev)
    with history.changing():
        target, known = history.files_of(id), history.files_of(history.head_commit())
        tracked = tracking.tracked(history).paths
        here = tracking.ids(history, {*tracked, *target})
        chosen = _chosen(paths, target, known, here, rev)
        way = [path for path in here if path not in target and _gives_way(history, path, chosen, here, known)]
        tracking.add(history, [path for path in chosen if path in target and path not in tracked])
        return tuple(worktree.put(history, target, here, dict.fromkeys([*chosen, *way])))


def _gives_way(
    history: History, path: str, chosen: Iterable[str], here: Mapping[str, str], known: Mapping[str, str]
) -> bool:
    """Whether a file makes room for the chosen: one in a directory that is a file there, or one that is a
    directory there. What HEAD does not track, and an edit of a file that was not named, have to be in the
    store.
    """
    below = any(path.startswith(f"{other}/") for other in chosen)
    if not below and not any(other.startswith(f"{path}/") for other in chosen):
        return False
    return (below and path in known) or history.store.objects.kind_of(here[path]) == "blob"


def _chosen(
    paths: Sequence[str],
    target: Mapping[str, str],
    known: Mapping[str, str],
    here: Mapping[str, str],
    rev: str,
) -> list[str]:
    """The files that `paths` name: those of `rev`, and those of HEAD, which go where `rev` has none. A file
    that no commit holds stays as it is.
    """
    found: dict[str, None] = {}
    for path in paths:
        clean = path.removeprefix("./").rstrip("/")

        def named(name: str, clean: str = clean) -> bool:
            return clean == "." or name == clean or name.startswith(f"{clean}/")

        matches = [name for name in sorted({*target, *known}) if named(name)]
        if not matches:
            new = any(map(named, here))
            what = "it is new; delete it to drop it" if new else "`persona status` lists those that changed"
            if is_weight_name(clean):
                what = "weights come back with `persona checkout`"
            raise UnknownName(f"{rev} has no file {path}; {what}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _where(history: History, notes: list[str]) -> SwitchResult:
    head = history.head()
    committed = recipe = history.recipe_of(head.id) if head.id else None
    with suppress(PersonaError):  # edits that are carried along
        recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    found = weights_state.look(history, locked=True)
    return SwitchResult(
        branch=head.branch,
        id=head.id,
        weights=weights_state.describe(found, head.id, committed, recipe),
        notes=tuple(notes),
    )
