"""Where a model in memory holds the tensors of a base.

transformers renames tensors when it loads a checkpoint, and joins some: it stacks the experts of a layer.
`save_pretrained` reverses that. Here the same reverse conversion runs on tensors without memory. Where it
takes views of a parameter, the views say which elements of the parameter hold a tensor of the base. A
conversion that computes new tensors has no such elements, and a live model of that family is not supported.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from persona.errors import Call, InvalidInput, listed
from persona.frozen import dataclass
from persona.live.slots import Module, Slot, Tensor, check_held, check_memory, new_slots, shared

if TYPE_CHECKING:
    from persona.merge.plan import Plan


@dataclass(frozen=True)
class Location:
    """The elements of a parameter or buffer that hold a tensor: all of them, or a strided view."""

    owner: str
    """The name of the parameter or buffer."""
    part: tuple[tuple[int, ...], tuple[int, ...], int] | None = None
    """Shape, stride and offset of the view, in elements of the contiguous owner; None: all of it."""

    def of(self, state: Mapping[str, Tensor]) -> Tensor:
        """The tensor in a model with these parameters and buffers."""
        owner = state[self.owner]
        if self.part is None:
            return owner
        if not owner.is_contiguous():
            raise InvalidInput(
                f"tensor {self.owner} of the model is not contiguous: load the model with repo.load"
            )
        shape, stride, offset = self.part
        return owner.detach().as_strided(shape, stride, owner.storage_offset() + offset)


def state_of(model: Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model, tied ones under each of their names."""
    state: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return state | dict(model.named_buffers(remove_duplicate=False))


def locations(model: Module, names: Collection[str]) -> tuple[dict[str, Location], frozenset[str]]:
    """The locations of tensors of a checkpoint in a model, and the names of those it holds in another form.

    Tensors that the model does not hold are in neither.
    """
    state = state_of(model)
    found = {name: Location(name) for name in names if name in state}
    converted: set[str] = set()
    if len(found) < len(names) and _is_of_transformers(model):
        found = {}
        empty = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            for name, tensor in state.items()
        }
        owners = {id(tensor): name for name, tensor in empty.items()}
        for stored in (*_stored(model, empty), empty):
            for name, tensor in _with_prefix(stored, str(getattr(model, "base_model_prefix", "")), names):
                if tensor is not None and name not in found:
                    location = _location(tensor, owners)
                    if location is None:
                        converted.add(name)
                    else:
                        found[name] = location
    return found, frozenset(converted - found.keys())


def _is_of_transformers(model: Module) -> bool:
    """Whether a model is one of transformers, and not a wrapper around one, or a part."""
    from transformers import PreTrainedModel

    return isinstance(model, PreTrainedModel)


