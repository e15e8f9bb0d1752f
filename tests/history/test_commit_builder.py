"""Commits that are built from files, by bytes or by id, with neither the work tree nor a ref in the way."""

from __future__ import annotations

import pytest

from persona.history.commit_builder import build, named_by, put_tree, side_of
from persona.history.recipes.three_way import Names, merge_files
from persona.objects.commit import Person
from tests.history.bots import Bot, at


def test_a_commit_is_picked_onto_another_without_touching_the_work_tree(grown: Bot) -> None:
    grown.edit(lambda text: text + "# of main\n")
    grown.commit()
    (grown.root / "chat_template.jinja").write_text("picked\n")
    picked = grown.commit().id
    assert picked is not None
    history, repo = grown.repo._history, grown.repo
    onto, head = repo.resolve("HEAD~2"), repo.head()
    before = {path: path.read_bytes() for path in grown.root.iterdir() if path.is_file()}

    base, theirs, ours = (side_of(history, repo.resolve(rev)) for rev in ("HEAD~1", "HEAD", "HEAD~2"))
    merged = merge_files(base, theirs, ours, Names(history.read_recipe, history.base_name))
    assert not merged.conflicts
    files = {**ours.files, **merged.edits}
    author = Person("Bea", "bea@example.org", 1_700_000_000, -60)
    with history.store.transaction() as tx:
        recipe = history.recipe_of(onto)
        held = ((path, data) for path, data in sorted(files.items()) if data is not None)
        tree = put_tree(history, tx, recipe, held, durable=named_by(recipe))
        id = build(tx, tree, (onto,), author=author, committer=at(99), message="Pick\n")

    entry = repo[id]
    assert (entry.parents, entry.subject) == ((onto,), "Pick")
    commit = history.commit(id)
    assert (commit.author, commit.committer) == (author, at(99))
    assert repo.diff(onto, id).files == ("chat_template.jinja",)
    assert history.blob(history.files_of(id)["chat_template.jinja"]) == b"picked\n"
    assert {path: path.read_bytes() for path in grown.root.iterdir() if path.is_file()} == before
    assert repo.head() == head
    assert repo.fsck(full=True).ok


def test_the_tree_of_a_commit_built_again_has_its_id(grown: Bot) -> None:
    history = grown.repo._history
    head = grown.repo.resolve()
    side, recipe = side_of(history, head), history.recipe_of(head)
    with history.store.transaction() as tx:
        by_id = put_tree(history, tx, recipe, sorted(side.files.items()), durable=named_by(recipe))
        files = ((path, history.blob(id)) for path, id in sorted(side.files.items()))
        by_bytes = put_tree(history, tx, recipe, files, durable=named_by(recipe))
    assert by_id == by_bytes == history.commit(head).tree
    assert history.tree(by_id).files.keys() == {"recipe.toml"}, "what the base holds is not held twice"


@pytest.mark.parametrize("damage", [b"", b"other bytes", None])
def test_a_commit_heals_the_blob_of_a_file_that_did_not_change(grown: Bot, damage: bytes | None) -> None:
    (grown.root / "chat_template.jinja").write_text("mine\n")
    grown.commit()
    history = grown.repo._history
    id = history.files_of(grown.repo.resolve())["chat_template.jinja"]
    copy = grown.root / ".persona" / "objects" / id[:2] / id[2:]
    if damage is None:
        copy.unlink()
    else:
        copy.chmod(0o644)
        copy.write_bytes(damage)
    assert not grown.repo.fsck(full=True).ok
    grown.edit(lambda text: text + "# more\n")
    grown.commit()
    assert history.blob(id) == b"mine\n"
    assert grown.repo.fsck(full=True).ok
