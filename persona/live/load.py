"""A transformers model out of a repository, without a file.

Its weights come from the merge, its class and settings from the tracked config.json and
generation_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from persona.errors import InvalidInput, UsageError
from persona.history.computing import chosen_recipe
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import LoadOptions
from persona.history.planning import plan_of
from persona.history.vectors.model_config import CONFIG as CONFIG
from persona.history.vectors.model_config import fit
from persona.history.worktree import text_files
from persona.limits import MAX_CONFIG_BYTES
from persona.live.fill import Filler, build, caching_merger_of
from persona.live.slots import Tensor, new_slots
from persona.merge.plan import Plan
from persona.merge.rows.cache import RowCache
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe
from persona.progress import Progress
from persona.store.refs import NoteList

if TYPE_CHECKING:
    from persona.live.fill import PreTrainedModel

GENERATION_CONFIG: Final = "generation_config.json"


def load(
    history: History,
    rev: str | None = None,
    /,
    *,
    threads: int | None = None,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> PreTrainedModel:
    """A transformers model with the weights and config of a revision, in evaluation mode.

    Nothing is written. The model equals the one that `from_pretrained` loads from a checkout of `rev`. `rev`
    None: `recipe.toml` and config as they are. config.json names the class. `options` go to `from_pretrained`
    (`dtype=torch.float32`, `attn_implementation=…`, `device_map=…`). Raises `InvalidInput` if the weights are
    not finite, unless `allow_nonfinite`, or if transformers has no such class.
    """
    if options.get("trust_remote_code"):
        raise UsageError("trust_remote_code: persona runs no code that comes with a model")
    given = LoadOptions(threads=threads, allow_nonfinite=allow_nonfinite, progress=progress)
    how = history.in_force(LoadOptions, given)
    _, recipe = chosen(history, rev, history.notes)
    model, _ = built(history, rev, plan_of(history, recipe), how, options)
    return model


def chosen(history: History, rev: str | None, notes: NoteList) -> tuple[str | None, Recipe]:
    """As `chosen_recipe`; `recipe.toml` as HEAD has it counts as HEAD."""
    revision, recipe = chosen_recipe(history, rev, notes)
    if revision is None and recipe == history.recipe_of(head := history.head_commit()):
        revision = head
    return revision, recipe


def built(
    history: History,
    rev: str | None,
    plan: Plan,
    options: LoadOptions,
    more: Mapping[str, Any],
    cache: RowCache | None = None,
) -> tuple[PreTrainedModel, dict[str, tuple[str, Tensor]]]:
    """A new model with the weights of a plan and the config of a revision or the work tree.

    Also returns name → (key, tensor).
    """
    revision = None if rev is None else resolve(history, rev)
    config = json_of(history, revision, CONFIG)
    if config is None:
        raise InvalidInput(
            f"{rev or 'the work tree'}: no {CONFIG} is tracked, so the class of the model is not known;"
            " load one with transformers and give it to repo.live"
        )
    config = fit(history, config, history.base(plan.recipe.base), plan.base)
    generation = json_of(history, revision, GENERATION_CONFIG)
    tensors, slots = new_slots(plan.base.tensors)
    report = (lambda spec, count: None) if options["allow_nonfinite"] else None
    whole, progress = list(plan.tensors), options["progress"]
    merger = caching_merger_of(plan, whole, cache, threads=options["threads"], progress=progress)
    filling = Filler().fill(merger, whole, slots, progress=progress, not_finite=report)
    with closing(filling):
        filled = {tensor.spec.name: (tensor.key, tensors[tensor.spec.name]) for tensor, _ in filling}
    return build(config, generation, tensors, more), filled


def json_of(history: History, revision: str | None, path: str) -> dict[str, Any] | None:
    """A JSON object among the text files of a revision, or of the work tree."""
    if revision is None:
        data = text_files.read(history.root, path)
    else:
        blob = history.files_of(revision).get(path)
        data = None if blob is None else history.blob(blob)
    if data is None:
        return None
    try:
        value = json.loads(data) if len(data) <= MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        where = "the work tree" if revision is None else abbreviate(revision)
        raise InvalidInput(f"{path} of {where} is not a JSON object")
    return value
