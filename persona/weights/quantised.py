"""**quantised checkpoint** — one whose weights are packed into small integers or FP8, with scales beside.

It is recognised by the names and dtypes of its tensors, so the config may say anything. The config only gives
the method its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec

_CONFIGS: Final = ("quantization_config", "compression_config", "quantization")
_METHODS: Final = {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fbgemm_fp8": "FP8",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "hqq": "HQQ",
    "modelopt": "ModelOpt",
    "mxfp4": "MXFP4",
}
_SIGNS: Final = (
    (r"\.quant_state\.bitsandbytes__\w+|\.SCB|\.absmax|\.quant_map", "bitsandbytes"),
    (r"\.g_idx", "GPTQ"),
    (r"\.qzeros|\.qweight", "AWQ or GPTQ"),
    (r"\.W_q", "HQQ"),
    (r"\.weight_packed", "compressed-tensors"),
    (r"_blocks", "MXFP4"),
    (r"\.weight\._data|\.weight_qdata|_weight_qdata", "quanto or torchao"),
    (r"\.(weight|input|activation)_scale(_inv|_2)?|\.scale_weight", "FP8 or INT8 with scales"),
    (r"\.scales", "MLX"),
)
"""How the names of tensors end that only a quantised checkpoint has, with the method that writes them."""
_PARTS: Final = (
    *(pattern for pattern, _ in _SIGNS),
    r"\.(?:[qkv]|output)_scale|\.(?:\w+_)?zero_point|\.weight_shape",
)
_PART: Final = f".*(?:{'|'.join(_PARTS)})"


class Quantised(NamedTuple):
    """How weights are quantised.

    `packed`: whether the tensors show it; otherwise only the config says so.
    """

    method: str
    packed: bool


def is_part(name: str) -> bool:
    """Whether only a quantised layer has a tensor of this name, beside its weight."""
    return re.fullmatch(_PART, name, re.DOTALL) is not None


def recognise(tensors: Iterable[TensorSpec], config: Mapping[str, Any] | None) -> Quantised | None:
    """How the tensors are quantised, or the config says they are; None if neither."""
    specs = list(tensors)
    named = _named(config)
    # Scales beside plain floats are a layer of the model. Packed weights have a small dtype.
    small = [
        spec for spec in specs if not spec.merged and DTYPES[spec.dtype].bits <= 32 and spec.elements > 1
    ]
    if small:
        for pattern, method in _SIGNS:
            sign = re.compile(f".*(?:{pattern})", re.DOTALL)
            if any(sign.fullmatch(spec.name) for spec in specs):
                return Quantised(named or method, packed=True)
        if any(spec.dtype.startswith(("F4", "F6", "F8")) for spec in small):
            return Quantised(named or "FP8 or narrower", packed=True)
        if named and any(spec.name.endswith("weight") for spec in small):
            return Quantised(named, packed=True)
    return Quantised(named, packed=False) if named else None


def _named(config: Mapping[str, Any] | None) -> str | None:
    """The method that a config names."""
    for part in (config, (config or {}).get("text_config")):
        for key in _CONFIGS:
            found = part.get(key) if isinstance(part, Mapping) else None
            if isinstance(found, Mapping) and found:
                method = found.get("quant_method") or found.get("quant_algo") or found.get("format")
                if found.get("load_in_4bit") or found.get("load_in_8bit"):
                    method = "bitsandbytes"
                return (
                    _METHODS.get(str(method).lower(), str(method)[:40])
                    if method
                    else "its config names no method"
                )
    return None
