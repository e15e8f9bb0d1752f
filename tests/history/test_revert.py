"""revert: one commit's change taken back key by key, or a behaviour dropped."""

from __future__ import annotations

import pytest

from persona.errors import Refused, UnknownName, UnknownRevision, UsageError
from tests.history.conftest import Bot


def test_reverting_the_last_commit_gives_the_text_before_it(grown: Bot) -> None:
    history = grown.repo._history
    before = history.blob(history.files_of(grown.repo.resolve("HEAD~1"))["recipe.toml"])
    result = grown.repo.revert("HEAD", author=grown.now())
    assert grown.recipe.read_bytes() == before
    assert grown.repo.entry().message == (
        f'Revert "a little less"\n\nThis reverts commit {result.parents[0]}.\n'
    )
    assert grown.repo.digest("HEAD").weights == grown.repo.digest("HEAD~2").weights


def test_an_earlier_commit_is_reverted_whatever_else_came_after(grown: Bot) -> None:
    grown.edit(lambda text: "# mine\n" + text)
    grown.commit()
    result = grown.repo.revert("HEAD~2", author=grown.now())
    assert set(grown.repo.entry().recipe.vectors) == {"listening"}
    assert [(change.name, change.change) for change in result.vectors] == [("suggesting", "removed")]
    assert grown.recipe.read_text().startswith("# mine\n")


def test_a_reverted_removal_brings_the_term_back_as_it_was(grown: Bot) -> None:
    before = grown.repo.entry().recipe.vectors["suggesting"]
    grown.repo.remove_term("suggesting")
    grown.commit()
    grown.repo.set_term("listening", alpha=0.1)
    grown.commit()
    grown.repo.revert("HEAD~1", author=grown.now())
    assert grown.repo.entry().recipe.vectors["suggesting"] == before


def test_another_key_of_the_same_term_is_no_conflict(grown: Bot) -> None:
    grown.repo.set_term("listening", density=0.5)
    grown.commit()
    grown.repo.revert("HEAD~1", author=grown.now())
    term = grown.repo.entry().recipe.vectors["listening"]
    assert (term.alpha, term.density) == (1.0, 0.5)


def test_rules_are_reverted_axis_by_axis(grown: Bot) -> None:
    grown.repo.set_rules({"density": "0.2"})
    grown.commit()
    grown.repo.set_rules({"lambda": "0.9"})
    grown.commit()
    grown.repo.revert("HEAD~1", author=grown.now())
    rules = grown.repo.entry().recipe.rules
    assert (rules["density"], rules["lambda"]) == (1.0, 0.9)


@pytest.mark.parametrize("target", ["HEAD~1", "HEAD~3"])
def test_a_later_change_of_the_same_key_is_a_conflict_with_both_sides(grown: Bot, target: str) -> None:
    grown.repo.set_term("listening", alpha=0.3)
    grown.commit()
    before, head = grown.recipe.read_bytes(), grown.repo.head()
    with pytest.raises(Refused, match=r"vectors\.listening\.alpha: .*now"):
        grown.repo.revert(target, author=grown.now())
    assert (grown.recipe.read_bytes(), grown.repo.head()) == (before, head)


def test_a_changed_text_file_is_reverted_and_conflicts_whole(grown: Bot) -> None:
    template = grown.root / "chat_template.jinja"
    template.write_text("one\n")
    grown.commit()
    grown.repo.set_term("listening", alpha=0.3)
    grown.commit()
    grown.repo.revert("HEAD~1", author=grown.now())
    assert template.read_text() == "hello\n"
    template.write_text("two\n")
    grown.commit()
    with pytest.raises(Refused, match=r"chat_template\.jinja"):
        grown.repo.revert("HEAD~3", author=grown.now())


def test_a_name_drops_its_term_whatever_came_after(grown: Bot) -> None:
    result = grown.repo.revert("listening", author=grown.now())
    assert set(grown.repo.entry().recipe.vectors) == {"suggesting"}
    assert result.subject == 'Revert vector "listening"'
    with pytest.raises(UnknownRevision, match="neither"):
        grown.repo.revert("listening", author=grown.now())
    with pytest.raises(UnknownName):
        grown.repo.revert("listening", vector=True, author=grown.now())


def test_a_name_that_is_a_branch_too_has_to_be_said(grown: Bot) -> None:
    grown.repo.create_branch("listening", author=grown.now())
    with pytest.raises(UsageError, match="--vector listening"):
        grown.repo.revert("listening", author=grown.now())
    grown.repo.revert("listening", vector=True, author=grown.now())
    assert set(grown.repo.entry().recipe.vectors) == {"suggesting"}


def test_no_commit_leaves_the_change_in_the_work_tree(grown: Bot) -> None:
    head = grown.repo.head()
    result = grown.repo.revert("suggesting", no_commit=True)
    assert (result.id, grown.repo.head()) == (None, head)
    assert [change.change for change in result.vectors] == ["removed"]
    assert grown.repo.status().recipe_changed


def test_what_cannot_be_reverted_is_said(grown: Bot) -> None:
    with pytest.raises(Refused, match="first commit"):
        grown.repo.revert("HEAD~3", author=grown.now())
    grown.repo.revert("HEAD", author=grown.now())
    with pytest.raises(Refused, match="undone already"):
        grown.repo.revert("HEAD~1", author=grown.now())
    grown.edit(lambda text: text + "# mine\n")
    with pytest.raises(Refused, match=r"recipe\.toml: edited"):
        grown.repo.revert("HEAD", author=grown.now())
