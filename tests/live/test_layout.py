"""Live models whose tensors have other names in memory, are parts of a parameter, or share memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import persona
from persona.errors import InvalidInput, Refused
from persona.live import slots
from persona.live.layout import _fill_once
from persona.repository import Repository
from tests.cli.command_line import CommandLine
from tests.families import train
from tests.merge.devices.late import LateDevice

EXPERT = "model.layers.0.block_sparse_moe.experts.1.w3.weight"


@pytest.fixture(scope="module")
def places(families: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A repository of a family's model with one commit of a fine-tune, by name and options of `commit`."""
    made: dict[tuple[str, ...], Path] = {}

    def find(name: str, *options: str) -> Path:
        if (name, *options) not in made:
            place = tmp_path_factory.mktemp("family")
            train(families(name), place / "tuned")
            CommandLine(place).ok("init", "bot", "--base", families(name))
            CommandLine(place / "bot").ok("commit", "../tuned", *options, "-m", "x")
            made[name, *options] = place / "bot"
        return made[name, *options]

    return find


@pytest.fixture
def mixtral(places: Callable[..., Path]) -> Iterator[Repository]:
    with persona.open(places("mixtral")) as repo:
        yield repo


def test_an_edit_of_a_joined_parameter_is_noticed(mixtral: Repository) -> None:
    live = mixtral.live(rev="HEAD")
    live.set("tuned", only=EXPERT)
    live.set("tuned", only="*experts*")
    with torch.no_grad():
        live.model.get_parameter("model.layers.0.mlp.experts.gate_up_proj").add_(1)
    with pytest.raises(Refused, match=r"experts\.0\.w1\.weight and \d+ more: changed in place"):
        live.checkout("HEAD~1")
    live.checkout("HEAD~1", force=True)
    assert live.digest() == mixtral.digest("HEAD~1").weights


def test_an_interrupted_change_of_joined_parameters_is_taken_back(mixtral: Repository) -> None:
    left = [3]

    def cut(label: str, done: int, total: int) -> None:
        if label == "merging" and 2 * done > total and left[0] < 2:
            left[0] += 1
            raise KeyboardInterrupt

    live = mixtral.live(rev="HEAD", progress=cut)
    for cuts, digest in ((1, "HEAD"), (2, None)):
        left[0] = 2 - cuts
        with pytest.raises(KeyboardInterrupt):
            live.checkout("HEAD~1")
        assert live.half_done == (digest is None)
        if digest is not None:
            assert live.digest() == mixtral.digest(digest).weights
    live.resume()
    assert live.digest() == mixtral.digest("HEAD~1").weights


def test_tensors_that_share_memory_are_equal_or_the_recipe_is_refused(places: Callable[..., Path]) -> None:
    with persona.open(places("t5 with copies", "--only", "shared.weight")) as repo:
        live = repo.live(rev="HEAD~1")
        with pytest.raises(
            InvalidInput, match=r"share memory in the model, but the recipe makes them differ"
        ):
            live.checkout("HEAD")
        assert live.digest() == repo.digest("HEAD~1").weights
        with repo.live(rev="HEAD") as apart:
            assert apart.digest() == repo.digest("HEAD").weights
            apart.checkout("HEAD~1")
            assert apart.digest() == repo.digest("HEAD~1").weights


def test_a_model_with_an_output_matrix_of_its_own_is_refused_where_the_base_ties_it(
    families: Callable[[str], Path], tmp_path: Path
) -> None:
    CommandLine(tmp_path).ok("init", "bot", "--base", families("llama tied"))
    CommandLine(tmp_path / "bot").ok(
        "commit", train(families("llama"), tmp_path / "own"), "--untie", "-m", "x"
    )
    with persona.open(tmp_path / "bot") as repo:
        with repo.live(rev="HEAD") as live:
            with pytest.raises(
                InvalidInput, match=r"lm_head\.weight .* load a model of that revision with repo"
            ):
                live.checkout("HEAD~1")
            assert live.digest() == repo.digest("HEAD").weights
        with repo.live(rev="HEAD~1") as live:
            with pytest.raises(InvalidInput, match=r"lm_head\.weight share memory"):
                live.checkout("HEAD")
            assert live.digest() == repo.digest("HEAD~1").weights


def test_a_part_of_a_model_is_refused_by_what_it_lacks(mixtral: Repository) -> None:
    model = mixtral.load("HEAD")
    with pytest.raises(InvalidInput, match=r"the model has no tensor lm_head\.weight: give the whole model"):
        mixtral.live(model.model, "HEAD")
    with pytest.raises(InvalidInput, match=r"the model has no tensor .* and \d+ more: give the whole model"):
        mixtral.live(model.model.layers[0], "HEAD")
    model.model.layers[1].extra = torch.nn.Linear(2, 2)
    with pytest.raises(
        InvalidInput, match=r"parameter model\.layers\.1\.extra\.\w+ that is none of the base"
    ):
        mixtral.live(model, "HEAD")


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_parts_of_a_parameter_on_a_device_are_merged_there(
    mixtral: Repository, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    device = LateDevice(seed=1)
    monkeypatch.setattr(slots, "device_of", lambda tensor: device if tensor.ndim else None)
    live = mixtral.live(mixtral.load("HEAD~1"), "HEAD", cache=cache)
    assert live.digest() == mixtral.digest("HEAD").weights
    live.set("tuned", alpha=0.5)
    live.set("tuned", alpha=0.25, only=EXPERT)
    mixtral.recipe.set("tuned", alpha=0.25, only=EXPERT)
    assert device.merges > 0
    assert live.digest() == mixtral.digest(device="cpu").weights
    live.checkout("HEAD~1")
    assert live.digest() == mixtral.digest("HEAD~1").weights
    mixtral.recipe.set("tuned", alpha=1, only=[])


@pytest.mark.parametrize(
    ("views", "right"),
    [
        ([((2, 3), (3, 1), 6), ((2, 3), (3, 1), 0)], True),
        ([((2, 3), (3, 1), 6), ((2, 3), (3, 1), 6)], False),
        ([((2, 3), (3, 1), 0), ((1, 3), (3, 1), 6)], False),
        ([((3, 2), (1, 6), 0), ((3, 2), (1, 6), 3)], True),
        ([((3, 2), (1, 6), 0), ((3, 2), (1, 3), 3)], False),
        ([((3, 2), (1, 6), 0)], False),
    ],
)
def test_parts_fill_a_parameter_once(views: list[object], right: bool) -> None:
    assert _fill_once(12, views) == right
