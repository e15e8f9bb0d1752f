#!/usr/bin/env python3
"""Do two versions of persona write the same bytes, and does each read the other's repository?

    scripts/compatibility.py 46715f8            # a commit of this clone: it is checked out and run from there
    scripts/compatibility.py 46715f8 --models build/demo/models   # with real models: base first, see below

Both versions run the same commands with the same names and dates, each in a repository of its own. Then every
stored file is compared, but for those that hold clocks or places of this run (`cache/`, `tmp/`, `state/`, the
times in reflogs). Then each version works in a copy of the other's repository: it checks it whole, reads its
history, computes the weights of every commit, and goes on committing; and the first one reads that again.

Without `--models`, three small models are made. With it, the first directory in order of names is the base.
The environment has to satisfy both versions. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OF_THIS_RUN = ("cache", "tmp", "state", "lock")
"""Parts of a store that hold clocks, inodes or nothing."""
CLOCKED = re.compile(rb"^[0-9a-f]+ |(?<=>) \d+ [+-]\d{4}", re.MULTILINE)
"""The check and the time of a line of a reflog."""
RUN = "import sys; from persona.cli.entry import main; sys.exit(main())"


class Version:
    """One version of persona: the directory that its package lies in."""

    def __init__(self, name: str, source: Path) -> None:
        self.name = name
        self.source = source
        self._seconds = 1_800_000_000

    def run(self, where: Path, *arguments: object, refused: bool = False) -> str:
        """What a command prints. RuntimeError where it fails; with `refused`, where it does not."""
        self._seconds += 60
        who = {
            f"PERSONA_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (
                ("NAME", "A. Tester"),
                ("EMAIL", "a@example.org"),
                ("DATE", f"@{self._seconds} +0100"),
            )
        }
        home = {
            "HOME": str(where.parent),
            "XDG_CONFIG_HOME": str(where.parent),
            "PYTHONPATH": str(self.source),
        }
        done = subprocess.run(
            [sys.executable, "-c", RUN, "-C", where, *map(str, arguments)],
            env={**os.environ, **home, **who, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if (done.returncode != 0) is not refused:
            words = " ".join(map(str, arguments))
            raise RuntimeError(f"{self.name}: persona {words} ended with {done.returncode}\n{done.stderr}")
        return done.stdout

    def answer(self, where: Path, *arguments: object) -> Any:
        """The answer of a command in JSON: the last value that it prints, after those of progress."""
        text = self.run(where, *arguments, "--json").rstrip()
        value, end = None, 0
        while end < len(text):
            value, end = json.JSONDecoder().raw_decode(text, end + (text[end] == "\n"))
        return value

    def begin(self, where: Path, base: Path, tuned: Sequence[Path]) -> None:
        """A repository with a history of most kinds of commits, refs and files."""
        one, two = (path.name for path in tuned[:2])
        where.mkdir()
        self.run(where, "init", ".", "--base", base, "--name", "base")
        self.run(where, "commit", tuned[0], "-m", "one behaviour\n\nWith a body: π.")
        self.run(where, "tag", "v1", "-m", "the first")
        self.run(where, "switch", "-c", "topic/more")
        self.run(where, "commit", tuned[1], "--alpha", "-0.5", "--density", "0.3", "-m", "another, negative")
        self.run(where, "tag", "light")
        self.run(where, "set", "--merge", "preset=ties", "density=0.2")
        self.run(where, "set", one, "--alpha", "0.75", "--only", "*weight*")
        (where / "notes.md").write_text("A file beside the recipe.\n")
        self.run(where, "add", where / "notes.md")
        self.run(where, "commit", "-m", "trim, and a note")
        self.run(where, "checkout")
        self.run(where, "mv", two, "other")
        self.run(where, "commit", "-m", "rename")
        self.run(where, "revert", "HEAD~1")
        self.run(where, "switch", "main")
        self.run(where, "commit", "--allow-empty", "--amend", "-m", "one behaviour, amended")
        self.run(where, "branch", "kept", "topic/more~1")
        self.run(where, "branch", "-m", "kept", "renamed")
        self.run(where, "config", "user.name", "Somebody")
        self.run(where, "checkout", "topic/more~2")
        self.run(where, "switch", "topic/more")
        self.run(where, "revert", "-n", "HEAD")

    def look(self, where: Path) -> dict[str, object]:
        """What a repository says: history, refs, differences, the digest of the weights of each commit."""
        checked = self.answer(where, "fsck", "--full")
        commits = self.answer(where, "log", "--all")
        ids = [commit["id"] for commit in commits]
        return {
            "fsck": {key: checked[key] for key in ("ok", "problems")},
            "log": commits,
            "status": self.answer(where, "status"),
            "branches": self.answer(where, "branch"),
            "tags": self.answer(where, "tag"),
            "reflog": [line["id"] for line in self.answer(where, "reflog")],
            "vectors": self.answer(where, "vector", "ls"),
            "diffs": [self.answer(where, "diff", ids[-1], id) for id in ids],
            "digests": [self.answer(where, "digest", id)["weights"] for id in ids],
        }

    def go_on(self, where: Path, base: Path, tuned: Sequence[Path]) -> dict[str, object]:
        """Works on in a repository; returns what it says then."""
        self.run(where, "commit", "-m", "what the revert left")
        self.run(where, "commit", tuned[-1], "-n", "late", "-m", "a late one")
        self.run(where, "checkout")
        self.run(where, "switch", "main")
        self.run(where, "branch", "-D", "renamed")
        self.run(where, "revert", tuned[0].name)
        return self.look(where)


def stored(where: Path) -> dict[str, bytes]:
    """The files of a repository that do not depend on when and where it was made."""
    found = {}
    for path in sorted(where.rglob("*")):
        name = path.relative_to(where).as_posix()
        if (
            path.is_file()
            and not path.name.startswith(".persona-")
            and not (name.startswith(".persona/") and name.split("/")[1] in OF_THIS_RUN)
        ):
            data = path.read_bytes()
            found[name] = CLOCKED.sub(b"", data) if name.startswith(".persona/logs/") else data
    return found


def differences(first: dict[str, bytes], second: dict[str, bytes]) -> Iterator[str]:
    """A line for each file that only one has, or that differs."""
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            sides = [f"{len(side[name])} bytes" if name in side else "absent" for side in (first, second)]
            yield f"{name}: {sides[0]} and {sides[1]}"


def tiny_models(where: Path) -> list[Path]:
    """A base and two fine-tunes of three dtypes, some megabytes large."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    random = np.random.default_rng(7)
    shapes = {
        "model.embed_tokens.weight": ((256, 384), torch.bfloat16),
        "model.layers.0.mlp.up_proj.weight": ((384, 1536), torch.bfloat16),
        "model.layers.0.norm.weight": ((384,), torch.float32),
        "model.layers.1.mlp.up_proj.weight": ((384, 1536), torch.float16),
    }
    values = {name: random.normal(0, 0.05, shape).astype("f4") for name, (shape, _) in shapes.items()}
    models = []
    for name in ("base", "calm", "warm"):
        place = where / name
        place.mkdir(parents=True)
        change = 0.0 if name == "base" else 0.002
        tensors = {
            key: torch.from_numpy(value + change * random.normal(size=value.shape).astype("f4")).to(
                shapes[key][1]
            )
            for key, value in values.items()
        }
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
        (place / "config.json").write_text('{"model_type": "tiny"}\n')
        (place / "tokenizer_config.json").write_text(f'{{"of": "{name}"}}\n')
        models.append(place)
    return models


