"""The meaning of an adapter_config.json: whether the adapter is linear in the weights, and its scales.

An adapter is linear if its change of a tensor does not depend on the base's numbers. The refusals name the
option of PEFT, and say what to do (docs/adapters.md).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.objects.recipe import from_binary32
from persona.weights.index import ADAPTER_CONFIG

RANK_MAJOR: Final = "rank_major"
GROUPED: Final = "grouped_by_expert"
_LAYOUT: Final = "lora_B_layout"
MERGE_FIRST: Final = (
    "merge it with PEFT (PeftModel.from_pretrained(…).merge_and_unload(), then save_pretrained) and give that"
    " directory, which becomes a delta"
)
UNTIED: Final = (
    "for m in model.modules(): isinstance(m, (torch.nn.Embedding, torch.nn.Linear)) and"
    ' setattr(m, "weight", torch.nn.Parameter(m.weight.detach().clone()));'
    " model.config.tie_word_embeddings = False"
)
"""How the layers of a model get matrices of their own. It computes what it did."""
OWN_MATRICES: Final = (
    f"give each layer of the model a matrix of its own ({UNTIED}), and save it with save_pretrained; merge an"
    " adapter into a model like that"
)
UNTIE_FIRST: Final = (
    f"merge it with PEFT into a model whose layers share no matrix ({UNTIED}), then save_pretrained, and give"
    " that directory, which becomes a delta; a merge changes all layers that share a matrix"
)
_CONVERT: Final = (
    "save the adapter with save_pretrained(…, path_initial_model_for_weight_conversion=…), which makes it a"
    " plain LoRA"
)
_PROMPTS: Final = frozenset(
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE".split()
)
"""Methods of PEFT that change the input or the activations, and no weight."""

_NOT_LINEAR: Final = {
    "use_dora": "DoRA, which rescales the merged weights",
    "kasa_config": "KaSA, which truncates the base's weights",
    "monteclora_config": "MonteCLoRA, which samples its factors",
    "use_bdlora": "BD-LoRA, whose factors are block-diagonal",
}
"""Options that PEFT can merge, and that persona cannot express as factors."""
_NO_WEIGHTS: Final = {
    "alora_invocation_tokens": "aLoRA, which acts only on the tokens after its invocation",
    "arrow_config": "Arrow, which routes between adapters",
    "use_qalora": "QALoRA, which belongs to a quantized base",
    "layer_replication": "layer replication: its model has other layers than the base",
    "megatron_config": "Megatron layers, whose names and shapes are not those of a checkpoint",
}
_BASE_CHANGED: Final = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
}
"""`init_lora_weights` (its beginning) → method. These train beside a base that they changed first."""


@dataclass(frozen=True)
class AdapterConfig:
    """The checked values of an adapter_config.json that decide what its tensors mean.

    `where` names the file. `experts_layout`: how B of stacked experts is packed, None if that is not known.
    `tokens`: the trained rows of each embedding by the end of its module's path; the key "" means any.
    `copied`: the ends of the paths of modules that PEFT trains as copies, which are tied to nothing.
    """

    where: str
    rank: float
    alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    fan_in_fan_out: bool
    parameters: tuple[str, ...]
    experts_layout: str | None
    tokens: Mapping[str, Sequence[int]]
    ignored: tuple[str, ...]
    trained_on: str | None
    copied: tuple[str, ...] = ()
    as_one: bool = False
    """Whether layers that share a matrix were trained as one layer (`ensure_weight_tying`)."""

    def rank_of(self, module: str) -> float:
        """The rank that PEFT gives the factor of a module of the adapter."""
        return _lookup(self.rank_pattern, module, self.rank)

    def copies(self, name: str) -> bool:
        """Whether PEFT trained a tensor of the adapter as a copy."""
        return name.rpartition(".")[0].endswith(self.copied) if self.copied else False

    def scale_of(self, module: str, rank: int) -> str:
        """The scale s of a module of the adapter: the shortest decimal of the binary32."""
        alpha = _lookup(self.alpha_pattern, module, self.alpha)
        scale = alpha / (math.sqrt(rank) if self.rslora else rank)
        try:
            return from_binary32(struct.unpack("<f", struct.pack("<f", scale))[0])
        except OverflowError:
            raise InvalidInput(f"{self.where}: the scale {scale!r} of {module} is beyond binary32") from None


def read_config(config: Mapping[str, Any], path: Path) -> AdapterConfig:
    """The meaning of the config of the adapter in the directory `path`.

    Raises `InvalidInput` for an adapter that is not linear, and for values of a wrong type.
    """
    where = str(path / ADAPTER_CONFIG)
    kind = config.get("peft_type")
    if kind == "TRAINABLE_TOKENS":
        return _trainable_tokens(config, where)
    if kind != "LORA":
        _refuse_kind(kind, where)
    _refuse_variants(config, where)
    rslora, transposed = (_flag(config, key, where) for key in ("use_rslora", "fan_in_fan_out"))
    parameters = config.get("target_parameters") or []
    if not isinstance(parameters, list) or not all(isinstance(item, str) for item in parameters):
        raise InvalidInput(f"{where}: target_parameters must be a list of names")
    return AdapterConfig(
        where=where,
        rank=_number(config.get("r", 8), "r", where),
        alpha=_number(config.get("lora_alpha", 8), "lora_alpha", where),
        rank_pattern=_pattern(config, "rank_pattern", where),
        alpha_pattern=_pattern(config, "alpha_pattern", where),
        rslora=rslora,
        fan_in_fan_out=transposed,
        parameters=tuple(parameters),
        experts_layout=_experts_layout(config, where),
        tokens=_tokens(config.get("trainable_token_indices"), where),
        ignored=(".lora_velora_embed",) if config.get("velora_config") else (),
        trained_on=_text(config.get("base_model_name_or_path")),
        copied=_copied(config, where),
        as_one=config.get("ensure_weight_tying") is True,
    )


def _copied(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = config.get("modules_to_save") or []
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidInput(f"{where}: modules_to_save must be a list of names")
    return tuple(found)


def _refuse_kind(kind: object, where: str) -> None:
    if not isinstance(kind, str):
        raise InvalidInput(f"{where}: it names no peft_type; save the adapter with PEFT's save_pretrained")
    if kind.upper() in _PROMPTS:
        raise InvalidInput(f"{where}: {kind} changes prompts or activations and no weights")
    raise InvalidInput(f"{where}: {kind} is not LoRA, so it has no factors", hint=MERGE_FIRST)


def _refuse_variants(config: Mapping[str, Any], where: str) -> None:
    for key, what in _NO_WEIGHTS.items():
        if config.get(key) not in (None, False, {}):
            raise InvalidInput(f"{where}: {key}: this is {what}; PEFT cannot merge it either")
    for key, what in _NOT_LINEAR.items():
        if config.get(key) not in (None, False, {}):
            raise InvalidInput(f"{where}: {key}: this is {what}", hint=MERGE_FIRST)
    start = config.get("init_lora_weights", True)
    if isinstance(start, str):
        for prefix, name in _BASE_CHANGED.items():
            if start.lower().startswith(prefix):
                said = f"{where}: init_lora_weights: {name} changes the base's weights before it trains"
                if prefix == "loftq":
                    raise InvalidInput(
                        said, hint="merge it with PEFT into the quantized base of its training"
                    )
                if prefix in ("pissa", "olora"):
                    raise InvalidInput(said, hint=f"{_CONVERT}; or {MERGE_FIRST}")
                raise InvalidInput(said, hint=_CONVERT)


def _experts_layout(config: Mapping[str, Any], where: str) -> str | None:
    """How B of stacked experts is packed: PEFT's way, or the way of trainers that write another marker.

    Unsloth packed B expert by expert until September 2026 and wrote no marker, so an adapter of Unsloth
    without a marker may have either layout.
    """
    said = config.get(_LAYOUT)
    if said is not None:
        if said not in (RANK_MAJOR, GROUPED):
            raise InvalidInput(f"{where}: {_LAYOUT}: {said!r:.60} is neither {RANK_MAJOR} nor {GROUPED}")
        return str(said)
    mapping = config.get("auto_mapping")
    by_unsloth = isinstance(mapping, dict) and mapping.get("unsloth_fixed") is not None
    trained_on = _text(config.get("base_model_name_or_path")) or ""
    return None if by_unsloth or trained_on.lower().startswith("unsloth/") else RANK_MAJOR


def _trainable_tokens(config: Mapping[str, Any], where: str) -> AdapterConfig:
    return AdapterConfig(
        where=where,
        rank=0,
        alpha=0,
        rank_pattern={},
        alpha_pattern={},
        rslora=False,
        fan_in_fan_out=False,
        parameters=(),
        experts_layout=None,
        tokens=_tokens(config.get("token_indices") or [], where),
        ignored=(),
        trained_on=_text(config.get("base_model_name_or_path")),
    )


def _tokens(value: object, where: str) -> dict[str, list[int]]:
    if value is None:
        return {}
    found: dict[str, Any] = value if isinstance(value, dict) else {"": value}
    for indices in found.values():
        if not isinstance(indices, list) or not all(type(index) is int for index in indices):
            raise InvalidInput(f"{where}: trainable_token_indices must be lists of token numbers")
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(config: Mapping[str, Any], key: str, where: str) -> bool:
    value = config.get(key, False)
    if type(value) is not bool:
        raise InvalidInput(f"{where}: {key} must be true or false, not {value!r:.60}")
    return value


def _number(value: object, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e38:
        raise InvalidInput(f"{where}: {key} must be a number, not {value!r:.60}")
    return value


def _pattern(config: Mapping[str, Any], key: str, where: str) -> dict[str, float]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: {key} must be a mapping of names to numbers")
    for pattern, number in value.items():
        _number(number, f"{key}: {pattern!r:.60}", where)
        _check_pattern(pattern, f"{where}: {key}")
    return value


_MAX_PATTERN: Final = 1000
_REPEATS: Final = re.compile(r"(?<!\\)[*+{]")


def _check_pattern(pattern: str, where: str) -> None:
    """Refuses a regular expression that is none, or that may take for ever: the adapter is not trusted."""
    try:
        if (
            len(pattern) > _MAX_PATTERN
            or re.search(r"\)[*+{]", pattern)
            or len(_REPEATS.findall(pattern)) > 4
        ):
            raise ValueError("repeated groups and more than four repetitions may take for ever")
        re.compile(pattern)
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        raise InvalidInput(
            f"{where}: the pattern {pattern!r:.80} cannot be used ({error}); write the names of the modules"
        ) from None


def _lookup(patterns: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that matches the end of a module's path, as PEFT looks it up."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return patterns.get(module, default)
