"""**scoring model** — a float32 model whose weights are swapped in place: the base, a recipe, the base with a
random vector.

The model has the shapes of an extended base (`persona.objects.growth`) and takes recipes that extend the base
in the same way. It holds the base and random vectors as well, and then hides the tokens that were added: no
text leads to them, and they have no probability.

Weights are merged in the base's dtype, as a checkout does, and then converted. So a scoring model takes six
bytes an element of a bf16 base while weights are swapped, and four while it is measured.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import torch

from persona.behaviour.measuring.controls import add_random
from persona.behaviour.measuring.readers import has_rows
from persona.behaviour.models import moved
from persona.errors import InvalidInput
from persona.history.history import History
from persona.history.options import LoadOptions
from persona.history.planning import grown_base, plan_of
from persona.live.fill import Filler, caching_merger_of
from persona.live.layout import Location, locations, state_of
from persona.live.load import built
from persona.live.slots import new_slots
from persona.merge.plan import Plan, TensorPlan
from persona.objects import growth
from persona.objects.recipe import Recipe

if TYPE_CHECKING:
    from persona.live.fill import PreTrainedModel

ATTENTION: Final = "eager"
"""The implementation of attention: the one that every model has."""


class ScoringModel:
    """A model for the weights of a recipe and of others with the same shapes. At first it holds the base.

    `rev`: the revision whose config.json names the class, None for the work tree's. `device`: cpu or cuda.
    """

    def __init__(
        self, history: History, rev: str | None, recipe: Recipe, device: str, threads: int | None
    ) -> None:
        self._history = history
        self._threads = threads
        self._base = grown_base(history, recipe)
        plan = plan_of(history, self._base)
        self._shapes = plan.base.digest
        options = LoadOptions(threads=threads, allow_nonfinite=False, progress=None)
        more = {"dtype": torch.float32, "attn_implementation": ATTENTION}
        with torch.inference_mode(False):  # so that a gradient can be taken of its parameters later
            self.model: PreTrainedModel = built(history, rev, plan, options, more)[0]
        self.model.requires_grad_(False)
        self.model = moved(self.model, device)
        self._own, self._origins = history.base(recipe.base), plan.origins
        self._tokens = growth.vocabulary(self._own, plan.base)
        self._hides = self._tokens is not None
        self.model.register_forward_hook(self._hidden)
        self._state = state_of(self.model)
        self._locations, self._absent = _locations_of(self.model, self._state, plan.base.spec)
        self._places = {name: location.of(self._state) for name, location in self._locations.items()}
        self._keys = {tensor.spec.name: tensor.key for tensor in plan.tensors}
        """The key of the content of each tensor, by its name."""
        self._norms: dict[str, dict[str, float]] = {}
        self._random: tuple[str, int] | None = None
        """The recipe and the seed of the random vector that the model holds."""

    def takes(self, recipe: Recipe) -> bool:
        """Whether the model has the shapes of a recipe's weights."""
        return not recipe.terms or self._history.base_of(recipe).digest == self._shapes

    def hold(self, recipe: Recipe) -> None:
        """Merges the weights of a recipe into the model; only tensors that differ are computed.

        A recipe without terms is the base.
        """
        self._hides = self._tokens is not None and not has_rows(self._history, recipe)
        self._fill(recipe if recipe.terms else self._base, None)

    def _hidden(self, model: Any, arguments: Any, output: Any) -> None:
        """Takes the probability of tokens that the weights have no rows for."""
        if self._hides and self._tokens is not None:
            output.logits[..., self._tokens[0] :] = -torch.inf

    def hold_random(self, recipe: Recipe, seed: int) -> None:
        """The base with a random vector that changes each tensor by as much as a recipe does."""
        if self._random == (recipe.key, seed):
            return
        norms = self._norms_of(recipe)
        self._hold_base()
        for name in norms:
            self._keys.pop(name, None)
        add_random({name: self._of_base(name, self._places[name]) for name in norms}, norms, seed)
        self._random = recipe.key, seed

    def _norms_of(self, recipe: Recipe) -> Mapping[str, float]:
        """The Euclidean norm of a recipe's change of each tensor that it changes, without its new rows."""
        if recipe.key not in self._norms:
            self._hold_base()
            norms: dict[str, float] = {}
            self._fill(recipe, norms)
            self._norms[recipe.key] = norms
        return self._norms[recipe.key]

    def _hold_base(self) -> None:
        self.hold(Recipe.of(self._base.base, [], self._base.rules))

    def _of_base(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The elements of a tensor that the base has too."""
        spec = self._own.spec.get(name) or self._own.spec[self._origins[name] or name]
        return tensor[tuple(slice(size) for size in spec.shape)]

    def _fill(self, recipe: Recipe, norms: dict[str, float] | None) -> None:
        self._random = None
        with torch.no_grad(), closing(self._merged(recipe)) as merged:
            for tensor, place, new in merged:
                name = tensor.spec.name
                self._keys.pop(name, None)
                if norms is not None and tensor.spec.merged:
                    change = self._of_base(name, new - place)
                    norm = float(torch.linalg.vector_norm(change, dtype=torch.float64))
                    if norm > 0:
                        norms[name] = norm
                place.copy_(new)
                self._keys[name] = tensor.key

    def parameters_of(self, plan: Plan) -> list[torch.Tensor]:
        """The parameters that the terms of a plan reach, each once."""
        names = (tensor.spec.name for tensor in plan.tensors if tensor.terms)
        owners = dict.fromkeys(self._locations[name].owner for name in names if name in self._locations)
        return [self._state[owner] for owner in owners]

    def gradient(self, name: str) -> torch.Tensor | None:
        """The gradient of a tensor of the base, if its parameter has one; of tied ones, the first's."""
        location = self._locations.get(name)
        grad = None if location is None else self._state[location.owner].grad
        return None if location is None or grad is None else location.of({location.owner: grad})

    def rise(self, recipe: Recipe) -> float:
        """Σ grad · (weights of a recipe − weights that the model holds), over parameters with a gradient."""
        total = 0.0
        with torch.no_grad(), closing(self._merged(recipe)) as merged:
            for tensor, place, new in merged:
                if (grad := self.gradient(tensor.spec.name)) is not None:
                    total += float(((new - place) * grad).sum(dtype=torch.float64))
        return total

    def _merged(self, recipe: Recipe) -> Generator[tuple[TensorPlan, torch.Tensor, torch.Tensor], None, None]:
        """The tensors of a recipe that the model does not hold: the plan, its place, and the new values."""
        plan = plan_of(self._history, recipe)
        assert plan.base.digest == self._shapes, "this model does not take the recipe"
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
                        f"{type(self.model).__name__} of transformers holds no tensor {name}, which a vector"
                        " changes, or holds it in another form, so weights cannot be swapped in place"
                    )
                if place is not None:  # else it is tied to another one of the base's tensors
                    yield tensor, place, new.to(place.device, place.dtype)


def _locations_of(
    model: PreTrainedModel, state: Mapping[str, torch.Tensor], names: Collection[str]
) -> tuple[dict[str, Location], frozenset[str]]:
    """The location of each tensor of a base; of tied ones, the first in the model.

    Then the names of the tensors that the model does not have as they are, such as masks of older versions.
    """
    known, _ = locations(model, names)
    order = {owner: at for at, owner in enumerate(state)}
    found: dict[str, Location] = {}
    taken: set[int] = set()
    for name, location in sorted(known.items(), key=lambda one: order[one[1].owner]):
        start = location.of(state).data_ptr()
        if start not in taken:
            found[name] = location
            taken.add(start)
    return found, frozenset(names) - known.keys()
