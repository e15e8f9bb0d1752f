"""**recipe** — a base, a set of terms, and the merge rules.

**term** — a vector in a recipe, with its α, density, filter and join.

Terms stand in canonical order: by (vector id, α as binary32 with −0 as +0, effective density, filter, join),
then by name. A list over layers is compared number by number, and one number as a list of one. The order in
which terms were added does not count. A name is a label: it changes no bit of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, ROUND_UP, Context, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.limits import MAX_LAYER_VALUES, MAX_TERMS
from persona.objects import canonical, fields
from persona.objects.ids import object_id, require_id
from persona.objects.names import check_vector_name
from persona.objects.rules import NUMERICS, Rules, check_density, check_strength, check_trim_of, drops_some

if TYPE_CHECKING:
    from fractions import Fraction

    from persona.objects.layers import Place

Value = str | tuple[str, ...]
"""A canonical decimal, or several: a list over layers."""

JOINS: Final = ("vote", "add")


@dataclass(frozen=True)
class Term:
    """One vector in a recipe.

    `alpha` and `density` are canonical decimals, or tuples of them: lists over layers. If `density` is None,
    the recipe's applies.
    """

    name: str
    vector: str
    alpha: Value = "1"
    density: Value | None = None
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()
    join: str = "vote"

    def admits(self, tensor: str) -> bool:
        """Whether the filter admits a tensor.

        It does if one glob of `only` (if there are any) and none of `except` matches.
        """
        only, except_ = self._matchers
        if only and not any(matches(tensor) for matches in only):
            return False
        return not any(matches(tensor) for matches in except_)

    @cached_property
    def _matchers(self) -> tuple[list[Callable[[str], Any]], list[Callable[[str], Any]]]:
        """The globs of `only` and of `except` as functions; most commands need none, so they load here."""
        from persona.objects.globs import matcher

        return [matcher(pattern) for pattern in self.only], [matcher(pattern) for pattern in self.except_]

    @property
    def in_layers(self) -> bool:
        """Whether α or the density is a list over layers."""
        return isinstance(self.alpha, tuple) or isinstance(self.density, tuple)

    def alpha_at(self, place: Place | None) -> float:
        """α of a tensor in a layer (None: outside all layers), rounded once to binary32, −0 as +0."""
        if isinstance(self.alpha, str):
            return to_binary32(self.alpha)
        from persona.objects.layers import at_place

        return to_binary32(at_place(self.alpha, place))

    def density_at(self, rules: Rules, place: Place | None) -> float:
        """The effective density of a tensor in a layer (None: outside all layers), rounded to binary64."""
        density = self.density_in(rules)
        if isinstance(density, str):
            return float(density)
        from persona.objects.layers import at_place

        return float(at_place(density, place))

    def density_in(self, rules: Rules) -> Value:
        """The effective density: the term's own, else that of the rules, else "1"."""
        return self.density or rules.density or "1"

    def order(self, rules: Rules) -> tuple[Any, ...]:
        """The key of the canonical order of terms (docs/numerics.md), the name last."""
        alphas = tuple(to_binary32(alpha) for alpha in values(self.alpha))
        densities = tuple(float(density) for density in values(self.density_in(rules)))
        filter_ = canonical.encode({"except": sorted(self.except_), "only": sorted(self.only)})
        return (self.vector, alphas, densities, filter_, self.join, self.name)

    def to_json(self) -> dict[str, Any]:
        """The canonical form."""
        return {
            "alpha": _as_json(self.alpha),
            "density": _as_json(self.density),
            "except": list(self.except_),
            "join": self.join,
            "name": self.name,
            "only": list(self.only),
            "vector": self.vector,
        }


