"""**repository** — a work tree with its `.persona`: the library's face. Each method delegates to one module of this folder.

A repository holds the shared lock of `.persona` from `open` to `close`. It never prints, prompts or reads the environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from persona.errors import NotARepository
from persona.history import identity, revisions
from persona.history.config import Config
from persona.history.history import History
from persona.history.results import (
    CheckoutResult,
    CommitEntry,
    CommitResult,
    Diff,
    DigestResult,
    FsckResult,
    Head,
    ObjectCount,
    ObjectText,
    Progress,
    RefInfo,
    ReflogEntry,
    Status,
    SwitchResult,
    VectorInfo,
)
from persona.limits import CHUNK_ELEMENTS
from persona.objects.commit import Person
from persona.store.store import DIRECTORY, Store

AnyPath = str | PathLike[str]


class Repository:
    """An open repository. Use as a context manager, or `close` it."""

    def __init__(self, history: History, author: Person | None = None) -> None:
        self._history = history
        self._author = author
        self._held = ExitStack()
        self._held.enter_context(history.store.shared())

    # -- making and opening ------------------------------------------------------------------------------------------

    @staticmethod
    def init(
        path: AnyPath = ".",
        *,
        base: AnyPath | None = None,
        name: str | None = None,
        author: Person | None = None,
        user_config: AnyPath | None = None,
        chunk: int = CHUNK_ELEMENTS,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Makes a repository at `path` and its first commit: the base alone, on `main`, density 1.

        Without `base`, `path` is a model directory: that model is the base, its weights the clean work tree.
        `name` is the base's name, by default its directory's. Raises `InvalidInput` for a checkpoint that cannot be taken,
        `Refused` where a repository is already.
        """
        from persona.history import imports

        place = Path(path)
        config = Config(place / DIRECTORY / "config", _optional(user_config))
        return imports.init(
            place,
            _optional(base),
            name,
            identity.person(config, author),
            chunk=chunk,
            threads=threads,
            progress=progress,
        )

    @staticmethod
    def open(
        path: AnyPath = ".", *, user_config: AnyPath | None = None, author: Person | None = None
    ) -> Repository:
        """The repository at `path` or above it; `NotARepository` otherwise.

        `user_config` is the user's own config file; `author` signs what this object commits unless a call names another
        (default: `user.name` and `user.email` of the config, else the account's name and host, now).
        """
        store = Store.open(_find_root(Path(path)))
        return Repository(History(store, Config(store.config_path, _optional(user_config))), author)

    def close(self) -> None:
        """Lets go of the shared lock and of open files."""
        self._held.close()
        self._history.store.objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root(self) -> Path:
        """The work tree."""
        return self._history.root

    @property
    def notes(self) -> list[str]:
        """Sentences for the user that belong to no result, such as a reflog that does not go back that far."""
        return self._history.notes

    # -- looking -----------------------------------------------------------------------------------------------------

    def head(self) -> Head:
        """Where HEAD stands."""
        return self._history.head()

    def resolve(self, rev: str = "HEAD") -> str:
        """The full commit id of a revision (docs/commands.md, "Revisions"). Raises `UnknownRevision`."""
        return revisions.resolve(self._history, rev)

    def entry(self, rev: str = "HEAD") -> CommitEntry:
        """One commit."""
        from persona.history.views import Entries

        return Entries(self._history).of(self.resolve(rev))

    def log(
        self,
        revs: str | Sequence[str] = ("HEAD",),
        *,
        all: bool = False,
        n: int | None = None,
        since: str | None = None,
        until: str | None = None,
        vector: str | None = None,
        topological: bool = False,
    ) -> Iterator[CommitEntry]:
        """Commits reachable from `revs` (each a revision, `A..B`, `A...B` or `^A`), newest first, streaming.

        `all` starts from every ref. `since` and `until` are dates. `vector`: only commits that change the term of that name.
        `topological`: no commit before all its children (for drawing a graph; reads all of it first).
        """
        from persona.history import views

        return views.log(
            self._history,
            [revs] if isinstance(revs, str) else list(revs),
            all=all,
            n=n,
            since=since,
            until=until,
            vector=vector,
            in_topological_order=topological,
            now=int(time.time()),
        )

    def status(self) -> Status:
        """Branch, recipe and text files against HEAD, and what the weights are."""
        from persona.history.status import status

        return status(self._history)

    def diff(self, a: str | None = None, b: str | None = None) -> Diff:
        """No argument: HEAD against the work tree; one: it against the work tree; two: the first against the second.
        `a` alone may be `A..B` or `A...B`."""
        from persona.history import changes

        return changes.diff(self._history, a, b)

    def show(self, rev: str = "HEAD") -> tuple[CommitEntry, Diff]:
        """A commit, and what it changed against its first parent."""
        from persona.history.changes import diff_commits

        entry = self.entry(rev)
        return entry, diff_commits(self._history, entry.parents[0] if entry.parents else None, entry.id)

    def vectors(self) -> list[VectorInfo]:
        """The vectors of `recipe.toml` in canonical order of its terms, then those that only a ref names."""
        from persona.history import vectors

        return vectors.infos(self._history)

    def vector(self, name: str) -> VectorInfo:
        """A vector by name in the recipe, by kept name, or by the start of its id."""
        from persona.history import vectors

        return vectors.named(self._history, name)

    def digest(
        self, rev: str | None = None, *, threads: int | None = None, progress: Progress | None = None
    ) -> DigestResult:
        """The weights digest of a revision, or of `recipe.toml` as it stands, without writing files."""
        from persona.history import checkout

        return checkout.digest(self._history, rev, threads, progress)

    def materialise(
        self,
        rev: str | None = None,
        *,
        torch: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """The merged tensors one at a time, in byte order of names, as (name, array).

        numpy arrays of the tensor's shape; bf16 comes as uint16 whose `.tensor_dtype` says "BF16" (a `TensorArray`).
        With `torch`, torch tensors of the true dtype instead. `rev` None: `recipe.toml` as it stands.
        """
        from persona.history.arrays import arrays
        from persona.history.checkout import chosen_recipe

        _, recipe = chosen_recipe(self._history, rev)
        return arrays(self._history, recipe, torch=torch, threads=threads, progress=progress)

    # -- changing the recipe -----------------------------------------------------------------------------------------

    def add(
        self,
        path: AnyPath,
        *,
        name: str | None = None,
        alpha: str | float | None = None,
        density: str | float | None = None,
        only: Sequence[str] | None = None,
        except_: Sequence[str] | None = None,
        onto: str | None = None,
        missing: Literal["refuse", "zero"] = "refuse",
        extra: Literal["refuse", "ignore"] = "refuse",
        cast: bool = False,
        files: bool = False,
        author: Person | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Imports a fine-tune as a vector and edits `recipe.toml`; `id` of the result is None."""
        from persona.history import imports

        options = imports.Options(
            name=name,
            alpha=alpha,
            density=density,
            only=only,
            except_=except_,
            onto=onto,
            missing=missing,
            extra=extra,
            cast=cast,
            files=files,
            threads=threads,
            progress=progress,
        )
        with self._history.store.worktree_lock():
            added = imports.add(self._history, Path(path), options)
        head = self.head()
        parents = (head.id,) if head.id else ()
        return CommitResult(None, head.branch, parents, (added.change,), added.notes)

    def commit(
        self,
        path: AnyPath | None = None,
        *,
        message: str | None = None,
        amend: bool = False,
        allow_empty: bool = False,
        author: Person | None = None,
        name: str | None = None,
        alpha: str | float | None = None,
        density: str | float | None = None,
        only: Sequence[str] | None = None,
        except_: Sequence[str] | None = None,
        onto: str | None = None,
        missing: Literal["refuse", "zero"] = "refuse",
        extra: Literal["refuse", "ignore"] = "refuse",
        cast: bool = False,
        files: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """With `path`: `add`, then a commit. Without: commits `recipe.toml` and the text files of the work tree.

        No `message`: `UsageError` (with `amend`, the old message stays). "nothing to commit" is `Refused`.
        """
        from persona.history import imports, recording

        history, person = self._history, self._person(author)
        options = imports.Options(
            name=name,
            alpha=alpha,
            density=density,
            only=only,
            except_=except_,
            onto=onto,
            missing=missing,
            extra=extra,
            cast=cast,
            files=files,
            threads=threads,
            progress=progress,
        )
        with history.store.worktree_lock():
            added: imports.Added | None = None
            if path is not None:
                if not amend or message is not None:
                    recording.tidy(message)
                added = imports.add(history, Path(path), options)
            else:
                imports.refuse_without_path(options)
            result = recording.record(
                history,
                person,
                message,
                amend=amend,
                allow_empty=allow_empty,
                imported={added.change.name: added.change} if added else {},
                notes=added.notes if added else (),
            )
        return self._with_weights(result, threads=threads, progress=progress)

    def set_term(
        self,
        name: str,
        *,
        alpha: str | float | None = None,
        density: str | float | None = None,
        only: Sequence[str] | None = None,
        except_: Sequence[str] | None = None,
        join: str | None = None,
    ) -> None:
        """Edits one term in `recipe.toml`; None leaves a key as it is, an empty filter removes it."""
        from persona.history import editing

        editing.set_term(self._history, name, alpha, density, only, except_, join)

    def set_rules(self, axes: Mapping[str, str | float]) -> None:
        """Edits `[merge]`: `preset` and any axis. Setting a preset drops the axes set before, unless given too."""
        from persona.history import editing

        editing.set_rules(self._history, axes)

    def remove_term(self, name: str) -> None:
        """Drops a term from `recipe.toml`; the vector stays in history."""
        from persona.history import editing

        editing.remove_term(self._history, name)

    def rename_term(self, old: str, new: str) -> None:
        """Renames a term in `recipe.toml`."""
        from persona.history import editing

        editing.rename_term(self._history, old, new)

    def remove_vector(self, name: str) -> None:
        """Forgets the kept name of a vector that no recipe names; `Refused` while `recipe.toml` names it."""
        from persona.history import vectors

        vectors.forget(self._history, name, self._person())

    def revert(
        self,
        target: str,
        *,
        vector: bool = False,
        mainline: int | None = None,
        message: str | None = None,
        no_commit: bool = False,
        author: Person | None = None,
    ) -> CommitResult:
        """Undoes one commit's change, or (`vector`, or where only a term has that name) drops a term.

        A conflict is `Refused` with both sides; nothing moves. `mainline`: the parent of a merge to go back to, from 1.
        """
        from persona.history.revert import revert

        result = revert(
            self._history,
            target,
            self._person(author),
            vector=vector,
            mainline=mainline,
            message=message,
            no_commit=no_commit,
        )
        return result if no_commit else self._with_weights(result)

    # -- moving ------------------------------------------------------------------------------------------------------

    def checkout(
        self,
        rev: str | None = None,
        *,
        branch: str | None = None,
        out: AnyPath | None = None,
        device: str = "auto",
        threads: int | None = None,
        max_shard_size: int | None = None,
        dtype: str | None = None,
        weights: bool = True,
        force: bool = False,
        allow_nonfinite: bool = False,
        author: Person | None = None,
        progress: Progress | None = None,
    ) -> CheckoutResult:
        """Moves HEAD to `rev` (a branch attaches, anything else detaches, "-" goes back) with its files and weights.

        Without `rev`: the weights of `recipe.toml` as it stands. `branch` makes that branch at `rev` and attaches to it.
        `out`: a model directory elsewhere; HEAD stays. `max_shard_size` in bytes. `dtype`: "bfloat16" | "float16" |
        "float32" for the written floats, with `out` alone. `weights=False`: text files only.
        """
        from persona.history import checkout

        options = checkout.Options(
            device=device,
            threads=threads,
            max_shard_size=max_shard_size,
            dtype=dtype,
            weights=weights,
            force=force,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        )
        return checkout.checkout(self._history, rev, branch, _optional(out), self._person(author), options)

    def restore(self, paths: Sequence[str], rev: str = "HEAD") -> tuple[str, ...]:
        """Puts tracked text files of `rev` back into the work tree; returns the paths."""
        from persona.history import moving

        return moving.restore(self._history, [paths] if isinstance(paths, str) else paths, rev)

    def switch(
        self,
        target: str | None = None,
        *,
        create: str | None = None,
        detach: bool = False,
        force: bool = False,
        author: Person | None = None,
    ) -> SwitchResult:
        """Moves HEAD and the text files to a branch ("-": the one before), computing no weights.

        `create` makes that branch at `target` (HEAD by default). Anything but a branch needs `detach`.
        """
        from persona.history import moving

        person = self._person(author)
        return moving.switch(self._history, target, person, create=create, detach=detach, force=force)

    def reset(
        self,
        rev: str = "HEAD",
        mode: Literal["soft", "mixed", "hard"] = "mixed",
        *,
        author: Person | None = None,
    ) -> SwitchResult:
        """Moves the branch (or a detached HEAD) to `rev`. "hard" puts its text files in place too; there is no staging
        area, so "soft" and "mixed" both keep the work tree."""
        from persona.history import moving

        return moving.reset(self._history, rev, mode, self._person(author))

    # -- refs --------------------------------------------------------------------------------------------------------

    def branches(self) -> list[RefInfo]:
        """The branches, by name."""
        from persona.history import refnames

        return refnames.branches(self._history)

    def create_branch(
        self, name: str, rev: str = "HEAD", *, force: bool = False, author: Person | None = None
    ) -> RefInfo:
        """Makes a branch; `force` moves one that exists."""
        from persona.history import refnames

        return refnames.create_branch(self._history, name, rev, force, self._person(author))

    def delete_branch(self, name: str, *, force: bool = False, author: Person | None = None) -> str:
        """Deletes a branch and returns its id; `Refused` when it is current, or not reachable from HEAD unless `force`."""
        from persona.history import refnames

        return refnames.delete_branch(self._history, name, force, self._person(author))

    def rename_branch(
        self, old: str | None, new: str, *, force: bool = False, author: Person | None = None
    ) -> None:
        """Renames a branch (None: the current one), its reflog with it."""
        from persona.history import refnames

        refnames.rename_branch(self._history, old, new, force, self._person(author))

    def tags(self) -> list[RefInfo]:
        """The tags, by name."""
        from persona.history import refnames

        return refnames.tags(self._history)

    def create_tag(
        self,
        name: str,
        rev: str = "HEAD",
        *,
        message: str | None = None,
        force: bool = False,
        author: Person | None = None,
    ) -> RefInfo:
        """Makes a tag; annotated when `message` is given."""
        from persona.history import refnames

        return refnames.create_tag(self._history, name, rev, message, force, self._person(author))

    def delete_tag(self, name: str, *, author: Person | None = None) -> str:
        """Deletes a tag and returns what it named."""
        from persona.history import refnames

        return refnames.delete_tag(self._history, name, self._person(author))

    def reflog(self, ref: str = "HEAD") -> list[ReflogEntry]:
        """The moves of HEAD or of a branch, newest first."""
        from persona.history import refnames

        return refnames.reflog(self._history, ref)

    # -- config ------------------------------------------------------------------------------------------------------

    def config_get(self, key: str) -> str | None:
        """A value as text: the repository's, else the user's; None when neither has it."""
        return self._history.config.get(key)

    def config_set(self, key: str, value: str, *, user: bool = False) -> None:
        """Sets a key ("user.name") in the repository's file or in the user's."""
        self._history.config.set(key, value, user=user)

    def config_unset(self, key: str, *, user: bool = False) -> None:
        """Removes a key; `UnknownName` when it is not set there."""
        self._history.config.unset(key, user=user)

    def config_list(self) -> dict[str, str]:
        """Every key and the value in force."""
        return self._history.config.values()

    # -- plumbing ----------------------------------------------------------------------------------------------------

    def fsck(self, *, full: bool = False, progress: Progress | None = None) -> FsckResult:
        """Checks every record, ref, reflog and everything reachable; `full` recomputes every id too."""
        from persona.history.fsck import fsck

        return fsck(self._history, full, progress)

    def count_objects(self) -> ObjectCount:
        """Objects, packs and bytes on disk."""
        from persona.history import plumbing

        return plumbing.count_objects(self._history)

    def cat_file(self, id: str) -> ObjectText:
        """An object by the start of its id, or by revision."""
        from persona.history import plumbing

        return plumbing.cat_file(self._history, id)

    def _person(self, author: Person | None = None) -> Person:
        return identity.person(self._history.config, author or self._author)

    def _with_weights(
        self,
        result: CommitResult,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """The result, with the weights computed at once where `commit.checkout` says so."""
        if not self._history.config.flag("commit.checkout"):
            return result
        return replace(result, checkout=self.checkout(threads=threads, progress=progress))


def _optional(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)


def _find_root(path: Path) -> Path:
    """The directory at `path` or above it that holds a repository."""
    start = path.absolute()
    for place in (start, *start.parents):
        if os.path.lexists(place / DIRECTORY):
            return place
    raise NotARepository(f"{path} is in no persona repository; make one with: persona init --base MODEL")
