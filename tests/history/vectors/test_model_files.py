"""Text files that come with a vector go with it, unless they were edited or another vector brought them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona.errors import Refused, UsageError
from persona.repository import Repository
from tests.checkpoints import write_model
from tests.history.bots import Bot, advised, base_tensors

LONG = '{"model_type": "tiny", "rope_scaling": {"factor": 4}}\n'
BASE = '{"model_type": "tiny"}\n'


def texts(root: Path) -> dict[str, str]:
    """The tracked texts of the work tree but the recipe."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".persona" not in path.parts]
    found = {path.relative_to(root).as_posix(): path.read_text() for path in paths}
    del found["recipe.toml"]
    return found


def bring(bot: Bot, name: str, seed: int, config: str = LONG, **files: str) -> Path:
    """Commits a fine-tune with its files."""
    place = bot.tune(name, seed, **({"config.json": config} | files))
    bot.commit(place, files=True)
    return place


Drop = Callable[[Bot, str], tuple[str, ...]]


def by_rm(bot: Bot, name: str) -> tuple[str, ...]:
    result = bot.repo.recipe.remove(name)
    bot.commit()
    return result.notes


def by_revert(bot: Bot, name: str) -> tuple[str, ...]:
    return bot.repo.revert(name).notes


def by_revert_then_commit(bot: Bot, name: str) -> tuple[str, ...]:
    notes = bot.repo.revert(name, no_commit=True).notes
    bot.commit()
    return notes


WAYS = [by_rm, by_revert, by_revert_then_commit]


@pytest.mark.parametrize("drop", WAYS)
def test_files_go_with_their_vector(bot: Bot, drop: Drop) -> None:
    before = texts(bot.root)
    bring(bot, "long", 1, **{"chat_template.jinja": "other\n", "special_tokens_map.json": "{}"})
    assert texts(bot.root)["config.json"] == LONG
    bot.commit(bot.tune("plain", 2))
    (note, *_) = drop(bot, "long")
    assert "put back: chat_template.jinja, config.json; removed: special_tokens_map.json" in note
    assert advised(note).startswith("`repo.restore(FILE")
    assert texts(bot.root) == before
    status = bot.repo.status()
    assert not status.files_changed
    assert not status.recipe_changed
    assert set(bot.repo["HEAD"].recipe.vectors) == {"plain"}


def test_files_stay_where_they_are_to_be_kept(bot: Bot) -> None:
    bring(bot, "long", 1)
    head = bot.repo.resolve("HEAD")
    for drop in (
        lambda: bot.repo.revert("long", keep_files=True).notes,
        lambda: bot.repo.recipe.remove("long", keep_files=True).notes,
    ):
        assert drop() == ("came with the vector, and stay: config.json",)
        assert texts(bot.root)["config.json"] == LONG
        bot.repo.reset(head, mode="hard")


@pytest.mark.parametrize("drop", WAYS)
def test_an_edit_since_then_stays(bot: Bot, drop: Drop) -> None:
    bring(bot, "long", 1, **{"chat_template.jinja": "other\n"})
    (bot.root / "config.json").write_text(LONG + "\n")
    bot.commit()
    notes = drop(bot, "long")
    assert any("edited since, and stay: config.json" in note for note in notes)
    assert texts(bot.root)["config.json"] == LONG + "\n"
    assert texts(bot.root)["chat_template.jinja"] == "hello\n"


def test_files_of_a_commit_cannot_be_kept(bot: Bot) -> None:
    bring(bot, "long", 1)
    with pytest.raises(UsageError, match="is a commit"):
        bot.repo.revert("HEAD", keep_files=True)


def test_an_edit_that_no_commit_holds_stays_too(bot: Bot) -> None:
    bring(bot, "long", 1)
    (bot.root / "config.json").write_text("{}")
    with pytest.raises(Refused, match="uncommitted edits"):
        bot.repo.revert("long")
    assert bot.repo.recipe.remove("long").files == ()
    assert texts(bot.root)["config.json"] == "{}"


def test_a_file_becomes_that_of_another_vector_that_brought_it(bot: Bot) -> None:
    one, two = LONG.replace("4", "2"), LONG
    bring(bot, "one", 1, one)
    bring(bot, "two", 2, two)
    bot.repo.revert("two")
    assert texts(bot.root)["config.json"] == one
    bot.repo.revert("one")
    assert texts(bot.root)["config.json"] == BASE


def test_a_file_stays_as_long_as_another_vector_brought_the_same(bot: Bot) -> None:
    bring(bot, "one", 1)
    bring(bot, "two", 2)
    assert bot.repo.revert("one").notes == ()
    assert texts(bot.root)["config.json"] == LONG
    bot.repo.revert("two")
    assert texts(bot.root)["config.json"] == BASE


def test_a_file_stays_as_long_as_the_vector_has_another_name(bot: Bot) -> None:
    place = bring(bot, "one", 1)
    bot.commit(place, name="again", only="*mlp*")
    bot.repo.revert("one")
    assert texts(bot.root)["config.json"] == LONG
    bot.repo.revert("again")
    assert texts(bot.root)["config.json"] == BASE


