"""The names and shapes under which a PEFT adapter holds the changes of a model's tensors.

**factor layout** — how the factor of a tensor stands in an adapter file. The change of a tensor of rows ×
columns is s·B·A. PEFT stores these matrices differently for each class of module, and computes the same
product:

* ``linear``: `lora_A.weight` is A, `lora_B.weight` is B;
* ``transposed`` (transformers' Conv1D, which stores [in, out]): `lora_A.weight` is Bᵀ, `lora_B.weight` is Aᵀ;
* ``embedding``: `lora_embedding_A` is Bᵀ, `lora_embedding_B` is Aᵀ;
* ``convolution``: as linear, with the kernel's dimensions behind A's columns, and as many ones behind B's.

A checkpoint does not say of which class a module is, so the layout follows from the tensor's name and shape
and from `model_type`. An adapter holds tensors without a layout whole: a bias under `bias`, the tensors of a
norm under `modules_to_save`.

Sources: https://github.com/huggingface/peft (`tuners/lora/layer.py`, `tuners/tuners_utils.py`,
`utils/save_and_load.py`), read at version 0.21.2.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from persona.frozen import dataclass
from persona.objects.tensors import TensorSpec

PREFIX: Final = "base_model.model."
"""The beginning of every key: PEFT's model holds the base under this name."""

_EMBEDDING: Final = re.compile(r"emb|^w[tp]e$|^shared$|^relative_attention_bias$")
_NO_EMBEDDING: Final = re.compile(r"out|proj|head|norm|ln|dense|fc")
_CONV1D_MODELS: Final = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_MAMBA_MODELS: Final = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_MAMBA: Final = ("out_proj", "conv1d")
"""The modules of these models to which PEFT adds no factors."""
_RENAMED: Final = "block_sparse_moe"
"""A module that transformers 5 renamed. PEFT translates the names of factors, and not those of modules."""
_ROUTERS: Final = ("gate", "router")
_MOST_EXPERTS: Final = 512
_MOST_UNCHANGED: Final = 1 << 20
"""Unchanged elements that may be saved so that a module can be named by the last part of its path."""
_CONV1D: Final = ("c_attn", "c_proj", "c_fc", "q_attn")
"""The modules of these models that are transformers' Conv1D."""


@dataclass(frozen=True)
class FactorEntry:
    """One tensor's factor in an adapter: its layout, its rank, and the scale s = lora_alpha ÷ rank.

    `dtype` is that of both matrices.
    """

    spec: TensorSpec
    layout: str
    rank: int
    scale: float
    dtype: str

    @property
    def module(self) -> str:
        """The module that has the tensor."""
        return self.spec.name.rpartition(".")[0]

    def specs(self) -> tuple[TensorSpec, TensorSpec]:
        """The two tensors of the file that hold A and B, in this order, transposed if the layout says so."""
        rows, *rest = self.spec.shape
        shapes: tuple[tuple[int, ...], tuple[int, ...]]
        columns = self.spec.elements // rows
        key = PREFIX + self.module
        if self.layout == "embedding":
            names, shapes = (
                ("lora_embedding_B", "lora_embedding_A"),
                ((columns, self.rank), (self.rank, rows)),
            )
        elif self.layout == "transposed":
            names = ("lora_B.weight", "lora_A.weight")
            shapes = ((columns, self.rank), (self.rank, rows))
        else:
            names = ("lora_A.weight", "lora_B.weight")
            ones = (1,) * (len(rest) - 1)
            shapes = ((self.rank, *rest), (rows, self.rank, *ones))
        a, b = (
            TensorSpec(f"{key}.{name}", self.dtype, shape) for name, shape in zip(names, shapes, strict=True)
        )
        return a, b

    @property
    def transposes(self) -> bool:
        """Whether the file holds Aᵀ and Bᵀ."""
        return self.layout in ("embedding", "transposed")


