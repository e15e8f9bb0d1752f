"""**repository** — a work tree with its `.persona`: the library's face. Each method delegates to one module of this folder.

A repository holds the shared lock of `.persona` from `open` to `close`. It never prints, prompts or reads the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

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

AnyPath = str | PathLike[str]


class Repository:
    """An open repository. Use as a context manager, or `close` it."""

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
        raise NotImplementedError

    @staticmethod
    def open(
        path: AnyPath = ".", *, user_config: AnyPath | None = None, author: Person | None = None
    ) -> Repository:
        """The repository at `path` or above it; `NotARepository` otherwise.

        `user_config` is the user's own config file; `author` signs what this object commits unless a call names another
        (default: `user.name` and `user.email` of the config, else the account's name and host, now).
        """
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of the shared lock and of open files."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root(self) -> Path:
        """The work tree."""
        raise NotImplementedError

    # -- looking -----------------------------------------------------------------------------------------------------

    def head(self) -> Head:
        """Where HEAD stands."""
        raise NotImplementedError

    def resolve(self, rev: str = "HEAD") -> str:
        """The full commit id of a revision (docs/commands.md, "Revisions"). Raises `UnknownRevision`."""
        raise NotImplementedError

    def entry(self, rev: str = "HEAD") -> CommitEntry:
        """One commit."""
        raise NotImplementedError

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
        raise NotImplementedError

    def status(self) -> Status:
        """Branch, recipe and text files against HEAD, and what the weights are."""
        raise NotImplementedError

    def diff(self, a: str | None = None, b: str | None = None) -> Diff:
        """No argument: HEAD against the work tree; one: it against the work tree; two: the first against the second.
        `a` alone may be `A..B` or `A...B`."""
        raise NotImplementedError

    def show(self, rev: str = "HEAD") -> tuple[CommitEntry, Diff]:
        """A commit, and what it changed against its first parent."""
        raise NotImplementedError

    def vectors(self) -> list[VectorInfo]:
        """The vectors of `recipe.toml` in canonical order of its terms, then those that only a ref names."""
        raise NotImplementedError

    def vector(self, name: str) -> VectorInfo:
        """A vector by name in the recipe, by kept name, or by the start of its id."""
        raise NotImplementedError

    def digest(
        self, rev: str | None = None, *, threads: int | None = None, progress: Progress | None = None
    ) -> DigestResult:
        """The weights digest of a revision, or of `recipe.toml` as it stands, without writing files."""
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    def set_rules(self, axes: Mapping[str, str | float]) -> None:
        """Edits `[merge]`: `preset` and any axis. Setting a preset drops the axes set before, unless given too."""
        raise NotImplementedError

    def remove_term(self, name: str) -> None:
        """Drops a term from `recipe.toml`; the vector stays in history."""
        raise NotImplementedError

    def rename_term(self, old: str, new: str) -> None:
        """Renames a term in `recipe.toml`."""
        raise NotImplementedError

    def remove_vector(self, name: str) -> None:
        """Forgets the kept name of a vector that no recipe names; `Refused` while `recipe.toml` names it."""
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    def restore(self, paths: Sequence[str], rev: str = "HEAD") -> tuple[str, ...]:
        """Puts tracked text files of `rev` back into the work tree; returns the paths."""
        raise NotImplementedError

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
        raise NotImplementedError

    def reset(
        self,
        rev: str = "HEAD",
        mode: Literal["soft", "mixed", "hard"] = "mixed",
        *,
        author: Person | None = None,
    ) -> SwitchResult:
        """Moves the branch (or a detached HEAD) to `rev`. "hard" puts its text files in place too; there is no staging
        area, so "soft" and "mixed" both keep the work tree."""
        raise NotImplementedError

    # -- refs --------------------------------------------------------------------------------------------------------

    def branches(self) -> list[RefInfo]:
        """The branches, by name."""
        raise NotImplementedError

    def create_branch(
        self, name: str, rev: str = "HEAD", *, force: bool = False, author: Person | None = None
    ) -> RefInfo:
        """Makes a branch; `force` moves one that exists."""
        raise NotImplementedError

    def delete_branch(self, name: str, *, force: bool = False, author: Person | None = None) -> str:
        """Deletes a branch and returns its id; `Refused` when it is current, or not reachable from HEAD unless `force`."""
        raise NotImplementedError

    def rename_branch(
        self, old: str | None, new: str, *, force: bool = False, author: Person | None = None
    ) -> None:
        """Renames a branch (None: the current one), its reflog with it."""
        raise NotImplementedError

    def tags(self) -> list[RefInfo]:
        """The tags, by name."""
        raise NotImplementedError

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
        raise NotImplementedError

    def delete_tag(self, name: str, *, author: Person | None = None) -> str:
        """Deletes a tag and returns what it named."""
        raise NotImplementedError

    def reflog(self, ref: str = "HEAD") -> list[ReflogEntry]:
        """The moves of HEAD or of a branch, newest first."""
        raise NotImplementedError

    # -- config ------------------------------------------------------------------------------------------------------

    def config_get(self, key: str) -> str | None:
        """A value as text: the repository's, else the user's; None when neither has it."""
        raise NotImplementedError

    def config_set(self, key: str, value: str, *, user: bool = False) -> None:
        """Sets a key ("user.name") in the repository's file or in the user's."""
        raise NotImplementedError

    def config_unset(self, key: str, *, user: bool = False) -> None:
        """Removes a key; `UnknownName` when it is not set there."""
        raise NotImplementedError

    def config_list(self) -> dict[str, str]:
        """Every key and the value in force."""
        raise NotImplementedError

    # -- plumbing ----------------------------------------------------------------------------------------------------

    def fsck(self, *, full: bool = False, progress: Progress | None = None) -> FsckResult:
        """Checks every record, ref, reflog and everything reachable; `full` recomputes every id too."""
        raise NotImplementedError

    def count_objects(self) -> ObjectCount:
        """Objects, packs and bytes on disk."""
        raise NotImplementedError

    def cat_file(self, id: str) -> ObjectText:
        """An object by the start of its id, or by revision."""
        raise NotImplementedError
