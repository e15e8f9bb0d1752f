"""Tensors of a checkpoint that the base has under other names.

Pairs are found in three steps. First, tensors that the base holds in another layout are put together or cut
(`stacks`). Then known words are exchanged: `gamma` is `weight`. Then rules pair the other tensors: replace
some parts of a name by others, `transformer` by nothing. The rule that pairs most tensors of equal shapes
comes first. If two rules pair equally many, but in another way, the weights decide: a fine-tuned tensor is
like its base's. If the weights cannot decide, the tensors are *doubtful*. A pair of which no weights tell,
such as two norms, counts if then all tensors of one side have a partner. A tensor that is cut or put together
is taken only if the weights show that each of its parts is in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Final

from persona.frozen import dataclass
from persona.intake import stacks
from persona.intake.likeness import Likeness
from persona.intake.naming import pattern
from persona.intake.parts import Held
from persona.intake.second_models import common_end, ends_of
from persona.objects import growth
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec
from persona.weights.tied import is_head, is_shared

_WORDS: Final = (
    {"gamma": "weight", "beta": "bias"},
    {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"},
    {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"},
)
"""Words of one library and what another calls the same."""
_SAMPLE: Final = 4
_FEW: Final = 3
_MOST_KINDS: Final = 60
"""Kinds of names on either side that rules are made of; of more, some are chosen."""


@dataclass(frozen=True)
class Renames:
    """The pairs that were found: a tensor of the base → the checkpoint's, and the names that stood there.

    `doubtful`: tensors of the base that are renamed as well, but by no rule that could be found. `unpaired`:
    tensors of the checkpoint without a partner. `unlike`: pairs by name whose weights are not alike.
    `rules`: those that make a name the base's.
    """

    pairs: Mapping[str, Held]
    sources: Mapping[str, tuple[str, ...]]
    doubtful: tuple[str, ...]
    unpaired: tuple[str, ...]
    unlike: tuple[tuple[str, Held], ...] = ()
    rules: frozenset[_Rule] = frozenset()

    def names(self, name: str) -> set[str]:
        """The names that rules make of the name of another tensor of the checkpoint."""
        return {new for rule in self.rules for new in rule.applied(name)}

    @property
    def examples(self) -> list[str]:
        """Pairs of names as phrases, one of each kind."""
        found: dict[str, str] = {}
        for held, own in self._groups().items():
            found.setdefault(pattern(held[0]), f"{_together(held)} is the base's {_together(own)}")
        return list(found.values())

    @property
    def kinds(self) -> dict[str, str]:
        """The names in the checkpoint → the base's, without numbers, for the note on a vector's origin."""
        found: dict[str, dict[str, None]] = {}
        for held, own in self._groups().items():
            kinds = " + ".join(dict.fromkeys(map(pattern, held)))
            found.setdefault(kinds, {}).update(dict.fromkeys(map(pattern, own)))
        return {kinds: " + ".join(own) for kinds, own in found.items()}

    def _groups(self) -> dict[tuple[str, ...], list[str]]:
        """The tensors of the checkpoint that hold the same tensors of the base, and those."""
        found: dict[tuple[str, ...], list[str]] = {}
        for name, held in self.sources.items():
            found.setdefault(held, []).append(name)
        return found


def _together(names: Sequence[str]) -> str:
    """The names of tensors that hold something together, some of many."""
    return " + ".join(names) if len(names) <= _FEW else f"{names[0]} + … ({len(names)} tensors)"


def find_renames(
    absent: Mapping[str, TensorSpec], unknown: Mapping[str, Held], likeness: Likeness
) -> Renames:
    """Pairs tensors of the base that a checkpoint lacks with tensors of it that the base lacks."""
    search = _Search(absent, stacks.relaid(absent, unknown), likeness)
    search.by_words()
    search.by_rules()
    search.by_taken_rules()
    search.by_shared_names()
    search.drop_guesses()
    pairs = {name: search.given[held].named(name) for name, held in search.pairs.items()}
    own = {run.name: name for name, one in unknown.items() for run in one.runs}
    sources = {name: tuple(dict.fromkeys(own[run.name] for run in one.runs)) for name, one in pairs.items()}
    unsure = _unproven(search, absent, unknown)
    unsure += likeness.strangers((absent[name], one) for name, one in pairs.items())
    unsure += _disputed(pairs, absent, unknown, likeness)
    pairs = {name: one for name, one in pairs.items() if name not in unsure}
    sources = {name: sources[name] for name in pairs}
    used = {name for names in sources.values() for name in names}
    rest = {name: one for name, one in unknown.items() if name not in used}
    lost = {name: spec for name, spec in absent.items() if name not in pairs}
    doubtful: tuple[str, ...] = ()
    if (
        unsure
        or (search.doubtful and _shapes(lost.values()) == _shapes(one.spec for one in rest.values()))
        or (lost and any(_is_relaid(search, held, unknown) for held in search.left.values()))
        or _pair_up(lost, rest)
        or _same_size(lost, rest)
        or likeness.any_alike(lost.values(), rest.values())
    ):
        doubtful = tuple(lost)
    unlike = tuple((new, search.given[held]) for held, new in search.unlike.items() if held in search.given)
    unlike += tuple((name, search.given[search.pairs[name]]) for name in unsure)
    rules = frozenset(rule for new, names in sources.items() for name in names for rule in _rules(name, new))
    return Renames(pairs, sources, doubtful, tuple(rest), unlike, rules)


def _is_relaid(search: _Search, held: str, unknown: Mapping[str, Held]) -> bool:
    """Whether a tensor is cut from others or put together from them."""
    return search.given[held] is not unknown.get(held)


def _disputed(
    pairs: Mapping[str, Held], absent: Mapping[str, TensorSpec], unknown: Mapping[str, Held], like: Likeness
) -> list[str]:
    """The tensors of the base that the checkpoint holds under two other names: it holds two models."""
    used = {run.name for one in pairs.values() for run in one.runs}
    others = {name: one for name, one in unknown.items() if not used & {run.name for run in one.runs}}
    ends: dict[tuple[str, ...], list[str]] = {}
    for name in others:
        ends.setdefault(ends_of(name), []).append(name)
    return [
        name
        for name in pairs
        for other in ends.get(ends_of(name), ())
        if others[other].spec.shape == absent[name].shape and like.is_alike(absent[name], others[other])
    ]


def _unproven(search: _Search, absent: Mapping[str, TensorSpec], unknown: Mapping[str, Held]) -> list[str]:
    """The pairs in another layout of which the weights do not show that they stand in the base's order.

    Heads may be grouped in a fused projection, or the parts of several devices may follow one another. A bias
    stands in the order of the matrix beside it.
    """
    relaid = [name for name, held in search.pairs.items() if _is_relaid(search, held, unknown)]
    proven = {
        name for name in relaid if search.likeness.is_in_order(absent[name], search.given[search.pairs[name]])
    }
    modules = {name.rpartition(".")[0] for name in proven if len(absent[name].shape) > 1}
    return [
        name
        for name in relaid
        if name not in proven and (len(absent[name].shape) > 1 or name.rpartition(".")[0] not in modules)
    ]


class _Search:
    def __init__(
        self, absent: Mapping[str, TensorSpec], given: Mapping[str, Held], likeness: Likeness
    ) -> None:
        self.given = given
        self.absent = dict(absent)
        self.left = {name: name for name in given}
        """The name that a tensor has after known words were exchanged → its name."""
        self.likeness = likeness
        self.pairs: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        """The names after the exchange → those of the base, as far as they are paired."""
        self.guesses: list[str] = []
        self.unlike: dict[str, str] = {}
        """What rules pair, but are not like each other."""
        self.doubtful = False

    def by_words(self) -> None:
        """Exchanges known words where that gives an end of a name that the base has."""
        ends = {end for name in self.absent for end in _ends(name)}
        words = [table for one in _WORDS for table in (one, {new: old for old, new in one.items()})]
        for name in list(self.left):
            for table in words:
                new = _exchanged(name, table)
                if new != name and _end(new, name) in ends and _end(name, new) not in ends:
                    self.left[new] = self.left.pop(name)
                    break
        same = {name: name for name in self.left if self._fits(name, name)}
        if self._alike(same) is not False:
            self._take(same)

    def by_rules(self) -> None:
        """Takes the rule that pairs most, until none pairs any."""
        while self.left and self.absent:
            found = self._best()
            if not found:
                return
            chosen = _undisputed(found) or _undisputed([pairs for pairs in found if self._alike(pairs)])
            if chosen is None:
                self.doubtful = True
                return
            if not self._alike(chosen):
                self.guesses += chosen.values()
            self._take(chosen)

    def by_taken_rules(self) -> None:
        """Pairs tensors that only have other rows by the rules that paired others: tokens may be new."""
        if not self.left or not self.absent:
            return
        rules = {rule for name, base_name in self.taken.items() for rule in _rules(name, base_name)}
        found: dict[str, str] = {}
        for name in self.left:
            for new in {new for rule in rules for new in rule.applied(name)} & self.absent.keys():
                if _has_other_rows(self.absent[new], self.given[self.left[name]].spec):
                    found[name] = new
        if len(set(found.values())) == len(found):
            self._take(found)

    def by_shared_names(self) -> None:
        """Takes a head or an embedding with other rows, if only one on either side can be meant."""
        for base_name in [name for name in self.absent if is_shared(name)]:
            spec = self.absent[base_name]
            given = [name for name in self.left if is_shared(name) and is_head(name) == is_head(base_name)]
            given = [name for name in given if _has_other_rows(spec, self.given[self.left[name]].spec)]
            if len(given) == 1 and self.likeness.is_alike(spec, self.given[self.left[given[0]]]):
                self._take({given[0]: base_name})

    def drop_guesses(self) -> None:
        """Drops the pairs of which only names and shapes tell, if tensors are left on both sides."""
        if self.left and self.absent:
            for name in self.guesses:
                del self.pairs[name]

    def _take(self, pairs: Mapping[str, str]) -> None:
        self.taken |= pairs
        for name, base_name in pairs.items():
            self.pairs[base_name] = self.left.pop(name)
            del self.absent[base_name]

    def _fits(self, name: str, base_name: str) -> bool:
        spec = self.absent.get(base_name)
        return spec is not None and _alike(spec, self.given[self.left[name]].spec)

    def _best(self) -> list[dict[str, str]]:
        """What the best rule pairs; several such if other rules pair as many in another way."""
        shown: dict[tuple[str, tuple[int, ...]], str] = {}
        counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for name in self.left:
            kind = pattern(name), self.given[self.left[name]].spec.shape
            shown.setdefault(kind, name)
            counts[kind] += 1
        sample = {kind: shown[kind] for kind in list(shown)[:: 1 + len(shown) // _MOST_KINDS]}
        rules = self._rules_of(sample)
        weights = {
            rule: sum(counts[kind] for kind, name in sample.items() if self._applied(rule, name) is not None)
            for rule in rules
        }
        for weight in sorted({each for each in weights.values() if each}, reverse=True):
            found: list[dict[str, str]] = []
            for rule in [rule for rule, each in weights.items() if each == weight]:
                pairs = self._paired(rule)
                if pairs and pairs not in found and self._alike(pairs) is not False:
                    found.append(pairs)
                elif pairs not in found:
                    self.unlike |= pairs
            if found:
                widest = max(map(len, found))
                return [pairs for pairs in found if len(pairs) == widest]
        return []

    def _rules_of(self, sample: Mapping[tuple[str, tuple[int, ...]], str]) -> list[_Rule]:
        """The rules that make some names a name of the base, of a tensor of the same shape."""
        places: dict[tuple[int, ...], dict[str, list[str]]] = {}
        for name, spec in self.absent.items():
            places.setdefault(spec.shape, {}).setdefault(pattern(name), []).append(name)
        found: dict[_Rule, None] = {}
        for (kind, shape), name in sample.items():
            kinds = places.get(shape, {})
            for own in sorted(kinds, key=lambda own: -common_end(own, kind))[:_MOST_KINDS]:
                for new in [each for each in kinds[own] if _same_numbers(name, each)][:1]:
                    found |= dict.fromkeys(_rules(name, new))
        return list(found)

    def _applied(self, rule: _Rule, name: str) -> str | None:
        made = (new for new in rule.applied(name) if self._fits(name, new) and _same_numbers(name, new))
        return next(made, None)

    def _paired(self, rule: _Rule) -> dict[str, str]:
        """Everything that a rule pairs, if it pairs no tensor twice."""
        pairs = {name: new for name in self.left if (new := self._applied(rule, name)) is not None}
        return pairs if len(set(pairs.values())) == len(pairs) else {}

    def _alike(self, pairs: Mapping[str, str]) -> bool | None:
        """Whether the largest of some pairs are alike; None if their weights cannot tell."""
        largest = sorted(pairs.items(), key=lambda pair: -self.absent[pair[1]].elements)[:_SAMPLE]
        return self.likeness((self.absent[new], self.given[self.left[name]]) for name, new in largest)


def _undisputed(found: list[dict[str, str]]) -> dict[str, str] | None:
    """The first pairs that no others contradict."""

    def clash(one: dict[str, str], other: dict[str, str]) -> bool:
        names = {base_name: name for name, base_name in other.items()}
        return any(
            other.get(name, base_name) != base_name or names.get(base_name, name) != name
            for name, base_name in one.items()
        )

    return next((pairs for pairs in found if not any(clash(pairs, other) for other in found)), None)


@dataclass(frozen=True)
class _Rule:
    """Replace the run of parts `left` of a name by `right`. An empty `left`: insert before part `at`.

    A negative `at` counts from the end. `at` None: the run may stand anywhere.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    at: int | None

    def applied(self, name: str) -> Iterator[str]:
        """The names that the rule makes of a name."""
        parts = tuple(name.split("."))
        places = range(len(parts)) if self.at is None else [self.at % (len(parts) + 1)]
        for place in places:
            if parts[place : place + len(self.left)] == self.left:
                yield ".".join((*parts[:place], *self.right, *parts[place + len(self.left) :]))


