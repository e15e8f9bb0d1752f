"""Tiny Llama models on disk, nasty bits for them, and repositories around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from tests.checkpoints import UNSIGNED, Model, Tensor, digest_of_files, read_weights, same, write_weights
from tests.cli.command_line import CommandLine

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
EXPONENT_BITS = {"BF16": 8, "F16": 5, "F32": 8}
MANTISSA_BITS = {"BF16": 7, "F16": 10, "F32": 23}


def llama(
    directory: Path, dtype: str = "BF16", *, tied: bool = False, shards: int = 1, seed: int = 0
) -> Path:
    """A model directory as transformers writes it, of two layers and some thousand random parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=37,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        dtype=DTYPES[dtype],
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).to(getattr(torch, DTYPES[dtype]))
    whole = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    model.save_pretrained(directory, max_shard_size=whole // shards + 600 if shards > 1 else "1GB")
    (directory / "chat_template.jinja").write_text("{{ messages }}\n")
    assert len(list(directory.glob("model*.safetensors"))) == shards
    return directory


def fine_tune(base: Path, directory: Path, model: Mapping[str, Tensor], shards: int = 1) -> Path:
    """A model directory with the config of `base` and other weights."""
    directory.mkdir()
    (directory / "config.json").write_bytes((base / "config.json").read_bytes())
    return write_weights(directory, model, shards)


# -- bits --------------------------------------------------------------------------------------------------


def a_few_ulps(model: Mapping[str, Tensor], seed: int, only: str = "") -> Model:
    """What training does: about a third of the elements a few steps away, in the tensors whose name holds
    `only`. What is not finite, or nearly not, stays.
    """
    found = dict(model)
    for name, tensor in model.items():
        if only in name:
            random = np.random.default_rng([seed, crc32(name.encode())])  # whatever order the tensors are in
            step = random.integers(1, 9, tensor.bits.shape) * (random.random(tensor.bits.shape) < 0.34)
            exponent = (tensor.bits >> MANTISSA_BITS[tensor.dtype]) & ((1 << EXPONENT_BITS[tensor.dtype]) - 1)
            step *= exponent < (1 << EXPONENT_BITS[tensor.dtype]) - 2
            found[name] = Tensor(tensor.dtype, tensor.bits + step.astype(tensor.bits.dtype))
    return found


def special(dtype: str) -> dict[str, int]:
    """Bit patterns that arithmetic likes to lose."""
    mantissa, width = MANTISSA_BITS[dtype], 8 * np.dtype(UNSIGNED[dtype]).itemsize
    infinity = ((1 << EXPONENT_BITS[dtype]) - 1) << mantissa
    sign = 1 << (width - 1)
    return {
        "zero": 0,
        "minus zero": sign,
        "smallest subnormal": 1,
        "minus smallest subnormal": sign | 1,
        "largest subnormal": (1 << mantissa) - 1,
        "smallest normal": 1 << mantissa,
        "largest": infinity - 1,
        "minus largest": sign | (infinity - 1),
        "infinity": infinity,
        "minus infinity": sign | infinity,
        "nan": infinity | (1 << (mantissa - 1)),
        "nan with payload": sign | infinity | 5,
    }


def nasty(model: Mapping[str, Tensor], seed: int, *, overflowing: bool = True) -> tuple[Model, Model]:
    """A base and a fine-tune of it that hold, in every tensor, each finite special value turned into each
    other one, and the values that are not finite unchanged. Not `overflowing`: none turned into one so far
    away that their difference is not finite.
    """
    random = np.random.default_rng(seed)
    base: Model = {}
    tuned: Model = {}
    for name, tensor in model.items():
        values = special(tensor.dtype)
        kept = [value for word, value in values.items() if "nan" in word or "infinity" in word]
        finite = [value for value in values.values() if value not in kept]
        far = {values["largest"], values["minus largest"]}
        pairs = [(a, b) for a in finite for b in finite if overflowing or {a, b} != far or a == b]
        pairs += [(value, value) for value in kept]
        before, after = (
            tensor.bits.copy().reshape(-1),
            a_few_ulps({name: tensor}, seed)[name].bits.reshape(-1),
        )
        after = after.copy()
        chosen = random.permutation(before.size)[: len(pairs)]
        for place, (a, b) in zip(chosen, random.permutation(np.array(pairs)), strict=False):
            before[place], after[place] = a, b
        shape = tensor.bits.shape
        base[name] = Tensor(tensor.dtype, before.reshape(shape))
        tuned[name] = Tensor(tensor.dtype, after.reshape(shape))
    return base, tuned


def floats(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The elements as binary64."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        if tensor.dtype == "BF16":
            return (tensor.bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return tensor.bits.view({"F16": np.float16, "F32": np.float32}[tensor.dtype]).astype(np.float64)


def everything_below(*places: Path, leaving: Iterable[str] = ()) -> dict[str, bytes | str]:
    """Every file below some directories, with what it holds; a link with where it goes."""
    found: dict[str, bytes | str] = {}
    for place in places:
        for path in sorted(place.rglob("*")):
            shown = f"{place.name}/{path.relative_to(place)}"
            if any(part in path.parts for part in leaving):
                continue
            if path.is_symlink():
                found[shown] = str(path.readlink())
            elif path.is_file():
                found[shown] = path.read_bytes()
            else:
                found[shown] = "directory"
    return found


# -- repositories


@dataclass
class LlamaBot:
    """A repository, the models around it, and a command line in it."""

    place: Path
    run: CommandLine

    @property
    def root(self) -> Path:
        return self.run.directory

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    @property
    def base(self) -> Model:
        return read_weights(self.place / "base")

    @property
    def weights(self) -> Model:
        return read_weights(self.root)

    def tune(self, name: str, seed: int, only: str = "", shards: int = 1) -> Model:
        """A fine-tune of the base beside the repository."""
        model = a_few_ulps(self.base, seed, only)
        fine_tune(self.place / "base", self.place / name, model, shards)
        return model

    def checkout(self, *arguments: str) -> dict[str, Any]:
        """The result of a checkout, once the digest that it prints is that of the files it wrote."""
        result: dict[str, Any] = self.run.json("checkout", *arguments)
        assert result["weights"] == digest_of_files(self.root)
        return result

    def holds(self, model: Model) -> bool:
        """Whether the weights in the work tree are those of a model, byte for byte."""
        return same(self.weights, model)

    def grow(self) -> LlamaBot:
        """Commits three vectors: `one`, `two` at −0.5, and `three` that reaches layer 1 alone."""
        options = {"one": (), "two": ("--alpha", "-0.5"), "three": ("--only", "model.layers.1.*")}
        for seed, (name, words) in enumerate(options.items(), 1):
            self.tune(name, seed)
            self.run.ok("commit", f"../{name}", *words, "-m", f"teach {name}")
        return self


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Model directories as transformers writes them, each made once. They are only read."""
    made: dict[object, Path] = {}

    def find(dtype: str = "BF16", *, tied: bool = False, shards: int = 1, seed: int = 0) -> Path:
        key = (dtype, tied, shards, seed)
        if key not in made:
            place = tmp_path_factory.mktemp("llama") / "model"
            made[key] = llama(place, dtype, tied=tied, shards=shards, seed=seed)
        return made[key]

    return find


@pytest.fixture
def begin(tmp_path: Path, llamas: Callable[..., Path]) -> Callable[..., LlamaBot]:
    """Makes a repository `NAME/bot` around a Llama, its own or another model's weights in `NAME/base`."""

    def make(name: str = "here", weights: Model | None = None, shards: int = 1, **kind: Any) -> LlamaBot:
        place = tmp_path / name
        place.mkdir()
        source = llamas(shards=shards, **kind)
        model = read_weights(source) if weights is None else weights
        fine_tune(source, place / "base", model, shards)
        for file in ("generation_config.json", "chat_template.jinja"):
            (place / "base" / file).write_bytes((source / file).read_bytes())
        CommandLine(place).ok("init", "bot", "--base", "base")
        return LlamaBot(place, CommandLine(place / "bot"))

    return make
