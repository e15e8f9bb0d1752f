"""persona, in a repository of its own. Its command line runs in this process."""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner

from persona.cli.invocation import Invocation
from persona.cli.main import cli
from persona.history import identity
from persona.repository import Repository
from persona.store.files import replaced_calls
from persona.store.refs import HEADS, TAGS
from tests.disks import Quick
from tests.properties.beside_git.running import Answer, Clock
from tests.properties.beside_git.state import Source, State, Written

VARIABLES = {
    "PERSONA_AUTHOR_NAME": "Ada",
    "PERSONA_AUTHOR_EMAIL": "ada@example.org",
    "PERSONA_COMMITTER_NAME": "Ada",
    "PERSONA_COMMITTER_EMAIL": "ada@example.org",
    "NO_COLOR": "1",
    "TZ": "UTC",
}


class Persona(Source):
    """Runs persona, and reads what it wrote."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(root)
        self._clock = clock
        self.editor: str | None = None

    def run(self, words: list[str]) -> Answer:
        """One command."""
        home = {"XDG_CONFIG_HOME": str(self.root.parent / "home")}
        variables = {**VARIABLES, **home, "PERSONA_EDITOR": self.editor or "true"}
        with ExitStack() as stack:
            stack.enter_context(replaced_calls(Quick()))
            stack.enter_context(patch.object(identity, "now", lambda: (self._clock.now, 0)))
            if self.editor is not None:  # without a terminal, no editor opens
                stack.enter_context(patch.object(Invocation, "interactive", True))
            place = ["-C", str(self.root)]
            result = CliRunner().invoke(cli, [*place, *words], env=variables, prog_name="persona")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            traceback.print_exception(result.exception)
        return Answer(result.exit_code, result.stdout, result.stderr)

    def state(self) -> State:
        with Repository.open(self.root) as self._repo:
            return self._state()

    def in_text(self, text: str) -> str:
        with Repository.open(self.root) as self._repo:
            return self._labelled(text)

    def _state(self) -> State:
        history, refs = self._repo._history, self._repo._history.store.refs
        status, (kind, value) = self._repo.status(), refs.head()
        branches = {name.removeprefix(HEADS): id for name, id in refs.list(HEADS).items()}
        logs = {"HEAD": "HEAD"} | {name: HEADS + name for name in branches}
        tags = {}
        for name, id in refs.list(TAGS).items():
            tag = history.tag(id) if history.store.objects.kind_of(id) == "tag" else None
            tags[name.removeprefix(TAGS)] = (
                (self.label(tag.object), tag.message) if tag else (self.label(id), None)
            )
        waiting = status.sequence
        conflicted = sorted({conflict.path for conflict in waiting.conflicts}) if waiting else []
        changed = [*status.files_changed, *(["recipe.toml"] if status.recipe_changed else [])]
        return State(
            f"on {value.removeprefix(HEADS)}" if kind == "ref" else f"detached at {self.label(value)}",
            {name: self.label(id) for name, id in branches.items()},
            tags,
            {name: self._log(ref) for name, ref in logs.items()},
            self.text_files(conflicted),
            sorted(set(changed) - set(conflicted)),
            sorted(status.untracked),
            conflicted,
            waiting.verb if waiting and waiting.verb != "stash" else None,
        )

    def commits_like(self, prefix: str) -> list[str]:
        found = self._repo._history.store.objects.ids_with_prefix(prefix)
        return [id for id, kind in found if kind == "commit"]

    def written(self, id: str) -> Written:
        history = self._repo._history
        commit = history.commit(id)
        return Written(
            {path: history.blob(blob) for path, blob in history.files_of(id).items()},
            commit.parents,
            (commit.author.name, commit.author.email, commit.author.time),
            commit.committer.time,
            commit.message,
        )

    def _log(self, name: str) -> list[str]:
        entries = [entry for entry in self._repo._history.store.refs.log(name) if entry.new is not None]
        return [f"{self.label(entry.new)} {self._labelled(entry.why)}" for entry in entries if entry.new]
