"""**rules** — how the terms of a recipe are merged: one value for each axis.

**axis** — one choice in the rules, such as `trim` or `elect`.
**preset** — a name for a row of axes.

docs/numerics.md defines the axes and the presets. An axis that a preset does not use is None, and setting it
is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from typing import Any, Final

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.objects import canonical

NUMERICS: Final = 2
"""The version of docs/numerics.md.

It rises whenever a recipe comes to mean other bits, also when an error is corrected. It is in the keys of
tensors and in the names of caches, so that no bits of another version are copied or found.
"""
MAX_BINARY32: Final = Decimal((1 << 128) - (1 << 104))
"""The largest finite binary32, exactly."""

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "trim": ("tensor", "global", "joint", "none", "breadcrumbs", "dare", "della"),
    "rank": ("floor1", "plus1", "floor"),
    "weigh": ("before", "after"),
    "elect": ("mass", "count", "none"),
    "on_tie": ("drop", "positive", "majority"),
    "merge": ("mean", "sum", "max"),
    "divide": ("strength", "count", "weight", "mass"),
    "rescale": ("true", "false", "norm"),
}
"""The words that each axis admits."""
NEARLY_ONE: Final = Decimal("0.999999999999999944488848768742172978818416595458984375")
"""1 − 2^−54: a density from here on is 1 as binary64. Decimals compare exactly."""
MAX_SEED: Final = (1 << 63) - 1
"""The largest whole number that every TOML parser reads."""

_ROW: Final = (
    *("trim", "rank", "weigh", "elect", "on_tie", "merge", "divide", "density"),
    *("gamma", "epsilon", "rescale", "seed"),
)
PRESETS: Final[dict[str, dict[str, str | None]]] = {
    name: dict(zip(_ROW, (None if cell == "-" else cell for cell in row), strict=True))
    for name, *row in map(
        str.split,
        """
        ties             tensor      floor1 before mass  drop     mean strength 1   -    -    -    -
        paper            global      plus1  before mass  majority mean count    0.2 -    -    -    -
        mergekit         tensor      floor1 before mass  positive mean weight   1   -    -    -    -
        peft             tensor      floor  after  mass  positive mean count    1   -    -    -    -
        joint            joint       -      before count drop     mean count    0.2 -    -    -    -
        linear           none        -      before none  -        sum  -        -   -    -    -    -
        task_arithmetic  none        -      before none  -        sum  -        -   -    -    -    -
        breadcrumbs      breadcrumbs floor  before none  -        sum  -        1   0.01 -    -    -
        breadcrumbs_ties breadcrumbs floor  before mass  positive sum  weight   1   0.01 -    -    -
        dare_linear      dare        -      before none  -        sum  -        1   -    -    true 0
        dare_ties        dare        -      before mass  positive sum  weight   1   -    -    true 0
        della_linear     della       -      before none  -        sum  -        1   -    0.15 true 0
        della            della       -      before mass  positive mean weight   1   -    0.15 true 0
        """.strip().splitlines(),
    )
}
"""preset → axis → its value; None if the preset does not use the axis."""

AXES: Final = (*_ROW, "lambda")
"""The names of the axes as recipe.toml and `set --merge` spell them."""


@dataclass(frozen=True)
class Rules:
    """One value for each axis, fully resolved.

    `density`, `gamma`, `epsilon`, `seed` and `lambda_` are canonical decimals.
    """

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
    gamma: str | None = None
    epsilon: str | None = None
    rescale: str | None = None
    seed: str | None = None

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
            elif axis in _NUMBERS:
                row[axis] = _NUMBERS[axis](value)
            else:
                row[axis] = _check_word(axis, value, f"{axis}: ")
        _check_combination(preset, row)
        rules = cls(preset=preset, lambda_=lambda_, **row)  # type: ignore[arg-type]
        check_trim_of(rules, rules.density or "1")
        return rules

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
    if axis in _NUMBERS:
        return _NUMBERS[axis](value, "")
    if axis == "lambda":
        return check_strength(value, "")
    return _check_word(axis, value, "")


def check_density(value: object, what: str = "density") -> str:
    """A density in (0, 1] as a canonical decimal; `InvalidInput` otherwise."""
    text = _number(value, what)
    if not 0 < Decimal(text) <= 1:
        raise InvalidInput(f"{what}: {text} is not in (0, 1]")
    return text


def check_gamma(value: object, what: str = "gamma") -> str:
    """A fraction of the largest changes in [0, 1) as a canonical decimal; `InvalidInput` otherwise."""
    text = _number(value, what)
    if not 0 <= Decimal(text) < 1:
        raise InvalidInput(f"{what}: {text} is not in [0, 1)")
    return text


def check_epsilon(value: object, what: str = "epsilon") -> str:
    """A distance of probabilities in [0, 0.5] as a canonical decimal; `InvalidInput` otherwise."""
    text = _number(value, what)
    if not 0 <= Decimal(text) <= Decimal("0.5"):
        raise InvalidInput(f"{what}: {text} is not in [0, 0.5]")
    return text


def check_seed(value: object, what: str = "seed") -> str:
    """A whole number from 0 to 2^63 − 1 as a canonical decimal; `InvalidInput` otherwise."""
    text = _number(value, what)
    if not (text.isdecimal() and int(text) <= MAX_SEED):
        raise InvalidInput(f"{what}: {text} is not a whole number from 0 to {MAX_SEED}")
    return text


_NUMBERS: Final[dict[str, Callable[..., str]]] = {
    "density": check_density,
    "gamma": check_gamma,
    "epsilon": check_epsilon,
    "seed": check_seed,
}


def drops_some(density: str) -> bool:
    """Whether a density, a canonical decimal, is below 1 as binary64."""
    return density != "1" and Decimal(density) < NEARLY_ONE


def check_trim_of(rules: Rules, density: str, what: str = "") -> None:
    """Refuses a density below 1 that `gamma` or `epsilon` do not fit, with `InvalidInput`."""
    kept = Decimal(density)
    if not drops_some(density):
        return
    if rules.trim == "breadcrumbs" and rules.gamma is not None and Decimal(rules.gamma) + kept > 1:
        raise InvalidInput(
            f"{what}gamma: {rules.gamma} and the density {density} are more than 1 together;"
            f" with this density, gamma is at most {1 - kept:f}"
        )
    if rules.trim == "della" and rules.epsilon is not None and Decimal(rules.epsilon) > min(kept, 1 - kept):
        raise InvalidInput(
            f"{what}epsilon: density - epsilon and density + epsilon must be from 0 to 1; with the density"
            f" {density}, epsilon is at most {min(kept, 1 - kept):f}"
        )


def check_strength(value: object, what: str = "alpha") -> str:
    """α or λ as a canonical decimal, finite as binary32; `InvalidInput` otherwise."""
    text = _number(value, what)
    if Decimal(text).copy_abs() > MAX_BINARY32:
        raise InvalidInput(f"{what}: {text} is beyond the range of binary32")
    return text


def _check_word(axis: str, value: object, what: str) -> str:
    words = tuple(PRESETS) if axis == "preset" else CHOICES[axis]
    text = str(value).lower() if axis == "rescale" and type(value) is bool else value
    if text not in words:
        raise InvalidInput(f"{what}{value!r:.60} is not one of {', '.join(words)}")
    return str(text)


def _number(value: object, what: str) -> str:
    if type(value) not in (str, int, float):
        raise InvalidInput(f"{what}: not a number: {value!r:.60}")
    try:
        return canonical.decimal(value)  # type: ignore[arg-type]
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error.message}") from None


_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "tensor": ("rank", "density"),
    "global": ("rank", "density"),
    "joint": ("density",),
    "breadcrumbs": ("rank", "density", "gamma"),
    "dare": ("density", "rescale", "seed"),
    "della": ("density", "epsilon", "rescale", "seed"),
}
"""trim → the axes that it needs."""


def _check_combination(preset: str, row: dict[str, str | None]) -> None:
    for axis in _NEEDS.get(row["trim"] or "", ()):
        if row[axis] is None:
            article = "an" if axis == "epsilon" else "a"
            raise InvalidInput(
                f"trim: {row['trim']} needs {article} {axis}, which the preset {preset} does not have"
            )
    if row["elect"] != "none" and row["on_tie"] is None:
        raise InvalidInput(f"elect: {row['elect']} needs on_tie, which the preset {preset} does not have")
    if row["merge"] == "mean" and row["divide"] is None:
        raise InvalidInput(f"merge: mean needs divide, which the preset {preset} does not have")


assert {field.name for field in fields(Rules)} == {"preset", "lambda_", *_ROW}
