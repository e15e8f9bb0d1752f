"""**invocation** — one run of one command: where it runs, how much it says, and in which form."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from persona.cli.terminal import echo, say
from persona.errors import (
    Blank,
    Call,
    Hint,
    Note,
    NotFound,
    PersonaError,
    SystemFault,
    UnknownRevision,
    UsageError,
    quoted,
)

if TYPE_CHECKING:
    from persona.cli.progress import Shower
    from persona.history.config import Config
    from persona.objects.commit import Person
    from persona.progress import Phase
    from persona.repository import Repository

ADDED: set[str] = set()
"""Variables that persona added to its environment, and that no program of the user gets."""
BATCH = 200
"""Lines that go out together."""


@dataclass
class Invocation:
    """The options that every command has, and the helpers of commands. It is click's `ctx.obj`."""

    directory: Path = field(default_factory=Path)
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    paginate: bool | None = None
    """Whether answers go through the pager, whatever the command does by itself."""
    pages: bool = False
    """Whether the answer goes through the pager, if it goes to a terminal."""
    works: bool = False
    """Whether the command may take long."""
    signs: bool = False
    """Whether the command makes something with the committer's name, such as an annotated tag."""
    drafted: str | None = None
    """A sentence with the path of the message from the editor, said if the command fails."""
    _repository: Repository | None = None
    _author: Person | None = None
    _unsaid: list[str] = field(default_factory=list)
    """NoteList about the author, which `report` says once a command has signed with that name."""
    _paging: bool = False
    _began: float = field(default_factory=monotonic)
    _progress: Shower | None = None
    """The display of progress, once the library has reported some."""
    _answer: list[str] = field(default_factory=list)
    """The answer in JSON, in pieces, until the command has ended well."""

    # -- the library -----------------------------------------------------------------------------------------

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        """The repository of the directory, open."""
        from persona.repository import Repository

        noted: list[str] = []
        with Repository.open(
            self.directory, user_config=self.user_config, notes=noted, **self.open_options
        ) as repo:
            self._repository = repo
            try:
                yield repo
            except BaseException as error:
                if self.drafted is not None:
                    say(self.drafted)
                if isinstance(error, PersonaError) and error.hint is not None:
                    error.hint = self.typed_here(error.hint)
                raise
            finally:
                self._repository = None
                self.remarks(dict.fromkeys(noted))

    @property
    def open_options(self) -> dict[str, Any]:
        """The options of `Repository.open`: who signs, and the display of progress."""
        progress = {"progress": self.tell} if self.works else {}  # only they pay for the check of its type
        return {"author": self.author, "committer": self.committer, **progress}

    def go_to(self, directory: Path) -> None:
        """Runs as if started in `directory`. Raises `NotFound` if there is none."""
        try:
            if not stat.S_ISDIR(os.stat(directory).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            sentence = f"cannot change to '{directory}': {error.strerror}"
            if isinstance(error, FileNotFoundError):
                init = Call("init", str(directory), base=Blank("MODEL"))
                raise NotFound(sentence, hint=(init, " makes a repository there")) from None
            kind = NotFound if isinstance(error, NotADirectoryError) else SystemFault
            raise kind(f"{sentence}; give -C a directory") from None
        self.directory = directory

    @property
    def user_config(self) -> Path | None:
        """The user's own config file, which may not exist; None if no home directory is known."""
        named = os.environ.get("XDG_CONFIG_HOME", "")
        if os.path.isabs(named):  # a relative one has to be ignored, says the XDG specification
            return Path(named) / "persona" / "config"
        home = os.environ.get("HOME") or _home_of_the_account()
        return Path(home) / ".config" / "persona" / "config" if home else None

    def author(self) -> Person:
        """The author of a commit, now unless the environment gives another date.

        The library asks when it signs a commit; `report` says if the name was invented.
        """
        if self._author is None:
            from persona.cli import identity

            say_so, here = self._unsaid.append, str(self.directory)
            self._author = identity.author(os.environ, self.setting, say_so, here)
        return self._author

    def committer(self) -> Person:
        """The person who runs the command, now.

        `report` says only for a command that `signs` if the name was invented.
        """
        from persona.cli import identity

        say_so: Callable[[str], None] = self._unsaid.append if self.signs else lambda sentence: None
        here = str(self.directory)
        return identity.committer(os.environ, self.setting, say_so, here, self._author)

    def setting(self, key: str) -> str | None:
        """A setting of the repository, else of the user; None if neither has it."""
        if self._repository is not None:
            found: str | None = self._repository.config.get(key)
            return found
        return None if self.user_config is None else self.user_settings().get(key)

    def user_settings(self) -> Config:
        """The user's own config file, for a command that has no repository."""
        from persona.history.config import Config

        path = self.user_config
        if path is None:
            raise SystemFault("no home directory is known; set HOME, or XDG_CONFIG_HOME to an absolute path")
        return Config(path, path)

    def tell(self, phase: Phase, done: int, total: int) -> None:
        """Shows how far the command is: handed to the library as `progress`."""
        if self._progress is None:
            from persona.cli.progress import shower

            self._progress = shower(self._began, quiet=self.quiet, as_json=self.json)
        self._progress(phase, done, total)

    def path(self, path: str) -> Path:
        """A path from the command line, seen from `-C`."""
        return self.directory / path

    def model(self, path: str) -> Path:
        """A model from the command line: a path seen from `-C`, or an id of the Hugging Face hub."""
        from persona.weights.hub import id_of

        place = self.path(path)
        return place if os.path.lexists(place) or id_of(Path(path)) is None else Path(path)

    @contextmanager
    def files_meant(self, words: Iterable[str], line: str, does: str) -> Iterator[None]:
        """If an unknown revision is the name of a file, raises an error that says what to type.

        The advice is `line` and the file, which `does` that to "{}".
        """
        try:
            yield
        except UnknownRevision as error:
            import shlex

            for word in words:
                if quoted(word) in error.message and os.path.lexists(self.path(word)):
                    what = "the files in it" if self.path(word).is_dir() else "the file"
                    typed = f"`persona {line} -- {shlex.quote(word)}` {does.format(what)}"
                    raise UnknownRevision(f"{error.message}; {typed}") from None
            raise

    def revisions_and_files(
        self, repo: Repository, words: Sequence[str], files: Sequence[str] | None
    ) -> tuple[list[str], list[str] | None]:
        """The revisions among words of the command line, and the files after them, from the root; or None.

        `files` are the words after `--`. Without `--`, as in git, the files begin with the first word that is
        the name of a file and no revision. Raises `UsageError` for a word that is both.
        """
        if files is not None:
            return list(words), self.tracked(repo, files) or None
        for place, word in enumerate(words):
            if not os.path.lexists(self.path(word)):
                continue
            if _is_revision(repo, word):
                raise UsageError(
                    f"{word} is a revision and a file: put -- before it for the file,"
                    " or after it for the revision"
                )
            rest = words[place:]
            if lost := [name for name in rest if not os.path.lexists(self.path(name))]:
                raise UsageError(f"{lost[0]:.100} is no file here; put -- before the names of files")
            return list(words[:place]), self.tracked(repo, rest)
        return list(words), None

    def tracked(self, repo: Repository, paths: Sequence[str]) -> list[str]:
        """Files of the work tree from the command line, as the repository names them: from its root."""
        from persona.history.recipes.text import RECIPE_FILE

        here, root = os.path.realpath(self.directory), os.path.realpath(repo.root)
        found = []
        for path in paths:
            place = os.path.normpath(os.path.join(here, path))
            if path == RECIPE_FILE and not os.path.lexists(place):
                place = os.path.join(root, path)  # there is but one, and messages name it so
            name = os.path.relpath(place, root)
            if not path or name.split(os.sep)[0] == os.pardir:
                raise UsageError(f"'{path:.100}' is not a file of the work tree {repo.root}")
            found.append(name)
        return found

    def seen_from_here(self, repo: Repository) -> Callable[[str], str]:
        """The path of a file of the work tree, relative to the current directory."""
        here, root = os.path.realpath(self.directory), os.path.realpath(repo.root)

        def seen(name: str) -> str:
            slash = "/" if name.endswith("/") else ""  # of a directory
            return os.path.relpath(os.path.join(root, name), here) + slash

        return seen

    def typed_here(self, hint: Hint) -> Hint:
        """A hint with the files of the work tree named from the current directory."""
        from persona.cli.hints import seen_from

        return hint if self._repository is None else seen_from(hint, self.seen_from_here(self._repository))

    # -- what is said ----------------------------------------------------------------------------------------

    def settle(self, notes: Iterable[str], *, act: bool) -> None:
        """Before a result is shown: takes the progress bar away, and says the notes and those of the author.
        A report of an act is not paged.
        """
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        self._began = monotonic()  # work that begins now shows nothing at first
        self.remarks(notes)
        self.remarks(self._unsaid)
        self.pages = self.pages and not act

    def show(self, lines: Iterable[str]) -> None:
        """Prints the lines of an answer, many at a time, through the pager if there is one."""
        for batch in _batches(lines):
            if self.pages and not self.json:
                self._start_pager(batch)
            echo("\n".join(batch))

    def answer_json(self, value: Any) -> None:
        """A result in the form of docs/commands.md, on one line."""
        from persona.history.results import as_json

        self._answer.append(json.dumps(as_json(value)) + "\n")

    def answer_json_list(self, values: Iterable[Any]) -> None:
        """A list of results, each on its own line."""
        from persona.history.results import as_json

        for number, value in enumerate(values):
            self._answer.append((",\n" if number else "[") + json.dumps(as_json(value)))
        self._answer.append("]\n" if self._answer else "[]\n")

    def close(self) -> None:
        """Takes the progress bar away, and waits until the user has left the pager."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        if self._paging:
            from persona.cli import pager

            pager.finish()

    def deliver(self) -> None:
        """Writes the answer in JSON, whole: a command that fails half-way has written nothing of it."""
        for pieces in _batches(self._answer):
            click.echo("".join(pieces), nl=False)

    def remark(self, sentence: str) -> None:
        """A sentence beside the result, on stderr."""
        if not self.quiet:
            say(sentence)

    def remarks(self, sentences: Iterable[str]) -> None:
        """Several of them."""
        for sentence in sentences:
            self.remark(sentence)
            if isinstance(sentence, Note) and sentence.hint is not None:
                from persona.cli.hints import in_shell

                self.remark(f"hint: {in_shell(self.typed_here(sentence.hint))}")

    def _start_pager(self, begun: Sequence[str]) -> None:
        self.pages = False
        if not sys.stdout.isatty():
            return
        from persona.cli import pager

        settings = self.user_settings() if self.user_config else None
        command = pager.chosen(settings.get if settings else lambda key: None)
        context = click.get_current_context(silent=True)
        whole = len(begun) < BATCH
        if command is not None and not (whole and pager.needless(command, "\n".join(begun))):
            self._paging = True
            pager.start(command)
            if context is not None and context.color is None:
                context.color = pager.on_terminal()

    @property
    def interactive(self) -> bool:
        """Whether somebody sits at both ends, so that an editor can be opened."""
        return sys.stdin.isatty() and sys.stdout.isatty()


def _is_revision(repo: Repository, word: str) -> bool:
    """Whether a word is a revision, or a range with a revision on one side."""
    left, dots, right = word.partition("..")
    if not dots or word.startswith(":/"):
        return word.removeprefix("^") in repo
    return any(side and side in repo for side in (left, right.removeprefix(".")))


def _home_of_the_account() -> str | None:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
