"""Models that were trained again, or from a revision: no vector is added to weights that it does not fit."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import persona
from persona.history import note_refs
from persona.history.vectors import trained_from
from persona.objects.note import Note
from tests.advice import advice, follow
from tests.checkpoints import Model, write_weights
from tests.families import answers, loaded, same_answers
from tests.llamas import LlamaBot, a_few_ulps, floats

NEVER = "the computed weights will not be the trained ones"


def is_near(one: Model, other: Model) -> bool:
    """Whether two models differ by no more than a rounding or two."""
    gaps = (np.max(np.abs(floats(one[name]) - floats(other[name]))) for name in other)
    return one.keys() == other.keys() and max(gaps) < 2**-8


@pytest.fixture
def trained(bot: LlamaBot) -> Model:
    """The weights of `g`, which was trained from a commit of `f`. Nobody has imported `g` yet."""
    bot.tune("f", 1)
    bot.run.ok("commit", "../f", "-m", "f")
    bot.checkout()
    return write_g(bot, 2)


def write_g(bot: LlamaBot, seed: int, start: Model | None = None) -> Model:
    """A model of all elements in the work tree, or in `start`, moved by about 2 %."""
    random = np.random.default_rng(seed)
    found = {}
    for name, tensor in (start or bot.weights).items():
        steps = random.integers(1, 9, tensor.bits.shape).astype(tensor.bits.dtype)
        found[name] = type(tensor)(tensor.dtype, tensor.bits + steps)
    shutil.rmtree(bot.place / "g", ignore_errors=True)
    shutil.copytree(bot.place / "base", bot.place / "g")
    write_weights(bot.place / "g", found)
    return found


# -- a directory that was trained again


@pytest.mark.situation("the directory of a vector was trained again, and the vector has another name now")
@pytest.mark.parametrize("take", ["--name f-1", "--name f"])
def test_a_vector_that_was_renamed_is_not_joined_by_its_next_training(bot: LlamaBot, take: str) -> None:
    bot.tune("f", 1)
    bot.run.ok("commit", "../f", "-m", "f")
    bot.run.ok("mv", "f", "f-1")
    bot.run.ok("commit", "-m", "mv")
    shutil.rmtree(bot.place / "f")
    again = bot.tune("f", 2)
    before = bot.recipe.read_text()
    said = bot.run.refused(1, "commit", "../f", "-m", "again")
    assert "the vector f-1 comes from there too" in said
    assert bot.recipe.read_text() == before
    (flags,) = (flag for flag in advice(said, ["commit"]).flags if " ".join(flag) == take)
    bot.run.ok("commit", "../f", "-m", "again", *flags)
    bot.checkout()
    assert bot.holds(again) == (take == "--name f-1")
    assert len(bot.run.json("vector", "ls")) == (1 if take == "--name f-1" else 2)


def test_a_run_that_goes_on_under_a_name_of_its_own_is_no_second_vector(bot: LlamaBot) -> None:
    (bot.place / "run").mkdir()
    bot.tune("run/checkpoint-10", 1)
    bot.run.ok("commit", "../run/checkpoint-10", "-n", "mine", "-m", "x")
    again = bot.tune("run/checkpoint-20", 2)
    said = bot.run.refused(1, "commit", "../run/checkpoint-20", "-m", "x")
    assert "--name mine replaces it" in said
    bot.run.ok("commit", "../run/checkpoint-20", "-n", "mine", "-m", "x")
    bot.checkout()
    assert bot.holds(again)


# -- vectors of the revision

HALF = ("set", "f", "--alpha", "0.5")
MLP = ("set", "f", "--only", "*mlp*")
RULES = ("set", "--merge", "preset=ties", "density=0.1", "lambda=0.5")


@pytest.mark.situation("the recipe has a vector of REV with another α, density, filter or rule than REV")
@pytest.mark.parametrize("by", ["add", "commit"])
@pytest.mark.parametrize(
    ("edit", "words"),
    [(HALF, "f with another α"), (MLP, "f with another filter"), (RULES, "other merge rules")],
)
def test_a_vector_of_the_revision_with_other_settings_is_named(
    bot: LlamaBot, trained: Model, by: str, edit: tuple[str, ...], words: str
) -> None:
    bot.run.ok(*edit)
    bot.run.ok("commit", "-m", "edit")
    more = ("-m", "g") if by == "commit" else ()
    said = bot.run(by, "../g", "--onto", "HEAD~1", *more).stderr
    assert f"recipe.toml has {words} than HEAD~1: {NEVER}" in said
    for command in advice(said).commands:
        bot.run.ok(*command)
        bot.run.ok("commit", "-m", "as in REV")
        bot.checkout()
        assert is_near(bot.weights, trained)
    assert bool(advice(said).commands) == (edit == HALF)


def test_an_adapter_is_told_of_other_settings_too(bot: LlamaBot, trained: Model) -> None:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(loaded(bot.root), config).save_pretrained(bot.place / "ad")
    assert NEVER not in bot.run("add", "../ad", "--onto", "HEAD").stderr
    bot.run.ok("rm", "ad")
    bot.run.ok("set", "f", "--alpha", "0.5")
    assert f"f with another α than HEAD: {NEVER}" in bot.run("add", "../ad", "--onto", "HEAD").stderr


def test_settings_that_change_no_weight_are_not_named(bot: LlamaBot, trained: Model) -> None:
    bot.run.ok("set", "--merge", "preset=linear")
    bot.run.ok("mv", "f", "other")
    bot.run.ok("commit", "-m", "the same weights")
    assert NEVER not in bot.run("commit", "../g", "--onto", "HEAD~1", "-m", "g").stderr
    bot.checkout()
    assert is_near(bot.weights, trained)


def _again(bot: LlamaBot) -> str:
    shutil.rmtree(bot.place / "f")
    bot.tune("f", 3)
    return bot.run("commit", "../f", "-m", "again").stderr


@pytest.mark.situation("a vector is replaced or dropped, from which another one was trained (`--onto`)")
@pytest.mark.parametrize(
    ("drop", "gone"),
    [
        (_again, "the old f"),
        (lambda bot: bot.run("rm", "f").stderr, "f"),
        (lambda bot: bot.run("vector", "derive", "f", "2 * f").stderr, "the old f"),
        (lambda bot: bot.run("revert", "f").stderr, "f"),
        (lambda bot: bot.run("revert", "f", "--no-commit").stderr, "f"),
    ],
)
def test_a_vector_whose_ground_is_gone_is_named(
    bot: LlamaBot, trained: Model, drop: Callable[[LlamaBot], str], gone: str
) -> None:
    bot.run.ok("commit", "../g", "--onto", "HEAD", "-m", "g")
    said = drop(bot)
    assert f"g was trained from {gone}, which recipe.toml lacks: {NEVER}" in said


LOST = f"g was trained from f, which recipe.toml lacks: {NEVER}"


@pytest.fixture
def parted(bot: LlamaBot, trained: Model) -> Model:
    """A branch `both` with f and with g, which was trained from f's commit; on `main` f is reverted."""
    bot.run.ok("switch", "-c", "both")
    bot.run.ok("commit", "../g", "--onto", "HEAD", "-m", "g")
    bot.run.ok("branch", "alone")
    bot.run.ok("switch", "main")
    bot.run.ok("revert", "HEAD")
    bot.run.ok("switch", "both")
    return trained


