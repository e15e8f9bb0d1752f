"""**model directory** — a directory of weights and of the files that they load with.

This module lists the files beside the weights. Text files come along, those of subdirectories too, under
their relative paths (`1_Pooling/config.json`). All others stay behind, with a reason each. A subdirectory
stays behind whole if it is of a training, if it is a repository or a Python environment, or if it holds too
many files.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from persona import limits
from persona.errors import InvalidInput, Note, SystemFault, listed
from persona.objects.names import file_path_problem
from persona.weights import foreign
from persona.weights.index import ADAPTER_FILES
from persona.weights.inputs import InputFile, list_directory, read_input, stays_inside
from persona.weights.shards import is_published_name

OUTPUT_NAME: Final = "persona.json"
OUTPUT_FORMAT: Final = "persona output"
"""The file that `checkout -o` writes about an output, and the word that marks it as persona's."""

OTHER_WEIGHTS: Final = "other weights"
INNER_WEIGHTS: Final = "weights of a subdirectory"
ADAPTER_FILE: Final = "of an adapter"
OF_TRAINING: Final = "of a training"
LEADS_OUT: Final = "a link that leads out of the directory"
"""The common reasons why a file stays behind."""

_TRAINING_FILES: Final = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|lr_scheduler|pytorch_model_fsdp)"
    r"[\w.-]*\.(bin|pt|pth|pkl|safetensors|npz)|\S+_optim_states\.pt"
    r"|trainer_state\.json|events\.out\.tfevents\S*|zero_to_fp32\.py|latest"
)
_TRAINING_FOLDERS: Final = re.compile(r"checkpoint-\d+|global_step\d+|runs|wandb|mlruns")
_NOT_OF_A_MODEL: Final = {
    ".persona": "a repository",
    ".git": "a repository",
    "pyvenv.cfg": "a Python environment",
}
_UNSEEN: Final = frozenset({"__pycache__"})
_MOST_LISTED: Final = 6


class Beside(NamedTuple):
    """The files beside the weights, by their relative paths.

    `texts`: the text files, as real paths. `ignored`: the reason for each other file; a directory that stays
    behind whole has a slash at its end.
    """

    texts: dict[str, Path]
    ignored: dict[str, str]


def look(directory: Path, names: Collection[str], weights: Collection[str]) -> Beside:
    """Sorts the files of a directory.

    `names`: its entries. `weights`: those that a checkpoint reads. Hidden files are no part of a model
    (.git*, .env), and are not listed.
    """
    found = Beside({}, {})
    for name in names:
        if name in weights or name in _UNSEEN or name.startswith("."):
            continue
        path = directory / name
        try:
            status = os.stat(path)
        except OSError as error:
            found.ignored[name] = f"cannot be looked at: {error.strerror}"
            continue
        if stat.S_ISDIR(status.st_mode):
            _take_folder(directory, name, found)
        elif not (name == OUTPUT_NAME and _is_output_record(path)):
            _take(directory, name, status, found)
    return found


def _take_folder(directory: Path, folder: str, found: Beside) -> None:
    """Sorts the files below one directory at the top."""
    inside = Beside({}, {})
    count = 0
    for path, why in _below(directory, folder):
        count += 1
        if count > limits.MAX_FOLDER_FILES:
            found.ignored[f"{folder}/"] = f"more than {limits.MAX_FOLDER_FILES} files"
            return
        if why is not None:
            inside.ignored[path] = why
            continue
        try:
            status = os.stat(directory / path)
        except OSError as error:
            inside.ignored[path] = f"cannot be looked at: {error.strerror}"
            continue
        _take(directory, path, status, inside)
    found.texts.update(sorted(inside.texts.items()))
    found.ignored.update(sorted(inside.ignored.items()))


def _below(directory: Path, folder: str) -> Iterator[tuple[str, str | None]]:
    """The files below a folder, and the folders that stay behind whole with their reasons."""
    pending = [folder]
    while pending:
        here = pending.pop()
        if why := _why_not_a_folder(directory / here):
            yield f"{here}/", why
            continue
        try:
            names = list_directory(directory / here)
        except (InvalidInput, SystemFault) as error:
            yield f"{here}/", error.message
            continue
        for strange, what in _NOT_OF_A_MODEL.items():
            if strange in names:
                yield f"{here}/", what
                break
        else:
            for name in names:
                if name in _UNSEEN or name.startswith("."):
                    continue
                if os.path.isdir(directory / here / name):
                    pending.append(f"{here}/{name}")
                else:
                    yield f"{here}/{name}", None


def _why_not_a_folder(path: Path) -> str | None:
    if path.is_symlink():
        return "a link to a directory, which is not followed"
    return OF_TRAINING if _TRAINING_FOLDERS.fullmatch(path.name) else None


def _take(directory: Path, path: str, status: os.stat_result, found: Beside) -> None:
    if reason := _why_ignored(directory, path, status):
        found.ignored[path] = reason
    else:
        found.texts[path] = Path(os.path.realpath(directory / path))


def _why_ignored(directory: Path, path: str, status: os.stat_result) -> str | None:
    name, place = path.rpartition("/")[2], directory / path
    if is_published_name(path):
        return "a shard of an interrupted checkout"
    if _TRAINING_FILES.fullmatch(name):
        return OF_TRAINING
    if path in ADAPTER_FILES:
        return ADAPTER_FILE
    if foreign.is_weight_name(name):
        return INNER_WEIGHTS if "/" in path else OTHER_WEIGHTS
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if not stays_inside(directory, place):
        return LEADS_OUT
    if status.st_size > limits.MAX_TEXT_FILE_BYTES:
        return f"over {limits.MAX_TEXT_FILE_BYTES >> 20} MiB"
    if problem := file_path_problem(path):
        return problem
    known = recognise(place)
    return known.what if known is not None and known.holds_weights else None


def holds_weights(folder: Path) -> bool:
    """Whether a directory has weights of a model or an adapter, and not only the state of a training."""
    try:
        names = list_directory(folder)
    except (InvalidInput, SystemFault):
        return False
    return any(foreign.is_weight_name(name) and not _TRAINING_FILES.fullmatch(name) for name in names)


def recognise(path: Path) -> foreign.Foreign | None:
    """The known foreign format of a file, from its beginning; None if it has none or cannot be read."""
    try:
        with InputFile(path) as file:
            return foreign.recognise(file.read(0, foreign.HEAD_BYTES))
    except (InvalidInput, SystemFault):
        return None


def _is_output_record(path: Path) -> bool:
    try:
        value = json.loads(read_input(path, limit=limits.MAX_INDEX_BYTES))
    except (InvalidInput, SystemFault, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("format") == OUTPUT_FORMAT


def left_out(ignored: Mapping[str, str]) -> list[Note]:
    """A sentence for each reason why files stay behind."""
    by_reason: dict[str, list[str]] = {}
    for path, why in ignored.items():
        by_reason.setdefault(why, []).append(path)
    hints = {INNER_WEIGHTS: "if the model needs them, copy them into the directory that checkout writes"}
    return [
        Note(f"left out: {listed(paths, _MOST_LISTED)} ({why})", hints.get(why))
        for why, paths in by_reason.items()
    ]
