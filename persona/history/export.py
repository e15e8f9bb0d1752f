"""`checkout -o`: a model directory elsewhere, with its config, tokenizer and template files; HEAD and work
tree stay.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from persona.errors import InvalidInput, Refused, UsageError
from persona.history import worktree
from persona.history.checkout import Options, chosen_recipe, compute, finite_notes
from persona.history.history import History
from persona.history.materials import plan_of
from persona.history.recipe_text import RECIPE_FILE
from persona.history.results import CheckoutResult
from persona.objects.digest import weights_digest
from persona.objects.names import check_file_path
from persona.objects.tensors import TensorSpec
from persona.store import files
from persona.weights.shards import plan_shards
from persona.weights.writer import ModelWriter

if TYPE_CHECKING:
    from persona.merge.plan import Plan

DTYPES: Final = {
    "bfloat16": "BF16",
    "bf16": "BF16",
    "float16": "F16",
    "fp16": "F16",
    "f16": "F16",
    "float32": "F32",
    "fp32": "F32",
    "f32": "F32",
}
_TORCH_NAMES: Final = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def export(history: History, rev: str | None, out: Path, options: Options, started: float) -> CheckoutResult:
    """Writes a model directory at `out`."""
    place = out.resolve()
    if place == history.root.resolve() or history.store.root.resolve() in (place, *place.parents):
        raise UsageError(f"{out} is the work tree or the repository itself; without -o the weights go there")
    if os.path.lexists(out) and not out.is_dir():
        raise Refused(f"{out} is in the way, and no directory; move it away or write elsewhere")
    dtype = None
    if options.dtype is not None:
        dtype = DTYPES.get(options.dtype.lower())
        if dtype is None:
            raise UsageError(f"dtype {options.dtype!r:.40} is not one of bfloat16, float16, float32")
    revision, recipe = chosen_recipe(history, rev)
    texts = _texts(history, revision)
    if dtype is not None and "config.json" in texts:
        texts["config.json"] = _with_dtype(texts["config.json"], _TORCH_NAMES[dtype])
    plan = plan_of(history, recipe)
    specs = [replace(spec, dtype=dtype) if dtype and spec.merged else spec for spec in plan.base.tensors]
    layout = plan_shards(specs, options.max_shard_size, shards=plan.base.shards, shard_of=plan.base.shard_of)
    with ModelWriter(out, layout) as writer:
        if dtype is None:
            made = compute(plan, writer, options, None)
            weights, written = made.weights, made.bytes_written
        else:
            casting = _CastingWriter(writer, plan, specs, options.allow_nonfinite)
            made = compute(plan, casting, options, None)
            weights, written = casting.digest(), casting.bytes_written
        for path, content in texts.items():
            _write_text(writer.directory, path, content)
        published = writer.publish(weights)
    if revision is None:
        head = history.head_commit()
        revision = head if history.recipe_of(head) == recipe else None
    return CheckoutResult(
        revision=revision,
        weights=weights,
        files=tuple(published),
        tensors_computed=made.computed,
        tensors_reused=made.reused,
        bytes_written=written,
        seconds=round(time.perf_counter() - started, 3),
        device="cpu",
        head=history.head(),
        notes=tuple(finite_notes(made)),
    )


class _CastingWriter:
    """Converts the floats of each piece to the dtype of `specs`, hashing what is written."""

    def __init__(
        self, writer: ModelWriter, plan: Plan, specs: list[TensorSpec], allow_nonfinite: bool
    ) -> None:
        from blake3 import blake3

        self._writer = writer
        self._before = plan.base.spec
        self._after = {spec.name: spec for spec in specs}
        self._hashers = {spec.name: blake3() for spec in specs}
        self._allow_nonfinite = allow_nonfinite
        self.bytes_written = 0

    def write(self, name: str, offset: int, data: Any) -> None:
        """Takes the bytes of a tensor from byte `offset` on, in order. `InvalidInput` where its numbers are
        too large for the dtype.
        """
        import numpy as np

        from persona.merge import casts

        before, after = self._before[name], self._after[name]
        if before.dtype != after.dtype:
            bits = np.frombuffer(data, f"<u{before.unit}")
            cast: Any = casts.narrow(casts.widen(bits, before.dtype), after.dtype)
            infinite = casts.not_finite(cast, after.dtype) & ~casts.not_finite(bits, before.dtype)
            if infinite.any() and not self._allow_nonfinite:
                raise InvalidInput(
                    f"tensor {name}: {np.count_nonzero(infinite)} elements or more are too large for"
                    f" {_TORCH_NAMES[after.dtype]}; choose another --dtype, or pass --allow-nonfinite to"
                    " write infinity there"
                )
            data = cast.view(np.uint8).data
            offset = offset // before.unit * after.unit
        self._hashers[name].update(data)
        self._writer.write(name, offset, data)
        self.bytes_written += memoryview(data).nbytes

    def restart(self, name: str) -> None:
        """Forgets what it took of a tensor."""
        self._hashers[name].reset()
        self._writer.restart(name)

    def digest(self) -> str:
        """The weights digest of what was written."""
        return weights_digest(
            (spec.name, spec.dtype, spec.shape, self._hashers[spec.name].digest())
            for spec in self._after.values()
        )


def _texts(history: History, revision: str | None) -> dict[str, bytes]:
    """The files that make a model of this revision load; of the work tree where there is none."""
    known = history.files_of(revision or history.head_commit())
    if revision is not None:
        contents = {path: history.blob(blob) for path, blob in known.items()}
    else:
        paths = worktree.tracked_paths(history.root, known)
        read = {path: worktree.read(history.root, path) for path in paths}
        contents = {path: content for path, content in read.items() if content is not None}
    return {
        path: content
        for path, content in contents.items()
        if path != RECIPE_FILE and not path.startswith(f"{worktree.GRAPH}/")
    }


def _write_text(out: Path, path: str, content: bytes) -> None:
    place = out / check_file_path(path)
    files.mkdirs(place.parent, below=out)
    if (
        not place.is_symlink()
        and place.is_file()
        and files.read_file(place, limit=place.stat().st_size) == content
    ):
        return
    files.write_file(place, content)


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
