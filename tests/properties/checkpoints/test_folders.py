"""Directories of models as training runs, exporters and the hub leave them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from tests.advice import advice, follow
from tests.checkpoints import Model, Tensor, read_weights, same, write_file, write_weights
from tests.cli.command_line import CommandLine
from tests.llamas import LlamaBot, a_few_ulps, fine_tune

UP = "model.layers.0.mlp.up_proj.weight"


def put(root: Path, **files: str) -> None:
    """Text files by their paths, with `__` for a slash."""
    for name, text in files.items():
        place = root / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def below(root: Path, folder: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / folder).iterdir()}


# -- subdirectories


@pytest.mark.situation("text files in subdirectories", "weights in a subdirectory")
def test_a_sentence_transformers_directory_comes_along(
    begin: Callable[..., LlamaBot], tmp_path: Path
) -> None:
    base = begin().place / "base"
    modules = json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}])
    put(base, **{"modules.json": modules, "1_Pooling__config.json": "{}", "2_Dense__config.json": "{}"})
    put(base, **{"additional_chat_templates__rag.jinja": "rag"})
    write_file(base / "2_Dense" / "model.safetensors", {"linear.weight": [1.0, 2.0]})
    run = CommandLine(tmp_path)
    said = run("init", "pooled", "--base", base)
    assert "left out: 2_Dense/model.safetensors (weights of a subdirectory)\nhint: " in said.stderr
    assert below(tmp_path / "pooled", "1_Pooling") == {"config.json": "{}"}
    assert below(tmp_path / "pooled", "additional_chat_templates") == {"rag.jinja": "rag"}
    tuned = tmp_path / "tuned"
    shutil.copytree(base, tuned)
    weights = a_few_ulps(read_weights(base), 1)
    write_weights(tuned, weights)
    put(tuned, **{"1_Pooling__config.json": '{"new": 1}'})
    run = CommandLine(tmp_path / "pooled")
    said = run("commit", tuned, "--files", "-m", "tune")
    assert "left out: 2_Dense/model.safetensors" in said.stderr
    assert "imported too: 1_Pooling/config.json" in said.stderr
    run.ok("checkout", "-o", tmp_path / "out")
    assert below(tmp_path / "out", "1_Pooling") == {"config.json": '{"new": 1}'}
    shutil.copy(tuned / "2_Dense" / "model.safetensors", tmp_path / "out" / "2_Dense")  # as the hint says
    ours = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    assert ours - {Path("persona.json")} == {path.relative_to(tuned) for path in tuned.rglob("*")}
    assert same(read_weights(tmp_path / "out"), weights)


@pytest.mark.situation("a training's directory, with `checkpoint-500/` and the state of its optimizer")
def test_what_a_training_leaves_is_left_behind(begin: Callable[..., LlamaBot], tmp_path: Path) -> None:
    base = begin().place / "base"
    put(base, **{"checkpoint-500__config.json": "{}", "runs__log.txt": "", "trainer_state.json": "{}"})
    put(base, **{"optimizer.pt": "x", "latest": "global_step5", ".DS_Store": "x", "global_step5__a.pt": "x"})
    said = CommandLine(tmp_path)("init", "trained", "--base", base).stderr
    assert said == (
        "left out: checkpoint-500/, global_step5/, latest, optimizer.pt, runs/, trainer_state.json"
        " (of a training)\n"
    )
    assert not list((tmp_path / "trained").glob("*trainer*"))


# -- mixed directories


def write_lora(place: Path, model: Model) -> Path:
    """An adapter of one matrix, as PEFT saves it."""
    place.mkdir(exist_ok=True)
    rows, columns = model[UP].bits.shape
    module = f"base_model.model.{UP.removesuffix('.weight')}"
    factors = {f"{module}.lora_A.weight": (2, columns), f"{module}.lora_B.weight": (rows, 2)}
    ones = {
        name: Tensor("F32", np.ones(shape, np.float32).view(np.uint32)) for name, shape in factors.items()
    }
    write_file(place / "adapter_model.safetensors", ones)
    put(place, **{"adapter_config.json": '{"peft_type": "LORA", "r": 2, "lora_alpha": 2}'})
    return place


@pytest.mark.situation("an adapter beside a whole model")
def test_a_model_is_taken_and_the_adapter_beside_it_named(bot: LlamaBot) -> None:
    tuned = bot.tune("both", 1)
    write_lora(bot.place / "both", bot.base)
    said = bot.run("commit", "../both", "-m", "both").stderr
    assert "both holds a whole model beside adapter_config.json, adapter_model.safetensors" in said
    assert "from_pretrained of transformers takes the adapter" in said
    bot.checkout()
    assert bot.holds(tuned)
    (command,) = advice(said).filled("", {"NAME": "adapter"}).commands
    bot.run.ok(*command)
    assert bot.run.json("vector", "show", "adapter")["kind"] == "lowrank"


@pytest.mark.situation("trained weights beside an adapter (`non_lora_trainables.bin`)")
def test_trained_weights_beside_an_adapter_are_named(bot: LlamaBot) -> None:
    place = write_lora(bot.place / "lora", bot.base)
    put(place, **{"non_lora_trainables.bin": "x", "optimizer.pt": "x", "training_args.bin": "x"})
    write_file(place / "vit.safetensors", {UP: bot.base[UP]})
    said = bot.run("commit", "../lora", "-m", "x").stderr
    assert (
        "left out: non_lora_trainables.bin, vit.safetensors (other weights), which may hold the rest" in said
    )
    assert "optimizer.pt" not in said
    assert bot.run.json("vector", "show", "lora")["kind"] == "lowrank"


@pytest.mark.situation("the base's weights lie there, and the training in `checkpoint-500/` below")
def test_a_training_below_the_weights_of_the_base_is_named(bot: LlamaBot) -> None:
    shutil.copytree(bot.place / "base", bot.place / "run")
    tuned = a_few_ulps(bot.base, 1)
    shutil.copytree(bot.place / "base", bot.place / "run" / "checkpoint-500")
    write_weights(bot.place / "run" / "checkpoint-500", tuned)
    put(bot.place / "run", **{"runs__events.txt": "x", "global_step5__optimizer.pt": "x"})
    said = bot.run.refused(1, "commit", "../run", "-m", "x")
    assert "not read: checkpoint-500/. If the training is in these, give them instead" in said
    bot.run.ok("commit", "../run/checkpoint-500", "-m", "x")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("stale weights beside new ones")
def test_other_weights_in_the_directory_are_listed(bot: LlamaBot) -> None:
    tuned = bot.tune("stale", 1)
    write_file(bot.place / "stale" / "model-00001-of-00002.safetensors", {UP: bot.base[UP]})
    put(bot.place / "stale", **{"pytorch_model.bin": "x"})
    for verb in ("add", "commit"):
        words = ("-m", "x") if verb == "commit" else ()
        said = bot.run(verb, "../stale", *words).stderr
        assert "left out: model-00001-of-00002.safetensors, pytorch_model.bin (other weights)" in said
    bot.checkout()
    assert bot.holds(tuned)
    fine_tune(bot.place / "base", bot.place / "old", bot.base)
    put(bot.place / "old", **{"pytorch_model.bin": "x"})
    said = bot.run.refused(1, "commit", "../old", "-m", "x")
    assert "no element changed" in said
    assert "read: model.safetensors; not read: pytorch_model.bin" in said


@pytest.mark.situation("`init` in place beside `consolidated.safetensors`")
def test_a_file_that_checkout_would_refuse_is_named_at_once(bot: LlamaBot) -> None:
    place = bot.place / "base"
    shutil.copy(place / "model.safetensors", place / "consolidated.safetensors")
    run = CommandLine(place)
    said = run("init").stderr
    assert "consolidated.safetensors: no index lists it, and checkout refuses" in said
    assert "consolidated.safetensors" in run.refused(1, "checkout")
    (place / "consolidated.safetensors").rename(bot.place / "moved")  # as the hint says
    run.ok("checkout")
    assert same(read_weights(place), bot.base)


# -- weights that are not plain


def packed(model: Model) -> Model:
    """A model whose matrices are packed as bitsandbytes packs them."""
    found: Model = {}
    for name, tensor in model.items():
        if "proj" not in name:
            found[name] = tensor
            continue
        found[name] = Tensor("U8", np.zeros((tensor.bits.size // 2, 1), np.uint8))
        found[f"{name}.absmax"] = Tensor("F32", np.ones(4, np.float32).view(np.uint32))
        found[f"{name}.quant_map"] = Tensor("F32", np.ones(16, np.float32).view(np.uint32))
        found[f"{name}.quant_state.bitsandbytes__nf4"] = Tensor("U8", np.zeros(9, np.uint8))
    return found


def in_eight_bits(model: Model) -> Model:
    """A model whose matrices are FP8 with a scale."""
    found: Model = {}
    for name, tensor in model.items():
        found[name] = tensor
        if "proj" in name:
            found[name] = Tensor("F8_E4M3", np.zeros(tensor.bits.shape, np.uint8))
            found[f"{name}_scale_inv"] = Tensor("F32", np.ones(1, np.float32).view(np.uint32))
    return found


@pytest.mark.situation("a quantised fine-tune", "a quantised base")
@pytest.mark.parametrize(("quantise", "method"), [(packed, "bitsandbytes"), (in_eight_bits, "FP8")])
def test_quantised_weights_are_named(bot: LlamaBot, quantise: Callable[[Model], Model], method: str) -> None:
    tuned = bot.tune("tuned", 1)
    quantised = quantise(tuned)
    fine_tune(bot.place / "base", bot.place / "small", quantised)
    for words in ((), ("--cast",), ("--missing", "zero", "--extra", "ignore")):
        said = bot.run.refused(4, "add", "../small", *words)
        assert f"its weights are quantised ({method}" in said
        assert "the weights from before the quantisation" in said
    fixed = sum(tensor.dtype in ("U8", "F8_E4M3") for tensor in quantised.values())
    said = CommandLine(bot.place)("init", "smallbot", "--base", "small").stderr
    assert f"the base is quantised ({method}" in said
    assert f"{fixed} of {len(quantised)} tensors can never change" in said
    small = CommandLine(bot.place / "smallbot")
    assert "begin a repository with" in small.refused(4, "add", "../tuned")
    bot.run.ok("commit", "../tuned", "-m", "as the hint says")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("an adapter that was trained on a quantised base")
@pytest.mark.parametrize("quantise", [packed, in_eight_bits])
def test_an_adapter_goes_to_the_base_from_before_the_quantisation(
    bot: LlamaBot, quantise: Callable[[Model], Model]
) -> None:
    adapter = write_lora(bot.place / "lora", bot.base)
    fine_tune(bot.place / "base", bot.place / "small", quantise(bot.base))
    CommandLine(bot.place).ok("init", "smallbot", "--base", "small")
    said = CommandLine(bot.place / "smallbot").refused(4, "add", adapter)
    assert "(this base is quantised: " in said
    assert "hint: begin a repository with the base's weights from before the quantisation and add" in said
    bot.run.ok("commit", adapter, "-m", "as the hint says")
    bot.checkout()
    assert not same({UP: bot.weights[UP]}, {UP: bot.base[UP]})


@pytest.mark.situation("a config with `quantization_config` beside plain floats")
def test_a_config_that_calls_floats_quantised_gets_a_word(bot: LlamaBot) -> None:
    bot.tune("merged", 1)
    config = bot.place / "merged" / "config.json"
    before = json.loads(config.read_text())
    config.write_text(json.dumps(before | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    said = bot.run("add", "../merged", "--files").stderr
    assert "config.json of merged says that the weights are quantised (bitsandbytes)" in said
    assert "hint: delete quantization_config from config.json" in said
    assert "quantised" in CommandLine(bot.place)("init", "again", "--base", "merged").stderr


@pytest.mark.situation("empty weights, saved under DeepSpeed ZeRO-3")
@pytest.mark.parametrize("small", [False, True], ids=["all", "all but the norms"])
def test_weights_that_were_never_gathered_are_named(bot: LlamaBot, small: bool) -> None:
    none = Tensor("BF16", np.zeros(0, np.uint16))
    empty = {name: bot.base[name] if small and "norm" in name else none for name in bot.base}
    fine_tune(bot.place / "base", bot.place / "empty", empty)
    for run, words in (
        (bot.run, ("commit", "../empty", "-m", "x", "--missing", "zero")),
        (CommandLine(bot.place), ("init", "nothing", "--base", "empty")),
    ):
        said = run.refused(4, *words)
        assert "tensors are empty, as DeepSpeed ZeRO-3 saves weights that it did not gather" in said
        assert "zero_to_fp32.py" in said
    assert not (bot.place / "nothing" / ".persona").exists()
    one = dict(bot.base) | {UP: none}
    fine_tune(bot.place / "base", bot.place / "one", one)
    assert f"tensor {UP} is empty, as DeepSpeed" in bot.run.refused(4, "add", "../one")


@pytest.mark.situation(
    "the parts that each rank of a training saved (`*.distcp`, or DeepSpeed's `zero_to_fp32.py` beside them)"
)
def test_parts_of_weights_are_named_with_what_joins_them(bot: LlamaBot) -> None:
    joined = bot.tune("joined", 1)
    parts = bot.place / "parts"
    put(parts, **{"pytorch_model_fsdp_0____0_0.distcp": "x", "pytorch_model_fsdp_0__.metadata": "x"})
    put(bot.place / "zero", **{"zero_to_fp32.py": "", "latest": "global_step5", "global_step5__a.pt": "x"})
    for place in (parts, parts / "pytorch_model_fsdp_0"):
        said = bot.run.refused(4, "commit", place, "-m", "x")
        assert f"`accelerate merge-weights {parts / 'pytorch_model_fsdp_0'} OUT`" in said
    said = bot.run.refused(4, "commit", bot.place / "zero", "-m", "x")
    assert f"zero_to_fp32.py {bot.place / 'zero'} OUT --safe_serialization`" in said
    bot.run.ok("commit", "../joined", "-m", "x")
    bot.checkout()
    assert bot.holds(joined)


# -- the hub


@pytest.fixture
def hub(bot: LlamaBot, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, with the base as Org/Base-1B, and a fine-tune as Org/Tuned."""
    cache = bot.place / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(bot.place)
    bot.tune("tuned", 1)
    for name, source in (("Base-1B", "base"), ("Tuned", "tuned")):
        repository = cache / f"models--Org--{name}"
        put(repository, refs__main="0" * 40)
        (repository / "blobs").mkdir()
        snapshot = repository / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        for number, file in enumerate(sorted((bot.place / source).iterdir())):
            shutil.copy(file, repository / "blobs" / str(number))
            (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return cache


@pytest.mark.situation("a model by its name on the Hugging Face hub")
def test_a_model_of_the_hub_is_taken_by_its_name(bot: LlamaBot, hub: Path) -> None:
    CommandLine(bot.place).ok("init", "from-hub", "--base", "Org/Base-1B")
    run = CommandLine(bot.place / "from-hub")
    assert 'base = "Base-1B"' in (run.directory / "recipe.toml").read_text()
    assert run.json("commit", "Org/Tuned", "-m", "tune")["vectors"][0]["name"] == "Tuned"
    run.ok("checkout")
    assert same(read_weights(run.directory), read_weights(bot.place / "tuned"))
    assert run.ok("identify", "Org/Tuned") == run.ok("identify", "../tuned")
    for words in (
        ("add", "Org/Other"),
        ("commit", "Org/Other", "-m", "x"),
        ("init", "x", "--base", "Org/Other"),
    ):
        assert "`hf download Org/Other`" in run.refused(4, *words)


@pytest.mark.situation("a directory of the hub's cache, or a snapshot in it")
def test_a_directory_of_the_hubs_cache_is_its_model(bot: LlamaBot, hub: Path) -> None:
    repository = hub / "models--Org--Tuned"
    for place in (repository, repository / "snapshots" / ("0" * 40)):
        (vector,) = bot.run.json("add", place)["vectors"]
        assert vector["name"] == "Tuned"
    bot.checkout()
    assert bot.holds(read_weights(bot.place / "tuned"))
    assert "Begin with Tuned" in CommandLine(bot.place).ok("init", "again", "--base", repository)


# -- names, sizes, filters


@pytest.mark.situation("`runB/merged` after `runA/merged`")
def test_another_run_of_the_same_name_needs_a_name_or_replaces(bot: LlamaBot) -> None:
    for run in ("runA", "runB"):
        (bot.place / run).mkdir()
    first, second = bot.tune("runA/merged", 1), bot.tune("runB/merged", 2)
    bot.run.ok("commit", "../runA/merged", "-m", "a")
    follow(bot.run, "add", "../runB/merged", code=1, take="--name", fill={"NAME": "other"})
    bot.run.ok("rm", "other")
    bot.checkout()
    assert bot.holds(first)
    follow(bot.run, "commit", "../runB/merged", "-m", "b", code=1, take="--replace")
    bot.checkout()
    assert bot.holds(second)


@pytest.mark.situation("the same vector under a second name")
def test_a_vector_that_counts_twice_is_named(bot: LlamaBot) -> None:
    tuned = bot.tune("one", 1)
    bot.run.ok("commit", "../one", "-m", "one")
    said = bot.run("add", "../one", "-n", "two").stderr
    assert "two and one are the same vector, so the recipe applies it twice" in said
    bot.run.ok("rm", "two")
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("changes as large as the base's weights")
def test_a_stranger_of_the_same_shapes_gets_a_question(
    bot: LlamaBot, llamas: Callable[..., Path], tmp_path: Path
) -> None:
    question = "is it a fine-tune of this base?"
    fine_tune(bot.place / "base", bot.place / "stranger", read_weights(llamas(seed=7)))
    bot.tune("tuned", 1)
    assert question in bot.run("add", "../stranger").stderr
    bot.run.ok("rm", "stranger")
    assert question not in bot.run("add", "../tuned").stderr


@pytest.mark.situation("modules that did not change at all")
def test_modules_that_did_not_change_are_named(bot: LlamaBot) -> None:
    tuned = bot.tune("part", 1, only="mlp")
    said = bot.run.ok("commit", "../part", "-m", "part")
    assert "unchanged: embeddings, self_attn, norms, lm_head" in said
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("a filter that matches no tensor")
@pytest.mark.parametrize(
    ("glob", "meant"), [("mlp", "*mlp*"), (r"model\.layers\.\d+\.mlp.*", "model.layers.*.mlp*")]
)
def test_a_filter_that_matches_nothing_is_refused(bot: LlamaBot, glob: str, meant: str) -> None:
    tuned = bot.tune("tuned", 1)
    said = bot.run.refused(4, "add", "../tuned", "--only", glob)
    assert "names look like model.layers.0.mlp." in said
    assert f"'{meant}'" in said.lower()
    bot.run.ok("commit", "../tuned", "--only", meant, "-m", "x")
    assert glob in bot.run.refused(4, "set", "tuned", "--only", glob)
    bot.checkout()
    assert bot.holds({name: (tuned if "mlp" in name else bot.base)[name] for name in tuned})


# -- files and training in the work tree


@pytest.mark.situation("a vector is dropped that brought files with `--files`")
@pytest.mark.parametrize("words", [("revert",), ("rm",)])
def test_files_go_with_their_vector(bot: LlamaBot, words: tuple[str, ...]) -> None:
    bot.tune("long", 1)
    config = bot.place / "long" / "config.json"
    longer = config.read_text().replace("{", '{"rope_scaling": null,', 1)
    config.write_text(longer)
    bot.run.ok("commit", "../long", "--files", "-m", "long")
    said = bot.run(*words, "long").stderr
    assert "put back: config.json" in said
    assert (bot.root / "config.json").read_bytes() == (bot.place / "base" / "config.json").read_bytes()
    bot.checkout()
    assert bot.holds(bot.base)
    (command,) = advice(said).commands
    bot.run.ok(*command)
    assert (bot.root / "config.json").read_text() == longer
    bot.run.ok("reset", "--hard", "HEAD~1" if words == ("revert",) else "HEAD")
    bot.run.ok(*words, "long", "--keep-files")
    assert (bot.root / "config.json").read_text() == longer


@pytest.mark.situation("`--files` brings the `config.json` of another model")
def test_a_config_of_another_model_is_noted(bot: LlamaBot) -> None:
    tuned = bot.tune("odd", 1)
    config = bot.place / "odd" / "config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"model_type": "gpt2", "hidden_size": 99, "use_cache": False}))
    found = bot.run("add", "../odd", "--files").stderr
    assert "is of another model (model_type llama → gpt2, hidden_size 16 → 99)" in found
    bot.run.ok("commit", "-m", "odd")
    bot.run.ok("revert", "odd")
    bot.run.ok("commit", "../odd", "-m", "without")
    assert json.loads((bot.root / "config.json").read_text()) == said
    bot.checkout()
    assert bot.holds(tuned)


@pytest.mark.situation("a model that was trained in the work tree")
def test_a_training_in_place_is_said_by_each_command(bot: LlamaBot) -> None:
    bot.tune("one", 1)
    bot.run.ok("commit", "../one", "-m", "one")
    bot.checkout()
    trained = a_few_ulps(bot.weights, 2)
    write_weights(bot.root, trained)
    said = bot.run.refused(1, "commit", "-m", "x")
    assert "the weights here were edited by hand" in said
    (command,) = advice(said).filled("commit", {"NAME": "night"}).commands
    said = bot.run(*command, "-m", "night").stderr
    assert "may differ from them by a rounding; to keep the trained bytes, copy the files first" in said
    assert bot.holds(trained)
    said = bot.run("checkout").stderr
    assert ("computed weights replaced those that were trained here for night" in said) != bot.holds(trained)


@pytest.mark.situation("text files of your own")
def test_text_files_are_tracked_once_they_are_added(bot: LlamaBot) -> None:
    put(bot.root, **{"notes.md": "n", "README.md": "r", "LICENSE": "l", "docs__more.txt": "m"})
    bot.run.ok("add", "--files", "notes.md")
    bot.run.ok("add", "README.md", "LICENSE", "docs")
    held = bot.run.json("commit", "-m", "texts")
    assert held["id"]
    for name in ("notes.md", "README.md", "LICENSE", "docs/more.txt"):
        (bot.root / name).unlink()
    bot.run.ok("restore", ".")
    assert (bot.root / "docs" / "more.txt").read_text() == "m"
