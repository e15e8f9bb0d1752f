"""Whatever is typed, and whatever lies in a repository, a command answers: never with a fault of its own."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from tests.campaign import rounds
from tests.cli.command_line import CommandLine
from tests.cli.commands import COMMANDS

WORDS = [
    *("", " ", "-", "--", "0", "-1", "2", "1e400", "nan", "0.5", "x" * 300, "x" * 5000, "\t", "a\nb"),
    *("a\x9bb", "a\udcffb", "\u202e", "é", "e\u0301", "😀", "..", ".", "/", "/dev/null", "recipe.toml"),
    *("HEAD", "HEAD~1", "main", "@", "@{", "@{-1}", "@{99999999999999999999}", "HEAD~99999999999999999999"),
    *(":/", ":/[", "A..B..C", "^", "...", "main..", "[", "{a", "**", "a//b", ".persona", ".persona/HEAD"),
    *("graph", "listening", "../listening", "../suggesting", "../nope", "9" * 40, "0" * 64, "1GB", "0B"),
    *("1e-400", "99999999999999999999GB", "main@{yesterday}", "main@{0}", "9999-99-99", "HEAD:recipe.toml"),
    *("HEAD^{tree}", "density=nan", "=", "a=b=c", "preset=paper", "lambda=1e400", "user.name", ".a", "base"),
]
NAMES = [name for name in COMMANDS if name not in ("digest", "checkout", "warm-up")]  # these take long


def answered(result: Result) -> bool:
    """Whether a command ended as docs/commands.md has it, and printed nothing that steers a terminal."""
    hidden = [char for char in result.output if not char.isprintable() and char not in "\n\t"]
    return result.exit_code in range(9) and "Traceback" not in result.output and not hidden


@pytest.mark.parametrize("seed", range(rounds(40)))
def test_any_words_are_answered(grown: CommandLine, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(15):
        name = chance.choice(NAMES)
        words = name.split()
        for option in COMMANDS[name].params:
            if isinstance(option, click.Option) and chance.random() < 0.2:
                words.append(chance.choice(option.opts))
                words += [] if option.is_flag else [chance.choice(WORDS)]
        words += chance.choices(WORDS, k=chance.choice([0, 1, 1, 2]))
        if name == "init":
            words.insert(1, "../new")
        result = grown(*words)
        assert answered(result), (words, result.output)


LINES = """
status; log -p --stat; log --graph --all; diff; diff HEAD~1 HEAD --stat; show; branch -v; tag; reflog; fsck
config --list; rev-parse main@{1}; cat-file -p HEAD; count-objects; vector ls; commit --allow-empty -m x
add ../suggesting; add graph; set listening --alpha 0.7; rm listening; restore .; restore recipe.toml
checkout --no-weights HEAD~1; switch -c new; switch main; switch -d HEAD~1; reset --hard HEAD~1; revert HEAD
tag -a v2 -m x; branch b1; branch -m b2; config user.name x; status --json; log --json; init
"""
JUNK = [b"", b"\0", b"\xff\xfe", b"{", b"[]", b"null", b"1", b"{}", b"a = ", b"a" * 100_000, b"[[]]" * 1000]
JUNK += [b'{"a":' * 2000, b"1e999", b"ref: refs/heads/../../x\n", b"ref: \n", b"0" * 64 + b"\n", b"9" * 5000]
JUNK += [b'{"revision": 5, "files": 3}', b'{"files": {"model.safetensors": [1]}}', b"\xed\xa0\x80"]


def removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def spoiled(path: Path, chance: random.Random) -> None:
    """Puts something else where a file or a directory was."""
    old = path.read_bytes() if path.is_file() else b""
    ways: list[Callable[[], object]] = [
        lambda: path.write_bytes(chance.choice(JUNK)),
        lambda: path.write_bytes(old[: chance.randint(0, len(old))]),
        lambda: path.write_bytes(bytes(byte ^ (chance.random() < 0.01) for byte in old)),
        lambda: path.symlink_to(path.name),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: None,
    ]
    if not path.parent.is_dir():
        return  # it was spoiled before
    removed(path)
    chance.choice(ways)()


@pytest.mark.parametrize("seed", range(rounds(40)))
def test_any_repository_is_answered(grown: CommandLine, seed: int) -> None:
    chance = random.Random(seed)
    root = grown.directory
    inner = sorted(path for path in (root / ".persona").rglob("*") if path.name not in ("lock",))
    outer = [root / name for name in ("recipe.toml", "config.json", "graph", "model.safetensors")]
    for path in chance.sample([*inner, *outer], chance.choice([1, 1, 2])):
        spoiled(path, chance)
    odd = chance.choice([b"\xff", b"tokenizer\xff.json", b"a\\b", "a\u202e".encode(), b"x" * 250])
    (root / os.fsdecode(odd)).write_bytes(b"x")
    lines = [line.split() for part in LINES.splitlines() for line in part.split("; ") if line]
    for words in chance.sample(lines, 10):
        result = grown(*words)
        assert answered(result), (words, result.output)