def test_several_vectors_are_dropped_with_the_files_of_all(bot: Bot) -> None:
    bring(bot, "one", 1)
    bring(bot, "two", 2, LONG, **{"chat_template.jinja": "other\n"})
    result = bot.repo.recipe.remove("one", "two")
    assert sorted(result.files) == ["chat_template.jinja", "config.json"]
    assert texts(bot.root) == {"config.json": BASE, "chat_template.jinja": "hello\n"}


def test_a_vector_that_brought_no_file_takes_none_away(bot: Bot) -> None:
    bot.commit(bot.tune("long", 1, **{"config.json": LONG}))
    (bot.root / "config.json").write_text(LONG)  # by hand
    bot.commit()
    assert bot.repo.revert("long").notes == ()
    assert texts(bot.root)["config.json"] == LONG


def test_a_vector_can_be_dropped_from_a_recipe_that_is_wrong(bot: Bot) -> None:
    bring(bot, "long", 1)
    right = bot.recipe.read_text()
    bot.recipe.write_text(right + f'\n[vectors.ghost]\nid = "{"7" * 64}"\nalpha = 1\n')
    bot.repo.recipe.remove("ghost")
    assert "ghost" not in bot.recipe.read_text()
    assert texts(bot.root)["config.json"] == LONG


@pytest.mark.parametrize("drop", WAYS)
def test_an_own_file_comes_back_after_the_vector_that_replaced_it(bot: Bot, drop: Drop) -> None:
    own = {"config.json": '{"model_type": "tiny", "own": 1}\n', "chat_template.jinja": "own\n"}
    for name, text in own.items():
        (bot.root / name).write_text(text)
    bot.commit()
    bring(bot, "long", 1, **{"chat_template.jinja": "other\n"})
    drop(bot, "long")
    assert texts(bot.root) == own


def test_no_order_of_drops_leaves_a_file_of_a_dropped_vector(bot: Bot) -> None:
    one, two = LONG.replace("4", "2"), LONG
    for first, second, between in [("one", "two", two), ("two", "one", one)]:
        bring(bot, "one", 1, one)
        bring(bot, "two", 2, two)
        bot.repo.revert(first)
        assert texts(bot.root)["config.json"] == between
        bot.repo.revert(second)
        assert texts(bot.root)["config.json"] == BASE


def test_a_file_that_was_kept_is_the_user_s_from_then_on(bot: Bot) -> None:
    bring(bot, "one", 1)
    bot.repo.revert("one", keep_files=True)
    bring(bot, "two", 2, LONG.replace("4", "8"))
    bot.repo.revert("two")
    assert texts(bot.root)["config.json"] == LONG


@pytest.mark.parametrize("amend", [False, True])
def test_a_vector_that_replaces_another_brings_the_same_files(bot: Bot, amend: bool) -> None:
    bring(bot, "long", 1, **{"special_tokens_map.json": "{}", "chat_template.jinja": "other\n"})
    (bot.models / "else").mkdir()
    place = bot.tune("else/long", 2, **{"config.json": LONG.replace("4", "8")})
    notes = bot.commit(place, replace=True, amend=amend).notes
    assert "imported too: config.json" in notes
    assert any("put back: chat_template.jinja; removed: special_tokens_map.json" in note for note in notes)
    assert texts(bot.root) == {"config.json": LONG.replace("4", "8"), "chat_template.jinja": "hello\n"}
    bot.repo.revert("long")
    assert texts(bot.root) == {"config.json": BASE, "chat_template.jinja": "hello\n"}


def test_training_again_into_the_same_directory_keeps_the_files_with_the_vector(bot: Bot) -> None:
    bring(bot, "long", 1)
    bot.commit(bot.tune("long", 2, **{"config.json": LONG}), message="again")
    assert texts(bot.root)["config.json"] == LONG
    by_rm(bot, "long")
    assert texts(bot.root)["config.json"] == BASE


def test_a_derived_vector_in_place_of_another_takes_its_files_back(bot: Bot) -> None:
    bring(bot, "long", 1)
    bot.commit(bot.tune("plain", 2))
    (note,) = bot.repo.vectors.derive("long", "-plain").notes[-1:]
    assert "put back: config.json" in note
    assert texts(bot.root)["config.json"] == BASE


def test_importing_again_keeps_an_edit(bot: Bot) -> None:
    bring(bot, "long", 1)
    (bot.root / "config.json").write_text(edited := LONG.replace("4", "16"))
    bot.commit()
    bot.commit(bot.tune("long", 2, **{"config.json": LONG}), message="again")
    assert texts(bot.root)["config.json"] == edited


def test_files_that_a_drop_put_back_may_be_replaced_before_a_commit(bot: Bot) -> None:
    bring(bot, "one", 1, **{"chat_template.jinja": "other\n"})
    bot.repo.recipe.remove("one")
    place = bot.tune("two", 2, **{"config.json": LONG.replace("4", "8"), "chat_template.jinja": "two\n"})
    bot.repo.add(place, files=True)
    assert texts(bot.root) == {"config.json": LONG.replace("4", "8"), "chat_template.jinja": "two\n"}


