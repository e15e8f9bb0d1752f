"""`describe`: a commit by the nearest tag that it reaches, as `v1-3-g3f2a91c0`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final, Unpack

from persona.errors import Blank, Call, Hint, Keyword, UnknownName
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.names.walk import walk
from persona.history.options import DescribeOptions, complete
from persona.history.recipes.text import MIN_PREFIX
from persona.objects.ids import abbreviate
from persona.store.refs import TAGS

CANDIDATES: Final = 10
"""Tagged commits that are compared, as in git."""


@dataclass(frozen=True)
class Description:
    """A commit by a tag. `distance`: commits since the tag; it and `tag` are None if no tag was found."""

    name: str
    id: str
    tag: str | None
    distance: int | None


def describe(history: History, rev: str = "HEAD", **options: Unpack[DescribeOptions]) -> Description:
    """A commit by the nearest tag that it reaches: `v1` on the tagged commit, else `v1-3-g3f2a91c0`.

    The nearest tag is the one with the fewest commits since. Raises `UnknownName` if there is none.
    """
    how = complete(DescribeOptions, options)
    id = resolve(history, rev, history.notes)
    names = _names(history, lightweight=how["tags"])
    tagged = islice((found for found, _ in walk(history, [id]) if found in names), CANDIDATES)
    since = [(sum(1 for _ in walk(history, [id], [found])), names[found]) for found in tagged]
    digits = _digits(history, id, how["abbrev"])
    if since:
        distance, tag = min(since, key=lambda candidate: candidate[0])
        name = "-".join((tag, str(distance), "g" + digits)) if distance and digits else tag
        return Description(name, id, tag, distance)
    if how["always"]:
        return Description(digits or id, id, None, None)
    new = Call("tags.create", Blank("NAME"), abbreviate(id), message=Blank("MSG"))
    hint: Hint = (new, " makes one; ", Keyword(always=True), " gives the id instead")
    if not how["tags"] and any(found in _names(history) for found, _ in walk(history, [id])):
        hint = (Keyword(tags=True), " uses the tags that have no message")
    raise UnknownName(f"no {'' if how['tags'] else 'annotated '}tag describes {abbreviate(id)}", hint=hint)


def _digits(history: History, id: str, wanted: int) -> str:
    """The first digits of an id: as many as `wanted`, or more if other commits begin with them; "" for 0."""
    count = max(wanted, MIN_PREFIX) if wanted else 0
    while count and count < len(id):
        begun = history.objects_starting(id[:count])
        if sum(kind in ("commit", "tag") for _, kind in begun) < 2:  # the kinds that a revision may name
            break
        count += 1
    return id[:count]


def _names(history: History, *, lightweight: bool = True) -> Mapping[str, str]:
    """Commit → the tag that names it: an annotated one before others, of several the newest."""
    found: dict[str, tuple[int, str]] = {}
    for ref, id in history.names(TAGS, history.notes).items():
        annotated = history.store.objects.kind_of(id) == "tag"
        if annotated or lightweight:
            rank = history.tag(id).tagger.time if annotated else -1
            commit = resolve(history, ref)
            if commit not in found or rank > found[commit][0]:
                found[commit] = rank, ref.removeprefix(TAGS)
    return {commit: name for commit, (_, name) in found.items()}
