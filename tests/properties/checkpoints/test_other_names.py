"""Fine-tunes that name, share or hold tensors in another way than their base come back as they are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.advice import follow
from tests.checkpoints import Model, Tensor, read_weights, same, write_file
from tests.cli.command_line import CommandLine
from tests.families import moved, renamed, same_answers, train

Families = Callable[[str], Path]


@dataclass
class Pair:
    """A repository `bot` of a base, the fine-tune as it should be, and the same in other files."""

    place: Path
    run: CommandLine

    @property
    def tuned(self) -> Path:
        return self.place / "tuned"

    def rewrite(self, change: Callable[[Model], Model]) -> None:
        """Writes the fine-tune's tensors as `change` gives them into the directory `other`."""
        shutil.copytree(self.tuned, self.place / "other")
        write_file(self.place / "other" / "model.safetensors", change(read_weights(self.tuned)))

    def comes_back(self) -> bool:
        """Whether the checkout answers as the fine-tune does."""
        self.run.ok("checkout")
        return same_answers(self.run.directory, self.tuned)

    def is_known(self) -> bool:
        """Whether `identify` finds the vector in the other files, too."""
        found = self.run.json("identify", "../other")["found"]
        return ("vector", "other") in {(one["kind"], one["name"]) for one in found}


COMMIT = ("commit", "../other", "-m", "x")


@pytest.fixture
def pair(families: Families, tmp_path: Path) -> Callable[[str], Pair]:
    def make(name: str) -> Pair:
        train(families(name), tmp_path / "tuned")
        CommandLine(tmp_path).ok("init", "bot", "--base", families(name))
        return Pair(tmp_path, CommandLine(tmp_path / "bot"))

    return make


# -- names


@pytest.mark.situation("the names have parts of a wrapper (`module.`, `_orig_mod.`, FSDP's, PEFT's)")
@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("^", "module."),
        ("^", "_orig_mod."),
        (r"layers\.1\.", "layers.1._fsdp_wrapped_module._checkpoint_wrapped_module."),
        (r"q_proj\.", "q_proj.base_layer."),
        ("^", "base_model.model."),
    ],
)
def test_names_of_a_wrapper(pair: Callable[[str], Pair], pattern: str, name: str) -> None:
    found = pair("llama")
    found.rewrite(renamed(pattern, name))
    assert "stripped from the names of" in found.run("commit", "../other", "-m", "x").stderr
    assert found.comes_back()
    assert found.is_known()


@pytest.mark.situation("the names are those of another library or version (`gamma`, `transformer.`)")
@pytest.mark.parametrize(
    ("family", "pattern", "name"),
    [
        ("bert with gamma and beta", r"LayerNorm\.gamma", "LayerNorm.weight"),
        ("bert", r"^bert\.", "model.bert."),
        ("gpt2", r"^transformer\.", ""),
        ("phi", r"^model\.layers\.", "transformer.h."),
    ],
)
def test_names_of_another_library(pair: Callable[[str], Pair], family: str, pattern: str, name: str) -> None:
    found = pair(family)
    found.rewrite(renamed(pattern, name))
    said = found.run.refused(4, *COMMIT)
    assert "renamed" in said
    assert "--missing" not in said
    assert "--extra" not in said
    follow(found.run, *COMMIT)
    assert found.comes_back()
    assert found.is_known()
    assert "Renamed:" in found.run.ok("vector", "show", "other")


@pytest.mark.situation("experts are stacked on one side, or projections fused (`qkv_proj`)")
@pytest.mark.parametrize("base", ["mixtral", "mixtral stacked"])
def test_another_layout(families: Families, pair: Callable[[str], Pair], base: str) -> None:
    found = pair(base)
    other = families("mixtral stacked" if base == "mixtral" else "mixtral")
    train(other, found.place / "other")
    shutil.rmtree(found.tuned)
    shutil.copytree(found.place / "other", found.tuned)
    follow(found.run, *COMMIT)
    assert found.comes_back()
    assert found.is_known()


