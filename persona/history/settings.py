"""**setting** — a key of `config`: its meaning, its parser, and its default.

One table serves `config` (values are checked when they are set and when they are read), the calls that use a
setting if an argument is not given, completion, and the table in docs/commands.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from persona.errors import InvalidInput
from persona.objects.rules import AXES, CHOICES, PRESETS, check_axis

DEVICES: Final = ("auto", "cpu", "cuda")
"""The choices of where weights are computed."""
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

    @property
    def help(self) -> str:
        """Its meaning and its default, in one line."""
        return f"{self.doc}. Default: {self.default}."

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
        raise ValueError(f"{text!r:.60} is not true or false")
    return text.lower() == "true"


def parse_threads(text: str) -> int:
    """A number of threads; `ValueError` for anything else."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ValueError(f"{text!r:.60} is not a number of threads; write a whole number above 0")
    return int(text)


def parse_digits(text: str) -> int:
    """A number of digits; `ValueError` for anything else."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r:.60} is not a number of digits; write a whole number")
    return int(text)


def parse_over_layers(text: str) -> str | list[str]:
    """A list over layers as its parts, `0,0.5,1` or `[0, 0.5, 1]`; any other text as it is.

    `0,5` is no list, because it may have been meant as a half.
    """
    inside = text.strip().removeprefix("[").removesuffix("]")
    if inside == text.strip() and ("," not in text or re.fullmatch(r"[-+]?\d*,\d*", inside)):
        return text
    return [part.strip() for part in inside.split(",")] if inside.strip() else []


def parse_device(text: str) -> str:
    """One of `DEVICES`; `ValueError` for anything else."""
    if text not in DEVICES:
        raise ValueError(f"{text!r:.60} is not one of {', '.join(DEVICES)}")
    return text


def _axis(name: str) -> Setting:
    words = {"preset": tuple(PRESETS), **CHOICES}.get(name, ())
    default = {"preset": "ties", "density": "1"}.get(name, "the preset's")
    about = f"The merge rule {name} of a new recipe"
    return Setting(f"merge.{name}", about, default, lambda text: check_axis(name, text), words)


SETTINGS: Final[Mapping[str, Setting]] = {
    setting.key: setting
    for setting in (
        Setting("user.name", "Your name in commits", "git's `user.name`, or the name of your account"),
        Setting("user.email", "Your e-mail address in commits", "git's, or your account and host"),
        Setting("core.editor", "The editor for messages, a shell command", "git's, or vi", personal=True),
        Setting(
            "core.pager",
            "The pager for long answers, a shell command; cat for none",
            "PAGER, or less",
            personal=True,
        ),
        Setting(
            "commit.checkout",
            "true: every commit also computes the weights",
            "false",
            parse_flag,
            ("true", "false"),
        ),
        Setting(
            "checkout.device", "Where to compute", "cpu to merge, auto to run a model", parse_device, DEVICES
        ),
        Setting(
            "checkout.device-memory",
            "Memory for chunks on each GPU, such as 500MB",
            "1GiB, but at most half of the free memory",
            parse_size,
        ),
        Setting("checkout.threads", "Number of threads", "all cores", parse_threads),
        Setting("checkout.memory", "Memory for decoded chunks, such as 200MB", "400MB", parse_size),
        Setting(
            "checkout.max-shard-size",
            "Largest file of weights that checkout writes, such as 5GB",
            "the base's files",
            parse_size,
        ),
        *map(_axis, ("preset", *AXES)),
    )
}
"""Every key that persona knows. A file may hold others, which are the user's."""
