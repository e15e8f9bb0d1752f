"""`import`: the weights of a mergekit recipe, and a work tree that stays whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest

from persona.errors import InvalidInput, Refused
from persona.history.results import CommitResult
from persona.history.verbs.import_mergekit import ImportPlan
from persona.repository import Repository
from tests.checkpoints import Bits, read_weights, write_model
from tests.history.bots import at
from tests.mergekit_models import ADAPTED, model, recipes, weights_of, write_adapter, write_models

TIES = recipes()["ties"]["yaml"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def repo(models: Path, tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(
        tmp_path / "bot", base=models / "base", author=at(), committer=at(), chunk=64
    ) as repo:
        yield repo


def imported(repo: Repository, models: Path, text: str) -> CommitResult:
    (models / "recipe.yml").write_text(text)
    result = repo.import_mergekit(models / "recipe.yml")
    assert isinstance(result, CommitResult)
    return result


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_gives_mergekits_weights_to_the_bit(repo: Repository, models: Path, name: str) -> None:
    recipe = recipes()[name]
    result = imported(repo, models, recipe["yaml"])
    repo.commit(message="as in the file")
    assert result.id is None
    wanted = weights_of(recipe["weights"])
    found = dict(repo.tensors("HEAD"))
    assert [tensor for tensor in wanted if not np.array_equal(found[tensor], wanted[tensor])] == []


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "della"])
@pytest.mark.parametrize(
    ("more", "rescale"), [("", "norm"), ("\n  rescale: true", "norm"), ("\n  rescale: false", "false")]
)
def test_rescale_keeps_the_sum_of_magnitudes_as_in_mergekit(
    repo: Repository, models: Path, method: str, more: str, rescale: str
) -> None:
    text = (
        f"merge_method: {method}\nbase_model: base\nmodels:\n  - model: pirate\n"
        f"parameters:\n  weight: 1\n  density: 0.5{more}\ndtype: float32\n"
    )
    (models / "recipe.yml").write_text(text)
    plan = repo.import_mergekit(models / "recipe.yml", dry_run=True)
    assert isinstance(plan, ImportPlan)
    assert plan.rules["rescale"] == rescale
    assert [note for note in plan.notes if "rescale" in note] == []


def test_the_recipe_replaces_the_old_one_and_keeps_comments(repo: Repository, models: Path) -> None:
    imported(repo, models, TIES)
    text = repo.root / "recipe.toml"
    text.write_text("# mine\n" + text.read_text())
    repo.commit(message="ties")
    result = imported(repo, models, recipes()["task_arithmetic"]["yaml"])
    assert {change.name: change.change for change in result.vectors} == {"waffle": "removed"}
    assert text.read_text().startswith("# mine\n")
    assert {name: term.alpha for name, term in repo.recipe.items()} == {"pirate": 0.7, "asks": -0.3}


def test_uncommitted_edits_of_the_recipe_stay(repo: Repository, models: Path) -> None:
    text = repo.root / "recipe.toml"
    text.write_text(text.read_text() + "# mine\n")
    before = text.read_bytes()
    with pytest.raises(Refused, match=r"recipe\.toml has uncommitted edits"):
        imported(repo, models, TIES)
    assert text.read_bytes() == before


def test_a_dry_run_changes_nothing(repo: Repository, models: Path) -> None:
    before = repo.count_objects()
    (models / "recipe.yml").write_text(TIES)
    plan = repo.import_mergekit(models / "recipe.yml", dry_run=True)
    assert isinstance(plan, ImportPlan)
    assert plan.rules["preset"] == "mergekit"
    assert {name: vector["alpha"] for name, vector in plan.vectors.items()} == {
        "pirate": 1,
        "asks": 0.5,
        "waffle": 0.3,
    }
    assert repo.count_objects() == before
    assert repo.status().recipe_changed is False


def test_a_model_that_cannot_be_taken_leaves_the_recipe_and_names_what_was_stored(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "other", {"x": [1.0]})
    before = (repo.root / "recipe.toml").read_bytes()
    with pytest.raises(InvalidInput):
        imported(repo, models, TIES.replace("model: waffle", f"model: {tmp_path / 'other'}"))
    assert (repo.root / "recipe.toml").read_bytes() == before
    assert {"pirate", "asks"} <= set(repo.vectors)


def test_the_options_of_add_reach_the_models_of_a_recipe(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    waffle = read_weights(models / "waffle")
    renamed = {f"wrapped.{name}": tensor for name, tensor in waffle.items()}
    write_model(tmp_path / "other", {**renamed, "extra.weight": [1.0]})
    (models / "other.yml").write_text(TIES.replace("model: waffle", f"model: {tmp_path / 'other'}"))
    with pytest.raises(InvalidInput, match=r"(?s)renamed.*rename=True"):
        repo.import_mergekit(models / "other.yml")
    with pytest.raises(InvalidInput, match=r"(?s)extra\.weight.*extra='ignore'"):
        repo.import_mergekit(models / "other.yml", rename=True)
    name = next(iter(waffle))
    result = repo.import_mergekit(models / "other.yml", rename=True, extra="extra.*", leave=name)
    assert isinstance(result, CommitResult)
    assert any(f"left as in the base: {name}" in note for note in result.notes)


def test_another_base_is_refused_before_anything_is_stored(repo: Repository, models: Path) -> None:
    before = repo.count_objects()
    with pytest.raises(InvalidInput, match=r"base_model: .* has the weights blake3:"):
        imported(repo, models, TIES.replace("base_model: base", "base_model: pirate"))
    assert repo.count_objects() == before


def test_a_model_that_is_not_here_is_named(repo: Repository, models: Path) -> None:
    with pytest.raises(InvalidInput, match=r"model: org/pirate is not here\n.*`hf download org/pirate`"):
        imported(repo, models, TIES.replace("model: pirate", "model: org/pirate"))


def test_a_model_in_the_hubs_cache_is_taken_by_its_name(
    repo: Repository, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--org--pirate"
    shutil.copytree(models / "pirate", cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    imported(repo, models, TIES)
    plain = repo.digest().weights
    repo.restore("recipe.toml")
    result = imported(repo, models, TIES.replace("model: pirate", "model: org/pirate"))
    assert "pirate" in {vector.name for vector in result.vectors}
    assert repo.digest().weights == plain


def test_models_of_one_directory_name_have_names_of_their_own(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    for name in ("pirate", "asks"):
        write_model(tmp_path / name / "final", model(name))
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
    text += "".join(
        f"- {{model: {tmp_path / name / 'final'}, parameters: {{weight: 1}}}}\n"
        for name in ("pirate", "asks")
    )
    imported(repo, models, text)
    assert set(repo.recipe) == {"final", "final-2"}


def test_an_adapter_on_the_base_is_stored_as_an_adapter(
    repo: Repository, models: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora")
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
    result = imported(repo, models, f"{text}- {{model: base+{adapter}, parameters: {{weight: 0.5}}}}\n")
    assert repo.vectors["lora"].kind == "lowrank"
    assert any("roundings" in note for note in result.notes)
    found = as_floats(dict(repo.tensors())[ADAPTED])
    assert np.abs(found - as_floats(model("base")[ADAPTED]) - 1).max() < 2**-7
    assert np.array_equal(dict(repo.tensors())["model.norm.weight"], model("base")["model.norm.weight"])


def test_an_adapter_on_another_model_is_named(repo: Repository, models: Path) -> None:
    with pytest.raises(InvalidInput, match="an adapter on asks, which is not the base_model"):
        imported(repo, models, TIES.replace("model: pirate", "model: asks+pirate"))


def as_floats(bits: Bits) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The numbers of bf16."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)
