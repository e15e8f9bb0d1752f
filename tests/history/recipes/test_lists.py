"""Lists over layers in `recipe.toml`, in commits and in answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import InvalidInput, Refused
from persona.history.recipes.text import parse
from persona.limits import MAX_LAYER_VALUES
from persona.repository import Repository
from tests.checkpoints import write_model
from tests.history.bots import Bot, at, base_tensors, tuned


@pytest.fixture
def flat(tmp_path: Path) -> Iterator[Repository]:
    """A repository whose base has no layers."""
    tensors = {name: bits for name, bits in base_tensors().items() if ".layers." not in name}
    write_model(tmp_path / "flat", tensors)
    write_model(tmp_path / "tune", tuned(tensors, 1))
    with Repository.init(tmp_path / "repo", base=tmp_path / "flat", author=at(), committer=at()) as repo:
        yield repo


def test_a_list_of_any_kind_is_set(grown: Bot) -> None:
    kinds: list[tuple[Any, object]] = [
        ([0, 0.5, 1], (0, 0.5, 1)),
        ((-0.5, "1.50"), (-0.5, 1.5)),
        (np.linspace(0, 1, 3, dtype=np.float32), (0, 0.5, 1)),
        ([np.float64(0.25), np.int64(1)], (0.25, 1)),
        (iter([1, 2]), (1, 2)),
        ([0.7], (0.7,)),
        (np.array([0.25]), (0.25,)),
        (np.array(0.25), 0.25),
    ]
    for given, found in kinds:
        grown.repo.recipe.set("listening", alpha=given)
        assert grown.repo.recipe["listening"].alpha == found
    grown.repo.recipe.set("listening", alpha=[0, 0.5, 1])
    grown.commit()
    assert grown.repo["HEAD"].recipe.vectors["listening"].alpha == (0, 0.5, 1)


def test_a_list_is_written_beside_its_comment_and_comes_back_as_it_was(grown: Bot) -> None:
    grown.edit(lambda text: text.replace("alpha = 0.7", "alpha = [ 0, 0.50,\n  1 ] # from calm to loud"))
    written = grown.recipe.read_bytes()
    grown.commit()
    grown.repo.recipe.set("listening", alpha=[0.1, 0.2])
    assert "alpha = [0.1, 0.2] # from calm to loud" in grown.recipe.read_text()
    grown.commit()
    grown.repo.recipe.set("listening", alpha=1)
    assert "alpha = 1.0 # from calm to loud" in grown.recipe.read_text()
    grown.repo.restore("recipe.toml", rev="HEAD~1")
    assert grown.recipe.read_bytes() == written
    assert grown.repo["HEAD~1"].recipe.vectors["listening"].alpha == (0, 0.5, 1)


def test_a_list_of_densities_is_set_and_taken_back(grown: Bot) -> None:
    before = grown.recipe.read_bytes()
    grown.repo.recipe.set("listening", density=[0.2, 1])
    assert grown.repo.recipe["listening"].density == (0.2, 1)
    with pytest.raises(InvalidInput, match=r"listening\.density: under trim = none"):
        grown.repo.recipe.set_rules({"preset": "linear"})
    grown.repo.recipe.set("listening", density="default")
    assert grown.recipe.read_bytes() == before


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[]", "the list has no number"),
        ("[[0, 1], 1]", r"not a number: \[0"),
        ('["0", "1"]', "not a number: '0'"),
        ("[1, nan]", "not a finite number"),
        ("[inf]", "not a finite number"),
        ("[true]", "not a number: True"),
        ("[{ a = 1 }]", "not a number"),
        ("{ first = 0 }", "not a number"),
        (f"[{'0.5, ' * 10_000}]", f"10000 numbers; at most {MAX_LAYER_VALUES}"),
        (f"[{'9' * 401}]", "too many digits"),
        ("[1e40]", "beyond the range"),
    ],
)
@pytest.mark.parametrize("key", ["alpha", "density"])
def test_a_list_that_means_nothing_is_refused_with_its_line(key: str, written: str, said: str) -> None:
    text = f'base = "tiny"\n\n[vectors.calm]\nid = "1234"\n{key} = {written}\n'
    said = "" if key == "density" and "range" in said else said
    with pytest.raises(InvalidInput, match=rf"^recipe\.toml:5: vectors\.calm\.{key}: .*{said}"):
        parse(text.encode(), base=lambda _: "1" * 64, vector=lambda _: "2" * 64)


def test_no_call_takes_anything_else_for_a_list(grown: Bot) -> None:
    before = grown.recipe.read_bytes()
    for value in ([], {1, 2}, {1: 2}, b"12", [None], [[1]], [1, True], ["1", "x"], "0,1", np.eye(2)):
        for key in ("alpha", "density"):
            with pytest.raises(InvalidInput, match=rf"^{key}: (not a number|the list has no)"):
                grown.repo.recipe.set("listening", **{key: value})  # type: ignore[arg-type]
    assert grown.recipe.read_bytes() == before


def test_a_base_without_layers_takes_no_list(flat: Repository, tmp_path: Path) -> None:
    said = r"^alpha: a list is spread over layers, and the base has none; .* like model\.embed\.weight$"
    with pytest.raises(InvalidInput, match=said):
        flat.add(tmp_path / "tune", alpha=[0, 1])
    assert not flat.vectors
    flat.add(tmp_path / "tune")
    with pytest.raises(InvalidInput, match=said):
        flat.recipe.set("tune", alpha=[0.5])
    with pytest.raises(InvalidInput, match=r"^density: a list is spread"):
        flat.recipe.set("tune", density=[0.5, 1])
    text = (flat.root / "recipe.toml").read_text()
    (flat.root / "recipe.toml").write_text(text.replace("alpha = 1.0", "alpha = [0, 1]"))
    with pytest.raises(InvalidInput, match=r"^recipe\.toml:\d+: vectors\.tune\.alpha: a list is spread"):
        flat.commit(message="a list")


def test_a_difference_shows_lists_as_lists(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=[0, 1], density=[0.5, 1])
    change = grown.repo.diff().vectors[0]
    assert change.from_ == {"alpha": 0.7, "density": None}
    assert change.to == {"alpha": [0, 1], "density": [0.5, 1]}
    grown.commit()
    grown.repo.recipe.set("listening", alpha=[0, 1, 1], density=0.5)
    change = grown.repo.diff().vectors[0]
    assert change.from_ == {"alpha": [0, 1], "density": [0.5, 1]}


def test_a_list_is_one_value_in_a_three_way_merge(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=[0, 1])
    grown.commit(message="spread")
    grown.repo.recipe.set("listening", density=[0.5, 1])
    grown.commit(message="density")
    grown.repo.revert("HEAD~1")
    assert grown.repo.recipe["listening"].alpha == 0.7
    assert grown.repo.recipe["listening"].density == (0.5, 1)
    grown.repo.recipe.set("listening", alpha=[0, 0.5])
    grown.commit(message="spread less")
    grown.repo.recipe.set("listening", alpha=[0, 0.4])
    grown.commit(message="still less")
    with pytest.raises(Refused, match=r"(?s)alpha.*\[0, 0\.5\].*\[0, 0\.4\]"):
        grown.repo.revert("HEAD~1")


def test_a_new_vector_takes_over_the_list_of_the_old_one(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=[0, 1], density=[0.5, 1])
    added = grown.repo.add(grown.tune("listening", 7), replace=True)
    assert (added.vectors[0].alpha, added.vectors[0].density) == ((0, 1), (0.5, 1))
    assert grown.repo.recipe["listening"].alpha == (0, 1)


def test_a_negative_number_in_a_list_is_warned_of(grown: Bot) -> None:
    grown.repo.recipe.set("suggesting", alpha=[1, -0.1])
    grown.repo.recipe.set_rules({"divide": "weight"})
    assert any("negative alpha (suggesting)" in str(note) for note in grown.commit().notes)
