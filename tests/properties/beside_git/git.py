"""git, in a repository of its own. Its files are read here: a process for each question would take long."""

from __future__ import annotations

import os
import re
import subprocess
import zlib
from pathlib import Path

from tests.properties.beside_git.running import Answer, Clock
from tests.properties.beside_git.state import Source, State, Written

VARIABLES = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "LC_ALL": "C",
    "TZ": "UTC",
}
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""A tree without files, which git knows and does not store."""
UNDER_WAY = {
    "rebase-merge": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
}
"""A file in .git → the command that waits for --continue."""


class Git(Source):
    """Runs git, and reads what it wrote."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(root)
        self._git, self._clock, self.editor = root / ".git", clock, "true"

    def run(self, words: list[str]) -> Answer:
        """One command."""
        date = f"{self._clock.now} +0000"
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        variables = {**VARIABLES, **dates, "GIT_EDITOR": self.editor, "PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["git", *words], cwd=self.root, env=variables, text=True, capture_output=True, check=False
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def state(self) -> State:
        entries = [(line[:2], line[3:]) for line in self.run(["status", "--porcelain"]).out.splitlines()]
        conflicted = sorted(path for kind, path in entries if "U" in kind or kind in ("AA", "DD"))
        branches = self._refs("heads")
        logs = {"HEAD": "HEAD"} | {name: f"refs/heads/{name}" for name in branches}
        marks = (what for mark, what in UNDER_WAY.items() if (self._git / mark).exists())
        return State(
            self._head(),
            {name: self.label(id) for name, id in branches.items()},
            {name: self._tag(id) for name, id in self._refs("tags").items()},
            {name: self._log(file) for name, file in logs.items()},
            self.text_files(conflicted),
            sorted(path for kind, path in entries if kind != "??" and path not in conflicted),
            sorted(path for kind, path in entries if kind == "??"),
            conflicted,
            next(marks, None) or self._listed(),
        )

    def commits_like(self, prefix: str) -> list[str]:
        folder = self._git / "objects" / prefix[:2]
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        ids = [prefix[:2] + name for name in names if name.startswith(prefix[2:])]
        return [id for id in ids if self._object(id)[0] == "commit"]

    def written(self, id: str) -> Written:
        header, _, message = self._object(id)[1].decode().partition("\n\n")
        lines = [line.split(" ", 1) for line in header.splitlines()]
        values = dict(lines)
        people = [re.fullmatch(r"(.*) <(.*)> (\d+) \S+", values[who]) for who in ("author", "committer")]
        author, committer = people
        assert author is not None
        assert committer is not None
        return Written(
            self._files(values["tree"]),
            tuple(value for key, value in lines if key == "parent"),
            (author[1], author[2], int(author[3])),
            int(committer[3]),
            message,
        )

    def _object(self, id: str) -> tuple[str, bytes]:
        data = zlib.decompress((self._git / "objects" / id[:2] / id[2:]).read_bytes())
        header, _, content = data.partition(b"\0")
        return header.split()[0].decode(), content

    def _files(self, tree: str, prefix: str = "") -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        data = b"" if tree == _EMPTY_TREE else self._object(tree)[1]
        while data:
            head, _, rest = data.partition(b"\0")
            mode, name = head.decode().split(" ", 1)
            id, data = rest[:20].hex(), rest[20:]
            if mode == "40000":
                found |= self._files(id, f"{prefix}{name}/")
            else:
                found[prefix + name] = self._object(id)[1]
        return found

    def _listed(self) -> str | None:
        """The command that has commits left to do, if none has a commit that stopped it."""
        todo = self._git / "sequencer" / "todo"
        if not todo.is_file():
            return None
        return {"pick": "cherry-pick", "revert": "revert"}[todo.read_text().split()[0]]

    def _refs(self, kind: str) -> dict[str, str]:
        folder = self._git / "refs" / kind
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return {str(file.relative_to(folder)): file.read_text().strip() for file in files}

    def _head(self) -> str:
        text = (self._git / "HEAD").read_text().strip()
        branch = text.removeprefix("ref: refs/heads/")
        return f"on {branch}" if branch != text else f"detached at {self.label(text)}"

    def _log(self, name: str) -> list[str]:
        file = self._git / "logs" / name
        lines = file.read_text().splitlines() if file.is_file() else []
        moves = [(line.split(" ")[1], line.partition("\t")[2]) for line in reversed(lines)]
        # docs/git.md says that the two have other names for how they merge.
        moves = [(id, why.replace("the 'ort' strategy", "the 'three-way' strategy")) for id, why in moves]
        return [f"{self.label(id)} {self._labelled(why)}" for id, why in moves]

    def _tag(self, id: str) -> tuple[str, str | None]:
        kind, content = self._object(id)
        if kind == "commit":
            return self.label(id), None
        header, _, message = content.decode().partition("\n\n")
        return self.label(header.split()[1]), message
