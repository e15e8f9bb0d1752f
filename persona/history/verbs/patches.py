"""`export --patch`: the elements that differ between two revisions, as one file for a running server."""

from __future__ import annotations

import time
from dataclasses import field
from pathlib import Path
from typing import Unpack

from persona.errors import Refused, UsageError
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.history import History
from persona.history.names.sides import sides
from persona.history.options import PatchOptions
from persona.history.planning import plan_of
from persona.history.results import UNPRINTED, Result
from persona.history.worktree import text_files, tracking
from persona.store import files


@dataclass(frozen=True, repr=False)
class PatchResult(Result):
    """A patch that was written, from one revision to another (None: the recipe of the work tree).

    `tensors`: how many it names; `changed`: elements that it holds, `changed_fraction` of all float elements;
    `bytes`: of the file.
    """

    from_: str | None
    to: str | None
    out: str
    tensors: int
    changed: int
    changed_fraction: float
    bytes: int
    seconds: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def export_patch(
    history: History, a: str, b: str | None = None, *, out: AnyPath, **options: Unpack[PatchOptions]
) -> PatchResult:
    """Writes the elements whose bits differ from `a` to `b` into a sparse patch at `out`.

    `a` may be `A..B`; without a second revision, the patch leads to `recipe.toml` as it stands. The file
    holds, for each tensor NAME that differs, `NAME.indices` (int32, ascending places in the flattened tensor)
    and `NAME.values` (the new elements). The weights of `a` with these elements replaced are those of `b`,
    bit for bit. Raises `Refused` if nothing differs, for a file that is there already unless `force`, and for
    the name of a tracked file or of weights in the work tree.
    Weights that are not finite raise `InvalidInput` unless `allow_nonfinite`.
    """
    from persona.measure.changes import changed_elements
    from persona.weights.patches import FROM, PatchWriter, check_target

    started = time.perf_counter()
    how = history.in_force(PatchOptions, options)
    target = Path(out)
    _check_place(history, target)
    check_target(target, force=how["force"])
    notes: list[str] = []
    before, after = sides(history, a, b, notes)
    assert before is not None
    new = text_files.new_recipe(history).recipe if after is None else history.recipe_of(after)
    plan = plan_of(history, new)
    odd: dict[str, int] = {}
    changed = 0
    with PatchWriter(target) as writer:
        found = changed_elements(
            plan_of(history, history.recipe_of(before)),
            plan,
            threads=how["threads"],
            memory=how["memory"],
            progress=how["progress"],
            not_finite=(lambda spec, count: odd.update({spec.name: count}))
            if how["allow_nonfinite"]
            else None,
        )
        for spec, places, values in found:
            writer.add(spec, places, values)
            changed += places.size
        if not changed:
            raise Refused("the two revisions have the same weights; there is nothing to patch")
        metadata = {FROM: before, "to": after or ""}
        nbytes = writer.publish({key: id for key, id in metadata.items() if id}, force=how["force"])
        tensors = writer.tensors
    notes += [f"tensor {name}: {count} elements are not finite" for name, count in odd.items()]
    return PatchResult(
        from_=before,
        to=after,
        out=str(target),
        tensors=tensors,
        changed=changed,
        changed_fraction=changed / max(1, plan.base.merged_elements),
        bytes=nbytes,
        seconds=round(time.perf_counter() - started, 3),
        notes=tuple(notes),
    )


def _check_place(history: History, target: Path) -> None:
    """Raises `UsageError` for a place in the repository, and `Refused` for a file of the model."""
    from persona.weights.index import INDEX_NAME, SINGLE_NAME
    from persona.weights.shards import is_published_name

    place = files.resolved(target.absolute().parent) / target.name
    root, store = files.resolved(history.root), files.resolved(history.store.root)
    if store in (place, *place.parents):
        raise UsageError(f"{target} is the repository itself; write elsewhere")
    if place.is_relative_to(root):
        name = place.relative_to(root).as_posix()
        model = (*tracking.tracked(history).paths, SINGLE_NAME, INDEX_NAME)
        if name in model or is_published_name(name):
            raise Refused(f"{target} is a file of the model in the work tree; write elsewhere")
