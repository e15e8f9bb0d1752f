"""`identify`: which revision, vector or base a directory of weights is.

**candidate** — a recipe that the weights may come from: that of a commit, a vector alone at α = 1, or a base.

Candidates whose tensors have the same keys are one. First each candidate computes a sample: a few of the
smallest tensors in which candidates differ. That rules out most of them without a merge of the model. A
candidate with an equal sample computes the other tensors. A tensor that several candidates share is computed
once. Nothing is recorded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

from persona.errors import Call, IntegrityError, InvalidInput, Note, NothingChanged, PersonaError
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.computing import device_choice
from persona.history.history import History
from persona.history.names.walk import walk
from persona.history.options import ComputeOptions
from persona.history.planning import plan_of
from persona.history.results import UNPRINTED, Result
from persona.history.worktree import in_place, text_files
from persona.limits import MIB
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from persona.progress import Progress
from persona.store.refs import BASES, HEADS, TAGS, VECTORS, NoteList
from persona.weights.adapters import Adapter, is_adapter
from persona.weights.checkpoint import Checkpoint
from persona.weights.hub import located
from persona.weights.patches import refuse_patch

if TYPE_CHECKING:
    from persona.measure.equality import Expected, Given
    from persona.merge.plan import Plan

_SAMPLE: Final = 8
"""Tensors of the sample, spread over the smallest ones."""
_SMALLEST: Final = 64
_SMALLEST_BYTES: Final = 8 * MIB
"""The smallest tensors: so many at most, and of so many bytes together, but at least one."""
_NEAREST: Final = 3
"""Candidates that compute all tensors if no sample is equal."""


@dataclass(frozen=True, repr=False)
class Named(Result):
    """A commit, a vector or a base: `kind` says which.

    `name`: of a commit, a tag or the branch that leads to it, such as `main~2`, or None. `message`: the first
    line of a commit's message.
    """

    kind: str
    id: str
    name: str | None
    message: str | None = None


@dataclass(frozen=True, repr=False)
class Nearest(Result):
    """The candidate that has most tensors in common with the weights, under all its names.

    `equal`: how many tensors are equal. `differing`: the names of the others that both have. `missing`: the
    tensors of the base that the weights lack, or have in another shape or dtype. `extra`: the tensors that
    only the weights have.
    """

    names: tuple[Named, ...]
    equal: int
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Identity(Result):
    """The answer of `identify`. `weights`: the weights digest, None for an adapter. `found`: what they are.

    `tensors`: how many there are. `dtype`: their float dtype, if it is not the base's, in torch's words.
    `rounded`: whether the numbers are equal only after they are rounded to the narrower dtype. `nearest`:
    None if something was found, and if nothing has a tensor in common with the weights.
    """

    weights: str | None
    found: tuple[Named, ...]
    tensors: int
    dtype: str | None
    rounded: bool
    nearest: Nearest | None
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def identify(history: History, path: AnyPath, **options: Unpack[ComputeOptions]) -> Identity:
    """Which revisions, vectors and bases the weights at `path` are, or what is nearest to them.

    `path`: a model directory, a safetensors file, or the index of a sharded checkpoint. Revisions are those
    of all branches, tags and reflogs. A vector stands for its fine-tune: the vector alone at α = 1. Weights
    of another float dtype than the base's are compared after they are rounded to the narrower dtype, those of
    other names under the names that an import with `rename` gives them. `path` may also be a PEFT adapter,
    which is the vector that an import of it makes. Writes nothing. Options as for `checkout`. Raises
    `InvalidInput` for anything else.
    """
    from persona.measure.equality import read

    how = history.in_force(ComputeOptions, options)
    device_choice(how)
    notes: list[str] = []
    path = located(Path(path), how["progress"])
    if is_adapter(path):
        return _adapter(history, path, how, notes)
    with Checkpoint.open(path) as checkpoint:
        candidates = _candidates(history, notes)
        bases = {id: history.base(id) for id in dict.fromkeys(each.plan.recipe.base for each in candidates)}
        refuse_patch(checkpoint, {name for base in bases.values() for name in base.spec})
        known = {base.digest: base for base in (*bases.values(), *(each.plan.base for each in candidates))}
        given = read(checkpoint, known.values(), threads=how["threads"], progress=how["progress"])
        stored = given.stored
        if not any(given.may_be_of(base) for base in known.values()):
            given = _under_names_of(history, bases.values(), checkpoint, given, known.values(), how, notes)
    search = _Search(given, {digest: given.expected(base) for digest, base in known.items()}, how)
    found, nearest = search.run([one for one in candidates if search.expected[one.base]])
    dtype, rounded = _dtype(search, found[0] if found else nearest)
    fitting = [] if found else [id for id, base in bases.items() if search.may_be_of(base)]
    if fitting:
        base_name = history.base_name(fitting[0])
        if in_place.is_work_tree(history, path):  # an edited recipe's, or trained: `status` knows
            hint = (Call("status"), " says where weights in the work tree come from")
        else:
            hint = (Call("add", os.fspath(path)), " imports them as a vector")
        notes.append(
            Note(f"these weights have the same tensors as the base {base_name}, with other numbers", hint)
        )
    return Identity(
        weights=given.weights,
        found=tuple(name for one in found for name in one.names),
        tensors=len(stored),
        dtype=dtype,
        rounded=rounded,
        nearest=None if nearest is None else search.nearest(nearest),
        notes=tuple(notes),
    )


def _under_names_of(
    history: History,
    bases: Iterable[Base],
    checkpoint: Checkpoint,
    given: Given,
    known: Collection[Base],
    how: ComputeOptions,
    notes: list[str],
) -> Given:
    """The digests of a checkpoint under the names of the first base as whose fine-tune an import takes it.

    `given`: the digests under its own names, which are returned if there is no such base.
    """
    from persona.intake.recognised import recognised
    from persona.measure.equality import read

    for base in bases:
        other = recognised(history.store, base, checkpoint)
        if other is not None:
            notes.append("the tensors were compared under the base's names, as an import takes them")
            found = read(other, known, threads=how["threads"], progress=how["progress"])
            return replace(found, weights=given.weights)
    return given


def _adapter(history: History, path: Path, how: ComputeOptions, notes: list[str]) -> Identity:
    """The vector that an adapter was imported as, and the commits that hold nothing else."""
    candidates = _candidates(history, notes)
    bases = {id: history.base(id) for id in dict.fromkeys(each.plan.recipe.base for each in candidates)}
    known = {name.id for one in candidates for name in one.names if name.kind == "vector"}
    ids: dict[str, str] = {}
    refused: list[PersonaError] = []
    with Adapter.open(path) as adapter:
        tensors = len(adapter.tensors)
        for id, base in bases.items():
            ours = [one for one in candidates if one.plan.recipe.base == id]
            for vector in _ids(history, base, adapter, ours, known, how, refused):
                ids.setdefault(vector, id)
                if vector in known:
                    break
    if not ids and refused:
        raise refused[0]
    found = [one.names for one in candidates if any(name.id in ids for name in one.names)]
    if ids and not found:
        hint = (Call("add", os.fspath(path)), " imports it as a vector")
        base_name = history.base_name(next(iter(ids.values())))
        notes.append(Note(f"this adapter fits the base {base_name}", hint))
    names = tuple(name for names in found for name in names)
    return Identity(None, names, tensors, None, False, None, tuple(notes))


def _ids(
    history: History,
    base: Base,
    adapter: Adapter,
    candidates: Sequence[_Candidate],
    known: Collection[str],
    how: ComputeOptions,
    refused: list[PersonaError],
) -> Iterator[str]:
    """The ids of the vectors that an adapter may be stored as: relative to the base, then to each commit.

    `candidates`: of this base. `known`: ids of vectors. `refused`: takes the errors of imports.
    """
    from persona.intake.adapter import adapter_id

    for onto in (None, *_trained_from(history, base, adapter, candidates, known)):
        for untie in (False, True):
            try:
                yield adapter_id(
                    history.store,
                    base,
                    adapter,
                    untie=untie,
                    onto=onto,
                    threads=how["threads"],
                    memory=history.memory(),
                    progress=how["progress"],
                )
            except (InvalidInput, NothingChanged) as error:
                refused.append(error)


def _trained_from(
    history: History,
    base: Base,
    adapter: Adapter,
    candidates: Sequence[_Candidate],
    known: Collection[str],
) -> Iterator[Plan]:
    """The weights of commits that an adapter may have been trained from; of equal ones only the first.

    There are none if the adapter holds no tensor whole, or if no vector has the same factors as it.
    """
    from persona.intake.adapter import reached

    tried: set[tuple[str | None, ...]] = set()
    for one in candidates:
        if not one.plan.recipe.terms or all(name.kind != "commit" for name in one.names):
            continue
        try:
            factors, whole = reached(one.plan.base, adapter)
        except InvalidInput:
            continue
        key = (one.base, *(one.keys.get(name) for name in sorted(whole)))
        alike = any(history.vector(id).factor.keys() == factors for id in known)
        if whole and alike and key not in tried:
            tried.add(key)
            yield one.plan


class _Candidate:
    """The plan of a recipe, and all that it is the recipe of."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names: list[Named] = []
        self.base = plan.base.digest
        self.terms = len(plan.recipe.terms)
        self.keys = {tensor.spec.name: tensor.key for tensor in plan.tensors}