def _delete_by_hand(bot: LlamaBot) -> None:
    text = bot.recipe.read_text()
    bot.recipe.write_text(text[: text.index("[vectors.f]")] + text[text.index("[vectors.g]") :])


def _by_hand(bot: LlamaBot) -> str:
    _delete_by_hand(bot)
    return bot.run("commit", "-m", "without f").stderr


def _stashed(bot: LlamaBot) -> str:
    _delete_by_hand(bot)
    assert NEVER not in bot.run("stash").stderr
    return bot.run("stash", "pop").stderr


def _restored(bot: LlamaBot) -> str:
    _delete_by_hand(bot)
    bot.run.ok("commit", "-m", "without f")
    bot.run.ok("restore", "recipe.toml", "--source", "HEAD~1")
    return bot.run("restore", "recipe.toml").stderr


def _moved(bot: LlamaBot, *command: str) -> str:
    bot.run.ok("switch", "alone")
    _delete_by_hand(bot)
    bot.run.ok("commit", "-m", "without f")
    said = bot.run("switch", "both").stderr + bot.run("switch", "--detach", "HEAD").stderr
    assert NEVER not in said
    return bot.run(*command).stderr


def _picked(bot: LlamaBot, *more: str) -> str:
    bot.run.ok("switch", "main")
    return bot.run("cherry-pick", "both", *more).stderr


def _squashed(bot: LlamaBot) -> str:
    return bot.run("merge", "main", "--squash").stderr


def _concluded(bot: LlamaBot) -> str:
    assert NEVER not in bot.run("merge", "main", "--no-commit").stderr
    return bot.run("merge", "--continue").stderr


def _taken(bot: LlamaBot) -> str:
    bot.run.ok("switch", "main")
    return bot.run("vector", "take", "g").stderr


