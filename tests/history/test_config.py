"""Settings are the user's own text: edits keep it, and take what the keys can have."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path

import pytest

from persona.errors import InvalidInput, UsageError
from persona.history.config import Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "config")


def test_an_edit_keeps_marks_line_ends_and_comments(config: Config) -> None:
    before = b'\xef\xbb\xbf# mine\r\n[user]\r\nname = "Ada" # who\r\n'
    config.path.write_bytes(before)
    assert config.get("user.name") == "Ada"
    config.set("user.email", "ada@example.org")
    after = config.path.read_bytes()
    assert after.startswith(before.rstrip())
    assert after.count(b"\r\n") == after.count(b"\n") == 4
    config.unset("user.email")
    assert config.path.read_bytes() == before
    assert config.values() == {"user.name": "Ada"}


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("branch.topic/one.remote", ("branch", "topic/one", "remote")),
        ('branch."v1.2".remote', ("branch", "v1.2", "remote")),
        ("branch.größer.remote", ("branch", "größer", "remote")),
    ],
)
def test_a_part_of_a_key_may_be_the_name_of_a_branch(
    config: Config, key: str, parts: tuple[str, ...]
) -> None:

    config.set(key, "origin")
    assert config.get(key) == "origin"
    assert config.values() == {key: "origin"}
    table = tomllib.loads(config.path.read_text())
    for part in parts:
        table = table[part]
    assert table == "origin"
    config.unset(key)
    assert config.values() == {}


@pytest.mark.parametrize(
    "key", ["user", "user..name", "user.", ".name", "a b.c", 'a."b', "a.b=c", 'a."".c', "a.b\n"]
)
def test_what_is_no_key_is_a_usage_error(config: Config, key: str) -> None:
    for call in (lambda: config.get(key), lambda: config.set(key, "x"), lambda: config.unset(key)):
        with pytest.raises(UsageError, match="not a config key"):
            call()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("commit.checkout", "maybe"),
        ("checkout.memory", "lots"),
        ("checkout.device-memory", "0"),
        ("checkout.max-shard-size", "-1GB"),
        ("checkout.threads", "0"),
        ("checkout.device", "tpu"),
        ("merge.preset", "best"),
        ("merge.density", "2"),
        ("merge.lambda", "much"),
        ("merge.trim", "all"),
    ],
)
def test_a_value_that_a_key_cannot_have_is_refused_when_it_is_set(
    config: Config, key: str, value: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^config {key}: "):
        config.set(key, value)
    assert not config.path.exists()


def test_edits_of_two_objects_are_both_kept_and_seen(config: Config) -> None:
    other = Config(config.path)
    assert other.get("user.name") is None
    begin = threading.Barrier(4)

    def edit(number: int) -> None:
        own = Config(config.path)
        begin.wait()
        for step in range(10):
            own.set(f"own.key{number}-{step}", "x")

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(config.values()) == len(other.values()) == 40