def layout_of(spec: TensorSpec, config: Mapping[str, Any]) -> str | None:
    """The layout of a tensor of the base; None if no factor can hold its change. `config`: of the base."""
    module, _, parameter = spec.name.rpartition(".")
    if parameter != "weight" or not module or len(spec.shape) < 2 or not spec.elements:
        return None
    name = module.rpartition(".")[2]
    if config.get("model_type") in _MAMBA_MODELS and name in _MAMBA:
        return None
    if len(spec.shape) > 2:
        return "convolution" if len(spec.shape) <= 5 else None
    if _EMBEDDING.search(name) and not _NO_EMBEDDING.search(name):
        return "embedding"
    if config.get("model_type") in _CONV1D_MODELS and name in _CONV1D:
        return "transposed"
    return "linear"


def is_router(spec: TensorSpec) -> bool:
    """Whether a tensor chooses among experts. Its module need not be linear, so an adapter holds it whole."""
    module, _, _ = spec.name.rpartition(".")
    return module.rpartition(".")[2] in _ROUTERS and spec.shape[0] <= _MOST_EXPERTS


def is_position(spec: TensorSpec) -> bool:
    """Whether a tensor is an embedding of positions.

    Many models look these up in their own way, which PEFT does not adapt. So an adapter holds them whole.
    """
    return "position" in spec.name.rpartition(".")[0].rpartition(".")[2]


@dataclass(frozen=True)
class WholeEntries:
    """The tensors that an adapter holds whole: key in the file → tensor of the base.

    `modules`: the modules of `modules_to_save`. `bias`: which biases of other modules it has, as `bias` of
    the config says it. `left_out`: changed tensors that no adapter can hold, in byte order of names.
    """

    entries: dict[str, TensorSpec]
    modules: tuple[str, ...]
    bias: str
    left_out: tuple[str, ...]


def whole_entries(
    changed: Iterable[TensorSpec], factors: Sequence[FactorEntry], base: Sequence[TensorSpec]
) -> WholeEntries:
    """How an adapter holds these changed tensors of a base whole, beside the factors of others.

    PEFT needs every tensor of a module that it saves, and also saves modules whose name merely ends alike.
    So unchanged tensors are among the entries.
    """
    with_factor = {entry.module for entry in factors}
    own: dict[str, list[TensorSpec]] = {}
    for spec in base:
        own.setdefault(spec.name.rpartition(".")[0], []).append(spec)
    with_weight = {spec.name.rpartition(".")[0] for spec in base if spec.name.endswith(".weight")}
    inner = {parent for module in own for parent in _parents(module)}
    matrices = {module for module, specs in own.items() if any(len(spec.shape) > 1 for spec in specs)}
    entries: dict[str, TensorSpec] = {}
    saved: set[str] = set()
    biases: list[tuple[str, TensorSpec]] = []
    left_out: list[str] = []
    for spec in changed:
        module, _, parameter = spec.name.rpartition(".")
        if parameter == "bias" and (module in with_factor | matrices or module not in with_weight):
            biases.append((module, spec))
        elif not module or module in inner | with_factor or _RENAMED in module.split("."):
            left_out.append(spec.name)
        elif parameter == "weight" or all(len(one.shape) < 3 for one in own[module]):
            saved.add(module)
        else:
            left_out.append(spec.name)
    modules = _saved_names(saved, own, inner | with_factor)
    for module, specs in own.items():
        if modules and module.endswith(modules) and module not in with_factor:
            entries |= {PREFIX + spec.name: spec for spec in specs}
    alone = [
        spec for module, spec in biases if module not in with_factor and PREFIX + spec.name not in entries
    ]
    beside = [(module, spec) for module, spec in biases if module in with_factor]
    entries |= {PREFIX + spec.name: spec for spec in alone}
    entries |= {f"{PREFIX}{module}.base_layer.bias": spec for module, spec in beside}
    bias = "all" if alone else "lora_only" if beside else "none"
    return WholeEntries(entries, modules, bias, tuple(left_out))