@pytest.mark.situation(
    "a command leaves out the vector from which another vector of the recipe was trained"
    " (`revert`, `merge`, `cherry-pick`, `switch`)"
)
@pytest.mark.parametrize(
    "drop",
    [
        _by_hand,
        _stashed,
        _restored,
        _picked,
        _squashed,
        _concluded,
        _taken,
        lambda bot: _picked(bot, "--no-commit"),
        lambda bot: bot.run("revert", "HEAD~1").stderr,
        lambda bot: bot.run("revert", "HEAD~1", "--no-commit").stderr,
        lambda bot: bot.run("merge", "main").stderr,
        lambda bot: bot.run("rebase", "main").stderr,
        lambda bot: _moved(bot, "switch", "alone"),
        lambda bot: _moved(bot, "checkout", "alone"),
        lambda bot: _moved(bot, "reset", "--hard", "alone"),
        lambda bot: _moved(bot, "merge", "alone"),
    ],
)
def test_each_command_names_a_vector_whose_ground_it_leaves_out(
    bot: LlamaBot, parted: Model, drop: Callable[[LlamaBot], str]
) -> None:
    said = drop(bot)
    assert said.count(LOST) == 1
    ((command, *words),) = (one for one in advice(said).commands if one[0] == "vector")
    bot.checkout()
    assert not is_near(bot.weights, parted)
    assert NEVER not in bot.run(command, *words).stderr
    assert NEVER not in bot.run("commit", "-m", "both again", "--allow-empty").stderr
    bot.checkout()
    assert is_near(bot.weights, parted)
    want = answers(bot.place / "g")
    assert (answers(bot.root) - want).abs().max() <= 2e-2 * want.abs().max()


def test_a_vector_that_was_left_out_before_is_no_news(bot: LlamaBot, parted: Model) -> None:
    bot.run.ok("rm", "f")
    assert LOST in bot.run("commit", "-m", "without f").stderr
    for command in (
        ("set", "g", "--alpha", "0.5"),
        ("commit", "-m", "half"),
        ("commit", "--amend", "-m", "half of it"),
        ("switch", "main"),
        ("switch", "both"),
        ("checkout", "both"),
        ("revert", "HEAD"),
    ):
        assert NEVER not in bot.run(*command).stderr


