"""**setting** — a key of `config`: what it means, how its text is read, and what holds where nobody sets it.

One table serves `config` (values are checked when they are set and when they are read), the calls that take a
setting where no argument is given, completion, and the table in docs/commands.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from persona.errors import InvalidInput
from persona.objects.rules import AXES, CHOICES, PRESETS, check_axis

DEVICES: Final = ("auto", "cpu", "cuda")
"""Where weights may be computed."""
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_UNITS: Final = " kmgt"


class Setting:
    """One key. `parse` raises `ValueError` for a text that the key cannot have; `default` says in words what
    holds where it is not set; `words` are all that it may be; `personal`: only the user's own file has it.

    No dataclass: making one costs every command a third of a millisecond.
    """

    __slots__ = ("default", "doc", "key", "parse", "personal", "words")

    def __init__(
        self,
        key: str,
        doc: str,
        default: str,
        parse: Callable[[str], Any] = str,
        words: tuple[str, ...] = (),
        personal: bool = False,
    ) -> None:
        self.key = key
        self.doc = doc
        self.default = default
        self.parse = parse
        self.words = words
        self.personal = personal

    def read(self, text: str) -> Any:
        """The value of a text. Raises `InvalidInput` that names the key."""
        try:
            return self.parse(text)
        except (ValueError, InvalidInput) as error:
            raise InvalidInput(f"config {self.key}: {str(error).removeprefix(': ')}") from None


def parse_size(text: str) -> int:
    """Bytes, from 5GB, 500MB or 2GiB; `ValueError` for anything else."""
    found = _SIZE.fullmatch(text.strip())
    power = _UNITS.index(found[2].lower() or " ") if found else 0
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** power) if found else 0
    if count < 1:
        raise ValueError(f"{text!r:.60} is not a size; write 5GB, 500MB or 2GiB")
    return count


def parse_flag(text: str) -> bool:
    """true or false; `ValueError` for anything else."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r:.60} is neither true nor false")
    return text.lower() == "true"


def parse_threads(text: str) -> int:
    """A number of threads; `ValueError` for anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r:.60} is not a number of threads")
    return int(text)


def parse_device(text: str) -> str:
    """One of `DEVICES`; `ValueError` for anything else."""
    if text not in DEVICES:
        raise ValueError(f"{text!r:.60} is not one of {', '.join(DEVICES)}")
    return text


def _axis(name: str) -> Setting:
    words = {"preset": tuple(PRESETS), **CHOICES}.get(name, ())
    default = {"preset": "ties", "density": "1"}.get(name, "the preset's")
    about = f"the {name} that init writes into recipe.toml"
    return Setting(f"merge.{name}", about, default, lambda text: check_axis(name, text), words)


SETTINGS: Final[Mapping[str, Setting]] = {
    setting.key: setting
    for setting in (
        Setting("user.name", "who commits", "git's, else the account's"),
        Setting("user.email", "who commits", "git's, else the account and host"),
        Setting("core.editor", "the editor for messages, a command of the shell", "git's", personal=True),
        Setting(
            "commit.checkout",
            "whether every commit computes the weights at once",
            "false",
            parse_flag,
            ("true", "false"),
        ),
        Setting("checkout.device", "where weights are computed", "auto", parse_device, DEVICES),
        Setting(
            "checkout.device-memory",
            "bytes that chunks may take on each GPU",
            "1 GiB, or half of what is free",
            parse_size,
        ),
        Setting("checkout.threads", "threads that work", "all cores", parse_threads),
        Setting("checkout.memory", "bytes that decoded chunks may take together", "400 MB", parse_size),
        Setting("checkout.max-shard-size", "how large files of weights get", "the base's files", parse_size),
        *map(_axis, ("preset", *AXES)),
    )
}
"""Every key that persona knows. A file may hold others, which are the user's."""