def main() -> int:
    """Runs both versions and prints what is equal and what is not."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("commit", help="the other version")
    options.add_argument("--models", type=Path, help="a directory with three models or more")
    args = options.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        git = ["git", "-C", str(ROOT)]
        subprocess.run([*git, "worktree", "add", "-q", "--detach", work / "older", args.commit], check=True)
        try:
            models = sorted(args.models.resolve().iterdir()) if args.models else tiny_models(work / "models")
            base, tuned = models[0], models[1:]
            versions = Version("this", ROOT), Version(args.commit, work / "older")
            for version in versions:
                version.begin(work / f"of-{version.name}", base, tuned)
            made = [stored(work / f"of-{version.name}") for version in versions]
            wrong += differences(*made)
            print(f"{len(made[0])} stored files and files of the work tree compared, {len(wrong)} differ")
            for reader, writer in (versions, versions[::-1]):
                place = work / f"{writer.name}-read-by-{reader.name}"
                shutil.copytree(work / f"of-{writer.name}", place, symlinks=True)
                told, said = writer.look(place), reader.look(place)
                wrong += [
                    f"{reader.name} reads {key} of {writer.name} otherwise"
                    for key in told
                    if told[key] != said[key]
                ]
                said = reader.go_on(place, base, tuned)
                told = writer.look(place)
                wrong += [
                    f"{writer.name} reads {key} of {reader.name} otherwise"
                    for key in told
                    if told[key] != said[key]
                ]
                print(f"{reader.name} read what {writer.name} wrote, and {writer.name} what it added")
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", work / "older"], check=False)
    print("\n".join(wrong) or "equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
