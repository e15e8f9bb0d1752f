"""Output matrices that a fine-tune trained apart from its embedding, and that no vector can hold as they are.

To leave one out changes the model, so they are refused, whatever is extra or missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from persona.errors import InvalidInput, Keyword, listed
from persona.intake import wrappers
from persona.intake.adapter_config import OWN_MATRICES
from persona.intake.adapter_names import stem
from persona.intake.parts import View
from persona.intake.renames import Renames
from persona.intake.twins import Twins
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from persona.weights.tied import is_embedding, is_head, is_shared, says_untied

_SAVE_WITH_HEAD: Final = (
    "load the base with the class of the fine-tune and tie_word_embeddings=True, and save both with"
    " save_pretrained of one version of transformers; then start from that base"
)
OWN_HEAD: Final = (
    "to save an output matrix of its own, give the model one (out = model.get_output_embeddings();"
    " out.weight = torch.nn.Parameter(out.weight.clone()); model.config.tie_word_embeddings = False), then"
    " save_pretrained"
)
"""`from_pretrained(…, tie_word_embeddings=False)` makes a random matrix, and the key in a config none."""


_NEOX: Final = ("embed_out.weight", "lm_head.weight")


class Taken(NamedTuple):
    """An output matrix of its own: its name in the vector, and the base's tensor in its place."""

    name: str
    origin: str


def candidates(
    base: Base, unknown: Iterable[str], view: View, config: Mapping[str, Any] | None, *, renamed: bool
) -> dict[str, Taken]:
    """The tensors that may be output matrices of their own, by their names in a checkpoint.

    They are as large as an embedding, and the base has no output matrix. `unknown`: the tensors that the base
    lacks. `config`: of the checkpoint. The name that the base ties is taken. If it is not known, it is the
    name that the checkpoint shows. If its other names are not the base's (`renamed`), that one counts only
    beside tensors of the base.
    """
    names, shapes = list(unknown), {name: held.spec.shape for name, held in view.held.items()}
    tied = {name: base.tied[name] for name in names if name in base.tied}
    if known := {name: Taken(name, one) for name, one in tied.items() if shapes.get(one) == shapes[name]}:
        return known
    if any(is_head(name) for name in base.spec):
        return {}
    found: dict[str, Taken] = {}
    for name in names:
        spec = view.held[name].spec
        if not DTYPES[spec.dtype].is_float or not _is_single_matrix(spec) or _names_embedding(name):
            continue
        origin = next(
            (
                each.name
                for each in base.tensors
                if each.merged and is_embedding(each, config) and shapes.get(each.name) == spec.shape
            ),
            None,
        )
        if origin is None:
            continue
        aliases = [alias for alias, target in base.tied.items() if target == origin and is_head(alias)]
        same = next((alias for alias in aliases if _is_one_head(stem(alias), stem(name))), None)
        if same is not None or not (aliases or (renamed and not is_placed(base, name))):
            found[name] = Taken(same or name, origin)
    return found


def _is_one_head(alias: str, name: str) -> bool:
    """Whether two names, without the prefixes of their models, are of one output matrix.

    transformers 5 loads the output matrix of GPT-NeoX from both names, and saves it under one or the other.
    """
    return alias == name or (alias, name) == _NEOX


def is_placed(base: Base, name: str) -> bool:
    """Whether a name is one of a module of the base, or of a module inside one: then it is not renamed."""
    modules = {each.rpartition(".")[0] for each in base.spec} - {""}
    module = name.rpartition(".")[0]
    return module in modules or module.rpartition(".")[0] in modules


def others(base: Base, names: Iterable[str], view: View, config: Mapping[str, Any] | None) -> list[str]:
    """Some tensors that the base lacks, without those that may be output matrices of their own."""
    return [name for name in names if not _may_be_one(base, view.held[name].spec, config)]


