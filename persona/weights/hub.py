"""**hub id** — ORG/NAME, as the Hugging Face hub names a model.

ORG/NAME@REVISION is a branch, a tag, a commit or a pull request (refs/pr/1) of it. The model's address, as a
browser shows it, is an id too.

huggingface_hub says where its cache is, and writes there. A model that the cache holds is taken from there
without a look at the network. Any other model is downloaded.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from persona.errors import InvalidInput, PersonaError, listed
from persona.progress import DOWNLOADING, Progress
from persona.weights.foreign import WEIGHT_SUFFIXES
from persona.weights.index import ADAPTER_CONFIG, ADAPTER_WEIGHTS, INDEX_NAME, SINGLE_NAME, read_index
from persona.weights.inputs import list_directory

_ID: Final = (
    r"(?P<site>https?:/+(?:huggingface\.co|hf\.co)/)?(?P<id>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<revision>[^/@]+(?:/[^/@]+)*)|/tree/(?P<branch>[^/]+))?/?"
)
_OF_FILES: Final = (
    ".json",
    ".jsonl",
    ".md",
    ".txt",
    ".toml",
    ".yml",
    ".yaml",
    ".jinja",
    ".py",
    *WEIGHT_SUFFIXES,
)
"""Endings of names that no model on the hub has."""
_CACHED: Final = r"models--(?P<owner>.+?)(?:--(?P<name>.+))?"
_WEIGHTS: Final = (SINGLE_NAME, INDEX_NAME, ADAPTER_WEIGHTS)
_LEFT_THERE: Final = [
    *(f"*{ending}" for ending in sorted(WEIGHT_SUFFIXES - {".safetensors"})),
    "consolidated*.safetensors",
]
"""The files of a model on the hub that persona does not read."""


class HubId(NamedTuple):
    """A model on the hub; `revision` is None for its main branch."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def id_of(path: Path) -> HubId | None:
    """The hub id that `path` stands for; None if it is a path.

    ORG/NAME is a path if the directory ORG is there.
    """
    if path.name.endswith(_OF_FILES) or os.path.lexists(path):
        return None
    found = re.fullmatch(_ID, os.fspath(path))
    if found is None:
        return None
    if found["site"] is None and os.path.lexists(Path(found["id"]).parent):
        return None
    branch = found["branch"]  # as an address has it: refs%2Fpr%2F1
    return HubId(found["id"], found["revision"] or (branch and unquote(branch)))


def located(path: Path, progress: Progress | None = None) -> Path:
    """The directory or the file of the model that `path` stands for.

    It may be a hub id, or a directory of the hub's cache (models--ORG--NAME). Any other path stands for
    itself, whether something is there or not. Raises `InvalidInput` for a model that is not here and that the
    hub does not give.
    """
    id = id_of(path)
    if id is not None:
        return cached(id) or _downloaded(id, progress)
    if (path / "snapshots").is_dir() and re.fullmatch(_CACHED, path.name):
        return _snapshot(path)
    return path


def cached_name(path: Path) -> str | None:
    """The name of the model in a directory of the hub's cache, or in a snapshot in it; else None.

    The directory is models--ORG--NAME, and the snapshot models--ORG--NAME/snapshots/REVISION.
    """
    found = _cached_as(path)
    return None if found is None else found["name"] or found["owner"]


def shown(path: Path) -> str:
    """A path in a message: ORG/NAME for a model in the hub's cache, as the hub's id is short and telling."""
    found = _cached_as(path)
    return str(path) if found is None or found["name"] is None else f"{found['owner']}/{found['name']}"


def _cached_as(path: Path) -> re.Match[str] | None:
    name = repository_of(path).name
    return re.fullmatch(_CACHED, name) if name.startswith("models--") else None


def repository_of(path: Path) -> Path:
    """The directory of the hub's cache that a snapshot lies in; any other path itself."""
    if path.parent.name == "snapshots" and re.fullmatch(_CACHED, path.parent.parent.name):
        return path.parent.parent
    return path


def _snapshot(repository: Path) -> Path:
    """The snapshot of a model in the cache: the main branch's, or the only one."""
    try:
        place = repository / "snapshots" / (repository / "refs" / "main").read_text("utf-8").strip()
        if place.is_dir():
            return place
    except (OSError, ValueError):
        pass
    names = [name for name in list_directory(repository / "snapshots") if not name.startswith(".")]
    if len(names) == 1:
        return repository / "snapshots" / names[0]
    said = f"it has the snapshots {listed(names)}, and no main branch" if names else "it has no snapshot"
    raise InvalidInput(f"{repository}: {said}; give the directory of one snapshot")


