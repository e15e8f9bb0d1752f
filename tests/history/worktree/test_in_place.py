"""Weights that were trained in the work tree, and commits that compute weights at once."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from persona.errors import InvalidInput, Note, Refused, SystemFault, UsageError, worded
from persona.history.results import CommitResult
from persona.repository import Repository
from persona.store import files
from tests.checkpoints import same, write_model
from tests.disks import Refusing
from tests.history.bots import Bot, advised, read_weights, tuned


def train(bot: Bot, seed: int = 9) -> None:
    """Changes the weights in the work tree as a training run would."""
    texts = {"config.json": (bot.root / "config.json").read_text()}
    write_model(bot.root, tuned(read_weights(bot.root), seed), **texts)


def test_a_commit_says_that_it_does_not_hold_weights_edited_by_hand(grown: Bot) -> None:
    grown.checkout()
    grown.edit(lambda text: text + "# one\n")
    assert grown.commit().notes == ()
    computed_for = grown.repo.resolve("HEAD~1")
    train(grown)
    with pytest.raises(Refused, match=rf"(?s)nothing to commit.*onto='{computed_for[:8]}'"):
        grown.commit()
    grown.edit(lambda text: text + "# two\n")
    (note,) = grown.commit().notes
    assert isinstance(note, Note)
    assert f"`repo.commit('.', name=NAME, onto='{computed_for[:8]}')`" in worded(note.hint or "")
    made = grown.commit(grown.root, name="night", onto=computed_for[:8])
    assert [vector.name for vector in made.vectors] == ["night"]
    assert not any("edited by hand" in note for note in made.notes)


def test_weights_are_taken_only_onto_the_revision_that_they_were_computed_for(grown: Bot) -> None:
    grown.checkout("HEAD~1")
    grown.repo.switch("main")
    train(grown)
    right, wrong = grown.repo.resolve("main~1")[:8], grown.repo.resolve("main")[:8]
    for onto in ("HEAD", wrong, "base", "HEAD~2"):
        with pytest.raises(Refused, match=rf"for {right}, not for {onto}\nhint: give onto='{right}'"):
            grown.repo.add(grown.root, name="night", onto=onto)
    assert "night" not in grown.recipe.read_text()
    grown.repo.add(grown.root, name="night", onto=right)


@pytest.mark.parametrize("onto", ["base", "HEAD~3"])
def test_weights_of_the_base_are_taken_onto_the_base(grown: Bot, onto: str) -> None:
    grown.repo.checkout("HEAD~3")
    grown.repo.switch("main")
    train(grown)
    grown.repo.add(grown.root, name="night", onto=onto)


def test_weights_of_a_recipe_that_no_commit_holds_need_that_commit_first(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=0.3)
    grown.checkout()
    train(grown)
    with pytest.raises(Refused, match="commit that recipe first"):
        grown.repo.add(grown.root, name="night", onto="HEAD")
    grown.commit()
    grown.repo.add(grown.root, name="night", onto="HEAD")


def test_a_work_tree_without_weights_cannot_be_imported(grown: Bot) -> None:
    with pytest.raises(UsageError, match="no weights lie in it"):
        grown.repo.add(grown.root, name="night", onto="HEAD")


def test_a_checkout_says_that_computed_weights_took_the_place_of_trained_ones(grown: Bot) -> None:
    grown.checkout()
    train(grown)
    trained = read_weights(grown.root)
    kept = grown.commit(grown.root, name="night", onto="HEAD").notes
    assert any("to keep the trained bytes, copy the files first" in note for note in kept)
    said = "computed weights replaced those that were trained here for night"
    assert said in grown.repo.checkout().notes
    assert not same(read_weights(grown.root), trained)
    assert said not in grown.repo.checkout().notes


def test_a_checkout_that_gives_the_trained_bytes_says_nothing(bot: Bot) -> None:
    bot.checkout()
    train(bot)
    trained = read_weights(bot.root)
    bot.commit(bot.root, name="night", onto="base")
    assert bot.repo.checkout().notes == ()
    assert same(read_weights(bot.root), trained)


# -- commit.checkout -----------------------------------------------------------------------------------------

Act = Callable[[Bot], CommitResult]


def by_commit(bot: Bot) -> CommitResult:
    bot.edit(lambda text: text + "#\n")
    return bot.commit()


def by_import(bot: Bot) -> CommitResult:
    return bot.commit(bot.tune("third", 3))


def by_revert(bot: Bot) -> CommitResult:
    return bot.repo.revert("HEAD")


each_act = pytest.mark.parametrize("act", [by_commit, by_import, by_revert])


@each_act
def test_weights_edited_by_hand_are_refused_before_a_commit_that_would_overwrite_them(
    grown: Bot, act: Act
) -> None:
    grown.checkout()
    train(grown)
    trained, head = read_weights(grown.root), grown.repo.resolve("HEAD")
    grown.repo.config.set("commit.checkout", "true")
    with pytest.raises(Refused, match=r"model\.safetensors"):
        act(grown)
    assert grown.repo.resolve("HEAD") == head
    assert same(read_weights(grown.root), trained)


@each_act
def test_a_commit_stands_where_its_weights_cannot_be_computed(grown: Bot, act: Act) -> None:
    grown.repo.config.set("commit.checkout", "true")
    (grown.root / "other.safetensors").write_bytes(b"")
    made = act(grown)
    assert made.id == grown.repo.resolve("HEAD")
    assert isinstance(made.failure, Refused)
    assert made.checkout is None
    (grown.root / "other.safetensors").unlink()
    grown.edit(lambda text: text + "#\n")
    made = grown.commit()
    assert made.failure is None
    assert made.checkout is not None
    assert made.checkout.weights == grown.repo.digest("HEAD").weights


def test_a_commit_stands_where_its_weights_are_not_finite(grown: Bot) -> None:
    grown.repo.config.set("commit.checkout", "true")
    huge = {name: np.full_like(bits, 0x7F7F) for name, bits in grown.base.items()}
    grown.repo.recipe.set_rules({"preset": "linear"})
    made = grown.commit(write_model(grown.models / "huge", huge), alpha=100)
    assert made.id == grown.repo.resolve("HEAD")
    assert isinstance(made.failure, InvalidInput)


def unwritten_weights(bot: Bot, error: BaseException) -> Refusing:
    """A disk on which the file for new weights cannot be opened."""
    return Refusing(
        "open", error, lambda path: Path(path).name.startswith(".persona-") and Path(path).parent == bot.root
    )


def test_a_commit_stands_where_there_is_no_room_for_its_weights(grown: Bot) -> None:
    full = unwritten_weights(grown, OSError(errno.ENOSPC, "No space left on device"))
    grown.repo.config.set("commit.checkout", "true")
    grown.edit(lambda text: text + "#\n")
    with files.replaced_calls(full):
        made = grown.commit()
    assert made.id == grown.repo.resolve("HEAD")
    assert isinstance(made.failure, SystemFault)


def test_training_in_place_is_committed_and_computed_at_once(grown: Bot) -> None:
    grown.checkout()
    train(grown)
    grown.repo.config.set("commit.checkout", "true")
    made = grown.commit(grown.root, name="night", onto="HEAD")
    assert made.failure is None
    with Repository.open(grown.root) as again:
        assert again.status().weights.state == "clean"


def test_a_commit_is_named_when_its_weights_are_interrupted(grown: Bot) -> None:
    interrupted = unwritten_weights(grown, KeyboardInterrupt())
    grown.repo.config.set("commit.checkout", "true")
    grown.edit(lambda text: text + "#\n")
    with files.replaced_calls(interrupted), pytest.raises(KeyboardInterrupt), pytest.warns() as warnings:
        grown.commit()
    assert grown.repo.resolve("HEAD")[:8] in str(warnings[-1].message)


def test_taking_trained_weights_in_says_that_a_checkout_replaces_their_bytes(grown: Bot) -> None:
    grown.checkout()
    train(grown)
    made = grown.repo.add(grown.root, name="night", onto="HEAD")
    assert any("may differ from them by a rounding" in note for note in made.notes)
    grown.commit()
    train(grown, 10)  # on and on: nobody knows any more from which revision
    state = grown.repo.status().weights
    assert (state.state, state.revision) == ("edited", None)
    grown.edit(lambda text: text + "#\n")
    assert "onto=REV" in advised(grown.commit().notes[-1])


def test_in_a_copy_the_word_of_the_user_is_taken(grown: Bot, tmp_path: Path) -> None:
    grown.checkout()
    shutil.copytree(grown.root, tmp_path / "copy")
    with Repository.open(tmp_path / "copy", author=grown.now()) as repo:
        copy = Bot(repo, grown.models, grown.base)
        train(copy)
        copy.repo.add(copy.root, name="night", onto="HEAD~1")


def test_weights_that_a_trainer_saved_under_another_name_are_taken_in_and_stay(grown: Bot) -> None:
    for computed in (False, True):
        if computed:
            grown.checkout()
        made = write_model(grown.models / "made", tuned(grown.base, 9 + computed))
        path = grown.root / f"epoch{computed:d}.safetensors"
        shutil.copy(made / "model.safetensors", path)
        with pytest.raises(UsageError, match=r"(?s)epoch\d\.safetensors lies in the work tree.*onto='base'"):
            grown.repo.add(path)
        added = grown.repo.add(path, name=path.stem, onto="base")
        assert not any("next checkout" in note for note in added.notes)
        assert grown.repo.status().weights.state == ("stale" if computed else "absent")
        shutil.move(path, grown.models / path.name)