def test_the_advice_for_uncommitted_edits_names_all_of_them(bot: Bot) -> None:
    place = bot.tune("long", 1, **{"config.json": LONG, "chat_template.jinja": "other\n"})
    for name in ("config.json", "chat_template.jinja"):
        (bot.root / name).write_text("mine")
    with pytest.raises(Refused, match="uncommitted edits would be overwritten") as caught:
        bot.repo.add(place, files=True)
    assert "repo.restore(['chat_template.jinja', 'config.json'])" in str(caught.value)
    bot.repo.restore(["chat_template.jinja", "config.json"])
    bot.repo.add(place, files=True)


# -- files of subdirectories


@pytest.fixture
def pooled(tmp_path: Path) -> Repository:
    """A repository around a base with the directories of a sentence-transformers model."""
    base = write_model(tmp_path / "pooled", base_tensors(), **{"modules.json": '[{"path": "1_Pooling"}]'})
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text("{}")
    Repository.init(tmp_path / "repo", base=base)
    return Repository.open(tmp_path / "repo")


def test_files_of_modules_and_templates_come_with_a_vector_and_others_do_not(
    pooled: Repository, bot: Bot
) -> None:
    with pooled as repo:
        modules = '[{"path": ""}, {"path": "1_Pooling"}, {"path": "3_Norm"}]'
        place = bot.tune("tuned", 1, **{"modules.json": modules})
        for path in (
            "1_Pooling/config.json",
            "1_Pooling/README.md",
            "3_Norm/config.json",
            "additional_chat_templates/rag.jinja",
            "eval/config.json",
            "eval/results.json",
        ):
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_text(f'["{path}"]')
        before = texts(repo.root)
        (note,) = repo.add(place).notes
        new = {"3_Norm/config.json", "additional_chat_templates/rag.jinja"}
        brought = sorted({"1_Pooling/config.json", "modules.json", *new})
        assert ", ".join(brought) in note
        assert texts(repo.root) == before
        repo.commit(place, files=True, message="with files")
        assert set(texts(repo.root)) - set(before) == new
        assert not repo.status().untracked
        held = {change.path for change in repo.diff("HEAD~1", "HEAD").file_changes}
        assert held == set(brought)
        repo.revert("tuned")
        assert texts(repo.root) == before
        assert not repo.status().files_changed


# -- a config.json that stays behind

NEWER = {"transformers_version": "9.0"}
COMPUTING: list[tuple[dict[str, Any], str]] = [
    ({"rms_norm_eps": 0.5}, "rms_norm_eps null → 0.5"),
    ({"rope_theta": 7e5}, "rope_theta 10000.0 → 700000.0"),
    ({"rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}}, "rope_theta 10000.0 → 700000.0"),
    ({"rope_scaling": {"type": "yarn", "factor": 4}} | NEWER, "rope_scaling.factor null → 4"),
    ({"text_config": {"num_attention_heads": 4}}, "text_config.num_attention_heads 2 → 4"),
    ({"layers": list(range(40))}, "layers null → …"),
    ({"hidden_act": "relu"} | NEWER, 'hidden_act "silu" → "relu"'),
]
IDLE: list[dict[str, Any]] = [
    {"_name_or_path": "x", "use_cache": False, "attention_dropout": 0.1, "eos_token_id": 3},
    {"dtype": "float32", "architectures": ["Other"], "vocab_size": 99, "id2label": {"0": "a"}},
    {"mlp_bias": False, "rope_scaling": None, "pruned_heads": {}},
    {"head_dim": 8} | NEWER,  # a default that another version writes
    {"rope_theta": None, "rope_parameters": {"rope_theta": 10000, "rope_type": "default"}} | NEWER,
]


def left_behind(bot: Bot, change: dict[str, Any]) -> str:
    """The note on the config.json of a fine-tune that differs from the base's."""
    own = {
        "transformers_version": "5.0",
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "text_config": {"num_attention_heads": 2},
    }
    (bot.root / "config.json").write_text(json.dumps(own))
    bot.commit()
    config = {key: value for key, value in (own | change).items() if value is not None}
    if "rope_parameters" in change:
        config.pop("rope_theta", None)
    result = bot.commit(bot.tune("other", 1, **{"config.json": json.dumps(config)}))
    (note,) = (note for note in result.notes if "config.json" in note)
    assert "files=True" in advised(note)
    return note


@pytest.mark.parametrize(("change", "said"), COMPUTING)
def test_values_on_which_outputs_depend_are_named(bot: Bot, change: dict[str, Any], said: str) -> None:
    note = left_behind(bot, change)
    assert note.startswith("not imported: config.json, with which the model computes something else (")
    assert said in note


@pytest.mark.parametrize("change", IDLE)
def test_values_on_which_no_output_depends_are_not_named(bot: Bot, change: dict[str, Any]) -> None:
    assert left_behind(bot, change) == "not imported: config.json, which differs from the work tree's"
