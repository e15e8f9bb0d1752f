"""The table of settings in docs/commands.md is the registry's, and so is the help of `config`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from persona.history.settings import SETTINGS

from .conftest import CommandLine

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def rows() -> list[tuple[list[str], str]]:
    """The keys and the default of each row of the table."""
    table = PAGE.read_text().partition("| key | means | default |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[2:]]
    return [(re.findall(r"`([^`]+)`", keys), default) for keys, _, default in cells]


def test_the_page_has_every_setting_and_no_other() -> None:
    assert sorted(key for keys, _ in rows() for key in keys) == sorted(SETTINGS)


def test_the_page_says_what_holds_without_a_setting() -> None:
    for keys, default in rows():
        assert {SETTINGS[key].default for key in keys} == {default}


def test_the_help_lists_every_setting(outside: CommandLine) -> None:
    words = outside.ok("config", "--help").split()
    assert not [key for key in SETTINGS if key not in words]


@pytest.mark.parametrize("key", [setting.key for setting in SETTINGS.values() if setting.personal])
def test_what_names_a_program_is_set_for_the_user_alone(
    grown: CommandLine, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    said = grown.refused(2, "config", key, "their own")
    assert f"hint: `persona config --global {key} 'their own'`" in said
    grown.ok("config", "--global", key, "my own")
    assert grown.ok("config", key) == "my own\n"


def test_a_setting_of_the_repository_comes_first_and_an_option_before_it(
    grown: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    grown.ok("config", "--global", "checkout.device", "cuda")
    assert "no GPU" in grown.refused(7, "digest")
    grown.ok("config", "checkout.device", "cpu")
    grown.ok("digest")
    assert "no GPU" in grown.refused(7, "digest", "--device", "cuda")


def test_a_value_that_is_wrong_in_the_file_is_named_where_it_is_used(grown: CommandLine) -> None:
    (grown.directory / ".persona" / "config").write_text('[checkout]\nthreads = "many"\n')
    for command in (
        ["digest"],
        ["checkout"],
        ["diff", "HEAD~1", "HEAD", "--weights"],
        ["add", "../suggesting"],
    ):
        said = grown.refused(4, *command)
        assert said.startswith(
            "config checkout.threads: 'many' is not a number of threads; write a whole number above 0\n"
        )
        assert (
            f"hint: {grown.directory}/.persona/config says so; `persona config checkout.threads VALUE`"
            in said
        )
    grown.ok("log")
    grown.ok("status")


def test_a_wrong_value_in_your_own_file_is_mended_there(
    grown: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    mine = tmp_path / "settings" / "persona" / "config"
    grown.ok("config", "--global", "checkout.threads", "1")
    mine.write_text("[checkout]\nthreads = 0\n")
    assert (
        f"hint: {mine} says so; `persona config --global checkout.threads VALUE` changes it"
        in grown.refused(4, "digest")
    )
    grown.ok("config", "--global", "checkout.threads", "1")
    grown.ok("digest")


@pytest.mark.parametrize("text", ["0", "-1", "²", "３", "", "1.5"])
def test_a_number_of_threads_has_ascii_digits(grown: CommandLine, text: str) -> None:
    assert "is not a number of threads" in grown.refused(2, "digest", f"--threads={text}")
    assert "is not a number of threads" in grown.refused(4, "config", "checkout.threads", "--", text)