class _Search:
    """The comparison of candidates with weights. What is known of a tensor is known by its key."""

    def __init__(self, given: Given, expected: dict[str, dict[str, Expected]], how: ComputeOptions) -> None:
        self.given = given
        self.expected = expected
        self._how = how
        self._equal: dict[str, bool] = {}

    def run(self, candidates: Sequence[_Candidate]) -> tuple[list[_Candidate], _Candidate | None]:
        """The candidates that the weights are; if there is none, the one that is nearest to them."""
        sample = self._sample(candidates)
        for one in candidates:
            self._compare(one, [name for name in sample if name in self.expected[one.base]])
        likely = [one for one in candidates if self._fits(one)]
        for one in likely or sorted(candidates, key=self._rank)[:_NEAREST]:
            self._compare(one, self.expected[one.base], self._how["progress"])
        found = [one for one in likely if self._fits(one)]
        if found:
            return found, None
        nearest = min(candidates, key=self._rank, default=None)
        return [], nearest if nearest is not None and self._names(nearest, True) else None

    def nearest(self, one: _Candidate) -> Nearest:
        """What the weights and a candidate have in common."""
        return Nearest(
            names=tuple(one.names),
            equal=len(self._names(one, True)),
            differing=tuple(self._names(one, False)),
            missing=tuple(name for name in one.keys if name not in self.expected[one.base]),
            extra=tuple(self.given.extra(one.plan.base)),
        )

    def may_be_of(self, base: Base) -> bool:
        """Whether the weights have all tensors of a base in a form that can be compared, and no others."""
        return self.given.may_be_of(base)

    def _sample(self, candidates: Sequence[_Candidate]) -> list[str]:
        """The smallest tensors in which candidates differ."""
        keys: dict[str, set[str]] = {}
        sizes: dict[str, int] = {}
        for one in candidates:
            for name in self.expected[one.base]:
                keys.setdefault(name, set()).add(one.keys[name])
                sizes[name] = one.plan.base.spec[name].nbytes
        smallest: list[str] = []
        total = 0
        for name in sorted((name for name in keys if len(keys[name]) > 1), key=sizes.__getitem__)[:_SMALLEST]:
            total += sizes[name]
            if smallest and total > _SMALLEST_BYTES:
                break
            smallest.append(name)
        return smallest[:: max(1, len(smallest) // _SAMPLE)]

    def _compare(self, one: _Candidate, names: Iterable[str], progress: Progress | None = None) -> None:
        """Computes tensors of a candidate, unless they are known."""
        from persona.measure.equality import equal

        fresh = [name for name in names if one.keys[name] not in self._equal]
        if fresh:
            found = equal(
                one.plan,
                self.expected[one.base],
                fresh,
                threads=self._how["threads"],
                memory=self._how["memory"],
                device=device_choice(self._how),
                progress=progress,
            )
            self._equal.update((one.keys[name], same) for name, same in found.items())

    def _fits(self, one: _Candidate) -> bool:
        """Whether nothing is known by which the weights are not the candidate's."""
        if not self.may_be_of(one.plan.base):
            return False
        return all(self._equal.get(key, True) for key in one.keys.values())

    def _names(self, one: _Candidate, equal: bool) -> list[str]:
        """The tensors that are known to be equal, or not to be."""
        return [name for name in self.expected[one.base] if self._equal.get(one.keys[name]) is equal]

    def _rank(self, one: _Candidate) -> tuple[int, int]:
        """Most equal tensors first; of several the one with the fewest terms."""
        return -len(self._names(one, True)), one.terms


def _candidates(history: History, notes: NoteList) -> list[_Candidate]:
    """Everything that weights may be, newest commits first, each plan once."""
    found: dict[tuple[str, ...], _Candidate] = {}
    of_recipe: dict[bytes, _Candidate] = {}
    for name, recipe in _recipes(history, notes):
        nameless = recipe.nameless().encode()
        if nameless not in of_recipe:
            try:
                made = _Candidate(plan_of(history, recipe))
            except PersonaError as error:
                what = f"{name.kind} {name.name or abbreviate(name.id)}"
                notes.append(Note(f"{what} was not compared: {error.message}", error.hint))
                continue
            of_recipe[nameless] = found.setdefault(tuple(made.keys.values()), made)
        of_recipe[nameless].names.append(name)
    return list(found.values())


def _recipes(history: History, notes: NoteList) -> Iterator[tuple[Named, Recipe]]:
    """The recipes of commits, newest first, then those of vectors alone and of bases."""
    named = _commit_names(history, notes)
    vectors: dict[str, str] = {}
    bases: dict[str, str] = {}
    for id, commit in walk(history, _starts(history, notes)):
        recipe = history.recipe(history.tree(commit.tree).recipe)
        for term in recipe.terms:
            vectors.setdefault(term.vector, term.name)
        bases.setdefault(recipe.base, history.base_name(recipe.base))
        yield Named("commit", id, named.get(id), commit.subject), recipe
    with suppress(PersonaError):  # the work tree's recipe may be half edited
        vectors |= {term.vector: term.name for term in text_files.recipe(history).recipe.terms}
    for ref, id in history.names(VECTORS, notes).items():
        vectors.setdefault(id, ref.removeprefix(VECTORS))
    for ref, id in history.names(BASES, notes).items():
        bases.setdefault(id, ref.removeprefix(BASES))
    base_of = {history.base(id).digest: id for id in reversed(bases)}
    for id, name in vectors.items():
        with suppress(PersonaError):  # the commits that hold it are told of
            if (base := base_of.get(history.vector(id).base)) is not None:
                yield Named("vector", id, name), Recipe.of(base, [Term(name, id)], Rules.of())
    for id, name in bases.items():
        yield Named("base", id, name), Recipe.of(id, [], Rules.of())


def _starts(history: History, notes: NoteList) -> list[str]:
    """The commits that branches, tags, HEAD and their reflogs name."""
    heads = history.names(HEADS, notes)
    found = [*heads.values(), *(history.peeled(id)[0] for id in history.names(TAGS, notes).values())]
    for ref in ("HEAD", *heads):
        try:
            for move in history.store.refs.log(ref):
                found += [id for id in (move.new, move.old) if id is not None]
        except IntegrityError as error:
            notes.append(error.note)
    if head := history.head_or_name().id:
        found.append(head)
    return [id for id in dict.fromkeys(found) if history.store.objects.kind_of(id) == "commit"]


def _commit_names(history: History, notes: NoteList) -> dict[str, str]:
    """Commit → the tag at it, or else the branch that leads to it along first parents; HEAD's comes first."""
    tags = {history.peeled(id)[0]: ref.removeprefix(TAGS) for ref, id in history.names(TAGS, notes).items()}
    heads = {ref.removeprefix(HEADS): id for ref, id in history.names(HEADS, notes).items()}
    current = history.head_or_name().branch
    found: dict[str, str] = {}
    for name in sorted(heads, key=lambda name: (name != current, name)):
        id: str | None = heads[name]
        steps = 0
        while id is not None and id not in found:
            found[id] = f"{name}~{steps}" if steps else name
            parents = history.commit(id).parents
            id, steps = (parents[0] if parents else None), steps + 1
    return found | tags


def _dtype(search: _Search, one: _Candidate | None) -> tuple[str | None, bool]:
    """The dtype of weights that is not the base's, in torch's words, and whether numbers were rounded."""
    if one is None:
        return None, False
    spec = one.plan.base.spec
    cast = {name: each for name, each in search.expected[one.base].items() if each.source != spec[name].dtype}
    if not cast:
        return None, False
    ((dtype, _),) = Counter(each.source for each in cast.values()).most_common(1)
    return DTYPES[dtype].torch or dtype, not all(each.exact for each in cast.values())