def renamed(base: Base, found: Renames, view: View, config: Mapping[str, Any] | None) -> dict[str, str]:
    """The base's names for output matrices of their own, by their names in a checkpoint.

    The base ties the name, or it lies beside tensors of the base. The other tensors of the module go with
    its matrix. `found`: the renames, of which some leave these tensors over.
    """
    new: dict[str, str] = {}
    for name in found.unpaired:
        for one in sorted(found.names(name) - base.spec.keys()):
            if one in base.tied or (
                is_placed(base, one)
                and not is_placed(base, name)
                and _may_be_one(base, view.held[name].spec, config)
            ):
                new[name] = one
    modules = {name.rpartition(".")[0]: one.rpartition(".")[0] for name, one in new.items()}
    for name in found.unpaired:
        module, _, parameter = name.rpartition(".")
        if module in modules and f"{modules[module]}.{parameter}" not in base.spec:
            new.setdefault(name, f"{modules[module]}.{parameter}")
    return new


def _may_be_one(base: Base, spec: TensorSpec, config: Mapping[str, Any] | None) -> bool:
    """Whether a tensor that the base lacks may be an output matrix of its own, from its shape and its name.

    `config`: of the checkpoint, whose vocabulary may be larger than the base's.
    """
    if any(is_head(name) for name in base.spec) or not _is_single_matrix(spec) or _names_embedding(spec.name):
        return False
    return any(
        each.merged
        and is_embedding(each, config)
        and each.shape[1:] == spec.shape[1:]
        and each.shape[0] <= spec.shape[0]
        for each in base.tensors
    )


