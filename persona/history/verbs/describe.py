"""`describe`: a commit by the nearest tag that it reaches, as `v1-3-g3f2a91c0`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import islice
from typing import Final, Unpack

from persona.errors import Blank, Call, Hint, InvalidInput, Keyword, UnknownName, UsageError
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.names.walk import walk_first_parents, walk_links
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


def describe(history: History, rev: str | None = None, **options: Unpack[DescribeOptions]) -> Description:
    """A commit by the nearest tag that it reaches: `v1` on the tagged commit, else `v1-3-g3f2a91c0`.

    By default HEAD. The nearest tag is the one with the fewest commits since. Raises `UnknownName` if there
    is none, and `UsageError` for `dirty` with a revision, or `long` without digits.
    """
    how = complete(DescribeOptions, options)
    if how["dirty"] and rev is not None:
        raise UsageError("dirty describes HEAD as it stands in the work tree: leave out the revision")
    if how["long"] and not how["abbrev"]:
        raise UsageError("the long form has digits of the id: leave out abbrev = 0")
    id = resolve(history, "HEAD" if rev is None else rev, history.notes)
    found = _described(history, id, how)
    if how["dirty"] and _is_dirty(history, id):
        return replace(found, name=f"{found.name}-dirty")
    return found


def _described(history: History, id: str, how: DescribeOptions) -> Description:
    names = _names(history, how, lightweight=how["tags"])
    digits = _digits(history, id, how["abbrev"])
    tag = names.get(id)
    distance = 0
    if tag is None and not how["exact_match"]:
        walked = walk_first_parents if how["first_parent"] else walk_links
        tagged = islice((found for found, _ in walked(history, [id]) if found in names), CANDIDATES)
        since = [(sum(1 for _ in walked(history, [id], [found])), names[found]) for found in tagged]
        distance, tag = min(since, key=lambda candidate: candidate[0], default=(0, None))
    if tag is not None:
        whole = digits and (distance or how["long"])
        name = "-".join((tag, str(distance), "g" + digits)) if whole else tag
        return Description(name, id, tag, distance)
    if how["always"]:
        return Description(digits or id, id, None, None)
    new = Call("tags.create", Blank("NAME"), abbreviate(id), message=Blank("MSG"))
    hint: Hint = (new, " makes one; ", Keyword(always=True), " gives the id instead")
    if not how["tags"]:
        others = _names(history, how)
        near = [id] if how["exact_match"] else (found for found, _ in walk_links(history, [id]))
        if any(found in others for found in near):
            hint = (Keyword(tags=True), " uses the tags that have no message")
    kind = "" if how["tags"] else "annotated "
    at = "is at" if how["exact_match"] else "describes"
    raise UnknownName(f"no {kind}tag {at} {abbreviate(id)}", hint=hint)


def _is_dirty(history: History, id: str) -> bool:
    """Whether the work tree differs from a commit, as `status` says it."""
    from persona.history.worktree.changes import diff_worktree

    try:
        return not diff_worktree(history, id).empty
    except InvalidInput:
        return True  # recipe.toml cannot be read


def _digits(history: History, id: str, wanted: int) -> str:
    """The first digits of an id: as many as `wanted`, or more if other commits begin with them; "" for 0."""
    count = max(wanted, MIN_PREFIX) if wanted else 0
    while count and count < len(id):
        begun = history.objects_starting(id[:count])
        if sum(kind in ("commit", "tag") for _, kind in begun) < 2:  # the kinds that a revision may name
            break
        count += 1
    return id[:count]


def _names(history: History, how: DescribeOptions, *, lightweight: bool = True) -> Mapping[str, str]:
    """Commit → the tag that names it: an annotated one before others, of several the newest."""
    found: dict[str, tuple[int, str]] = {}
    for ref, id in history.names(TAGS, history.notes).items():
        name = ref.removeprefix(TAGS)
        if not _is_meant(name, how):
            continue
        annotated = history.store.objects.kind_of(id) == "tag"
        if annotated or lightweight:
            rank = history.tag(id).tagger.time if annotated else -1
            commit = resolve(history, ref)
            if commit not in found or rank > found[commit][0]:
                found[commit] = rank, name
    return {commit: name for commit, (_, name) in found.items()}


def _is_meant(name: str, how: DescribeOptions) -> bool:
    """Whether `match` and `exclude` leave a tag."""
    match, exclude = (
        [globs] if isinstance(globs, str) else globs for globs in (how["match"], how["exclude"])
    )
    wanted = not match or any(fnmatchcase(name, glob) for glob in match)
    return wanted and not any(fnmatchcase(name, glob) for glob in exclude)
