"""A checkpoint is opened whole or refused with a sentence."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from persona import limits
from persona.errors import InvalidInput
from persona.objects.base import Shard
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from tests.checkpoints import tensor_digest, write_file, write_shards
from tests.weights.crafted import contents_of, publish

TWO_SHARDS = {
    "model-00001-of-00002.safetensors": {"b": b"bb", "a": b"a"},
    "model-00002-of-00002.safetensors": {"c": b"ccc", "Z": b"z"},
}
ALL = {"a": b"a", "b": b"bb", "c": b"ccc", "Z": b"z"}


def refused(path: Path, said: str) -> str:
    with pytest.raises(InvalidInput, match=said) as caught:
        Checkpoint.open(path)
    return caught.value.message


def test_a_directory_a_file_and_an_index_open_alike(tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.mkdir()
    write_file(single / "model.safetensors", ALL)
    sharded = write_shards(tmp_path / "sharded", TWO_SHARDS)
    for path in (single, single / "model.safetensors", sharded, sharded / "model.safetensors.index.json"):
        with Checkpoint.open(path) as checkpoint:
            assert list(checkpoint.tensors) == ["Z", "a", "b", "c"]
            assert checkpoint.nbytes == 7
        assert contents_of(path) == ALL
    with Checkpoint.open(sharded) as checkpoint:
        assert checkpoint.shards == [Shard(name, {"format": "pt"}) for name in TWO_SHARDS]
        assert checkpoint.tensors["b"] == (TensorSpec("b", "U8", (2,)), 0)
        assert checkpoint.path_of("c") == sharded / "model-00002-of-00002.safetensors"


def test_tensors_are_in_byte_order_of_names(tmp_path: Path) -> None:
    names = ["é", "z", "\U0001f600", "￿", "a.10", "a.2", "Z"]
    write_file(tmp_path / "x.safetensors", dict.fromkeys(names, b"1"))
    with Checkpoint.open(tmp_path / "x.safetensors") as checkpoint:
        assert list(checkpoint.tensors) == sorted(names, key=str.encode)


def test_a_file_whose_name_no_base_could_keep_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "a\tb.safetensors", ALL)
    refused(tmp_path / "a\tb.safetensors", "control character; rename the file")


def test_any_span_of_a_tensor_can_be_read_by_many_threads(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    write_file(tmp_path / "model.safetensors", {"w": data, "v": b"v" * 99, "nothing": b""})
    wrong: list[int] = []
    with Checkpoint.open(tmp_path) as checkpoint:

        def read(start: int) -> None:
            for at in range(start, 100_000, 777):
                out = bytearray(min(500, 100_000 - at))
                checkpoint.read_into("w", at, out)
                if out != data[at : at + 500]:
                    wrong.append(at)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        checkpoint.read_into("nothing", 0, bytearray())
        for start, length in ((-1, 1), (0, 100_001), (99_999, 2)):
            with pytest.raises(ValueError, match="w, which has 100000"):
                checkpoint.read_into("w", start, bytearray(length))
    assert not wrong


def test_the_hubs_cache_of_links_opens(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write_shards(blobs, TWO_SHARDS)
    (blobs / "config.json").write_text('{"model_type":"llama"}')
    for number, blob in enumerate(list(blobs.iterdir())):
        target = blob.rename(blobs / f"{number:064}")
        (snapshot / blob.name).symlink_to(f"../../blobs/{target.name}")
    assert contents_of(snapshot) == ALL
    with Checkpoint.open(snapshot) as checkpoint:
        assert checkpoint.config == {"model_type": "llama"}
        found = checkpoint.text_files["config.json"]
        assert not found.is_symlink()
        assert found.read_text() == '{"model_type":"llama"}'


@pytest.mark.parametrize("way", ["beside", "absolute", "through a link", "blobs of another", "linked blobs"])
def test_a_link_out_of_a_downloaded_model_is_not_followed(tmp_path: Path, way: str) -> None:
    snapshot = tmp_path / "hub" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    write_file(snapshot / "model.safetensors", ALL)
    secret = tmp_path / "secret"
    secret.write_text("a private key")
    blobs = tmp_path / "hub" / "blobs"
    link = snapshot / "notes.txt"
    if way == "beside":
        link.symlink_to("../../../secret")
    elif way == "absolute":
        link.symlink_to(secret)
    elif way == "through a link":
        blobs.mkdir()
        (blobs / "one").symlink_to(secret)
        link.symlink_to("../../blobs/one")
    elif way == "blobs of another":
        (tmp_path / "other" / "blobs").mkdir(parents=True)
        secret.rename(tmp_path / "other" / "blobs" / "one")
        link.symlink_to("../../../other/blobs/one")
    else:
        blobs.symlink_to(tmp_path)
        link.symlink_to("../../blobs/secret")
    with Checkpoint.open(snapshot) as checkpoint:
        assert checkpoint.text_files == {}
        assert checkpoint.ignored == {"notes.txt": "a link that leads out of the directory"}


def test_a_link_within_a_model_directory_is_followed(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    (directory / "shared").mkdir(parents=True)
    write_file(directory / "model.safetensors", ALL)
    (directory / "shared" / "template").write_text("hello")
    (directory / "chat_template.jinja").symlink_to("shared/template")
    (tmp_path / "alias").symlink_to(directory)
    with Checkpoint.open(tmp_path / "alias") as checkpoint:
        assert checkpoint.read_text("chat_template.jinja") == b"hello"


def test_tensors_are_counted_over_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, TWO_SHARDS)
    monkeypatch.setattr(limits, "MAX_TENSORS", len(ALL) - 1)
    with pytest.raises(InvalidInput, match="in all"):
        Checkpoint.open(tmp_path)


def test_text_files_come_along_and_weights_do_not(tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", ALL)
    texts = [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "modeling_x.py",
        "tokenizer.model",
    ]
    for name in texts:
        (tmp_path / name).write_text("{}")
    for name in (
        "pytorch_model.bin",
        "flax_model.msgpack",
        "consolidated.safetensors",
        "m.gguf",
        "model-00001-of-00002-0123456789ab.safetensors",
    ):
        (tmp_path / name).write_bytes(b"x")
    for name in (".persona-weights-12-0123456789abcdef", ".gitattributes", ".env"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nowhere").symlink_to("absent")
    (tmp_path / "back\\slash").write_text("")
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(limits.MAX_TEXT_FILE_BYTES + 1)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert sorted(checkpoint.text_files) == sorted(texts)
        assert set(checkpoint.ignored) == {
            "pytorch_model.bin",
            "flax_model.msgpack",
            "consolidated.safetensors",
            "m.gguf",
            "fifo",
            "nowhere",
            "big.txt",
            "back\\slash",
            "model-00001-of-00002-0123456789ab.safetensors",
        }
        assert checkpoint.ignored["big.txt"] == "over 64 MiB"


def test_an_adapter_is_recognised_however_it_comes(tmp_path: Path) -> None:
    adapter = {
        "base_model.model.layers.0.q_proj.lora_A.weight": b"1",
        "base_model.model.lm_head.weight": b"2",
    }
    bare = {"unet.down.lora_A.weight": b"1", "unet.down.lora_B.weight": b"2"}
    for number, (contents, name) in enumerate(
        [
            (adapter, "adapter_model.safetensors"),
            (adapter, "model.safetensors"),
            (bare, "pytorch_lora_weights.safetensors"),
        ]
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        write_file(directory / name, contents)
        assert str(directory) in refused(directory, "this is an adapter")
        assert str(directory) in refused(directory / name, "this is an adapter")
    peft = tmp_path / "peft"
    peft.mkdir()
    (peft / "adapter_config.json").write_text('{"peft_type":"LORA","r":8}')
    (peft / "adapter_model.bin").write_bytes(b"\x80\x02")
    refused(peft, "this is an adapter")


def test_a_model_with_lora_layers_of_its_own_is_no_adapter(tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", {"model.embed.weight": b"1", "model.0.lora_A.weight": b"2"})
    with Checkpoint.open(tmp_path) as checkpoint:
        assert len(checkpoint.tensors) == 2


def test_nothing_to_read_is_said_plainly(tmp_path: Path) -> None:
    refused(tmp_path, "no weights here")
    refused(tmp_path / "absent", "no such file")
    refused(Path("a\0b"), "not a path")
    write_file(tmp_path / "model.safetensors", {})
    refused(tmp_path, "holds no tensor")


def test_weights_under_another_name_are_pointed_at(tmp_path: Path) -> None:
    path = write_file(tmp_path / "finetuned.safetensors", ALL)
    assert str(path) in refused(tmp_path, "itself or rename it")
    assert contents_of(path) == ALL


def test_shards_without_an_index_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, TWO_SHARDS)
    (tmp_path / "model.safetensors.index.json").unlink()
    refused(tmp_path, "needs its index")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"d": "model-00001-of-00002.safetensors"},
            "'d' lies in model-00001-of-00002.safetensors, which does not hold it",
        ),
        ({"d": "model-00003-of-00003.safetensors"}, "model-00003-of-00003.safetensors, which is missing"),
        ({"a": "model-00002-of-00002.safetensors"}, "'a' lies in"),
        ({"a": None}, "'a' is not in the index"),
        ({"a": "../model-00001-of-00002.safetensors"}, "not the plain name"),
        ({"a": "/etc/passwd"}, "not the plain name"),
        ({"a": "sub\\x.safetensors"}, "not the plain name"),
        ({"a": ".hidden.safetensors"}, "not the plain name"),
        ({"a": "pytorch_model-00001-of-00002.bin"}, "not the plain name"),
    ],
)
def test_an_index_that_does_not_match_its_shards_is_refused(
    change: dict[str, str | None], said: str, tmp_path: Path
) -> None:
    write_shards(tmp_path, TWO_SHARDS)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= change
    index["weight_map"] = {name: shard for name, shard in index["weight_map"].items() if shard is not None}
    path.write_text(json.dumps(index))
    refused(tmp_path, said)
    refused(path, said)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    write_shards(
        tmp_path,
        {
            "m-1.safetensors": {"a": b"1"},
            "m-2.safetensors": {"a": b"2", "b": b"3"},
            "m-3.safetensors": {"c": b"3"},
        },
    )
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-3.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, "'a' is also in m-1.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "{",
        '{"weight_map":{}}',
        '{"weight_map":[]}',
        '{"weight_map":{"a":1}}',
        '{"weight_map":null}',
        '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}',
        '{"weight_map":{"a":"x.safetensors"}} x',
        '{"weight_map":{"a":"x.safetensors"},"weight_map":{"a":"x.safetensors"}}',
        '{"metadata":{"a":1,"a":2},"weight_map":{"a":"x.safetensors"}}',
        '{"metadata":' + "[" * 100_000,
        "{" + "".join(f'"{i}":0,' for i in range(100)) + '"weight_map":{"a":"x.safetensors"}}',
    ],
)
def test_a_malformed_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused(tmp_path, r"model\.safetensors\.index\.json")


def test_one_file_goes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    write_shards(tmp_path, TWO_SHARDS)
    write_file(tmp_path / "model.safetensors", {"w": b"new"})
    assert contents_of(tmp_path) == {"w": b"new"}


def test_an_open_checkpoint_stays_what_it_was_while_another_takes_its_place(tmp_path: Path) -> None:
    old, new = {"w": b"old" * 1000}, {"w": b"new" * 1000}
    publish(tmp_path, old)
    with Checkpoint.open(tmp_path) as checkpoint:
        publish(tmp_path, new)
        out = bytearray(3000)
        checkpoint.read_into("w", 0, out)
        assert out == old["w"]
    assert contents_of(tmp_path) == new


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\xff"])
def test_a_broken_config_is_named(text: str, tmp_path: Path) -> None:
    write_file(tmp_path / "model.safetensors", ALL)
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert str(tmp_path / "config.json") in refused(tmp_path, "JSON")


@pytest.mark.parametrize("threads", [1, 3, None])
def test_the_digests_of_tensors_are_those_of_their_blocks(tmp_path: Path, threads: int | None) -> None:
    random = np.random.default_rng(0)
    contents = {f"t{n}": random.bytes(n) for n in (0, 1, (4 << 20) - 1, 4 << 20, (8 << 20) + 1)}
    publish(tmp_path, contents)
    told: list[int] = []
    with Checkpoint.open(tmp_path) as checkpoint:
        found = checkpoint.digests(told.append, threads)
    assert found == {name: tensor_digest(data) for name, data in contents.items()}
    assert sum(told) == sum(map(len, contents.values()))


def test_a_file_that_ends_too_early_ends_the_digests(tmp_path: Path) -> None:
    publish(tmp_path, {f"t{k}": bytes(1000) for k in range(9)})
    with Checkpoint.open(tmp_path) as checkpoint:
        os.truncate(tmp_path / "model.safetensors", 4000)
        with pytest.raises(InvalidInput, match="was changed while it was read"):
            checkpoint.digests()
