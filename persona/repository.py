"""**repository** — a work tree with its `.persona`; `Repository` is its Python interface.

Each method calls one verb of `history/verbs/`. A repository holds the shared lock of `.persona` from `open`
to `close`. It never prints, prompts or reads the environment.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persona.errors import Blank, Call, NotARepository, PersonaError
from persona.history import identity
from persona.history.arguments import checks_arguments
from persona.history.config import Config
from persona.history.history import History
from persona.history.results import CheckoutResult, CommitResult, SwitchResult
from persona.limits import CHUNK_ELEMENTS
from persona.objects.commit import Person
from persona.objects.ids import abbreviate
from persona.progress import Progress
from persona.queries import Queries
from persona.store import files
from persona.store.store import DIRECTORY, Store

if TYPE_CHECKING:
    from persona.history.query_results import RefInfo

AnyPath = str | PathLike[str]


@checks_arguments
class Repository(Queries):
    """An open repository. Use as a context manager, or `close` it."""

    @staticmethod
    def init(
        path: AnyPath = ".",
        *,
        base: AnyPath | None = None,
        name: str | None = None,
        author: Person | None = None,
        committer: Callable[[], Person] | None = None,
        user_config: AnyPath | None = None,
        chunk: int = CHUNK_ELEMENTS,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Makes a repository at `path` and its first commit: only the base, on `main`.

        The merge rules come from the user's config (`merge.preset`, `merge.density`, …), by default TIES at
        density 1. Without `base`, `path` is a model directory: that model is the base, and its weights the
        clean work tree. `name` is the base's name, by default its directory's. Raises `InvalidInput` for a
        checkpoint that cannot be taken, `Refused` if there is a repository already.
        """
        from persona.history.verbs import init as init_verb

        place = Path(path)
        if place.is_symlink() and place.is_dir():
            place = files.resolved(place)
        config = Config(place / DIRECTORY / "config", _optional(user_config))
        return init_verb.init(
            place,
            _optional(base),
            name,
            identity.person(config, author),
            config,
            committer,
            chunk=chunk,
            threads=threads,
            progress=progress,
        )

    @staticmethod
    def open(
        path: AnyPath = ".",
        *,
        user_config: AnyPath | None = None,
        author: Person | None = None,
        committer: Callable[[], Person] | None = None,
    ) -> Repository:
        """The repository at `path` or above it; raises `NotARepository` if there is none.

        `user_config` is the user's own config file. `author` is the author of commits, unless a call names
        another. `committer` is called at every commit and returns the committer, who also moves the refs.
        Both are by default `user.name` and `user.email` of the config, else the account's name and host, at
        the time now. Reflogs record the committer and the real time.
        """
        store = Store.open(_find_root(Path(path)))
        config = Config(store.config_path, _optional(user_config))
        return Repository(History(store, config, committer_of=committer), author)

    def add(
        self,
        path: AnyPath,
        *more: AnyPath,
        name: str | None = None,
        alpha: str | float | None = None,
        density: str | float | None = None,
        only: str | Sequence[str] | None = None,
        except_: str | Sequence[str] | None = None,
        onto: str | None = None,
        missing: Literal["refuse", "zero"] = "refuse",
        extra: Literal["refuse", "ignore"] = "refuse",
        cast: bool = False,
        files: bool = False,
        replace: bool = False,
        author: Person | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Imports a fine-tune as a vector and edits `recipe.toml`; `id` of the result is None.

        `name`: by default PATH's last part (the run's for `checkpoint-N`). A vector of that name gets the new
        content. Without `name`, this raises `Refused` if the old vector is known to come from another place,
        unless `replace`. `only` and `except_`: globs of tensor names, or one glob. Raises `InvalidInput` for
        a filter that matches no tensor, and for a checkpoint that cannot be taken.

        If the paths are text files of the work tree, or directories of them, they are tracked from now on;
        `files` of the result has their names. Raises `InvalidInput` for a file that no commit can hold.
        """
        from persona.history.options import ImportOptions
        from persona.history.verbs import add as add_verb

        options = ImportOptions(
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
            replace=replace,
            threads=threads,
            progress=progress,
        )
        return add_verb.add(
            self._history, [Path(path), *map(Path, more)], self._complete(ImportOptions, options)
        )

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
        only: str | Sequence[str] | None = None,
        except_: str | Sequence[str] | None = None,
        onto: str | None = None,
        missing: Literal["refuse", "zero"] = "refuse",
        extra: Literal["refuse", "ignore"] = "refuse",
        cast: bool = False,
        files: bool = False,
        replace: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Commits `recipe.toml` and the tracked text files of the work tree; with `path`, adds that first.

        `path` is added as by `add`. Without a `message` this raises `UsageError` (with `amend`, the old
        message stays). Raises `Refused` if there is nothing to commit. With the setting `commit.checkout` the
        weights are computed at once. If that fails, the commit stands, and the result's `failure` is the
        error.
        """
        from persona.history.options import ImportOptions, complete
        from persona.history.verbs import commit as commit_verb

        person = self._writer(author)
        options = ImportOptions(
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
            replace=replace,
            threads=threads,
            progress=progress,
        )
        where = self._wanted_weights(path)
        made = commit_verb.commit(
            self._history,
            _optional(path),
            message,
            person,
            complete(ImportOptions, options, setting=None if path is None else self._history.config.read),
            amend=amend,
            allow_empty=allow_empty,
        )
        return self._with_weights(made, where, threads=threads, progress=progress)

    def set_term(
        self,
        name: str,
        *,
        alpha: str | float | None = None,
        density: str | float | None = None,
        only: str | Sequence[str] | None = None,
        except_: str | Sequence[str] | None = None,
        join: str | None = None,
    ) -> None:
        """Edits one term in `recipe.toml`; None keeps a value.

        An empty filter removes the filter. "default" removes the vector's own density, so that the recipe's
        applies again.
        """
        from persona.history.verbs import set as set_verb

        set_verb.set_term(self._history, name, alpha, density, only, except_, join)

    def set_rules(self, axes: Mapping[str, str | float]) -> None:
        """Edits `[merge]`: `preset` and any axis.

        A new preset removes the axes that were set before, unless they are given too; `notes` name the
        removed and the kept ones. Raises `InvalidInput` for rules that trim nothing or jointly while a vector
        has a density of its own.
        """
        from persona.history.verbs import set as set_verb

        self._notes += set_verb.set_rules(self._history, axes)

    def remove_term(self, *names: str) -> None:
        """Drops terms from `recipe.toml`, all or none; the vectors stay in history."""
        from persona.history.verbs import set as set_verb

        set_verb.remove_terms(self._history, names)

    def rename_term(self, old: str, new: str) -> None:
        """Renames a term in `recipe.toml`."""
        from persona.history.verbs import set as set_verb

        set_verb.rename_term(self._history, old, new)

    def remove_vector(self, *names: str) -> None:
        """Removes the kept names of vectors that no recipe names, all or none.

        Raises `Refused` while `recipe.toml` names one of them.
        """
        from persona.history.vectors import kept_names

        kept_names.forget(self._history, names, self._person())

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
        """Undoes the change of one commit, or drops a vector.

        It drops one if `vector` is given, or if only a term has the name. A conflict is `Refused` with both
        sides, and nothing moves. `mainline`: the parent of a merge to go back to, from 1.
        """
        from persona.history.verbs.revert import revert

        where = None if no_commit else self._wanted_weights()
        result = revert(
            self._history,
            target,
            self._writer(author),
            vector=vector,
            mainline=mainline,
            message=message,
            no_commit=no_commit,
        )
        return self._with_weights(result, where)

    def checkout(
        self,
        rev: str | None = None,
        *,
        branch: str | None = None,
        out: AnyPath | None = None,
        device: str | None = None,
        device_memory: int | None = None,
        threads: int | None = None,
        memory: int | None = None,
        max_shard_size: int | None = None,
        dtype: str | None = None,
        weights: bool = True,
        force: bool = False,
        allow_nonfinite: bool = False,
        author: Person | None = None,
        progress: Progress | None = None,
    ) -> CheckoutResult:
        """Moves HEAD to `rev` with its text files and weights.

        A branch attaches HEAD, any other revision detaches it, "-" goes back. Without `rev`: the weights of
        `recipe.toml` as it is. `branch` makes that branch at `rev` and attaches to it. `out`: a model
        directory elsewhere; HEAD stays.

        `device`: "cpu", "cuda", or "auto" for CUDA if possible, with a note if not. None: auto, with a note
        only if there is a GPU that cannot be used. The bytes are the same on all devices. `device_memory`:
        bytes that chunks may take on each GPU. `memory`: bytes that decoded chunks may take together.
        `max_shard_size` in bytes. `dtype`: "bfloat16", "float16" or "float32" for the written floats, only
        with `out`. `weights=False`: only text files.
        """
        from persona.history.options import RunOptions
        from persona.history.verbs import checkout

        options = RunOptions(
            device=device,
            device_memory=device_memory,
            threads=threads,
            memory=memory,
            max_shard_size=max_shard_size,
            dtype=dtype,
            weights=weights,
            force=force,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
        )
        options = self._complete(RunOptions, options)
        if out is not None:
            from persona.history.verbs.export import export

            return export(self._history, rev, branch, Path(out), options)
        mover = partial(self._person, author)
        return checkout.checkout(self._history, rev, branch, mover, options)

    def restore(self, paths: Sequence[str], rev: str = "HEAD") -> tuple[str, ...]:
        """Puts tracked text files of `rev` back into the work tree; returns the paths."""
        from persona.history.verbs import switch as switch_verb

        chosen = [paths] if isinstance(paths, str) else paths
        return switch_verb.restore(self._history, chosen, rev, self._notes)

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
        from persona.history.verbs import switch as switch_verb

        person = self._person(author)
        return switch_verb.switch(self._history, target, person, create=create, detach=detach, force=force)

    def reset(
        self,
        rev: str = "HEAD",
        mode: Literal["soft", "mixed", "hard"] = "mixed",
        *,
        author: Person | None = None,
    ) -> SwitchResult:
        """Moves the branch (or a detached HEAD) to `rev`.

        "hard" also puts its text files in place. There is no staging area, so "soft" and "mixed" both keep
        the work tree.
        """
        from persona.history.verbs import switch as switch_verb

        return switch_verb.reset(self._history, rev, mode, self._person(author))

    def create_branch(
        self, name: str, rev: str = "HEAD", *, force: bool = False, author: Person | None = None
    ) -> RefInfo:
        """Makes a branch; `force` moves one that exists."""
        from persona.history.verbs import refs

        return refs.create_branch(self._history, name, rev, force, self._person(author), self._notes)

    def delete_branch(self, name: str, *, force: bool = False, author: Person | None = None) -> str:
        """Deletes a branch and returns its id.

        Raises `Refused` if it is the current branch, or if HEAD does not reach it, unless `force`.
        """
        return self.delete_branches([name], force=force, author=author)[name]

    def delete_branches(
        self, names: Sequence[str], *, force: bool = False, author: Person | None = None
    ) -> dict[str, str]:
        """Deletes branches, all or none, as `delete_branch`; returns their ids."""
        from persona.history.verbs import refs

        return refs.delete_branches(self._history, names, force, self._person(author))

    def rename_branch(
        self, old: str | None, new: str, *, force: bool = False, author: Person | None = None
    ) -> str:
        """Renames a branch (None: the current one), its reflog with it; returns the old name."""
        from persona.history.verbs import refs

        return refs.rename_branch(self._history, old, new, force, self._person(author))

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
        from persona.history.verbs import refs

        return refs.create_tag(self._history, name, rev, message, force, self._person(author), self._notes)

    def delete_tag(self, name: str, *, author: Person | None = None) -> str:
        """Deletes a tag and returns the id that it named."""
        return self.delete_tags([name], author=author)[name]

    def delete_tags(self, names: Sequence[str], *, author: Person | None = None) -> dict[str, str]:
        """Deletes tags, all or none; returns the ids that they named."""
        from persona.history.verbs import refs

        return refs.delete_tags(self._history, names, self._person(author))

    def config_set(self, key: str, value: str, *, user: bool = False) -> None:
        """Sets a key ("user.name") in the repository's file or in the user's."""
        self._history.config.set(key, value, user=user)

    def config_unset(self, key: str, *, user: bool = False) -> None:
        """Removes a key; `UnknownName` when it is not set there."""
        self._history.config.unset(key, user=user)

    def _writer(self, author: Person | None) -> Person:
        """The author of a commit, with the time."""
        return identity.person(self._history.config, author or self._author)

    def _person(self, author: Person | None = None) -> Person:
        """The person who moves a ref or makes a tag: the given one, else the committer."""
        return identity.check_person(author) if author else self._history.committer()

    def _with_weights(
        self,
        result: CommitResult,
        where: Mapping[str, Any] | None,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> CommitResult:
        """The result, after computing the weights if `_wanted_weights` says so.

        If that fails, the commit stands, and the error becomes the result's `failure`.
        """
        if where is None:
            return result
        try:
            made = self.checkout(**where, threads=threads, progress=progress)
        except PersonaError as error:
            return dataclasses.replace(result, failure=error)
        except BaseException:  # Ctrl-C, no memory
            self._notes.append(f"commit {abbreviate(result.id or '')} is made, but not its weights")
            raise
        return dataclasses.replace(result, checkout=made, notes=(*result.notes, *made.notes))

    def _wanted_weights(self, path: AnyPath | None = None) -> dict[str, Any] | None:
        """The run options for the weights of a commit of `path`, or None if the settings want none.

        Wrong settings, missing devices, and weights that would be lost are refused before anything is
        recorded.
        """
        config = self._history.config
        if not config.read("commit.checkout"):
            return None
        from persona.history.computing import device_choice
        from persona.history.options import ComputeOptions
        from persona.history.worktree import in_place

        device, memory = config.read("checkout.device"), config.read("checkout.device-memory")
        device_choice(ComputeOptions(device=device, device_memory=memory))
        if path is None or not in_place.is_work_tree(self._history, Path(path)):
            in_place.refuse_losing(self._history)
        return {"device": device, "device_memory": memory}


def _optional(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)


def _find_root(path: Path) -> Path:
    """The directory at `path` or above it that holds a repository; `path` itself has to be a directory."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotARepository(f"{path} is not a directory; name the directory of a repository")
        start = files.resolved(path)  # without "..", whose lexical parents lie elsewhere
    except (FileNotFoundError, NotADirectoryError):
        raise NotARepository(f"{path} does not exist; name the directory of a repository") from None
    except OSError as error:
        raise files.system_fault("open", path, error) from error
    for place in (start, *start.parents):
        if os.path.lexists(place / DIRECTORY):
            return place
    hint = ("make one with ", Call("init", base=Blank("MODEL")))
    raise NotARepository(f"{path} is not in a persona repository", hint=hint)
