"""**share** — the part of a model of a mergekit recipe that becomes one term: a filter, an α and a density.

mergekit gives a model a weight and a density for each tensor. A term has one of each. So a model whose values
differ between tensors becomes several terms, which share no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Context, Decimal
from fractions import Fraction
from functools import partial
from typing import Final

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.interchange import mergekit, settings
from persona.history.interchange.architectures import comes_first
from persona.history.interchange.mergekit import MergekitRecipe, Source
from persona.objects import canonical
from persona.objects.layers import Place, at_place, numbered, places
from persona.objects.recipe import Term, Value, from_binary32, to_binary32
from persona.objects.recipe import values as as_tuple

_TINY: Final = 1e-8
"""mergekit divides by no sum of weights that is nearer to 0."""


@dataclass(frozen=True)
class Share:
    """A term of a model, without its vector. `names`: the tensors that its filter admits."""

    source: Source
    alpha: Value
    density: Value
    only: tuple[str, ...]
    except_: tuple[str, ...]
    names: frozenset[str]


Values = dict[str, tuple[Fraction, float]]
"""tensor → weight and density"""


Tensors = Mapping[str, Place | None]
"""tensor → its layer and the number of layers of its stack; None outside the layers"""


def shares(recipe: MergekitRecipe, names: Sequence[str], *, described: bool = True) -> list[Share]:
    """The terms of a recipe, model after model. `names`: the tensors that are merged.

    `described`: whether mergekit describes the architecture of the models (see `architectures`). Raises
    `InvalidInput` for a model without a weight, for slices that are not the whole stack, and for weights
    whose mean is no change to the base.
    """
    found = places(names)
    tensors = {name: found.get(name) for name in names}
    _check_stack(recipe, tensors)
    slices = {name: _slice_of(recipe, name, place, described) for name, place in tensors.items()}
    values = {source.written: _values(recipe, source, tensors, slices) for source in recipe.models}
    if recipe.normalize and not recipe.method.consensus:
        _divide(recipe, values, _totals(recipe, values, tensors, slices))
    elif recipe.method.name == "linear":
        _check_sum(recipe, _totals(recipe, values, tensors, slices))
    return [
        share
        for source in recipe.models
        for share in _of_model(source, _without_nothing(values[source.written]), names)
    ]


def _check_stack(recipe: MergekitRecipe, tensors: Tensors) -> None:
    stop = recipe.slices[-1].stop
    depth = max((place[1] for place in tensors.values() if place is not None), default=0)
    if stop is not None and stop != depth:
        raise InvalidInput(
            f"{recipe.path}: slices: they end at layer {stop}, and the base has {depth} layers; persona"
            " keeps the base's layers. Run mergekit, and begin a repository with its output"
        )


def _values(
    recipe: MergekitRecipe, source: Source, tensors: Tensors, slices: Mapping[str, mergekit.Slice]
) -> Values:
    """Weight and density of a model for each tensor; weight 0 where a slice does not have the model."""
    found: Values = {}
    for name, place in tensors.items():
        part = slices[name]
        here = next((item for item in part.sources if item.written == source.written), None)
        if here is None:
            found[name] = Fraction(0), 1.0
            continue
        layer, depth = place or (None, 0)
        t = settings.place(layer, part.start, depth if part.stop is None else part.stop)
        weight = settings.chosen(here.scopes, "weight", name)
        if weight is None:
            raise mergekit.missing_weight(recipe, source, name)
        density = (
            settings.chosen(here.scopes, "density", name) if "density" in recipe.method.parameters else None
        )
        kept = 1.0 if density is None else settings.at(density, t)
        found[name] = Fraction(settings.at(weight, t)), min(max(kept, 0.0), 1.0)
    return found


def _without_nothing(values: Values) -> Values:
    """The values of a model, with weight 0 where its density keeps nothing.

    Before, its weight counts: mergekit divides by it, too.
    """
    nothing = Fraction(0), 1.0
    return {name: (weight, kept) if kept > 0 else nothing for name, (weight, kept) in values.items()}


def _slice_of(recipe: MergekitRecipe, name: str, place: Place | None, described: bool) -> mergekit.Slice:
    """The slice that a tensor belongs to; one outside the layers to the first, or the last.

    After the layers, mergekit merges only as many models as the first slice has.
    """
    first, last = recipe.slices[0], recipe.slices[-1]
    if place is not None:
        return next(part for part in recipe.slices if part.stop is None or place[0] < part.stop)
    if comes_first(name, described=described):
        return first
    return replace(last, sources=last.sources[: len(first.sources)])


def _divide(recipe: MergekitRecipe, values: dict[str, Values], totals: Mapping[str, Fraction]) -> None:
    """Divides each weight by the sum of all weights at its tensor, the base's too in a mean of models."""
    for name, total in totals.items():
        if abs(total) < _TINY:
            if recipe.method.name == "linear":
                raise InvalidInput(f"{recipe.path}: weight: the weights for the tensor {name} add up to 0")
            continue
        for own in values.values():
            weight, density = own[name]
            own[name] = weight / total, density


