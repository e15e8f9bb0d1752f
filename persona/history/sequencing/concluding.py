"""The commit at which a sequence stopped, made from the work tree: by `--continue`, or by `commit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from persona.errors import Call, Note, Refused
from persona.history.commit_builder import record
from persona.history.results import CommitResult, VectorChange
from persona.history.sequencing import moving
from persona.history.sequencing.state import METHODS, Sequence, read_sequence
from persona.history.worktree.locked import LockedTree
from persona.objects.commit import Person, Signer

_VERBS = {"merge": "commit (merge)", "cherry-pick": "commit (cherry-pick)"}


def reflog_verb(sequence: Sequence) -> str:
    """The words of the reflog for the commit of a stop, as git's."""
    squashed = sequence.verb == "merge" and sequence.stop is not None and len(sequence.stop.parents) == 1
    return "commit" if squashed else _VERBS.get(sequence.verb, "commit")


def commit(
    tree: LockedTree,
    sequence: Sequence,
    message: str | None,
    author: Signer,
    imported: Mapping[str, VectorChange],
    notes: tuple[str, ...],
) -> CommitResult:
    """Concludes a stop as `commit` does, and ends the sequence if no other commit waits."""
    who = None if author is None else tree.history.author(author)
    done = conclude(
        tree, sequence, message, reflog_verb(sequence), author=who, imported=imported, notes=notes
    )
    return replace(done, notes=(*done.notes, *after_commit(tree, sequence)))


def conclude(
    tree: LockedTree,
    sequence: Sequence,
    message: str | None,
    verb: str,
    *,
    author: Person | None = None,
    imported: Mapping[str, VectorChange] | None = None,
    notes: tuple[str, ...] = (),
) -> CommitResult:
    """Commits the work tree as the commit at which a sequence stopped.

    `state/sequence` says which commit it is before HEAD moves there. The caller goes on, or ends it.
    """
    stop = sequence.stop
    assert stop is not None
    who = author or stop.author or tree.history.author()

    def announce(id: str) -> None:
        tree.sequence(replace(sequence, phase="concluding", commit=id).to_json())

    return record(
        tree,
        who,
        stop.message if message is None else message,
        amend=stop.amends,
        allow_empty=sequence.verb == "merge" or stop.amends,
        imported=imported,
        notes=notes,
        verb=verb,
        parents=stop.parents,
        sources=(stop.theirs,) if stop.theirs else (),
        announce=announce,
    )


def waiting_for_commit(tree: LockedTree, *, amend: bool) -> Sequence | None:
    """The sequence whose stop `commit` concludes; None if a commit is one as any other.

    `Refused` if conflicts stand, and for an amendment in the middle of a merge.
    """
    sequence = read_sequence(tree.history)
    if sequence is None:
        tree.sequence(None)  # over, but for the state of a command that was cut short
        return None
    moving.refuse_leaving(sequence)
    if sequence.phase == "placing":
        hint = (Call(METHODS[sequence.verb], continue_=True), " writes its files again")
        raise Refused(f"this {sequence.verb} was cut short", hint=hint)
    stop = sequence.stop
    if stop is None or stop.why == "edit":
        return None
    if amend:
        raise Refused(
            f"the {sequence.verb} is not concluded, so there is no commit of it to amend",
            hint=(Call("commit"), " concludes it"),
        )
    moving.refuse_standing(tree, sequence)
    return sequence


def after_commit(tree: LockedTree, sequence: Sequence) -> tuple[str, ...]:
    """Ends a sequence whose last commit was made, or says that others wait."""
    moving.settle_with(tree, sequence)
    count = len(sequence.todo)
    if not count and sequence.verb != "rebase":
        return ()
    others = "1 commit waits" if count == 1 else f"{count} commits wait"
    said = f"{others}" if count else "the rebase is not finished"
    return (Note(said, (Call(METHODS[sequence.verb], continue_=True), " goes on")),)