def cached(id: HubId) -> Path | None:
    """The snapshot of a model in the cache, if its weights and its config are there."""
    from huggingface_hub import try_to_load_from_cache

    for name in _WEIGHTS:
        config = ADAPTER_CONFIG if name == ADAPTER_WEIGHTS else "config.json"
        weights = try_to_load_from_cache(id.name, name, revision=id.revision)
        if isinstance(weights, str):
            place = Path(weights).parent
            if (place / config).exists() and _is_whole(Path(weights)):
                return place
    return None


def _only_snapshot(id: HubId) -> Path | None:
    """The only snapshot of a model in the cache, whatever its revision, if its weights are there."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"models--{id.name.replace('/', '--')}"
    if id.revision is not None or not (repository / "snapshots").is_dir():
        return None
    try:
        place = _snapshot(repository)
    except InvalidInput:
        return None
    return place if any(_is_whole(place / name) for name in _WEIGHTS) else None


def _is_whole(weights: Path) -> bool:
    """Whether a file of weights is there, and the shards of one that is an index."""
    if weights.name != INDEX_NAME or not weights.exists():
        return weights.exists()
    try:
        return all((weights.parent / name).exists() for name in read_index(weights).shard_names())
    except PersonaError:
        return False


def _downloaded(id: HubId, progress: Progress | None) -> Path:
    """The snapshot of a model, downloaded into the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    here = f"{id}: no such file or directory"
    try:
        with _no_bars():
            place = Path(
                snapshot_download(
                    id.name,
                    revision=id.revision,
                    ignore_patterns=_LEFT_THERE,
                    tqdm_class=_reporting(progress),
                )
            )
    except (PersonaError, MemoryError):
        raise
    except GatedRepoError as error:
        raise InvalidInput(
            f"{here}; the model of this name on the Hugging Face hub is gated",
            hint=f"accept its terms at https://huggingface.co/{id.name}, and log in with `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise InvalidInput(
            f"{here}; the model of this name on the Hugging Face hub has no revision {id.revision}"
        ) from error
    except RepositoryNotFoundError as error:
        raise InvalidInput(
            f"{here}, and no model of this name on the Hugging Face hub",
            hint="check the path; for a private model, log in with `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if (only := _only_snapshot(id)) is not None:
            return only
        raise InvalidInput(
            f"{here}, and no whole model of this name in the cache of the Hugging Face hub, which cannot be"
            " reached",
            hint=f"check the path; where there is a network, `{command(id)}` fetches the model of the hub",
        ) from error
    except Exception as error:  # of whatever library huggingface_hub reaches the network with
        reason = str(error).strip().split("\n")[0]
        raise InvalidInput(
            f"{id}: cannot be downloaded from the Hugging Face hub: {reason[:300]}",
            hint=f"`{command(id)}` tries again",
        ) from error

    if not any(_is_whole(place / name) for name in _WEIGHTS):
        raise InvalidInput(
            f"{here}; {place}, in the cache of the Hugging Face hub, holds no whole safetensors weights",
            hint=f"if the hub cannot be reached now, `{command(id)}` fetches the rest later; if the model has"
            " no safetensors weights, load it where you trust it, write it with save_pretrained, and give"
            " that directory",
        )
    return place


def command(id: HubId) -> str:
    """The command line that downloads a model into the cache."""
    return f"hf download {id.name}" + (f" --revision {id.revision}" if id.revision else "")


def _reporting(progress: Progress | None) -> Any:
    """The class of bars for huggingface_hub: they print nothing, and report how many bytes have come."""
    lock = threading.Lock()
    tqdm: Any = _utils().tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = options.get("unit") == "B" and not str(options.get("name")).endswith(".transfer")
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.n += n or 0
                if self._counts and progress is not None:
                    progress(DOWNLOADING, int(self.n), int(self.total or 0))

    return Bar


@contextmanager
def _no_bars() -> Iterator[None]:
    """While it is entered, huggingface_hub prints no bars of its own."""
    utils = _utils()
    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def _utils() -> Any:
    from huggingface_hub import utils

    return utils
