"""Small random models of many families, in the layouts that the world has them in, and their answers.

A *layout* is how a directory holds a model: the names of its tensors, and how often it holds a matrix that
the model shares. Each model is made once in a session; `families("t5")` gives its directory, which is only
read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pytest

from tests.checkpoints import UNSIGNED, Model, Tensor, read_file, read_weights, write_file
from tests.llamas import EXPONENT_BITS, MANTISSA_BITS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SMALL: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""The settings that most configs of decoders share."""
EIGHT: dict[str, Any] = {
    "vocab_size": 48,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
"""The settings of configs in the manner of BART."""


# -- models as transformers saves them


def random_model(
    name: str, dtype: str = "bfloat16", *, head: str = "CausalLM", **settings: Any
) -> PreTrainedModel:
    """A random model: `random_model("Qwen2")` is a Qwen2ForCausalLM. No tensor is constant."""
    import torch
    import transformers

    config = getattr(transformers, f"{name}Config")(**settings)
    torch.manual_seed(crc32(name.encode()))
    kind = f"{name}{head}" if head in ("LMHeadModel", "MTModel", "Model") else f"{name}For{head}"
    model: PreTrainedModel = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model.to(getattr(torch, dtype))


def decoder(name: str, **settings: Any) -> Callable[[Path], None]:
    return lambda directory: random_model(name, **SMALL, **settings).save_pretrained(directory)


def _gpt2(directory: Path) -> None:
    config = {"vocab_size": 48, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config |= {"bos_token_id": 1, "eos_token_id": 2}
    random_model("GPT2", "float32", head="LMHeadModel", **config).save_pretrained(directory)


def _mixtral(directory: Path, *, stacked: bool = False) -> None:
    model = random_model("Mixtral", **SMALL, num_local_experts=3, num_experts_per_tok=2)
    model.save_pretrained(directory, save_original_format=not stacked)


def _t5(directory: Path, dtype: str = "float32") -> None:
    config = {"vocab_size": 48, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    random_model("T5", dtype, head="ConditionalGeneration", **config).save_pretrained(directory)


def _bart(directory: Path) -> None:
    model = random_model("Bart", "float32", head="ConditionalGeneration", **EIGHT, max_position_embeddings=32)
    model.save_pretrained(directory)


def _whisper(directory: Path) -> None:
    config = {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16}
    model = random_model("Whisper", "float32", head="ConditionalGeneration", **EIGHT, **config)
    model.save_pretrained(directory)


def _bert(directory: Path, head: str = "MaskedLM") -> None:
    config = {name: SMALL[name] for name in SMALL if "key_value" not in name and "token" not in name}
    random_model("Bert", "float32", head=head, **config).save_pretrained(directory)


def _llava(directory: Path, *, in_memory: bool = False) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {
        "vision_config": {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, **vision},
        "text_config": {"model_type": "llama", **SMALL},
        "image_token_index": 47,
        "image_token_id": 47,
    }
    model = random_model("Llava", "float32", head="ConditionalGeneration", **config)
    model.save_pretrained(directory, save_original_format=not in_memory)


# -- the same models in other layouts


def rewritten(make: Callable[[Path], None], change: Callable[[Model], Model]) -> Callable[[Path], None]:
    """Makes a model and writes its tensors as `change` gives them."""

    def write(directory: Path) -> None:
        make(directory)
        write_file(directory / "model.safetensors", change(read_weights(directory)))

    return write


def copied(**copies: str) -> Callable[[Model], Model]:
    """Adds copies of tensors: the name of each (`__` for a dot) → the tensor that it repeats."""
    names = {copy.replace("__", "."): name for copy, name in copies.items()}
    return lambda model: model | {copy: model[name] for copy, name in names.items()}


def renamed(pattern: str, name: str | Callable[[re.Match[str]], str]) -> Callable[[Model], Model]:
    """Replaces a pattern in the name of each tensor, as `re.sub` does."""
    return lambda model: {re.sub(pattern, name, old): tensor for old, tensor in model.items()}


def gpt2_of_the_hub(model: Model) -> Model:
    """The names that GPT-2 was published with: no `transformer.`, and a causal mask in each layer."""
    mask = np.tril(np.ones((1, 1, 32, 32), np.float32)).view(np.uint32)
    masks = {f"h.{layer}.attn.bias": Tensor("F32", mask) for layer in range(2)}
    return renamed(r"^transformer\.", "")(model) | masks


def bert_of_the_hub(model: Model) -> Model:
    """The names that BERT was published with: gamma and beta, and the positions as integers."""
    named = renamed(r"LayerNorm\.weight", "LayerNorm.gamma")(model)
    positions = {"bert.embeddings.position_ids": Tensor("I64", np.arange(32, dtype=np.uint64).reshape(1, 32))}
    return renamed(r"LayerNorm\.bias", "LayerNorm.beta")(named) | positions


def _mistral_with_consolidated(directory: Path) -> None:
    decoder("Mistral")(directory)
    theirs = renamed(r"^model\.", "")(read_weights(directory))
    write_file(directory / "consolidated.safetensors", theirs)
    (directory / "params.json").write_text('{"dim": 16, "n_layers": 2}\n')


def _sentence_transformers(directory: Path) -> None:
    """BERT with a pooling and a dense layer in subdirectories, as sentence-transformers writes it."""
    _bert(directory, head="Model")
    write_modules(directory, dense=True)


def write_modules(directory: Path, *, dense: bool = False) -> None:
    """The files that make a directory one of sentence-transformers; `dense`: with a layer of weights."""
    modules = {"": "Transformer", "1_Pooling": "Pooling"} | ({"2_Dense": "Dense"} if dense else {})
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules.items())
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 32}\n')
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if dense:
        random = np.random.default_rng(5)
        weights = {
            "linear.weight": random.normal(size=(8, 16)).astype(np.float32).view(np.uint32),
            "linear.bias": random.normal(size=8).astype(np.float32).view(np.uint32),
        }
        (directory / "2_Dense").mkdir()
        write_file(directory / "2_Dense" / "model.safetensors", weights)
        (directory / "2_Dense" / "config.json").write_text('{"in_features": 16, "out_features": 8}\n')


FAMILIES: dict[str, Callable[[Path], None]] = {
    "llama": decoder("Llama", tie_word_embeddings=False),
    "llama tied": decoder("Llama", tie_word_embeddings=True),
    "gpt2": _gpt2,
    "gpt2 of the hub": rewritten(_gpt2, gpt2_of_the_hub),
    "mistral with consolidated": _mistral_with_consolidated,
    "mixtral": _mixtral,
    "mixtral stacked": lambda directory: _mixtral(directory, stacked=True),
    "qwen2": decoder("Qwen2"),
    "gemma": decoder("Gemma", head_dim=8),
    "phi": decoder("Phi"),
    "t5": _t5,
    "t5 in half precision": lambda directory: _t5(directory, "float16"),
    "t5 with copies": rewritten(
        _t5,
        copied(
            encoder__embed_tokens__weight="shared.weight",
            decoder__embed_tokens__weight="shared.weight",
            lm_head__weight="shared.weight",
        ),
    ),
    "bart": _bart,
    "bart with copies": rewritten(
        _bart,
        copied(
            model__encoder__embed_tokens__weight="model.shared.weight",
            model__decoder__embed_tokens__weight="model.shared.weight",
            lm_head__weight="model.shared.weight",
        ),
    ),
    "whisper": _whisper,
    "whisper with copies": rewritten(_whisper, copied(proj_out__weight="model.decoder.embed_tokens.weight")),
    "bert": _bert,
    "bert with gamma and beta": rewritten(_bert, bert_of_the_hub),
    "llava": _llava,
    "llava in memory": lambda directory: _llava(directory, in_memory=True),
    "sentence-transformers": _sentence_transformers,
}
"""The families, and how each is written to a directory."""


# -- fine-tunes


def train(source: Path, directory: Path, seed: int = 1) -> Path:
    """A fine-tune in the layout of `source`: all its files, about a third of the elements moved a few steps.

    Tensors of equal bits stay equal, as tied ones do. Weights in subdirectories are trained too.
    """
    shutil.copytree(source, directory)
    for path in directory.rglob("*.safetensors"):
        if path.name != "consolidated.safetensors":
            path.unlink()
            write_file(path, moved(read_file(source / path.relative_to(directory)), seed))
    return directory


def moved(model: Model, seed: int) -> Model:
    """The floats of a model moved a few steps, in a way that only their own bits decide."""
    found = {}
    for name, tensor in model.items():
        if tensor.dtype in MANTISSA_BITS:
            random = np.random.default_rng([seed, crc32(tensor.bits.tobytes())])
            step = random.integers(1, 9, tensor.bits.shape) * (random.random(tensor.bits.shape) < 0.34)
            exponent = (tensor.bits >> MANTISSA_BITS[tensor.dtype]) & ((1 << EXPONENT_BITS[tensor.dtype]) - 1)
            if len(np.unique(tensor.bits)) < 3:  # a mask, which is not trained
                step *= 0
            step <<= MANTISSA_BITS[tensor.dtype] - 4
            step *= exponent < (1 << EXPONENT_BITS[tensor.dtype]) - 3
            found[name] = Tensor(tensor.dtype, tensor.bits + step.astype(UNSIGNED[tensor.dtype]))
        else:
            found[name] = tensor
    return found


def save_again(source: Path, directory: Path, **options: Any) -> Path:
    """A model loaded and saved by this transformers: in its layout, whatever layout `source` has."""
    loaded(source).save_pretrained(directory, **options)
    return directory


def own_head(model: PreTrainedModel, seed: int = 4) -> None:
    """Gives a model an output matrix of its own, as docs/checkpoints.md says, and trains it."""
    import torch

    output: Any = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight.clone())
    model.config.tie_word_embeddings = False
    torch.manual_seed(seed)
    with torch.no_grad():
        output.weight += 0.1 * torch.randn(output.weight.shape).to(output.weight.dtype)