def _saved_names(
    saved: Collection[str], own: Mapping[str, Sequence[TensorSpec]], others: Collection[str]
) -> tuple[str, ...]:
    """`modules_to_save`: the last part of the names, unless it would save too much, else the whole names.

    The last part is also right if transformers calls the modules around it differently than the file does.
    `others`: modules that cannot be saved.
    """
    found: set[str] = set()
    for module in saved:
        last = module.rpartition(".")[2]
        unchanged = [spec for other, specs in own.items() if other.endswith(last) for spec in specs]
        elements = sum(spec.elements for spec in unchanged if spec.name.rpartition(".")[0] not in saved)
        short = elements <= _MOST_UNCHANGED and not any(other.endswith(last) for other in others)
        found.add(last if short else module)
    return tuple(sorted(found))


def config_of(
    factors: Sequence[FactorEntry],
    whole: WholeEntries,
    base: Sequence[TensorSpec],
    base_name: str,
    base_config: Mapping[str, Any],
) -> bytes:
    """The bytes of `adapter_config.json`. PEFT refuses an adapter without a factor, so there must be one."""
    settings = {entry.module: (entry.rank, _lora_alpha(entry.scale, entry.rank)) for entry in factors}
    (rank, alpha), _ = max(Counter(settings.values()).items(), key=lambda item: (item[1], item[0]))
    patterns = _patterns(settings, (rank, alpha))
    value = {
        "alpha_pattern": {pattern: own[1] for pattern, own in patterns.items()},
        "base_model_name_or_path": base_name,
        "bias": whole.bias,
        "fan_in_fan_out": any(entry.layout == "transposed" for entry in factors),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": list(whole.modules) or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {pattern: own[0] for pattern, own in patterns.items()},
        "target_modules": _targets(settings.keys(), base),
        "task_type": "CAUSAL_LM" if _is_causal(base_config) else None,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


_Setting = tuple[int, int | float]
"""A rank and a `lora_alpha`."""


def _patterns(settings: Mapping[str, _Setting], usual: _Setting) -> dict[str, _Setting]:
    """The settings that differ from the usual one, by the last part of a name if all of that name agree.

    PEFT takes the first pattern that a path ends with. So if they do not agree, all of that name stand there,
    the longest first.
    """
    groups: dict[str, set[_Setting]] = {}
    for module, own in settings.items():
        groups.setdefault(module.rpartition(".")[2], set()).add(own)
    found: dict[str, _Setting] = {}
    for module, own in settings.items():
        last = module.rpartition(".")[2]
        if len(groups[last]) > 1:
            found[module] = own
        elif own != usual:
            found[last] = own
    return dict(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))


def _targets(modules: Collection[str], base: Sequence[TensorSpec]) -> list[str] | str:
    """`target_modules`: the last part of a name if all modules of that name have a factor, else the name.

    PEFT also takes modules whose path ends with an entry. If that would be too many, it is a regular
    expression.
    """
    everywhere: dict[str, set[str]] = {}
    for spec in base:
        module = spec.name.rpartition(".")[0]
        for place in (module, *_parents(module)):
            everywhere.setdefault(place.rpartition(".")[2], set()).add(place)
    found: set[str] = set()
    for module in modules:
        last = module.rpartition(".")[2]
        found.add(last if everywhere[last] <= set(modules) else module)
    ends = tuple(f".{target}" for target in found)
    places = {place for some in everywhere.values() for place in some}
    if any(place in found or place.endswith(ends) for place in places - set(modules)):
        return "|".join(re.escape(module) for module in sorted(modules))
    return sorted(found)


def _lora_alpha(scale: float, rank: int) -> int | float:
    """The `lora_alpha` that PEFT divides by the rank to get a binary32 scale; a whole number if one does."""
    whole = round(scale * rank)
    if struct.unpack("<f", struct.pack("<f", whole / rank))[0] == scale:
        return whole
    return scale * rank  # exact: 24 bits times at most 20


def _parents(module: str) -> list[str]:
    """The modules around a module, without the model itself."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _is_causal(config: Mapping[str, Any]) -> bool:
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(
        isinstance(name, str) and name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures
    )
