"""`commit`: the work tree as it stands. A path is imported first, or tracked where it is a text file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from persona.errors import InvalidInput, PersonaError, SystemFault
from persona.history.commit_builder import record, tidy
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.results import CommitResult
from persona.history.vectors import importing, kept_names
from persona.history.vectors.importing import Added
from persona.history.worktree import in_place, tracking
from persona.history.worktree.changing import changing
from persona.objects.commit import Person


def commit(
    history: History,
    path: Path | None,
    message: str | None,
    person: Person,
    options: ImportOptions,
    *,
    amend: bool,
    allow_empty: bool,
) -> CommitResult:
    """See `Repository.commit`. The weights that the setting `commit.checkout` asks for are not computed."""
    with changing(history) as tree:
        added: Added | None = None
        texts: Sequence[str] | None = ()
        if path is not None:
            if not amend or message is not None:
                tidy(message)
            texts = tracking.named_files(history, [path])
        if texts is not None:
            importing.refuse_without_path({**options, "files": options["files"] and path is None})
            tree.track(texts)
        elif path is not None:
            added = importing.add(tree, path, options, keep=False)
        try:
            result = record(
                tree,
                person,
                message,
                amend=amend,
                allow_empty=allow_empty,
                imported={added.change.name: added.change} if added else {},
                notes=added.notes if added else (),
            )
        except PersonaError:
            if added:
                kept_names.keep(history, added.change.name, added.change.id)
            raise
        told = in_place.edited_notes(tree) if added is None else []
        result = replace(result, files=tuple(texts or ()), notes=(*result.notes, *told))
        if added and path is not None and options["onto"] not in (None, "base"):
            said = _difference_note(history, path, options)
            result = replace(result, notes=(*result.notes, said))
    return result


def _difference_note(history: History, path: Path, options: ImportOptions) -> str:
    """The note on how near HEAD comes to the checkpoint that was imported.

    The commit is made. So it is no failure if the checkpoint has changed since.
    """
    from persona.history.planning import plan_of
    from persona.measure.difference import largest_difference

    try:
        gap = largest_difference(
            plan_of(history, history.recipe_of(history.head_commit())),
            path,
            threads=options["threads"],
            memory=history.config.read("checkout.memory"),
            progress=options["progress"],
        )
    except (InvalidInput, SystemFault) as error:
        return f"HEAD was not compared with the trained weights: {error.message}"
    return f"HEAD differs from the trained weights by {gap:.3g} at most"
