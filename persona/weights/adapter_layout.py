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

_EMBEDDING: Final = re.compile(r"emb|^w[tp]e$|^shared$")
_NO_EMBEDDING: Final = re.compile(r"out|proj|head|norm|ln|dense|fc")
_CONV1D_MODELS: Final = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
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
    if len(spec.shape) > 2:
        return "convolution" if len(spec.shape) <= 5 else None
    if _EMBEDDING.search(name) and not _NO_EMBEDDING.search(name):
        return "embedding"
    if config.get("model_type") in _CONV1D_MODELS and name in _CONV1D:
        return "transposed"
    return "linear"


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
    inner = {parent for module in own for parent in _parents(module)}
    matrices = {module for module, specs in own.items() if any(len(spec.shape) > 1 for spec in specs)}
    entries: dict[str, TensorSpec] = {}
    modules: set[str] = set()
    left_out: list[str] = []
    bias = "none"
    for spec in changed:
        module, _, parameter = spec.name.rpartition(".")
        if parameter == "bias" and module in with_factor:
            entries[f"{PREFIX}{module}.base_layer.bias"] = spec
            bias = bias if bias == "all" else "lora_only"
        elif parameter == "bias" and module in matrices:
            entries[PREFIX + spec.name] = spec
            bias = "all"
        elif module and module not in inner | with_factor and (parameter == "weight" or len(spec.shape) < 3):
            modules.add(module)
        else:
            left_out.append(spec.name)
    for module, specs in own.items():
        if module.endswith(tuple(modules)) and module not in with_factor and modules:
            entries |= {PREFIX + spec.name: spec for spec in specs}
    return WholeEntries(entries, tuple(sorted(modules)), bias, tuple(left_out))


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
    # The first pattern that a module's name ends with counts: so the longer of two alike comes first.
    other = {module for module, own in settings.items() if own != (rank, alpha)}
    listed = sorted(
        (
            module
            for module in settings
            if module in other or any(module.endswith(f".{one}") for one in other)
        ),
        key=lambda module: (-len(module), module),
    )
    value = {
        "alpha_pattern": {module: settings[module][1] for module in listed},
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
        "rank_pattern": {module: settings[module][0] for module in listed},
        "target_modules": _targets(settings.keys(), base),
        "task_type": "CAUSAL_LM" if _is_causal(base_config) else None,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


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
