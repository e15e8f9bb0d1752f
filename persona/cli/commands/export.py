"""`persona export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import files, revisions
from persona.cli.options import takes
from persona.errors import Blank, Call, UsageError
from persona.history.options import AdapterOptions, PatchOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.adapters import AdapterResult
    from persona.history.verbs.export_mergekit import MergekitResult
    from persona.history.verbs.patches import PatchResult
    from persona.repository import Repository

_FORMS = {
    "adapter": {"rank", "dtype", "lora_only", "force", "threads", "memory"},
    "mergekit": {"threads", "memory"},
    "patch": {"allow_nonfinite", "force", "threads", "memory"},
}
"""What can be written, and the options of each."""


@declare(
    "export",
    works=True,
    example="$ persona export --adapter HEAD -o ../release-adapter\n"
    "$ persona export --adapter main --rank 32 --dtype bfloat16 -o ../release-r32\n"
    "$ persona export --mergekit main -o ../for-mergekit\n"
    "$ persona export --patch v1..v2 -o ../v1-to-v2.safetensors",
)
@click.argument("revs", nargs=-1, metavar="[REV]", shell_complete=revisions)
@click.option("--adapter", is_flag=True, help="Write a PEFT adapter directory at OUT.")
@click.option("--mergekit", is_flag=True, help="Write a mergekit recipe and its models at OUT.")
@click.option(
    "--patch",
    is_flag=True,
    help="Write the elements that differ from A to B into the file OUT: A..B, or A B.",
)
@click.option("-o", "--out", metavar="OUT", required=True, shell_complete=files, help="Where to write.")
@takes(AdapterOptions)
@takes(PatchOptions, "allow_nonfinite")
def command(
    call: Invocation,
    repo: Repository,
    revs: tuple[str, ...],
    adapter: bool,
    mergekit: bool,
    patch: bool,
    out: str,
    **options: Unpack[AdapterOptions],
) -> AdapterResult | MergekitResult | PatchResult:
    """Write a revision in a form that another program reads.

    --adapter writes the change from the base to the weights of REV, or of recipe.toml as it stands, as a PEFT
    adapter. If the recipe is a plain sum of adapters, the adapter is exact. Otherwise each matrix keeps the R
    largest singular values of its change, and export prints how much of the change they keep.

    --mergekit writes a directory with mergekit.yml and the models that it names. `mergekit-yaml` computes the
    weights of REV from it. A rule that mergekit does not have is refused by name.

    --patch writes a safetensors file that moves a running server from the weights of one revision to those of
    another: for each tensor that differs, the places of the changed elements and their new values.

    `persona checkout -o OUT REV` writes a whole model.
    """
    given = {"adapter": adapter, "mergekit": mergekit, "patch": patch}
    chosen = [form for form, wanted in given.items() if wanted]
    if len(chosen) != 1:
        raise UsageError(
            "export writes one form: give one of --adapter, --mergekit, --patch",
            hint=(Call("checkout", Blank("REV"), out=Blank("OUT")), " writes a whole model"),
        )
    form = chosen[0]
    how: dict[str, Any] = dict(options)
    if strange := sorted(how.keys() - _FORMS[form]):
        raise UsageError(f"--{strange[0].replace('_', '-')} does not go with --{form}")
    if len(revs) > (2 if form == "patch" else 1):
        raise UsageError(f"--{form} takes {'A..B, or A B' if form == 'patch' else 'one revision'}")
    place = call.path(out)
    if form == "patch":
        if not revs:
            raise UsageError("--patch needs two revisions: A..B")
        return repo.export_patch(*revs, out=place, **how)
    rev = revs[0] if revs else None
    if form == "mergekit":
        return repo.export_mergekit(rev, out=place, **how)
    return repo.export_adapter(rev, out=place, **how)
