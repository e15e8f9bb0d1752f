"""What cannot be taken is answered in one sentence with its exit code, and nothing has changed."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import Model, Tensor, file_of, write_weights
from tests.cli.command_line import CommandLine
from tests.llamas import LlamaBot, a_few_ulps, everything_below, fine_tune
from tests.pickles import Canary

UP = "model.layers.0.mlp.up_proj.weight"


def refused(bot: LlamaBot, exit_code: int, *arguments: str | Path) -> str:
    """What a command says that must fail: a sentence and perhaps a hint, a line each; no file changed."""
    before = everything_below(bot.root, leaving=["cache"])
    said = bot.run.refused(exit_code, *arguments)
    sentence, _, hint = said.partition("\nhint: ")
    answer = bot.run("--json", *arguments)
    error = json.loads(answer.stdout)["error"]
    assert (error["exit"], error["message"], error.get("hint") or "") == (exit_code, sentence, hint)
    assert everything_below(bot.root, leaving=["cache"]) == before
    assert sentence
    assert "\n" not in sentence + hint
    return said


# -- fine-tunes ---------------------------------------------------------------------------------------------


def missing(model: Model) -> Model:
    return {name: tensor for name, tensor in model.items() if name != UP}


def extra(model: Model) -> Model:
    return {**model, "model.layers.9.odd": Tensor("BF16", np.ones((2, 2), np.uint16))}


def other_shape(model: Model) -> Model:
    return {**model, UP: Tensor("BF16", model[UP].bits[:-1])}


def grown_vocabulary(model: Model) -> Model:
    found = dict(model)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        found[name] = Tensor("BF16", np.concatenate([model[name].bits, model[name].bits[:3]]))
    return found


def other_dtype(model: Model) -> Model:
    return {**model, UP: Tensor("F16", model[UP].bits)}


def with_nan(model: Model) -> Model:
    bits = model[UP].bits.copy()
    bits[1, 2] = 0x7FC0
    return {**model, UP: Tensor("BF16", bits)}


def with_infinity(model: Model) -> Model:
    bits = model[UP].bits.copy()
    bits[1, 2] = 0xFF80
    return {**model, UP: Tensor("BF16", bits)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing, [UP, "--missing zero"]),
        (extra, ["model.layers.9.odd", "--extra ignore"]),
        (other_shape, [UP, "23", "24"]),
        (grown_vocabulary, ["37", "40", "vocabulary"]),
        (other_dtype, [UP, "F16", "BF16", "--cast"]),
        (with_nan, [UP, "1 element", "index 18"]),
        (with_infinity, [UP, "1 element", "index 18"]),
    ],
)
@pytest.mark.parametrize("command", ["commit", "add"])
def test_a_fine_tune_that_does_not_fit_is_refused_by_name(
    bot: LlamaBot, command: str, change: Callable[[Model], Model], words: list[str]
) -> None:
    fine_tune(bot.place / "base", bot.place / "bad", change(a_few_ulps(bot.base, 1)))
    sentence = refused(bot, 4, command, "../bad", *(["-m", "bad"] if command == "commit" else []))
    assert all(word in sentence for word in words), sentence


def test_another_model_altogether_is_refused(bot: LlamaBot) -> None:
    write_weights(bot.place / "odd", {"wte.weight": Tensor("BF16", np.ones((4, 4), np.uint16))})
    assert "21 tensors of the base are missing" in refused(bot, 4, "commit", "../odd", "-m", "x")


def test_a_vector_of_another_base_is_refused_where_it_is_written(begin: Callable[..., LlamaBot]) -> None:
    here, there = begin("here"), begin("there", seed=5)
    there.tune("two", 2)
    there.run.ok("commit", "../two", "-m", "two")
    there_id = there.run.json("vector", "ls")[0]["id"]
    for source in (there.root / ".persona/packs").iterdir():
        target = here.root / ".persona/packs" / source.name
        if not target.exists():
            target.write_bytes(source.read_bytes())
    source = there.root / ".persona/objects" / there_id[:2] / there_id[2:]
    (here.root / ".persona/objects" / there_id[:2]).mkdir(exist_ok=True)
    (here.root / ".persona/objects" / there_id[:2] / there_id[2:]).write_bytes(source.read_bytes())
    with here.recipe.open("a") as recipe:
        recipe.write(f'\n[vectors.two]\nid = "{there_id}"\n')
    line = 1 + here.recipe.read_text().split("\n").index(f'id = "{there_id}"')
    for command in (["commit", "-m", "x"], ["checkout"], ["digest"]):
        sentence = refused(here, 4, *command)
        assert sentence.startswith(f"recipe.toml:{line}: vectors.two.id: ")
        assert sentence.count("blake3:") == 2


def test_a_fine_tune_that_changes_nothing_is_no_commit(bot: LlamaBot) -> None:
    fine_tune(bot.place / "base", bot.place / "same", bot.base, shards=2)
    assert "no element changed" in refused(bot, 1, "commit", "../same", "-m", "x")
    assert "nothing to commit" in refused(bot, 1, "commit", "-m", "x")


# -- files that are no checkpoint ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model.pt", "weights.pth"])
@pytest.mark.parametrize("kind", ["plain", "torch zip", "object array"])
def test_a_pickle_is_refused_by_content_and_never_opened(bot: LlamaBot, name: str, kind: str) -> None:
    place = bot.place / "pickled"
    place.mkdir()
    canary = Canary(bot.place / "sprung")
    (place / "config.json").write_text("{}")
    if kind == "plain":
        (place / name).write_bytes(pickle.dumps({"weight": canary}))
    elif kind == "torch zip":
        with zipfile.ZipFile(place / name, "w") as archive:
            archive.writestr("model/data.pkl", pickle.dumps(canary))
    else:
        with (place / name).open("wb") as file:
            np.savez(file, weight=np.array([canary], dtype=object))
    assert "pickle" in refused(bot, 4, "commit", "../pickled", "-m", "x")
    assert "pickle" in refused(bot, 4, "add", f"../pickled/{name}", "-n", "x")
    assert "pickle" in CommandLine(bot.place).refused(4, "init", "new", "--base", "pickled")
    assert not (bot.place / "sprung").exists()
    assert not (bot.place / "new").exists()


def test_an_adapter_is_told_apart(bot: LlamaBot) -> None:
    place = bot.place / "adapter"
    place.mkdir()
    (place / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    write_weights(place, {"base_model.model.lora_A.weight": Tensor("BF16", np.ones((2, 2), np.uint16))})
    (place / "model.safetensors").rename(place / "adapter_model.safetensors")
    assert "adapter" in refused(bot, 4, "commit", "../adapter", "-m", "x")


@pytest.mark.parametrize("path", ["../nowhere", "../empty", "../base/config.json", ".persona", "/dev/null"])
def test_what_is_no_model_is_refused(bot: LlamaBot, path: str) -> None:
    (bot.place / "empty").mkdir()
    refused(bot, 4, "commit", path, "-n", "x", "-m", "x")


def entry(**other: object) -> dict[str, object]:
    return {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4], **other}


HEADERS: dict[str, bytes | str] = {
    "duplicate keys": json.dumps({"a": entry(), "b": entry()}).replace("b", "a"),
    "duplicate keys inside": json.dumps({"a": entry(type="BF16")}).replace('"type"', '"dtype"'),
    "overlap": json.dumps({"a": entry(), "b": entry(data_offsets=[2, 6])}),
    "hole": json.dumps({"a": entry(), "b": entry(data_offsets=[6, 10])}),
    "hole at the start": json.dumps({"a": entry(data_offsets=[2, 6])}),
    "absurd shape": json.dumps({"a": entry(shape=[1 << 62, 1 << 62])}),
    "shape that wraps around": json.dumps({"a": entry(shape=[1 << 32, 1 << 32, 2], data_offsets=[0, 0])}),
    "many dimensions": json.dumps({"a": entry(shape=[1] * 100_000)}),
    "negative shape": json.dumps({"a": entry(shape=[-2])}),
    "shape of floats": json.dumps({"a": entry(shape=[2.0])}),
    "shape of booleans": json.dumps({"a": entry(shape=[2, True])}),
    "shape that is no list": json.dumps({"a": entry(shape="22")}),
    "offsets reversed": json.dumps({"a": entry(data_offsets=[4, 0])}),
    "offsets beyond the end": json.dumps({"a": entry(shape=[2000], data_offsets=[0, 4000])}),
    "offsets that do not fit the shape": json.dumps({"a": entry(shape=[1])}),
    "traversal name": json.dumps({"../../etc/x": entry()}),
    "absolute name": json.dumps({"/etc/x": entry()}),
    "empty name": json.dumps({"": entry()}),
    "name with a line feed": json.dumps({"a\nb": entry()}),
    "name with a null": json.dumps({"a\0b": entry()}),
    "unknown dtype": json.dumps({"a": entry(dtype="BF17")}),
    "unknown key": json.dumps({"a": entry(extra=1)}),
    "metadata that is no text": json.dumps({"__metadata__": {"format": 1}, "a": entry()}),
    "no object": "[1, 2]",
    "no JSON": "{'a': 1}",
    "not UTF-8": b'{"\xff": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}',
    "NaN": '{"a": {"dtype": "BF16", "shape": [NaN], "data_offsets": [0, 4]}}',
    "deep": "[" * 100_000,
    "empty": "",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_bad_header_is_refused(bot: LlamaBot, kind: str) -> None:
    header = HEADERS[kind]
    place = bot.place / "bad.safetensors"
    place.write_bytes(file_of(header, bytes(4 if "beyond" in kind else 10)))
    if kind not in ("overlap", "hole", "hole at the start"):
        place.write_bytes(file_of(header, bytes(4)))
    sentence = refused(bot, 4, "commit", "../bad.safetensors", "-m", "x")
    assert "bad.safetensors" in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize("length", [0, 1, 7, 1 << 20, 101 << 20, 1 << 40, (1 << 64) - 1])
def test_a_lying_length_is_refused(bot: LlamaBot, length: int) -> None:
    text = json.dumps({"a": entry()}).encode()
    (bot.place / "bad.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(4))
    assert "bad.safetensors" in refused(bot, 4, "commit", "../bad.safetensors", "-m", "x")


@pytest.mark.parametrize("change", [-1, 1, -1000, 8])
def test_a_file_of_another_length_is_refused(bot: LlamaBot, change: int) -> None:
    bot.tune("cut", 1)
    path = bot.place / "cut" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    assert "model.safetensors" in refused(bot, 4, "commit", "../cut", "-m", "x")


@pytest.mark.parametrize(
    "file", ["../../x.safetensors", "/etc/passwd", "absent.safetensors", "a/b.safetensors"]
)
def test_an_index_that_names_other_places_is_refused(bot: LlamaBot, file: str) -> None:
    bot.tune("indexed", 1, shards=2)
    path = bot.place / "indexed" / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][UP] = file
    path.write_text(json.dumps(index))
    refused(bot, 4, "commit", "../indexed", "-m", "x")


# -- numbers and names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ["nan", "inf", "-inf", "1e39", "", "one", "0x10", "1,5", "--1", "١"])
def test_an_alpha_that_is_none_is_refused_by_flag(grown: LlamaBot, alpha: str) -> None:
    grown.tune("new", 8)
    assert "alpha" in refused(grown, 4, "set", "one", f"--alpha={alpha}")
    assert refused(grown, 4, "commit", "../new", f"--alpha={alpha}", "-m", "x").startswith("--alpha: ")


@pytest.mark.parametrize("density", ["0", "-0", "1.0001", "2", "nan", "inf", "-0.1", "", "all", "1e-400"])
def test_a_density_that_is_none_is_refused_by_flag(grown: LlamaBot, density: str) -> None:
    grown.tune("new", 8)
    assert "density" in refused(grown, 4, "set", "one", f"--density={density}")
    assert "density" in refused(grown, 4, "set", "--merge", f"density={density}")
    assert refused(grown, 4, "commit", "../new", f"--density={density}", "-m", "x").startswith("--density: ")


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("term", "alpha = nan"),
        ("term", "alpha = -inf"),
        ("term", "alpha = 1e39"),
        ("term", 'alpha = "1"'),
        ("term", "alpha = true"),
        ("term", "density = 0"),
        ("term", "density = 0.0"),
        ("term", "density = nan"),
        ("term", "density = 1.5"),
        ("term", "only = []\nonly = []"),
        ("term", 'only = "a"'),
        ("term", "alfa = 1"),
        ("term", 'join = "sum"'),
        ("merge", "lambda = nan"),
        ("merge", "lambda = inf"),
        ("merge", "density = 0.0"),
        ("merge", 'trim = "some"'),
        ("merge", "densitty = 1.0"),
        ("merge", 'preset = "tie"'),
        ("top", "bases = 1"),
        ("top", "= 1"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused_with_its_line(grown: LlamaBot, place: str, line: str) -> None:
    head, merge, *terms = grown.recipe.read_text().split("[", maxsplit=2)
    key = line.split(" ")[0]
    if place == "term":
        body = "".join(terms).split("\n")
        body = [body[0], *(row for row in body[1:] if not row.startswith(f"{key} =") or not key), ""]
        body.insert(1, line)
        text = f"{head}[{merge}[" + "\n".join(body)
    elif place == "merge":
        rows = [row for row in merge.split("\n") if not row.startswith(f"{key} =")]
        rows.insert(1, line)
        text = f"{head}[" + "\n".join(rows) + "[" + "".join(terms)
    else:
        text = f"{line}\n{grown.recipe.read_text()}"
    grown.recipe.write_text(text)
    number = 1 + text[: text.index(line)].count("\n") + line.count("\n")
    for command in (["commit", "-m", "x"], ["checkout"], ["digest"], ["checkout", "-o", "../out"]):
        assert refused(grown, 4, *command).startswith(f"recipe.toml:{number}: ")
    status = grown.run("status")
    assert status.exit_code == 0
    assert f"recipe.toml:{number}: " in status.output
    assert not (grown.place / "out").exists()


@pytest.mark.parametrize(
    "rev",
    ["nothing", "HEAD~9", "HEAD^2", "main@{99}", "0000", "v9", ":/no such", "HEAD@{the other day}", "a b"],
)
def test_an_unknown_revision_is_exit_3(grown: LlamaBot, rev: str) -> None:
    for command in ("checkout", "digest", "rev-parse", "show", "log", "diff", "revert"):
        refused(grown, 3, command, rev)
    refused(grown, 3, "log", f"{rev}..HEAD")
    refused(grown, 3, "commit", "../one", "-n", "x", "--onto", rev, "-m", "x")


def test_no_repository_is_exit_3(tmp_path: Path) -> None:
    outside = CommandLine(tmp_path)
    words = "status log diff show checkout digest fsck count-objects branch tag reflog commit".split()
    for command in words:
        assert "persona init" in outside.refused(3, command, *(["-m", "x"] if command == "commit" else []))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nobody", "one/two", "", "-x"])
def test_an_unknown_vector_is_no_traceback(grown: LlamaBot, name: str) -> None:
    for command in (["rm", "--", name], ["mv", "--", name, "new"], ["vector", "show", "--", name]):
        assert grown.run(*command).exit_code in (3, 4)
    assert grown.run.json("status")["recipe_changed"] is False


# -- the disk ----------------------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_written_is_exit_7(
    grown: LlamaBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        (grown.place / "closed").mkdir(mode=0o555)
        target = grown.place / "closed"
    else:
        target = Path("/proc")  # what not even root can write to
    assert str(target) in refused(grown, 7, "checkout", "-o", str(target / "out"))
    sentence = CommandLine(grown.place).refused(7, "init", str(target / "new"), "--base", "base")
    assert str(target) in sentence


@pytest.mark.parametrize("name", ["recipe.toml", "model.safetensors", "config.json", "chat_template.jinja"])
def test_a_link_planted_at_an_output_is_never_written_through(grown: LlamaBot, name: str) -> None:
    prey = grown.place / "prey"
    prey.write_bytes(b"mine")
    grown.run.ok("checkout", "HEAD~1", "--no-weights")
    (grown.root / name).unlink(missing_ok=True)
    (grown.root / name).symlink_to(prey)
    grown.run("checkout", "main")
    grown.run("checkout", "-f", "main")
    grown.run("restore", ".")
    grown.run("set", "one", "--alpha", "0.5")
    assert prey.read_bytes() == b"mine"
    out = grown.place / "out"
    out.mkdir()
    (out / name).symlink_to(prey)
    grown.run("checkout", "main", "-o", str(out))
    assert prey.read_bytes() == b"mine"


@pytest.mark.parametrize("part", ["HEAD", "refs/heads/main", "objects", "packs", "tmp", "logs/HEAD", "state"])
def test_a_link_planted_in_the_store_leads_nowhere(grown: LlamaBot, part: str) -> None:
    prey = grown.place / "prey"
    place = grown.root / ".persona" / part
    place.rename(prey)
    place.symlink_to(prey)
    before = everything_below(grown.place, leaving=["bot"])
    for command in (["commit", "--allow-empty", "-m", "x"], ["checkout", "HEAD~1"], ["status"], ["tag", "t"]):
        result = grown.run(*command)
        assert "Traceback" not in result.output
        assert result.exit_code in (0, 5, 7)
    assert everything_below(grown.place, leaving=["bot"]) == before
    if prey.is_file():
        assert prey.is_file()


def test_what_is_in_the_way_of_a_model_directory_is_named(grown: LlamaBot) -> None:
    (grown.place / "file").write_text("mine")
    (grown.place / "dangling").symlink_to("nowhere")
    for name in ("file", "base/config.json"):
        assert "in the way" in refused(grown, 1, "checkout", "-o", f"../{name}")
    assert "dangling is a symbolic link" in refused(grown, 1, "checkout", "-o", "../dangling")
    assert (grown.place / "file").read_text() == "mine"
    assert not (grown.place / "nowhere").exists()
