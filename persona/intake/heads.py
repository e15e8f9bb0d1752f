"""Output matrices that a fine-tune trained apart from its embedding, and that no vector can hold as they are.

To leave one out changes the model, so they are refused, whatever is extra or missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from persona.errors import InvalidInput
from persona.intake.parts import View
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.weights.tied import is_head, is_shared, says_untied


def check_left_out(base: Base, unknown: Iterable[str], view: View, config: Mapping[str, Any] | None) -> None:
    """`InvalidInput` if a tensor that the base lacks is an output matrix of another size or another name.

    `unknown`: the tensors that would be left out. `config`: the fine-tune's.
    """
    if any(is_head(name) for name in base.spec):
        return
    embeddings = [name for name in base.spec if is_shared(name) and name in view.held]
    untied = {base.tied[alias]: alias for alias in base.tied} if says_untied(config) else {}
    for name in unknown:
        spec = view.held[name].spec
        if len(spec.shape) != 2 or not DTYPES[spec.dtype].is_float:
            continue
        tied = base.tied.get(name)
        others = embeddings if tied is None or tied not in view.held else [tied]
        if is_head(name):
            _check_rows(name, tied, others, view)
            if tied is None and not any(part.isdigit() for part in name.split(".")):
                _refuse_name(base, name, others, view)
            continue
        for other in others:
            rows = min(base.spec[other].shape[0], view.held[other].spec.shape[0])
            if (
                other in untied
                and spec.shape[0] >= rows
                and spec.shape[1:] == base.spec[other].shape[1:]
                and not any(part.isdigit() for part in name.split("."))
                and not view.equal(name, other)
            ):
                raise InvalidInput(
                    f"{view.path}: its config.json says that the output matrix is not tied, and {name} seems"
                    " to be that matrix: leaving it out changes the model. The base ties"
                    f" {untied[other]} to {other}",
                    hint=f"call the tensor {untied[other]} in the fine-tune's file, as transformers does",
                )


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
    """`InvalidInput` for an output matrix under a name that the base does not tie to an embedding."""
    shape = view.held[name].spec.shape
    other = next((each for each in others if view.held[each].spec.shape == shape), None)
    if other is None:
        return
    aliases = [alias for alias, target in base.tied.items() if target == other]
    said = f"has no {name} beside {other}"
    hint = "begin with a base that holds it (tie_word_embeddings=False, then save_pretrained)"
    if aliases:
        said = f"ties {aliases[0]} to {other}"
        hint = f"call the tensor {aliases[0]} in the fine-tune's file, as transformers does"
    raise InvalidInput(
        f"{view.path}: {name} differs from {other}: leaving it out changes the model, if it is the output"
        f" matrix. The base {said}",
        hint=hint,
    )


def check_taken(
    found: Mapping[str, str], said: Mapping[str, str], view: View, config: Mapping[str, Any] | None
) -> None:
    """`InvalidInput` if an output matrix and an embedding stand for each other that a config does not tie.

    `found`: tensors of the base that a fine-tune lacks → what would stand for them. `said`: the ties that its
    metadata names, which are those of the weights that were saved.
    """
    if not says_untied(config):
        return
    for name, other in found.items():
        if said.get(name) == other or not (is_shared(name) and is_shared(other)):
            continue
        if is_head(name) != is_head(other):
            raise InvalidInput(
                f"{view.path}: {name} is missing, and {other} is not the same tensor: config.json says that"
                " the two are not tied (tie_word_embeddings = false)",
                hint="save the fine-tune with both tensors",
            )
