"""A file that is written while it is read is told from one that is not, however fast."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from persona.errors import InvalidInput
from persona.weights.checkpoint import Checkpoint
from persona.weights.inputs import InputFile, fingerprint, read_input
from tests.checkpoints import write_file, write_shards

TENSORS = {"a": b"one-a", "b": b"one-bb"}


def in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def by_rename(path: Path, data: bytes) -> None:
    path.with_name("new").write_bytes(data)
    os.replace(path.with_name("new"), path)


def with_its_old_time(path: Path, data: bytes) -> None:
    status, ticked = path.stat(), path.with_name("clock")
    while True:  # until the clock that stamps files has ticked
        ticked.write_bytes(b"")
        if ticked.stat().st_ctime_ns > status.st_ctime_ns:
            break
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def gone(path: Path, data: bytes) -> None:
    path.unlink()


CHANGES: list[Callable[[Path, bytes], None]] = [in_place, by_rename, with_its_old_time, gone]


@pytest.mark.parametrize("change", CHANGES)
def test_an_input_that_changes_says_so(change: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1234")
    with InputFile(path, watched=True) as file:
        file.check_unchanged()
        change(path, b"5678")
        with pytest.raises(InvalidInput, match="x: was changed while it was read"):
            file.check_unchanged()


def test_a_save_in_the_tick_in_which_a_file_was_opened_shows(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / str(number)
        path.write_bytes(b"1234")  # as fresh as can be
        with InputFile(path, watched=True) as file:
            path.write_bytes(b"5678")
            with pytest.raises(InvalidInput, match="changed"):
                file.check_unchanged()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["model-00001-of-00001.safetensors", "model.safetensors.index.json"])
def test_a_checkpoint_whose_shard_or_index_changes_says_which(
    name: str, change: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    write_shards(tmp_path, {"model-00001-of-00001.safetensors": TENSORS})
    with Checkpoint.open(tmp_path) as checkpoint:
        checkpoint.check_unchanged()
        assert checkpoint.weights_seen[name] == fingerprint(tmp_path / name)
        change(tmp_path / name, (tmp_path / name).read_bytes())
        with pytest.raises(InvalidInput, match=f"{name}: was changed"):
            checkpoint.check_unchanged()


def test_text_files_are_watched_from_when_they_are_read(tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", TENSORS)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.md").write_text("1")
    with Checkpoint.open(tmp_path) as checkpoint:
        (tmp_path / "notes.md").write_text("22")
        checkpoint.check_unchanged()
        assert checkpoint.read_text("notes.md") == b"22"
        (tmp_path / "notes.md").write_text("333")
        with pytest.raises(InvalidInput, match=r"notes\.md"):
            checkpoint.check_unchanged()


def test_a_small_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("half")
    read = InputFile.read

    def slow(self: InputFile, offset: int, length: int) -> bytes:
        data = read(self, offset, length)
        path.write_text("half and half")
        return data

    monkeypatch.setattr(InputFile, "read", slow)
    with pytest.raises(InvalidInput, match="was changed"):
        read_input(path, limit=100)
