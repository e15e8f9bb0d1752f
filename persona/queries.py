"""The reading half of `Repository`. Each method calls one verb."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from persona.errors import UsageError
from persona.history.arguments import checks_arguments
from persona.history.history import History
from persona.history.names import revisions
from persona.history.results import Head
from persona.limits import LIVE_CACHE
from persona.objects.commit import Person
from persona.progress import Progress

if TYPE_CHECKING:
    from persona.history.options import Options
    from persona.history.query_results import (
        CommitEntry,
        DigestResult,
        RefInfo,
        ReflogEntry,
        Status,
        VectorInfo,
    )
    from persona.history.results import Diff
    from persona.history.store_results import FsckResult, ObjectCount, ObjectText
    from persona.history.verbs.complete import KnownNames
    from persona.history.verbs.measure import VectorStatistics, WeightsDiff
    from persona.live.fill import PreTrainedModel
    from persona.live.model import LiveModel
    from persona.live.slots import Module


Item = TypeVar("Item")


@checks_arguments
class Queries:
    """The reading half of an open repository; `Repository` adds the calls that change it.

    It holds the shared lock of `.persona` from the beginning to `close`.
    """

    def __init__(self, history: History, author: Person | None = None) -> None:
        self._open: History | None = history
        self._author = author
        self._notes: list[str] = []
        self._held = ExitStack()
        self._held.enter_context(history.store.shared())

    def close(self) -> None:
        """Releases the shared lock and open files; any later call raises `UsageError`.

        Live models keep the weights that they hold.
        """
        history, self._open = self._open, None
        if history is not None:
            self._held.close()
            history.store.objects.close()

    @property
    def _history(self) -> History:
        """The repository's history, for all methods; raises `UsageError` once it is closed."""
        if self._open is None:
            raise UsageError("this repository is closed; open it again with persona.open")
        return self._open

    def _complete(self, kind: type[Options], given: Options) -> Options:
        """The options of a call, with the settings' values for those that it does not give."""
        from persona.history.options import complete

        return complete(kind, given, setting=self._history.config.read)

    def _while_open(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            yield item
            _ = self._history

    def __enter__(self) -> Self:
        _ = self._history
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
        """Sentences for the user that belong to no result, such as one about a reflog that is too short."""
        _ = self._history
        return self._notes

    def head(self) -> Head:
        """The branch and commit of HEAD."""
        return self._history.head()

    def resolve(self, rev: str = "HEAD") -> str:
        """The full commit id of a revision (docs/commands.md, "Revisions"). Raises `UnknownRevision`."""
        return revisions.resolve(self._history, rev, self._notes)

    def entry(self, rev: str = "HEAD") -> CommitEntry:
        """One commit."""
        from persona.history.names.entries import Entries

        return Entries(self._history, self._notes).of(self.resolve(rev))

    def log(
        self,
        revs: str | Sequence[str] = ("HEAD",),
        *,
        all: bool = False,
        n: int | None = None,
        since: str | None = None,
        until: str | None = None,
        vector: str | None = None,
        paths: Sequence[str] | None = None,
        topological: bool = False,
    ) -> Iterator[CommitEntry]:
        """Commits reachable from `revs` (each a revision, `A..B`, `A...B` or `^A`), newest first, streaming.

        `all` starts from every ref. `since` and `until` are dates. `vector`: only commits that change the
        term of that name. `paths`: only commits that change one of these files, or a file in one of these
        directories. `topological`: no commit before all its children (for drawing a graph; reads all of it
        first).
        """
        from persona.history.verbs import log as log_verb

        found = log_verb.log(
            self._history,
            [revs] if isinstance(revs, str) else list(revs),
            all=all,
            n=n,
            since=since,
            until=until,
            vector=vector,
            paths=[paths] if isinstance(paths, str) else paths,
            in_topological_order=topological,
            now=int(time.time()),
            told=self._notes,
        )
        return self._while_open(found)

    def status(self) -> Status:
        """Branch, recipe and text files against HEAD, and the state of the weights."""
        from persona.history.verbs.status import status

        return status(self._history)

    def diff(
        self, a: str | None = None, b: str | None = None, *, paths: str | Sequence[str] | None = None
    ) -> Diff:
        """The difference between two recipes and their text files.

        Without an argument: from HEAD to the work tree. With `a`: from `a` to the work tree. With both: from
        `a` to `b`. `a` may also be `A..B` or `A...B`. `paths`: only these files or directories.
        """
        from persona.history.verbs import diff as diff_verb
        from persona.history.worktree import changes

        return changes.of_paths(diff_verb.diff(self._history, a, b, self._notes), paths)

    def diff_weights(
        self,
        a: str | None = None,
        b: str | None = None,
        *,
        threads: int | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> WeightsDiff:
        """The difference between the weights of the two sides of `diff`, by layer and kind of module.

        It also says how the vectors of the second side pull against each other. Both weights are computed,
        neither is written.
        """
        from persona.history.options import MemoryOptions
        from persona.history.verbs import measure

        given = MemoryOptions(threads=threads, memory=memory, progress=progress)
        how = self._complete(MemoryOptions, given)
        limits = how["threads"], how["memory"], how["progress"]
        return measure.weights_diff(self._history, a, b, *limits, self._notes)

    def show(
        self, rev: str = "HEAD", *, paths: str | Sequence[str] | None = None
    ) -> tuple[CommitEntry, Diff]:
        """A commit, and its changes against its first parent; `paths` as for `diff`."""
        from persona.history.worktree import changes

        entry = self.entry(rev)
        before = entry.parents[0] if entry.parents else None
        return entry, changes.of_paths(changes.diff_commits(self._history, before, entry.id), paths)

    def vectors(self) -> list[VectorInfo]:
        """The vectors of `recipe.toml` in canonical order of its terms, then those with only a kept name."""
        from persona.history.vectors import lookup

        return lookup.infos(self._history)

    def vector(self, name: str) -> VectorInfo:
        """A vector by name in the recipe, by kept name, or by the start of its id."""
        from persona.history.vectors import lookup

        return lookup.named(self._history, name)

    def vector_statistics(
        self, name: str, *, threads: int | None = None, progress: Progress | None = None
    ) -> VectorStatistics:
        """The changes of a vector, by layer and kind of module; named as for `vector`."""
        from persona.history.verbs import measure

        return measure.vector_statistics(self._history, name, threads, progress)

    def digest(
        self,
        rev: str | None = None,
        *,
        device: str | None = None,
        device_memory: int | None = None,
        threads: int | None = None,
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> DigestResult:
        """The weights digest of a revision, or of `recipe.toml` as it stands, without writing files.

        `device`, `device_memory` and `memory` as for `Repository.checkout`; the digest is the same on all.
        """
        from persona.history.options import ComputeOptions
        from persona.history.verbs import digest as digest_verb

        options = ComputeOptions(
            device=device, device_memory=device_memory, threads=threads, memory=memory, progress=progress
        )
        return digest_verb.digest(self._history, rev, self._complete(ComputeOptions, options))

    def materialise(
        self,
        rev: str | None = None,
        *,
        torch: bool = False,
        device: str | None = None,
        device_memory: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """The merged tensors one at a time, in byte order of names, as (name, array).

        numpy arrays of the tensor's shape; bf16 comes as uint16 whose `.tensor_dtype` says "BF16" (a
        `TensorArray`). With `torch`, torch tensors of the true dtype instead. They lie on the host, wherever
        they were computed: `device` and `device_memory` as for `Repository.checkout`, whose note is among
        `notes`. `rev` None: `recipe.toml` as it stands.
        """
        from persona.history import computing
        from persona.history.options import ComputeOptions
        from persona.history.verbs.arrays import arrays

        given = ComputeOptions(device=device, device_memory=device_memory, threads=threads, progress=progress)
        options = self._complete(ComputeOptions, given)
        _, recipe = computing.chosen_recipe(self._history, rev, self._notes)
        return self._while_open(arrays(self._history, recipe, options, self._notes, torch=torch))

    def load(
        self,
        rev: str | None = None,
        *,
        threads: int | None = None,
        allow_nonfinite: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> PreTrainedModel:
        """A transformers model with the weights and config of a revision, in evaluation mode.

        Nothing is written. The model equals the one that `from_pretrained` loads from a checkout of `rev`.
        `rev` None: `recipe.toml` and config as they are. config.json names the class. `options` go to
        `from_pretrained` (`dtype=torch.float32`, `attn_implementation=…`, `device_map=…`). Raises
        `InvalidInput` if the weights are not finite, or if transformers has no such class.
        """
        from persona.history.options import LoadOptions
        from persona.live import load as live_load

        how = LoadOptions(threads=threads, allow_nonfinite=allow_nonfinite, progress=progress)
        return live_load.load(self._history, rev, how, options, self._notes)

    def live(
        self,
        model: Module | None = None,
        rev: str | None = None,
        *,
        threads: int | None = None,
        allow_nonfinite: bool = False,
        progress: Progress | None = None,
        cache: int = LIVE_CACHE,
        device_memory: int | None = None,
    ) -> LiveModel:
        """Overwrites a model's parameters with the weights of a revision and returns a `LiveModel`.

        `LiveModel` changes the weights from then on: `set`, `set_rules`, `checkout`. Without `model`, one is
        loaded as by `load`. `rev` None: `recipe.toml` as it is. The model's tensors must have the names,
        shapes and dtypes of the base's. They may lie on any device; those on a GPU are merged there, in
        place. Raises `InvalidInput` that names a tensor that does not fit, `Refused` if the model has a live
        model already.

        `cache`: bytes of decoded chunks that may stay in memory from one change to the next (1.5 GiB); 0
        keeps none. As many bytes may stay on each GPU that the model lies on. A whole bf16 model with K
        vectors takes 2 + 2·K bytes an element; then a change of α reads nothing else. `device_memory`: bytes
        that chunks may take on a GPU while they are loaded, as for `Repository.checkout`. The repository must
        stay open while weights are changed.
        """
        from persona.history.options import LiveOptions
        from persona.live import model as live_model

        how = LiveOptions(
            threads=threads,
            allow_nonfinite=allow_nonfinite,
            progress=progress,
            cache=cache,
            device_memory=device_memory,
        )
        return live_model.live(self._history, model, rev, how, lambda: self._open is None, self._notes)

    def known_names(self) -> KnownNames:
        """The names of branches, tags, vectors and settings, for shell completion. Reads no object."""
        from persona.history.verbs import complete

        return complete.names(self._history)

    def prepared_message(self) -> str | None:
        """The message that `revert --no-commit` prepared for the next commit, or None."""
        from persona.history.worktree import sequence

        return sequence.prepared_message(self._history)

    def branches(self) -> list[RefInfo]:
        """The branches, by name."""
        from persona.history.verbs import refs

        return refs.branches(self._history, self._notes)

    def tags(self) -> list[RefInfo]:
        """The tags, by name."""
        from persona.history.verbs import refs

        return refs.tags(self._history, self._notes)

    def reflog(self, ref: str = "HEAD") -> list[ReflogEntry]:
        """The moves of HEAD or of a branch, newest first."""
        from persona.history.verbs import refs

        return refs.reflog(self._history, ref, self._notes)

    def config_get(self, key: str) -> str | None:
        """A value as text: the repository's, else the user's; None when neither has it."""
        return self._history.config.get(key)

    def config_list(self) -> dict[str, str]:
        """Every key and the value in force."""
        return self._history.config.values()

    def fsck(self, *, full: bool = False, progress: Progress | None = None) -> FsckResult:
        """Checks every record, ref, reflog and everything reachable; `full` recomputes every id too."""
        from persona.history.verbs.fsck import fsck

        return fsck(self._history, full, progress)

    def count_objects(self) -> ObjectCount:
        """Objects, packs and bytes on disk."""
        from persona.history.verbs import plumbing

        return plumbing.count_objects(self._history)

    def cat_file(self, id: str) -> ObjectText:
        """An object by the start of its id, or by revision."""
        from persona.history.verbs import plumbing

        return plumbing.cat_file(self._history, id, self._notes)
