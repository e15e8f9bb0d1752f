"""Failures of a command: one sentence on stderr, an exit code, no traceback.

What to do about it follows on a line of its own, `hint: …`. With `--json` the same goes to stdout as
`{"error": {"kind", "message", "exit", "hint"}}`. The exit codes are those of docs/commands.md.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click

from persona.cli.terminal import say, silence_stdout
from persona.errors import Blank, Call, Conflicted, Hint, IntegrityError, PersonaError

INTERNAL = 70
INTERRUPTED = 130
SYSTEM = 7
USAGE = 2
MENDS: Final = (
    Call("fsck"),
    " lists what is damaged, and ",
    Call("add", Blank("PATH")),
    " of a fine-tune stores its vector again",
)


def guarded(run: Callable[[], object], arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code; reports any exception in one sentence."""
    try:
        answer = run()
        sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except BrokenPipeError:
        silence_stdout()
        return 0
    except (click.Abort, KeyboardInterrupt) as error:
        advice = next(iter(getattr(error, "__notes__", ())), None)
        return _say("interrupted", "interrupted", INTERRUPTED, arguments, advice)
    except PersonaError as error:
        return told(error, arguments)
    except click.ClickException as error:
        return _say("usage", _usage_sentence(error), USAGE, arguments)
    except MemoryError:
        return _say("system", "out of memory", SYSTEM, arguments)
    except OSError as error:
        if error.errno == errno.EPIPE:
            silence_stdout()
            return 0
        return _say("system", _system_sentence(error), SYSTEM, arguments)
    except Exception as error:
        return _say("internal", _internal_sentence(error, arguments), INTERNAL, arguments)


def told(error: PersonaError, arguments: Sequence[str]) -> int:
    """Says an error of the library in one sentence; returns its exit code."""
    mends = MENDS if isinstance(error, IntegrityError) and error.id is not None else None
    facts: dict[str, Any] = {}
    if isinstance(error, Conflicted):
        from persona.history.results import as_json

        facts = {"conflicts": as_json(error.conflicts)}
    return _say(error.kind, _sentence(error), error.exit_code, arguments, error.hint or mends, facts)


def _say(
    kind: str,
    message: str,
    exit_code: int,
    arguments: Sequence[str],
    hint: Hint | None = None,
    facts: Mapping[str, Any] | None = None,
) -> int:
    if "--json" in _options(arguments):
        answer: dict[str, dict[str, Any]] = {**failure(kind, message, exit_code, hint)}
        answer["error"] = {**answer["error"], **(facts or {})}
        with suppress(OSError):
            click.echo(json.dumps(answer))
    say(f"persona: {message}")
    if hint is not None:
        from persona.cli.hints import in_shell

        say(f"hint: {in_shell(hint)}")
    return exit_code


def failure(
    kind: str, message: str, exit_code: int, hint: Hint | None = None
) -> dict[str, dict[str, str | int]]:
    """A failure in the form of docs/commands.md."""
    error: dict[str, str | int] = {"kind": kind, "message": message, "exit": exit_code}
    if hint is not None:
        from persona.cli.hints import in_shell

        error["hint"] = in_shell(hint)
    return {"error": error}


def _sentence(error: PersonaError) -> str:
    """The message; an argument that cannot be taken is named by its flag."""
    name = getattr(error, "parameter", None)
    if name is None:
        return error.message
    from persona.cli.hints import flag

    return f"{flag(name)}: {error.message.removeprefix(f'{name}: ')}"


def _options(arguments: Sequence[str]) -> Sequence[str]:
    """The words that may be options: those before `--`, and before the command of `bisect run`."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "bisect" in words and "run" in (rest := words[words.index("bisect") :]):
        run = len(words) - len(rest) + rest.index("run") + 1
        return words[: next((n for n in range(run, len(words)) if words[n][:1] != "-"), len(words))]
    return words


def _usage_sentence(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        from persona.cli.words import instead, nearest

        sentence = error.message.rstrip(".")
        command = context.command_path.partition(" ")[2] if context else ""
        if (advice := instead(command, error.option_name)) is not None:
            sentence += f"; {advice}"
        # Click suggests whatever is left over, such as --quiet for --list.
        elif near := nearest(error.option_name, error.possibilities or ()):
            sentence += f"; did you mean {near}?"
    else:
        sentence = error.format_message().rstrip(".")
    return f"{sentence} (see `{context.command_path} --help`)" if context else sentence


def _system_sentence(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _internal_sentence(error: Exception, arguments: Sequence[str]) -> str:
    import traceback

    if {"-v", "--verbose"} & set(_options(arguments)):
        say("".join(traceback.format_exception(error)).rstrip())
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    what = " ".join(str(error).split())[:300]
    return f"a fault in persona itself: {type(error).__name__}: {what} ({where}; -v shows the traceback)"
