"""What `tests.advice` reads from the output of a command."""

from __future__ import annotations

from tests.advice import advice

SAID = (
    "note: --no-advice\n"
    "hint: `persona revert 'a b'` takes it back; --missing zero counts them as unchanged, or --cast;"
    " see its --help\n"
)


def test_advice_is_commands_and_the_flags_that_the_command_has() -> None:
    found = advice(SAID, ["commit", "x"])
    assert found.commands == (("revert", "a b"),)
    assert found.flags == (("--missing", "zero"), ("--cast",), ("--help",))
    assert advice(SAID, ["log"]).flags == (("--help",),)
    assert found.filled("--cast", {}).flags == (("--cast",),)
    assert found.filled("--cast", {}).commands == ()


def test_a_blank_of_the_advice_is_filled() -> None:
    found = advice("hint: --name NAME, or `persona commit --onto HEAD PATH`", ["add"])
    filled = found.filled("", {"NAME": "mine", "HEAD": "HEAD", "PATH": ".."})
    assert filled.flags == (("--name", "mine"),)
    assert filled.commands == (("commit", "--onto", "HEAD", ".."),)
