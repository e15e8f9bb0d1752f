"""An object that shows that it was unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class Canary:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self.mark,)