def _check_sum(recipe: MergekitRecipe, totals: Mapping[str, Fraction]) -> None:
    """Refuses a sum of whole models whose weights do not add up to 1, because it scales the base itself."""
    for name, total in totals.items():
        if abs(total - 1) > _TINY:
            raise InvalidInput(
                f"{recipe.path}: normalize: without it, linear adds whole models, and the weights for the"
                f" tensor {name} add up to {float(total):g}, which scales the base itself; set `normalize:"
                " true`, or use task_arithmetic"
            )


def _totals(
    recipe: MergekitRecipe,
    values: Mapping[str, Values],
    tensors: Tensors,
    slices: Mapping[str, mergekit.Slice],
) -> dict[str, Fraction]:
    """The sum of the weights for each tensor."""
    every = list(values.values())
    if recipe.method.name == "linear" and recipe.base is not None:
        every.append(_values(recipe, Source(recipe.base, None, ()), tensors, slices))
    return {name: sum((own[name][0] for own in every), Fraction(0)) for name in tensors}


# -- one model -----------------------------------------------------------------------------------------------


def _of_model(source: Source, values: Values, names: Sequence[str]) -> list[Share]:
    """The terms of one model: one for all tensors that can share an α and a density.

    Tensors without a weight have none, unless the model has no weight at all.
    """
    groups = _groups(source, values, names)
    some = {key: group for key, group in groups.items() if any(float(one) for one in as_tuple(key[0]))}
    words = _words(source)
    found = []
    for (alpha, density), group in (some or {("0", "1"): set(names)}).items():
        only, except_ = _filter(group, words, names)
        found.append(Share(source, alpha, density, only, except_, frozenset(group)))
    return found


Key = tuple[Value, Value]
"""An α and a density."""


def _groups(source: Source, values: Values, names: Sequence[str]) -> dict[Key, set[str]]:
    """The tensors by their α and density. Modules whose values follow the layers have lists over them."""
    layers = places(names)
    modules: dict[tuple[str, tuple[str, ...]], dict[int, str]] = {}
    for name in names:
        if name in layers:
            stack, layer, inside = numbered(name) or ("", 0, ())
            modules.setdefault((stack, inside), {})[layer] = name
    groups: dict[Key, set[str]] = {}
    for module in modules.values():
        own = [values[name] for _, name in sorted(module.items())]
        depth = layers[module[max(module)]][1]
        if len(set(own)) > 1 and len(own) == depth:
            key = (
                _over_layers([weight for weight, _ in own], _written(source, "weight"), _decimal32),
                _over_layers([Fraction(kept) for _, kept in own], _written(source, "density"), _decimal),
            )
            groups.setdefault(key, set()).update(module.values())
    done = {name for group in groups.values() for name in group}
    for name in names:
        if name not in done:
            weight, density = values[name]
            alone: Key = _decimal32(weight), canonical.decimal(density)
            outside = (
                key
                for key in groups
                if name not in layers and (as_tuple(key[0])[0], as_tuple(key[1])[0]) == alone
            )
            groups.setdefault(next(outside, alone), set()).add(name)
    return groups


