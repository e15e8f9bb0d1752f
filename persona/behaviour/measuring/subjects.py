"""**scoring model** — a float32 model whose weights are swapped in place: the base, a recipe, the base with a
random vector.

Weights are merged in the base's dtype, as a checkout does, and then converted. So a scoring model takes six
bytes an element of a bf16 base while weights are swapped, and four while it is measured.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import torch

from persona.behaviour.measuring.controls import add_random
from persona.behaviour.models import moved
from persona.errors import InvalidInput
from persona.history.history import History
from persona.history.options import LoadOptions
from persona.history.planning import plan_of
from persona.live.fill import Filler, caching_merger_of
from persona.live.load import built
from persona.live.slots import new_slots
from persona.merge.plan import Plan, TensorPlan
from persona.objects.recipe import Recipe

if TYPE_CHECKING:
    from persona.live.fill import PreTrainedModel

ATTENTION: Final = "eager"
"""The implementation of attention: the one that every model has."""


class ScoringModel:
    """A model that holds the weights of a base until others are asked for.

    `rev`: the revision whose config.json names the class, None for the work tree's. `device`: cpu or cuda.
    """

    def __init__(
        self, history: History, rev: str | None, base: Recipe, device: str, threads: int | None
    ) -> None:
        self._history = history
        self._threads = threads
        plan = plan_of(history, base)
        options = LoadOptions(threads=threads, allow_nonfinite=False, progress=None)
        more = {"dtype": torch.float32, "attn_implementation": ATTENTION}
        with torch.inference_mode(False):  # so that a gradient can be taken of its parameters later
            self.model: PreTrainedModel = built(history, rev, plan, options, more)[0]
        self.model.requires_grad_(False)
        self.model = moved(self.model, device)
        self._base = base
        self._places, self._absent = _places_of(self.model, [spec.name for spec in plan.base.tensors])
        self._keys = {tensor.spec.name: tensor.key for tensor in plan.tensors}
        """The key of the content of each tensor, by its name."""
        self._norms: dict[str, dict[str, float]] = {}
        self._random: tuple[str, int] | None = None
        """The recipe and the seed of the random vector that the model holds."""

    def hold(self, recipe: Recipe) -> None:
        """Merges the weights of a recipe into the model; only tensors that differ are computed."""
        self._fill(recipe, None)

    def hold_random(self, recipe: Recipe, seed: int) -> None:
        """The base with a random vector that changes each tensor by as much as a recipe does."""
        if self._random == (recipe.key, seed):
            return
        norms = self._norms_of(recipe)
        self.hold(self._base)
        for name in norms:
            self._keys.pop(name, None)
        add_random({name: self._places[name] for name in norms}, norms, seed)
        self._random = recipe.key, seed

    def _norms_of(self, recipe: Recipe) -> Mapping[str, float]:
        """The Euclidean norm of a recipe's change of each tensor that it changes."""
        if recipe.key not in self._norms:
            self.hold(self._base)
            norms: dict[str, float] = {}
            self._fill(recipe, norms)
            self._norms[recipe.key] = norms
        return self._norms[recipe.key]

    def _fill(self, recipe: Recipe, norms: dict[str, float] | None) -> None:
        self._random = None
        with torch.no_grad(), closing(self._merged(recipe)) as merged:
            for tensor, place, new in merged:
                name = tensor.spec.name
                self._keys.pop(name, None)
                if norms is not None and tensor.spec.merged:
                    norm = float(torch.linalg.vector_norm(new - place, dtype=torch.float64))
                    if norm > 0:
                        norms[name] = norm
                place.copy_(new)
                self._keys[name] = tensor.key

    def places_of(self, plan: Plan) -> dict[str, torch.Tensor]:
        """The parameters that the terms of a plan reach, by the name of their tensor; of tied ones, one."""
        return {
            tensor.spec.name: self._places[tensor.spec.name]
            for tensor in plan.tensors
            if tensor.terms and tensor.spec.name in self._places
        }

    def rise(self, recipe: Recipe) -> float:
        """Σ grad · (weights of a recipe − weights that the model holds), over parameters with a gradient."""
        total = 0.0
        with torch.no_grad(), closing(self._merged(recipe)) as merged:
            for _, place, new in merged:
                if place.grad is not None:
                    total += float(((new - place) * place.grad).sum(dtype=torch.float64))
        return total

    def _merged(self, recipe: Recipe) -> Generator[tuple[TensorPlan, torch.Tensor, torch.Tensor], None, None]:
        """The tensors of a recipe that the model does not hold: the plan, its place, and the new values."""
        plan = plan_of(self._history, recipe)
        if plan.is_extended:
            names = ", ".join(term.name for term in recipe.terms)
            raise InvalidInput(
                f"a vector among {names} adds tokens or an output matrix to the base, which has nothing to"
                " compare them with: persona measures no weights of other shapes than the base's"
            )
        changed = [tensor for tensor in plan.tensors if self._keys.get(tensor.spec.name) != tensor.key]
        if not changed:
            return
        merger = caching_merger_of(plan, changed, threads=self._threads)
        tensors, slots = new_slots([tensor.spec for tensor in changed])
        with closing(Filler().fill(merger, changed, slots)) as filling:
            for tensor, _ in filling:
                name = tensor.spec.name
                new = tensors.pop(name)
                place = self._places.get(name)
                if name in self._absent:
                    raise InvalidInput(
                        f"{type(self.model).__name__} of transformers has no tensor {name}, which a vector"
                        " changes: it renames tensors when it loads them, so weights cannot be swapped in"
                        " place"
                    )
                if place is not None:  # else it is tied to another one of the base's tensors
                    yield tensor, place, new.to(place.device, place.dtype)


def _places_of(
    model: PreTrainedModel, names: Sequence[str]
) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """The parameter or buffer of each tensor of a base; of tied ones, the first in the model.

    Then the names of the tensors that the model does not have, such as masks of older versions. A base may
    hold the tensors of the model without its head, whose names lack the prefix.
    """
    state: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    state |= model.named_buffers(remove_duplicate=False)
    prefix = f"{model.base_model_prefix}."
    wanted = {name if name in state else prefix + name: name for name in names}
    found: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        if name in wanted and tensor.data_ptr() not in taken:
            found[wanted[name]] = tensor
            taken.add(tensor.data_ptr())
    return found, frozenset(name for full, name in wanted.items() if full not in state)