def _rules(name: str, base_name: str) -> Iterator[_Rule]:
    """The rules that make a name the other."""
    one, other = name.split("."), base_name.split(".")
    most = min(len(one), len(other))
    first = next((place for place in range(most) if one[place] != other[place]), most)
    last = next(
        (place for place in range(most - first) if one[-1 - place] != other[-1 - place]), most - first
    )
    left, right = tuple(one[first : len(one) - last]), tuple(other[first : len(other) - last])
    if left:
        yield _Rule(left, right, None)
    else:
        yield _Rule(left, right, first)
        if last:
            yield _Rule(left, right, -1 - last)
    if left and not first:
        yield _Rule(left, right, 0)


def _same_numbers(name: str, base_name: str) -> bool:
    """Whether a name counts layers and experts as another one does; one may have further numbers in front."""
    one, other = _numbers(name), _numbers(base_name)
    count = min(len(one), len(other))
    return one[len(one) - count :] == other[len(other) - count :]


def _ends(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, 7):
        yield ".".join(parts[-count:])


def _end(name: str, other: str) -> str:
    """The end of a name from one part before the first in which it differs from another."""
    one, two = name.split("."), other.split(".")
    same = next(place for place, (a, b) in enumerate(zip([*one, ""], [*two, ""], strict=False)) if a != b)
    return ".".join(one[max(0, same - 1) :])


