"""The files beside the weights of a model directory: which come along, and why others stay behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona import limits
from persona.weights.checkpoint import Checkpoint
from persona.weights.folder import left_out
from tests.checkpoints import write_file, write_model

MODEL = {"w": [1.0, 2.0]}


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"this is {path}")


def beside(root: Path) -> tuple[set[str], dict[str, str]]:
    with Checkpoint.open(root) as checkpoint:
        return set(checkpoint.text_files) - {"config.json"}, checkpoint.ignored


def test_text_files_of_subdirectories_come_along_at_any_depth(tmp_path: Path) -> None:
    write_model(tmp_path, MODEL)
    texts = {
        "1_Pooling/config.json",
        "additional_chat_templates/rag.jinja",
        "a b/ü/deep.txt",
    }
    put(tmp_path, *texts, "__pycache__/x.pyc", "1_Pooling/.hidden", ".cache/huggingface/x")
    assert beside(tmp_path) == (texts, {})
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.read_text("a b/ü/deep.txt") == "this is a b/ü/deep.txt".encode()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.onnx", "x.gguf"])
def test_weights_of_a_subdirectory_are_always_named(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, MODEL)
    put(tmp_path, f"2_Dense/{name}", "2_Dense/config.json", f"a/b/{name}")
    texts, ignored = beside(tmp_path)
    assert texts == {"2_Dense/config.json"}
    assert ignored == dict.fromkeys([f"2_Dense/{name}", f"a/b/{name}"], "weights of a subdirectory")


def test_a_pickle_with_a_plain_name_stays_behind_in_a_subdirectory_too(tmp_path: Path) -> None:
    write_model(tmp_path, MODEL)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.txt").write_bytes(b"\x80\x04x")
    _, ignored = beside(tmp_path)
    assert "a pickle" in ignored["sub/notes.txt"]


@pytest.mark.parametrize(
    ("inside", "folder", "why"),
    [
        ("config.json", "checkpoint-500", "of a training"),
        ("mp_rank_00_model_states.pt", "global_step500", "of a training"),
        ("events.out.tfevents.1", "runs", "of a training"),
        (".persona/format", "bot", "a repository"),
        (".git/HEAD", "code", "a repository"),
        ("pyvenv.cfg", "env", "a Python environment"),
    ],
)
def test_a_directory_that_is_no_part_of_the_model_stays_behind_whole(
    tmp_path: Path, inside: str, folder: str, why: str
) -> None:
    write_model(tmp_path, MODEL)
    put(tmp_path, f"{folder}/{inside}", f"{folder}/more.txt", f"sub/{folder}/{inside}", "sub/x.txt")
    assert beside(tmp_path) == ({"sub/x.txt"}, {f"{folder}/": why, f"sub/{folder}/": why})


def test_a_directory_of_too_many_files_stays_behind_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_FOLDER_FILES", 3)
    write_model(tmp_path, MODEL)
    put(
        tmp_path,
        *(f"data/{number}.txt" for number in range(4)),
        *(f"few/{number}.txt" for number in range(3)),
    )
    assert beside(tmp_path) == ({"few/0.txt", "few/1.txt", "few/2.txt"}, {"data/": "more than 3 files"})


def test_a_link_is_followed_to_a_file_inside_and_never_to_a_directory(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", MODEL)
    put(model, "real/x.txt")
    put(tmp_path, "secret/y.txt")
    (model / "real" / "inside").symlink_to("x.txt")
    (model / "real" / "outside").symlink_to("../../secret/y.txt")
    (model / "linked").symlink_to("real")
    (model / "real" / "up").symlink_to("..")
    texts, ignored = beside(model)
    assert texts == {"real/x.txt", "real/inside"}
    assert ignored == {
        "linked/": "a link to a directory, which is not followed",
        "real/up/": "a link to a directory, which is not followed",
        "real/outside": "a link that leads out of the directory",
    }


def test_a_snapshot_of_the_hubs_cache_has_its_subdirectories(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    (snapshot / "1_Pooling").mkdir(parents=True)
    write_file(blobs / "0", MODEL)
    (blobs / "1").write_text("pooling")
    (snapshot / "model.safetensors").symlink_to("../../blobs/0")
    (snapshot / "1_Pooling" / "config.json").symlink_to("../../../blobs/1")
    assert beside(snapshot) == ({"1_Pooling/config.json"}, {})


def test_the_state_of_a_training_is_told_from_other_weights(tmp_path: Path) -> None:
    write_model(tmp_path, MODEL)
    state = ["optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json"]
    state += ["events.out.tfevents.17.host", "zero_to_fp32.py", "latest"]
    others = ["pytorch_model.bin", "consolidated.safetensors"]
    put(tmp_path, *state, *others, "adapter_config.json", "adapter_model.safetensors")
    _, ignored = beside(tmp_path)
    by_reason = {
        why: sorted(path for path, said in ignored.items() if said == why) for why in ignored.values()
    }
    assert by_reason == {
        "of a training": sorted(state),
        "other weights": sorted(others),
        "of an adapter": ["adapter_config.json", "adapter_model.safetensors"],
    }
    assert left_out({path: why for path, why in ignored.items() if path in others}) == [
        "left out: consolidated.safetensors, pytorch_model.bin (other weights)"
    ]
