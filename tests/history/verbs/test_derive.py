"""`repo.vectors.derive`: a sum of vectors becomes a vector, its expression flattened and rounded once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from persona.errors import InvalidInput, UnknownName
from persona.objects.recipe import from_binary32
from persona.objects.vector import Vector
from persona.repository import Repository
from tests.checkpoints import write_model
from tests.history.bots import Bot, advised, base_tensors, tuned


def ids(bot: Bot) -> dict[str, str]:
    return {name: term.id for name, term in bot.repo.recipe.items()}


def manifest(bot: Bot, id: str) -> Vector:
    return bot.repo._history.vector(id)


def coefficients(bot: Bot, id: str) -> dict[str, str]:
    """The coefficients of an expression by the names of its parts."""
    names = {part: name for name, part in reversed(ids(bot).items())}
    return {names[part]: coefficient for part, coefficient in manifest(bot, id).expression}


def test_a_difference_becomes_a_term_and_nothing_is_committed(grown: Bot) -> None:
    head = grown.repo.resolve()
    made = grown.repo.vectors.derive("gap", "listening - suggesting")
    assert (made.name, made.kind, made.change, made.alpha) == ("gap", "expression", "added", 1.0)
    assert made.expression == "listening - suggesting"
    assert ids(grown)["gap"] == made.id
    assert coefficients(grown, made.id) == {"listening": "1", "suggesting": "-1"}
    assert {part["name"]: part["coefficient"] for part in made.parts} == coefficients(grown, made.id)
    assert grown.repo.resolve() == head
    grown.commit(message="the gap")
    assert grown.repo["HEAD"].recipe.vectors["gap"].id == made.id
    assert grown.repo.fsck().ok


def test_the_options_are_those_of_a_term(grown: Bot) -> None:
    made = grown.repo.vectors.derive(
        "gap", "listening - suggesting", alpha="-0.5", density=0.25, only="*mlp*", except_=["*.0.*"]
    )
    term = grown.repo.recipe["gap"]
    assert (made.alpha, term.alpha, term.density, term.only, term.except_) == (
        -0.5,
        -0.5,
        0.25,
        ("*mlp*",),
        ("*.0.*",),
    )


def test_a_name_that_the_recipe_has_gets_the_new_vector_and_keeps_its_keys(grown: Bot) -> None:
    old = ids(grown)["listening"]
    made = grown.repo.vectors.derive("listening", "listening - suggesting")
    assert made.change == "replaced"
    assert made.expression == "listening - suggesting"
    assert grown.repo.recipe["listening"].alpha == 0.7
    assert old in dict(manifest(grown, made.id).expression)
    shown = grown.repo.vectors["listening"].expression
    assert shown is not None
    assert shown.replace("'", "") == f"{old[:8]} - suggesting"


def test_coefficients_are_exact_and_rounded_once(grown: Bot) -> None:
    made = grown.repo.vectors.derive("x", "listening / 3 + 0.1 * suggesting * 3")
    assert coefficients(grown, made.id) == {
        "listening": from_binary32(float(np.float32(1 / 3))),
        "suggesting": "0.3",
    }
    derived = grown.repo.vectors.derive("y", "10 * (x - listening / 3)")
    assert coefficients(grown, derived.id)["suggesting"] == "3"


def test_what_is_derived_from_derived_vectors_is_flat(grown: Bot) -> None:
    vectors = grown.repo.vectors
    gap = vectors.derive("gap", "listening - suggesting")
    more = vectors.derive("more", "2 * gap + suggesting")
    assert coefficients(grown, more.id) == {"listening": "2", "suggesting": "-1"}
    assert vectors.derive("again", "2*listening - suggesting").id == more.id
    assert vectors.derive("same", "gap").id == gap.id


def test_one_vector_times_one_is_that_vector(grown: Bot) -> None:
    listening = ids(grown)["listening"]
    vectors = grown.repo.vectors
    vectors.derive("gap", "listening - suggesting")
    for text in ("listening", "1 * listening", "gap + suggesting", "listening * 0.5 * 2", listening[:10]):
        made = vectors.derive("x", text)
        assert (made.id, made.kind) == (listening, "delta")
    assert "x and listening are the same vector" in made.notes[0]
    assert vectors.derive("y", "-listening").kind == "expression"


def test_parts_that_stay_in_the_recipe_are_noted(grown: Bot) -> None:
    made = grown.repo.vectors.derive("gap", "listening - suggesting")
    (note,) = made.notes
    names = [part["name"] for part in made.parts]
    assert note == f"{names[0]} and {names[1]} are still in recipe.toml, beside gap"
    assert f"repo.recipe.remove({names[0]!r}, {names[1]!r})" in advised(note)
    grown.repo.recipe.remove("listening", "suggesting")
    assert grown.repo.vectors.derive("gap", "gap").notes == ()


def test_a_vector_outside_the_recipe_is_found_by_its_kept_name_and_its_id(grown: Bot) -> None:
    other = grown.repo.add(grown.tune("other", 5)).vectors[0].id
    grown.repo.recipe.remove("other")
    first = grown.repo.vectors.derive("x", "other - listening")
    assert grown.repo.vectors.derive("x", f"{other[:12]} - listening").id == first.id
    assert first.expression == "other - listening"


def test_the_vector_keeps_a_name_until_a_commit_holds_it(grown: Bot) -> None:
    made = grown.repo.vectors.derive("gap", "listening - suggesting")
    grown.repo.recipe.remove("gap")
    assert grown.repo._history.store.refs.list("refs/vectors/") == {"refs/vectors/gap": made.id}
    assert grown.repo.vectors.derive("x", "2 * gap").expression == "2 * listening - 2 * suggesting"


def test_the_text_is_kept_as_a_note_that_comes_along_in_a_copy(grown: Bot) -> None:
    made = grown.repo.vectors.derive("gap", " listening-suggesting ")
    grown.repo.vectors.derive("gap", " listening-suggesting ")
    notes = grown.repo._history.store.refs.list("refs/notes/")
    assert len(notes) == 1
    note = json.loads(grown.repo.cat_file(next(iter(notes.values()))).text)
    assert (note["about"], note["kind"], note["data"]["expression"]) == (
        made.id,
        "provenance",
        "listening-suggesting",
    )
    assert note["data"]["vectors"] == {part["name"]: part["id"] for part in made.parts}
    assert grown.repo.fsck().ok


@pytest.mark.parametrize("text", ["listening - listening", "listening * suggesting", "listening + 1", "7"])
def test_a_refused_expression_changes_nothing(grown: Bot, text: str) -> None:
    before = grown.recipe.read_bytes(), grown.repo.count_objects()
    with pytest.raises(InvalidInput):
        grown.repo.vectors.derive("x", text)
    with pytest.raises(UnknownName):
        grown.repo.vectors.derive("x", "nobody - listening")
    with pytest.raises(InvalidInput):
        grown.repo.vectors.derive("x", "listening - suggesting", only="nothing.*")
    assert (grown.recipe.read_bytes(), grown.repo.count_objects()) == before


def test_coefficients_beyond_binary32_are_refused_and_tiny_ones_dropped(grown: Bot) -> None:
    with pytest.raises(InvalidInput, match="coefficient of listening is beyond the range"):
        grown.repo.vectors.derive("x", "1e39 * listening")
    made = grown.repo.vectors.derive("x", "1e-50 * listening + suggesting")
    assert made.id == ids(grown)["suggesting"]
    with pytest.raises(InvalidInput, match="rounded to 0"):
        grown.repo.vectors.derive("x", "1e-50 * listening")


def test_a_vector_of_another_base_is_refused(grown: Bot) -> None:
    other = base_tensors(9)
    write_model(grown.models / "other base", other)
    write_model(grown.models / "theirs", tuned(other, 3))
    with Repository.init(grown.models / "second", base=grown.models / "other base", chunk=64) as second:
        foreign = second.add(grown.models / "theirs").vectors[0].id
        manifest_bytes = second._history.vector(foreign).encode()
    with grown.repo._history.store.transaction() as tx:
        tx.put("vector", manifest_bytes)
    with pytest.raises(InvalidInput, match="belongs to a base with weights"):
        grown.repo.vectors.derive("x", f"listening - {foreign}")


def test_vectors_that_lost_their_names_are_shown_and_read_by_those_they_were_derived_under(
    grown: Bot,
) -> None:
    grown.repo.vectors.derive("gap", "listening - suggesting")
    grown.repo.recipe.remove("listening", "suggesting")
    grown.commit(message="only the gap")
    assert grown.repo.vectors["gap"].expression == "listening - suggesting"
    parts = {part["name"]: part["id"] for part in grown.repo.vectors["gap"].parts}
    assert {name: grown.repo.vectors[name].id for name in parts} == parts
    assert grown.repo.vectors.derive("x", "listening").kind == "delta"
    grown.repo.recipe.rename("x", "suggesting")
    shown = grown.repo.vectors["gap"].expression
    assert shown is not None
    assert shown.startswith("suggesting - ")


def test_a_commit_says_what_an_expression_is(grown: Bot) -> None:
    grown.repo.vectors.derive("gap", "listening - 0.5 * suggesting")
    (change,) = grown.commit(message="the gap").vectors
    assert (change.expression, change.change) == ("listening - 0.5 * suggesting", "added")


def test_an_expression_is_measured_like_any_vector(grown: Bot) -> None:
    grown.repo.vectors.derive("gap", "listening - suggesting")
    info = grown.repo.vectors["gap"]
    assert (info.tensors, info.elements) == (4, sum(bits.size for bits in grown.base.values()))
    assert info.changed_fraction
    assert info.l2
    found = grown.repo.vectors.statistics("gap")
    assert found.provenance[0]["expression"] == "listening - suggesting"
    assert [density for density, _ in found.kept] == [0.1, 0.2, 0.5]


def test_the_weights_of_a_lone_expression_are_the_base_and_the_sum(grown: Bot) -> None:
    grown.repo.vectors.derive("gap", "listening - suggesting")
    grown.repo.recipe.remove("listening", "suggesting")
    found = grown.checkout()
    for name, bits in grown.base.items():
        b, one, other = (
            (each.astype(np.uint32) << 16).view(np.float32)
            for each in (bits, grown.tunes["listening"][name], grown.tunes["suggesting"][name])
        )
        want = b + ((one - b) - (other - b))
        rounded = (want.view(np.uint32) + 0x7FFF + ((want.view(np.uint32) >> 16) & 1)) >> 16
        np.testing.assert_array_equal(found[name], rounded.astype(np.uint16))