def test_the_record_of_a_training_tells_it_too(
    bot: LlamaBot, trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vector of an earlier version has no note on the vectors that it was trained from."""
    with monkeypatch.context() as earlier:
        earlier.setattr(trained_from, "remember", lambda history, id, onto: None)
        bot.run.ok("commit", "../g", "--onto", "HEAD", "-m", "g")
    assert NEVER not in bot.run("rm", "f").stderr
    bot.run.ok("restore", "recipe.toml")
    onto = bot.run.ok("rev-parse", "HEAD~1").strip()
    with persona.open(bot.root) as repo:
        (id,) = (info.id for info in repo.vectors.values() if info.name == "g")
        note_refs.keep(repo._history, Note(id, "vector", "provenance", {"onto": onto}))
    assert LOST in bot.run("rm", "f").stderr


# -- how a vector joins


@pytest.mark.situation("a vector that was trained from REV is replaced by one that was trained from the base")
def test_a_vector_of_the_base_votes_although_the_one_before_did_not(bot: LlamaBot, trained: Model) -> None:
    bot.run.ok("commit", "../g", "--onto", "HEAD", "-m", "g")
    assert 'join = "add"' in bot.recipe.read_text()
    write_g(bot, 5, bot.base)
    said = bot.run("commit", "../g", "-m", "g from the base").stderr
    assert "g votes: only the old one was trained from a revision" in said
    again = bot.recipe.read_text()
    assert "join" not in again
    ((command, *words),) = advice(said).commands
    bot.checkout()
    voted = bot.weights
    bot.run.ok("rm", "g")
    bot.run.ok("add", "../g")
    bot.run.ok("commit", "-m", "as a new one", "--allow-empty")
    bot.checkout()
    assert bot.holds(voted)
    bot.run.ok(command, *words)
    assert 'join = "add"' in bot.recipe.read_text()


def test_a_join_that_the_user_chose_stays_and_is_named(bot: LlamaBot) -> None:
    bot.tune("f", 1)
    bot.run.ok("commit", "../f", "-m", "f")
    bot.run.ok("set", "f", "--join", "add")
    said = _again(bot)
    assert 'f does not vote, as before (join = "add")' in said
    assert 'join = "add"' in bot.recipe.read_text()
    ((command, *words),) = advice(said).commands
    bot.run.ok(command, *words)
    assert "join" not in bot.recipe.read_text()
    bot.run.ok("set", "f", "--alpha", "-1", "--join", "add")
    bot.run.ok("commit", "-m", "subtract")
    shutil.rmtree(bot.place / "f")
    bot.tune("f", 4)
    assert "vote" not in bot.run("commit", "../f", "-m", "again").stderr


# -- sparse patches


@pytest.fixture
def patch(bot: LlamaBot, trained: Model) -> Path:
    """The patch from the commit of `f` to that of `g`; HEAD is at `f`."""
    bot.run.ok("commit", "../g", "--onto", "HEAD", "-m", "g")
    bot.run.ok("export", "--patch", "HEAD~1..HEAD", "-o", "../p.safetensors")
    bot.run.ok("reset", "--hard", "HEAD~1")
    return bot.place / "p.safetensors"


@pytest.mark.situation("a sparse patch of persona's own was made from other weights than the base's")
def test_a_patch_is_only_taken_as_made_from_its_own_revision(
    bot: LlamaBot, trained: Model, patch: Path
) -> None:
    first = bot.run.ok("rev-parse", "HEAD~1").strip()
    said = bot.run.refused(1, "commit", "../p.safetensors", "-m", "p", "--onto", first)
    assert "the patch was made from the weights of" in said
    said = bot.run.refused(1, "commit", "../p.safetensors", "-m", "p")
    assert "not from those of the base" in said
    follow(bot.run, "commit", "../p.safetensors", "-m", "p", code=1)
    bot.checkout()
    assert is_near(bot.weights, trained)


def test_a_patch_from_weights_that_are_the_base_s_needs_no_flag(bot: LlamaBot) -> None:
    tuned = bot.tune("f", 1)
    bot.run.ok("commit", "../f", "-m", "f")
    bot.run.ok("set", "f", "--alpha", "0")
    bot.run.ok("commit", "-m", "f at 0")
    bot.run.ok("export", "--patch", "HEAD~2..HEAD~1", "-o", "../p.safetensors")
    bot.run.ok("reset", "--hard", "HEAD~2")
    assert bot.run("commit", "../p.safetensors", "-m", "p").stderr == ""
    bot.checkout()
    assert bot.holds(tuned)


def test_a_patch_of_a_vector_beside_others_names_what_the_recipe_lacks(bot: LlamaBot) -> None:
    mlp = bot.tune("f", 1, only="mlp")
    bot.run.ok("commit", "../f", "-m", "f")
    both = a_few_ulps(mlp, 2, only="self_attn")
    shutil.copytree(bot.place / "base", bot.place / "g")
    write_weights(bot.place / "g", both)
    bot.run.ok("commit", "../g", "--onto", "HEAD", "-m", "g")
    bot.run.ok("export", "--patch", "HEAD~1..HEAD", "-o", "../p.safetensors")
    bot.run.ok("reset", "--hard", "HEAD~2")
    said = bot.run("commit", "../p.safetensors", "-m", "p").stderr
    assert "recipe.toml lacks f of" in said
    bot.run.ok("commit", "../f", "-m", "f")
    bot.checkout()
    assert bot.holds(both)


def test_a_patch_from_a_commit_of_another_repository_is_taken_with_a_word(
    bot: LlamaBot, trained: Model, patch: Path
) -> None:
    other = LlamaBot(bot.place, type(bot.run)(bot.place / "other"))
    type(bot.run)(bot.place).ok("init", "other", "--base", "base")
    said = other.run("commit", "../p.safetensors", "-m", "p").stderr
    assert "which is not here: it was taken as made from the base" in said
    other.run.ok("reset", "--hard", "HEAD~1")
    other.run.ok("commit", "../f", "-m", "f in another repository")
    said = other.run("commit", "../p.safetensors", "-m", "p", "--onto", "HEAD").stderr
    assert "it was taken as made from the revision that was given" in said
    other.checkout()
    assert is_near(other.weights, trained)


# -- the config


@pytest.mark.situation(
    "its `config.json` has other values on which outputs depend (`rope_theta`, `rms_norm_eps`)"
)
def test_a_config_that_the_model_needs_is_named(bot: LlamaBot) -> None:
    bot.tune("f", 1)
    path = bot.place / "f" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"rms_norm_eps": 0.5, "use_cache": False}))
    said = bot.run("add", "../f").stderr
    assert "with which the model computes something else (rms_norm_eps 1e-06 → 0.5)" in said
    (flags,) = advice(said, ["add"]).flags
    bot.run.ok("add", "../f", *flags)
    bot.checkout()
    assert same_answers(bot.root, bot.place / "f")
