"""**live model** — a transformers model in memory whose parameters a repository merges into, in place.

The keys of `persona.merge.plan` say what lies in each tensor, so only tensors whose key changes are computed.
A tensor has no key while it is being written. If a change ends early, by an error or Ctrl-C, the tensors that
it wrote are computed back exactly. If that ends early too, the model is half done: its lock
(`persona.live.lock`) stays shut until `resume` or `abort` has made it whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from persona.errors import Refused, UsageError, listed
from persona.history.arguments import checks_arguments
from persona.history.history import History
from persona.history.options import LiveOptions
from persona.history.planning import plan_of
from persona.history.query_results import LiveResult, RecipeView
from persona.history.recipes.checked import OverLayers
from persona.history.recipes.views import recipe_view
from persona.limits import LIVE_TIMEOUT_SECONDS
from persona.live import edits
from persona.live.fill import Filler, caching_merger_of
from persona.live.layout import Layout
from persona.live.load import built, chosen
from persona.live.lock import ModelLock
from persona.live.resident import Residents
from persona.live.slots import Slot, Stamp, Tensor, digest_of
from persona.merge.plan import Plan
from persona.merge.rows.cache import RowCache
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe

if TYPE_CHECKING:
    from persona.live.fill import PreTrainedModel
    from persona.live.slots import Module

Holding = tuple[Plan, str | None]
"""A plan, and the commit whose recipe it is of."""
_UNDONE: Final = 256
"""Changes that can be taken back."""


@checks_arguments
class LiveModel:
    """A model whose parameters hold the weights of a recipe, with calls that change the recipe.

    `Repository.live` makes one. The calls change neither `recipe.toml` nor HEAD.

    A call that changes the weights waits until nobody uses the model. After `timeout` seconds it raises
    `BusyError` (None: it waits for ever). The model's forward pass waits until the weights are whole, and
    raises `Refused` while they are half done. Calls may come from any thread and take turns: no user and no
    change waits for ever.
    """

    def __init__(
        self,
        history: History,
        model: Module,
        recipe: Recipe,
        revision: str | None,
        options: LiveOptions,
        filled: Mapping[str, tuple[str, Tensor]],
        cache: RowCache,
    ) -> None:
        """`filled`: name → (key, tensor) of tensors that hold the bytes of that key already.

        So does a parameter that lies in the same memory.
        """
        self._history = history
        self._model = model
        self._options = options
        self._layout = Layout(model, loaded=bool(filled))
        self._closed = False
        self._filler = Filler()
        self._cache = cache
        self._residents = Residents(options["cache"], options["device_memory"])
        self._keys: dict[str, str] = {}
        self._stamps: dict[str, Stamp] = {}
        self._holds: Holding | None = None
        self._target: Holding | None = None
        self._origin = (revision, recipe)
        self._past: deque[tuple[str | None, Recipe, tuple[str | None, Recipe]]] = deque(maxlen=_UNDONE)
        """Revision, recipe and origin before each change."""
        plan = plan_of(history, recipe)
        for name, slot in self._layout.slots(plan).items():
            key, tensor = filled.get(name, ("", None))
            if tensor is not None and slot.stamp()[0] == tensor.data_ptr():
                self._keys[name], self._stamps[name] = key, slot.stamp()
        self._lock = _lock_of(model, self)
        try:
            with self._lock.merging():
                self._move((plan, revision))
        finally:
            if self._holds is None:
                self.close()

    def __repr__(self) -> str:
        held = self._target if self.half_done else self._holds
        at = "nothing" if held is None else _words(held[1])
        half = ", half done" if self.half_done else ", closed" if self._closed else ""
        return f"<LiveModel of {type(self._model).__name__} at {at}{half}>"

    @property
    def model(self) -> PreTrainedModel:
        """The model: the same object all the time."""
        model: Any = self._model
        return model  # type: ignore[no-any-return]

    @property
    def revision(self) -> str | None:
        """The commit whose weights the model holds; None for an edited recipe."""
        return self._now()[1]

    @property
    def recipe(self) -> RecipeView:
        """The recipe of the model's weights: rules, and vectors by name."""
        return recipe_view(self._now()[0].recipe)

    @property
    def half_done(self) -> bool:
        """Whether a change ended early and could not be taken back: `resume` or `abort` is due."""
        return self._target is not None and self._lock.shut is not None

    def set(
        self,
        name: str,
        *,
        alpha: OverLayers = None,
        density: OverLayers = None,
        only: str | Sequence[str] | None = None,
        except_: str | Sequence[str] | None = None,
        join: str | None = None,
        force: bool = False,
        timeout: float | None = LIVE_TIMEOUT_SECONDS,
    ) -> LiveResult:
        """Changes one vector of the model's recipe.

        None keeps a value. An empty filter removes the filter, "default" removes a density. A list of numbers
        is spread over the layers.

        Raises `UnknownName` for a vector that the recipe does not have, `InvalidInput` for a value out of
        range and for weights that are not finite, and the errors of `checkout`.
        """
        keys = edits.term_keys(alpha, density, only, except_, join)

        def edit(recipe: Recipe) -> Recipe:
            return edits.with_term(self._history, recipe, name, keys)

        return self._edit(edit, force, timeout)

    def set_rules(
        self,
        axes: Mapping[str, str | float],
        *,
        force: bool = False,
        timeout: float | None = LIVE_TIMEOUT_SECONDS,
    ) -> LiveResult:
        """Changes merge rules: `{"density": 0.2}`, `{"lambda": 0.8}`, `{"preset": "linear"}`, any axis.

        docs/numerics.md has the axes. A preset brings its own axes. λ keeps its value unless it is given too,
        and so does the density if the preset uses one. Rules that trim nothing or jointly are refused while a
        vector has a density of its own (`set(NAME, density="default")` removes it). Raises `InvalidInput` for
        an impossible axis or value, and the errors of `checkout`.
        """
        return self._edit(lambda recipe: edits.with_rules(recipe, axes), force, timeout)

    def checkout(
        self,
        rev: str | None = None,
        *,
        force: bool = False,
        timeout: float | None = LIVE_TIMEOUT_SECONDS,
    ) -> LiveResult:
        """Merges the weights of a revision, or of `recipe.toml` as it is, into the model.

        Raises `InvalidInput` if the model no longer fits the base. Raises `Refused` if something else
        (training) changed parameters in place, unless `force` discards that. Raises `BusyError` inside this
        thread's own `using` and after `timeout`, and the errors of reading the store. After an error the
        model is as before; if that is not possible, it is half done.
        """
        with self._changing(timeout):
            notes: list[str] = []
            revision, recipe = chosen(self._history, rev, notes)
            result = self._move((plan_of(self._history, recipe), revision), force=force)
            self._origin = (revision, recipe)
            return replace(result, notes=(*notes, *result.notes))

    def undo(self, *, force: bool = False, timeout: float | None = LIVE_TIMEOUT_SECONDS) -> LiveResult:
        """Takes back the last call of `set`, `set_rules` or `checkout` that changed the recipe or revision.

        Called again, it takes back the one before, up to 256. Raises `Refused` if there is none, and the
        errors of `checkout`.
        """
        with self._changing(timeout):
            if self.half_done:
                raise Refused(str(self._lock.shut))
            if not self._past:
                raise Refused("nothing to undo: the model holds the recipe that it began with")
            revision, recipe, origin = self._past[-1]
            result = self._move((plan_of(self._history, recipe), revision), force=force, remember=False)
            self._past.pop()
            self._origin = origin
            return result

    def resume(self, *, timeout: float | None = LIVE_TIMEOUT_SECONDS) -> LiveResult:
        """Completes a change that ended half done. Raises `UsageError` if nothing is half done."""
        with self._changing(timeout):
            return self._move(self._unfinished(), force=True)

    def abort(self, *, timeout: float | None = LIVE_TIMEOUT_SECONDS) -> LiveResult:
        """Takes back a change that ended half done. Raises `UsageError` if nothing is half done."""
        with self._changing(timeout):
            self._unfinished()
            assert self._holds is not None
            return self._move(self._holds, force=True)

    @contextmanager
    def using(self) -> Iterator[PreTrainedModel]:
        """Holds the model, so that nobody changes its weights: for all tokens of one answer, say.

        A single forward pass needs no `using`, and neither does another thread that computes a part of the
        answer. Raises `Refused` while the model is half done.
        """
        with self._lock.using():
            yield self.model

    def digest(self) -> str:
        """The weights digest of the parameters as they are now, hashed again: `blake3:<64 hex>`.

        It equals `Repository.digest` of the same recipe, unless something else changed parameters.
        """
        with self._lock.using():
            plan = self._now()[0]
            return digest_of(self._layout.slots(plan), self._options["threads"])

    def close(self, *, timeout: float | None = LIVE_TIMEOUT_SECONDS) -> None:
        """Leaves the model with the weights that it holds, and frees the caches for the next change.

        A half-done model stays shut.
        """
        with self._lock.merging(timeout):
            self._closed = True
            self._cache, self._residents = RowCache(0), Residents(0)
            if self._lock.shut is None:
                self._lock.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _changing(self, timeout: float | None) -> Iterator[None]:
        with self._lock.merging(timeout):
            if self._closed or self._history.closed:
                raise UsageError(
                    "this live model is closed, or its repository is: open the repository, and call"
                    " repo.live(model) again"
                )
            yield

    def _now(self) -> Holding:
        if self._holds is None:
            raise Refused(self._lock.shut or "the model holds no recipe yet")
        return self._holds

    def _unfinished(self) -> Holding:
        if not self.half_done or self._target is None:
            raise UsageError("no change was interrupted: there is nothing to resume or abort")
        return self._target

    def _edit(self, edit: Callable[[Recipe], Recipe], force: bool, timeout: float | None) -> LiveResult:
        with self._changing(timeout):
            if self.half_done:
                raise Refused(str(self._lock.shut))
            recipe = edit(self._now()[0].recipe)
            revision = self._origin[0] if recipe == self._origin[1] else None
            return self._move((plan_of(self._history, recipe), revision), force=force)

    def _move(self, target: Holding, *, force: bool = False, remember: bool = True) -> LiveResult:
        """Brings the model to a plan, or back to its state before. `remember`: for `undo`."""
        started, before = time.perf_counter(), self._holds
        slots = self._layout.slots(target[0])
        self._look_for_edits(slots, force)
        try:
            result = self._fill(target, slots)
        except BaseException as error:
            self._go_back(error)
            raise
        if remember and before is not None and (before[0].recipe, before[1]) != (target[0].recipe, target[1]):
            self._past.append((before[1], before[0].recipe, self._origin))
        return replace(result, seconds=round(time.perf_counter() - started, 3))

    def _go_back(self, error: BaseException) -> None:
        """Makes the model whole again after `error`, or says there that it is not."""
        if self._lock.shut is None:
            return
        if self._holds is None or self._target is self._holds:
            error.add_note(self._lock.shut)
            return
        target = self._target
        try:
            self._fill(self._holds, self._layout.slots(self._holds[0]))
        except BaseException:
            self._target = target
            self._lock.shut = self._half_done_words()
            error.add_note(self._lock.shut)

    def _look_for_edits(self, slots: Mapping[str, Slot], force: bool) -> None:
        """Forgets the keys of tensors that moved in memory. Raises `Refused` for tensors changed in place."""
        edited = []
        for name, slot in slots.items():
            if name in self._keys and (stamp := slot.stamp()) != self._stamps[name]:
                if stamp[0] == self._stamps[name][0]:
                    edited.append(name)
                else:
                    del self._keys[name]
        if edited and not force:
            raise Refused(
                f"tensor {listed(edited, 1)}: changed in place since they were merged, by training perhaps,"
                " and would be overwritten; save the model first, or pass force=True"
            )
        for name in edited:
            del self._keys[name]

    def _fill(self, target: Holding, slots: Mapping[str, Slot]) -> LiveResult:
        """Computes the tensors whose keys differ from a plan's. The model stays shut until all are whole."""
        plan, revision = target
        changed = [tensor for tensor in plan.tensors if self._keys.get(tensor.spec.name) != tensor.key]
        notes: list[str] = []

        def note(spec: Any, count: int) -> None:
            notes.append(f"tensor {spec.name}: {count} elements are not finite")

        if changed:
            threads, progress = self._options["threads"], self._options["progress"]
            self._residents.check(plan, changed, slots)
            merger = caching_merger_of(
                plan, changed, self._cache, threads=threads, progress=progress, slots=slots
            )
            self._target = target
            self._lock.shut = self._half_done_words()
            for tensor in changed:
                self._keys.pop(tensor.spec.name, None)
            report = note if self._options["allow_nonfinite"] else None
            filling = self._filler.fill(
                merger,
                changed,
                slots,
                residents=self._residents,
                progress=progress,
                not_finite=report,
                note=notes.append,
            )
            with closing(filling):
                for tensor, stamp in filling:
                    self._stamps[tensor.spec.name] = stamp
                    self._keys[tensor.spec.name] = tensor.key
            self._layout.check_copies(slots, {tensor.spec.name for tensor in changed})
            for name in self._layout.parts():
                self._stamps[name] = slots[name].stamp()
        self._holds = target
        self._lock.shut = self._target = None
        return LiveResult(
            revision=revision,
            tensors_computed=len(changed),
            tensors_reused=len(plan.tensors) - len(changed),
            bytes_written=sum(tensor.spec.nbytes for tensor in changed),
            seconds=0.0,
            notes=tuple(notes),
        )

    def _half_done_words(self) -> str:
        if self._holds is None:
            return (
                "the model's weights are half done: filling them ended early; give the model to"
                " repo.live(model, REV) again"
            )
        before = _words(self._holds[1])
        if self._target is None or self._target is self._holds:
            return f"the model's weights are half way back to {before}: live.abort() continues that"
        after = _words(self._target[1])
        return (
            f"the model's weights are half way from {before} to {after}: live.resume() finishes the change,"
            " live.abort() goes back"
        )


