"""**share** — the part of a model of a mergekit recipe that becomes one term: a filter, an α and a density.

mergekit gives a model a weight and a density for each tensor. A term has one of each. So a model whose values
differ between tensors becomes several terms, which share no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from functools import partial
from typing import Final

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.interchange import mergekit, settings
from persona.history.interchange.mergekit import MergekitRecipe, Source
from persona.objects import canonical
from persona.objects.layers import at_place, numbered, places
from persona.objects.recipe import Term, Value, from_binary32, to_binary32
from persona.objects.recipe import values as as_tuple

_TINY: Final = 1e-8
"""mergekit divides by no sum of weights that is nearer to 0."""
_EMBEDDINGS: Final = ("embed", "wte", "wpe")
"""Texts in the names of tensors that come before the layers."""


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


def layers_of(names: Iterable[str]) -> dict[str, int | None]:
    """The layer of each tensor; None outside the layers."""
    names = list(names)
    found = places(names)
    return {name: found[name][0] if name in found else None for name in names}


def shares(recipe: MergekitRecipe, layers: Mapping[str, int | None]) -> list[Share]:
    """The terms of a recipe, model after model. `layers`: each tensor that is merged → its layer.

    Raises `InvalidInput` for a model without a weight, for slices that are not the whole stack, and for
    weights whose mean is no change to the base.
    """
    _check_stack(recipe, layers)
    values = {source.written: _values(recipe, source, layers) for source in recipe.models}
    if recipe.normalize and not recipe.method.consensus:
        _divide(recipe, values, layers)
    elif recipe.method.name == "linear":
        _check_sum(recipe, values, layers)
    return [
        share for source in recipe.models for share in _of_model(source, values[source.written], list(layers))
    ]


def _check_stack(recipe: MergekitRecipe, layers: Mapping[str, int | None]) -> None:
    stop = recipe.slices[-1].stop
    depth = _depth(layers)
    if stop is not None and stop != depth:
        raise InvalidInput(
            f"{recipe.path}: slices: they end at layer {stop}, and the base has {depth} layers; persona"
            " keeps the base's layers. Run mergekit, and begin a repository with its output"
        )


def _depth(layers: Mapping[str, int | None]) -> int:
    return max((layer for layer in layers.values() if layer is not None), default=-1) + 1


def _values(recipe: MergekitRecipe, source: Source, layers: Mapping[str, int | None]) -> Values:
    """Weight and density of a model for each tensor; weight 0 where a slice does not have the model."""
    depth = _depth(layers)
    found: Values = {}
    for name, layer in layers.items():
        part = _slice_of(recipe, name, layer)
        here = next((item for item in part.sources if item.written == source.written), None)
        if here is None:
            found[name] = Fraction(0), 1.0
            continue
        t = settings.place(layer, part.start, depth if part.stop is None else part.stop)
        weight = settings.chosen(here.scopes, "weight", name)
        if weight is None:
            raise mergekit.missing_weight(recipe, source, name)
        density = (
            settings.chosen(here.scopes, "density", name) if "density" in recipe.method.parameters else None
        )
        kept = 1.0 if density is None else settings.at(density, t)
        value = settings.at(weight, t) if kept > 0 else 0.0
        found[name] = Fraction(value), min(kept, 1.0) if kept > 0 else 1.0
    return found


def _slice_of(recipe: MergekitRecipe, name: str, layer: int | None) -> mergekit.Slice:
    """The slice that a tensor belongs to; one outside the layers to the first, or the last."""
    if layer is None:
        return recipe.slices[0 if any(word in name for word in _EMBEDDINGS) else -1]
    return next(
        part for part in recipe.slices if part.start <= layer and (part.stop is None or layer < part.stop)
    )


def _divide(recipe: MergekitRecipe, values: dict[str, Values], layers: Mapping[str, int | None]) -> None:
    """Divides each weight by the sum of all weights at its tensor, the base's too in a mean of models."""
    for name, total in _totals(recipe, values, layers).items():
        if abs(total) < _TINY:
            if recipe.method.name == "linear":
                raise InvalidInput(f"{recipe.path}: weight: the weights for the tensor {name} add up to 0")
            continue
        for own in values.values():
            weight, density = own[name]
            own[name] = weight / total, density


def _check_sum(recipe: MergekitRecipe, values: dict[str, Values], layers: Mapping[str, int | None]) -> None:
    """Refuses a sum of whole models whose weights do not add up to 1, because it scales the base itself."""
    for name, total in _totals(recipe, values, layers).items():
        if abs(total - 1) > _TINY:
            raise InvalidInput(
                f"{recipe.path}: normalize: without it, linear adds whole models, and the weights for the"
                f" tensor {name} add up to {float(total):g}, which scales the base itself; set `normalize:"
                " true`, or use task_arithmetic"
            )


def _totals(
    recipe: MergekitRecipe, values: Mapping[str, Values], layers: Mapping[str, int | None]
) -> dict[str, Fraction]:
    """The sum of the weights for each tensor."""
    base: Values = {}
    if recipe.method.name == "linear" and recipe.base is not None:
        base = _values(recipe, Source(recipe.base, None, ()), layers)
    return {
        name: sum((own[name][0] for own in values.values()), base[name][0] if base else Fraction(0))
        for name in layers
    }


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
