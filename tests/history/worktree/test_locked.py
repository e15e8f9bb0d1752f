"""A move of text files: in place while HEAD follows, taken back where it does not."""

from __future__ import annotations

import pytest

from persona.errors import BusyError, Refused
from persona.history.worktree.changing import changing
from persona.history.worktree.move import plan_files, read_move
from tests.history.bots import Bot

TEMPLATE = "chat_template.jinja"


def test_the_files_of_a_move_are_in_place_inside_and_stay_once_head_has_moved(grown: Bot) -> None:
    history, head = grown.repo._history, grown.repo.resolve()
    to = grown.repo.resolve("HEAD~1")
    with changing(history) as tree:
        move = plan_files(history, to, force=False)
        with tree.moving(move):
            assert read_move(history) == {"from": head, "to": to}
            assert grown.recipe.read_bytes() == history.blob(history.files_of(to)["recipe.toml"])
            tree.advance(to, grown.now(), "test", expect=head)
    assert read_move(history) is None
    assert (grown.repo.resolve(), grown.repo.status().recipe_changed) == (to, False)


def test_a_move_that_head_does_not_follow_is_taken_back_at_once(grown: Bot) -> None:
    history, before = grown.repo._history, grown.recipe.read_bytes()
    to = grown.repo.resolve("HEAD~1")
    with changing(history) as tree:
        move = plan_files(history, to, force=False)
        with pytest.raises(BusyError, match="moved meanwhile"), tree.moving(move):
            tree.advance(to, grown.now(), "test", expect=to)
    assert (grown.recipe.read_bytes(), read_move(history)) == (before, None)
    assert not grown.repo.status().recipe_changed


def test_a_file_that_was_edited_meanwhile_stops_an_edit_of_several(grown: Bot) -> None:
    history = grown.repo._history
    with changing(history) as tree:
        recipe, seen = grown.recipe.read_bytes(), history.files_of(grown.repo.resolve())
        (grown.root / TEMPLATE).write_text("mine\n")
        with pytest.raises(Refused, match=f"{TEMPLATE}: edited while this command was running"):
            tree.apply({"recipe.toml": b"theirs\n", TEMPLATE: b"theirs\n"}, seen)
    assert (grown.recipe.read_bytes(), (grown.root / TEMPLATE).read_text()) == (recipe, "mine\n")


def test_one_tree_is_locked_at_a_time(grown: Bot) -> None:
    with changing(grown.repo._history), pytest.raises(BusyError), changing(grown.repo._history):
        pass


def test_nothing_changes_through_a_tree_whose_lock_is_released(grown: Bot) -> None:
    with changing(grown.repo._history) as tree:
        pass
    before = grown.recipe.read_bytes()
    with pytest.raises(AssertionError, match="released"):
        tree.apply({"recipe.toml": None}, grown.repo._history.files_of(grown.repo.resolve()))
    assert grown.recipe.read_bytes() == before
