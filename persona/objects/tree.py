"""**tree** — the content of a commit: its recipe, and the text files that differ from the base's.

`files` maps a path to its blob: `recipe.toml` as text with its comments, `graph/…`, and the base's text files
if they were changed. None stands for a file of the base that was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping

from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.objects import canonical, fields
from persona.objects.base import file_ids
from persona.objects.ids import require_id


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The paths whose blobs differ between two sets of files, path → blob id, in order."""
    return [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]


@dataclass(frozen=True)
class Tree:
    """The recipe's id, and path → blob id (None: deleted)."""

    recipe: str
    files: dict[str, str | None]

    def encode(self) -> bytes:
        """The canonical payload."""
        return canonical.encode({"files": self.files, "recipe": self.recipe})

    @classmethod
    def decode(cls, data: bytes) -> Tree:
        """The tree of canonical bytes; `IntegrityError` for anything else."""
        value = fields.mapping(canonical.decode(data, "tree"), "tree", ("files", "recipe"))
        files = value["files"]
        if type(files) is not dict:
            raise IntegrityError("tree files must be a mapping")
        file_ids({path: blob for path, blob in files.items() if blob is not None}, "tree files")
        file_ids({path: "1" * 64 for path, blob in files.items() if blob is None}, "tree files")
        return cls(recipe=require_id(value["recipe"], "tree recipe"), files=files)
