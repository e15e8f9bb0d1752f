"""A fine-tune with the base's tensors is paired in the short way, and as the long way pairs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.intake.choices import Choices
from persona.intake.match import match_tensors
from persona.intake.pairs import Matched, match_same
from persona.merge.rows.growth import KnownBase
from persona.weights.checkpoint import Checkpoint
from tests.checkpoints import bf16, write_file, write_model
from tests.merge.models import Sandbox

Tensor = tuple[str, tuple[int, ...], np.ndarray[Any, Any]]
Model = dict[str, Tensor]
NONE = Choices()
ANY = Choices(missing="zero", extra="ignore", cast=True)


def tensor(seed: int, *shape: int) -> Tensor:
    return ("BF16", shape, bf16(np.random.default_rng(seed).normal(size=shape)))


def model(seed: int, **more: Tensor) -> Model:
    """Two layers with names that a wrapper, an adapter and a buffer may have, and a scalar."""
    return {
        "model.embed_tokens.weight": tensor(seed, 12, 8),
        "model.layers.0.mlp.up_proj.weight": tensor(seed + 1, 8, 8),
        "model.layers.1.mlp.up_proj.weight": tensor(seed + 1, 8, 8),
        "model.layers.1.module.base_layer.bias": tensor(seed + 2, 8),
        "model.layers.1.self_attn.lora_A.weight": tensor(seed + 3, 2, 8),
        "scale": ("BF16", (), bf16(np.array([1.5]))),
        "position_ids": ("I64", (1, 4), np.arange(4, dtype=np.uint64)),
        **more,
    }


def both_ways(
    place: Path,
    before: Model,
    after: Model,
    *,
    config: dict[str, Any] | None = None,
    choices: Choices = NONE,
    admitting: Choices | None = None,
) -> tuple[Matched | None, Matched]:
    """The matches in the short way, if it has any, and in the long way.

    `admitting`: other choices for the long way, which would refuse the fine-tune.
    """
    sandbox = Sandbox(place, before)
    known = KnownBase.of(sandbox.store.objects, sandbox.base)
    if config is None:
        path = write_file(place / "after.safetensors", after)
    else:
        path = write_model(place / "after", after)
        (path / "config.json").write_text(json.dumps(config))
    with Checkpoint.open(path) as checkpoint:
        short = match_same(sandbox.base, checkpoint, choices)
        long = match_tensors(sandbox.base, known.chunks, checkpoint, admitting or choices, lambda name: [])
        return short, long


def parts(matched: Matched) -> tuple[Any, ...]:
    """What a match says, its view as the runs that it reads."""
    return matched.matches, dict(matched.view.held), matched.notes, matched.left, matched.renamed


@pytest.mark.parametrize("config", [None, {}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("more", [{}, {"lm_head.weight": tensor(9, 12, 8)}], ids=["no head", "head"])
def test_the_base_s_own_tensors_are_matched_alike_in_both_ways(
    tmp_path: Path, more: Model, config: dict[str, Any] | None
) -> None:
    short, long = both_ways(tmp_path, model(1, **more), model(2, **more), config=config)
    assert short is not None
    assert parts(short) == parts(long)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("model.embed_tokens.weight", None),
        ("model.layers.1.mlp.up_proj.weight", ("F32", (8, 8), np.ones((8, 8), np.uint32))),
        ("scale", ("BF16", (1,), bf16(np.array([1.5])))),
        ("more.weight", tensor(3, 4, 4)),
    ],
    ids=["missing", "dtype", "shape", "extra"],
)
def test_other_tensors_take_the_long_way(tmp_path: Path, name: str, after: Tensor | None) -> None:
    tuned = {**model(2), **({} if after is None else {name: after})}
    if after is None:
        del tuned[name]
    short, long = both_ways(tmp_path, model(1), tuned, admitting=ANY)
    assert short is None
    assert long.matches


def test_a_choice_takes_the_long_way_which_tells_of_it(tmp_path: Path) -> None:
    short, long = both_ways(tmp_path, model(1), model(2), choices=Choices(extend_vocab=True))
    assert short is None
    assert long.notes == ["no new tokens were taken from after.safetensors"]


def test_a_tie_that_the_base_lacks_takes_the_long_way_which_doubts_it(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    short, long = both_ways(tmp_path, model(1), model(2), config=config)
    assert short is None
    assert "the fine-tune ties lm_head.weight to model.embed_tokens.weight" in long.notes[0]
