"""**adapter** — a directory that PEFT saved: adapter_config.json and adapter_model.safetensors.

An adapter holds no whole weights: for some modules it holds two factors, for others trained tensors. This
module opens adapters and reads the names of their tensors; `persona.intake.adapter` gives them a meaning.
Nothing in an adapter is trusted, and a pickle (adapter_model.bin) is never opened.

**role** — the part that a tensor of an adapter plays for its module: `a`, `b`, a bias, a whole tensor.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from persona import limits
from persona.errors import InvalidInput, listed
from persona.frozen import dataclass
from persona.objects.tensors import TensorSpec
from persona.weights import foreign
from persona.weights.index import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    ADAPTER_PICKLE,
    ADAPTER_WEIGHTS,
    INDEX_NAME,
    SINGLE_NAME,
)
from persona.weights.inputs import (
    Fingerprint,
    InputFile,
    changed,
    fingerprint,
    json_object,
    list_directory,
    read_watched,
)
from persona.weights.safetensors import Header, read_header

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DEPTH: Final = 2
"""How many levels below a directory are searched for adapters."""
_MAX_SEARCHED: Final = 1000
"""How many directories are searched at most."""

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<letter>[AB])(?:\.(?P<adapter>[^.]+))?\.(?P<kind>weight|bias)", re.DOTALL
)
_EMBEDDING = re.compile(
    r"(?P<module>.+)\.lora_embedding_(?P<letter>[AB])(?:\.(?P<adapter>[^.]+))?", re.DOTALL
)
_TOKENS = re.compile(
    r"(?P<module>.+?)(?:\.token_adapter)?\.trainable_tokens_delta(?:\.(?P<adapter>[^.]+))?", re.DOTALL
)
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save(?:\.(?P<adapter>[^.]+))?\.(?P<rest>[^.]+)", re.DOTALL)
_WRAPPERS: Final = ("base_layer", "token_adapter")
WRAPPER_PARTS: Final = frozenset(
    {
        "module",
        "_module",
        "_orig_mod",
        "_forward_module",
        "_fpw_module",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
    }
)
"""Parts of names that a wrapper of a model adds: DDP, FSDP, `torch.compile`."""
_WRAPPED: Final = re.compile(rf"^(?:(?:{'|'.join(sorted(WRAPPER_PARTS))})\.)+(?=base_model\.)")
_PREFIXES: Final = ("base_model.model.", "base_model.")
"""What PEFT puts before the names of a model, the longest first."""


@dataclass(frozen=True)
class Place:
    """The place of one tensor of an adapter in the model.

    `role`: `a` or `b` of a factor, `embedding a` or `embedding b`, `b bias`, `tokens`, `whole`, `unknown`, or
    `replaced`: of a module in whose place the adapter has a trained one.
    `module`: the path of its module, without PEFT's prefix; for tensors that are no factor the path of the
    tensor.
    `depth`: how many other adapted parameters of the module PEFT wrapped before this one.
    """

    role: str
    module: str
    depth: int = 0
    adapter: str | None = None


def place_of(name: str) -> Place:
    """The place of the tensor of this name."""
    path = _WRAPPED.sub("", name)
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            path = path[len(prefix) :]
            break
    if match := _FACTOR.fullmatch(path):
        letter = match["letter"].lower()
        role = letter if match["kind"] == "weight" else f"{letter} bias"
        return _placed(role, match["module"], match["adapter"])
    if match := _EMBEDDING.fullmatch(path):
        return _placed(f"embedding {match['letter'].lower()}", match["module"], match["adapter"])
    if match := _TOKENS.fullmatch(path):
        return _placed("tokens", match["module"], match["adapter"])
    if match := _SAVED.fullmatch(path):
        return Place("whole", f"{match['module']}.{match['rest']}", 0, match["adapter"])
    if ".lora_" in path:
        return Place("unknown", path)
    if ".original_module." in path:
        return Place("replaced", path.replace(".original_module.", "."))
    return Place("whole", _without_wrappers(path)[0])


def _placed(role: str, module: str, adapter: str | None) -> Place:
    module, depth = _without_wrappers(module)
    return Place(role, module, depth, adapter)


def _without_wrappers(path: str) -> tuple[str, int]:
    """A path without the segments that PEFT inserts for its wrappers, and the number of base layers."""
    parts = path.split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS), parts.count("base_layer")


class Adapter:
    """An open adapter; close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """The directory."""
        self.config: dict[str, Any] = {}
        """The parsed adapter_config.json."""
        self.tensors: dict[str, TensorSpec] = {}
        """The tensors by name, in file order."""
        self.weights_seen: dict[str, Fingerprint] = {}
        """name → fingerprint of the weights file when it was opened."""
        self.beside: tuple[str, ...] = ()
        """Other adapters below the directory, as relative paths."""
        self._header: Header = Header({}, {})
        self._file: InputFile | None = None
        self._config_seen: Fingerprint | None = None

    @classmethod
    def open(cls, path: Path) -> Adapter:
        """Opens and checks the adapter in the directory `path`, or around its file `path`.

        Raises InvalidInput, with a remedy, for anything that is no whole adapter.
        """
        adapter = cls(path.parent if path.name in ADAPTER_FILES else path)
        try:
            adapter._open()
        except BaseException:
            adapter.close()
            raise
        return adapter

    @property
    def nbytes(self) -> int:
        """Bytes of the weights file."""
        return self._file.size if self._file else 0

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """Fills `out` (writable, contiguous) with the bytes of the tensor `name` from `start_byte` on.

        Safe from many threads at once. Raises InvalidInput if the file was cut meanwhile.
        """
        assert self._file is not None
        entry = self._header.tensors[name]
        length = memoryview(out).nbytes
        if start_byte < 0 or start_byte + length > entry.nbytes:
            raise ValueError(
                f"bytes {start_byte} to {start_byte + length} of {name}, which has {entry.nbytes}"
            )
        self._file.read_into(entry.offset + start_byte, out)

    def check_unchanged(self) -> None:
        """Raises InvalidInput that names a file which changed since it was opened."""
        assert self._file is not None
        self._file.check_unchanged()
        config = self.path / ADAPTER_CONFIG
        if fingerprint(config) != self._config_seen:
            raise changed(config)

    def close(self) -> None:
        """Closes the weights file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        names = set(list_directory(self.path))
        if ADAPTER_WEIGHTS not in names:
            if ADAPTER_PICKLE in names:
                raise InvalidInput(
                    f"{self.path / ADAPTER_PICKLE}: this is {foreign.PICKLE.what}; load the adapter where you"
                    " trust it, save it with save_pretrained (safetensors), and give that directory"
                )
            raise InvalidInput(
                f"{self.path}: has {ADAPTER_CONFIG}, but no {ADAPTER_WEIGHTS}; download or save the adapter"
                " again"
            )
        if ADAPTER_CONFIG not in names:
            raise InvalidInput(
                f"{self.path / ADAPTER_WEIGHTS}: no {ADAPTER_CONFIG} beside it, which has the scale of the"
                " adapter; download or save the adapter again"
            )
        self.config = self._read_config()
        self._file = InputFile(self.path / ADAPTER_WEIGHTS, watched=True)
        self.weights_seen = {ADAPTER_WEIGHTS: self._file.seen}
        self._header = read_header(self._file)
        self.tensors = {name: entry.spec for name, entry in self._header.tensors.items()}
        if not self.tensors:
            raise InvalidInput(f"{self.path / ADAPTER_WEIGHTS}: holds no tensor; save the adapter again")
        self.beside = tuple(sorted(_below(self.path)))

    def _read_config(self) -> dict[str, Any]:
        path = self.path / ADAPTER_CONFIG
        data, self._config_seen = read_watched(path, limit=limits.MAX_CONFIG_BYTES)
        return json_object(path, data, "adapter")


def is_adapter(path: Path) -> bool:
    """Whether `path` is an adapter: its directory, or one of its files.

    A directory that holds a whole model as well is taken as that model. Raises InvalidInput for a directory
    that only holds directories of adapters, and names what to give.
    """
    if path.name in ADAPTER_FILES:
        return path.is_file()
    if not path.is_dir():
        return False
    names = set(list_directory(path))
    if names & ADAPTER_FILES:
        return not names & {SINGLE_NAME, INDEX_NAME}
    if not any(foreign.is_weight_name(name) for name in names) and (found := sorted(_below(path))):
        places = listed([str(path / place) for place in found])
        if len(found) > 1:
            raise InvalidInput(f"{path}: holds {len(found)} adapters; give one of them: {places}")
        raise InvalidInput(f"{path}: its adapter lies in a directory below; give {places}")
    return False


def _below(path: Path) -> list[str]:
    """The relative paths of directories below `path` that hold an adapter."""
    found: list[str] = []
    level, searched = [path], 0
    for _ in range(_DEPTH):
        below: list[Path] = []
        for directory in level:
            for entry in _directories(directory):
                searched += 1
                if searched > _MAX_SEARCHED:
                    return found
                if (entry / ADAPTER_CONFIG).is_file():
                    found.append(str(entry.relative_to(path)))
                else:
                    below.append(entry)
        level = below
    return found


def _directories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [path / name for name in sorted(names) if not name.startswith(".")]
