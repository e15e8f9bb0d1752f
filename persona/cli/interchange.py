"""What was read from other programs, and written for them, as lines of text."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from click import style

from persona.cli.render import bytes_text, counted, number, percent, printable, shown_path
from persona.objects.rules import PRESETS

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.export_mergekit import MergekitResult
    from persona.history.verbs.import_mergekit import ImportPlan
    from persona.history.verbs.patches import PatchResult
    from persona.repository import Repository


def mergekit(result: MergekitResult, call: Invocation, repo: Repository | None) -> Iterator[str]:
    """The directory that `export --mergekit` wrote, and the command that runs it."""
    models = f"{result.method}, {counted(len(result.models), 'model')}, {bytes_text(result.bytes)}"
    yield f"wrote {shown_path(result.out)}: {models}"
    yield f"mergekit-yaml {shlex.quote(os.path.join(shown_path(result.out), 'mergekit.yml'))} OUT"


def patch(result: PatchResult, call: Invocation, repo: Repository | None) -> Iterator[str]:
    """The file that `export --patch` wrote."""
    what = f"{result.changed} elements of {counted(result.tensors, 'tensor')}"
    share = f"{percent(result.changed_fraction)} of weights"
    yield f"wrote {shown_path(result.out)}: {what} ({share}), {bytes_text(result.bytes)}"


def import_plan(plan: ImportPlan, call: Invocation, repo: Repository | None) -> Iterator[str]:
    """The lines of `import -n`: the base, the merge rules, and each vector with its path."""
    if plan.base is not None:
        yield f"base  {printable(plan.base)}"
    usual = {**PRESETS[plan.rules["preset"]], "lambda": "1"}
    yield f"preset  {plan.rules['preset']}"
    for axis, value in plan.rules.items():
        if axis != "preset" and value != usual[axis]:
            yield f"{axis}  {value}"
    for name, vector in plan.vectors.items():
        line = f" {style('+', fg='green')} {printable(name)}  α {number(vector['alpha'])}"
        if vector["density"] is not None:
            line += f", density {number(vector['density'])}"
        for key in ("only", "except"):
            if vector[key]:
                line += f", {key} {printable(', '.join(vector[key][:4]))}" + (
                    ", …" if len(vector[key]) > 4 else ""
                )
        yield f"{line}  from {printable(vector['path'])}"
