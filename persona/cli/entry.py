"""The installed `persona` command, before anything slow is imported."""

from __future__ import annotations

import gc
import signal
from typing import Final, NoReturn

YOUNG: Final = 100_000
"""Objects that are made before the first search for garbage."""


def main() -> NoReturn:
    """Runs `persona.cli.main`. Until that can answer Ctrl-C in a sentence, it ends the process at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell has turned it off
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Modules and classes stay alive: the search for garbage among them takes a tenth of a short command.
    gc.set_threshold(YOUNG)
    from persona.cli.main import main as run

    run()
