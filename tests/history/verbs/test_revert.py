"""revert: one commit's change taken back key by key, or a behaviour dropped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from persona.errors import Conflicted, IntegrityError, Refused, UnknownName, UnknownRevision, UsageError
from persona.history.recipes.three_way import merge_lines
from tests.history.bots import Bot


def test_reverting_the_last_commit_gives_the_text_before_it(grown: Bot) -> None:
    history = grown.repo._history
    before = history.blob(history.files_of(grown.repo.resolve("HEAD~1"))["recipe.toml"])
    result = grown.repo.revert("HEAD")
    assert grown.recipe.read_bytes() == before
    assert grown.repo["HEAD"].message == (
        f'Revert "a little less"\n\nThis reverts commit {result.parents[0]}.\n'
    )
    assert grown.repo.digest("HEAD").weights == grown.repo.digest("HEAD~2").weights


def test_an_earlier_commit_is_reverted_whatever_else_came_after(grown: Bot) -> None:
    grown.edit(lambda text: "# mine\n" + text)
    grown.commit()
    result = grown.repo.revert("HEAD~2")
    assert set(grown.repo["HEAD"].recipe.vectors) == {"listening"}
    assert [(change.name, change.change) for change in result.vectors] == [("suggesting", "removed")]
    assert grown.recipe.read_text().startswith("# mine\n")


def test_a_reverted_removal_brings_the_term_back_as_it_was(grown: Bot) -> None:
    before = grown.repo["HEAD"].recipe.vectors["suggesting"]
    grown.repo.recipe.remove("suggesting")
    grown.commit()
    grown.repo.recipe.set("listening", alpha=0.1)
    grown.commit()
    grown.repo.revert("HEAD~1")
    assert grown.repo["HEAD"].recipe.vectors["suggesting"] == before


def test_another_key_of_the_same_term_is_no_conflict(grown: Bot) -> None:
    grown.repo.recipe.set("listening", density=0.5)
    grown.commit()
    grown.repo.revert("HEAD~1")
    term = grown.repo["HEAD"].recipe.vectors["listening"]
    assert (term.alpha, term.density) == (1.0, 0.5)


def test_rules_are_reverted_axis_by_axis(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"density": "0.2"})
    grown.commit()
    grown.repo.recipe.set_rules({"lambda": "0.9"})
    grown.commit()
    grown.repo.revert("HEAD~1")
    rules = grown.repo["HEAD"].recipe.rules
    assert (rules["density"], rules["lambda"]) == (1.0, 0.9)


@pytest.mark.parametrize("target", ["HEAD~1", "HEAD~3"])
def test_a_later_change_of_the_same_key_is_a_conflict_with_both_sides(grown: Bot, target: str) -> None:
    grown.repo.recipe.set("listening", alpha=0.3)
    grown.commit()
    before, head = grown.recipe.read_bytes(), grown.repo.head()
    with pytest.raises(Conflicted, match=r"vectors\.listening\.alpha: .*now"):
        grown.repo.revert(target)
    assert grown.repo.head() == head
    assert "# <<<<<<< HEAD: vectors.listening" in grown.recipe.read_text()
    grown.repo.revert(abort=True)
    assert (grown.recipe.read_bytes(), grown.repo.head()) == (before, head)


def test_a_changed_text_file_is_reverted_and_conflicts_whole(grown: Bot) -> None:
    template = grown.root / "chat_template.jinja"
    template.write_text("one\n")
    grown.commit()
    grown.repo.recipe.set("listening", alpha=0.3)
    grown.commit()
    grown.repo.revert("HEAD~1")
    assert template.read_text() == "hello\n"
    template.write_text("two\n")
    grown.commit()
    with pytest.raises(Refused, match=r"chat_template\.jinja"):
        grown.repo.revert("HEAD~3")


def test_a_name_drops_its_term_whatever_came_after(grown: Bot) -> None:
    result = grown.repo.revert("listening")
    assert set(grown.repo["HEAD"].recipe.vectors) == {"suggesting"}
    assert result.subject == 'Revert vector "listening"'
    with pytest.raises(UnknownRevision, match="neither"):
        grown.repo.revert("listening")
    with pytest.raises(UnknownName):
        grown.repo.revert("listening", vector=True)


def test_a_name_that_is_a_branch_too_has_to_be_said(grown: Bot) -> None:
    grown.repo.branches.create("listening")
    with pytest.raises(UsageError, match=r"revert\('listening', vector=True\)"):
        grown.repo.revert("listening")
    grown.repo.revert("listening", vector=True)
    assert set(grown.repo["HEAD"].recipe.vectors) == {"suggesting"}


def test_no_commit_leaves_the_change_in_the_work_tree(grown: Bot) -> None:
    head = grown.repo.head()
    result = grown.repo.revert("suggesting", no_commit=True)
    assert (result.id, grown.repo.head()) == (None, head)
    assert [change.change for change in result.vectors] == ["removed"]
    assert grown.repo.status().recipe_changed


def test_what_cannot_be_reverted_is_said(grown: Bot) -> None:
    with pytest.raises(Refused, match="first commit"):
        grown.repo.revert("HEAD~3")
    grown.repo.revert("HEAD")
    with pytest.raises(Refused, match="undone already"):
        grown.repo.revert("HEAD~1")
    grown.edit(lambda text: text + "# mine\n")
    with pytest.raises(Refused, match=r"uncommitted edits .*: recipe\.toml"):
        grown.repo.revert("HEAD")


def change(bot: Bot, *edits: Callable[[], object]) -> None:
    """Edits, each in a commit of its own."""
    for edit in edits:
        edit()
        bot.commit()


def replaced(bot: Bot, old: str, new: str) -> Callable[[], None]:
    """An edit of recipe.toml by hand."""
    return lambda: bot.edit(lambda text: text.replace(old, new, 1))


def test_an_axis_comes_back_to_its_value_and_not_to_that_of_a_later_preset(grown: Bot) -> None:
    set_rules = grown.repo.recipe.set_rules
    change(grown, lambda: set_rules({"density": "0.5"}), lambda: set_rules({"preset": "paper"}))
    grown.repo.revert("HEAD~1")
    rules = grown.repo["HEAD"].recipe.rules
    assert (rules["preset"], rules["density"]) == ("paper", 1.0)
    change(grown, lambda: set_rules({"density": "0.2"}), lambda: set_rules({"preset": "joint"}))
    grown.repo.revert("HEAD~1")
    rules = grown.repo["HEAD"].recipe.rules
    assert (rules["preset"], rules["density"]) == ("joint", 1.0)


def test_a_preset_goes_without_an_axis_that_was_set_after_it(grown: Bot) -> None:
    set_rules = grown.repo.recipe.set_rules
    change(grown, lambda: set_rules({"preset": "paper"}), lambda: set_rules({"density": "0.5"}))
    grown.repo.revert("HEAD~1")
    rules = grown.repo["HEAD"].recipe.rules
    assert (rules["preset"], rules["density"], rules["on_tie"]) == ("ties", 0.5, "drop")


def test_a_comment_comes_and_goes_with_its_commit(grown: Bot) -> None:
    before = grown.recipe.read_text()
    change(
        grown,
        replaced(grown, "[vectors.suggesting]", "# by Bob, do not touch\n[vectors.suggesting]"),
        lambda: grown.repo.recipe.set("suggesting", alpha="-0.25"),
    )
    grown.repo.revert("HEAD~1")
    assert "Bob" not in grown.recipe.read_text()
    grown.repo.revert("HEAD~1")
    assert grown.recipe.read_text() == before
    grown.repo.revert("HEAD~1")
    assert "# by Bob, do not touch\n[vectors.suggesting]" in grown.recipe.read_text()


def test_value_and_comment_of_one_commit_both_go_and_later_ones_stay(grown: Bot) -> None:
    def tuned() -> None:
        grown.repo.recipe.set("listening", alpha="0.3")
        replaced(grown, "[vectors.listening]", "# tuned\n[vectors.listening]")()

    change(
        grown,
        tuned,
        replaced(grown, "[merge]", "# rules\n[merge]"),
        lambda: grown.repo.recipe.set("listening", density="0.5"),
    )
    grown.repo.revert("HEAD~2")
    text, term = grown.recipe.read_text(), grown.repo["HEAD"].recipe.vectors["listening"]
    assert ("# tuned" in text, "# rules" in text, term.alpha, term.density) == (False, True, 0.7, 0.5)


def test_a_comment_that_was_written_again_is_not_called_undone(grown: Bot) -> None:
    change(grown, replaced(grown, "[merge]", "# mine\n[merge]"), replaced(grown, "# mine", "# theirs"))
    with pytest.raises(Refused, match=r"nothing to revert: .* written again since"):
        grown.repo.revert("HEAD~1")
    assert "# theirs" in grown.recipe.read_text()


def test_a_commit_without_a_change_is_said_to_have_none(grown: Bot) -> None:
    grown.commit(allow_empty=True)
    with pytest.raises(Refused, match="changed no file"):
        grown.repo.revert("HEAD")


def test_a_density_that_cannot_come_back_is_a_conflict(grown: Bot) -> None:
    change(
        grown,
        lambda: grown.repo.recipe.set("listening", density="0.5"),
        lambda: grown.repo.recipe.remove("listening"),
        lambda: grown.repo.recipe.set_rules({"preset": "linear"}),
    )
    with pytest.raises(Refused, match=r"vector listening: density: the recipe trims nothing"):
        grown.repo.revert("HEAD~1")


def test_a_conflict_shows_values_on_every_side(grown: Bot) -> None:
    change(
        grown,
        lambda: grown.repo.recipe.set("listening", density="0.5", only=["*mlp*"]),
        lambda: grown.repo.recipe.set("listening", density="0.2", only=["*embed*", "*norm*"]),
    )
    with pytest.raises(Refused) as refused:
        grown.repo.revert("HEAD~1")
    assert refused.value.message.split("\n")[1:] == [
        "  vectors.listening.density: 0.5 by that commit, 0.2 now, unset before",
        "  vectors.listening.only: [*mlp*] by that commit, [*embed*, *norm*] now, unset before",
    ]


def test_a_renamed_vector_gets_its_old_name_and_keeps_what_came_later(grown: Bot) -> None:
    change(
        grown,
        lambda: grown.repo.recipe.rename("listening", "hearing"),
        lambda: grown.repo.recipe.set("hearing", alpha="0.1"),
    )
    grown.repo.revert("HEAD~1")
    vectors = grown.repo["HEAD"].recipe.vectors
    assert set(vectors) == {"listening", "suggesting"}
    assert vectors["listening"].alpha == 0.1


def test_a_vector_that_was_renamed_since_is_followed(grown: Bot) -> None:
    change(
        grown,
        lambda: grown.repo.recipe.set("listening", alpha="0.1"),
        lambda: grown.repo.recipe.rename("listening", "hearing"),
    )
    grown.repo.revert("HEAD~1")
    assert grown.repo["HEAD"].recipe.vectors["hearing"].alpha == 0.7
    change(
        grown, lambda: grown.repo.recipe.rename("hearing", "c"), lambda: grown.repo.recipe.rename("c", "d")
    )
    with pytest.raises(Refused, match=r"vectors\.d\.name: c by that commit, d now, hearing before"):
        grown.repo.revert("HEAD~1")


def test_a_removed_vector_does_not_come_back_beside_itself(grown: Bot) -> None:
    block = grown.recipe.read_text()[grown.recipe.read_text().index("[vectors.suggesting]") :]
    change(
        grown,
        lambda: grown.repo.recipe.remove("suggesting"),
        lambda: grown.edit(lambda text: text + "\n" + block.replace("suggesting", "again")),
    )
    with pytest.raises(Refused, match=r"vectors\.again\.name"):
        grown.repo.revert("HEAD~1")


def test_lines_of_a_text_file_are_reverted_each_for_itself(grown: Bot) -> None:
    template = grown.root / "chat_template.jinja"
    lines = [f"line {number}\n" for number in range(9)]

    def write(at: int, text: str) -> Callable[[], None]:
        lines[at] = text
        content = "".join(lines)
        return lambda: template.write_text(content) and None

    change(grown, write(0, "line 0\n"), write(1, "one\n"), write(7, "seven\n"))
    grown.repo.revert("HEAD~1")
    assert template.read_text().splitlines()[1:8:6] == ["line 1", "seven"]
    change(grown, write(3, "three\n"), write(4, "four\n"))
    with pytest.raises(Refused, match=r"chat_template\.jinja: lines .* changed again since"):
        grown.repo.revert("HEAD~1")


def test_a_merged_file_of_json_stays_json(grown: Bot) -> None:
    config = grown.root / "config.json"
    texts = ['{\n"a": 1,\n"b": 2\n}\n', '{\n"a": 1,\n\n"b": 2,\n"c": 3\n}\n', '{\n\n"c": 3\n}\n']
    change(grown, *((lambda text=text: config.write_text(text)) for text in texts))
    with pytest.raises(Refused, match=r"config\.json"):
        grown.repo.revert("HEAD~1")


def test_a_file_does_not_come_back_where_a_directory_is_now(grown: Bot) -> None:
    graph = grown.root / "graph"
    graph.mkdir()

    def there() -> None:
        (graph / "a").write_text("a\n")

    def directory() -> None:
        (graph / "a").mkdir()
        (graph / "a" / "b.md").write_text("b\n")

    change(grown, there, lambda: (graph / "a").unlink(), directory)
    with pytest.raises(Refused, match=r"graph/a: .* a directory that holds graph/a/b\.md"):
        grown.repo.revert("HEAD~1")
    assert (graph / "a" / "b.md").read_text() == "b\n"


def test_a_prepared_message_of_the_wrong_shape_is_damage_with_a_way_out(grown: Bot) -> None:
    grown.repo.revert("HEAD", no_commit=True)
    assert (grown.repo.prepared_message() or "").startswith("Revert")
    state = grown.repo._history.store.state("message")
    for value in (7, [], {}, {"head": 1, "message": "x"}):
        state.write(value)
        with pytest.raises(IntegrityError, match=r"message\.json is damaged\nhint: delete it"):
            grown.repo.prepared_message()
        assert [problem.kind for problem in grown.repo.fsck().problems] == ["state"]
    state.path.unlink()
    assert grown.repo.prepared_message() is None


def test_a_text_that_ends_within_a_line_is_merged_by_lines(grown: Bot) -> None:
    grown.edit(lambda text: text + "\n# the end")
    grown.commit()
    grown.repo.recipe.remove("suggesting")
    grown.edit(lambda text: text.replace('preset = "ties"', 'preset = "ties"  # as ever'))
    grown.commit()
    grown.edit(lambda text: text.rstrip("\n") + "\n# the very end")
    grown.commit()
    grown.repo.revert("HEAD~1")
    text = grown.recipe.read_text()
    assert "as ever" not in text
    assert text.endswith("\n# the very end")
    assert "suggesting" in grown.repo["HEAD"].recipe.vectors


@pytest.mark.parametrize("close", [False, True])
def test_whether_a_text_ends_within_a_line_is_merged_too(close: bool) -> None:
    assert merge_lines("a\nb", "a\nb\n", "0\na\nb", close=close).text == "0\na\nb\n"
    assert merge_lines("a\nb\n", "a\nb", "0\na\nb\n", close=close).text == "0\na\nb"
    assert merge_lines("a\nb", "a\nb\nc\n", "a\nb\n", close=True).text == "a\nb\nc\n"


def test_comments_of_a_vector_come_back_beside_one_that_went_since(grown: Bot) -> None:
    grown.edit(lambda text: text.replace("[vectors.listening]", "[vectors.listening]\n# tuned by Bob"))
    grown.commit()
    grown.repo.recipe.remove("listening")
    grown.commit()
    grown.repo.recipe.remove("suggesting")
    grown.commit()
    grown.repo.revert("HEAD~1")
    assert "[vectors.listening]\n# tuned by Bob\n" in grown.recipe.read_text()
    assert set(grown.repo["HEAD"].recipe.vectors) == {"listening"}


def test_a_comment_that_was_moved_is_not_lost_where_it_cannot_move_back(grown: Bot) -> None:
    grown.edit(lambda text: "# to and fro\n" + text)
    grown.commit()
    grown.edit(lambda text: text.replace("# to and fro\n", "") + "# to and fro\n")
    grown.commit()
    grown.edit(lambda text: "# first\n" + text)
    grown.commit()
    with pytest.raises(Refused, match="were written again since"):
        grown.repo.revert("HEAD~1")
    assert "# to and fro\n" in grown.recipe.read_text()


def test_several_commits_are_reverted_into_one(grown: Bot) -> None:
    before = grown.recipe.read_text()
    (grown.root / "chat_template.jinja").write_text("hello\nworld\n")
    grown.repo.recipe.set("listening", alpha=0.6)
    grown.commit()
    (grown.root / "chat_template.jinja").write_text("hello\nwide world\n")
    grown.repo.recipe.set("listening", alpha=0.5)
    grown.edit(lambda text: text + "# lower still\n")
    grown.commit()
    grown.repo.revert("HEAD", no_commit=True)
    grown.repo.revert("HEAD~1", no_commit=True)
    assert grown.recipe.read_text() == before
    assert (grown.root / "chat_template.jinja").read_text() == "hello\n"
    with pytest.raises(Refused, match="undone already"):
        grown.repo.revert("HEAD~1", no_commit=True)
    grown.commit()
    assert grown.repo.diff("HEAD", "HEAD~3").empty


def test_a_revert_into_the_work_tree_keeps_edits_and_refuses_to_undo_one(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha=0.6)
    grown.commit()
    grown.repo.recipe.set("suggesting", alpha=0.1)
    grown.edit(lambda text: "# mine\n" + text)
    grown.repo.revert("HEAD", no_commit=True)
    vectors = grown.repo.diff().vectors
    assert {change.name: change.to for change in vectors} == {
        "listening": {"alpha": 0.7},
        "suggesting": {"alpha": 0.1},
    }
    grown.repo.recipe.set("listening", alpha=0.2)
    text = grown.recipe.read_text()
    assert text.startswith("# mine\n")
    with pytest.raises(Refused, match=r"or edits .*\n.*listening.alpha: 0.6 by that commit, 0.2 now"):
        grown.repo.revert("HEAD", no_commit=True)
    assert grown.recipe.read_text() == text


def test_the_message_of_a_revert_waits_while_head_stays(grown: Bot) -> None:
    grown.repo.revert("HEAD", no_commit=True)
    said = grown.repo.prepared_message()
    assert said is not None
    grown.repo.checkout()
    assert grown.repo.prepared_message() == said
    grown.repo.switch("HEAD~1", detach=True, force=True)
    assert grown.repo.prepared_message() is None
