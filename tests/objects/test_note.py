from __future__ import annotations

from typing import Any

import pytest

from persona.errors import IntegrityError
from persona.objects import canonical
from persona.objects.note import Note

ID = "ab" * 32
NOTE = Note(ID, "commit", "weights", {"weights": "blake3:" + ID, "nested": [{"a": 1}]})


def test_a_note_comes_back_as_it_was() -> None:
    assert Note.decode(NOTE.encode()) == NOTE
    assert NOTE.encode().decode() == (
        f'{{"about":"{ID}","about_kind":"commit","data":{{"nested":[{{"a":1}}],"weights":"blake3:{ID}"}},"kind":"weights"}}'
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("about", "0" * 64),
        ("about", None),
        ("about_kind", "tree"),
        ("about_kind", ["commit"]),
        ("kind", "opinion"),
        ("data", None),
        ("data", []),
        ("data", "text"),
    ],
)
def test_a_note_with_a_wrong_field_is_refused(key: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^note"):
        Note.decode(canonical.encode(canonical.decode(NOTE.encode()) | {key: value}))
