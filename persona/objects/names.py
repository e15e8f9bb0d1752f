"""The rules for names. A name never becomes a path unchecked, wherever it comes from (docs/invariants.md).

**ref name** — a name by git's rules, in NFC, without a part of 64 hex digits.
**vector name** — a name that `[vectors.NAME]` may hold.
**file name** — a relative path below the work tree.
**tensor name** — printable text that cannot escape from a path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from persona.errors import InvalidInput, quoted
from persona.limits import MAX_NAME_BYTES, MAX_TENSOR_NAME_BYTES
from persona.objects.ids import is_id

_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_NOT_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_VECTOR = re.compile(r"[^\x00-\x1f\x7f/\\]+")
_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Characters that HFS+ ignores in names."""
RESERVED_FILES = frozenset({".persona", ".git"})


def check_ref_name(name: str) -> str:
    """A full ref name (`refs/heads/main`) or a branch or tag name; returns it or raises `InvalidInput`."""
    why = None
    parts = name.split("/")
    if not name or name in ("@", "HEAD", "-"):
        why = "it is empty or reserved"
    elif _REF_FORBIDDEN.search(name):
        why = "it holds a character or sequence that revisions use (space ~ ^ : ? * [ \\ .. @{ //)"
    elif any(not part or part.startswith((".", "-")) or part.endswith((".", ".lock")) for part in parts):
        why = "a part between slashes is empty, starts with . or -, or ends with . or .lock"
    elif any(is_id(part) for part in parts):
        why = "a part between slashes looks like an object id"
    else:
        why = _text_problem(name, parts)
    if why:
        raise InvalidInput(f"{quoted(name)} cannot name a branch, tag or ref: {why}")
    return name


def check_vector_name(name: str) -> str:
    """The name of a vector in a recipe; returns it or raises `InvalidInput`."""
    why = None
    if not name or not _VECTOR.fullmatch(name) or name != name.strip():
        why = "it is empty, has spaces around it, or holds a slash or control character"
    elif name.startswith(("-", ".")) or "@{" in name or ".." in name:
        why = "it starts with - or . or holds .. or @{"
    elif is_id(name):
        why = "it looks like an object id"
    else:
        why = _text_problem(name, [name])
    if why:
        raise InvalidInput(f"{quoted(name)} cannot name a vector: {why}")
    return name


def check_tensor_name(name: str) -> str:
    """A tensor's name as a checkpoint gives it; returns it or raises `InvalidInput`."""
    why = None
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_TENSOR_NAME_BYTES:
        why = f"it is empty or longer than {MAX_TENSOR_NAME_BYTES} bytes"
    elif _NOT_TEXT.search(name):
        why = "it holds a control character or a lone surrogate"
    elif name == "__metadata__":
        why = "the safetensors format reserves that key"
    elif name.startswith(("/", "\\")) or (".." in name and ".." in re.split(r"[/\\]", name)):
        why = "it is a path that leaves its directory"
    if why:
        raise InvalidInput(f"{quoted(name)} cannot name a tensor: {why}")
    return name


def check_file_path(path: str) -> str:
    """A relative path of a tracked file, `/` between parts; returns it or raises `InvalidInput`."""
    if why := file_path_problem(path):
        raise InvalidInput(f"{quoted(path)} cannot name a tracked file: {why}")
    return path


def file_path_problem(path: str) -> str | None:
    """The reason why a relative path, `/` between parts, cannot name a tracked file; None if it can."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or "\x00" in path:
        return "it is empty, absolute, or holds a backslash or NUL"
    if any(_UNSEEN.sub("", part).casefold() in ("", ".", "..", *RESERVED_FILES) for part in parts):
        return "a component of the path is empty, . or .., or reserved (.persona, .git)"
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in path):
        return "it holds a control character"
    if any(len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for part in parts):
        return f"a component of the path is longer than {MAX_NAME_BYTES} bytes"
    if any(0xD800 <= ord(char) <= 0xDFFF for char in path):
        return "it is not valid Unicode"
    return None


def _text_problem(name: str, parts: list[str]) -> str | None:
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        return "it is not valid Unicode"
    if unicodedata.normalize("NFC", name) != name:
        return "it is not in Unicode normal form C"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"the name, or a part of it between slashes, is longer than {MAX_NAME_BYTES} bytes"
    return None


def path_clash(paths: Iterable[str]) -> str | None:
    """The reason why tracked files with these paths cannot exist together on every machine, or None."""
    alike: dict[str, str] = {}
    for path in sorted(set(paths)):
        parts = [unicodedata.normalize("NFC", part).casefold() for part in path.split("/")]
        other = alike.setdefault("/".join(parts), path)
        if other != path:
            return f"{other} and {path} differ only in case or Unicode form"
    for path in alike:
        parts = path.split("/")
        above = next((a for n in range(1, len(parts)) if (a := "/".join(parts[:n])) in alike), None)
        if above is not None:
            return f"{alike[above]} would be both a file and the directory of {alike[path]}"
    return None