# -- answers


def loaded(directory: Path) -> PreTrainedModel:
    """The model of a directory, as transformers loads it. It must find every tensor that it looks for."""
    import transformers

    name = json.loads((directory / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(
        directory, dtype="auto", output_loading_info=True
    )
    assert not report["missing_keys"], report
    assert not report["mismatched_keys"], report
    found: PreTrainedModel = model
    return found


def answers(model: PreTrainedModel | Path) -> torch.Tensor:
    """The logits of a model for fixed inputs, or its last hidden states. A path is loaded first."""
    import inspect

    import torch

    if isinstance(model, Path):
        model = loaded(model)
    config = model.config
    taken = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(3)
    tokens = torch.arange(3, 15).reshape(2, 6)
    inputs: dict[str, Any] = {"input_ids": tokens}
    if "input_features" in taken:
        shape = (2, config.num_mel_bins, 2 * config.max_source_positions)
        inputs = {"input_features": torch.randn(shape, generator=generator, dtype=model.dtype)}
    if "pixel_values" in taken:
        size, patch = config.vision_config.image_size, config.vision_config.patch_size
        inputs["pixel_values"] = torch.randn((2, 3, size, size), generator=generator, dtype=model.dtype)
        images = torch.full((2, (size // patch) ** 2), config.image_token_id)
        inputs["input_ids"] = torch.cat([images, tokens], 1)
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.flip(1)
    with torch.no_grad():
        found = model.eval()(**inputs)
    result: torch.Tensor = found.logits if "logits" in found else found.last_hidden_state
    return result


def same_answers(one: PreTrainedModel | Path, other: PreTrainedModel | Path) -> bool:
    """Whether two models give the same answers, to the bit."""
    import torch

    return torch.equal(answers(one), answers(other))


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's model, by the family's name."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("family") / re.sub(r"\W", "-", name)
            FAMILIES[name](made[name])
        return made[name]

    return find


def random_adapter(base: Path, place: Path, **settings: Any) -> torch.Tensor:
    """Saves a random adapter; the answers of the running model, whose layers it changes one by one."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(7)
    model = get_peft_model(loaded(base), LoraConfig(r=4, init_lora_weights=False, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape).to(parameter.dtype)
    model.save_pretrained(place)
    return answers(PeftModel.from_pretrained(loaded(base), place).eval())
