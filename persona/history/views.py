"""Commits, recipes and terms as they are shown: numbers as numbers, ids whole, terms by name in canonical
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from persona.errors import InvalidInput, UnknownName, UnknownRevision, quoted
from persona.history.history import HEADS, TAGS, History
from persona.history.results import TermView
from persona.history.revisions import resolve_range
from persona.history.walk import topological, walk
from persona.objects.commit import Commit
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry, RecipeView


def term_view(term: Term) -> TermView:
    """A term as it is shown."""
    return TermView(
        id=term.vector,
        alpha=float(term.alpha),
        density=None if term.density is None else float(term.density),
        only=term.only,
        except_=term.except_,
        join=term.join,
    )


def term_keys(term: Term) -> dict[str, Any]:
    """The keys of a term as recipe.toml and JSON spell them."""
    view = term_view(term)
    return {
        "id": view.id,
        "alpha": view.alpha,
        "density": view.density,
        "only": list(view.only),
        "except": list(view.except_),
        "join": view.join,
    }


def rules_view(rules: Rules) -> dict[str, str | float]:
    """The preset and every axis in use; density and λ as numbers."""
    shown: dict[str, str | float] = {"preset": rules.preset}
    for axis, value in rules.axes().items():
        if value is not None:
            shown[axis] = float(value) if axis in ("density", "lambda") else value
    return shown


def recipe_view(recipe: Recipe) -> RecipeView:
    """A recipe as it is shown."""
    from persona.history.query_results import RecipeView

    return RecipeView(
        base=recipe.base,
        rules=rules_view(recipe.rules),
        vectors={term.name: term_view(term) for term in recipe.terms},
    )


class Entries:
    """Makes `CommitEntry`s; the names that point at each commit are read once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._names: dict[str, list[str]] | None = None

    def of(self, id: str, commit: Commit | None = None) -> CommitEntry:
        """The entry of a commit."""
        from persona.history.query_results import CommitEntry

        history = self.history
        commit = commit or history.commit(id)
        tree = commit.tree
        return CommitEntry(
            id=id,
            commit=commit,
            refs=tuple(self._pointing().get(id, ())),
            load=lambda: recipe_view(history.recipe(history.tree(tree).recipe)),
        )

    def _pointing(self) -> dict[str, list[str]]:
        if self._names is None:
            self._names = {}
            head = self.history.head_or_name()
            if head.id:
                self._names[head.id] = [f"HEAD -> {head.branch}" if head.branch else "HEAD"]
            for name, id in self.history.names(HEADS).items():
                if name.removeprefix(HEADS) != head.branch:
                    self._names.setdefault(id, []).append(name.removeprefix(HEADS))
            for name, id in self.history.names(TAGS).items():
                commit = self.commit_at(id)
                self._names.setdefault(commit, []).append(f"tag: {name.removeprefix(TAGS)}")
        return self._names

    def commit_at(self, id: str) -> str:
        """The commit that an id is or that its tag names."""
        for _ in range(64):
            if self.history.store.objects.kind_of(id) != "tag":
                break
            id = self.history.tag(id).object
        return id


def log(
    history: History,
    revs: Sequence[str],
    *,
    all: bool,
    n: int | None,
    since: str | None,
    until: str | None,
    vector: str | None,
    paths: Sequence[str] | None,
    in_topological_order: bool,
    now: int,
) -> Iterator[CommitEntry]:
    """See `Repository.log`."""
    selected = resolve_range(history, revs)
    starts = list(selected.starts)
    entries = Entries(history)
    if all:
        starts += [entries.commit_at(id) for id in history.names(HEADS).values()]
        starts += [entries.commit_at(id) for id in history.names(TAGS).values()]
    after = _date(since, now, at_end=False) if since is not None else None
    before = _date(until, now, at_end=True) if until is not None else None
    commits = walk(history, starts, selected.hidden)
    if in_topological_order:
        commits = topological(commits)
    left = n
    if left is not None and left < 0:
        raise InvalidInput(f"a number of commits cannot be {n}")
    nothing = True
    for id, commit in commits:
        if left == 0:
            return
        time = commit.committer.time
        if (after is not None and time < after) or (before is not None and time > before):
            continue
        if vector is not None and not _touches(history, commit, vector):
            continue
        if paths is not None and not _touches_files(history, commit, paths):
            continue
        if left is not None:
            left -= 1
        nothing = False
        yield entries.of(id, commit)
    if vector is not None and nothing and not (selected.hidden or since or until or left == 0):
        raise UnknownName(
            f"no commit there has ever had a vector named {quoted(vector)};"
            " `persona log -p` shows the vectors of each"
        )


def _date(text: str, now: int, *, at_end: bool) -> int:
    from persona.history.dates import parse_date

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


def _touches_files(history: History, commit: Commit, paths: Sequence[str]) -> bool:
    """Whether a commit changes one of the files against its first parent; the first commit against none."""
    from persona.history.tracking import is_among  # which knows weights, and log does not ask

    after = history.files_of_tree(history.tree(commit.tree))
    before = history.files_of(commit.parents[0]) if commit.parents else {}
    differing = (path for path in {*before, *after} if before.get(path) != after.get(path))
    return any(is_among(path, paths) for path in differing)
