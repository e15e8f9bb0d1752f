"""Merges of terms: a vector is the same under another name, and no vector is lost or doubled by a merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.history.recipes.conflicts import Conflict, Decisions, Strategy
from persona.history.recipes.pairing import same_terms
from persona.history.recipes.term_merge import merge_terms
from persona.objects.recipe import Term

MANY = settings(max_examples=max(200, settings().max_examples))
Terms = dict[str, Term]
Result = tuple[Terms, list[Conflict]]


def terms(text: str) -> Terms:
    """The terms of a line: `old:1@0.5 new:2` has the vector 1 as `old` with α 0.5, and 2 as `new` with 1."""
    found = {}
    for word in text.split():
        name, _, rest = word.partition(":")
        vector, _, alpha = rest.partition("@")
        found[name] = Term(name, vector * 64, alpha or "1")
    return found


def line(found: Mapping[str, Term]) -> str:
    """The line of some terms."""
    each = ((name, term.vector[0], term.alpha) for name, term in sorted(found.items()))
    return " ".join(
        f"{name}:{vector}" + ("" if alpha == "1" else f"@{alpha}") for name, vector, alpha in each
    )


def merged(base: Terms, theirs: Terms, ours: Terms, strategy: Strategy | None = None) -> Result:
    """The terms of a merge, by name, and its conflicts."""
    decisions = Decisions(strategy)
    found = merge_terms(base, theirs, ours, decisions)
    by_name = {term.name: term for term in found}
    assert len(by_name) == len(found), "two terms have one name"
    return by_name, decisions.found


@pytest.mark.parametrize(
    ("base", "theirs", "ours", "result"),
    [
        ("a:1 b:2", "old:1 a:3 b:2", "a:1@0.2 b:2", "a:3 b:2 old:1@0.2"),
        ("a:1 b:2", "b:1 a:2", "a:1@0.2 b:2", "a:2 b:1@0.2"),
        ("a:1 b:2 c:3", "b:1 c:2 a:3", "a:1@0.2 b:2@0.5 c:3", "a:3 b:1@0.2 c:2@0.5"),
        ("a:1 b:2", "b:1", "a:1@0.2 b:2", "b:1@0.2"),
        ("a:1", "a:2", "a:1@0.2", "a:2@0.2"),
        ("a:1", "a:2", "b:1", "b:2"),
        ("a:1 b:1", "a:1 c:1", "a:1 b:1@0.5", "a:1 c:1@0.5"),
        ("", "a:1 b:2", "b:2 c:3", "a:1 b:2 c:3"),
    ],
)
def test_a_change_goes_to_the_same_vector_under_any_name(
    base: str, theirs: str, ours: str, result: str
) -> None:
    for one, other in ((theirs, ours), (ours, theirs)):
        found, conflicts = merged(terms(base), terms(one), terms(other))
        assert (line(found), conflicts) == (result, [])


NAMES: list[tuple[str, str, str, str, str, str]] = [
    ("a:1", "new:1", "a:1 new:2", "a:1 new:2", "a:1 new:2", "new:1 new-2:2"),
    ("a:1", "a:1 new:2", "new:1", "new:1 new-2:2", "new:1 new-2:2", "a:1 new:2"),
    ("", "new:2@0.5", "new:3", "new:3 new-2:2@0.5", "new:3 new-2:2@0.5", "new:2@0.5 new-2:3"),
    ("a:1 b:2", "n:1 b:2", "a:1 n:2", "a:1 n:2", "a:1 n:2", "b:2 n:1"),
    ("a:1", "new:1 a:3", "a:1 new:2", "a:3 new:2 new-2:1", "a:3 new:2 new-2:1", "a:3 new:1 new-2:2"),
]


@pytest.mark.parametrize(("base", "theirs", "ours", "stands", "taking_ours", "taking_theirs"), NAMES)
def test_two_vectors_that_would_have_one_name_both_stay(
    base: str, theirs: str, ours: str, stands: str, taking_ours: str, taking_theirs: str
) -> None:
    sides = terms(base), terms(theirs), terms(ours)
    for strategy in (None, "mean"):
        found, conflicts = merged(*sides, strategy)  # type: ignore[arg-type]
        assert Counter(line(found).split()) == Counter(stands.split())
        assert [(one.problem, one.theirs) for one in conflicts] == [("name", "new" if "new" in ours else "n")]
        assert {conflicts[0].vector, conflicts[0].holder} <= {term.vector for term in found.values()}
    for side, wanted in (("ours", taking_ours), ("theirs", taking_theirs)):
        found, conflicts = merged(*sides, side)  # type: ignore[arg-type]
        assert (Counter(line(found).split()), conflicts) == (Counter(wanted.split()), [])
    before, conflicts = merged(*sides, "base")
    assert (line(before) in (base, "a:3"), conflicts) == (True, [])


def test_a_removed_vector_that_was_changed_is_a_conflict_though_its_name_is_taken() -> None:
    base, theirs, ours = terms("a:1 b:2"), terms("b:1"), terms("a:1 b:2@0.2")
    found, conflicts = merged(base, theirs, ours)
    assert line(found) == "a:1 b:2@0.2"
    assert {(one.key, one.problem, one.vector[0]) for one in conflicts} == {
        ("vectors.b", "term", "2"),
        ("vectors.a.name", "name", "1"),
    }
    found, conflicts = merged(base, ours, theirs)
    assert line(found) == "b:1"
    assert [(one.key, one.problem, one.vector[0]) for one in conflicts] == [("vectors.b-2", "term", "2")]
    assert line(merged(base, theirs, ours, "theirs")[0]) == "b:1"
    assert line(merged(base, theirs, ours, "ours")[0]) == "a:1 b:2@0.2"


def test_a_conflict_has_the_name_that_the_result_has() -> None:
    found, conflicts = merged(terms("a:1"), terms("new:1@0.3"), terms("a:1@0.2"))
    assert line(found) == "new:1@0.2"
    assert [(one.key, one.theirs, one.ours) for one in conflicts] == [("vectors.new.alpha", "0.3", "0.2")]


# -- a model that knows which term is which ------------------------------------------------------------------

Known = dict[int, Term]
"""Terms by a number that nothing changes."""
FREE = "abcdefg"


def edited(draw: st.DrawFn, base: Known, digit: str) -> Known:
    """A few edits of some terms. A term is renamed or gets another vector, not both."""
    found, removed = dict(base), set[str]()
    renamed, replaced = set[int](), set[int]()
    for _ in range(draw(st.integers(0, 4))):
        act = draw(st.sampled_from(["set", "set", "rename", "swap", "replace", "remove", "add"]))
        taken = {term.name for term in found.values()}
        known = sorted(found)
        at = draw(st.sampled_from(known)) if known else None
        name = draw(st.sampled_from(FREE))
        if act == "add" and name not in taken | removed:
            used = {term.vector for term in found.values()} | {term.vector for term in base.values()}
            number = draw(st.sampled_from([4, 5, 6]))
            if str(number) * 64 not in used:
                found[number] = Term(name, str(number) * 64, draw(st.sampled_from(["1", "2"])))
        if at is None:
            continue
        if act == "set":
            found[at] = replace(found[at], alpha=draw(st.sampled_from(["0.1", "0.2"])))
        elif act == "rename" and at not in replaced and name not in taken | removed:
            found[at] = replace(found[at], name=name)
            renamed.add(at)
        elif act == "swap":
            other = draw(st.sampled_from(known))
            if not {at, other} & replaced:
                mine, its = found[at].name, found[other].name
                found[at] = replace(found[at], name=its)
                found[other] = replace(found[other], name=mine) if at != other else found[other]
                renamed |= {at, other}
        elif act == "replace" and at in base and at not in renamed and at not in replaced:
            found[at] = replace(found[at], vector=f"{len(replaced)}{digit * 63}")
            replaced.add(at)
        elif act == "remove":
            removed |= {found[at].name, *({base[at].name} if at in base else ())}
            del found[at]
    return found


@st.composite
def known_sides(draw: st.DrawFn) -> tuple[Known, Known, Known]:
    """Terms, and two edits of them. Both sides may add the same vectors, but replace none by the same."""
    base = {number: Term(name, str(number) * 64) for number, name in enumerate("abc", 1)}
    return base, edited(draw, base, "7"), edited(draw, base, "8")


def is_followed(base: Known, side: Known) -> bool:
    """Whether ids and names tell which term is which: a replaced vector has kept its name to itself."""
    by_name = {name: {term.name: term for term in each.values()} for name, each in (("b", base), ("s", side))}
    pairs = same_terms(by_name["b"], by_name["s"])
    wanted = {base[at].name: side[at].name for at in base.keys() & side.keys()}
    return pairs == wanted


def field_by_field(base: Known, theirs: Known, ours: Known) -> Known | None:
    """The model: every value of every term by itself; None for a conflict."""
    result: Known = {}
    for at in base.keys() | theirs.keys() | ours.keys():
        was, come, now = base.get(at), theirs.get(at), ours.get(at)
        if come is None or now is None:
            if was not in (come, now) and come != now:
                return None
            kept = come if now == was else now
        else:
            values = {}
            for field in ("name", "vector", "alpha"):
                before = object() if was is None else getattr(was, field)
                there, here = getattr(come, field), getattr(now, field)
                if there != here and before not in (there, here):
                    return None
                values[field] = there if here == before else here
            kept = Term(**values)
        if kept is not None:
            result[at] = kept
    names = [term.name for term in result.values()]
    return result if len(set(names)) == len(names) else None


@MANY
@given(known_sides())
def test_a_merge_of_terms_is_that_of_each_term_by_itself(sides: tuple[Known, Known, Known]) -> None:
    base, theirs, ours = sides
    if not (is_followed(base, theirs) and is_followed(base, ours)):
        return
    by_name = [{term.name: term for term in side.values()} for side in sides]
    found, conflicts = merged(*by_name)
    wanted = field_by_field(base, theirs, ours)
    assert bool(conflicts) == (wanted is None)
    if wanted is not None:
        assert found == {term.name: term for term in wanted.values()}


# -- any terms at all ----------------------------------------------------------------------------------------

ANY = st.builds(
    Term,
    st.sampled_from("abcd"),
    st.sampled_from(["1" * 64, "2" * 64, "3" * 64]),
    st.sampled_from(["1", "2"]),
)
SIDE: st.SearchStrategy[Terms] = st.lists(ANY, max_size=4, unique_by=lambda term: term.name).map(
    lambda found: {term.name: term for term in found}
)


def count(side: Terms) -> Counter[str]:
    """How often each vector is there."""
    return Counter(term.vector for term in side.values())


@MANY
@given(SIDE, SIDE, SIDE)
def test_no_merge_doubles_a_vector_or_depends_on_which_side_is_ours(
    base: Terms, one: Terms, other: Terms
) -> None:
    here, conflicts = merged(base, one, other)
    there, opposite = merged(base, other, one)
    assert bool(conflicts) == bool(opposite)
    if not conflicts:
        assert here == there
    most = count(base) | count(one) | count(other)
    for strategy in (None, "ours", "theirs", "mean"):
        found, _ = merged(base, one, other, strategy)  # type: ignore[arg-type]
        assert count(found) <= most, (strategy, line(found))


@MANY
@given(SIDE, SIDE)
def test_a_side_that_changed_nothing_changes_nothing(base: Terms, side: Terms) -> None:
    for strategy in (None, "ours", "theirs", "base"):
        assert merged(base, side, base, strategy) == (side, [])  # type: ignore[arg-type]
        assert merged(base, base, side, strategy) == (side, [])  # type: ignore[arg-type]
        assert merged(base, side, side, strategy) == (side, [])  # type: ignore[arg-type]
    assert merged({}, side, {}) == (side, [])


@given(SIDE, SIDE)
def test_terms_are_paired_the_same_in_both_directions(one: Terms, other: Terms) -> None:
    assert same_terms(one, other) == {name: old for old, name in same_terms(other, one).items()}
