"""`repo["HEAD~1"]` is a commit, and what can be done with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from persona.errors import UnknownName, UnknownRevision, UsageError
from persona.face.revision import Revision
from tests.checkpoints import read_weights
from tests.history.bots import Bot


def test_a_revision_tells_its_commit(grown: Bot) -> None:
    revision = grown.repo["HEAD~1"]
    assert revision.id == grown.repo.resolve("HEAD~1")
    assert revision.short_id == revision.id[:8]
    assert revision.subject == "suggest less"
    assert revision.message == "suggest less\n"
    assert revision.author.name == "Ada"
    assert revision.parents == (grown.repo.resolve("HEAD~2"),)
    assert revision.recipe.vectors["suggesting"].alpha == -0.5
    assert "recipe.toml" in revision.files
    assert b"[vectors.suggesting]" in revision.read("recipe.toml")
    with pytest.raises(UnknownName, match=r"has no file 'notes'; it has: chat_template\.jinja"):
        revision.read("notes")


def test_a_revision_of_no_commit_is_refused_where_it_is_asked_for(grown: Bot) -> None:
    with pytest.raises(UnknownRevision):
        _ = grown.repo["nope"]


def test_log_gives_revisions(grown: Bot) -> None:
    revisions = list(grown.repo.log())
    assert all(isinstance(revision, Revision) for revision in revisions)
    assert revisions[1] == grown.repo["HEAD~1"]


def test_a_revision_equals_itself_after_names_have_moved(grown: Bot) -> None:
    revision = grown.repo["HEAD"]
    grown.commit(message="next", allow_empty=True)
    assert grown.repo["HEAD~1"] == revision
    assert grown.repo["HEAD~1"].refs != revision.refs
    assert len({revision, grown.repo["HEAD~1"], grown.repo["HEAD"]}) == 2


def test_show_gives_a_revision(grown: Bot) -> None:
    revision, changes = grown.repo.show("HEAD~1")
    assert isinstance(revision, Revision)
    assert revision.changes() == changes


def test_a_revision_answers_nothing_once_the_repository_is_closed(grown: Bot) -> None:
    revision = grown.repo["HEAD"]
    assert revision.files
    grown.repo.close()
    with pytest.raises(UsageError, match="closed"):
        _ = revision.files
    with pytest.raises(UsageError, match="closed"):
        revision.read("recipe.toml")


def test_a_revision_is_compared_with_another_and_with_the_work_tree(grown: Bot) -> None:
    one, other = grown.repo["HEAD~1"], grown.repo["HEAD"]
    assert one.diff(other) == one.diff("HEAD") == grown.repo.diff("HEAD~1", "HEAD")
    assert other.changes() == one.diff(other)
    assert other.diff().empty
    grown.repo.recipe.set("listening", alpha=0.1)
    assert [change.name for change in other.diff().vectors] == ["listening"]


def test_the_weights_of_a_revision_are_those_of_its_checkout(grown: Bot, tmp_path: Path) -> None:
    revision = grown.repo["HEAD~1"]
    result = revision.checkout(out=tmp_path / "out")
    assert revision.digest().weights == result.weights
    assert (revision.digest().revision, result.revision) == (revision.id, revision.id)
    written = read_weights(tmp_path / "out")
    for name, array in revision.tensors():
        assert np.array_equal(array, written[name].bits)
    assert grown.repo.head().branch == "main"
    revision.checkout()
    assert grown.repo.head().id == revision.id