def _is_single_matrix(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and not any(part.isdigit() for part in spec.name.split("."))


def _names_embedding(name: str) -> bool:
    return is_shared(name) and not is_head(name)


def tied_with(base: Base, taken: Mapping[str, str]) -> dict[str, str]:
    """Other tensors that a model ties as it ties an output matrix: their names → the base's tensors.

    `taken`: output matrices of their own → the base's tensors in their place. A config that unties them
    unties all of these, so a checkpoint has to hold them then. An encoder and a decoder have embeddings of
    their own, and the decoder of a masked language model has a bias.
    """
    found: dict[str, str] = {}
    for head, origin in taken.items():
        if origin.endswith("shared.weight"):
            prefix = origin.removesuffix("shared.weight")
            for part in ("encoder", "decoder", "text_encoder", "text_decoder"):
                if any(name.startswith(f"{prefix}{part}.") for name in base.spec):
                    found[f"{prefix}{part}.embed_tokens.weight"] = origin
        prefix = origin.removesuffix("decoder.embed_tokens.weight")
        is_fsmt = head == f"{prefix}decoder.output_projection.weight"  # with one vocabulary
        if is_fsmt and any(name.startswith(f"{prefix}encoder.") for name in base.spec):
            found[f"{prefix}encoder.embed_tokens.weight"] = origin
        if head.endswith(".decoder.weight"):
            bias = base.spec.get(head.removesuffix("decoder.weight") + "bias")
            if bias is not None and bias.shape == base.spec[origin].shape[:1]:
                found[head.removesuffix("weight") + "bias"] = bias.name
    return {name: origin for name, origin in found.items() if name not in base.spec}


def of_parts(base: Base, unknown: Iterable[str], view: View, *, untie: bool) -> dict[str, str]:
    """The output matrices of a model whose encoder or decoder has an embedding of its own: name → origin.

    `unknown`: the tensors that the base lacks. Raises `InvalidInput` unless the user unties them, and if the
    checkpoint holds only some of the tensors that models tie to the embedding: a file holds memory once that
    several tensors share, so it does not say which of them the others were.
    """
    found: dict[str, str] = {}
    lacking = list(unknown)
    for origin in dict.fromkeys(base.tied.values()):
        taken = {alias: origin for alias, name in base.tied.items() if name == origin and is_head(alias)}
        group = taken | tied_with(base, taken)
        apart = [name for name in lacking if name in group and name not in taken]
        if not apart:
            continue
        if not untie:
            raise left_out(base, apart[0], origin, view, tied=apart[0])
        _check_all(group, apart, view)
        found |= taken
    return found


def check_parts(group: Mapping[str, str], left: Iterable[str], view: View) -> None:
    """`InvalidInput` if a checkpoint holds only some of the tensors that a model unties with its head.

    `group`: these tensors and the output matrix → the base's tensors in their place. `left`: the tensors that
    the base lacks, and that equal none of its tensors.
    """
    if apart := [name for name in left if name in group]:
        _check_all(group, apart, view)


def _check_all(group: Mapping[str, str], apart: Sequence[str], view: View) -> None:
    """`InvalidInput` if a checkpoint lacks some of `group`; others, `apart`, differ from the embedding."""
    if lost := [name for name in group if name not in view.held]:
        raise InvalidInput(
            f"{view.path}: {listed(apart)} differ{'s' * (len(apart) == 1)} from {group[apart[0]]}, and"
            f" {listed(lost)} {'are' if len(lost) > 1 else 'is'} missing: which of them the model had"
            " there is not known",
            hint=OWN_MATRICES,
        )


def check_copies(name: str, copies: Sequence[str], grown: Mapping[str, str | None], view: View) -> None:
    """`InvalidInput` if a patch of a revision names one of some equal tensors that the revision unties.

    Some models hold them as one tensor nevertheless (T5), and others do not (BART). `copies`: the tensors
    that it does not name. `grown`: the tensors that the revision has grown, with their origins.
    """
    if any(grown.get(each) is not None for each in (name, *copies)):
        raise InvalidInput(
            f"{view.path}: changes {name} and does not name {listed(copies)}. The revision that it was"
            " trained from has these apart, with the same values: whether they change too is not known",
            hint="give the directory that save_pretrained of the trained model writes, in place of the patch",
        )


def check_left_out(
    base: Base, unknown: Iterable[str], view: View, config: Mapping[str, Any] | None, *, renamed: bool
) -> None:
    """`InvalidInput` if a tensor that the base lacks is an output matrix of another size or another name.

    `unknown`: the tensors that would be left out. `config`: of the checkpoint. `renamed`: whether its names
    are not the base's, so that an output matrix may have any name.
    """
    if any(is_head(name) for name in base.spec):
        return
    embeddings = [name for name in base.spec if is_shared(name) and name in view.held]
    for name in unknown:
        spec = view.held[name].spec
        if len(spec.shape) != 2 or not DTYPES[spec.dtype].is_float:
            continue
        tied = base.tied.get(name)
        others = embeddings if tied is None or tied not in view.held else [tied]
        if is_head(name):
            _check_rows(name, tied, others, view)
            if tied is None and _is_single_matrix(spec):
                _refuse_name(
                    base, name, [one for one in others if view.held[one].spec.shape == spec.shape], view
                )
        elif (renamed or says_untied(config)) and _is_single_matrix(spec) and not is_shared(name):
            tied_ones = [one for one in base.tied.values() if one in embeddings] or embeddings
            _refuse_name(base, name, [one for one in tied_ones if _as_long(view, name, one)], view)


def _as_long(view: View, name: str, other: str) -> bool:
    """Whether a matrix has a row for each row of another one."""
    one, two = view.held[name].spec.shape, view.held[other].spec.shape
    return one[0] >= two[0] and one[1:] == two[1:]


def _check_rows(name: str, tied: str | None, others: Sequence[str], view: View) -> None:
    """`InvalidInput` if an output matrix has another size than the embedding that it may be tied to."""
    shape = view.held[name].spec.shape
    sizes = {other: view.held[other].spec.shape for other in others}
    if shape in sizes.values():
        return
    for other, size in sizes.items():
        if other == tied or size[1:] == shape[1:]:
            raise InvalidInput(
                f"{view.path}: {name} has {shape[0]} rows, and {other} has {size[0]}: an output matrix of its"
                " own has a row for each token, and leaving it out changes the model",
                hint="give both the same number of rows (resize_token_embeddings, or cut the padding), and"
                " save the fine-tune again",
            )


def _refuse_name(base: Base, name: str, others: Sequence[str], view: View) -> None:
    """`InvalidInput` for an output matrix under a name that the base does not tie to its embedding.

    `others`: the embeddings that it may belong to.
    """
    for other in others[:1]:
        aliases = [alias for alias, target in base.tied.items() if target == other and is_head(alias)]
        said, hint = "has no output matrix", _SAVE_WITH_HEAD
        if aliases:
            said = f"ties {aliases[0]} to {other}"
            hint = f"call the tensor {aliases[0]} in the fine-tune's file, as transformers does"
        raise InvalidInput(
            f"{view.path}: {name} differs from {other}: leaving it out changes the model, if it is the output"
            f" matrix. The base {said}",
            hint=hint,
        )


def left_out(base: Base, name: str, other: str, view: View, *, tied: str | None = None) -> InvalidInput:
    """The error for an output matrix of its own that nobody asked to take. `tied`: the name that is tied."""
    tied = tied or (name if name in base.tied else None)
    said = "has no output matrix" if tied is None else f"ties {tied} to {other}"
    return InvalidInput(
        f"{view.path}: {name} differs from {other}: leaving it out changes the model. The base {said}",
        hint=(Keyword(untie=True), " makes it a tensor of the vector, and takes the config along"),
    )


def said_tied(checkpoint: Checkpoint) -> dict[str, str]:
    """The ties that the metadata of a checkpoint names."""
    said = [shard.metadata for shard in checkpoint.shards]
    tied = checkpoint.tied.items()
    return {alias: name for alias, name in tied if any(one.get(alias) == name for one in said)}


def doubts(base: Base, checkpoint: Checkpoint) -> Iterator[str]:
    """Sentences on a checkpoint without an output matrix, whose config and base contradict each other."""
    if any(map(is_head, [*base.spec, *checkpoint.tensors])):
        return
    if any(map(is_head, base.tied)) and says_untied(checkpoint.config):
        yield (
            "config.json says that the output matrix is not tied, and the fine-tune holds none: if it was"
            " trained apart from the embedding, it is lost"
        )
    if not base.tied and (alias := next(filter(is_head, checkpoint.tied), None)) is not None:
        yield (
            f"the fine-tune ties {alias} to {checkpoint.tied[alias]}. The base does not, and has no output"
            " matrix, so with its config.json the model has a random one or none"
        )


def check_single(found: Mapping[str, Taken], view: View) -> None:
    """`InvalidInput` if several tensors may be the output matrix."""
    if len(found) > 1:
        raise InvalidInput(
            f"{view.path}: {listed(list(found))} differ from {next(iter(found.values())).origin}, and one of"
            " them may be the output matrix",
            hint=(Keyword(extra=next(iter(found))), " leaves out one that the model does not need"),
        )


def check_tied(base: Base, twins: Twins, absent: Iterable[str], tied: Mapping[str, str], view: View) -> None:
    """`InvalidInput` if a checkpoint ties an output matrix which the base does not tie.

    `absent`: tensors that it lacks; `tied`: alias → name, by its names.
    """
    tied = {wrappers.bare(alias): wrappers.bare(target) for alias, target in tied.items()} | dict(tied)
    for name in absent:
        target = tied.get(name)
        if target not in base.spec or target not in view.held or twins.equal(name, target):
            continue
        raise InvalidInput(
            f"{view.path}: {name} is missing. In the base it differs from {target}, so the two cannot be one"
            f" tensor in a fine-tune, and its values are not known: {OWN_HEAD}"
        )


def check_taken(
    found: Mapping[str, str], said: Mapping[str, str], view: View, config: Mapping[str, Any] | None
) -> None:
    """`InvalidInput` if an output matrix and an embedding stand for each other that a config does not tie.

    `found`: tensors of the base that a fine-tune lacks → what would stand for them. `said`: the ties that its
    metadata names, which are those of the weights that were saved.
    """
    if config is not None and not says_untied(config):
        return
    for name, other in found.items():
        if said.get(name) == other or not (is_shared(name) and is_shared(other)):
            continue
        lost = is_head(name) != is_head(other) if config is not None else not is_head(name) and is_head(other)
        if lost:
            because = "config.json says that the two are not tied (tie_word_embeddings = false)"
            hint = "save the fine-tune with both tensors"
            if config is None:
                because = "no config.json beside it says whether the two are tied"
                hint = "give the directory that save_pretrained wrote, with its config.json"
            raise InvalidInput(
                f"{view.path}: {name} is missing, and {other} is not known to be the same tensor: {because}",
                hint=hint,
            )
