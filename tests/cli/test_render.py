"""Numbers and names as the command line writes them."""

from __future__ import annotations

import click
import pytest

from persona.cli import render
from persona.history.results import CommitResult, VectorChange
from tests.checkpoints import write_model
from tests.cli.command_line import CommandLine

LISTENING = VectorChange(
    name="listening",
    id="9f3c2b7a" * 8,
    change="added",
    alpha=1.0,
    stored_bytes=25_100_000,
    raw_bytes=269_100_000,
    changed_fraction=0.346,
    kept_fraction=0.346,
    largest_rounding=None,
    density=1.0,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (25_100_000, "25.1 MB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (269_148_288, "269.1 MB"),
        (3 * 10**15, "3000.0 TB"),
    ],
)
def test_bytes_are_decimal(count: int, text: str) -> None:
    assert render.bytes_text(count) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0932, "9.3 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (1e-7, "< 0.1 %")]
)
def test_fractions_are_percentages(fraction: float, text: str) -> None:
    assert render.percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.00"), (-0.5, "-0.50"), (0.0001, "0.0001"), (0.125, "0.125"), ("0.7", "0.70")]
)
def test_strengths_have_two_decimals_or_as_many_as_they_need(value: float | str, text: str) -> None:
    assert render.number(value) == text


def test_a_commit_of_a_vector_says_what_it_stored_and_changed() -> None:
    result = CommitResult(
        "3f2a91c0" * 8, "main", ("0" * 64,), (LISTENING,), subject="listen before answering"
    )
    assert [click.unstyle(line) for line in render.commit_lines(result)] == [
        "[main 3f2a91c0] listen before answering",
        " + listening  α 1.00   25.1 MB stored of 269.1 MB (9.3 %), 34.6 % of weights changed",
    ]


def test_a_replaced_vector_shows_both_ids() -> None:
    change = VectorChange(
        "listening", "77ab" * 16, "replaced", 0.7, None, None, None, None, None, previous="9f3c" * 16
    )
    assert click.unstyle(render.vector_change_line(change, 9)) == " ~ listening 9f3c → 77ab  α 0.70"


def test_ids_that_begin_alike_are_shown_as_far_as_they_differ() -> None:
    assert render.apart("9f3c1" + "0" * 59, "9f3c2" + "0" * 59) == ("9f3c1", "9f3c2")


def test_the_density_says_what_it_keeps() -> None:
    change = VectorChange("warm", "77ab" * 16, "added", 1.0, None, None, None, 0.281, None, density=0.2)
    assert click.unstyle(render.vector_change_line(change, 4)).endswith("density 0.20 keeps 28.1 %")


def test_text_of_others_cannot_steer_the_terminal() -> None:
    assert render.printable("a\x1b[2Jb\r\x9bc\td") == "a?[2Jb??c\td"


def test_a_date_is_written_as_git_does() -> None:
    assert render.date_text("2026-11-01T09:05:00+01:00") == "Sun Nov 1 09:05:00 2026 +0100"


def test_the_row_of_a_vector_names_the_filter_that_it_keeps(persona: CommandLine) -> None:
    made = persona.ok("commit", "../suggesting", "-m", "one", "--only", "b")
    assert "α 1.00   only b, " in made
    write_model(persona.directory.parent / "suggesting", {"a": [0.0, 0.0, 0.0, 0.0], "b": [1.0, 2.75]})
    made = persona.ok("commit", "../suggesting", "-m", "two")
    assert "~ suggesting" in made
    assert "α 1.00   only b, " in made
    made = persona.ok("commit", "../suggesting", "-m", "three", "--only", "", "--except", "b")
    assert "α 1.00   except b, " in made
