"""`tune`: all strengths of `recipe.toml` together, for the most effect under a limit of damage.

`persona.behaviour.tuning` measures points and searches; this module writes the best one into `recipe.toml`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Final, Unpack

from persona.behaviour.assessing import MAX_DAMAGE
from persona.behaviour.measuring.gradients import strength
from persona.behaviour.tuning import GRADIENT, Measured, Trial, Tuning, Variable
from persona.errors import Blank, Call, InvalidInput, Keyword, Note
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.recipes import edit
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing
from persona.history.worktree.text_files import RecipeText
from persona.objects.recipe import Recipe

MEASUREMENTS: Final = 12
MAX_ALPHA: Final = 2.0
_FEWEST: Final = GRADIENT + 2
"""The start, its gradient, and one point more."""


@dataclass(frozen=True, repr=False)
class TunedTerm(Result):
    """A vector of the recipe before and after. Its densities are None unless densities are tuned."""

    name: str
    alpha_before: float | tuple[float, ...]
    alpha_after: float | tuple[float, ...]
    density_before: float | tuple[float, ...] | None
    density_after: float | tuple[float, ...] | None


@dataclass(frozen=True, repr=False)
class Tuned(Result):
    """The result of tuning.

    `change`: "edited" if `recipe.toml` has the new values; "proposed" if it would have them without
    `dry_run`; "unchanged" if no better point was found. `after` is `before` then. `within`: whether the best
    point is within the limit of damage. `measurements`: how many were spent; a gradient counts as 3.
    `trials`: each measured point, the start first.
    """

    change: str
    within: bool
    vectors: tuple[TunedTerm, ...]
    before: Measured
    after: Measured
    measurements: int
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def tune(
    history: History,
    *,
    probe: str | Sequence[str] = (),
    vector: str | Sequence[str] = (),
    measurements: int = MEASUREMENTS,
    seed: int = 0,
    max_damage: float = MAX_DAMAGE,
    max_alpha: float = MAX_ALPHA,
    any_sign: bool = False,
    densities: bool = False,
    dry_run: bool = False,
    **options: Unpack[ComputeOptions],
) -> Tuned:
    """Looks for the α of all vectors of `recipe.toml` that have the most effect under a limit of damage.

    It starts from `recipe.toml` as it is, takes one gradient, and measures one point after another as
    `verify` does (docs/behaviour.md, "Tuning all strengths together"). A better point replaces the numbers in
    `recipe.toml`, whose comments stay. Nothing is committed. A point above the limit is never taken.

    `probe`: only the effects of these patterns count, and only their vectors change. `vector`: only these
    vectors change. Without it, all vectors change whose pattern has probes. `measurements`: how many points
    are measured at most; a gradient counts as 3. `seed`: of the optimizer. `max_damage`: the ratio
    of the losses on neutral text that is allowed. `max_alpha`: the largest |α|, unless `recipe.toml` has a
    larger one. `any_sign`: an α may change its sign. `densities`: changes the densities of the vectors too.
    `dry_run`: leaves `recipe.toml` as it is.

    Raises `InvalidInput` if no vector belongs to a pattern with probes, and for probes as `verify` does;
    `UnknownName` for a vector that the recipe does not have; `Refused` if `recipe.toml` was edited meanwhile.
    """
    how = history.in_force(ComputeOptions, options)
    if measurements < _FEWEST:
        raise InvalidInput(f"must be at least {_FEWEST}, not {measurements}", parameter="measurements")
    for name, limit in (("max_damage", max_damage), ("max_alpha", max_alpha)):
        if not (math.isfinite(limit) and limit > 0):
            raise InvalidInput(f"must be a number above 0, not {limit!r:.40}", parameter=name)
    history.store.require_writable()
    text = text_files.recipe(history, to_edit=not dry_run)
    history.check_filters(text.recipe, text.data)
    tuning = Tuning(history, text.recipe, _texts(probe), max_damage, how)
    variables = tuning.variables(_texts(vector), max_alpha, any_sign=any_sign, densities=densities)
    best, spent = tuning.search(variables, measurements, seed)
    trials = tuple(tuning.trials.values())
    before, after = trials[0], tuning.trials[best.place]
    within = after.ratio <= max_damage
    found = within and after is not before
    recipe = tuning.recipe_at(variables, best.place) if found else text.recipe
    if found and not dry_run:
        _write(history, text, recipe)
    return Tuned(
        change="unchanged" if not found else "proposed" if dry_run else "edited",
        within=within,
        vectors=tuple(_terms(text.recipe, recipe, densities)),
        before=before.measured,
        after=after.measured if found else before.measured,
        measurements=spent,
        trials=trials,
        notes=tuple(_notes(tuning, variables, recipe, within, found)),
    )


def _terms(before: Recipe, after: Recipe, densities: bool) -> Iterator[TunedTerm]:
    for name, old in before.by_name.items():
        new = after.by_name[name]
        yield TunedTerm(
            name,
            shown(old.alpha),
            shown(new.alpha),
            shown(before.density_of(old)) if densities else None,
            shown(after.density_of(new)) if densities else None,
        )


def _notes(
    tuning: Tuning, variables: Sequence[Variable], recipe: Recipe, within: bool, found: bool
) -> Iterator[str]:
    tuned = {variable.name for variable in variables}
    if fixed := [name for name in tuning.unmeasured if name not in tuned]:
        yield f"not tuned, because no probes say what they should do: {', '.join(fixed)}"
    if without := tuning.without_pairs:
        yield (
            f"the probes of {', '.join(without)} have no pairs of answers: their effect was measured, but no"
            " gradient was taken of it"
        )
    for variable in variables:
        if variable.key == "alpha" and variable.start and not strength(recipe.by_name[variable.name]):
            yield Note(
                f"{variable.name} is at α 0: on these probes, the recipe does more without it",
                (Call("recipe.remove", variable.name), " drops it"),
            )
    if not within:
        yield Note(
            f"{RECIPE_FILE} is above the limit of damage, and no point under it was found",
            (
                "try more measurements, or lower an α by hand: ",
                Call("recipe.set", Blank("NAME"), alpha=Blank("A")),
            ),
        )
    elif not found:
        yield Note(
            f"no better point was found, so {RECIPE_FILE} stays as it is",
            ("with more measurements it looks farther: ", Keyword(measurements=Blank("N"))),
        )


def _write(history: History, text: RecipeText, recipe: Recipe) -> None:
    """Puts the numbers of a recipe into `recipe.toml`, unless it was edited since `text` was read."""
    edited = decode(text.data)
    for name, term in recipe.by_name.items():
        old = text.recipe.by_name[name]
        keys = {
            key: getattr(term, key) for key in ("alpha", "density") if getattr(term, key) != getattr(old, key)
        }
        if keys:
            edited = edit.set_term(edited, name, keys)
    with changing(history) as tree:
        made = history.new_recipe(edited.encode(), where=None)
        assert made == recipe, "the text has to mean the recipe that was measured"
        seen = {RECIPE_FILE: text_files.blob_id(text.data)}
        tree.apply({RECIPE_FILE: encode(edited, like=text.data)}, seen)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