def live(
    history: History, model: Module | None = None, rev: str | None = None, **options: Unpack[LiveOptions]
) -> LiveModel:
    """Overwrites a model's parameters with the weights of a revision; returns its `LiveModel`.

    Without `model`, one is loaded as by `load`. `rev` None: `recipe.toml` as it is. The model must hold the
    base's tensors, with their shapes and dtypes, as transformers loads them: it may rename them, or stack
    experts. They may lie on any device; those on a GPU are merged there, in place. Raises `InvalidInput` that
    names a tensor that does not fit, or of which transformers computes others when it loads a checkpoint.
    Raises `Refused` if the model has a live model already.

    `cache`: bytes of decoded chunks that may stay in memory from one change to the next (1.5 GiB); 0 keeps
    none. As many bytes may stay on each GPU that the model lies on. A whole bf16 model with K vectors takes
    2 + 2·K bytes an element; then a change of α reads nothing else. `device_memory`: bytes that chunks may
    take on a GPU while they are loaded. The repository must stay open while weights are changed.
    """
    how = history.in_force(LiveOptions, options)
    cache = RowCache(how["cache"])
    revision, recipe = chosen(history, rev, history.notes)
    filled: dict[str, tuple[str, Tensor]] = {}
    if model is None:
        model, filled = built(history, rev, plan_of(history, recipe), how, {}, cache)
    elif not hasattr(model, "register_forward_pre_hook"):
        raise UsageError(f"live needs a torch model, such as repo.load returns, not {type(model).__name__}")
    return LiveModel(history, model, recipe, revision, how, filled, cache)


def _lock_of(model: Any, owner: LiveModel) -> ModelLock:
    """A lock for a model; raises `Refused` if another live model still has it."""
    there = ModelLock.of(model)
    if there is not None:
        other = there.owner()
        if isinstance(other, LiveModel):
            if there.shut is None:
                raise Refused("this model has a live model already: use that one, or close it first")
            other.close()
        there.remove()
    return ModelLock(model, owner)


def _words(revision: str | None) -> str:
    return "an edited recipe" if revision is None else abbreviate(revision)