def _location(tensor: Tensor, owners: Mapping[int, str]) -> Location | None:
    if id(tensor) in owners:
        return Location(owners[id(tensor)])
    if id(tensor._base) in owners:
        part = (tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
        return Location(owners[id(tensor._base)], part)
    return None


def _with_prefix(
    stored: Mapping[str, Tensor], prefix: str, names: Iterable[str]
) -> Iterator[tuple[str, Tensor | None]]:
    """The tensors of these names; as transformers, also those of a base model with and without its prefix."""
    for name in names:
        longer, shorter = f"{prefix}.{name}", name.removeprefix(f"{prefix}.")
        yield name, next((stored[other] for other in (name, longer, shorter) if other in stored), None)


class _KeepsViews(TorchFunctionMode):
    """Under this mode, `contiguous` copies nothing, so that a view stays one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is torch.Tensor.contiguous else func(*args, **(kwargs or {}))


def _stored(model: Any, empty: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The tensors as `save_pretrained` would name and cut them.

    First with the conversion that loaded the model, then with the default conversion of its family.
    """
    import copy

    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before transformers 5, which converts in another way
        return
    loaded = getattr(model, "_weight_conversions", None)
    default = get_model_conversion_mapping(model)
    for conversions in (loaded, default):
        if conversions:
            other = copy.copy(model)
            other._weight_conversions = conversions
            try:
                with _KeepsViews(), torch.no_grad():
                    yield revert_weight_conversion(other, dict(empty))
            except Exception:  # raised by code of the family's own: it has no reverse
                continue


class Layout:
    """The slots of a base's tensors in a model, found once for each base.

    A tensor that the model does not use (a mask of an older version), and a second copy of a tensor that the
    model shares, have memory beside the model.
    """

    def __init__(self, model: Module, *, loaded: bool) -> None:
        """`loaded`: the model was loaded from these tensors, so it may leave out some."""
        self._model = model
        self._loaded = loaded
        self._base: str | None = None
        self._locations: dict[str, Location] = {}
        self._beside: dict[str, Tensor] = {}
        self._copies: dict[str, str] = {}

    def slots(self, plan: Plan) -> dict[str, Slot]:
        """The slots of the plan's base, by name; changes nothing.

        Raises `InvalidInput` that names the tensor if the model lacks one, if it has another shape or dtype,
        no memory of its own, or memory shared with another one that differs in the base, and if the model
        has a parameter that is neither among them nor tied to one.
        """
        state = state_of(self._model)
        if self._base != plan.base.digest:
            self._base = None
            self._find(plan, state)
            self._base = plan.base.digest
        slots: dict[str, Slot] = {}
        for spec in plan.base.tensors:
            tensor = self._beside.get(spec.name)
            if tensor is None:
                location = self._locations[spec.name]
                if location.owner not in state:
                    raise _missing([spec.name])
                owner = state[location.owner]
                shape = tuple(owner.shape) if location.part is None else location.part[0]
                check_held(spec, owner, shape, wide=spec.merged and _kept_wide(self._model, location.owner))
                tensor = location.of(state)
            slots[spec.name] = Slot(spec, tensor)
        config: Any = getattr(self._model, "config", None)
        untied = getattr(config, "tie_word_embeddings", None) is False
        check_memory(state, self._owners(), untied=untied and bool(plan.base.tied))
        return slots

    def check_copies(self, slots: Mapping[str, Slot], changed: Collection[str]) -> None:
        """`InvalidInput` if a recipe makes different tensors of two that share memory in the model."""
        for copy, name in self._copies.items():
            if (copy in changed or name in changed) and not slots[copy].equals(slots[name]):
                raise shared(copy, name, "but the recipe makes them differ")

    def parts(self) -> Iterator[str]:
        """The tensors that are a part of a parameter: writing one of them changes the stamps of all."""
        return (name for name, location in self._locations.items() if location.part is not None)

    def _owners(self) -> dict[str, str]:
        """The parameters and buffers that hold tensors of the base → the first of them."""
        owners: dict[str, str] = {}
        for name, location in self._locations.items():
            owners.setdefault(location.owner, name)
        return owners

    def _find(self, plan: Plan, state: Mapping[str, Tensor]) -> None:
        specs = plan.base.spec
        found, converted = locations(self._model, specs)
        self._copies = {}
        absent = [name for name in specs if name not in found]
        refused = absent if not self._loaded else [name for name in absent if name in converted]
        refused = [name for name in refused if not _left_out(self._model, name)]
        if converted.intersection(refused):
            raise _unsupported(self._model, sorted(converted.intersection(refused)))
        if refused:
            raise _missing(refused)
        self._beside, _ = new_slots(specs[name] for name in absent)
        first: dict[tuple[object, ...], str] = {}
        table = plan.rows.chunks.table
        for name in list(found):
            tensor = state[found[name].owner]
            if tensor.layout == torch.strided and tensor.numel() and tensor.device.type != "meta":
                place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), found[name].part)
                other = first.setdefault(place, name)
                if other != name and table.chunks(name) == table.chunks(other):
                    self._beside[name] = torch.empty_like(found.pop(name).of(state)).contiguous()
                    self._copies[name] = other
        self._locations = found
        _check_parts(self._model, state, found)


def _check_parts(model: Module, state: Mapping[str, Tensor], found: Mapping[str, Location]) -> None:
    """`InvalidInput` unless the tensors that are parts of a parameter fill it, each element once."""
    parts: dict[str, list[Any]] = defaultdict(list)
    for location in found.values():
        if location.part is not None:
            parts[location.owner].append(location.part)
    right: set[object] = set()
    for owner, views in parts.items():
        shape = tuple(state[owner].shape)
        seen = (shape, tuple(sorted(views)))
        if seen in right:
            continue
        if not _fill_once(state[owner].numel(), views):
            raise _unsupported(model, [owner])
        right.add(seen)


def _fill_once(count: int, views: Collection[Any]) -> bool:
    """Whether strided views of `count` elements hold each element once."""
    spans = []
    for shape, stride, offset in views:
        if stride != torch.empty(shape, device="meta").stride():
            break
        spans.append((offset, offset + prod(shape)))
    else:  # all are contiguous
        spans.sort()
        return [start for start, _ in spans] + [count] == [0] + [stop for _, stop in spans]
    held = torch.zeros(count, dtype=torch.uint8)
    for view in views:
        held.as_strided(*view).add_(1)
    return bool((held == 1).all())


def _left_out(model: Any, name: str) -> bool:
    """Whether transformers leaves out a tensor of this name on purpose, when it loads such a model."""
    patterns = list(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    return any(re.search(pattern, name) for pattern in (*patterns, r"rotary_emb\.inv_freq", r"position_ids$"))


def _kept_wide(model: Any, name: str) -> bool:
    """Whether transformers keeps a parameter in float32, whatever dtype the checkpoint has."""
    kept = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    return any(part in name for attribute in kept for part in getattr(model, attribute, None) or ())


def _missing(names: list[str]) -> InvalidInput:
    return InvalidInput(
        f"the model has no tensor {listed(names, 1)}: give the whole model, as repo.load makes it, not"
        " a part of it or a wrapper around it (PEFT, DDP, torch.compile)"
    )


def _unsupported(model: Module, names: list[str]) -> InvalidInput:
    import transformers

    return InvalidInput(
        f"{type(model).__name__} of transformers {transformers.__version__} computes other tensors from"
        f" {listed(names, 1)} when it loads a checkpoint, and persona cannot merge into them: a live model"
        " of this family is not supported",
        hint=(Call("checkout"), " writes the weights, and from_pretrained loads them"),
    )
