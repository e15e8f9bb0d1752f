"""`checkout -o`: a model directory elsewhere. HEAD and work tree stay."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona.errors import Hint, InvalidInput, Keyword, Refused, UsageError
from persona.history.computing import chosen_recipe, compute, device_choice, notes_of
from persona.history.history import History
from persona.history.options import RunOptions
from persona.history.planning import plan_of
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.views import recipe_view
from persona.history.results import CheckoutResult, as_json
from persona.history.vectors.growing import without_ties
from persona.history.vectors.model_config import CONFIG, following
from persona.history.worktree import text_files, tracking
from persona.objects.dtypes import Dtype, merged_dtype, uint
from persona.objects.tensors import TensorSpec
from persona.store import files
from persona.store.store import DIRECTORY
from persona.weights import output
from persona.weights.folder import OUTPUT_NAME
from persona.weights.shards import plan_shards
from persona.weights.writer import ModelWriter, changed_since


def export(
    history: History, rev: str | None, branch: str | None, out: Path, options: RunOptions
) -> CheckoutResult:
    """Writes a model directory at `out`. See `Repository.checkout`."""
    started = time.perf_counter()
    if branch is not None or not options["weights"]:
        raise UsageError(
            "`out` writes a model directory, so no branch can be made and the weights cannot be left out",
            hint=("leave out ", Keyword("branch"), " and ", Keyword(weights=False)),
        )
    device = device_choice(options)  # a missing device is refused before anything is written
    place = place_of(history, out, ("weights go into the work tree without ", Keyword("out")))
    dtype = None
    if options["dtype"] is not None:
        dtype = merged_dtype(options["dtype"])
        if dtype is None:
            raise UsageError(f"dtype {options['dtype']!r:.40} is not one of bfloat16, float16, float32")
    notes: list[str] = []
    revision, recipe = chosen_recipe(history, rev, notes)
    texts = texts_of(history, revision)
    if dtype is not None and CONFIG in texts:
        texts[CONFIG] = _with_dtype(texts[CONFIG], str(dtype.torch))
    plan = plan_of(history, recipe)
    if CONFIG in texts:
        texts[CONFIG] = following(history, texts[CONFIG], history.base(recipe.base), plan.base)
    cast = _ToDtype(dtype, options["allow_nonfinite"]) if dtype else None
    specs = [cast.spec(spec) if cast else spec for spec in plan.base.tensors]
    layout = plan_shards(
        specs, options["max_shard_size"], shards=plan.base.shards, shard_of=plan.base.shard_of
    )
    if revision is None:
        head = history.head_commit()
        revision = head if history.recipe_of(head) == recipe else None
    claim = output.claim(place, texts, force=options["force"], threads=options["threads"])
    with ModelWriter(place, layout) as writer:
        if changed_since(place, claim.weights):  # by another command, which took the directory first
            claim = output.claim(place, texts, force=options["force"], threads=options["threads"])
        claim.clear_leftovers(texts)
        made = compute(plan, writer, options, device, cast=cast)
        writer.refuse_saved(claim.weights)
        view = as_json(recipe_view(recipe))
        what = {
            "revision": revision,
            "weights": made.weights,
            "dtype": dtype and dtype.torch,
            "base": {"name": history.base_name(recipe.base), "id": recipe.base},
            "rules": view["rules"],
            "vectors": view["vectors"],
        }
        written = {path: output.text_entry(data) for path, data in texts.items()}
        written |= writer.planned(made.tensor_digests)
        claim.put(OUTPUT_NAME, output.record(what, written, claim.listed))
        claim.remove(written)  # first, so that a file may replace a directory, or a directory a file
        for path, content in texts.items():
            claim.put(path, content)
        published = writer.publish(made.tensor_digests, seen=claim.weights)
        claim.put(OUTPUT_NAME, output.record(what, written))
    return CheckoutResult(
        revision=revision,
        weights=made.weights,
        files=tuple(published),
        tensors_computed=made.computed,
        tensors_reused=made.reused,
        bytes_written=made.bytes_written,
        seconds=round(time.perf_counter() - started, 3),
        device=made.device,
        head=history.head_or_name(),
        notes=(*notes, *notes_of(made), *without_ties(history, recipe)),
    )


def place_of(history: History, out: Path, in_place: Hint | None = None) -> Path:
    """The directory to write, with its parents resolved. `in_place`: the hint for the work tree itself.

    Raises `UsageError` for this repository. Raises `Refused` for a link, a path that is not a directory, a
    path in another repository's work tree, and a path below `graph/`.
    """
    place = out.absolute()
    place = files.resolved(place) if place.name in ("", "..") else files.resolved(place.parent) / place.name
    real = files.resolved(place)
    if real == files.resolved(history.root):
        raise UsageError(f"{out} is the work tree; write into another directory", hint=in_place)
    if files.resolved(history.store.root) in (real, *real.parents):
        raise UsageError(f"{out} is in the repository itself; write elsewhere")
    if place.is_symlink():
        raise Refused(
            f"{out} is a symbolic link; give the directory that the link leads to, or write elsewhere"
        )
    there = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise Refused(
            f"{there} is in the way, because it is not a directory; move it away, or write elsewhere"
        )
    root = next((path for path in (place, *place.parents) if os.path.lexists(path / DIRECTORY)), None)
    if DIRECTORY in place.parts or root not in (None, files.resolved(history.root)):
        raise Refused(
            f"{out} belongs to another repository; write elsewhere, or run checkout in that repository"
        )
    if place.is_relative_to(files.resolved(history.root) / tracking.GRAPH):
        raise Refused(f"{out} lies in {tracking.GRAPH}/, where every file is tracked; write elsewhere")
    return place


class _ToDtype:
    """Floats in another dtype, rounded to nearest even."""

    def __init__(self, dtype: Dtype, allow_nonfinite: bool) -> None:
        self._dtype = dtype
        self._allow_nonfinite = allow_nonfinite

    def spec(self, spec: TensorSpec) -> TensorSpec:
        """The tensor in the other dtype, if it is merged."""
        return replace(spec, dtype=self._dtype.name) if spec.merged else spec

    def convert(self, spec: TensorSpec, data: files.Buffer) -> files.Buffer:
        """Elements of a tensor in the other dtype. Raises `InvalidInput` if a number is too large for it."""
        import numpy as np

        from persona.merge.arithmetic import casts

        if not spec.merged or spec.dtype == self._dtype.name:
            return data
        bits = np.frombuffer(data, uint(spec.unit))
        cast: Any = casts.narrow(casts.widen(bits, spec.dtype), self._dtype.name)
        infinite = casts.not_finite(cast, self._dtype.name) & ~casts.not_finite(bits, spec.dtype)
        if infinite.any() and not self._allow_nonfinite:
            raise InvalidInput(
                f"tensor {spec.name}: at least {np.count_nonzero(infinite)} elements are too large for"
                f" {self._dtype.torch}",
                hint=(
                    "choose another ",
                    Keyword("dtype"),
                    ", or give ",
                    Keyword(allow_nonfinite=True),
                    " to write infinity there",
                ),
            )
        converted: files.Buffer = cast.view(np.uint8).data
        return converted


def texts_of(history: History, revision: str | None) -> dict[str, bytes]:
    """The files that make a model of this revision load; without a revision, those of the work tree."""
    known = history.files_of(revision or history.head_commit())
    if revision is not None:
        contents = {path: history.blob(blob) for path, blob in known.items()}
    else:
        paths = tracking.tracked(history).paths
        read = {path: text_files.read(history.root, path) for path in paths}
        contents = {path: content for path, content in read.items() if content is not None}
    return {
        path: content
        for path, content in contents.items()
        if path not in (RECIPE_FILE, OUTPUT_NAME) and not path.startswith(f"{tracking.GRAPH}/")
    }


def _with_dtype(content: bytes, dtype: str) -> bytes:
    """A config.json that names the dtype that its weights are written in."""
    try:
        config = json.loads(content)
    except ValueError:
        return content
    keys = [key for key in ("dtype", "torch_dtype") if isinstance(config, dict) and key in config]
    if not keys:
        return content
    for key in keys:
        config[key] = dtype
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"
