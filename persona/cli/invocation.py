"""**invocation** — one run of one command: where it runs, how much it says, and in which form."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.history.config import Config
    from persona.history.repository import Repository
    from persona.objects.commit import Person

BATCH = 200
"""Lines that go out together."""


@dataclass
class Invocation:
    """The options that every command has, and what commands do with them. It is click's `ctx.obj`."""

    directory: Path = field(default_factory=Path)
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    _repository: Repository | None = None

    # -- the library -----------------------------------------------------------------------------------------

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        """The repository of the directory, open."""
        from persona.history.repository import Repository

        with Repository.open(self.directory, user_config=self.user_config) as repo:
            self._repository = repo
            try:
                yield repo
            finally:
                self._repository = None
                self.remarks(dict.fromkeys(repo.notes))

    @property
    def user_config(self) -> Path:
        """The user's own config file, whether it exists or not."""
        home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
        return Path(home) / "persona" / "config"

    def author(self) -> Person:
        """Who commits, and when: now, unless the environment says otherwise."""
        from persona.cli import identity

        config = self._repository.config_get if self._repository else self.user_settings().get
        return identity.author(os.environ, config, self.remark, str(self.directory))

    def user_settings(self) -> Config:
        """The user's own config file, for a command that has no repository."""
        from persona.history.config import Config

        return Config(self.user_config, self.user_config)

    @contextmanager
    def progress(self) -> Iterator[Any]:
        """The progress bar to hand to the library, or None where nobody watches."""
        from persona.cli.progress import progress_bar

        bar = progress_bar(self.quiet)
        try:
            yield bar
        finally:
            if bar is not None:
                bar.close()

    def path(self, path: str) -> Path:
        """A path from the command line, seen from `-C`."""
        return self.directory / path

    def tracked(self, repo: Repository, paths: Sequence[str]) -> list[str]:
        """Files of the work tree from the command line, as the repository names them: from its root."""
        here, root = self.directory.resolve(), repo.root.resolve()
        found = [os.path.relpath(os.path.normpath(here / path), root) if path else "" for path in paths]
        for path, name in zip(paths, found, strict=True):
            if not path or name.split(os.sep)[0] == os.pardir:
                raise UsageError(f"{path!r:.100} is no file of the work tree {repo.root}")
        return found

    # -- what is said ----------------------------------------------------------------------------------------

    def answer(self, value: Any, text: Iterable[str] | str) -> None:
        """What was asked for: `value` as JSON, or the lines of `text`."""
        if self.json:
            self.answer_json(value)
        else:
            echo_lines([text] if isinstance(text, str) else text)

    def report(self, value: Any, text: Iterable[str] | str) -> None:
        """What was done: as `answer`, but its text is left out with `-q`."""
        if self.json or not self.quiet:
            self.answer(value, text)

    def answer_json(self, value: Any) -> None:
        """A result in the form of docs/commands.md, on one line."""
        from persona.history.results import as_json

        click.echo(json.dumps(as_json(value)))

    def answer_json_list(self, values: Iterable[Any]) -> None:
        """A list of results, each on its own line and written as it comes."""
        from persona.history.results import as_json

        first = True
        for lines in _batches(json.dumps(as_json(value)) for value in values):
            click.echo(("[" if first else ",\n") + ",\n".join(lines), nl=False)
            first = False
        click.echo("[]" if first else "]")

    def remark(self, sentence: str) -> None:
        """A sentence beside the result, on stderr."""
        if not self.quiet:
            click.echo(sentence, err=True)

    def remarks(self, sentences: Iterable[str]) -> None:
        """Several of them."""
        for sentence in sentences:
            self.remark(sentence)

    @property
    def interactive(self) -> bool:
        """Whether somebody sits at both ends, so that an editor can be opened."""
        return sys.stdin.isatty() and sys.stdout.isatty()


def echo_lines(lines: Iterable[str]) -> None:
    """Writes lines to stdout, many at a time."""
    for batch in _batches(lines):
        click.echo("\n".join(batch))


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
