"""Foreign formats: weights that are not safetensors, recognised by content and opened no further.

A pickle runs code when it is opened, so none is ever opened, whatever its name. A file is recognised by its
first bytes. The message says which format it has and what to give instead.
"""

from __future__ import annotations

import re

from persona.frozen import dataclass

HEAD_BYTES = 512
"""How much of a file's beginning `recognise` wants to see."""

WEIGHT_SUFFIXES = frozenset(
    (
        ".safetensors .bin .pt .pth .ckpt .pkl .pickle .npz .npy "
        ".gguf .ggml .distcp .h5 .hdf5 .msgpack .onnx .ot .tflite"
    ).split()
)
"""Endings of names of weights or other binary state of a training."""

_OLD_PICKLE = re.compile(rb"\(?[dl]p\d+\n|\(?c[\w.]+\n[\w.<>]+\n|[\]})(]q.|\(I\d+\n|cos\n", re.DOTALL)

_SAFE = "load it where you trust it, write it with save_pretrained (safetensors), and give that directory"


@dataclass(frozen=True)
class Foreign:
    """The format of a file that is not safetensors (`what`, a noun phrase), and advice (`remedy`)."""

    what: str
    remedy: str
    holds_weights: bool = True


PICKLE = Foreign("a pickle, which can run any code when it is opened and so never is", _SAFE)
_ZIP_PICKLE = Foreign(
    "a zip with a pickle inside (torch.save), which can run any code when opened and so never is", _SAFE
)
_ZIP = Foreign("a zip archive", "unpack it and give the model directory inside", holds_weights=False)
_NUMPY = Foreign(
    "NumPy arrays (.npy or .npz), which may hold pickled objects and so are never opened",
    "write the tensors with safetensors.numpy.save_file and give that file",
)
_GGUF = Foreign(
    "a GGUF file, as llama.cpp reads it",
    "convert it: AutoModelForCausalLM.from_pretrained(directory, gguf_file=…) and save_pretrained",
)
_HDF5 = Foreign("an HDF5 file (Keras)", _SAFE)
_TAR = Foreign("a tar archive", "unpack it and give the model directory inside", holds_weights=False)
_PACKED = Foreign("a compressed file", "unpack it and give what is inside", holds_weights=False)
_LFS = Foreign(
    "a Git LFS pointer, not the weights themselves", "fetch them with `git lfs pull`", holds_weights=False
)
_PAGE = Foreign("a web page, so the download went wrong", "download the file again", holds_weights=False)


def recognise(head: bytes) -> Foreign | None:
    """The known foreign format of a file that begins with `head` (HEAD_BYTES or all of it), or None.

    Only for files that are not valid safetensors: the length of a safetensors header can look like a pickle's
    magic.
    """
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLE
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        if first.endswith(b".npy"):
            return _NUMPY
        return _ZIP_PICKLE if first.endswith(b".pkl") else _ZIP
    if head[:6] == b"\x93NUMPY":
        return _NUMPY
    if head[:4] == b"GGUF":
        return _GGUF
    if head[:4] == b"\x89HDF":
        return _HDF5
    if head[257:262] == b"ustar":
        return _TAR
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"7z\xbc\xaf", b"BZh", b"Rar!")):
        return _PACKED
    if head.startswith(b"version https://git-lfs"):
        return _LFS
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if _OLD_PICKLE.match(head):
        return PICKLE
    return None


def is_weight_name(name: str) -> bool:
    """Whether a file of this name holds weights (or an index of weights), not text of a model directory."""
    lowered = name.lower()
    return "." + lowered.rpartition(".")[2] in WEIGHT_SUFFIXES or lowered.endswith(
        (".safetensors.index.json", ".bin.index.json", ".msgpack.index.json", ".h5.index.json")
    )
