"""Pickles and other foreign formats are refused by content; none is ever opened."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from persona.errors import InvalidInput
from persona.weights.checkpoint import Checkpoint
from tests.checkpoints import write_file
from tests.pickles import Canary


def _torch(canary: Canary, zipped: bool) -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.zeros(2), "canary": canary}, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def _numpy(canary: Canary, zipped: bool) -> bytes:
    out = io.BytesIO()
    array = np.array([canary], dtype=object)
    if zipped:
        np.savez(out, w=array)
    else:
        np.save(out, array, allow_pickle=True)
    return out.getvalue()


FORMATS: dict[str, Callable[[Canary], bytes]] = {
    "torch zip": lambda canary: _torch(canary, True),
    "torch legacy": lambda canary: _torch(canary, False),
    "npz of objects": lambda canary: _numpy(canary, True),
    "npy of objects": lambda canary: _numpy(canary, False),
    **{f"pickle {n}": lambda canary, n=n: pickle.dumps({"w": canary}, protocol=n) for n in range(6)},  # type: ignore[misc]
}
NAMES = (
    "pytorch_model.bin",
    "model.pt",
    "model.pth",
    "model.npz",
    "model.safetensors",
    "weights",
    "consolidated.00.pth",
)


def test_the_canary_sings_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_pickle_is_refused_by_content_and_never_opened(form: str, name: str, tmp_path: Path) -> None:
    mark, model = tmp_path / "mark", tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / name).write_bytes(FORMATS[form](Canary(mark)))
    for path in (model, model / name):
        with pytest.raises(InvalidInput, match=r"pickle|NumPy arrays") as caught:
            Checkpoint.open(path)
        assert str(model / name) in caught.value.message
        assert "safetensors" in caught.value.message
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_pickle_beside_good_weights_is_left_behind(form: str, tmp_path: Path) -> None:
    mark, model = tmp_path / "mark", tmp_path / "model"
    model.mkdir()
    write_file(model / "model.safetensors", {"w": b"12"})
    for name in ("training_args.bin", "optimizer.pt", "notes.txt"):
        (model / name).write_bytes(FORMATS[form](Canary(mark)))
    with Checkpoint.open(model) as checkpoint:
        assert not checkpoint.text_files
        assert set(checkpoint.ignored) == {"training_args.bin", "optimizer.pt", "notes.txt"}
    assert not mark.exists()


def test_an_index_of_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map":{"w":"pytorch_model-1.bin"}}')
    for path in (tmp_path, tmp_path / "pytorch_model.bin.index.json"):
        with pytest.raises(InvalidInput, match="safetensors"):
            Checkpoint.open(path)


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model"), None)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGUF\x03\0\0\0" + bytes([123]) + bytes(40), "GGUF"),
        (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (_zip(), "zip archive"),
        (_tar(), "tar archive"),
        (gzip.compress(b"weights", mtime=0), "a compressed file; unpack it"),
        (lzma.compress(b"weights"), "a compressed file; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "download the file again"),
    ],
)
def test_other_formats_are_told_by_name(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(InvalidInput, match=said):
            Checkpoint.open(path)


def test_a_header_whose_length_looks_like_a_pickle_is_a_header(tmp_path: Path) -> None:
    padding = 0x280 - len('{"__metadata__":{"pad":""},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}')
    for extra in range(-8, 8):
        path = write_file(tmp_path / "model.safetensors", {"w": b"12"}, {"pad": "x" * (padding + extra)})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    else:
        pytest.fail("no header of 0x280 bytes came about")
    with Checkpoint.open(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
