"""**repository** — a work tree with its `.persona`; `Repository` is its Python interface.

Its methods are functions of `history/verbs/` and `live/`, which hold the signatures and docstrings. A
repository holds the shared lock of `.persona` from `open` to `close`. It never prints, prompts or reads the
environment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from persona import live as live_room
from persona.behaviour import verbs as behaviour_verbs
from persona.errors import Blank, Call, NotARepository, UnknownRevision, UsageError
from persona.face.verb import Verb
from persona.history import verbs
from persona.history.arguments import AnyPath, checks_arguments
from persona.history.config import Config
from persona.history.history import History, Warnings
from persona.history.names import revisions, walk
from persona.history.results import CommitResult, Head
from persona.history.settings import DEVICES
from persona.limits import CHUNK_ELEMENTS
from persona.objects.commit import Signer
from persona.objects.ids import abbreviate
from persona.store import files
from persona.store.refs import NoteList
from persona.store.store import DIRECTORY, Store

if TYPE_CHECKING:
    from persona.face.bisect import Bisect
    from persona.face.graph import Patterns
    from persona.face.notes import Notes
    from persona.face.recipe import WorkingRecipe
    from persona.face.refs import Branches, Tags
    from persona.face.revision import Revision
    from persona.face.settings import Settings
    from persona.face.stash import Stashes
    from persona.face.vectors import Vectors
    from persona.history.options import ComputeOptions
    from persona.history.query_results import CommitEntry
    from persona.history.results import Diff


def _revisions(history: History, entries: Iterator[CommitEntry]) -> Iterator[Revision]:
    from persona.face.revision import Revision

    return (Revision.of(history, entry) for entry in entries)


def _shown(history: History, shown: tuple[CommitEntry, Diff]) -> tuple[Revision, Diff]:
    from persona.face.revision import Revision

    return Revision.of(history, shown[0]), shown[1]


@checks_arguments
class Repository:
    """An open repository. Use it as a context manager, or `close` it.

    `repo["HEAD~1"]` is a `Revision`; `recipe`, `vectors`, `graph`, `branches`, `tags`, `notes` and `config`
    are collections. When the repository is closed, its methods and the values that it gave out raise
    `UsageError`.
    """

    def __init__(self, history: History, made: CommitResult | None = None) -> None:
        self._history = history
        self._made = made
        self._held = ExitStack()
        self._held.enter_context(history.store.shared())

    # -- open and close --------------------------------------------------------------------------------------

    @staticmethod
    def init(
        path: AnyPath = ".",
        *,
        base: AnyPath | None = None,
        name: str | None = None,
        example: str | None = None,
        chunk: int = CHUNK_ELEMENTS,
        user_config: AnyPath | None = None,
        author: Signer = None,
        committer: Signer = None,
        notes: NoteList | None = None,
        **options: Unpack[ComputeOptions],
    ) -> Repository:
        """Makes a repository at `path` with its first commit, and opens it. Options as for `open`.

        The commit holds the base and no vector, on branch `main`. Its merge rules are the settings
        `merge.preset`, `merge.density`, …, by default TIES at density 1. Without `base`, `path` is a model
        directory: that model is the base, and its weights are the clean work tree. `base` may also be a model
        of the Hugging Face hub, "org/name": it is taken from the hub's cache, or downloaded into it. `name`
        is the base's name, by default its directory's. `example`: an example of this package, such as
        "companion", whose patterns and data become `graph/`. `chunk`: elements of a chunk. Raises
        `InvalidInput` for a checkpoint that cannot be imported, and `Refused` if a repository is there
        already.
        """
        _check_device(options)
        place = Path(path)
        if place.is_symlink() and place.is_dir():
            place = files.resolved(place)
        config = Config(place / DIRECTORY / "config", _optional(user_config))
        from persona.history.options import WorkOptions, complete

        given: WorkOptions = {"threads": options.get("threads"), "progress": options.get("progress")}
        made = verbs.init.init(
            place,
            _optional(base),
            name,
            config,
            author,
            committer,
            example=example,
            chunk=chunk,
            **complete(WorkOptions, given, setting=config.read),
        )
        return Repository(_opened(place, user_config, author, committer, notes, options), made)

    @staticmethod
    def open(
        path: AnyPath = ".",
        *,
        user_config: AnyPath | None = None,
        author: Signer = None,
        committer: Signer = None,
        notes: NoteList | None = None,
        **options: Unpack[ComputeOptions],
    ) -> Repository:
        """The repository at `path` or above it. Raises `NotARepository` if there is none.

        `author` is the author of commits; `committer` records them and moves refs. Each is a `Person`, or a
        function that returns one and is called at every signature. By default it is `user.name` and
        `user.email` of persona's config, else the account's name and host, now; git's settings and the
        environment count only on the command line. Reflogs have the committer and the real time.
        `user_config`: the user's own config file. `threads`, `memory` and `device_memory` (bytes), `device`
        and `progress` apply to every call that does not name them; they win over the settings, such as
        `checkout.threads`.

        `notes`: a list that takes the notes of calls whose result has none, such as one about a reflog that
        is too short for a date. By default each is a warning of Python.
        """
        return Repository(_opened(Path(path), user_config, author, committer, notes, options))

    def close(self) -> None:
        """Lets go of the shared lock and of open files. Live models keep the weights that they hold."""
        self._held.close()
        self._history.close()

    @property
    def closed(self) -> bool:
        """Whether the repository was closed."""
        return self._history.closed

    def __enter__(self) -> Self:
        self._history.require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<Repository, closed>"
        head = self._history.head_or_name()
        where = head.branch or "detached"
        return f"<Repository {self.root} on {where} at {abbreviate(head.id or 'no commit')}>"

    # -- what it holds ---------------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The work tree."""
        return self._history.root

    @property
    def made(self) -> CommitResult:
        """The first commit, which `init` has just made. `UsageError` for a repository that was opened."""
        if self._made is None:
            raise UsageError(
                "this repository was opened, not made by init; repo.log() shows its first commit"
            )
        return self._made

    def __getitem__(self, rev: str) -> Revision:
        """One commit by revision (docs/commands.md, "Revisions"). Raises `UnknownRevision`."""
        if not isinstance(rev, str):
            raise UsageError(f"a revision must be text, not {rev!r:.60}")
        from persona.face.revision import Revision

        return Revision.at(self._history, rev)

    def __contains__(self, rev: object) -> bool:
        """Whether a text is a revision."""
        try:
            return isinstance(rev, str) and bool(self.resolve(rev))
        except UnknownRevision:
            return False

    __iter__ = None  # it is no sequence of commits: `log` gives them

    @property
    def recipe(self) -> WorkingRecipe:
        """The recipe of `recipe.toml`, to read and to edit."""
        from persona.face.recipe import WorkingRecipe

        return WorkingRecipe(self._history)

    @property
    def vectors(self) -> Vectors:
        """The vectors by name."""
        from persona.face.vectors import Vectors

        return Vectors(self._history)

    @property
    def graph(self) -> Patterns:
        """The patterns of `graph/` by key."""
        from persona.face.graph import Patterns

        return Patterns(self._history)

    @property
    def bisect(self) -> Bisect:
        """The search for the first commit with a property."""
        from persona.face.bisect import Bisect

        return Bisect(self._history)

    @property
    def stash(self) -> Stashes:
        """The stashes: edits of the work tree that were put aside."""
        from persona.face.stash import Stashes

        return Stashes(self._history)

    @property
    def branches(self) -> Branches:
        """The branches by name."""
        from persona.face.refs import Branches

        return Branches(self._history)

    @property
    def tags(self) -> Tags:
        """The tags by name."""
        from persona.face.refs import Tags

        return Tags(self._history)

    @property
    def notes(self) -> Notes:
        """The notes on commits by the commits' ids."""
        from persona.face.notes import Notes

        return Notes(self._history)

    @property
    def config(self) -> Settings:
        """The settings by key."""
        from persona.face.settings import Settings

        return Settings(self._history)

    def head(self) -> Head:
        """The branch and commit of HEAD."""
        self._history.require_open()
        return self._history.head()

    def resolve(self, rev: str = "HEAD") -> str:
        """The full commit id of a revision (docs/commands.md, "Revisions"). Raises `UnknownRevision`."""
        return revisions.resolve(self._history, rev, self._history.notes)

    def ref_name(self, rev: str = "HEAD", *, full: bool = False) -> str | None:
        """The branch or tag that a revision is, in `full` as "refs/heads/main". Of HEAD, its branch.

        None for a commit that is named in another way. Raises `UnknownRevision`.
        """
        return revisions.ref_name(self._history, rev, full=full, notes=self._history.notes)

    def is_ancestor(self, rev: str, of: str = "HEAD") -> bool:
        """Whether a commit is in the history of another one; a commit is in its own. `UnknownRevision`."""
        ids = (revisions.resolve(self._history, one, self._history.notes) for one in (rev, of))
        return walk.is_ancestor(self._history, *ids)

    # -- the verbs -------------------------------------------------------------------------------------------

    log = Verb(lambda: verbs.log.log).then(_revisions)
    links = Verb(lambda: verbs.log.links)
    show = Verb(lambda: verbs.diff.show).then(_shown)
    status = Verb(lambda: verbs.status.status)
    diff = Verb(lambda: verbs.diff.diff)
    diff_scores = Verb(lambda: verbs.diff.diff_scores)
    diff_weights = Verb(lambda: verbs.measure.weights_diff)
    reflog = Verb(lambda: verbs.refs.reflog)
    expire_reflog = Verb(lambda: verbs.expire.expire_reflog)
    describe = Verb(lambda: verbs.describe.describe)
    blame = Verb(lambda: verbs.blame.blame)
    blame_weights = Verb(lambda: verbs.blame_weights.blame_weights)

    add = Verb(lambda: verbs.add.add)
    commit = Verb(lambda: verbs.commit.commit)
    export_mergekit = Verb(lambda: verbs.export_mergekit.export_mergekit)
    export_patch = Verb(lambda: verbs.patches.export_patch)
    import_mergekit = Verb(lambda: verbs.import_mergekit.import_mergekit)
    cherry_pick = Verb(lambda: verbs.cherry_pick.cherry_pick)
    merge = Verb(lambda: verbs.merge.merge)
    rebase = Verb(lambda: verbs.rebase.rebase)
    rebase_base = Verb(lambda: verbs.rebase_base.rebase_base)
    revert = Verb(lambda: verbs.revert.revert)
    checkout = Verb(lambda: verbs.checkout.checkout)
    switch = Verb(lambda: verbs.switch.switch)
    reset = Verb(lambda: verbs.switch.reset)
    restore = Verb(lambda: verbs.restore.restore)

    digest = Verb(lambda: verbs.digest.digest)
    export_adapter = Verb(lambda: verbs.adapters.export_adapter)
    identify = Verb(lambda: verbs.identify.identify)
    tensors = Verb(lambda: verbs.tensors.tensors)
    train = Verb(lambda: behaviour_verbs.train.train)
    tune = Verb(lambda: behaviour_verbs.tune.tune)
    build = Verb(lambda: behaviour_verbs.build.build)

    load = Verb(lambda: live_room.load.load)
    live = Verb(lambda: live_room.model.live)
    chat = Verb(lambda: behaviour_verbs.chat.chat)
    generate = Verb(lambda: behaviour_verbs.generate.generate)

    verify = Verb(lambda: behaviour_verbs.verify.verify)
    sweep = Verb(lambda: behaviour_verbs.sweep.sweep)

    fsck = Verb(lambda: verbs.fsck.fsck)
    count_objects = Verb(lambda: verbs.plumbing.count_objects)
    cat_file = Verb(lambda: verbs.plumbing.cat_file)
    known_names = Verb(lambda: verbs.complete.known_names)
    prepared_message = Verb(lambda: verbs.commit.prepared_message)


def _opened(
    path: Path,
    user_config: AnyPath | None,
    author: Signer,
    committer: Signer,
    notes: NoteList | None,
    options: ComputeOptions,
) -> History:
    """The history of the repository at `path` or above it."""
    _check_device(options)
    store = Store.open(_find_root(path))
    config = Config(store.config_path, _optional(user_config))
    open_options: Mapping[str, Any] = {**options}
    return History(store, config, Warnings() if notes is None else notes, author, committer, open_options)


def _check_device(options: ComputeOptions) -> None:
    if options.get("device") not in (None, *DEVICES):
        raise UsageError(f"device {options.get('device')!r:.40} is not one of {', '.join(DEVICES)}")


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
