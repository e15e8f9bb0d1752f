from __future__ import annotations

import pytest
import torch
from blake3 import blake3

from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm, cut_rank, joint_rank
from persona.objects.digest import weights_digest
from persona.objects.rules import CHOICES, PRESETS
from tests.docs.pages import blocks, table


def test_the_digest_of_the_page_is_the_digest_of_the_code() -> None:
    *lines, printed = blocks("numerics.md")["digest-example"].splitlines()
    layout = bytes.fromhex("".join(lines))
    assert printed == "blake3:" + blake3(layout).hexdigest()
    one, other = blake3(b"\x80\x3f").digest(), blake3(b"").digest()
    assert weights_digest([("é", "F32", (2, 0), other), ("a", "BF16", (), one)]) == printed


def test_the_presets_of_the_page_are_the_presets_of_the_code() -> None:
    axes = ["trim", "rank", "weigh", "elect", "on_tie", "merge", "divide", "density"]
    found = {
        row[0].removesuffix(" (default)"): {
            axis: None if cell == "–" else cell for axis, cell in zip(axes, row[1:], strict=True)
        }
        for row in table("numerics.md", "preset")
    }
    assert found == PRESETS


def test_the_words_of_trim_and_rank_are_those_of_the_code() -> None:
    assert tuple(row[0] for row in table("numerics.md", "`trim`")) == CHOICES["trim"]
    assert tuple(row[0] for row in table("numerics.md", "`rank`")) == CHOICES["rank"]


def test_ranks_are_those_of_the_page() -> None:
    assert cut_rank("floor", 0.29, 100) == 28
    assert [cut_rank(rank, 0.001, 10) for rank in CHOICES["rank"]] == [1, 1, 0]
    for n, d in ((10, 0.2), (7, 0.5), (1, 0.3)):
        ascending = -(-(n - 1) * (1 - d) // 1)
        assert joint_rank(d, n) == n - ascending


@pytest.mark.parametrize("row", table("numerics.md", "α"), ids=lambda row: row[0])
def test_divisors_make_of_two_changes_what_the_page_says(row: list[str]) -> None:
    alphas = [float(alpha.replace("−", "-")) for alpha in row[0].split(",")]
    for divide, printed in zip(("strength", "count", "weight"), row[1:], strict=True):
        merged = reference.merge(
            {"a": torch.zeros(1)},
            [{"a": torch.full((1,), value)} for value in (2.0, 4.0)],
            [MergeTerm(alpha=alpha, vector=str(k)) for k, alpha in enumerate(alphas)],
            MergeRules(divide=divide),
        )
        assert merged["a"].item() == pytest.approx(float(printed.replace("−", "-")), rel=1e-6)
