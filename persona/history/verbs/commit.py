"""`commit`: the work tree as it stands. A path is imported first, or tracked where it is a text file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from persona.errors import InvalidInput, PersonaError, SystemFault
from persona.history import commit_checkout
from persona.history.arguments import AnyPath, refuse_without_path
from persona.history.commit_builder import record, tidy
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.results import CommitResult
from persona.history.vectors import kept_names
from persona.history.worktree import in_place, sequence, tracking
from persona.history.worktree.changing import changing
from persona.objects.commit import Signer

if TYPE_CHECKING:
    from persona.history.vectors.importing import Added
    from persona.merge.plan import Plan


def commit(
    history: History,
    path: AnyPath | None = None,
    *,
    message: str | None = None,
    amend: bool = False,
    allow_empty: bool = False,
    author: Signer = None,
    reset_author: bool = False,
    **options: Unpack[ImportOptions],
) -> CommitResult:
    """Commits `recipe.toml` and the tracked text files of the work tree.

    `path` is added as by `add`. Without a `message` this raises `UsageError` (with `amend`, the old message
    stays). Raises `Refused` if there is nothing to commit. `author`: by default the author given to `open`.
    An amended commit keeps its author and their date unless `reset_author`. With the setting
    `commit.checkout` the weights are computed at once. If that fails, the commit stands, and the result's
    `failure` is the error.
    """
    how = history.in_force(ImportOptions, options)
    place = None
    if path is not None:
        from persona.weights.hub import located

        place = located(Path(path), how["progress"])
    wanted = commit_checkout.wanted(history, place, how)
    new = {"amend": amend, "reset_author": reset_author, "allow_empty": allow_empty}
    made = _commit(history, place, message, author, how, **new)
    return commit_checkout.at_once(history, made, wanted)


def prepared_message(history: History) -> str | None:
    """The message that `revert --no-commit` prepared for the next commit, or a merge that waits; or None."""
    if sequence.is_sequence_under_way(history):
        from persona.history.sequencing.state import read_sequence

        found = read_sequence(history)
        if found is not None and found.stop is not None and found.stop.why != "edit":
            return found.stop.message
    return sequence.prepared_message(history)


def _commit(
    history: History,
    path: Path | None,
    message: str | None,
    author: Signer,
    options: ImportOptions,
    *,
    amend: bool,
    reset_author: bool,
    allow_empty: bool,
) -> CommitResult:
    with changing(history) as tree:
        stopped = None
        if sequence.is_sequence_under_way(history):
            from persona.history.sequencing import concluding

            stopped = concluding.waiting_for_commit(tree, amend=amend)
        if sequence.is_unmerged(history):
            from persona.history.sequencing import unmerged

            unmerged.refuse_standing(history)
        added: Added | None = None
        texts: Sequence[str] | None = ()
        if path is not None:
            if not amend or message is not None:
                tidy(message)
            texts = tracking.named_files(history, [path])
        if texts is not None:
            refuse_without_path({**options, "files": options["files"] and path is None})
            tree.track(texts)
        elif path is not None:
            from persona.history.vectors import importing

            added = importing.add(tree, path, options, keep=False)
        imported = {added.change.name: added.change} if added else {}
        of_import = added.notes if added else ()
        try:
            if stopped is not None:
                result = concluding.commit(tree, stopped, message, author, imported, of_import)
            else:
                result = record(
                    tree,
                    history.author(author),
                    message,
                    amend=amend,
                    reset_author=reset_author,
                    allow_empty=allow_empty,
                    imported=imported,
                    notes=of_import,
                )
        except PersonaError:
            if added:
                kept_names.keep(history, added.change.name, added.change.id)
            raise
        edited = in_place.edited_notes(tree) if added is None else []
        result = replace(result, files=tuple(texts or ()), notes=(*result.notes, *edited))
        if added and path is not None and added.onto is not None and added.held:
            said = _difference_notes(history, path, added, added.onto, options)
            result = replace(result, notes=(*result.notes, *said))
    return result


def _difference_notes(
    history: History, path: Path, added: Added, before: Plan, options: ImportOptions
) -> list[str]:
    """The note on how near HEAD comes to the checkpoint that was imported.

    The commit is made. So it is no failure if the checkpoint has changed since.
    """
    from persona.history.vectors.onto import difference

    try:
        gap = difference(history, path, added.held, before, options)
    except (InvalidInput, SystemFault) as error:
        return [f"HEAD was not compared with the trained weights: {error.message}"]
    return [] if gap is None else [f"HEAD differs from the trained weights by {gap:.3g} at most"]
