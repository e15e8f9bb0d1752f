"""`describe` names a commit as git does: by the tag with the fewest commits since."""

from __future__ import annotations

import re

import pytest

from persona.errors import UnknownName, UsageError
from tests.history.conftest import Bot, at


def test_a_tagged_commit_is_its_tag(grown: Bot) -> None:
    grown.repo.tags.create("v1", message="the first")
    found = grown.repo.describe()
    assert (found.name, found.tag, found.distance) == ("v1", "v1", 0)
    assert found.id == grown.repo.resolve()


def test_a_later_commit_counts_from_the_nearest_tag(grown: Bot) -> None:
    grown.repo.tags.create("v1", "HEAD~3", message="the first")
    id = grown.repo.resolve()
    assert grown.repo.describe().name == f"v1-3-g{id[:8]}"
    grown.repo.tags.create("v2", "HEAD~1", message="the second")
    assert grown.repo.describe().name == f"v2-1-g{id[:8]}"
    assert grown.repo.describe("HEAD~2").name == f"v1-1-g{grown.repo.resolve('HEAD~2')[:8]}"


def test_only_annotated_tags_count_unless_any_may(grown: Bot) -> None:
    grown.repo.tags.create("v1", "HEAD~2", message="the first")
    grown.repo.tags.create("here")
    assert grown.repo.describe().tag == "v1"
    assert grown.repo.describe(tags=True).name == "here"
    grown.repo.tags.create("signed", message="also here")
    assert grown.repo.describe(tags=True).name == "signed"


def test_of_two_tags_on_a_commit_the_newer_names_it(grown: Bot) -> None:
    for name, minute in (("b", 1), ("a-newest", 9), ("c", 5)):
        grown.repo._history.committer_signer = at(minute)
        grown.repo.tags.create(name, message="one of three")
    assert grown.repo.describe().tag == "a-newest"


@pytest.mark.parametrize(("abbrev", "end"), [(1, 4), (4, 4), (40, 40), (64, 64), (99, 64)])
def test_the_id_has_as_many_digits_as_asked_for(grown: Bot, abbrev: int, end: int) -> None:
    grown.repo.tags.create("v1", "HEAD~1", message="the first")
    id = grown.repo.resolve()
    assert grown.repo.describe(abbrev=abbrev).name == f"v1-1-g{id[:end]}"
    assert grown.repo.describe(abbrev=0).name == "v1"


def test_a_name_names_its_commit(grown: Bot) -> None:
    grown.repo.tags.create("v1", "HEAD~2", message="the first")
    for rev in ("HEAD", "HEAD~1"):
        for abbrev in (1, 8, 64):
            assert grown.repo.resolve(grown.repo.describe(rev, abbrev=abbrev).name) == grown.repo.resolve(rev)
    grown.repo.branches.create("x-1-gffff", "HEAD~2")
    assert grown.repo.resolve("x-1-gffff") == grown.repo.resolve("HEAD~2")


def test_digits_that_other_commits_share_are_continued(grown: Bot) -> None:
    id, history = grown.repo.resolve(), grown.repo._history
    for other, kind in ((id[:10], "commit"), (id[:12], "tag"), (id[:20], "vector")):
        begun = other.ljust(64, "0")
        both = history.objects_starting
        history.objects_starting = lambda text, a=(begun, kind), b=both: [  # type: ignore[method-assign, misc]
            *b(text),
            *([a] if a[0].startswith(text) else []),
        ]
    assert grown.repo.describe(always=True).name == id[:13]


def test_without_a_tag_the_error_says_what_helps(grown: Bot) -> None:
    with pytest.raises(
        UnknownName, match=r"no annotated tag describes [0-9a-f]{8}\nhint: .*always=True"
    ) as refused:
        grown.repo.describe()
    assert grown.repo.describe(always=True).name == grown.repo.resolve()[:8]
    assert re.search("hint: `repo.tags.create.NAME, '[0-9a-f]{8}', message=MSG.`", str(refused.value))
    grown.repo.tags.create("light", "HEAD~1")
    with pytest.raises(UnknownName, match="hint: tags=True"):
        grown.repo.describe()


def test_a_tag_that_is_not_reached_names_nothing(grown: Bot) -> None:
    grown.repo.tags.create("v1", message="later")
    found = grown.repo.describe("HEAD~1", always=True)
    assert (found.tag, found.distance) == (None, None)


def test_digits_are_counted_from_none(grown: Bot) -> None:
    with pytest.raises(UsageError, match=r"^abbrev must be "):
        grown.repo.describe(abbrev=-1)
