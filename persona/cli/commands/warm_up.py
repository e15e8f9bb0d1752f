"""`persona warm-up`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.cli.command import declare
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation


@declare("warm-up", example="$ persona warm-up")
def command(call: Invocation) -> Shown:
    """Compile the kernels for exactly this processor.

    persona comes with kernels for each level of your processor's architecture, and compiles the ones that are
    missing when they are first called. This command compiles all of them now, which takes about a minute, and
    keeps them in ~/.cache/persona/kernels. It needs no repository.
    """
    from persona.merge.arithmetic.warm_up import warm_up

    result = warm_up(call.tell)
    kernels = f"{result.kernels} kernels"
    if not result.compiled:
        line = f"All {kernels} are compiled for this processor already, in {result.folder}"
    else:
        kept = f"kept in {result.folder}" if result.folder else "but not kept: no folder for them is writable"
        line = f"Compiled {result.compiled} of {kernels} in {result.seconds:.1f} s, {kept}"
    return Shown(result, line)
