"""Frozen dataclasses that are defined quickly behave as the standard library's."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

import persona
from persona import frozen
from persona.merge.rules import MergeRules

Decorator = Callable[..., Any]


def shapes(dataclass: Decorator) -> dict[str, Any]:
    """Classes of every shape that persona uses, made by one decorator."""

    @dataclass(frozen=True)
    class Plain:
        """Two fields."""

        name: str
        size: int = 3

    @dataclass(frozen=True)
    class Single:
        number: float

    @dataclass(frozen=True)
    class Nothing:
        """No fields."""

    @dataclass(frozen=True)
    class Rich:
        """Defaults of every kind, and a field that is neither compared nor shown."""

        kind: ClassVar[str] = "rich"
        name: str
        load: Any = field(default=None, repr=False, compare=False)
        parts: list[int] = field(default_factory=list)
        note: str = field(default="", metadata={"unprinted": True})

        @cached_property
        def length(self) -> int:
            """Kept in the object."""
            return len(self.name)

    @dataclass(frozen=True)
    class Checked:
        """Refuses what is negative, and prints and compares in its own way."""

        size: int

        def __post_init__(self) -> None:
            if self.size < 0:
                raise ValueError("negative")

        def __repr__(self) -> str:
            return f"<{self.size}>"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Checked) and self.size % 10 == other.size % 10

    @dataclass(frozen=True, repr=False)
    class Unseen(Checked):
        """Prints as its base does."""

        name: str = ""

    @dataclass(frozen=True)
    class Derived(Plain):
        """One field more."""

        more: tuple[int, ...] = ()

    return {each.__name__: each for each in (Plain, Single, Nothing, Rich, Checked, Unseen, Derived)}


OURS, THEIRS = shapes(frozen.dataclass), shapes(dataclasses.dataclass)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Plain", ("a",), {}),
    ("Plain", ("a",), {"size": 4}),
    ("Plain", (), {"name": "b"}),
    ("Plain", (), {}),
    ("Plain", ("a", 1, 2), {}),
    ("Plain", ("a",), {"nope": 1}),
    ("Single", (math.nan,), {}),
    ("Single", (1.5,), {}),
    ("Nothing", (), {}),
    ("Rich", ("a",), {}),
    ("Rich", ("a", print, [1]), {"note": "x"}),
    ("Checked", (3,), {}),
    ("Checked", (13,), {}),
    ("Checked", (-1,), {}),
    ("Unseen", (3, "a"), {}),
    ("Unseen", (3,), {"name": "b"}),
    ("Derived", ("a", 2, (3,)), {}),
    ("Derived", ("a",), {}),
]


def answers(made: Any) -> list[object]:
    """What an object says of itself."""
    return [
        repr(made).replace("OURS", ""),
        dataclasses.asdict(made),
        dataclasses.astuple(made),
        [(each.name, each.type, each.repr, each.compare) for each in dataclasses.fields(made)],
        made == made,
        made == copy.copy(made),
        made == dataclasses.replace(made),
        made != object(),
        vars(copy.deepcopy(made)) == vars(made) or math.isnan(getattr(made, "number", 0.0)),
        type(made).__match_args__,
        [*inspect.signature(type(made)).parameters],
        str(inspect.signature(type(made))),
    ]


@pytest.mark.parametrize(("name", "arguments", "words"), CALLS)
def test_a_call_makes_the_same_object_or_fails_in_the_same_way(
    name: str, arguments: tuple[Any, ...], words: dict[str, Any]
) -> None:
    ours, theirs = called(OURS[name], arguments, words), called(THEIRS[name], arguments, words)
    assert ours == theirs


def called(cls: Any, arguments: tuple[Any, ...], words: dict[str, Any]) -> object:
    """What a call makes says of itself, or the error that it raises."""
    try:
        made = cls(*arguments, **words)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    hashed = None if cls.__name__ == "Rich" else hash(made)  # it holds a list
    return [*answers(made), hashed]


@pytest.mark.parametrize("name", OURS)
def test_equality_and_hashes_over_all_pairs(name: str) -> None:
    def made(classes: dict[str, Any]) -> list[Any]:
        calls = [(arguments, words) for each, arguments, words in CALLS if each == name]
        found = []
        for arguments, words in calls:
            try:
                found.append(classes[name](*arguments, **words))
            except (TypeError, ValueError):
                continue
        return found

    def table(objects: list[Any]) -> list[list[bool]]:
        return [[one == other for other in objects] for one in objects]

    assert table(made(OURS)) == table(made(THEIRS))


def test_an_object_cannot_be_changed() -> None:
    for plain in (OURS["Plain"]("a"), THEIRS["Plain"]("a")):
        with pytest.raises(FrozenInstanceError, match="cannot assign to field 'name'"):
            plain.name = "b"
        with pytest.raises(FrozenInstanceError, match="cannot delete field 'name'"):
            del plain.name
        assert plain.name == "a"


def test_a_default_that_is_made_anew_is_not_shared_and_properties_are_kept() -> None:
    one, other = OURS["Rich"]("abc"), OURS["Rich"]("abc")
    one.parts.append(1)
    assert other.parts == []
    assert one.length == 3
    assert vars(one)["length"] == 3


def test_objects_of_different_classes_are_different() -> None:
    assert OURS["Plain"]("a", 1) != OURS["Derived"]("a", 1)
    assert OURS["Plain"]("a", 1) != ("a", 1)


def test_objects_can_be_pickled_and_copied() -> None:
    made = MergeRules(density=0.5)
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made


def test_fields_that_do_not_stand_in_the_call_are_refused() -> None:
    with pytest.raises(TypeError, match="must be a positional argument"):

        @frozen.dataclass(frozen=True)
        class Odd:
            hidden: int = field(default=1, init=False)


def test_init_is_compiled_when_it_is_first_asked_for() -> None:
    classes = shapes(frozen.dataclass)
    assert not any(inspect.isfunction(vars(cls)["__init__"]) for cls in classes.values())
    classes["Derived"]("a")
    assert [name for name, cls in classes.items() if inspect.isfunction(vars(cls)["__init__"])] == ["Derived"]
    inspect.signature(classes["Plain"])
    assert inspect.isfunction(vars(classes["Plain"])["__init__"])


def test_a_class_below_can_call_init() -> None:
    class Below(shapes(frozen.dataclass)["Plain"]):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(name, size=len(name))

    assert (Below("abc").name, Below("abc").size) == ("abc", 3)


def test_a_class_that_the_decorator_would_change_is_refused() -> None:
    with pytest.raises(TypeError, match="Own: a frozen dataclass has no __init__ of its own"):

        @frozen.dataclass(frozen=True)
        class Own:
            size: int

            def __init__(self) -> None:
                """Would be lost."""

    with pytest.raises(TypeError, match="parts: no hash="):

        @frozen.dataclass(frozen=True)
        class Unhashed:
            parts: list[int] = field(default_factory=list, hash=False)


def test_without_frozen_it_is_the_standard_library_s() -> None:
    @frozen.dataclass
    class Open:
        size: int = 1

    made = Open()
    made.size = 2
    assert repr(made).endswith("Open(size=2)")


def test_every_frozen_dataclass_of_the_package_is_defined_quickly() -> None:
    package = Path(persona.__file__).parent
    slow = []
    for path in package.rglob("*.py"):
        text = path.read_text()
        names = {
            alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
            for alias in node.names
        }
        if "dataclass" in names and "@dataclass(frozen=True" in text and path.name != "frozen.py":
            slow.append(str(path))
    assert not slow
