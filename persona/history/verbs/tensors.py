"""Merged tensors as arrays, one at a time: numpy, or torch on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from persona.history.computing import chosen_recipe, device_choice
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.planning import plan_of
from persona.merge.run.merger import pieces
from persona.objects.dtypes import DTYPES, uint
from persona.objects.tensors import TensorSpec

if TYPE_CHECKING:
    from persona.merge.devices.choose import DeviceChoice
    from persona.merge.plan import Plan


class TensorArray(np.ndarray[Any, Any]):
    """An array that knows the safetensors dtype of its elements: `tensor_dtype`.

    If numpy has no type for the dtype, elements are unsigned integers of the same width (bf16: uint16). If an
    element is narrower than a byte, or numpy has no integer of its width, they are the raw bytes.
    """

    tensor_dtype: str

    def __array_finalize__(self, other: Any) -> None:
        self.tensor_dtype = getattr(other, "tensor_dtype", "")


def tensors(
    history: History, rev: str | None = None, *, torch: bool = False, **options: Unpack[ComputeOptions]
) -> Iterator[tuple[str, Any]]:
    """The merged tensors as (name, array), one at a time, in byte order of names.

    numpy arrays of the tensor's shape; bf16 comes as uint16 whose `.tensor_dtype` says "BF16" (a
    `TensorArray`). With `torch`, torch tensors of the true dtype. They lie on the host, wherever they were
    computed. `rev` None: `recipe.toml` as it stands. Options as for `checkout`; its notes go where
    `open` says.
    """
    how = history.in_force(ComputeOptions, options)
    _, recipe = chosen_recipe(history, rev, history.notes)
    return _arrays(history, plan_of(history, recipe), how, device_choice(how), torch)


def _arrays(
    history: History, plan: Plan, options: ComputeOptions, device: DeviceChoice, torch: bool
) -> Iterator[tuple[str, Any]]:
    """The arrays, while the repository is open; one is in memory at a time."""
    made = pieces(
        plan,
        list(plan.tensors),
        threads=options["threads"],
        memory=options["memory"],
        progress=options["progress"],
        device=device,
        note=history.notes.append,
    )
    with closing(made) as coming:
        for tensor in plan.tensors:
            raw = np.empty(tensor.spec.nbytes, np.uint8)
            filled = 0
            while filled < raw.size:
                data = np.frombuffer(next(coming).data, np.uint8)
                raw[filled : filled + data.size] = data
                filled += data.size
            yield tensor.spec.name, _made(tensor.spec, raw, torch)
            history.require_open()


def _made(spec: TensorSpec, raw: NDArray[np.uint8], as_torch: bool) -> Any:
    if as_torch:
        from persona.merge.reference import as_tensor

        return as_tensor(raw, spec.dtype, spec.shape)
    name = DTYPES[spec.dtype].numpy or (uint(spec.unit) if spec.units == spec.elements else "u1")
    array = raw.view(name)
    shaped = array.reshape(spec.shape) if array.size == spec.elements else array
    found = shaped.view(TensorArray)
    found.tensor_dtype = spec.dtype
    return found