@dataclass(frozen=True)
class Recipe:
    """A base, terms in canonical order with unique names, and rules. Build it with `Recipe.of`.

    `base` is the id of the base object.
    """

    base: str
    terms: tuple[Term, ...]
    rules: Rules

    @classmethod
    def of(cls, base: str, terms: tuple[Term, ...] | list[Term], rules: Rules) -> Recipe:
        """A recipe of checked values, its terms put in canonical order. Raises `InvalidInput`."""
        checked = [_check_term(term, rules) for term in terms]
        if len(checked) > MAX_TERMS:
            raise InvalidInput(f"{len(checked)} vectors in one recipe; at most {MAX_TERMS} are possible")
        names = [term.name for term in checked]
        if len(set(names)) != len(names):
            raise InvalidInput(f"two vectors are named {next(n for n in names if names.count(n) > 1)!r}")
        return cls(base, tuple(sorted(checked, key=lambda term: term.order(rules))), rules)

    @cached_property
    def by_name(self) -> dict[str, Term]:
        """The terms by name."""
        return {term.name: term for term in self.terms}

    def nameless(self) -> Recipe:
        """The recipe with its names taken out: equal for two recipes that mean the same weights."""
        terms = tuple(replace(term, name=f"t{index}") for index, term in enumerate(self.terms))
        return replace(self, terms=terms)

    @property
    def key(self) -> str:
        """A digest of the recipe's meaning in this version of the arithmetic, 64 hex digits.

        Names do not count.
        """
        return object_id("recipe", b"numerics %d\0" % NUMERICS + self.nameless().encode())

    def density_of(self, term: Term) -> Value:
        """The density in effect for a term: a canonical decimal, or several."""
        return term.density_in(self.rules)

    def trims(self, term: Term) -> bool:
        """Whether changed elements of a term can be trimmed in some tensor.

        They can if the term votes, the rules trim, and its density is below 1 as binary64.
        """
        return (
            term.join == "vote"
            and self.rules.trim != "none"
            and any(map(drops_some, values(self.density_of(term))))
        )

    def encode(self) -> bytes:
        """The canonical payload."""
        return canonical.encode(
            {
                "base": self.base,
                "rules": self.rules.to_json(),
                "terms": [term.to_json() for term in self.terms],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Recipe:
        """The recipe of canonical bytes; `IntegrityError` for anything else."""
        value = fields.mapping(canonical.decode(data, "recipe"), "recipe", ("base", "rules", "terms"))
        rules = Rules.from_json(value["rules"])
        terms = tuple(_term(item) for item in fields.items(value["terms"], "recipe terms", MAX_TERMS))
        try:
            recipe = cls.of(require_id(value["base"], "recipe base"), terms, rules)
        except InvalidInput as error:
            raise IntegrityError(f"recipe: {error.message}") from None
        if recipe.terms != terms:
            raise IntegrityError("recipe: its terms must be in canonical order")
        return recipe


def values(value: Value) -> tuple[str, ...]:
    """The numbers of a list over layers; one number as a list of one."""
    return value if isinstance(value, tuple) else (value,)


def check_alpha(value: object, what: str = "alpha") -> Value:
    """α as a recipe holds it: one number, or a list over layers. Raises `InvalidInput`."""
    return _over_layers(check_strength, value, what)


def check_own_density(value: object, what: str = "density") -> Value:
    """A term's density as a recipe holds it: one number, or a list over layers. Raises `InvalidInput`."""
    return _over_layers(check_density, value, what)


def _over_layers(check: Callable[[object, str], str], value: object, what: str) -> Value:
    if isinstance(value, str) and "," in value:
        listed = ", ".join(part.strip() for part in value.split(","))
        raise InvalidInput(
            f"{what}: not a number: {value!r:.60}; write a number with a point, and a list over the layers in"
            f" brackets: [{listed:.60}]"
        )
    if not isinstance(value, (list, tuple)):
        return check(value, what)
    if not value:
        raise InvalidInput(f"{what}: the list has no number; give one number, or a list over the layers")
    if len(value) > MAX_LAYER_VALUES:
        raise InvalidInput(f"{what}: a list of {len(value)} numbers; at most {MAX_LAYER_VALUES} are possible")
    return tuple(check(item, what) for item in value)


def _as_json(value: Value | None) -> Any:
    return list(value) if isinstance(value, tuple) else value


def to_binary32(number: str | Fraction) -> float:
    """A canonical decimal, or a fraction, rounded once to binary32 (as a Python float), −0 as +0.

    It computes with integers, so no floating-point environment affects it.
    """
    exact = Decimal(number) if isinstance(number, str) else number
    numerator, denominator = exact.as_integer_ratio()
    magnitude = abs(numerator)
    # The unit in the last place is 2^unit: 24 bits at most stand before it, and subnormals share one unit.
    unit = max(magnitude.bit_length() - denominator.bit_length() - 24, -149)
    if magnitude << max(-unit, 0) >= denominator << max(unit, 0) + 24:
        unit += 1
    steps, rest = divmod(magnitude << max(-unit, 0), scaled := denominator << max(unit, 0))
    steps += 2 * rest > scaled or (2 * rest == scaled and steps & 1)
    found = math.ldexp(steps, unit)
    return -found if numerator < 0 and steps else found


def from_binary32(value: float) -> str:
    """The canonical decimal of the fewest digits that `to_binary32` rounds to a finite binary32.

    At most 9 digits; of several decimals the nearest. −0 gives "0". It is numpy's and Rust's choice.
    """
    for digits in range(1, 10):
        # Above a power of two the binary32 are half as dense, so the nearest decimal may be too far below it.
        for rounding in (ROUND_HALF_EVEN, ROUND_UP):
            text = canonical.decimal(Context(digits, rounding).create_decimal(value))
            if to_binary32(text) == value:
                return text
    raise InvalidInput(f"not a number of binary32: {value!r}")


def _check_term(term: Term, rules: Rules) -> Term:
    check_vector_name(term.name)
    where = f"vector {term.name}"
    for key, patterns in (("only", term.only), ("except", term.except_)):
        if len(patterns) > MAX_TERMS:
            raise InvalidInput(f"{where}: {key}: {len(patterns)} globs; at most {MAX_TERMS} are possible")
    for pattern in (*term.only, *term.except_):
        if type(pattern) is not str or not pattern:
            raise InvalidInput(
                f"{where}: a tensor filter is a glob such as 'model.layers.1?.mlp.*', not {pattern!r:.60}"
            )
    if term.join not in JOINS:
        raise InvalidInput(f"{where}: join: {term.join!r:.60} is not one of {', '.join(JOINS)}")
    density = None if term.density is None else check_own_density(term.density, f"{where}: density")
    if density is not None and rules.trim == "joint":
        raise InvalidInput(
            f"{where}: density: under trim = joint all vectors share one cut-off; remove this density"
            " and set the recipe's"
        )
    if density is not None and rules.trim == "none":
        raise InvalidInput(f"{where}: density: the recipe trims nothing (trim = none); remove it")
    if density is not None:
        _check_density_fits(rules, values(density), f"{where}: ")
    return Term(
        name=term.name,
        vector=term.vector,
        alpha=check_alpha(term.alpha, f"{where}: alpha"),
        density=density,
        only=tuple(sorted(set(term.only))),
        except_=tuple(sorted(set(term.except_))),
        join=term.join,
    )


def _term(value: Any) -> Term:
    item = fields.mapping(
        value, "recipe term", ("alpha", "density", "except", "join", "name", "only", "vector")
    )
    density = item["density"]
    return Term(
        name=fields.text(item["name"], "recipe term name"),
        vector=require_id(item["vector"], "recipe term vector"),
        alpha=_value(item["alpha"], "recipe term alpha"),
        density=None if density is None else _value(density, "recipe term density"),
        only=tuple(fields.items(item["only"], "recipe term only", MAX_TERMS)),
        except_=tuple(fields.items(item["except"], "recipe term except", MAX_TERMS)),
        join=fields.text(item["join"], "recipe term join"),
    )


def _check_density_fits(rules: Rules, densities: tuple[str, ...], what: str) -> None:
    for density in densities:
        check_trim_of(rules, density, what)
    # A list with 1 and a smaller number also gives some layers densities just below 1, which do not fit.
    margin = {"breadcrumbs": rules.gamma, "della": rules.epsilon}.get(rules.trim) or "0"
    if margin != "0" and len({drops_some(density) for density in densities}) == 2:
        axis = "gamma" if rules.trim == "breadcrumbs" else "epsilon"
        raise InvalidInput(
            f"{what}density: the list has 1 and smaller numbers, and {axis} = {margin} does not fit densities"
            f" just below 1; its numbers are at most {1 - Decimal(margin):f}"
        )


def _value(value: Any, where: str) -> Value:
    if type(value) is not list:
        return fields.decimal(value, where)
    return tuple(fields.decimal(item, where) for item in fields.items(value, where, MAX_LAYER_VALUES))
