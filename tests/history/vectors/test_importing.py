"""A fine-tune takes the place of an older one of its run, and of no other that happens to have its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.errors import InvalidInput, Refused
from tests.checkpoints import write_model
from tests.history.bots import Bot, tuned


def model(bot: Bot, path: str, seed: int) -> Path:
    return write_model(bot.models / path, tuned(bot.base, seed))


@pytest.mark.parametrize("by", ["add", "commit"])
def test_another_run_of_the_same_name_is_refused_unless_it_is_meant(bot: Bot, by: str) -> None:
    def take(path: str, seed: int, **options: object) -> str:
        directory = model(bot, path, seed)
        result = bot.commit(directory, **options) if by == "commit" else bot.repo.add(directory, **options)  # type: ignore[arg-type]
        return result.vectors[0].change

    take("runA/merged", 1)
    before = bot.recipe.read_bytes()
    with pytest.raises(Refused, match=r"(?s)runB/merged.*runA/merged.*name=NAME.*replace=True"):
        take("runB/merged", 2)
    assert bot.recipe.read_bytes() == before
    assert take("runB/merged", 2, name="other") == "added"
    assert take("runB/merged", 2, replace=True) == "replaced"
    assert take("runB/merged", 3) == "replaced"
    assert take("runA/merged", 4, name="merged") == "replaced"


def test_a_run_that_goes_on_takes_the_place_of_what_it_was(bot: Bot) -> None:
    bot.commit(model(bot, "run/checkpoint-10", 1))
    for path, seed in (("run/checkpoint-20", 2), ("run", 3), ("run", 4)):
        (change,) = bot.commit(model(bot, path, seed)).vectors
        assert (change.name, change.change) == ("run", "replaced")
    bot.commit(bot.models / "run" / "model.safetensors", allow_empty=True)
    (bot.models / "link").symlink_to(bot.models / "run")
    bot.repo.add(bot.models / "run" / ".." / "run")
    with pytest.raises(Refused, match="run"):
        bot.commit(model(bot, "elsewhere/run/checkpoint-30", 5))


def test_a_vector_of_unknown_origin_is_replaced(bot: Bot) -> None:
    bot.commit(model(bot, "runA/merged", 1))
    for cache in (bot.root / ".persona" / "cache" / "origins").iterdir():
        cache.unlink()
    assert bot.commit(model(bot, "runB/merged", 2)).vectors[0].change == "replaced"


def test_the_same_vector_under_two_names_is_noted(bot: Bot) -> None:
    said = "two and one are the same vector, so the recipe applies it twice"
    place = model(bot, "one", 1)
    bot.commit(place)
    assert said in bot.repo.add(place, name="two").notes
    assert bot.commit().notes.count(said) == 1
    id = bot.repo.vectors["one"].id
    bot.edit(lambda text: text + f'\n[vectors.three]\nid = "{id}"\n')
    assert "three and one are the same vector, so the recipe applies it twice" in bot.commit().notes
    bot.repo.add(place, name="one", only="*.mlp.*")
    bot.repo.recipe.set("two", except_="*.mlp.*")
    bot.repo.recipe.remove("three")
    assert bot.commit().notes == ()
    assert bot.repo.add(place, name="two", except_="*.mlp.*").notes == ()


def test_a_glob_of_extra_tensors_that_the_model_does_not_have_is_refused(bot: Bot) -> None:
    place = model(bot, "one", 1)
    with pytest.raises(InvalidInput, match=r"^extra: 'mtp\*' matches none of 4 tensors; names look like "):
        bot.repo.add(place, extra="mtp*")
    assert bot.repo.add(place, extra=["*norm*"]).vectors[0].left == ()


def test_a_rename_is_in_the_result_and_in_the_note_on_the_origin(bot: Bot) -> None:
    tensors = {f"wrapped.by.me.{name}": bits for name, bits in tuned(bot.base, 1).items()}
    place = write_model(bot.models / "one", tensors)
    (change,) = bot.repo.add(place, rename=True, leave="*norm*").vectors
    kinds = {name.replace("0", "*") for name in bot.base if "layers.1" not in name}
    assert change.renamed == {f"wrapped.by.me.{name}": name for name in kinds}
    assert change.left == ("model.norm.weight",)
    (origin,) = bot.repo.vectors.statistics("one").provenance
    assert origin == {"renamed": change.renamed}


def test_a_filter_that_leaves_a_vector_without_effect_is_noted(bot: Bot) -> None:
    said = "one has no effect: it changes none of the tensors that its filter admits"
    place = write_model(bot.models / "one", tuned(bot.base, 1, only="mlp"))
    assert said in bot.repo.add(place, only="*embed*").notes
    assert said in bot.commit().notes
    assert said not in bot.commit(allow_empty=True).notes
    assert bot.repo.recipe.set("one", only="*layers.1*").notes == ()
    assert bot.repo.recipe.set("one", only=[], except_="*mlp*").notes == (said,)
    assert said in bot.commit().notes