def _exchanged(name: str, table: Mapping[str, str]) -> str:
    """A name with the first word of a table that it holds exchanged."""
    marked = f".{name}."
    for old, new in table.items():
        if f".{old}." in marked:
            return marked.replace(f".{old}.", f".{new}.")[1:-1]
    return name


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether a tensor can be the fine-tuned self of one, from its shape and dtype."""
    if one.shape != other.shape:
        return False
    return one.dtype == other.dtype or (DTYPES[one.dtype].is_float and DTYPES[other.dtype].is_float)


def _has_other_rows(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether two tensors differ only in how many rows, or elements of one row, they have."""
    floats = DTYPES[one.dtype].is_float and DTYPES[other.dtype].is_float
    return floats and (growth.extends(one.shape, other.shape) or growth.extends(other.shape, one.shape))


def _shapes(specs: Iterable[TensorSpec]) -> Counter[tuple[int, ...]]:
    return Counter(spec.shape for spec in specs)


def _pair_up(lost: Mapping[str, TensorSpec], rest: Mapping[str, Held]) -> bool:
    """Whether tensors seem to be the same ones under other names, from their shapes and places.

    Either all of them pair up, or a matrix stands in a layer where one of the same shape is missing, or one
    of the shape of a missing embedding or output matrix is there.
    """
    floats = {name: spec.shape for name, spec in lost.items() if DTYPES[spec.dtype].is_float}
    others = {name: one.spec.shape for name, one in rest.items() if DTYPES[one.spec.dtype].is_float}
    matrices = {name: shape for name, shape in floats.items() if len(shape) > 1}
    if not matrices:
        return False
    counts = [Counter((shape, _numbers(name)) for name, shape in each.items()) for each in (floats, others)]
    if counts[0] == counts[1]:
        return True
    places = {(place, shape) for name, shape in others.items() for place in _places(name)}
    shapes = {shape for name, shape in others.items() if not is_shared(name)}
    return any(
        (is_shared(name) and shape in shapes) or any((place, shape) in places for place in _places(name))
        for name, shape in matrices.items()
    )


def _places(name: str) -> Iterator[tuple[str, ...]]:
    """A name of a tensor in a numbered layer, with each part after the number left open in turn."""
    parts = name.split(".")
    last = max((place for place, part in enumerate(parts) if part.isdigit()), default=len(parts))
    for place in range(last + 1, len(parts)):
        yield (*parts[:place], "*", *parts[place + 1 :])


def _numbers(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split(".") if part.isdigit())


def _same_size(lost: Mapping[str, TensorSpec], rest: Mapping[str, Held]) -> bool:
    """Whether tensors are the same numbers in another layout, as far as their sizes say."""
    floats = [spec for spec in lost.values() if DTYPES[spec.dtype].is_float and spec.elements]
    others = [one.spec for one in rest.values() if DTYPES[one.spec.dtype].is_float and one.spec.elements]
    shapes = {spec.shape for spec in floats} & {spec.shape for spec in others}
    if not floats or not others or shapes:  # tensors of one shape were compared, and are not alike
        return False
    return sum(prod(spec.shape) for spec in floats) == sum(prod(spec.shape) for spec in others)
