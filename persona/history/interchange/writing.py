"""A recipe as a mergekit YAML that gives its weights, or the reason why there is none.

The YAML says `dtype: float32`, so mergekit computes as persona does, except for the order of sums, the
elements that are tied at a cut-off, and the exactness rules of docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from persona.errors import Blank, Call, Hint, InvalidInput
from persona.history.interchange import settings
from persona.objects.layers import places
from persona.objects.recipe import Recipe, Term, Value, to_binary32
from persona.objects.recipe import values as as_tuple
from persona.objects.rules import Rules


def method_of(recipe: Recipe, *, editable: bool) -> tuple[str, dict[str, Any]]:
    """The merge method of a recipe, and its parameters. `editable`: whether the work tree holds this recipe.

    Raises `InvalidInput` that names the rules which mergekit does not have.
    """
    lacking = _Lacking()
    found = _method(recipe, lacking)
    if lacking.what:
        written = (Call("checkout", Blank("REV"), out=Blank("OUT")), " writes the merged weights")
        hint: Hint = written
        if editable and (axes := _mending(recipe, lacking)):
            call = Call("recipe.set_rules", axes)
            hint = (call, " takes the rules of mergekit, and changes the weights; ", *written)
        raise InvalidInput(f"mergekit has no {', no '.join(lacking.what)}", hint=hint)
    return found


def _mending(recipe: Recipe, lacking: _Lacking) -> dict[str, str] | None:
    """The axes with which mergekit has all rules of a recipe, as few as possible; None if there are none."""
    rules = recipe.rules
    kept = {} if rules.density is None else {"density": rules.density}
    for axes in (lacking.axes, {"preset": "mergekit", **lacking.axes, **kept}):
        with suppress(InvalidInput):
            mended = Rules.of(**{"preset": rules.preset, **rules.changed_axes(), **axes})
            left = _Lacking()
            _method(Recipe.of(recipe.base, recipe.terms, mended), left)
            if not left.what:
                return axes
    return None


def _method(recipe: Recipe, lacking: _Lacking) -> tuple[str, dict[str, Any]]:
    rules = recipe.rules
    trimmed = any(map(recipe.trims, recipe.terms))
    votes = rules.elect != "none"
    if trimmed:
        _check_trim(recipe, votes, lacking)
    added = [term.name for term in recipe.terms if term.join == "add"]
    if added and (votes or trimmed or to_binary32(rules.lambda_) != 1):
        lacking.add(f"join = add ({added[0]})")
    parameters: dict[str, Any] = {}
    if votes:
        parameters["normalize"] = _normalize(recipe, lacking)
        if len(recipe.terms) > 1:
            for axis, wanted in (("elect", "mass"), ("weigh", "before"), ("on_tie", "positive")):
                lacking.unless(recipe, axis, wanted)
    elif rules.merge != "sum":
        lacking.unless(recipe, "merge", "sum")
    if float(rules.lambda_) != 1:
        parameters["lambda"] = float(rules.lambda_)
    if rules.trim == "breadcrumbs" and trimmed:
        parameters["gamma"] = float(rules.gamma or 0)
        return ("breadcrumbs_ties" if votes else "breadcrumbs"), parameters
    return ("ties" if votes else "task_arithmetic"), parameters


class _Lacking:
    """What a recipe has and mergekit lacks, and the rules that mergekit has instead."""

    def __init__(self) -> None:
        self.what: list[str] = []
        self.axes: dict[str, str] = {}

    def add(self, what: str, **axes: str) -> None:
        self.what.append(what)
        self.axes |= axes

    def unless(self, recipe: Recipe, axis: str, wanted: str) -> None:
        """Adds an axis that has another value."""
        value = recipe.rules.axes()[axis]
        if value != wanted:
            self.add(f"{axis} = {value}", **{axis: wanted})


def _check_trim(recipe: Recipe, votes: bool, lacking: _Lacking) -> None:
    trim = recipe.rules.trim
    if trim in ("dare", "della"):
        lacking.add(f"trim = {trim} with a seed (it draws other elements)")
    elif trim == "breadcrumbs":
        lacking.unless(recipe, "rank", "floor")
    else:
        if trim != "tensor":
            lacking.add(f"trim = {trim}", trim="tensor")
        if recipe.rules.rank is not None:
            lacking.unless(recipe, "rank", "floor1")
        if not votes:
            lacking.add(f"trim = {trim} without an election")


def _normalize(recipe: Recipe, lacking: _Lacking) -> bool:
    """Whether mergekit divides by the sum of weights: as the rules do for these strengths."""
    rules = recipe.rules
    if rules.merge == "sum":
        return False
    lacking.unless(recipe, "merge", "mean")
    alphas = [one for term in recipe.terms for one in as_tuple(term.alpha)]
    if rules.divide == "weight" or all(to_binary32(alpha) == 1 for alpha in alphas):
        return True
    if len(recipe.terms) > 1 or rules.divide not in ("strength", "count"):
        lacking.add(f"divide = {rules.divide} with strengths other than 1", divide="weight")
    return False


# -- the models ----------------------------------------------------------------------------------------------


def model_parameters(
    recipe: Recipe, terms: Sequence[Term], names: Sequence[str], changed: Collection[str]
) -> dict[str, Any]:
    """The weight and density of the terms of one vector. `names`: the tensors that are merged.

    `changed`: those of them that the vector changes; for the others, no value matters. Raises `InvalidInput`
    for terms that reach one tensor, and for filters that mergekit cannot say.
    """
    for name in changed:
        reaching = [term.name for term in terms if term.admits(name)]
        if len(reaching) > 1:
            raise InvalidInput(
                f"mergekit takes a model once, and {' and '.join(reaching)} are one vector that reaches"
                f" {name} twice; give one of them the sum of their strengths"
            )
    found = {"weight": _setting(terms, names, changed, lambda term: term.alpha, "0")}
    if any(map(recipe.trims, recipe.terms)):
        found["density"] = _setting(terms, names, changed, recipe.density_of, "1")
    return found


def _setting(
    terms: Sequence[Term],
    names: Sequence[str],
    changed: Collection[str],
    value_of: Callable[[Term], Value],
    rest: str,
) -> Any:
    """A parameter with filters, so that each tensor has the value of its term; `rest` where no term is."""
    layers = places(names)
    for setting in _settings(terms, names, value_of, rest):
        if all(_fits(setting, name, layers.get(name), terms, value_of, rest) for name in changed):
            return setting
    raise InvalidInput(
        f"the filter of {terms[0].name} cannot be said with the filters of mergekit, which are parts of names"
    )


def _settings(
    terms: Sequence[Term], names: Sequence[str], value_of: Callable[[Term], Value], rest: str
) -> Iterator[Any]:
    """Ways to write a parameter, the shortest first; the last one lists tensors by name."""
    if len({value_of(term) for term in terms}) == 1 and (rest == "1" or _reach_all(terms, names)):
        yield _written(value_of(terms[0]))
    for last in [*(term for term in terms if not term.only), None]:
        found: list[dict[str, Any]] = []
        for term in terms:
            if term is not last:
                found += [_when(_word(glob), rest) for glob in term.except_ if term.only]
                found += [_when(_word(glob), value_of(term)) for glob in term.only]
        if last is not None:
            found = [*(_when(_word(glob), rest) for glob in last.except_ if len(terms) == 1), *found]
        yield [*found, {"value": _written(rest if last is None else value_of(last))}]
    longest = sorted(names, key=len, reverse=True)  # a name may be a part of a longer one
    by_name = [_when(name, value) for name in longest if (value := _value_at(terms, name, value_of, rest))]
    yield [*by_name, {"value": _written(rest)}]


def _reach_all(terms: Sequence[Term], names: Sequence[str]) -> bool:
    return all(any(term.admits(name) for term in terms) for name in names)


def _when(word: str, value: Value) -> dict[str, Any]:
    return {"filter": word, "value": _written(value)}


def _word(glob: str) -> str:
    """The text that a name has to contain for a glob; checked against every name afterwards."""
    return glob.strip("*").replace("[[]", "[").replace("[*]", "*").replace("[?]", "?")


def _written(value: Value) -> Any:
    return [float(one) for one in value] if isinstance(value, tuple) else float(value)


def _value_at(terms: Sequence[Term], name: str, value_of: Callable[[Term], Value], rest: str) -> Value:
    return next((value_of(term) for term in terms if term.admits(name)), rest)


def _fits(
    setting: Any,
    name: str,
    place: tuple[int, int] | None,
    terms: Sequence[Term],
    value_of: Callable[[Term], Value],
    rest: str,
) -> bool:
    """Whether mergekit reads the value for a tensor that persona has there, as binary32."""
    chosen = settings.chosen(({"": setting},), "", name)
    if chosen is None:
        return False
    t = 0.0 if place is None else settings.place(place[0], 0, place[1])
    wanted = Term("", "", alpha=_value_at(terms, name, value_of, rest)).alpha_at(place)
    return to_binary32(repr(settings.at(chosen, t))) == wanted
