from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3

from persona.history.worktree.weights import measure
from persona.merge import reference, reference_trims
from persona.merge.rules import MergeRules, MergeTerm, cut_rank, draw_key, joint_rank
from persona.objects import canonical
from persona.objects.digest import block_digest, tensor_digest, weights_digest
from persona.objects.globs import fault
from persona.objects.layers import at_place
from persona.objects.rules import CHOICES, PRESETS
from tests.checkpoints import digest_of, write_file
from tests.docs.pages import blocks, table


def test_the_digest_of_the_page_is_the_digest_of_the_code() -> None:
    *lines, printed = blocks("numerics.md")["digest-example"].splitlines()
    layout = bytes.fromhex("".join(lines))
    assert printed == "blake3:" + blake3(layout).hexdigest()
    one, other = tensor_digest([block_digest(b"\x80\x3f")]), tensor_digest([])
    assert weights_digest([("é", "F32", (2, 0), other), ("a", "BF16", (), one)]) == printed


def test_the_program_of_the_page_prints_the_digest_of_files(tmp_path: Path) -> None:
    many = np.arange((2 << 20) + 1, dtype=np.uint32)
    model = {"b": ("F32", many.shape, many), "a": ("BF16", (2, 3), np.arange(6, dtype=np.uint16)), "é": b""}
    files = [write_file(tmp_path / f"{k}.safetensors", {name: model[name]}) for k, name in enumerate(model)]
    done = subprocess.run(
        [sys.executable, "-c", blocks("numerics.md")["python digest-program"], *map(str, files)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    write_file(tmp_path / "model.safetensors", model)
    assert done.stdout == measure(tmp_path) + "\n" == digest_of(model) + "\n"


def test_the_presets_of_the_page_are_the_presets_of_the_code() -> None:
    axes = ["trim", "rank", "weigh", "elect", "on_tie", "merge", "divide", "density"]
    more = ["gamma", "epsilon", "rescale", "seed"]
    found = {row[0].removesuffix(" (default)"): row[1:] for row in table("numerics.md", "preset")}
    filters = {row[0]: row[1:] for row in table("numerics.md", "preset with a row filter")}
    rows = {
        preset: zip([*axes, *more], row + filters.pop(preset, ["–"] * len(more)), strict=True)
        for preset, row in found.items()
    }
    shown = {
        preset: {axis: None if cell == "–" else cell for axis, cell in row} for preset, row in rows.items()
    }
    assert shown == PRESETS
    assert not filters


def test_the_draws_of_the_page_are_those_of_the_code() -> None:
    of, key, words = blocks("numerics.md")["draw-example"].splitlines()
    seed, vector, tensor = json.loads(of)
    assert of.encode() == canonical.encode([seed, vector, tensor])
    found = draw_key(seed, vector, tensor)
    assert key.split() == [f"{word:08x}" for word in found]
    assert words.split() == [f"{word:08x}" for word in reference_trims.draws(4, found).tolist()]


def test_the_words_of_trim_and_rank_are_those_of_the_code() -> None:
    assert tuple(row[0] for row in table("numerics.md", "`trim`")) == CHOICES["trim"]
    assert tuple(row[0] for row in table("numerics.md", "`rank`")) == CHOICES["rank"]


@pytest.mark.parametrize("row", table("numerics.md", "list"), ids=lambda row: row[0])
def test_lists_over_layers_have_the_values_of_the_page(row: list[str]) -> None:
    numbers, layers = row[0].split(", "), int(row[1])
    found = [at_place(numbers, (layer, layers)) for layer in range(layers)]
    assert found == [Fraction(value) for value in row[2].split(", ")]


@pytest.mark.parametrize("row", table("numerics.md", "written", holding="instead"), ids=lambda row: row[0])
def test_globs_that_read_in_two_ways_are_refused_and_their_spellings_are_not(row: list[str]) -> None:
    wrong = row[0].rpartition("as in ")[2]
    assert fault(wrong) is not None
    for right in row[2].split(", or "):
        assert fault(right) is None


def test_ranks_are_those_of_the_page() -> None:
    assert cut_rank("floor", 0.29, 100) == 28
    assert [cut_rank(rank, 0.001, 10) for rank in CHOICES["rank"]] == [1, 1, 0]
    for n, d in ((10, 0.2), (7, 0.5), (1, 0.3)):
        ascending = -(-(n - 1) * (1 - d) // 1)
        assert joint_rank(d, n) == n - ascending


@pytest.mark.parametrize("row", table("numerics.md", "α"), ids=lambda row: row[0])
def test_divisors_make_of_two_changes_what_the_page_says(row: list[str]) -> None:
    alphas = [float(alpha.replace("−", "-")) for alpha in row[0].split(",")]
    for divide, printed in zip(CHOICES["divide"], row[1:], strict=True):
        merged = reference.merge(
            {"a": torch.zeros(1)},
            [{"a": torch.full((1,), value)} for value in (2.0, 4.0)],
            [MergeTerm(alpha=alpha, vector=str(k)) for k, alpha in enumerate(alphas)],
            MergeRules(divide=divide),
        )
        assert merged["a"].item() == pytest.approx(float(printed.replace("−", "-")), rel=1e-6)
