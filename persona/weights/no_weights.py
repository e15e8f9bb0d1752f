"""The reason why a directory holds no checkpoint, and what to do.

Only a directory without `model.safetensors` and without its index comes here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput, SystemFault, listed
from persona.weights import foreign
from persona.weights.folder import recognise
from persona.weights.index import INDEX_NAME, SINGLE_NAME
from persona.weights.inputs import InputFile, list_directory
from persona.weights.safetensors import read_header

_DEEPSPEED: Final = "zero_to_fp32.py"
"""The program that DeepSpeed leaves beside the parts of a checkpoint."""
_MAX_LISTED: Final = 5
_UNFINISHED: Final = re.compile(
    r"(.+\.safetensors)\S*\.(incomplete|part|partial|aria2|crdownload|download|tmp)"
)
_DOWNLOADS: Final = Path(".cache") / "huggingface" / "download"
"""Where `hf download --local-dir` keeps the files that it has not finished."""


def why_not(directory: Path, names: list[str]) -> InvalidInput:
    """The reason why a directory with these entries is no checkpoint."""
    safetensors = [name for name in names if name.lower().endswith(".safetensors")]
    if len(safetensors) > 1:
        shown = f"{directory} has {listed(safetensors, _MAX_LISTED)}, but no"
        if _is_each_a_model([directory / name for name in safetensors[:_MAX_LISTED]]):
            return InvalidInput(
                f"{shown} {SINGLE_NAME}; they hold tensors of the same names, so give one of them"
            )
        return InvalidInput(
            f"{shown} {INDEX_NAME}; a sharded checkpoint needs its index, so download or save the index too"
        )
    if safetensors:
        return InvalidInput(
            f"{directory}: no {SINGLE_NAME}; give {directory / safetensors[0]} itself or rename it to"
            f" {SINGLE_NAME}"
        )
    if unfinished := unfinished_downloads(directory, names):
        return InvalidInput(
            f"{directory}: no weights here, and a download that is not finished"
            f" ({listed(unfinished, _MAX_LISTED)})",
            hint="finish the download, or download the model again",
        )
    if said := _in_parts(directory, names):
        return said
    for name in names:
        known = recognise(directory / name)
        if known is not None and (known.holds_weights or foreign.is_weight_name(name)):
            return InvalidInput(f"{directory / name}: this is {known.what}; {known.remedy}")
    unknown = [name for name in names if foreign.is_weight_name(name)]
    if unknown:
        return InvalidInput(
            f"{directory / unknown[0]}: not safetensors, and persona reads nothing else; write the model with"
            " save_pretrained and give that directory"
        )
    if inside := [name for name in names if _holds_weights(directory / name)]:
        return InvalidInput(
            f"{directory}: no weights here, but in its subdirectories: {listed(inside)}",
            hint=f"give one of them, such as {directory / inside[-1]}",
        )
    return InvalidInput(
        f"{directory}: no weights here ({SINGLE_NAME}, or {INDEX_NAME} with its shards); give a model"
        " directory"
    )


def _in_parts(directory: Path, names: list[str]) -> InvalidInput | None:
    """The reason for a directory that holds what each rank of a training saved, if it does."""
    places = [directory, *(directory / name for name in names)]
    for place in places:
        if any(name.endswith(".distcp") for name in (names if place is directory else _entries(place))):
            return InvalidInput(
                f"{place}: the parts of a checkpoint of torch.distributed (DCP, FSDP), no whole weights",
                hint=f"`accelerate merge-weights {place} OUT` joins them; give OUT",
            )
    if _DEEPSPEED in names and not any(name.startswith("pytorch_model") for name in names):
        line = f"python {directory / _DEEPSPEED} {directory} OUT --safe_serialization"
        return InvalidInput(
            f"{directory}: the parts of a checkpoint of DeepSpeed, no whole weights",
            hint=f"`{line}` joins them; give OUT",
        )
    return None


def unfinished_downloads(directory: Path, names: Iterable[str]) -> list[str]:
    """The files in a directory that hold the beginning of weights, and of those that `hf download` loads."""
    found = [name for name in names if _UNFINISHED.fullmatch(name)]
    kept = [name for name in _entries(directory / _DOWNLOADS) if name.endswith(".incomplete")]
    return found + [str(_DOWNLOADS / name) for name in kept]


def _is_each_a_model(files: list[Path]) -> bool:
    """Whether files of weights hold tensors of the same names, and not each a part of a model."""
    seen: set[str] = set()
    for path in files:
        with InputFile(path) as file:
            names = read_header(file).tensors.keys()
        if seen & names:
            return True
        seen |= names
    return False


def _holds_weights(directory: Path) -> bool:
    return any(name == INDEX_NAME or name.endswith(".safetensors") for name in _entries(directory))


def _entries(directory: Path) -> list[str]:
    if not os.path.isdir(directory):
        return []
    try:
        return list_directory(directory)
    except (InvalidInput, SystemFault):
        return []
