"""**rules** — how the terms of a recipe are merged: one value for each axis.

**axis** — one choice in the rules, such as `trim` or `elect`.
**preset** — a name for a row of axes.

docs/numerics.md defines the axes and the presets. An axis that a preset does not use is None, and setting it
is refused.
"""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import Any, Final

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.objects import canonical

NUMERICS: Final = 1
"""The version of docs/numerics.md.

It rises whenever a recipe comes to mean other bits, also when an error is corrected. It is in the keys of
tensors and in the names of caches, so that no bits of another version are copied or found.
"""
MAX_BINARY32: Final = Decimal((1 << 128) - (1 << 104))
"""The largest finite binary32, exactly."""

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "trim": ("tensor", "global", "joint", "none"),
    "rank": ("floor1", "plus1", "floor"),
    "weigh": ("before", "after"),
    "elect": ("mass", "count", "none"),
    "on_tie": ("drop", "positive", "majority"),
    "merge": ("mean", "sum", "max"),
    "divide": ("strength", "count", "weight"),
}
"""The words that each axis admits."""

_ROW: Final = ("trim", "rank", "weigh", "elect", "on_tie", "merge", "divide", "density")
PRESETS: Final[dict[str, dict[str, str | None]]] = {
    name: dict(zip(_ROW, row, strict=True))
    for name, row in {
        "ties": ("tensor", "floor1", "before", "mass", "drop", "mean", "strength", "1"),
        "paper": ("global", "plus1", "before", "mass", "majority", "mean", "count", "0.2"),
        "mergekit": ("tensor", "floor1", "before", "mass", "positive", "mean", "weight", "1"),
        "peft": ("tensor", "floor", "after", "mass", "positive", "mean", "count", "1"),
        "joint": ("joint", None, "before", "count", "drop", "mean", "count", "0.2"),
        "linear": ("none", None, "before", "none", None, "sum", None, None),
    }.items()
}
"""preset → axis → its value; None if the preset does not use the axis."""

AXES: Final = (*_ROW, "lambda")
"""The names of the axes as recipe.toml and `set --merge` spell them."""


@dataclass(frozen=True)
class Rules:
    """One value for each axis, fully resolved. `density` and `lambda_` are canonical decimals."""

    preset: str
    trim: str
    rank: str | None
    weigh: str
    elect: str
    on_tie: str | None
    merge: str
    divide: str | None
    density: str | None
    lambda_: str

    @classmethod
    def of(cls, preset: str = "ties", **axes: object) -> Rules:
        """The rules of a preset with some axes set (`lambda_` or `lambda` for λ). Raises `InvalidInput`."""
        if type(preset) is not str or preset not in PRESETS:
            raise InvalidInput(f"preset: {preset!r:.60} is not one of {', '.join(PRESETS)}")
        row: dict[str, str | None] = dict(PRESETS[preset])
        lambda_ = "1"
        for axis, value in axes.items():
            if axis in ("lambda", "lambda_"):
                lambda_ = check_strength(value, "lambda")
            elif axis not in row:
                raise InvalidInput(f"unknown axis {axis!r:.60}; the axes are {', '.join(AXES)}")
            elif row[axis] is None:
                raise InvalidInput(f"{axis}: the preset {preset} does not use it")
            elif axis == "density":
                row[axis] = check_density(value)
            elif value not in CHOICES[axis]:
                raise InvalidInput(f"{axis}: {value!r:.60} is not one of {', '.join(CHOICES[axis])}")
            else:
                row[axis] = str(value)
        _check_combination(preset, row)
        return cls(preset=preset, lambda_=lambda_, **row)  # type: ignore[arg-type]

    def axes(self) -> dict[str, str | None]:
        """Every axis by the name that recipe.toml uses."""
        return {axis: getattr(self, "lambda_" if axis == "lambda" else axis) for axis in AXES}

    def changed_axes(self) -> dict[str, str]:
        """The axes that differ from the preset's own."""
        usual = {**PRESETS[self.preset], "lambda": "1"}
        return {
            axis: value for axis, value in self.axes().items() if value is not None and value != usual[axis]
        }

    def to_json(self) -> dict[str, str]:
        """The canonical form: the preset and every axis that it has a use for."""
        return {"preset": self.preset} | {
            axis: value for axis, value in self.axes().items() if value is not None
        }

    @classmethod
    def from_json(cls, value: Any) -> Rules:
        """The rules of a canonical form; `IntegrityError` for anything else."""
        try:
            if type(value) is not dict or any(type(item) is not str for item in value.values()):
                raise InvalidInput("not a mapping of text to text")
            rules = cls.of(**value)
        except (InvalidInput, TypeError) as error:
            raise IntegrityError(f"recipe rules: {error}") from None
        if rules.to_json() != value:
            raise IntegrityError("recipe rules: an axis is missing or not in canonical form")
        return rules


def check_axis(axis: str, value: object) -> str:
    """A value of an axis, or of "preset", as the text that a recipe holds; `InvalidInput` otherwise."""
    if axis == "density":
        return check_density(value, "")
    if axis == "lambda":
        return check_strength(value, "")
    words = tuple(PRESETS) if axis == "preset" else CHOICES[axis]
    if value not in words:
        raise InvalidInput(f"{value!r:.60} is not one of {', '.join(words)}")
    return str(value)


def check_density(value: object, what: str = "density") -> str:
    """A density in (0, 1] as a canonical decimal; `InvalidInput` otherwise."""
    text = _number(value, what)
    if not 0 < Decimal(text) <= 1:
        raise InvalidInput(f"{what}: {text} is not in (0, 1]")
    return text


def check_strength(value: object, what: str = "alpha") -> str:
    """α or λ as a canonical decimal, finite as binary32; `InvalidInput` otherwise."""
    text = _number(value, what)
    if Decimal(text).copy_abs() > MAX_BINARY32:
        raise InvalidInput(f"{what}: {text} is beyond the range of binary32")
    return text


def _number(value: object, what: str) -> str:
    if type(value) not in (str, int, float):
        raise InvalidInput(f"{what}: not a number: {value!r:.60}")
    try:
        return canonical.decimal(value)  # type: ignore[arg-type]
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error.message}") from None


def _check_combination(preset: str, row: dict[str, str | None]) -> None:
    if row["trim"] in ("tensor", "global") and row["rank"] is None:
        raise InvalidInput(f"trim: {row['trim']} needs a rank, which the preset {preset} does not have")
    if row["trim"] != "none" and row["density"] is None:
        raise InvalidInput(f"trim: {row['trim']} needs a density, which the preset {preset} does not have")
    if row["elect"] != "none" and row["on_tie"] is None:
        raise InvalidInput(f"elect: {row['elect']} needs on_tie, which the preset {preset} does not have")
    if row["merge"] == "mean" and row["divide"] is None:
        raise InvalidInput(f"merge: mean needs divide, which the preset {preset} does not have")


assert {field.name for field in fields(Rules)} == {"preset", "lambda_", *_ROW}
