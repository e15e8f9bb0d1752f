"""Checks of a checkpoint against a base, before any arithmetic (docs/numerics.md).

A match says how one tensor of the base finds its fine-tuned self: under which name, in which dtype, or not at
all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from persona.errors import InvalidInput
from persona.intake import depths, growth, heads, refusals, renames, second_models, strays, twins, wrappers
from persona.intake.checks import check_pair
from persona.intake.choices import Choices, admits, check_globs, is_named, matches, unused
from persona.intake.likeness import Likeness
from persona.intake.naming import counted_in, described, joined
from persona.intake.pairs import Match, Matched
from persona.intake.parts import Held, View
from persona.intake.phrases import SAVE_ALIKE, count, renamed, some
from persona.intake.renames import Renames
from persona.intake.twins import Copies
from persona.merge.rows.reader import BaseChunks
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.growth import Sizes
from persona.objects.growth import sizes as growth_sizes
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from persona.weights.tied import is_head, may_share

_Admits: TypeAlias = Callable[[str | Sequence[str], str], bool]


def match_tensors(
    base: Base, chunks: BaseChunks, checkpoint: Checkpoint, choices: Choices, copies: Copies
) -> Matched:
    """Finds the fine-tuned self of each tensor of the base.

    `copies`: tensors that change with those of a sparse patch, which does not name them.
    Raises `InvalidInput` that lists missing, extra, renamed and mismatched tensors with the option that would
    admit them.
    """
    return _Matcher(base, chunks, checkpoint, choices).match(copies)


class _Matcher:
    def __init__(self, base: Base, chunks: BaseChunks, checkpoint: Checkpoint, choices: Choices) -> None:
        self.base = base
        self.chunks = chunks
        self.checkpoint = checkpoint
        self.choices = choices
        held = {name: Held.whole(spec) for name, (spec, _) in checkpoint.tensors.items()}
        self.notes: list[str] = []
        self.view = View(checkpoint, held)
        if not checkpoint.partial:
            held, self.notes = wrappers.unwrapped(base, self.view)
        self.view = View(checkpoint, {name: one.as_scalar(base.spec.get(name)) for name, one in held.items()})
        apart = [
            name
            for name, origin in choices.grown.items()
            if origin is not None and (is_head(name) or not may_share(name, name))
        ]
        self.twins = twins.Twins(base, chunks, apart)
        self.left = frozenset(spec.name for spec in base.tensors if matches(choices.leave, spec.name))
        self.renamed: dict[str, str] = {}
        self.found: dict[str, str] = {}
        """The tensors of the base that the checkpoint holds under another name."""
        self.heads: dict[str, str] = {}
        """Output matrices that the base lacks, and the tensor that it has in their place."""
        self.apart: dict[str, str] = {}
        """Other tensors that a model unties with these matrices, and what the base has in their place."""

    def match(self, copies: Copies) -> Matched:
        """See `match_tensors`."""
        check_globs(self.choices.leave, self.base.spec, "leave", words=())
        check_globs(self.choices.missing, self.base.spec, "missing")
        if not self.checkpoint.partial:
            if any(self._unnamed(self._absent(), self._unknown())):
                # before tensors are found under other names
                depths.check(self.base, self.chunks, self.checkpoint)
            self._find()
            self.notes += heads.doubts(self.base, self.checkpoint)
        fixed = {*self.view.held, *self.left}
        for name in sorted(self.view.held.keys() - self.left):
            if more := [each for each in copies(name) if each not in fixed]:
                heads.check_copies(name, more, self.choices.grown, self.view)
                self.found |= dict.fromkeys(more, name)
                self.notes.append(f"the base holds {name} also as {joined(more)}: they change with it")
        pairs = [(spec, self._source(spec)) for spec in self.base.tensors]
        sizes = growth.vocabulary(pairs)
        matches = [self._match(spec, source, sizes) for spec, source in pairs]
        unknown = self._without_copies(self._unknown())
        if self._is_another_model():  # whose dtypes and sizes say nothing
            self._refuse(self._absent(), unknown)
        if sizes is not None and any(match.grown for match in matches):
            growth.check_alike(self.checkpoint.path, pairs, sizes)
            others = (match.spec for match in matches if not match.grown)
            growth.check_together(self.checkpoint.path, others, sizes)
        elif self.choices.extend_vocab and not self.choices.grown:
            self.notes.append(f"no new tokens were taken from {self.checkpoint.path.name}")
        matches += self._matched_heads({match.spec.name: match.spec for match in matches})
        if self.choices.untie and not self.heads and not self.choices.grown:
            self.notes.append(f"no output matrix was taken from {self.checkpoint.path.name}")
        for match in matches:
            if match.source is not None:
                check_pair(match.spec, match.source, self.checkpoint.path, self.choices.cast)
        absent = [] if self.checkpoint.partial else self._absent()
        self._refuse(absent, unknown)
        names = [spec.name for spec in self.base.tensors]
        if absent:
            self.notes.append(
                f"{count(absent, 'tensor')} missing in {self.checkpoint.path.name}, counted as unchanged:"
                f" {described(absent, names)}"
            )
            self.notes += depths.lost_layers(self.base, absent, self.checkpoint.path)
        if glob := unused(self.choices.missing, absent):
            self.notes.append(f"'{glob}' matches no missing tensor")
        if unknown:
            kinds = depths.kinds(self.base, self.chunks, self.checkpoint)
            said = "" if kinds is None else f"; {refusals.of_another_kind(kinds)}"
            self.notes.append(
                f"{count(unknown, 'tensor')} that the base does not have, left out:"
                f" {described(unknown, self.view.held)}{said}"
            )
        if self.left:
            self.notes.append(f"left as in the base: {described(sorted(self.left), names)}")
            self.notes += twins.parted(self.base, self.twins, self.left, self.view)
        left = tuple(sorted({*self.left, *absent}))
        return Matched(matches, self.view, self.notes, left, self.renamed)

    # -- growth

    def _match(self, spec: TensorSpec, source: TensorSpec | None, sizes: Sizes | None) -> Match:
        """The match of a tensor of the base; `sizes`: of the vocabularies, if they differ."""
        if source is None or sizes is None:
            return Match(spec, source)
        if self.choices.grown.get(spec.name, "") is None and sizes == growth_sizes(spec, source):
            growth.refuse_another(self.checkpoint.path, spec.name, sizes)
        larger = growth.grown(spec, source, sizes)
        if larger is None or not self.choices.extend_vocab:
            growth.refuse_size(f"{self.checkpoint.path}: tensor {spec.name}", spec, source, sizes)
            return Match(spec, source)
        said = f"the vocabulary has {sizes[1]} tokens, {sizes[1] - sizes[0]} more than the base's"
        self.notes += [said] if said not in self.notes else []
        return Match(larger, source, grown=True)

    def _matched_heads(self, specs: Mapping[str, TensorSpec]) -> Iterator[Match]:
        """The matches of output matrices that the base lacks. `specs`: of its tensors, as they grow."""
        for name, other in self.heads.items():
            self.notes.append(f"{name} is a tensor of the vector; the base has {other} in its place")
            spec = replace(specs[other], name=name)
            yield Match(spec, self.view.held[name].spec, grown=True, origin=other)
        for name, other in self.apart.items():
            held = self.view.held.get(name)
            source = self._source(specs[other]) if held is None else held.spec
            yield Match(replace(specs[other], name=name), source, grown=True, origin=other)
        if self.apart:
            self.notes.append(f"{joined(list(self.apart))} too: a model ties these with it, or not at all")

    # -- names

    def _absent(self, *, leave: bool = True) -> list[str]:
        """The tensors of the base that were not found, without those that stay as they are."""
        known = {*self.view.held, *self.found, *(self.left if leave else ())}
        return [spec.name for spec in self.base.tensors if spec.name not in known]

    def _unknown(self) -> list[str]:
        used = {*self.base.spec, *self.found.values()}
        return [name for name in self.view.held if name not in used]

    def _source(self, spec: TensorSpec) -> TensorSpec | None:
        if spec.name in self.left:
            return None
        held = self.view.held.get(self.found.get(spec.name, spec.name))
        return None if held is None else held.spec

    def _find(self) -> None:
        """Finds what the checkpoint holds under other names."""
        if lora := wrappers.lora_layers(self._unknown()):
            raise InvalidInput(
                f"{self.checkpoint.path}: holds {count(lora, 'tensor')} of an adapter (LoRA, IA3) beside"
                f" the model, such as {lora[0]}; merge them first (merge_and_unload), and save the model with"
                " save_pretrained"
            )
        self._find_shared()
        absent = {name: self.base.spec[name] for name in self._absent(leave=False)}
        unknown = {name: self.view.held[name] for name in self._without_copies(self._unknown(), said=False)}
        if not absent and not unknown:
            return
        known = [
            (spec, self.view.held[source.name])
            for spec in self.base.tensors
            if (source := self._source(spec))
        ]
        likeness = Likeness(self.base, self.chunks, self.view, known)
        found = renames.find_renames(absent, unknown, likeness)
        named = [*found.pairs.items(), *found.unlike]
        pairs = [(self.base.spec[name], held) for name, held in named]
        if (odd := likeness.misplaced([*known, *pairs])) is not None:
            raise InvalidInput(
                f"{self.checkpoint.path}: {odd[0]} does not hold the weights of the base's {odd[1]}, but"
                f" those of {odd[2]}: the {counted_in(odd[1], odd[2])} are counted in another way",
                hint=f"{SAVE_ALIKE}; then start from that base",
            )
        extra = self._unnamed([], list(found.unpaired))[1]
        second_models.refuse_second([*known, *pairs], extra, self.view, likeness)
        if not (found.pairs or found.doubtful) or self._is_admitted(found):
            return
        if found.doubtful or not self.choices.rename:
            sources = [name for names in found.sources.values() for name in names]
            rest = heads.others(self.base, found.unpaired, self.view, self.checkpoint.config)
            if not found.doubtful and (inside := self._strays(rest, sources)):
                said, advised = strays.advice(inside)
                raise InvalidInput(
                    f"{self.checkpoint.path}: {refusals.lacking(inside, self.view)}; {said}", hint=advised
                )
            raise renamed(found, self.checkpoint.path, self.base, self.view.held, self._unknown())
        gone = {name for names in found.sources.values() for name in names}
        held = {name: one for name, one in self.view.held.items() if name not in gone}
        new = heads.renamed(self.base, found, self.view, self.checkpoint.config)
        own = {new[name]: held.pop(name).named(new[name]) for name in new if new[name] not in held}
        self.view = View(self.checkpoint, {**held, **found.pairs, **own})
        self.renamed = found.kinds
        self.notes.append(f"{count(found.pairs, 'tensor')} renamed: {some(found.examples)}")
        self._find_shared()

    def _find_shared(self) -> None:
        """Finds missing tensors under the name of another tensor that the model shares them with."""
        absent = self._absent()
        if not absent:
            return
        name = self.checkpoint.path.name
        said = heads.said_tied(self.checkpoint)
        unnamed = [each for each in absent if each not in said and not is_named(self.choices.missing, each)]
        heads.check_tied(self.base, self.twins, unnamed, self.checkpoint.tied, self.view)
        likeness = Likeness(self.base, self.chunks, self.view, ())
        other = twins.under_other_names(self.base, self.twins, absent, self._unknown(), self.view, likeness)
        heads.check_taken(other, said, self.view, self.checkpoint.config)
        for missing, held in other.items():
            self.notes.append(f"{missing} is called {held} in {name}: its values are used")
        named = {missing: self.view.held[held].named(missing) for missing, held in other.items()}
        gone = set(other.values())
        kept = {each: one for each, one in self.view.held.items() if each not in gone}
        self.view = View(self.checkpoint, {**kept, **named})
        found = self.twins.find([each for each in absent if each not in other], self.view)
        heads.check_taken(found, said, self.view, self.checkpoint.config)
        for held in dict.fromkeys(found.values()):
            lost = [each for each, twin in found.items() if twin == held]
            be, equal = ("are", "they equal") if len(lost) > 1 else ("is", "it equals")
            self.notes.append(
                f"{joined(lost)} {be} missing in {name}; in the base {equal} {held}: its values are used"
            )
        self.found |= found
        for alias, target in said.items():
            if alias in absent and alias not in self.found and target in self.view.held:
                self.found[alias] = target
                self.notes.append(f"{alias} is tied to {target} in {name}: its values are used")

    def _without_copies(self, unknown: list[str], *, said: bool = True) -> list[str]:
        """The tensors that the base lacks, without copies of shared tensors.

        Raises `InvalidInput` for an output matrix of its own on a base that ties it.
        """
        if self.checkpoint.partial:
            return unknown
        left = dict.fromkeys(unknown)
        copied: dict[str, str] = {}
        for name, other, same in twins.copies(self.base, unknown, self.view):
            if same:
                del left[name]
                copied[name] = other
        if said and not self._is_another_model():  # of which there is more to say
            self._find_heads(left, copied)
            unnamed = [
                name for name in left if name in self.base.tied or not is_named(self.choices.extra, name)
            ]
            heads.check_left_out(
                self.base, unnamed, self.view, self.checkpoint.config, renamed=bool(self.renamed)
            )
            for name, other in copied.items():
                because = ", to which the base ties it" if self.base.tied.get(name) == other else ""
                if name not in self.apart:
                    self.notes.append(f"{name} equals {other}{because}: left out")
        inside = {name.rpartition(".")[0] for name in self.base.spec if "." in name}
        zeros = [name for name in left if self._adds_zero(name, inside)]
        if zeros and said:
            self.notes.append(
                f"biases of zeros that the base does not have, left out: {described(zeros, self.view.held)}"
            )
        return [name for name in left if name not in zeros]

    def _find_heads(self, left: dict[str, None], copied: dict[str, str]) -> None:
        """Takes output matrices of their own out of `left`, or refuses them.

        `copied`: tensors that equal others, and the base's names of these.
        """
        config, extra = self.checkpoint.config, self.choices.extra
        found = heads.candidates(self.base, left, self.view, config, renamed=bool(self.renamed))
        if any(name not in self.base.tied for name in found):
            known = any(map(is_head, copied))
            found = {name: one for name, one in found.items() if not known and not is_named(extra, name)}
            heads.check_single(found, self.view)
        for name, (own, other) in found.items():
            if not self.choices.untie:
                tied = own if own in self.base.tied else None
                raise heads.left_out(self.base, name, other, self.view, tied=tied)
            held = dict(self.view.held)
            held[own] = held.pop(name).named(own)
            self.view = View(self.checkpoint, held)
            del left[name]
            self.heads[own] = other
        if self.heads:
            heads.check_parts(self.heads | heads.tied_with(self.base, self.heads), left, self.view)
        else:
            named = [name for name in left if not is_named(extra, name)]
            self.heads = heads.of_parts(self.base, named, self.view, untie=self.choices.untie)
        self.apart = copied | heads.tied_with(self.base, self.heads) if self.heads else {}
        for name in self.heads:
            self.apart.pop(name, None)
        for name in self.apart:
            left.pop(name, None)

    def _adds_zero(self, name: str, modules: Collection[str]) -> bool:
        """Whether a tensor that the base lacks is a bias of zeros of one of its modules."""
        module, _, parameter = name.rpartition(".")
        is_bias = parameter == "bias" and module in modules
        return is_bias and not any(map(any, self.view.blocks(name)))

    def _is_another_model(self) -> bool:
        """Whether the checkpoint lacks most tensors of the base, and no glob admits that."""
        if self.checkpoint.partial:
            return False
        lost = [name for name in self._absent() if not admits(self.choices.missing, name)]
        return 2 * len(lost) > len(self.base.tensors)

    def _may_be(self, own: str, name: str) -> bool:
        """Whether a tensor of the checkpoint may be a shared tensor of the base under another name."""
        return may_share(own, name) and self.base.spec[own].shape == self.view.held[name].spec.shape

    # -- renames

    def _is_admitted(self, found: Renames) -> bool:
        """Whether globs name all tensors that look renamed on both sides: then they are not."""
        lost = {*found.pairs, *found.doubtful}
        given = {name for names in found.sources.values() for name in names}
        given |= set(found.unpaired if found.doubtful else ())
        return all(name in self.left or is_named(self.choices.missing, name) for name in lost) and all(
            is_named(self.choices.extra, name) for name in given
        )

    # -- sentences

    def _unadmitted(
        self, absent: list[str], unknown: list[str], admit: _Admits = admits
    ) -> tuple[list[str], list[str]]:
        """The floats that the checkpoint lacks, and the tensors that the base lacks, which no glob admits."""
        floats = [
            spec.name
            for spec in map(self.base.spec.__getitem__, absent)
            if spec.elements and DTYPES[spec.dtype].is_float
        ]
        lost = [name for name in floats if not admit(self.choices.missing, name)]
        more = [
            name
            for name in unknown
            if not admit(self.choices.extra, name)
            and not admit(self.choices.extra, self.view.held[name].runs[0].name)
        ]
        return lost, more

    def _unnamed(self, absent: list[str], unknown: list[str]) -> tuple[list[str], list[str]]:
        """As `_unadmitted`, if globs have to name the tensors."""
        return self._unadmitted(absent, unknown, is_named)

    def _strays(self, names: Iterable[str], sources: Iterable[str] = ()) -> list[str]:
        """Those of some tensors that are parts of modules of the base, and that no glob names.

        `sources`: tensors of the checkpoint that are the base's under other names.
        """
        taken = (source.name for spec in self.base.tensors if (source := self._source(spec)))
        runs = [run.name for name in taken for run in self.view.held[name].runs]
        tied = () if self.checkpoint.partial else self.base.tied
        modules = strays.Modules([*self.base.spec, *tied, *self.heads, *runs, *sources])
        return [
            name
            for name in names
            if (modules.hold(self.view.held[name].spec) or modules.hold_inside(name, self.view.held))
            and not self._is_tied_bias(name)
            and not is_named(self.choices.extra, name)
            and not is_named(self.choices.extra, self.view.held[name].runs[0].name)
        ]

    def _is_tied_bias(self, name: str) -> bool:
        """Whether a bias is that of the head under another name, which models share."""
        others = (other for other in self.base.spec if other in self.view.held and may_share(name, other))
        return name.endswith("bias") and not self.heads and any(self.view.equal(name, one) for one in others)

    def _refuse(self, absent: list[str], unknown: list[str]) -> None:
        """`InvalidInput` that names the tensors on both sides that no glob admits, if there are any."""
        path = self.checkpoint.path
        lost, more = self._unadmitted(absent, unknown)
        for name in absent:
            twin = next((each for each in self.twins.of(name) if each in self.view.held), None)
            if twin is not None and not is_named(self.choices.missing, name):
                raise InvalidInput(
                    f"{path}: {name} is missing. In the base it equals {twin}; whether training moved the two"
                    " apart is not known, nor are its values; save the fine-tune with all its tensors"
                )
        if not self.checkpoint.partial:
            depths.check_layers(self.base, self.chunks, self.checkpoint, *self._unnamed(absent, unknown))
        apart = [(name, own) for name in more for own in lost if self._may_be(own, name)]
        if apart and {own for _, own in apart}.issuperset(lost):
            raise InvalidInput(
                f"{path}: {apart[0][1]} of the base is missing, and which tensor it is here is not known:"
                f" {joined(list(dict.fromkeys(name for name, _ in apart)))}",
                hint=f"{SAVE_ALIKE}; then start from that base",
            )
        gone = self._unnamed(absent, [])[0]
        kinds = depths.kinds(self.base, self.chunks, self.checkpoint)
        if not self._is_another_model():
            if kinds is None:
                refusals.refuse_lost_heads(path, gone, self.checkpoint.config)
            parts = strays.lost_parts(self.base, gone, self.view.held)
            parts = [name for name in parts if not (name.endswith("bias") and self.twins.is_zero(name))]
            refusals.refuse_lost_parts(self.base, path, parts)
        inside = self._strays(unknown) if unknown else []
        glob = unused(self.choices.missing, absent)
        refusals.refuse(
            self.base,
            self.view,
            refusals.Unpaired(lost, more, inside, glob, apart=bool(apart)),
            kinds,
            partial=self.checkpoint.partial,
        )
