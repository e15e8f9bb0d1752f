"""The `persona` command as it is installed, before anything slow is imported."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Runs `persona.cli.main`. Until that can answer Ctrl-C in a sentence, it ends the process at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell has turned it off
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from persona.cli.main import main as run

    run()
