"""`export --mergekit`: a recipe of persona as one of mergekit, with its models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from persona.errors import Call, InvalidInput, Refused, UsageError, worded
from persona.history.interchange.methods import METHODS
from persona.repository import Repository
from tests.checkpoints import read_weights, same
from tests.history.bots import at
from tests.mergekit_models import ADAPTED, LAYERS, model, recipes, weights_of, write_adapter, write_models

POSSIBLE = [
    name
    for name, recipe in recipes().items()
    if not METHODS[yaml.safe_load(recipe["yaml"])["merge_method"]].random
]
INNER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def repo(models: Path, tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(
        tmp_path / "bot", base=models / "base", author=at(), committer=at(), chunk=64
    ) as repo:
        yield repo


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_is_exported_is_read_back_with_the_same_weights(
    repo: Repository, models: Path, tmp_path: Path, name: str
) -> None:
    recipe = recipes()[name]
    (models / "recipe.yml").write_text(recipe["yaml"])
    repo.import_mergekit(models / "recipe.yml")
    repo.commit(message="as in the file")
    out = tmp_path / "out"
    result = repo.export_mergekit("HEAD", out=out)
    document = yaml.safe_load((out / "mergekit.yml").read_text())
    assert (document["dtype"], document["out_dtype"]) == ("float32", "bfloat16")
    assert result.models[0] == "base"
    assert {path.name for path in out.iterdir()} == {*result.models, "mergekit.yml"}
    with Repository.init(
        tmp_path / "again", base=out / "base", author=at(), committer=at(), chunk=64
    ) as again:
        again.import_mergekit(out / "mergekit.yml")
        found, wanted = dict(again.tensors()), weights_of(recipe["weights"])
        assert all(np.array_equal(found[tensor], wanted[tensor]) for tensor in wanted)


def test_each_model_is_the_fine_tune_itself(repo: Repository, models: Path, tmp_path: Path) -> None:
    repo.commit(models / "pirate", message="one", alpha=0.25)
    repo.export_mergekit(out=tmp_path / "out")
    assert same(read_weights(tmp_path / "out" / "base"), model("base"))
    assert same(read_weights(tmp_path / "out" / "pirate"), model("pirate"))
    assert (tmp_path / "out" / "pirate" / "config.json").is_file()


def test_a_vector_with_the_name_of_the_recipe_gets_another_directory(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    repo.commit(models / "pirate", message="one", name="MergeKit.yml")
    repo.export_mergekit(out=tmp_path / "out")
    assert (tmp_path / "out" / "mergekit.yml").is_file()
    assert same(read_weights(tmp_path / "out" / "MergeKit.yml-2"), model("pirate"))


def test_files_that_come_during_an_export_are_kept(repo: Repository, models: Path, tmp_path: Path) -> None:
    repo.commit(models / "pirate", message="one")
    out = tmp_path / "out"
    out.mkdir()

    def interfere(*_: object) -> None:
        (out / "mine").write_text("mine")

    with pytest.raises(Refused, match="holds files"):
        repo.export_mergekit(out=out, progress=interfere)
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".out.tmp*"))


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"preset": "ties"}, "on_tie = drop"),
        ({"preset": "joint"}, "elect = count, no on_tie = drop"),
        (
            {"preset": "ties", "on_tie": "positive", "divide": "count"},
            "divide = count with strengths other than 1",
        ),
        ({"preset": "paper", "density": 0.5}, "trim = global, no rank = plus1, no on_tie = majority"),
        ({"preset": "joint", "density": 0.5}, "trim = joint"),
        ({"preset": "peft", "density": 0.5}, "rank = floor"),
        ({"preset": "mergekit", "on_tie": "majority"}, "on_tie = majority"),
        ({"preset": "mergekit", "elect": "count"}, "elect = count"),
        ({"preset": "mergekit", "weigh": "after"}, "weigh = after"),
        ({"preset": "mergekit", "merge": "max"}, "merge = max"),
        ({"preset": "dare_ties", "density": 0.5}, "trim = dare with a seed"),
    ],
)
def test_a_rule_that_mergekit_lacks_is_named(
    repo: Repository, models: Path, tmp_path: Path, axes: dict[str, str | float], said: str
) -> None:
    repo.add(models / "pirate", alpha=0.5 if "divide" in axes else 1)
    repo.add(models / "asks")
    repo.recipe.set_rules(axes)
    with pytest.raises(InvalidInput, match=f"mergekit has no {said}"):
        repo.export_mergekit(out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "axes",
    [
        {"preset": "ties"},
        {"preset": "peft", "density": 0.5},
        {"preset": "joint", "density": 0.3, "lambda": 0.5},
        {"preset": "paper"},
    ],
)
def test_the_rules_that_are_advised_can_be_exported(
    repo: Repository, models: Path, tmp_path: Path, axes: dict[str, str | float]
) -> None:
    repo.add(models / "pirate", alpha=0.5)
    repo.add(models / "asks")
    repo.recipe.set_rules(axes)
    before = repo.recipe.rules
    with pytest.raises(InvalidInput) as caught:
        repo.export_mergekit(out=tmp_path / "out")
    call = next(part for part in caught.value.hint or () if isinstance(part, Call))
    assert call.method == "recipe.set_rules"
    repo.recipe.set_rules(*call.arguments)
    assert repo.export_mergekit(out=tmp_path / "out").method == "ties"
    assert [repo.recipe.rules[axis] for axis in ("density", "lambda")] == [
        before[axis] for axis in ("density", "lambda")
    ]


def test_no_rules_are_advised_that_change_nothing(repo: Repository, models: Path, tmp_path: Path) -> None:
    repo.add(models / "pirate", alpha=0.5)
    repo.add(models / "asks")
    repo.commit(message="ties")
    with pytest.raises(InvalidInput) as first:  # of another recipe than that in the work tree
        repo.export_mergekit("HEAD", out=tmp_path / "out")
    repo.recipe.set("asks", join="add")  # which no rules mend
    with pytest.raises(InvalidInput) as second:
        repo.export_mergekit(out=tmp_path / "out")
    hints = {worded(caught.value.hint or "") for caught in (first, second)}
    assert hints == {"`repo.checkout(REV, out=OUT)` writes the merged weights"}


def test_a_vector_that_is_added_to_an_election_is_named(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    repo.add(models / "pirate")
    repo.recipe.set("pirate", join="add")
    with pytest.raises(InvalidInput, match="join = add"):
        repo.export_mergekit(out=tmp_path / "out")
    repo.recipe.set_rules({"preset": "linear"})
    assert repo.export_mergekit(out=tmp_path / "out").method == "task_arithmetic"


def test_a_vector_that_reaches_a_tensor_twice_is_named(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    repo.add(models / "pirate")
    repo.add(models / "pirate", name="again", only="*mlp*")
    repo.recipe.set_rules({"preset": "linear"})
    with pytest.raises(InvalidInput, match="again and pirate are one vector"):
        repo.export_mergekit(out=tmp_path / "out")


def test_a_vector_may_be_twice_where_it_changes_nothing(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    repo.add(write_adapter(tmp_path / "lora"))
    repo.add(tmp_path / "lora", name="again", only="*mlp*")
    repo.recipe.set_rules({"preset": "linear"})
    assert repo.export_mergekit(out=tmp_path / "out").models == ("base", "again")


@pytest.mark.parametrize("only", [("*.0.*",), (INNER,), ("model.layers.[12].*",), ("*up*", "*norm*")])
def test_any_filter_becomes_filters_of_mergekit(
    repo: Repository, models: Path, tmp_path: Path, only: tuple[str, ...]
) -> None:
    repo.add(models / "pirate", alpha=[0.5] * LAYERS if only == (INNER,) else 0.5, only=only)
    wanted = dict(repo.tensors())
    repo.export_mergekit(out=tmp_path / "out")
    with Repository.init(
        tmp_path / "again", base=tmp_path / "out" / "base", author=at(), committer=at(), chunk=64
    ) as again:
        again.import_mergekit(tmp_path / "out" / "mergekit.yml")
        found = dict(again.tensors())
    assert all(np.array_equal(found[tensor], wanted[tensor]) for tensor in wanted)


def test_an_adapter_is_written_as_its_model_and_a_note_says_so(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    repo.add(write_adapter(tmp_path / "lora"), alpha=0.5)
    result = repo.export_mergekit(out=tmp_path / "out")
    assert result.notes[0].startswith("lora: its model is rounded to the base's dtype")
    repo.recipe.set("lora", alpha=1)
    whole, written = dict(repo.tensors()), read_weights(tmp_path / "out" / "lora")
    assert all(np.array_equal(written[tensor].bits, whole[tensor]) for tensor in whole)
    assert not np.array_equal(whole[ADAPTED], model("base")[ADAPTED])


def test_a_directory_with_files_stays(repo: Repository, models: Path, tmp_path: Path) -> None:
    repo.add(models / "pirate")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(Refused, match="holds files"):
        repo.export_mergekit(out=tmp_path / "out")
    assert [path.name for path in tmp_path.glob("*out*")] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_recipe_without_a_vector_is_refused(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no vector"):
        repo.export_mergekit(out=tmp_path / "out")


@pytest.mark.parametrize("out", [".", ".persona/x"])
def test_the_work_tree_is_no_place_for_it(repo: Repository, models: Path, out: str) -> None:
    repo.add(models / "pirate")
    with pytest.raises(UsageError, match=r"write (into another directory|elsewhere)") as caught:
        repo.export_mergekit(out=repo.root / out)
    assert caught.value.hint is None
