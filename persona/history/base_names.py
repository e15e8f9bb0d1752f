"""The names of bases."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from persona.errors import Blank, InvalidInput, Keyword, UsageError
from persona.objects.names import check_ref_name
from persona.weights.hub import cached_name


def default_base_name(path: Path) -> str:
    """The base's name, from its directory (for a file: its parent).

    Characters that no ref may hold become dashes. A snapshot in the hub's cache,
    models--ORG--NAME/snapshots/REVISION, is called NAME.
    """
    place = path.absolute()
    if not place.is_dir():
        place = place.parent
    name = unicodedata.normalize("NFC", cached_name(place) or place.name)  # macOS gives form D
    name = re.sub(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{", "-", name).strip(".-")
    try:
        return check_ref_name(name)
    except InvalidInput:
        raise UsageError(
            f"{path} gives no name for the base", hint=("give one with ", Keyword(name=Blank("NAME")))
        ) from None
