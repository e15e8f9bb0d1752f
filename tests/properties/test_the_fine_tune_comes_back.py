"""`init`, `commit FT`, `checkout`: the fine-tune byte for byte, as a directory that transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import UNSIGNED, Model, Tensor, digest_of_files, read_weights, same
from tests.llamas import DTYPES, LlamaBot, a_few_ulps, fine_tune, nasty


def loaded(directory: Path) -> Model:
    """Every tensor as `from_pretrained` loads it."""
    import torch
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    names = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    found: Model = {}
    for name, tensor in model.state_dict().items():
        dtype = names[tensor.dtype]
        view = {"BF16": torch.uint16, "F16": torch.uint16, "F32": torch.uint32}[dtype]
        found[name] = Tensor(dtype, tensor.contiguous().view(view).numpy())
    return found


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_vector_and_no_options_is_the_fine_tune(
    begin: Callable[..., LlamaBot], llamas: Callable[..., Path], dtype: str, tied: bool, shards: int
) -> None:
    source = llamas(dtype, tied=tied, shards=shards)
    base, tuned = nasty(read_weights(source), seed=shards)
    bot = begin(weights=base, dtype=dtype, tied=tied, shards=shards)
    fine_tune(source, bot.place / "tuned", tuned, shards=5 - shards)
    bot.run.ok("commit", "../tuned", "-m", "as it was trained")
    result = bot.checkout()
    assert bot.holds(tuned)
    assert result["weights"] == digest_of_files(bot.place / "tuned")
    assert len([file for file in result["files"] if file.endswith(".safetensors")]) == shards
    found = loaded(bot.root)
    assert same({name: found[name] for name in tuned}, tuned)
    assert found.keys() - tuned.keys() == ({"lm_head.weight"} if tied else set())


@pytest.mark.parametrize("preset", ["ties", "mergekit", "peft", "linear"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_lone_vector_is_the_fine_tune_whatever_the_rules(
    begin: Callable[..., LlamaBot], dtype: str, preset: str
) -> None:
    bot = begin(dtype=dtype)
    base, tuned = nasty(bot.base, seed=7)
    other = begin("there", weights=base, dtype=dtype)
    fine_tune(bot.place / "base", other.place / "tuned", tuned)
    other.run.ok("commit", "../tuned", "-m", "in")
    other.run.ok("set", "--merge", f"preset={preset}")
    other.checkout()
    assert other.holds(tuned)


def test_a_model_of_every_kind_of_tensor_comes_back(bot: LlamaBot) -> None:
    random = np.random.default_rng(3)
    shapes = [(), (1,), (0,), (3, 0, 2), (2, 3, 5, 7), (1031,)]
    model: Model = {}
    for dtype in DTYPES:
        for number, shape in enumerate(shapes):
            bits = random.integers(0, 1 << 14, shape).astype(UNSIGNED[dtype])
            model[f"{dtype}.{number}"] = Tensor(dtype, np.asarray(bits))
    tuned = a_few_ulps(model, 4)
    for found in (model, tuned):
        found["mask"] = Tensor("U8", np.arange(9, dtype=np.uint8))
        found["positions"] = Tensor("I64", np.arange(5, dtype=np.uint64))
    place = bot.place / "odd"
    fine_tune(bot.place / "base", place, model)
    fine_tune(bot.place / "base", bot.place / "odd-tuned", tuned)
    bot.run.ok("-C", str(place), "init")
    odd = LlamaBot(bot.place, type(bot.run)(place))
    odd.run.ok("commit", "../../here/odd-tuned", "-m", "odd")
    odd.checkout()
    assert odd.holds(tuned)


def test_python_gives_the_same_bytes_one_tensor_at_a_time(grown: LlamaBot) -> None:
    import persona

    grown.checkout()
    with persona.open(grown.root) as repo:
        arrays = dict(repo.tensors("HEAD"))
        tensors = dict(repo.tensors("HEAD", torch=True))
    written = grown.weights
    assert arrays.keys() == tensors.keys() == written.keys()
    for name, tensor in written.items():
        assert np.asarray(arrays[name]).tobytes() == tensor.bits.tobytes()
        assert tensors[name].view(__import__("torch").uint16).numpy().tobytes() == tensor.bits.tobytes()
