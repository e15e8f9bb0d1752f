"""Checkpoints outside the repository: how they are read, and how one is written.

Invariants: nothing from a file is trusted before it is checked, and every refusal names the file; no pickle
is ever opened; a name of a tensor or shard never becomes a path unchecked; a file that is being read is never
truncated in place.
"""

from __future__ import annotations
