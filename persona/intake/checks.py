"""Checks of a tensor of a checkpoint against the tensor of the base that it is compared with."""

from __future__ import annotations

from persona.errors import InvalidInput, Keyword
from persona.intake.remarks import UNQUANTISED
from persona.intake.strays import is_buffer
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import EMPTY_REMEDY


def check_pair(spec: TensorSpec, source: TensorSpec, path: object, cast: bool) -> None:
    """`InvalidInput` if a tensor of the file `path` cannot be a fine-tuned `spec`."""
    where = f"{path}: tensor {spec.name}"
    if spec.merged and source.dtype.startswith("C"):
        raise InvalidInput(
            f"{where} has the dtype {source.dtype}, but the base has {spec.dtype}: no vector can hold complex"
            " numbers; give a fine-tune of this base"
        )
    if spec.merged and not DTYPES[source.dtype].is_float and not is_buffer(spec):
        raise InvalidInput(
            f"{where} has the dtype {source.dtype}, but the base has {spec.dtype}: it seems to be quantised,"
            " and nothing beside it says how",
            hint=UNQUANTISED,
        )
    if source.shape == (0,) != spec.shape:
        raise InvalidInput(
            f"{where} is empty, as DeepSpeed ZeRO-3 saves a tensor that it did not gather", hint=EMPTY_REMEDY
        )
    if source.shape != spec.shape:
        raise InvalidInput(
            f"{where} has the shape {list(source.shape)}, but the base has {list(spec.shape)};"
            " give a fine-tune of this base",
            hint=None if spec.merged else (Keyword(leave=spec.name), " leaves it as it is in the base"),
        )
    if source.dtype == spec.dtype:
        return
    if not spec.merged or not DTYPES[source.dtype].is_float:
        raise InvalidInput(
            f"{where} has the dtype {source.dtype}, but the base has {spec.dtype}: save it as {spec.dtype}",
            hint=(Keyword(leave=spec.name), " leaves it as it is in the base"),
        )
    if not DTYPES[source.dtype].holds(DTYPES[spec.dtype]) and not cast:
        raise InvalidInput(
            f"{where} has the dtype {source.dtype}, which cannot hold every value of {spec.dtype},"
            " the base's dtype",
            hint=(Keyword(cast=True), " converts it anyway"),
        )
