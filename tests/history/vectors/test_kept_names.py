"""A vector that no commit holds yet keeps a name of its own, whatever becomes of `recipe.toml`."""

from __future__ import annotations

import pytest

from persona.errors import InvalidInput, PersonaError, Refused
from persona.history.vectors import importing
from persona.history.verbs import commit as commit_verb
from tests.checkpoints import same, write_model
from tests.history.bots import Bot, at, read_weights, tuned


def kept(bot: Bot) -> dict[str, str]:
    return {vector.name: vector.id for vector in bot.repo.vectors.values() if not vector.in_recipe}


def trained(bot: Bot) -> None:
    """Weights that were checked out and trained on in place."""
    write_model(bot.root, tuned(bot.checkout(), 9))


def test_training_that_was_added_and_restored_away_is_not_overwritten_and_is_found_again(grown: Bot) -> None:
    trained(grown)
    before = read_weights(grown.root)
    id = grown.repo.add(grown.root, name="night", onto="HEAD").vectors[0].id
    weights = grown.repo.status().weights
    assert (weights.state, weights.vector) == ("stale", "night")
    grown.repo.restore(["recipe.toml"])
    weights = grown.repo.status().weights
    assert (weights.vector, weights.alone) == ("night", True)
    for rev in (None, "HEAD", "HEAD~1"):
        with pytest.raises(Refused, match="as trained for the vector night"):
            grown.repo.checkout(rev)
    assert same(read_weights(grown.root), before)
    assert kept(grown) == {"night": id}
    assert grown.repo.vectors["night"].id == id
    grown.checkout(force=True)
    assert kept(grown) == {"night": id}


def test_a_commit_takes_the_kept_name_of_the_vectors_that_it_holds(grown: Bot) -> None:
    trained(grown)
    grown.repo.add(grown.root, name="night", onto="HEAD")
    refs = grown.repo._history.store.refs
    assert list(refs.list("refs/vectors/")) == ["refs/vectors/night"]
    assert [vector.name for vector in grown.repo.vectors.values()].count("night") == 1
    grown.commit()
    assert refs.list("refs/vectors/") == {}
    weights = grown.repo.status().weights
    assert (weights.vector, weights.alone) == ("night", False)
    grown.checkout("HEAD~1")  # a commit holds the training
    assert grown.repo.fsck(full=True).ok


def test_names_that_are_kept_never_push_one_another_out(grown: Bot) -> None:
    ids = [grown.repo.add(grown.tune(f"t{n}", n), name="x").vectors[0].id for n in (5, 6, 7)]
    grown.repo.recipe.remove("x")
    found = kept(grown)
    assert sorted(found) == ["x", "x-2", "x-3"]
    assert found["x"] == ids[-1]
    assert set(found.values()) == set(ids)
    assert grown.repo.fsck(full=True).ok
    grown.repo.vectors.delete("x-2")
    assert sorted(kept(grown)) == ["x", "x-3"]


@pytest.mark.parametrize("name", ["a b", "what?", "x.lock", "ALL", "all", "a:b*", "Ünïcode"])
def test_a_vector_of_any_name_is_kept(grown: Bot, name: str) -> None:
    grown.repo.add(grown.tune("all", 4), name="all")
    id = grown.repo.add(grown.tune("t", 5), name=name).vectors[0].id
    grown.repo.restore(["recipe.toml"])
    assert id in kept(grown).values()
    assert len(kept(grown)) == 2


def test_a_commit_of_a_fine_tune_that_fails_keeps_the_vector(
    grown: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Refused("somebody was first")

    with monkeypatch.context() as patch:
        patch.setattr(commit_verb, "record", fail)
        with pytest.raises(Refused, match="first"):
            grown.commit(grown.tune("late", 7))
    grown.repo.restore(["recipe.toml"])
    assert list(kept(grown)) == ["late"]


def test_a_recipe_that_breaks_while_a_fine_tune_is_imported_loses_nothing(
    grown: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importing._find_cutoffs

    def edit_and_find(*arguments: object) -> None:
        grown.recipe.write_text("[[ mine")
        find(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "_find_cutoffs", edit_and_find)
    with pytest.raises(PersonaError, match="kept as late"):
        grown.repo.add(grown.tune("late", 7))
    assert grown.recipe.read_text() == "[[ mine"
    grown.repo.restore(["recipe.toml"])
    assert list(kept(grown)) == ["late"]


def test_a_checkpoint_that_goes_after_its_commit_is_no_failure(
    grown: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(grown.models / "onward", tuned(grown.checkout(), 9))
    record = commit_verb.record

    def record_and_remove(*arguments: object, **options: object) -> object:
        made = record(*arguments, **options)  # type: ignore[arg-type]
        (path / "model.safetensors").unlink()
        return made

    monkeypatch.setattr(commit_verb, "record", record_and_remove)
    made = grown.commit(path, onto="HEAD")
    assert made.id == grown.repo.resolve("HEAD")
    assert any("was not compared" in note for note in made.notes)


def test_files_of_a_fine_tune_never_replace_an_edit_and_nothing_is_imported_then(grown: Bot) -> None:
    path = grown.tune("late", 7)
    (path / "config.json").write_text("{}\n")
    (grown.root / "config.json").write_text('{"mine": 1}\n')
    objects = grown.repo.count_objects().objects
    with pytest.raises(Refused, match=r"(?s)config\.json.*files=True"):
        grown.repo.add(path, files=True)
    assert (grown.root / "config.json").read_text() == '{"mine": 1}\n'
    assert grown.repo.count_objects().objects == objects
    grown.repo.restore(["config.json"])
    grown.repo.add(path, files=True)
    assert (grown.root / "config.json").read_text() == "{}\n"


def test_an_untracked_file_of_the_same_name_is_not_replaced_either(grown: Bot) -> None:
    path = grown.tune("late", 7)
    (path / "generation_config.json").write_text("{}\n")
    (grown.root / "generation_config.json").write_text("mine\n")
    with pytest.raises(Refused, match="generation_config"):
        grown.repo.add(path, files=True)
    assert (grown.root / "generation_config.json").read_text() == "mine\n"


def test_init_keeps_a_recipe_that_lies_in_the_model(grown: Bot) -> None:
    from persona.repository import Repository

    place = write_model(grown.models / "model", grown.base)
    (place / "recipe.toml").write_text("# mine\n")
    with pytest.raises(Refused, match=r"recipe\.toml"):
        Repository.init(place, author=at(), chunk=64)
    assert (place / "recipe.toml").read_text() == "# mine\n"
    assert not (place / ".persona").exists()
    (place / "recipe.toml").unlink()
    Repository.init(place, author=at(), chunk=64)


def test_a_base_that_changes_while_it_is_read_is_refused(grown: Bot) -> None:
    from persona.repository import Repository

    place = write_model(grown.models / "model", grown.base)

    def progress(*_: object) -> None:
        (place / "config.json").write_text('{"model_type": "other"}\n')

    with pytest.raises(InvalidInput, match=r"config\.json: was changed while it was read"):
        Repository.init(grown.models / "again", base=place, author=at(), chunk=64, progress=progress)
    assert not (grown.models / "again" / ".persona").exists()
