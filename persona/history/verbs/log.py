"""`log`: the commits of a range, newest first."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from persona.errors import Blank, Call, InvalidInput, UnknownName, UnknownRevision, quoted
from persona.history.history import History
from persona.history.names.entries import Entries
from persona.history.names.revisions import resolve_range
from persona.history.names.walk import in_order, walk, walk_first_parents, walk_links
from persona.objects.commit import Commit, Person
from persona.objects.recipe import Term
from persona.objects.tree import differing
from persona.store.refs import HEADS, TAGS

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry

Wanted = Callable[[Commit], bool]


def log(
    history: History,
    revs: str | Sequence[str] = ("HEAD",),
    *,
    all: bool = False,
    n: int | None = None,
    skip: int = 0,
    since: str | None = None,
    until: str | None = None,
    author: str | Sequence[str] | None = None,
    committer: str | Sequence[str] | None = None,
    grep: str | Sequence[str] | None = None,
    all_match: bool = False,
    invert_grep: bool = False,
    ignore_case: bool = False,
    merges: bool | None = None,
    vector: str | None = None,
    pickaxe: str | None = None,
    lines: str | None = None,
    paths: str | Sequence[str] | None = None,
    first_parent: bool = False,
    topological: bool = False,
    reverse: bool = False,
) -> Iterator[CommitEntry]:
    """Commits reachable from `revs`, newest first, one at a time.

    Each of `revs` is a revision, `A..B`, `A...B` or `^A`. `all` starts from every ref. `n`: at most this
    many, after the first `skip`. `since` and `until` are dates. `author` and `committer`: only commits of a
    person whose `Name <email>` one of these regular expressions matches. `grep`: only commits whose message
    one of them matches, or each of them with `all_match`, or none with `invert_grep`. `ignore_case` is for
    these, and for the next two. `pickaxe`: only commits that change how often this text occurs in a file;
    `lines`: only commits that add or remove a line that this regular expression matches. As in git, no merge
    is one of them, unless with `first_parent`. `merges`: only merges, or, if it is False, no merges.
    `vector`: only commits that change the term of that name. `paths`: only commits that explain how these
    files, or the files in these directories, came to be as they are: no merge that has the files of a parent,
    and nothing that the merge left. `first_parent` follows only the first parent of a merge.
    `topological`: no commit before all its children, for drawing a graph. `reverse`: the same commits, oldest
    first, after all are found.
    """
    starts, hidden = _starts(history, revs, all)
    entries = Entries(history, history.notes)
    if n is not None and n < 0:
        raise InvalidInput(f"the number of commits must be 0 or more, not {n}")
    flags = re.IGNORECASE if ignore_case else 0
    conditions = [
        *_in_time(since, until),
        *_of_people(author, lambda commit: commit.author, flags, "author"),
        *_of_people(committer, lambda commit: commit.committer, flags, "committer"),
        *_of_messages(grep, flags, all_match, invert_grep),
    ]
    if merges is not None:
        conditions.append(lambda commit: (len(commit.parents) > 1) is merges)
    if vector is not None:
        conditions.append(lambda commit: _touches(history, commit, vector))
    files = [paths] if isinstance(paths, str) else paths
    conditions += _of_contents(history, pickaxe, lines, flags, files, merges=first_parent)

    commits = _commits(history, starts, hidden, first_parent, topological, files)
    chosen = _chosen(history, commits, conditions, n, skip)
    given = (entries.of(id, commit) for id, commit in (_reversed(chosen) if reverse else chosen))
    everything = len(conditions) == 1 and not (hidden or skip or n == 0)
    return given if vector is None or not everything else _some(given, vector)


def links(
    history: History,
    revs: str | Sequence[str] = ("HEAD",),
    *,
    all: bool = False,
    first_parent: bool = False,
) -> dict[str, tuple[str, ...]]:
    """The ids of the commits of `log` with those of their parents, no commit before all its children.

    This is quick for a long history too, because nothing else of the commits is read.
    """
    starts, hidden = _starts(history, revs, all)
    walked = walk_first_parents if first_parent else walk_links
    found = dict(walked(history, starts, hidden))
    return {id: found[id] for id in in_order(found)}


def _starts(
    history: History, revs: str | Sequence[str], everything: bool
) -> tuple[list[str], tuple[str, ...]]:
    """The commits that a walk starts from, and those whose history it leaves out."""
    notes = history.notes
    selected = resolve_range(history, [revs] if isinstance(revs, str) else list(revs), notes)
    starts = list(selected.starts)
    if everything:
        starts += [history.peeled(id)[0] for id in history.names(HEADS, notes).values()]
        starts += [history.peeled(id)[0] for id in history.names(TAGS, notes).values()]
    return starts, selected.hidden


def _commits(
    history: History,
    starts: list[str],
    hidden: tuple[str, ...],
    first_parent: bool,
    topological: bool,
    paths: Sequence[str] | None,
) -> Iterator[tuple[str, Commit]]:
    """The commits to choose from, in order."""
    if not (first_parent or topological or paths is not None):
        return walk(history, starts, hidden)
    ids: Iterator[str]
    if first_parent or topological:
        walked = walk_first_parents if first_parent else walk_links
        found = walked(history, starts, hidden)
        ids = in_order(dict(found)) if topological else (id for id, _ in found)
    if paths is not None:
        from persona.history.names.simplified import walk_files

        among = partial(_is_among, paths=paths)
        shown = walk_files(history, starts, hidden, among, first_parent=first_parent)
        ids = filter(set(shown).__contains__, ids) if topological else shown
    return ((id, history.commit(id)) for id in ids)


def _chosen(
    history: History,
    commits: Iterator[tuple[str, Commit]],
    conditions: Sequence[Wanted],
    n: int | None,
    skip: int,
) -> Iterator[tuple[str, Commit]]:
    """The commits that meet all conditions, `n` at most after `skip`, while the repository is open."""
    found = (one for one in _while_open(history, commits) if all_of(wanted(one[1]) for wanted in conditions))
    return islice(found, skip, None if n is None else skip + n)


all_of = all  # `log` has an argument of that name


def _while_open(history: History, commits: Iterable[tuple[str, Commit]]) -> Iterator[tuple[str, Commit]]:
    for one in commits:
        history.require_open()
        yield one


def _reversed(chosen: Iterable[tuple[str, Commit]]) -> Iterator[tuple[str, Commit]]:
    yield from reversed(list(chosen))


def _in_time(since: str | None, until: str | None) -> Iterator[Wanted]:
    now = int(time.time())
    if since is not None:
        after = _date(since, now, at_end=False)
        yield lambda commit: commit.committer.time >= after
    if until is not None:
        before = _date(until, now, at_end=True)
        yield lambda commit: commit.committer.time <= before


def _of_people(
    patterns: str | Sequence[str] | None, person_of: Callable[[Commit], Person], flags: int, what: str
) -> Iterator[Wanted]:
    if patterns is not None:
        searches = _compiled(patterns, flags, what)

        def wanted(commit: Commit) -> bool:
            person = person_of(commit)
            return any(search.search(f"{person.name} <{person.email}>") for search in searches)

        yield wanted


def _of_messages(
    patterns: str | Sequence[str] | None, flags: int, all_match: bool, invert: bool
) -> Iterator[Wanted]:
    if patterns is not None:
        searches = _compiled(patterns, flags | re.MULTILINE, "grep")
        enough = all_of if all_match else any
        yield lambda commit: bool(enough(search.search(commit.message) for search in searches)) is not invert


def _of_contents(
    history: History,
    pickaxe: str | None,
    lines: str | None,
    flags: int,
    paths: Sequence[str] | None,
    *,
    merges: bool,
) -> Iterator[Wanted]:
    """The conditions on the texts of files that a commit changes."""
    if pickaxe is None and lines is None:
        return
    from persona.history.names import pickaxe as texts

    searches: list[tuple[texts.Differs, re.Pattern[str]]] = []
    if pickaxe is not None:
        if not pickaxe:
            raise InvalidInput("pickaxe: an empty text is nothing to look for")
        searches.append((texts.occurs_elsewhere, re.compile(re.escape(pickaxe), flags)))
    if lines is not None:
        searches += [(texts.has_line, search) for search in _compiled(lines, flags, "lines")]

    def wanted(commit: Commit) -> bool:
        if len(commit.parents) > 1 and not merges:
            return False
        before, after = _files_around(history, commit)
        changed = [path for path in differing(before, after) if paths is None or _is_among(path, paths)]
        return all_of(
            any(differs(history, search, before.get(path), after.get(path)) for path in changed)
            for differs, search in searches
        )

    yield wanted


def _compiled(patterns: str | Sequence[str], flags: int, what: str) -> list[re.Pattern[str]]:
    found = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            found.append(re.compile(pattern, flags))
        except re.error as error:
            raise InvalidInput(
                f"{what}: {quoted(pattern)} is not a regular expression: {error}",
                hint="a backslash takes away the meaning of the character after it",
            ) from None
    return found


def _some(chosen: Iterator[CommitEntry], vector: str) -> Iterator[CommitEntry]:
    """The entries. Raises `UnknownName` at the end if there was none."""
    nothing = True
    for entry in chosen:
        nothing = False
        yield entry
    if nothing:
        raise UnknownName(
            f"no commit in this history has a vector named {quoted(vector)}",
            hint=(Call("log"), " lists the commits, and ", Call("show", Blank("REV")), " shows its changes"),
        )


def _date(text: str, now: int, *, at_end: bool) -> int:
    from persona.history.names.dates import parse_date

    found = parse_date(text, now, at_end=at_end)
    if found is None:
        raise UnknownRevision(f"{text!r:.60} is not a date; write 2026-11-15 or '2 days ago'")
    return found[0]


def _touches(history: History, commit: Commit, name: str) -> bool:
    """Whether a commit's term of that name differs from its first parent's."""
    recipe = history.tree(commit.tree).recipe
    before: Term | None = None
    if commit.parents:
        parent = history.tree(history.commit(commit.parents[0]).tree).recipe
        if parent == recipe:
            return False
        before = history.recipe(parent).by_name.get(name)
    return history.recipe(recipe).by_name.get(name) != before


def _files_around(history: History, commit: Commit) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The files of a commit's first parent, and its own."""
    after = history.files_of_tree(history.tree(commit.tree))
    return history.files_of(commit.parents[0]) if commit.parents else {}, after


def _is_among(path: str, paths: Sequence[str]) -> bool:
    from persona.history.worktree.tracking import is_among  # imports weights, which log does not need

    return is_among(path, paths)
