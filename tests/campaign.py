"""How far a randomised test goes: its usual number of rounds, times `PERSONA_CAMPAIGN` where that is set.

`PERSONA_CAMPAIGN=100 scripts/test tests/history -k random` goes a hundred times as far.
"""

from __future__ import annotations

import os
from typing import Final

_FACTOR: Final = int(os.environ.get("PERSONA_CAMPAIGN", "1"))  # read before the tests get a home of their own


def rounds(usual: int) -> int:
    """The number of rounds to go."""
    return usual * _FACTOR