def _over_layers(
    wanted: Sequence[Fraction], written: Iterable[settings.Gradient], decimal: Callable[[Fraction], str]
) -> Value:
    """Values over the layers in as few numbers as possible: one, a list of the file, two ends, or all."""
    every = tuple(map(decimal, wanted))
    if len(set(every)) == 1:
        return every[0]
    lists = [tuple(map(canonical.decimal, each)) for each in written]
    for few in [*lists, (every[0], every[-1])]:
        found = (at_place(few, (layer, len(every))) for layer in range(len(every)))
        if all(_nearest(one) == _nearest(other) for one, other in zip(found, wanted, strict=True)):
            return few
    return every


def _written(source: Source, key: str) -> Iterator[settings.Gradient]:
    """The gradients of a parameter in the file."""
    for scope in source.scopes:
        yield from settings.gradients(scope.get(key))


def _decimal32(value: Fraction) -> str:
    """A weight as a decimal: as it was written if that is short, else the nearest binary32."""
    return _decimal(value) if Fraction(float(value)) == value else from_binary32(_nearest(value))


def _decimal(value: Fraction) -> str:
    return canonical.decimal(float(value))


def _nearest(value: Fraction) -> float:
    """The binary32 nearest to a fraction, through a decimal of 60 digits."""
    return to_binary32(str(Context(60).divide(Decimal(value.numerator), Decimal(value.denominator))))


def _words(source: Source) -> list[str]:
    """The filters that a model's settings name, in order."""
    found = [
        word
        for scope in source.scopes
        for key in ("weight", "density")
        if key in scope
        for word in settings.filters(scope[key])
    ]
    return list(dict.fromkeys(found))


def _filter(
    group: set[str], words: Sequence[str], names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Globs that admit exactly these of the tensors, few if they can be made of the words in the file."""
    if len(group) == len(names):
        return (), ()
    meant = {word: {name for name in names if word in name} for word in words}
    inside = [word for word, found in meant.items() if found & group]
    within = [word for word in inside if meant[word] <= group]
    outside = [word for word, found in meant.items() if found and not found & group]

    def exact(only: Sequence[str], except_: Sequence[str]) -> bool:
        return _admitted(globs(only), globs(except_), names) == group

    for only, except_ in (([], outside), (within, []), (within, outside), (inside, outside)):
        if (only or except_) and exact(only, except_):
            only = _needed(only, partial(exact, except_=except_))
            return globs(only), globs(_needed(except_, partial(exact, only)))
    listed, others = _listing(group, names), _listing(set(names) - group, names)
    return (tuple(listed), ()) if len(listed) <= len(others) else ((), tuple(others))


def globs(words: Iterable[str]) -> tuple[str, ...]:
    """The globs of the names that hold these texts."""
    return tuple(f"*{quoted(word)}*" for word in words)


def quoted(text: str) -> str:
    """A text as a glob that matches it alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def _admitted(only: tuple[str, ...], except_: tuple[str, ...], names: Iterable[str]) -> set[str]:
    term = Term("", "", only=only, except_=except_)
    return {name for name in names if term.admits(name)}


def _needed(words: list[str], enough: Callable[[list[str]], bool]) -> list[str]:
    """The words without those that change nothing."""
    for word in list(words):
        rest = [other for other in words if other != word]
        if rest and enough(rest):
            words = rest
    return words


def _listing(group: set[str], names: Sequence[str]) -> list[str]:
    """Globs for a group: whole layers, one module in all layers, or whole names."""
    found: list[str] = []
    left = set(group)
    for pattern in _patterns(group):
        admitted = _admitted((pattern,), (), names)
        if admitted <= group and admitted & left:
            found.append(pattern)
            left -= admitted
    return found + [quoted(name) for name in names if name in left]


def _patterns(group: Iterable[str]) -> list[str]:
    """Globs that may fit: for each tensor of a layer, its module in all layers, and its whole layer."""
    modules: dict[str, None] = {}
    layers: dict[str, None] = {}
    for name in sorted(group):
        if split := numbered(name):
            stack, layer, inside = split
            modules[".".join([quoted(stack), "*", *map(quoted, inside)])] = None
            layers[f"{quoted(stack)}.{layer}.*"] = None
    return [*modules, *layers]
