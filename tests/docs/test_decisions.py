"""What docs/decisions claims to have been measured, measured again where that takes no model."""

from __future__ import annotations

import struct

import pytest

from persona.objects.recipe import to_binary32
from tests.docs import forms
from tests.docs.pages import DOCS, table

NEAR = 0.01
"""Another zstd may make slightly other frames."""

ULPS = {row[0]: row[1:] for row in table("decisions/001-ulps-in-exponent-order.md", "updates")}
DIGITS = {row[0]: row[1:] for row in table("decisions/002-digits-and-tails.md", "updates")}
LEVELS = {row[0]: row[1:] for row in table("decisions/002-digits-and-tails.md", "updates", holding="level 9")}
LENGTHS = {int(row[0]): row[1:] for row in table("decisions/003-chunk-length.md", "chunk")}


@pytest.mark.parametrize("sigma", forms.SIGMAS)
def test_each_form_is_as_small_as_its_page_says(sigma: float) -> None:
    chunks = list(forms.gaussian(sigma))
    found = [forms.ratio(chunks, form) for form in forms.FORMS.values()]
    printed = [float(cell) for cell in (*ULPS[f"σ {sigma:g}"], *DIGITS[f"σ {sigma:g}"])]
    assert found == pytest.approx(printed, rel=NEAR)


@pytest.mark.parametrize("sigma", forms.SIGMAS)
def test_each_level_of_zstd_makes_what_its_page_says(sigma: float) -> None:
    chunks = list(forms.gaussian(sigma))
    found = [forms.ratio(chunks, form) for form in forms.LEVELS.values()]
    assert found == pytest.approx([float(cell) for cell in LEVELS[f"σ {sigma:g}"]], rel=NEAR)
    assert min(found) == found[1]


@pytest.mark.parametrize("rows", [ULPS, DIGITS], ids=["001", "002"])
def test_each_decision_took_the_smaller_form_on_every_row(rows: dict[str, list[str]]) -> None:
    for sizes in rows.values():
        assert sorted(sizes, reverse=True) == sizes


@pytest.mark.parametrize("chunk", [1 << 14, 1 << 18])
def test_chunks_cost_what_the_page_says(chunk: int) -> None:
    chunks = list(forms.gaussian(1e-4, 1 << 22, chunk))
    some = chunks[:: max(1, len(chunks) // 16)]
    found = [forms.ratio(some, form) for form in (forms.digits_and_tails, forms.whole_base)]
    assert found == pytest.approx([float(cell) for cell in LENGTHS[chunk]], rel=NEAR)


def test_the_decimal_of_the_page_shows_why_two_roundings_are_one_too_many() -> None:
    text = "1.00000005960464477539062500000000000000000000000000000000000001"
    assert text in (DOCS / "decisions/006-decimals-rounded-once.md").read_text()
    twice = struct.unpack("<f", struct.pack("<f", float(text)))[0]
    assert (twice, to_binary32(text)) == (1.0, 1.00000011920928955078125)