@pytest.mark.situation("the names changed, and neither names nor weights tell which is which")
@pytest.mark.parametrize("layout", ["interleaved", "groups of heads", "two devices", "transposed", "far"])
def test_names_that_nobody_can_pair(pair: Callable[[str], Pair], layout: str) -> None:
    found = pair("llama")
    found.rewrite(lambda model: in_layout(layout, model))
    for more in ((), ("--rename",), ("--rename", "--missing", "zero", "--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert "renamed" in said
        assert "save both with save_pretrained" in said
        assert not any(flag in said for flag in ("--rename", "--missing", "--extra"))
    shutil.rmtree(found.place / "other")
    found.rewrite(lambda model: model)
    found.run.ok(*COMMIT)
    assert found.comes_back()


def in_layout(layout: str, model: Model) -> Model:
    """Projections of a llama as another library holds them."""
    found = dict(model)

    def rows(part: str, count: int) -> list[np.ndarray]:
        return np.split(found.pop(f"{at}.{part}_proj.weight").bits, count)

    for layer in range(2):
        at = f"model.layers.{layer}.self_attn"
        if layout == "interleaved":
            bits = np.concatenate([rows(part, 1)[0] for part in "qkv"])[::-1]
            found[f"{at}.query_key_value.weight"] = Tensor("BF16", bits.copy())
        elif layout == "groups of heads":
            groups = zip(*(rows(part, 2) for part in "qkv"), strict=True)
            bits = np.concatenate([part for group in groups for part in group])
            found[f"{at}.qkv_proj.weight"] = Tensor("BF16", bits)
        elif layout == "two devices":
            at = f"model.layers.{layer}.mlp"
            groups = zip(*(rows(part, 2) for part in ("gate", "up")), strict=True)
            bits = np.concatenate([part for group in groups for part in group])
            found[f"{at}.gate_up_proj.weight"] = Tensor("BF16", bits)
        else:
            bits = rows("o", 1)[0]
            bits = bits.T if layout == "transposed" else np.roll(bits, 3)
            found[f"{at}.out_proj.weight"] = Tensor("BF16", np.ascontiguousarray(bits))
    return found


@pytest.mark.situation("a tensor is there with the name of a wrapper, and without it")
def test_a_tensor_wrapped_and_plain(families: Families, pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    stale = read_weights(families("llama"))[name]
    found.rewrite(lambda model: model | {name: stale, f"_orig_mod.{name}": model[name]})
    for more in ((), ("--rename",), ("--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert f"both {name} and _orig_mod.{name} are there, and they differ" in said
        assert "--extra" not in said
    shutil.rmtree(found.place / "other")
    found.rewrite(lambda model: model | {f"_orig_mod.{name}": model[name]})
    assert f"_orig_mod.{name} equals {name}: left out" in found.run(*COMMIT).stderr
    assert found.comes_back()


@pytest.mark.situation("scales of a quantised layer lie beside plain floats")
def test_scales_beside_plain_floats(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    scale = Tensor("BF16", np.full(1, 0x3F80, np.uint16))
    found.rewrite(lambda model: model | {"model.layers.0.mlp.up_proj.weight_scale": scale})
    said = found.run.refused(4, *COMMIT)
    assert "is a part of a quantised layer" in said
    assert "0 for a bias" not in said
    assert "--extra" not in said
    shutil.rmtree(found.place / "other")
    found.rewrite(lambda model: model)
    found.run.ok(*COMMIT)
    assert found.comes_back()


@pytest.mark.situation("the layers are counted in another way (from 1, or without a pruned one)")
@pytest.mark.parametrize("family", ["llama", "gpt2 of the hub", "t5"])
def test_layers_counted_in_another_way(pair: Callable[[str], Pair], family: str) -> None:
    found = pair(family)

    def counted(model: Model) -> Model:
        if family == "t5":
            return renamed(r"(?<=layer\.)\d", lambda at: str(2 - int(at[0])))(model)
        return renamed(r"(?<=[h|s]\.)\d", lambda at: str(1 + int(at[0])))(model)

    found.rewrite(counted)
    for more in ((), ("--rename",), ("--missing", "zero", "--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert ("renamed" if family == "t5" else "the layers are counted in another way") in said
        assert not any(flag in said for flag in ("--rename", "--missing", "--extra"))


@pytest.mark.situation("LoRA layers, IA3 or trained tokens lie beside the weights, not merged into them")
def test_lora_layers_that_are_not_merged(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    found.rewrite(
        lambda model: (
            renamed(r"q_proj\.", "q_proj.base_layer.")(model)
            | {"model.layers.0.self_attn.q_proj.lora_A.default.weight": model["model.norm.weight"]}
        )
    )
    for more in ((), ("--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert "merge them first (merge_and_unload)" in said
        assert "--extra" not in said


# -- shared matrices


@pytest.mark.situation("the base holds a shared matrix several times, and the fine-tune once")
@pytest.mark.parametrize("family", ["t5 with copies", "bart with copies", "whisper with copies"])
def test_a_shared_matrix_that_is_there_once(pair: Callable[[str], Pair], family: str) -> None:
    found = pair(family)
    copies = {"t5": "shared", "bart": "model.shared", "whisper": "model.decoder.embed_tokens"}
    kept = f"{copies[family.split()[0]]}.weight"

    def once(model: Model) -> Model:
        return {name: held for name, held in model.items() if name == kept or not held.same(model[kept])}

    found.rewrite(once)
    assert f"{kept}: its values are used" in found.run("commit", "../other", "-m", "x").stderr
    found.run.ok("checkout")
    assert same(read_weights(found.run.directory), read_weights(found.tuned))
    assert found.comes_back()
    assert found.is_known()


@pytest.mark.situation("the fine-tune holds a shared matrix under another of its names")
def test_a_shared_matrix_of_another_name(pair: Callable[[str], Pair]) -> None:
    found = pair("bart")
    found.rewrite(renamed(r"model\.shared\.", "model.decoder.embed_tokens."))
    assert "model.shared.weight is called model.decoder.embed_tokens.weight" in found.run(*COMMIT).stderr
    assert found.comes_back()
    assert found.is_known()


@pytest.mark.situation("the base holds a shared matrix twice, and training moved the two apart")
def test_twins_that_were_trained_apart(pair: Callable[[str], Pair]) -> None:
    found = pair("whisper with copies")
    model = read_weights(found.tuned)
    changed = model | {"proj_out.weight": moved({"": model["proj_out.weight"]}, 5)[""]}
    found.rewrite(lambda _: changed)
    found.run.ok(*COMMIT)
    found.run.ok("checkout")
    assert same(read_weights(found.run.directory), changed)


@pytest.mark.situation("the fine-tune lacks its output matrix, and the base's differs from the embedding")
def test_a_fine_tune_without_its_head(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    found.rewrite(lambda model: {name: held for name, held in model.items() if name != "lm_head.weight"})
    config = found.place / "other" / "config.json"
    settings = json.loads(config.read_text())
    del settings["tie_word_embeddings"]
    config.write_text(json.dumps(settings))
    for more in ((), ("--missing", "zero")):
        said = found.run.refused(4, *COMMIT, *more)
        assert "lm_head.weight is missing" in said
        assert "--missing" not in said
    write_file(found.place / "other" / "model.safetensors", read_weights(found.tuned))
    found.run.ok(*COMMIT)
    assert found.comes_back()


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def untied(found: Pair) -> None:
    """Makes the fine-tune of a tied model one with an output matrix of its own."""
    model = read_weights(found.tuned)
    write_file(
        found.tuned / "model.safetensors",
        model | {HEAD: moved({"": moved({"": model[EMBEDDING]}, 8)[""]}, 9)[""]},
    )
    config = found.tuned / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))


@pytest.mark.situation(
    "the fine-tune has a head of its own, of another size or name than the base's would be"
)
@pytest.mark.parametrize("what", ["rows", "name"])
def test_a_head_of_another_size_or_name(pair: Callable[[str], Pair], what: str) -> None:
    found = pair("llama tied")
    untied(found)

    def other(model: Model) -> Model:
        head = model.pop(HEAD)
        padded = Tensor(head.dtype, np.concatenate([head.bits, head.bits[:16]]))
        return model | ({HEAD: padded} if what == "rows" else {"output.weight": head})

    found.rewrite(other)
    for more in ((), ("--untie",), ("--extra", "ignore"), ("--untie", "--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert "leaving it out changes the model" in said
        assert ("cut the padding" if what == "rows" else f"call the tensor {HEAD}") in said
        assert "--extra" not in said
    shutil.rmtree(found.place / "other")
    found.rewrite(lambda model: model)
    follow(found.run, *COMMIT)
    assert found.comes_back()


@pytest.mark.situation("the fine-tune unties its head, and lacks its embedding")
def test_an_embedding_that_is_lost_beside_a_head_of_its_own(pair: Callable[[str], Pair]) -> None:
    found = pair("llama tied")
    untied(found)
    found.rewrite(lambda model: {name: held for name, held in model.items() if name != EMBEDDING})
    for more in ((), ("--untie",), ("--rename",), ("--missing", "zero", "--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert f"{EMBEDDING} is missing, and {HEAD} is not known to be the same tensor" in said
        assert "--missing" not in said
    shutil.rmtree(found.place / "other")
    found.rewrite(lambda model: model)
    follow(found.run, *COMMIT)
    assert found.comes_back()


# -- tensors that are left


@pytest.mark.situation("integers of the base are missing (`position_ids`)")
def test_integers_that_are_missing(pair: Callable[[str], Pair]) -> None:
    found = pair("bert with gamma and beta")
    found.rewrite(lambda model: {name: held for name, held in model.items() if held.dtype != "I64"})
    assert "counted as unchanged: bert.embeddings.position_ids" in found.run(*COMMIT).stderr
    assert found.comes_back()


@pytest.mark.situation("integers or counters differ, or have another dtype (`position_ids`)")
@pytest.mark.parametrize("dtype", ["I64", "F32"])
def test_integers_that_differ(pair: Callable[[str], Pair], dtype: str) -> None:
    found = pair("bert with gamma and beta")
    name = "bert.embeddings.position_ids"

    def other(model: Model) -> Model:
        bits = np.arange(1, 33, dtype=np.uint64) if dtype == "I64" else np.arange(32, dtype=np.float32)
        return model | {
            name: Tensor(dtype, bits.view(np.uint64 if dtype == "I64" else np.uint32).reshape(1, 32))
        }

    found.rewrite(other)
    said = follow(found.run, *COMMIT).stderr
    assert f"left as in the base: {name}" in said
    assert found.comes_back()


@pytest.mark.situation("a number is NaN or infinite in the base, or in the fine-tune")
@pytest.mark.parametrize("side", ["here", "in the base"])
def test_a_number_that_is_not_finite(families: Families, tmp_path: Path, side: str) -> None:
    whole = train(families("llama"), tmp_path / "tuned")
    model = read_weights(whole)
    name = "model.layers.1.mlp.up_proj.weight"
    bad = model[name].bits.copy()
    bad[0, 0] = 0x7FC0
    broken = model | {name: Tensor("BF16", bad)}
    shutil.copytree(whole, tmp_path / "broken")
    write_file(tmp_path / "broken" / "model.safetensors", broken)
    base, after = ("tuned", "broken") if side == "here" else ("broken", "tuned")
    CommandLine(tmp_path).ok("init", "bot", "--base", base)
    run = CommandLine(tmp_path / "bot")
    words = ("commit", f"../{after}", "-m", "x", "--allow-empty")
    assert f"1 element is not finite {side}" in run.refused(4, *words)
    changed = moved({"": model["model.norm.weight"]}, 3)[""]
    write_file(
        tmp_path / after / "model.safetensors",
        read_weights(tmp_path / after) | {"model.norm.weight": changed},
    )
    follow(run, *words)
    run.ok("checkout", "--allow-nonfinite")
    want = read_weights(tmp_path / base) | {"model.norm.weight": changed}
    assert same(read_weights(run.directory), want)


@pytest.mark.situation("tensors of the base are missing")
def test_missing_tensors(families: Families, pair: Callable[[str], Pair]) -> None:
    found = pair("llama")

    def is_lost(name: str) -> bool:
        return ".1." in name or name == "lm_head.weight"

    found.rewrite(lambda model: {name: held for name, held in model.items() if not is_lost(name)})
    grouped = "the head (lm_head.weight) and all of layer 1 (9)"
    assert f"10 tensors of the base are missing: {grouped}" in found.run.refused(4, *COMMIT)
    assert f"counted as unchanged: {grouped}" in follow(found.run, *COMMIT).stderr
    found.run.ok("checkout")
    base, tuned = read_weights(families("llama")), read_weights(found.tuned)
    assert same(read_weights(found.run.directory), {n: (base if is_lost(n) else tuned)[n] for n in base})


@pytest.mark.situation(
    "the fine-tune has more or fewer layers or experts than the base, also in one part of it"
)
@pytest.mark.parametrize("layers", [1, 3])
def test_another_depth(pair: Callable[[str], Pair], layers: int) -> None:
    found = pair("llama")

    def pruned(model: Model) -> Model:
        copies = {re.sub(r"layers\.1", "layers.2", name): held for name, held in model.items()}
        found = model | copies if layers == 3 else model
        return {name: held for name, held in found.items() if f".{layers}." not in name}

    found.rewrite(pruned)
    config = found.place / "other" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": layers}))
    for more in ((), ("--missing", "zero", "--extra", "ignore")):
        said = found.run.refused(4, *COMMIT, *more)
        assert f"says num_hidden_layers = {layers}, and the base's says 2" in said
        assert "--missing" not in said
    flag = ("--missing", "model.layers.1.*") if layers == 1 else ("--extra", "model.layers.2.*")
    found.run.ok(*COMMIT, *flag)


@pytest.mark.situation("a whole layer is missing, which the `config.json` of the fine-tune counts")
def test_a_layer_that_a_file_lost(pair: Callable[[str], Pair], families: Families) -> None:
    found = pair("llama")
    found.rewrite(lambda model: {name: held for name, held in model.items() if ".layers.1." not in name})
    said = follow(found.run, *COMMIT).stderr
    assert "nothing of model.layers.1 is in other" in said
    assert "from_pretrained of the fine-tune makes random ones" in said
    base = read_weights(families("llama"))
    lost = {name: held for name, held in base.items() if ".layers.1." in name}
    write_file(found.tuned / "model.safetensors", read_weights(found.tuned) | lost)
    assert found.comes_back()


GATES = "attn_gate", "mlp_gate"


@pytest.mark.situation("numbers of the layers (gates of one element) stand under each other's names")
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("swapped", [True, False])
def test_gates_under_each_other_s_names(
    families: Families, tmp_path: Path, shape: tuple[int, ...], swapped: bool
) -> None:
    """The names of all tensors lack `model.`, so the gates are renamed with the others."""

    def with_gates(source: Path, place: Path, moved_by: float) -> Model:
        values = {"attn_gate": (0.5, 0.25), "mlp_gate": (-2.0, -1.5)}
        gates = {
            f"model.layers.{layer}.{name}": Tensor(
                "F32", np.full(shape, value + moved_by, np.float32).view(np.uint32)
            )
            for name, each in values.items()
            for layer, value in enumerate(each)
        }
        shutil.copytree(source, place)
        model = read_weights(source) | gates
        write_file(place / "model.safetensors", model)
        return model

    train(families("llama"), tmp_path / "plain")
    with_gates(families("llama"), tmp_path / "base", 0.0)
    tuned = with_gates(tmp_path / "plain", tmp_path / "other", 0.01)
    names = {name: name.removeprefix("model.") for name in tuned}
    if swapped:
        names |= {
            f"model.layers.{layer}.{one}": f"layers.{layer}.{two}"
            for layer in range(2)
            for one, two in (GATES, GATES[::-1])
        }
    write_file(tmp_path / "other" / "model.safetensors", {names[name]: held for name, held in tuned.items()})
    CommandLine(tmp_path).ok("init", "bot", "--base", "base")
    run = CommandLine(tmp_path / "bot")
    if swapped:
        for more in ((), ("--rename",), ("--rename", "--missing", "zero", "--extra", "ignore")):
            said = run.refused(4, *COMMIT, *more)
            assert "save both with save_pretrained" in said
        write_file(tmp_path / "other" / "model.safetensors", tuned)
    run.ok(*COMMIT, *(() if swapped else ("--rename",)))
    run.ok("checkout")
    assert same(read_weights(run.directory), tuned)


@pytest.mark.situation("tensors that the base lacks (a multi-token head, a value head)")
def test_extra_tensors(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    more = {f"mtp.{name}.weight": Tensor("BF16", np.ones((3, 3), np.uint16)) for name in ("fc", "norm")}
    found.rewrite(
        lambda model: model | more | {"v_head.summary.weight": Tensor("BF16", np.ones((1, 4), np.uint16))}
    )
    assert "the base does not have: mtp.* (2) and v_head.summary.weight" in found.run.refused(4, *COMMIT)
    found.run.refused(4, *COMMIT, "--extra", "mtp.*")
    found.run.ok(*COMMIT, "--extra", "mtp.*", "--extra", "v_head.*")
    assert found.comes_back()


@pytest.mark.situation(
    "biases and other tensors that the base's modules and layers do not have, under any prefix"
)
def test_biases_of_modules_of_the_base(pair: Callable[[str], Pair]) -> None:
    found = pair("llama")
    name = "model.layers.0.self_attn.q_proj.bias"
    found.rewrite(lambda model: model | {name: Tensor("BF16", np.full(16, 0x3F80, np.uint16))})
    said = found.run.refused(4, *COMMIT)
    assert "leaving it out changes the model" in said
    assert "--extra" not in said
    shutil.rmtree(found.place / "other")
    found.rewrite(lambda model: model | {name: Tensor("BF16", np.zeros(16, np.uint16))})
    assert f"biases of zeros that the base does not have, left out: {name}" in found.run(*COMMIT).stderr
    assert found.comes_back()


@pytest.mark.situation("a bf16 fine-tune of an fp32 base, most of it only rounded")
def test_a_narrow_fine_tune_of_a_wide_base(families: Families, tmp_path: Path) -> None:
    base = read_weights(families("phi"))
    wide = {name: Tensor("F32", held.bits.astype(np.uint32) << 16 | 0x1234) for name, held in base.items()}
    shutil.copytree(families("phi"), tmp_path / "base")
    write_file(tmp_path / "base" / "model.safetensors", wide)
    shutil.copytree(families("phi"), tmp_path / "other")
    name = "model.layers.0.mlp.fc1.weight"
    changed = base | {name: moved({"": base[name]}, 1)[""]}
    write_file(tmp_path / "other" / "model.safetensors", changed)
    CommandLine(tmp_path).ok("init", "bot", "--base", "base")
    run = CommandLine(tmp_path / "bot")
    said = follow(run, *COMMIT).stderr
    assert "counts as unchanged" in said
    run.ok("checkout")
    kept = changed[name].bits == base[name].bits
    bits = np.where(kept, wide[name].bits, changed[name].bits.astype(np.uint32) << 16)
    assert same(read_weights(run.directory), wide | {name: Tensor("F32", bits)})
