"""A byte changed anywhere in what is stored: found before it is used, or of no consequence. Never other
weights.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import digest_of_files
from tests.llamas import LlamaBot

FIXED, SEGMENT, CHECK = 108, 17, 16
"""Bytes of a record's header, of each segment in it, and of its check (docs/format.md)."""


def regions(data: bytes) -> dict[str, tuple[int, int]]:
    """Where each part of a pack lies, from the format's description."""
    found = {"magic": (0, 16)}
    place = number = 0
    place = 16
    while data[place : place + 4] == b"PVR1":
        count = data[place + 6]
        after = place + FIXED + SEGMENT * count
        stored = [struct.unpack_from("<Q", data, place + FIXED + SEGMENT * n)[0] for n in range(count)]
        if number < 2:
            found[f"record {number}: start"] = (place, place + 12)
            found[f"record {number}: id"] = (place + 12, place + 44)
            found[f"record {number}: base chunk"] = (place + 44, place + 76)
            found[f"record {number}: digest"] = (place + 76, place + FIXED)
            found[f"record {number}: lengths"] = (place + FIXED, after)
            found[f"record {number}: check"] = (after, after + CHECK)
            for n, length in enumerate(stored):
                if length:
                    start = after + CHECK + sum(stored[:n])
                    found[f"record {number}: segment {n}"] = (start, start + length)
        place = after + CHECK + sum(stored)
        number += 1
    found["footer"] = (place, len(data))
    return found


def packs(bot: LlamaBot) -> list[Path]:
    return sorted((bot.root / ".persona" / "packs").glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture
def two_packs(bot: LlamaBot) -> LlamaBot:
    """A base, one vector, and no cache that could stand in for what is stored."""
    bot.tune("one", 1)
    bot.run.ok("commit", "../one", "-m", "one")
    return bot


@pytest.mark.parametrize("with_idx", [True, False], ids=["idx", "no idx"])
def test_a_byte_changed_in_any_region_of_a_pack_never_becomes_weights(
    two_packs: LlamaBot, with_idx: bool
) -> None:
    bot = two_packs
    right = bot.run.json("digest")["weights"]
    assert len(packs(bot)) == 2
    random = np.random.default_rng(1)
    for pack in packs(bot):
        data = pack.read_bytes()
        for where, (start, end) in regions(data).items():
            damaged = bytearray(data)
            damaged[random.integers(start, end)] ^= 1 << random.integers(8)
            idx = pack.with_suffix(".idx")
            kept = idx.read_bytes()
            if not with_idx:
                idx.unlink()
            pack.write_bytes(damaged)
            answer = bot.run("--json", "digest")
            assert "Traceback" not in answer.output
            if answer.exit_code == 0:
                assert f'"{right}"' in answer.stdout, where
                assert not where.startswith("record") or "base chunk" in where, where
            else:
                assert answer.exit_code == 5, (where, answer.output)
                said, *hints = answer.stderr.splitlines()
                assert said.startswith("persona: ")
                assert all(hint.startswith("hint: ") for hint in hints)
            fsck = bot.run("fsck", "--full")
            assert fsck.exit_code == 5 or not with_idx, where
            pack.write_bytes(data)
            idx.write_bytes(kept)
    assert bot.run("fsck", "--full").exit_code == 0
    assert bot.run.json("digest")["weights"] == right


def stored_files(bot: LlamaBot) -> list[Path]:
    store = bot.root / ".persona"
    found = [path for path in store.rglob("*") if path.is_file()]
    leave = ("config", "lock", ".gitignore")
    return sorted(path for path in found if path.relative_to(store).parts[0] not in leave)


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "a byte short": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "a byte long": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_file_of_the_store_cut_short_never_becomes_weights(two_packs: LlamaBot, cut: str) -> None:
    bot = two_packs
    right = bot.checkout()["weights"]
    head = bot.run.ok("rev-parse", "HEAD")
    for path in stored_files(bot):
        data = path.read_bytes()
        path.write_bytes(CUTS[cut](data))
        for command in (
            ["--json", "digest"],
            ["--json", "checkout"],
            ["log"],
            ["status"],
            ["fsck", "--full"],
        ):
            answer = bot.run(*command)
            assert answer.exit_code in (0, 1, 3, 4, 5), (path, command, answer.output)
            assert "Traceback" not in answer.output
            if answer.exit_code == 0 and "digest" in command:
                assert f'"{right}"' in answer.stdout, path
        assert digest_of_files(bot.root) == right
        path.write_bytes(data)
    assert bot.run.ok("rev-parse", "HEAD") == head
    assert bot.run.json("digest")["weights"] == right


def test_a_truncated_object_is_named_and_healed_by_storing_it_again(two_packs: LlamaBot) -> None:
    bot = two_packs
    made = bot.run.json("vector", "ls")[0]
    place = bot.root / ".persona" / "objects" / made["id"][:2] / made["id"][2:]
    place.write_bytes(place.read_bytes()[:-3])
    sentence = bot.run.refused(5, "digest")
    assert made["id"][:8] in sentence
    assert "vector" in sentence
    pack = packs(bot)[1]
    pack.write_bytes(pack.read_bytes()[:-2000])
    assert bot.run("fsck", "--full").exit_code == 5
    bot.run("commit", "../one", "-n", "one", "-m", "again")
    bot.checkout()
    assert bot.holds(bot.tune("check", 1))
