"""Commits: what they hold, what they say, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from persona.errors import InvalidInput, PersonaError, Refused, UnknownName, UsageError
from persona.history.results import as_json
from persona.history.verbs import init
from persona.repository import Repository
from persona.store import files
from tests.checkpoints import write_model
from tests.disks import Syncing
from tests.history.bots import Bot, advised, at, base_tensors, read_weights, tuned


def test_the_first_commit_is_the_base_alone_on_main(bot: Bot) -> None:
    entry = bot.repo["HEAD"]
    assert bot.repo.head().branch == "main"
    assert entry.parents == ()
    assert entry.recipe.vectors == {}
    assert (entry.recipe.rules["preset"], entry.recipe.rules["density"]) == ("ties", 1.0)
    assert bot.recipe.read_text() == 'base = "tiny"\n\n[merge]\npreset = "ties"\ndensity = 1.0\n'
    assert (bot.root / "chat_template.jinja").read_text() == "hello\n"
    assert not (bot.root / "model.safetensors").exists()


def test_a_commit_of_a_fine_tune_says_what_it_stored(bot: Bot) -> None:
    result = bot.commit(bot.tune("listening", 1), "listen")
    (change,) = result.vectors
    assert (change.name, change.change, change.alpha) == ("listening", "added", 1.0)
    elements = sum(bits.size for bits in bot.base.values())
    changed = sum(int((bot.base[name] != bits).sum()) for name, bits in bot.tunes["listening"].items())
    assert change.raw_bytes == 2 * elements
    assert change.changed_fraction == pytest.approx(changed / elements)
    assert change.kept_fraction == change.changed_fraction
    assert change.largest_rounding is None
    info = bot.repo.vectors["listening"]
    assert (info.id, info.stored_bytes) == (change.id, change.stored_bytes)
    assert (result.branch, result.parents, result.subject) == (
        "main",
        (bot.repo.resolve("HEAD~1"),),
        "listen",
    )
    assert set(as_json(result)) == {"id", "branch", "parents", "vectors", "kept", "files", "checkout"}
    assert "previous" not in as_json(result)["vectors"][0]


def test_what_a_density_keeps_is_counted(bot: Bot) -> None:
    change = bot.commit(bot.tune("listening", 1), density=0.2).vectors[0]
    assert change.kept_fraction is not None
    assert change.changed_fraction is not None
    assert 0.19 <= change.kept_fraction < change.changed_fraction


@pytest.mark.parametrize(
    "preset", ["joint", "breadcrumbs", "dare_ties", "dare_linear", "della", "della_linear"]
)
@pytest.mark.parametrize("verb", ["add", "commit"])
def test_what_row_filters_and_joint_cut_offs_keep_is_not_counted(bot: Bot, preset: str, verb: str) -> None:
    bot.repo.recipe.set_rules({"preset": preset, "density": 0.5})
    taken = getattr(bot.repo, verb)(
        bot.tune("listening", 1), **({"message": "x"} if verb == "commit" else {})
    )
    assert taken.vectors[0].kept_fraction is None


def test_an_existing_name_gets_the_new_vector_and_keeps_its_settings(bot: Bot) -> None:
    bot.commit(bot.tune("listening", 1), alpha=0.7, density=0.5, only=["model.layers.*"])
    change = bot.commit(bot.tune("listening", 2)).vectors[0]
    term = bot.repo["HEAD"].recipe.vectors["listening"]
    assert (change.change, change.previous is not None) == ("replaced", True)
    assert (term.id, term.alpha, term.density, term.only) == (change.id, 0.7, 0.5, ("model.layers.*",))


def test_a_change_of_comments_alone_is_a_commit(bot: Bot) -> None:
    bot.edit(lambda text: "# mine\n" + text)
    assert bot.repo.status().recipe_changed
    result = bot.commit()
    assert result.vectors == ()
    assert bot.repo.show()[1].files == ("recipe.toml",)
    assert bot.recipe.read_text().startswith("# mine\n")


def test_recipe_comments_outlive_commits_and_edits(grown: Bot) -> None:
    grown.edit(lambda text: text.replace("alpha = 0.7", "alpha = 0.7  # enough"))
    grown.commit()
    grown.repo.recipe.set("listening", alpha=0.6)
    grown.commit()
    assert "alpha = 0.6  # enough" in grown.recipe.read_text()
    grown.repo.checkout("HEAD~1", weights=False)
    assert "alpha = 0.7  # enough" in grown.recipe.read_text()


def test_an_edited_text_file_is_part_of_the_next_commit(bot: Bot) -> None:
    (bot.root / "chat_template.jinja").write_text("hi\n")
    (bot.root / "graph").mkdir()
    (bot.root / "graph" / "listening.md").write_text("+++\n")
    (bot.root / "notes.txt").write_text("not tracked\n")
    assert bot.repo.status().files_changed == ("chat_template.jinja", "graph/listening.md")
    bot.commit()
    assert bot.repo.status().files_changed == ()
    assert bot.repo.diff("HEAD~1", "HEAD").files == ("chat_template.jinja", "graph/listening.md")
    bot.repo.checkout("HEAD~1", weights=False)
    assert (bot.root / "chat_template.jinja").read_text() == "hello\n"
    assert not (bot.root / "graph").exists()
    assert (bot.root / "notes.txt").exists()


def test_a_deleted_text_file_is_deleted_in_the_commit(bot: Bot) -> None:
    (bot.root / "chat_template.jinja").unlink()
    bot.commit()
    bot.repo.checkout("HEAD~1", weights=False)
    assert (bot.root / "chat_template.jinja").exists()
    bot.repo.checkout("main", weights=False)
    assert not (bot.root / "chat_template.jinja").exists()


def test_nothing_to_commit_is_refused(bot: Bot) -> None:
    before = bot.repo.count_objects()
    with pytest.raises(Refused, match="nothing to commit"):
        bot.commit()
    assert bot.repo.count_objects() == before
    assert bot.commit(allow_empty=True).id == bot.repo.resolve("HEAD")


def test_no_element_changed_is_refused(bot: Bot) -> None:
    with pytest.raises(Refused, match="no element changed"):
        bot.commit(write_model(bot.models / "same", bot.base))
    assert "same" not in bot.recipe.read_text()


@pytest.mark.parametrize("message", [None, "", "  \n "])
def test_a_commit_without_a_message_is_a_usage_error(bot: Bot, message: str | None) -> None:
    bot.edit(lambda text: text + "# x\n")
    with pytest.raises(UsageError, match="message"):
        bot.repo.commit(message=message, author=at(1))
    path = bot.tune("listening", 1)
    with pytest.raises(UsageError, match="message"):
        bot.repo.commit(path, message=message, author=at(1))
    assert "listening" not in bot.recipe.read_text()


def test_amend_replaces_the_last_commit_and_keeps_its_message_and_author(grown: Bot) -> None:
    before = grown.repo["HEAD"]
    grown.repo.recipe.set("listening", alpha=0.5)
    grown.minute += 1
    result = grown.repo.commit(amend=True, author=at(50, name="Bob"))
    after = grown.repo["HEAD"]
    assert (after.parents, after.message, after.author) == (before.parents, before.message, before.author)
    assert after.commit.committer != before.commit.committer
    assert result.id == after.id != before.id
    assert grown.repo.resolve("HEAD@{1}") == before.id


def test_ids_are_written_whole_when_committed(grown: Bot) -> None:
    whole = grown.repo.vectors["listening"].id
    grown.edit(lambda text: text.replace(whole, whole[:9]) + "# x\n")
    grown.commit()
    assert whole in grown.recipe.read_text()
    assert "# x" in grown.recipe.read_text()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("alpha", "nan", "not a finite number"),
        ("alpha", float("inf"), "not a finite number"),
        ("alpha", "much", "not a number"),
        ("density", 0, r"not in \(0, 1\]"),
        ("density", "2", r"not in \(0, 1\]"),
        ("density", float("nan"), "not a finite number"),
        ("join", "sum", "vote, add"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_parameter(
    grown: Bot, key: str, value: object, words: str
) -> None:
    before = grown.recipe.read_bytes()
    with pytest.raises(InvalidInput, match=rf"^{key}: .*{words}"):
        grown.repo.recipe.set("listening", **{key: value})  # type: ignore[arg-type]
    assert grown.recipe.read_bytes() == before
    if key != "join":
        with pytest.raises(InvalidInput, match=words):
            grown.commit(grown.tune("late", 5), **{key: value})
        assert grown.recipe.read_bytes() == before


@pytest.mark.parametrize("written", ["nan", "inf", "1e60", '"x"'])
def test_alpha_by_file_is_refused_at_commit_and_at_checkout_with_its_line(grown: Bot, written: str) -> None:
    head = grown.repo.head()
    grown.edit(lambda text: text.replace("alpha = 0.7", f"alpha = {written}"))
    line = 1 + grown.recipe.read_text().split("\n").index(f"alpha = {written}")
    for act in (grown.commit, grown.repo.checkout, grown.repo.digest):
        with pytest.raises(InvalidInput, match=rf"^recipe\.toml:{line}: vectors\.listening\.alpha"):
            act()
    status = grown.repo.status()
    assert status.recipe_changed
    assert f"recipe.toml:{line}" in (status.problem or "")
    assert grown.repo.head() == head


def test_a_vector_of_another_base_is_refused_and_both_are_named(grown: Bot, tmp_path: Path) -> None:
    other = base_tensors(7)
    write_model(tmp_path / "other-base", other)
    Repository.init(tmp_path / "other", base=tmp_path / "other-base", author=at(), chunk=64)
    with Repository.open(tmp_path / "other", author=at(1)) as repo:
        stranger = repo.commit(write_model(tmp_path / "ft", tuned(other, 1)), message="x").vectors[0].id
        source = repo.root / ".persona" / "objects" / stranger[:2] / stranger[2:]
        target = grown.root / ".persona" / "objects" / stranger[:2]
        target.mkdir(exist_ok=True)
        (target / stranger[2:]).write_bytes(source.read_bytes())
    grown.edit(lambda text: text + f'\n[vectors.odd]\nid = "{stranger}"\n')
    for act in (grown.commit, grown.repo.checkout):
        with pytest.raises(InvalidInput, match=r"^recipe\.toml:\d+: vectors\.odd\.id: .*blake3:.*tiny"):
            act()


def test_an_unknown_vector_in_the_file_is_refused(grown: Bot) -> None:
    grown.edit(lambda text: text + '\n[vectors.odd]\nid = "0123456789"\n')
    with pytest.raises(InvalidInput, match=r"recipe\.toml:\d+: vectors\.odd\.id"):
        grown.commit()


def test_a_missing_recipe_is_named_and_can_be_restored(bot: Bot) -> None:
    bot.recipe.unlink()
    with pytest.raises(InvalidInput, match=r"repo\.restore\('recipe\.toml'\)"):
        bot.commit()
    assert bot.repo.status().problem is not None
    assert bot.repo.restore(["recipe.toml"]) == ("recipe.toml",)
    assert not bot.repo.status().recipe_changed


def test_names_come_from_the_path(bot: Bot) -> None:
    base = bot.base
    write_model(bot.models / "runs" / "polite" / "checkpoint-60", tuned(base, 1))
    write_model(bot.models / "kind", tuned(base, 2))
    (bot.models / "soft.safetensors").write_bytes((bot.models / "kind" / "model.safetensors").read_bytes())
    names = [
        bot.repo.add(bot.models / "runs" / "polite" / "checkpoint-60").vectors[0].name,
        bot.repo.add(bot.models / "kind" / "model.safetensors").vectors[0].name,
        bot.repo.add(bot.models / "soft.safetensors").vectors[0].name,
    ]
    assert names == ["polite", "kind", "soft"]


def test_add_edits_the_recipe_and_commits_nothing(bot: Bot) -> None:
    head = bot.repo.head()
    result = bot.repo.add(bot.tune("listening", 1), alpha="0.5")
    assert result.id is None
    assert bot.repo.head() == head
    assert bot.repo.status().recipe_changed
    assert bot.repo.diff().vectors[0].to["alpha"] == 0.5


def test_files_of_a_fine_tune_are_listed_and_taken_when_asked(bot: Bot) -> None:
    path = bot.tune("listening", 1, **{"chat_template.jinja": "other\n", "trainer.log": "…"})
    result = bot.repo.add(path)
    assert any("chat_template.jinja" in note and "files=True" in advised(note) for note in result.notes)
    assert not any("trainer.log" in note for note in result.notes)
    bot.repo.add(path, files=True)
    assert (bot.root / "chat_template.jinja").read_text() == "other\n"
    assert bot.repo.status().files_changed == ("chat_template.jinja",)


def test_a_negative_alpha_divided_by_weight_is_warned_of(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"preset": "mergekit"})
    assert any("suggesting" in note and "weight" in note for note in grown.commit().notes)


@pytest.mark.parametrize(
    ("alphas", "said"), [("0.5 0.5", True), ("0.5 0.6", False), ("0.9 -0.1", False), ("1 0", False)]
)
def test_alphas_that_are_only_ever_added_up_are_pointed_out_once(grown: Bot, alphas: str, said: bool) -> None:
    for name, alpha in zip(("listening", "suggesting"), alphas.split(), strict=True):
        grown.repo.recipe.set(name, alpha=alpha)
    notes = grown.commit().notes
    assert any("added, not averaged" in note and "alpha='1'" in advised(note) for note in notes) == said
    grown.repo.recipe.set("listening", density="0.7")
    assert not any("averaged" in note for note in grown.commit().notes)


def test_a_filter_says_that_it_drops_nothing_or_with_which_seed_it_draws(grown: Bot) -> None:
    def said() -> list[str]:
        return [note for note in grown.commit().notes if "trim = " in note]

    grown.repo.recipe.set_rules({"preset": "dare_ties", "density": 1})
    (nothing,) = said()
    assert "trim = dare drops nothing at density 1" in nothing
    assert "{'density': '0.5'}" in advised(nothing)
    grown.repo.recipe.set_rules({"density": 0.5, "seed": 7})
    (drawn,) = said()
    assert "at random, with seed 7," in drawn
    assert "{'seed': '8'}" in advised(drawn)
    grown.repo.recipe.set_rules({"lambda": 0.9})
    assert said() == []
    grown.repo.recipe.set_rules({"preset": "breadcrumbs"})
    assert said() == []


def test_set_rules_with_a_preset_starts_from_the_preset(bot: Bot) -> None:
    bot.repo.recipe.set_rules({"density": "0.2", "elect": "count"})
    bot.repo.recipe.set_rules({"preset": "linear"})
    bot.commit()
    rules = bot.repo["HEAD"].recipe.rules
    assert rules["preset"] == "linear"
    assert "density" not in rules
    with pytest.raises(InvalidInput, match=r"^density: the preset linear"):
        bot.repo.recipe.set_rules({"density": "0.2"})


def test_options_of_an_import_need_a_path(bot: Bot) -> None:
    with pytest.raises(UsageError, match="alpha"):
        bot.commit(alpha=1)


def test_a_term_is_removed_from_the_recipe_and_stays_in_history(grown: Bot) -> None:
    grown.repo.recipe.remove("suggesting")
    (change,) = grown.commit().vectors
    assert (change.name, change.change) == ("suggesting", "removed")
    assert "suggesting" in grown.repo["HEAD~1"].recipe.vectors
    with pytest.raises(UnknownName, match="suggesting"):
        grown.repo.recipe.remove("suggesting")


def test_commit_checkout_computes_the_weights_at_once(bot: Bot) -> None:
    bot.repo.config.set("commit.checkout", "true")
    result = bot.commit(bot.tune("listening", 1))
    assert result.checkout is not None
    assert np.array_equal(
        read_weights(bot.root)["model.norm.weight"], bot.tunes["listening"]["model.norm.weight"]
    )


@pytest.mark.parametrize("name", ["../x", "a/b", "-n", ".", "a" * 300, "f" * 64, "x\ny"])
def test_names_that_could_be_paths_or_options_are_refused(bot: Bot, name: str) -> None:
    with pytest.raises(PersonaError) as caught:
        bot.commit(bot.tune("listening", 1), name=name)
    assert caught.value.exit_code in (2, 4)
    assert not bot.repo.status().recipe_changed


def test_a_newer_format_is_read_and_never_written(grown: Bot) -> None:
    (grown.root / ".persona" / "format").write_text("persona 2\n")
    text = grown.recipe.read_text()
    with Repository.open(grown.root, author=at(9)) as repo:
        assert len(list(repo.log())) == 4
        assert repo.status().branch == "main"
        for change in (
            lambda: repo.recipe.set("listening", alpha=0.1),
            lambda: repo.checkout("HEAD~2"),
            lambda: repo.switch(create="x"),
            lambda: repo.reset("HEAD~1", "hard"),
            lambda: repo.commit(message="x", allow_empty=True),
            lambda: repo.revert("suggesting"),
        ):
            with pytest.raises(Refused, match="format 2"):
                change()
    assert grown.recipe.read_text() == text
    assert not (grown.root / "model.safetensors").exists()


def test_a_failed_init_leaves_no_repository(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(InvalidInput):
        Repository.init(tmp_path / "bot", base=tmp_path / "broken", author=at())
    assert not (tmp_path / "bot" / ".persona").exists()


def test_init_does_not_overwrite_what_lies_there(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny", base_tensors())
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "config.json").write_text("mine")
    with pytest.raises(Refused, match=r"config\.json"):
        Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at())
    assert (tmp_path / "bot" / "config.json").read_text() == "mine"
    assert not (tmp_path / "bot" / ".persona").exists()


def test_a_second_init_is_refused_and_one_cut_short_is_taken_up(
    bot: Bot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="already"):
        Repository.init(bot.root, base=tmp_path / "tiny", author=at())
    from persona.store.refs import Refs

    def cut(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Refs, "advance", cut)
        patch.setattr(init, "remove_tree", lambda _: None)
        with pytest.raises(SystemExit):
            Repository.init(tmp_path / "late", base=tmp_path / "tiny", author=at(), chunk=64)
    assert (tmp_path / "late" / ".persona").exists()
    Repository.init(tmp_path / "late", base=tmp_path / "tiny", author=at(), chunk=64)
    with Repository.open(tmp_path / "late") as repo:
        assert repo.head().id == repo.resolve("main")


def test_a_commit_makes_the_names_durable_of_what_it_only_mentions(grown: Bot) -> None:
    vector = grown.repo.add(grown.tune("rushing", 3)).vectors[0].id
    syncing = Syncing()
    with files.replaced_calls(syncing):
        grown.commit()
    assert vector[:2] in {path.name for path in syncing.synced}


def test_a_recipe_behind_a_link_is_read_and_never_replaced(grown: Bot) -> None:
    place = grown.models / "recipe of mine.toml"
    grown.recipe.rename(place)
    grown.recipe.symlink_to(place)
    before = place.read_bytes()
    for call in (
        lambda: grown.repo.recipe.set("listening", alpha=1),
        lambda: grown.repo.recipe.set_rules({"density": 0.5}),
        lambda: grown.repo.recipe.remove("listening"),
        lambda: grown.repo.add(grown.tune("late", 5)),
    ):
        with pytest.raises(Refused, match=r"symbolic link; edit .*recipe of mine\.toml"):
            call()
    assert grown.recipe.is_symlink()
    assert place.read_bytes() == before
    place.write_bytes(before.replace(b"alpha = 0.7", b"alpha = 0.8"))
    assert grown.commit().vectors == ()
    assert grown.repo["HEAD"].recipe.vectors["listening"].alpha == 0.8
    assert grown.recipe.is_symlink()


def test_a_restored_file_makes_the_names_of_its_directories_durable(grown: Bot) -> None:
    (grown.root / "graph" / "a").mkdir(parents=True)
    (grown.root / "graph" / "a" / "b.md").write_text("b\n")
    grown.commit()
    (grown.root / "graph" / "a" / "b.md").unlink()  # the directories stay, and nobody synced them
    syncing = Syncing()
    with files.replaced_calls(syncing):
        grown.repo.restore(["graph/a/b.md"])
    assert {grown.root, grown.root / "graph", grown.root / "graph" / "a"} <= syncing.synced
