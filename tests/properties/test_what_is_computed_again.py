"""Only what changed is computed, and a reused tensor is never taken on trust."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.checkpoints import digest_of_files
from tests.llamas import LlamaBot

LAYER = "model.layers.1."


@pytest.fixture
def filtered(begin: Callable[..., LlamaBot]) -> LlamaBot:
    """A vector on every tensor and one on layer 1 alone, checked out as three shards."""
    bot = begin(shards=3)
    bot.tune("one", 1)
    bot.tune("two", 2)
    bot.run.ok("commit", "../one", "-m", "one")
    bot.run.ok("commit", "../two", "--only", f"{LAYER}*", "-m", "two")
    bot.checkout()
    return bot


def in_layer(bot: LlamaBot) -> int:
    return sum(name.startswith(LAYER) for name in bot.base)


def test_an_alpha_of_one_layer_computes_that_layer_and_says_so(filtered: LlamaBot) -> None:
    filtered.run.ok("set", "two", "--alpha", "0.3")
    text = filtered.run.ok("checkout")
    assert f"{in_layer(filtered)} tensors computed, {len(filtered.base) - in_layer(filtered)} reused" in text
    assert filtered.run.json("digest")["weights"] == digest_of_files(filtered.root)
    filtered.run.ok("commit", "-m", "less of two")
    for rev in ("HEAD~1", "main"):
        result = filtered.checkout(rev)
        assert result["tensors_computed"] == in_layer(filtered)
        assert result["tensors_reused"] == len(filtered.base) - in_layer(filtered)


def test_weights_that_are_there_already_are_not_written_again(filtered: LlamaBot) -> None:
    result = filtered.checkout()
    assert (result["tensors_computed"], result["bytes_written"]) == (0, 0)
    assert result["tensors_reused"] == len(filtered.base)


def test_a_shard_in_which_nothing_changes_is_not_touched(filtered: LlamaBot) -> None:
    def shards() -> dict[str, os.stat_result]:
        return {path.name: path.stat() for path in filtered.root.glob("model-*.safetensors")}

    filtered.run.ok("set", "two", "--only", f"{LAYER}mlp.up_proj.weight")
    filtered.checkout()
    before = shards()
    filtered.run.ok("set", "two", "--alpha", "0.3")
    result = filtered.checkout()
    after = shards()
    kept = [name for name in before if name in after]
    assert len(kept) == 2
    assert len(before) == len(after) == 3
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert result["tensors_computed"] == 1
    assert result["bytes_written"] < sum(tensor.bits.nbytes for tensor in filtered.base.values())
    assert result["weights"] == digest_of_files(filtered.root) == filtered.run.json("digest")["weights"]


def test_a_sharded_base_is_cut_at_its_layers_and_one_layer_is_written_alone(
    filtered: LlamaBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {name: tensor.bits.nbytes for name, tensor in filtered.base.items()}
    of_layer = sum(size for name, size in sizes.items() if name.startswith(LAYER))
    monkeypatch.setattr("persona.history.computing._SHARD_BYTES", of_layer // 3)
    monkeypatch.setattr("persona.history.computing._SHARDS", 1 << 20)
    filtered.run.ok("set", "two", "--alpha", "0.4")
    filtered.checkout()
    index = json.loads((filtered.root / "model.safetensors.index.json").read_text())["weight_map"]
    files = {file for name, file in index.items() if name.startswith(LAYER)}
    beside = {name for name, file in index.items() if file in files}
    assert len(set(index.values())) > 3
    filtered.run.ok("set", "two", "--alpha", "0.3")
    result = filtered.checkout()
    assert result["bytes_written"] == sum(sizes[name] for name in beside) < sum(sizes.values()) / 2
    assert result["weights"] == digest_of_files(filtered.root) == filtered.run.json("digest")["weights"]
    out = filtered.root.parent / "out"
    filtered.run.ok("checkout", "-o", str(out))
    assert len(list(out.glob("*.safetensors"))) == 3


def test_a_shard_that_was_changed_in_secret_is_not_kept(filtered: LlamaBot) -> None:
    for path in filtered.root.glob("model-*.safetensors"):
        path.chmod(0o640)
    filtered.run.ok("set", "two", "--alpha", "0.3")
    result = filtered.checkout()
    assert result["bytes_written"] == sum(tensor.bits.nbytes for tensor in filtered.base.values())


def flip(bot: LlamaBot, *, in_secret: bool) -> None:
    """Changes one byte of a tensor outside layer 1; in secret, its file's times are put back."""
    for path in bot.root.glob("model*.safetensors"):
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        entry = json.loads(data[8:start]).get("model.layers.0.mlp.up_proj.weight")
        if entry is not None:
            status = path.stat()
            data[start + entry["data_offsets"][0] + 20] ^= 1
            path.write_bytes(data)
            if in_secret:
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            return
    raise AssertionError("no shard holds the tensor")


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "forced"])
def test_a_reused_tensor_that_was_changed_in_secret_is_computed_again(
    filtered: LlamaBot, force: tuple[str, ...]
) -> None:
    filtered.run.ok("set", "two", "--alpha", "0.3")
    flip(filtered, in_secret=True)
    result = filtered.checkout(*force)
    assert result["tensors_computed"] > in_layer(filtered)
    assert result["weights"] == filtered.run.json("digest")["weights"]


def test_weights_changed_in_secret_are_noticed_where_nothing_else_is_to_do(filtered: LlamaBot) -> None:
    flip(filtered, in_secret=True)
    result = filtered.checkout()
    assert result["tensors_computed"] >= 1
    assert result["weights"] == filtered.run.json("digest")["weights"]


def test_plainly_edited_weights_are_overwritten_only_when_told(filtered: LlamaBot) -> None:
    flip(filtered, in_secret=False)
    edited = digest_of_files(filtered.root)
    assert filtered.run.json("status")["weights"]["state"] == "edited"
    filtered.run.ok("set", "two", "--alpha", "0.3")
    assert ".safetensors" in filtered.run.refused(1, "checkout")
    assert digest_of_files(filtered.root) == edited
    result = filtered.checkout("-f")
    assert result["tensors_computed"] > in_layer(filtered)
    assert result["weights"] == filtered.run.json("digest")["weights"]


@pytest.mark.parametrize("damage", ["delete", "truncate", "empty", "other"])
def test_a_cache_of_digests_that_is_damaged_changes_no_bit(filtered: LlamaBot, damage: str) -> None:
    cache = filtered.root / ".persona" / "cache"
    for path in [path for path in cache.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes({"truncate": data[:-7], "empty": b"", "other": data[::-1]}[damage])
    filtered.run.ok("set", "two", "--alpha", "0.3")
    assert filtered.checkout()["weights"] == filtered.run.json("digest")["weights"]
